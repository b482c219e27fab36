//! The whole of Lamina under every accident, in milliseconds: operator and agents, unchanged, on a simulated API server and
//! simulated hosts, with time and chance given by a seed.

pub mod accident;
pub mod api;
pub mod asked;
pub mod chance;
pub mod course;
pub mod crashes;
pub mod hand;
pub mod history;
pub mod host;
pub mod judgement;
pub mod operators;
pub mod past;
pub mod scenario;
pub mod search;
pub mod story;
pub mod truth;
mod wake;
pub mod wish;
pub mod witness;
pub mod world;
