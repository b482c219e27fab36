//! The built program on machines made of files.

mod commands;
mod map;
mod program;
