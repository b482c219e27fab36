//! lamina-operator: turns `SliceTopology` objects into one resolved `HostState` per host and folds what the hosts report.
//!
//! Read `controller` first: it is the straight path, and every other module is one of its steps.

pub mod changes;
pub mod cluster;
pub mod entry;
pub mod placement;
pub mod resolve;
pub mod selection;
pub mod snapshot;
pub mod view;
