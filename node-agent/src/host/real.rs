//! The real host: puts together what files, systemd, cgroups and processes say, and carries out each effect.

#![expect(clippy::disallowed_methods, reason = "reads its own capabilities, and how long each effect took")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use lamina_crds::{Hardware, TopologyName, UnitKind, UnitName};

use crate::desired::TextDigests;
use crate::hardware;
use crate::host::preflight::{self, Access};
use crate::host::root::Root;
use crate::host::search_path::{Concern, UNIT_DIRECTORIES, WANTS, concern};
use crate::host::systemd::Systemd;
use crate::host::{Host, HostError, JobResult, cgroups, log_fields, processes, start_properties, unit_dir};
use crate::host_path::{FILES, HostPath};
use crate::observed::{ObservedFile, ObservedHost, ObservedUnit, Scope};
use crate::property::Properties;

/// The host this agent runs on.
pub struct RealHost {
    root: Root,
    bus_address: String,
    systemd: Systemd,
    topologies: BTreeSet<TopologyName>,
}

impl RealHost {
    /// The host whose file system is at `root` and whose bus is at `bus_address`; without an address the bus is where
    /// the host has its socket.
    pub fn new(root: impl Into<PathBuf>, bus_address: Option<String>) -> Self {
        let root = Root::new(root);
        let socket = root.path().join("run/dbus/system_bus_socket");
        let address = bus_address.unwrap_or_else(|| format!("unix:path={}", socket.display()));
        Self { root, bus_address: address.clone(), systemd: Systemd::new(address), topologies: BTreeSet::new() }
    }

    /// Where its file system is.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where its bus is.
    pub fn bus_address(&self) -> &str {
        &self.bus_address
    }

    /// The topologies that were looked at last; their files, units and cgroups are worth watching.
    pub fn topologies(&self) -> &BTreeSet<TopologyName> {
        &self.topologies
    }

    /// The capabilities of this process in hexadecimal, capabilities(7) `CapEff`; none is needed.
    pub fn own_capabilities(&self) -> String {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        effective.unwrap_or("unknown").trim().to_owned()
    }

    /// How many calls were made on the bus since the start.
    pub fn bus_calls(&self) -> u64 {
        self.systemd.calls()
    }
}

impl RealHost {
    async fn look(&mut self, scope: &Scope) -> Result<ObservedHost, HostError> {
        self.topologies.clone_from(&scope.topologies);
        let state = self.systemd.state().await?;
        let files = at("/etc/systemd/system", "list", files(&self.root, &scope.topologies))?;
        let mut units = scope.units.clone();
        units.extend(self.systemd.loaded(&scope.topologies).await?);
        let units = self.systemd.units(&units).await?;
        let mount = at("/proc/self/mounts", "read", cgroups::mount(&self.root))?;
        let mut units = at("/sys/fs/cgroup", "read", measured(&self.root, mount.as_deref(), units))?;
        let asked: Vec<&str> = scope.env_files.iter().map(|(path, _)| path.as_str()).collect();
        let limits = &state.default_limits;
        at("/etc/systemd/system", "read", start_properties::complete_all(&self.root, &mut units, &asked, limits))?;
        let controllers = at("/sys/fs/cgroup", "read", cgroups::controllers(&self.root, mount.as_deref()))?;
        let boot =
            at("/proc/sys/kernel/random/boot_id", "read", self.root.read_kernel("/proc/sys/kernel/random/boot_id"))?;
        let users = at("/etc/passwd", "read", preflight::users(&self.root))?;
        let executable = |path: &_| preflight::usable(&self.root, path, None, Access::Execute);
        let readable = |path: &_, user: &_| match users.get(user) {
            Some(user) => preflight::usable(&self.root, path, Some(user), Access::Read),
            None => Err(format!("has no reader: user {user} does not exist")),
        };
        Ok(ObservedHost {
            boot_id: boot.unwrap_or_default().trim().to_owned(),
            systemd_version: state.version,
            system_state: state.system_state,
            controllers,
            files,
            units,
            users: scope.users.iter().filter(|user| users.contains_key(*user)).cloned().collect(),
            executables: scope.executables.iter().map(|path| (path.clone(), executable(path.as_str()))).collect(),
            env_files: scope.env_files.iter().map(|key| (key.clone(), readable(key.0.as_str(), &key.1))).collect(),
        })
    }
}

impl Host for RealHost {
    async fn hardware(&mut self) -> Result<Hardware, HostError> {
        let systemd = self.systemd.state().await?.version.to_string();
        // A pod has the machine's CPUs in its own /sys; the files of the operating system are the host's.
        let has_own = self.root.path().join("sys/devices/system/cpu/online").exists();
        let machine = if has_own { self.root.path() } else { std::path::Path::new("/") };
        let hardware = hardware::read_apart(machine, self.root.path(), &systemd).map_err(io::Error::other);
        let mut hardware = at("/sys", "read the hardware below", hardware)?;
        let identity = self.read(&HostPath::new("/etc/machine-id")).await?.unwrap_or_default();
        hardware.machine_id = String::from_utf8_lossy(&identity).trim().chars().take(64).collect();
        Ok(hardware)
    }

    async fn observe(&mut self, scope: &Scope) -> Result<ObservedHost, HostError> {
        timed("observe", "everything", self.look(scope)).await
    }

    async fn read(&mut self, path: &HostPath) -> Result<Option<Vec<u8>>, HostError> {
        on(path, "read", unit_dir::read(&self.root, path))
    }

    async fn make_directory(&mut self, path: &HostPath) -> Result<(), HostError> {
        timed("make directory", path, async { on(path, "make directory", unit_dir::make_directory(&self.root, path)) })
            .await
    }

