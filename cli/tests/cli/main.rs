//! The built program on machines made of files.

mod commands;
mod import;
mod map;
mod program;
