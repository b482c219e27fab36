//! The images of operator and node-agent: static programs on nothing, the same bytes from the same source, no daemon.

pub mod blob;
pub mod image;
pub mod layer;
pub mod layout;
pub mod programs;
pub mod recipe;
pub mod registry;
pub mod sbom;