    async fn write(&mut self, path: &HostPath, content: &[u8]) -> Result<(), HostError> {
        timed("write", path, async { on(path, "write", unit_dir::write(&self.root, path, content)) }).await
    }

    async fn mode(&mut self, path: &HostPath) -> Result<u32, HostError> {
        on(path, "read the mode of", unit_dir::mode(&self.root, path))
    }

    async fn set_mode(&mut self, path: &HostPath, mode: u32) -> Result<(), HostError> {
        on(path, "set the mode of", unit_dir::set_mode(&self.root, path, mode))
    }

    async fn sync(&mut self, path: &HostPath) -> Result<(), HostError> {
        timed("sync", path, async { on(path, "sync", unit_dir::sync(&self.root, path)) }).await
    }

    async fn rename(&mut self, from: &HostPath, to: &HostPath) -> Result<(), HostError> {
        on(from, "rename", unit_dir::rename(&self.root, from, to))
    }

    async fn link(&mut self, path: &HostPath, target: &str) -> Result<(), HostError> {
        on(path, "link", unit_dir::link(&self.root, path, target))
    }

    async fn remove(&mut self, path: &HostPath) -> Result<(), HostError> {
        timed("remove", path, async { on(path, "remove", unit_dir::remove(&self.root, path)) }).await
    }

    async fn reload(&mut self) -> Result<(), HostError> {
        timed("reload", "systemd", self.systemd.reload()).await
    }

    async fn start(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        timed("start", unit, self.systemd.job("start", "StartUnit", unit)).await
    }

    async fn stop(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        timed("stop", unit, self.systemd.job("stop", "StopUnit", unit)).await
    }

    async fn restart(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        timed("restart", unit, self.systemd.job("restart", "RestartUnit", unit)).await
    }

    async fn reset_failed(&mut self, unit: &UnitName) -> Result<(), HostError> {
        self.systemd.reset_failed(unit).await
    }

    async fn set_properties(&mut self, unit: &UnitName, properties: &Properties) -> Result<(), HostError> {
        timed("set properties", unit, self.systemd.set_properties(unit, properties)).await
    }
}

/// Carries out an effect; the log of the finest level says how long it took.
async fn timed<T>(effect: &'static str, object: impl Display, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = work.await;
    tracing::trace!(effect, %object, microseconds = begun.elapsed().as_micros(), "carried out");
    done
}

fn on<T>(path: &HostPath, attempt: &'static str, result: io::Result<T>) -> Result<T, HostError> {
    result.map_err(|source| HostError::File { attempt, path: path.clone(), source })
}

fn at<T>(path: &str, attempt: &'static str, result: io::Result<T>) -> Result<T, HostError> {
    on(&HostPath::new(path), attempt, result)
}

/// Every file at a path that is one of these topologies' to use.
fn files(root: &Root, topologies: &BTreeSet<TopologyName>) -> io::Result<BTreeMap<HostPath, ObservedFile>> {
    let mut files = BTreeMap::new();
    for directory in UNIT_DIRECTORIES {
        for name in unit_dir::names(root, &HostPath::new(directory))? {
            let path = HostPath::new(format!("{directory}/{name}"));
            match topologies.iter().map(|topology| concern(&name, topology)).find(|concern| *concern != Concern::None) {
                Some(Concern::Unit) => files.extend(unit_dir::look(root, &path)?.map(|file| (path, file))),
                Some(Concern::DropIns) => {
                    files.extend(unit_dir::list(root, &path, |_| true)?);
                    files.extend(unit_dir::look(root, &path)?.map(|file| (path, file)));
                }
                Some(Concern::None) | None => {}
            }
        }
    }
    let is_ours = |name: &str| topologies.iter().any(|topology| concern(name, topology) == Concern::Unit);
    files.extend(unit_dir::list(root, &HostPath::new(WANTS), is_ours)?);
    for topology in topologies {
        let directory = HostPath::new(format!("{FILES}/{topology}"));
        files.extend(unit_dir::list(root, &directory, |_| true)?);
        files.extend(unit_dir::look(root, &directory)?.map(|file| (directory, file)));
    }
    Ok(files)
}

/// The digests of the text that a unit's process was started from, if systemd kept them for this very start.
fn started_from(root: &Root, unit: &UnitName) -> io::Result<Option<TextDigests>> {
    let file = HostPath::new(log_fields::file_of(unit.as_str()));
    let started = unit_dir::changed_at(root, &HostPath::new(log_fields::invocation_of(unit.as_str())))?;
    let is_of_this_start = unit_dir::changed_at(root, &file)? >= started;
    let fields = unit_dir::read(root, &file)?.filter(|_| is_of_this_start);
    Ok(fields.as_deref().and_then(log_fields::parse))
}

/// The units with what their cgroups and processes show.
fn measured(
    root: &Root,
    mount: Option<&str>,
    mut units: BTreeMap<UnitName, ObservedUnit>,
) -> io::Result<BTreeMap<UnitName, ObservedUnit>> {
    for (name, unit) in &mut units {
        if unit.main_pid != 0 {
            unit.started_from = started_from(root, name)?;
        }
        let Some(mount) = mount.filter(|_| !unit.control_group.is_empty()) else { continue };
        let state = cgroups::state(root, mount, &unit.control_group)?;
        unit.kernel = state.kernel;
        unit.effective_cpus = state.cpus;
        unit.effective_memory_nodes = state.memory_nodes;
        if name.kind() == UnitKind::Service {
            unit.threads = processes::threads(root, mount, &unit.control_group, unit.main_pid)?;
        }
    }
    Ok(units)
}
