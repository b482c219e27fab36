//! Compares Lamina's placement with that of other allocators, on requests that both can express: the kubelet's own
//! code in all its modes, and an exhaustive search where the machine is small.
//!
//! Read `comparison` first; every other module is one of its steps.

pub mod comparison;
pub mod exhaustive;
pub mod instance;
pub mod kubelet;
pub mod lamina;
pub mod machine;
pub mod score;
pub mod shrink;
pub mod table;

use table::Series;

/// The instances that everybody is compared on.
pub const SERIES: Series = Series { seed: 2026, count: 21_000 };

/// The committed page.
pub const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/placement-comparison.md");
