//! The cluster as the verbs see it that ask one: kubectl is run, and what it shows is read.

pub mod agent;
pub mod kubectl;
pub mod objects;

pub use kubectl::{Kubectl, News};
pub use objects::Objects;
