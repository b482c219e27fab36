//! kubectl-lamina: what Lamina knows, decides and does on one machine, and what a cluster's hosts are like.
//!
//! Read `commands` first: each verb is a short path from a source through a pure decision to text.

pub mod age;
pub mod arguments;
pub mod asked;
pub mod cluster;
pub mod commands;
pub mod completion;
pub mod document;
pub mod drawing;
mod formatted;
pub mod here;
pub mod import;
pub mod import_table;
pub mod inventory;
pub mod jsonl;
#[cfg(all(feature = "local", target_os = "linux"))]
pub mod local;
pub mod manual;
pub mod outcome;
pub mod plan;
pub mod plan_table;
pub mod reference;
pub mod settings;
pub mod shape;
pub mod source;
pub mod status;
pub mod table;
pub mod terminal;
pub mod top;
pub mod verify;
