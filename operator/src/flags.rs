//! What the operator may be told on its command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use lamina_endpoint::Listen;

/// Turns SliceTopologies into one resolved HostState per host, and says truthfully how far they are.
#[derive(Debug, Parser)]
#[command(name = "lamina-operator", version)]
pub struct Flags {
    /// What to do instead of working.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to reach the API server; without it the pod's service account is used.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the agents' Leases, and of the operators' own.
    #[arg(long, env = "POD_NAMESPACE", default_value = "lamina-system", value_name = "NAME")]
    pub lease_namespace: String,
    /// The Lease that all operators of one installation share; who holds it leads.
    #[arg(long, default_value = "lamina-operator", value_name = "NAME")]
    pub lease_name: String,
    /// What this operator is called in that Lease, to which something is added that no other process has.
    #[arg(long, env = "POD_NAME", default_value = "lamina-operator", value_name = "NAME")]
    pub identity: String,
    /// Where to answer those who watch the operator (/livez, /readyz, /metrics); `none` for nowhere.
    #[arg(long, default_value_t = Listen::Nowhere, value_name = "ADDRESS:PORT")]
    pub listen: Listen,
    /// The form of the log.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What the operator does instead of working.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deletes every SliceTopology as if its deletionPolicy were Remove, and waits until all hosts have removed everything.
    /// Needs an operator that runs.
    Teardown {
        /// How long it may take, in seconds.
        #[arg(long, value_name = "SECONDS")]
        deadline: u64,
    },
}

/// The form of a log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}
