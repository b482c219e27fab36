//! lamina-operator: turns `SliceTopology` objects into one resolved `HostState` per host and folds what the hosts report.
//!
//! Read `controller` first: it is the straight path, and every other module is one of its steps.

pub mod aggregate;
pub mod changes;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod controller;
mod decoded;
pub mod election;
pub mod entry;
pub mod flags;
pub mod kube_cluster;
pub mod leadership;
pub mod liveness;
pub mod memory;
pub mod news;
mod pause;
pub mod placement;
pub mod preview;
pub mod promises;
pub mod readings;
pub mod resolve;
#[cfg(test)]
pub(crate) mod scene;
pub mod selection;
pub mod shortage;
pub mod snapshot;
pub mod standing;
pub mod teardown;
pub mod view;
