//! The documentation says what is so: links lead somewhere, objects are accepted, commands do what stands below them.

mod commands;
mod coverage;
mod links;
mod messages;
mod names;
mod objects;
mod pages;
