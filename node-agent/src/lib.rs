//! The agent of one host: diffs what the host should be against what it is, applies, heals, and reports what it measured.

pub mod agent;
pub mod cluster;
pub mod desired;
pub mod host;
pub mod host_path;
pub mod marker;
pub mod observed;
pub mod property;
pub mod unit_text;
