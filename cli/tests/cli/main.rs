//! The built program on machines made of files.

mod cluster;
mod commands;
mod import;
mod manual;
mod map;
mod program;
