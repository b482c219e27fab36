//! A lab: a control plane with Lamina on it and hosts that it manages, in one folder; any number of labs live side by side.

#![expect(clippy::disallowed_methods, reason = "it keeps the lab's record")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    cache::Cache,
    fleet::{Fleet, agent},
    host::{
        HostSpec, Layout, Lifetime, QemuHost,
        process::{Process, ProcessId},
    },
    identity::Identity,
    image::Suite,
    program, progress,
};

/// What a lab remembers about itself, in its folder.
const RECORD: &str = "lab.json";

/// The log of the process that renews the lab's tokens.
const TENDER_LOG: &str = "tender.log";

/// What a person asks a lab to be.
#[derive(Clone, Debug)]
pub struct LabSpec {
    /// How many hosts; they are named host-1, host-2 and so on.
    pub hosts: u32,
    /// What they run.
    pub suite: Suite,
    /// Their CPUs and nodes.
    pub layout: Layout,
    /// The memory of each node, in MiB.
    pub node_mebibytes: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    tender: Option<ProcessId>,
}

/// A lab on disk; what runs in it outlives this value and this program.
#[derive(Clone, Debug)]
pub struct Lab {
    folder: PathBuf,
    name: String,
}

impl Lab {
    /// The lab `name` below `state`, whether it is up or not.
    pub fn new(state: &Path, name: &str) -> Result<Self> {
        if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
            bail!("{name:?} is no name for a lab; use letters, digits and dashes");
        }
        Ok(Self { folder: state.join(name), name: name.to_owned() })
    }

    /// Where labs live by default: `lamina-lab` below `XDG_STATE_HOME` or `~/.local/state`.
    pub fn default_state() -> Result<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
        Ok(base.context("finding the lab: none of --state, XDG_STATE_HOME and HOME is set")?.join("lamina-lab"))
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that holds everything of this lab.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is anything to take down.
    pub fn exists(&self) -> bool {
        self.folder.join(RECORD).is_file()
    }

    /// Starts the control plane, installs Lamina, and boots the hosts with their agents.
    pub async fn up(&self, cache: &Cache, spec: &LabSpec) -> Result<Fleet> {
        if self.exists() {
            bail!("the lab in {} is up already; take it down with `lamina-lab down`", self.folder.display());
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("creating {}", self.folder.display()))?;
        self.remember(&Record::default())?;
        let what = "starting a control plane and installing Lamina with Helm";
        let mut fleet = progress::during(what, Fleet::install(&self.folder, Lifetime::Detached)).await?;
        let LabSpec { hosts, suite, layout, node_mebibytes } = spec.clone();
        let labels = [("lamina.dev/role", "orchestrator")];
        for number in 1..=hosts {
            let name = format!("host-{number}");
            let what = format!("starting {name} ({suite}, CPUs {layout}) and its agent");
            let (layout, lifetime) = (layout.clone(), Lifetime::Detached);
            let spec = HostSpec { suite, layout, node_mebibytes, lifetime, ..HostSpec::twenty(&name, suite) };
            progress::during(&what, fleet.add_host(cache, spec, &labels)).await?;
        }
        progress::during("starting the operator", fleet.start_operator(Lifetime::Detached)).await?;
        self.start_tender()?;
        Ok(fleet)
    }

    /// The lab's fleet, as another program left it running.
    pub async fn fleet(&self) -> Result<Fleet> {
        if !self.exists() {
            bail!("no lab is up in {}; start one with `lamina-lab up`", self.folder.display());
        }
        Fleet::attach(&self.folder).await
    }

    /// The host called `name`.
    pub fn host(&self, name: &str) -> Result<QemuHost> {
        QemuHost::attach(&self.folder.join("hosts").join(name))
            .with_context(|| format!("the lab has no host {name}; `lamina-lab status` lists them"))
    }

    /// Renews the tokens of the operator and of every agent before they end, until the lab is taken down.
    pub async fn tend(&self) -> Result<()> {
        let fleet = self.fleet().await?;
        let agents = fleet.hosts.keys().cloned().map(Identity::Agent);
        let identities: Vec<Identity> = [Identity::Operator].into_iter().chain(agents).collect();
        let fleet = &fleet;
        let deliver = |identity: Identity, token: String| async move {
            match identity {
                Identity::Agent(host) => agent::renew(fleet.host(&host)?, &token).await,
                Identity::Operator => fleet.operators().iter().try_for_each(|operator| operator.renew(&token)),
            }
        };
        fleet.identities().keep(&identities, deliver).await
    }

    /// Ends everything of the lab and removes its folder; a lab that is not up is fine.
    pub async fn take_down(&self) -> Result<()> {
        if let Some(tender) = self.record().tender.filter(ProcessId::is_alive) {
            tender.kill()?;
        }
        Fleet::take_down(&self.folder).await?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.folder.display()))
            }
            Err(_) | Ok(()) => Ok(()),
        }
    }

    fn start_tender(&self) -> Result<()> {
        let state = self.folder.parent().and_then(Path::to_str).context("the lab's folder is text")?;
        let words = ["--state", state, "--name", &self.name, "tend"].map(str::to_owned);
        let program = program::built("lamina-lab")?;
        let process = Process::start(&program, &words, &self.folder, TENDER_LOG, Lifetime::Detached)?;
        self.remember(&Record { tender: Some(process.id().clone()) })
    }

    fn record(&self) -> Record {
        let text = fs::read(self.folder.join(RECORD)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn remember(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).context("describing the lab")?;
        fs::write(self.folder.join(RECORD), text).with_context(|| format!("writing {RECORD}"))
    }
}
