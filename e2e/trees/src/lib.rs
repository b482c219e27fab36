//! Machines that never were, for tests: describes them, draws them at random by a seed, writes them as the trees of files
//! that a kernel would show, and damages these trees.
//!
//! ```no_run
//! let machine = lamina_trees::shapes::two_times_28();
//! lamina_trees::write(&machine, std::path::Path::new("/tmp/machine")).expect("a tree");
//! ```

mod any;
pub mod damage;
pub mod machine;
pub mod random;
pub mod sets;
pub mod shapes;
mod write;

pub use any::any_machine;
pub use machine::{Machine, Numbering, Shape};
pub use random::Random;
pub use sets::Ids;
pub use write::write;
