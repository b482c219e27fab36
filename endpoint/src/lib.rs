//! What operator and agent answer to those who watch them: whether the loop lives, whether it is ready, what it counted.
//!
//! `catalog` names everything that is measured, `health`, `answer` and `conditions` decide, `readings` holds what was measured last,
//! `look` takes looks for those who ask for more, `serve` listens.

pub mod answer;
pub mod catalog;
pub mod conditions;
pub mod health;
pub mod listen;
pub mod look;
pub mod readings;
pub mod reference;
pub mod serve;

pub use catalog::Metric;
pub use conditions::by_status;
pub use health::Health;
pub use listen::Listen;
pub use look::{Look, Looks};
pub use readings::{Reading, Readings};
pub use serve::serve;
