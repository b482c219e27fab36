//! kubectl-lamina: what Lamina knows, decides and does, without a cluster.
//!
//! Read `commands` first: each verb is a short path from a source through a pure decision to text.

pub mod arguments;
pub mod commands;
pub mod document;
pub mod drawing;
mod formatted;
pub mod import;
pub mod import_table;
pub mod inventory;
pub mod jsonl;
#[cfg(all(feature = "local", target_os = "linux"))]
pub mod local;
pub mod outcome;
pub mod plan;
pub mod plan_table;
pub mod settings;
pub mod shape;
pub mod source;
pub mod table;
pub mod terminal;
