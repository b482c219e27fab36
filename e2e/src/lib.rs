//! The harness: real control planes and real systemd hosts that tests, the demo and `lamina-lab` are made of.

pub mod bench;
pub mod cache;
pub mod cargo_tool;
pub mod chart;
pub mod control_plane;
pub mod deb;
pub mod demo;
pub mod examples;
pub mod fleet;
pub mod go_program;
pub mod guide;
pub mod host;
pub mod identity;
pub mod image;
pub mod krew;
pub mod lab;
pub mod monitoring_kinds;
pub mod node;
pub mod packages;
pub mod program;
pub mod progress;
pub mod prometheus;
pub mod registry;
pub mod relay;
pub mod tether;
pub mod unpacked;
