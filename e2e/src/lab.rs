//! A lab: hosts, and a place for their control plane, in one folder; any number of labs live side by side.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    cache::Cache,
    host::{HostSpec, Layout, Lifetime, QemuHost},
    image::Suite,
    progress,
};

/// What a lab remembers about itself, in its folder.
const RECORD: &str = "lab.json";

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

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    api_port: u16,
}

/// A lab on disk; what runs in it outlives this value and this program.
#[derive(Clone, Debug)]
pub struct Lab {
    folder: PathBuf,
}

impl Lab {
    /// The lab `name` below `state`, whether it is up or not.
    pub fn new(state: &Path, name: &str) -> Result<Self> {
        if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
            bail!("{name:?} is no name for a lab; use letters, digits and dashes");
        }
        Ok(Self { folder: state.join(name) })
    }

    /// Where labs live by default: `lamina-lab` below `XDG_STATE_HOME` or `~/.local/state`.
    pub fn default_state() -> Result<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
        Ok(base.context("finding the lab: none of --state, XDG_STATE_HOME and HOME is set")?.join("lamina-lab"))
    }

    /// The folder that holds everything of this lab.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is anything to take down.
    pub fn exists(&self) -> bool {
        self.folder.join(RECORD).is_file()
    }

    /// Makes the lab's folder and chooses the port where its API server will listen.
    pub fn create(&self) -> Result<()> {
        if self.exists() {
            bail!("the lab in {} is up already; take it down with `lamina-lab down`", self.folder.display());
        }
        fs::create_dir_all(self.hosts_folder()).with_context(|| format!("creating {}", self.folder.display()))?;
        let text = serde_json::to_string(&Record { api_port: free_port()? }).context("describing the lab")?;
        fs::write(self.folder.join(RECORD), text).with_context(|| format!("writing {RECORD}"))
    }

    /// The loopback port that the hosts reach as their API server.
    pub fn api_port(&self) -> Result<u16> {
        let path = self.folder.join(RECORD);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("no lab is up in {}; start one with `lamina-lab up`", self.folder.display()))?;
        let Record { api_port } = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        Ok(api_port)
    }

    /// Starts the hosts, one after the other: they would only take the processors from each other.
    pub async fn start_hosts(&self, cache: &Cache, spec: &LabSpec) -> Result<Vec<QemuHost>> {
        let LabSpec { hosts, suite, layout, node_mebibytes } = spec.clone();
        let api_port = Some(self.api_port()?);
        let mut started = Vec::new();
        for number in 1..=hosts {
            let name = format!("host-{number}");
            let what = format!("starting {name} ({suite}, CPUs {layout})");
            let folder = self.hosts_folder().join(&name);
            fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
            let layout = layout.clone();
            let spec = HostSpec { name, suite, layout, node_mebibytes, api_port, lifetime: Lifetime::Detached };
            started.push(progress::during(&what, QemuHost::restore(cache, spec, &folder)).await?);
        }
        Ok(started)
    }

    /// The hosts of the lab, by name.
    pub fn hosts(&self) -> Result<Vec<QemuHost>> {
        let folder = self.hosts_folder();
        let entries = fs::read_dir(&folder).with_context(|| format!("listing the hosts in {}", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        // A host whose start was interrupted has left no record.
        Ok(paths.iter().filter_map(|path| QemuHost::attach(path).ok()).collect())
    }

    /// The host called `name`.
    pub fn host(&self, name: &str) -> Result<QemuHost> {
        let api_port = self.api_port().map(drop);
        api_port
            .and_then(|()| QemuHost::attach(&self.hosts_folder().join(name)))
            .with_context(|| format!("the lab has no host {name}; `lamina-lab status` lists them"))
    }

    /// Ends every host and removes the lab's folder; a lab that is not up is fine.
    pub fn take_down(&self) -> Result<()> {
        if self.hosts_folder().is_dir() {
            for mut host in self.hosts()? {
                host.cut_power()?;
            }
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    fn hosts_folder(&self) -> PathBuf {
        self.folder.join("hosts")
    }
}

/// A port that nobody listens on now; the API server takes it soon.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}
