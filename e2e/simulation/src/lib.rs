//! The whole of Lamina under every accident, in milliseconds: operator and agents, unchanged, on a simulated API server and
//! simulated hosts, with time and chance given by a seed.

pub mod accident;
pub mod hand;
pub mod host;
pub mod random;
pub mod story;
pub mod truth;
pub mod witness;
