//! What the agent may be told on its command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use lamina_crds::TopologyName;
use lamina_crds::host_state::AgentForm;
use lamina_endpoint::Listen;

use crate::agent::Settings;

/// Keeps this host as its HostState asks: systemd slices and services on their CPUs, memory nodes and limits, measured.
#[derive(Debug, Parser)]
#[command(name = "lamina-node-agent", version, subcommand_negates_reqs = true)]
pub struct Options {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where the host's file system is seen.
    #[arg(long, default_value = "/", value_name = "DIRECTORY")]
    pub host_root: PathBuf,
    /// The host's name, which is the name of its HostState.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", required = true)]
    pub node_name: Option<String>,
    /// How the agent was started.
    #[arg(long, value_enum, default_value_t = Form::Host)]
    pub form: Form,
    /// How to reach the API server; without it, as pods do.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of the agents' Leases.
    #[arg(long, env = "LEASE_NAMESPACE", default_value = "lamina-system", value_name = "NAMESPACE")]
    pub lease_namespace: String,
    /// The host's bus, if it is not at /run/dbus/system_bus_socket below the host's root.
    #[arg(long, env = "DBUS_SYSTEM_BUS_ADDRESS", value_name = "ADDRESS")]
    pub bus_address: Option<String>,
    /// Where to answer those who watch the agent (/livez, /readyz, /metrics) and ask for this host (/verify, /top); `none`
    /// for nowhere.
    #[arg(long, env = "LAMINA_LISTEN", default_value_t = Listen::Nowhere, value_name = "ADDRESS:PORT")]
    pub listen: Listen,
    /// The form of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Makes one pass and ends; exits with 0 if everything asked is true, with 2 if not.
    #[arg(long)]
    pub once: bool,
}

/// What the agent does instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Puts back the unit files that a topology took the place of (`adoption: Replace`), once it is released. Stops
    /// nothing and starts nothing.
    Restore {
        /// The topology's name.
        topology: TopologyName,
    },
}

/// How an agent was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// As a pod of the DaemonSet.
    Pod,
    /// As a service of the host.
    Host,
}

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Options {
    /// What a pass is told of this agent.
    ///
    /// # Errors
    /// Fails without the host's name, which only `restore` does without.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings {
            host: self.node_name.clone().context("--node-name is needed")?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            form: match self.form {
                Form::Pod => AgentForm::Pod,
                Form::Host => AgentForm::Host,
            },
        })
    }
}
