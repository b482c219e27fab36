//! The agent of one host: diffs what the host should be against what it is, applies, heals, and reports what it measured.

pub mod accept;
pub mod agent;
pub mod apply;
pub mod before_image;
pub mod checksummed;
pub mod cluster;
pub mod comparison;
pub mod converge;
pub mod desired;
pub mod drift;
pub mod environment_file;
pub mod foresight;
pub mod hardware;
pub mod health;
pub mod host;
pub mod host_path;
mod instruction;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod kube_cluster;
pub mod marker;
pub mod memory;
pub mod migration;
#[cfg(test)]
mod model;
pub mod numa;
pub mod observed;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod options;
pub mod plan;
pub mod preflight;
pub mod property;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod readings;
pub mod render;
pub mod replace;
pub mod report;
pub mod restore;
mod save;
pub mod start_settings;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod survey;
pub mod takeover;
pub mod unit_settings;
pub mod unit_text;
pub mod usage;
pub mod verify;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod watch;
