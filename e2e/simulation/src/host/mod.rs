//! A host of three layers behind the agent's own seam: a disk, a systemd, a kernel. Every verb that changes something
//! counts as an effect, at which an accident may happen; every one is seen by a witness.

pub mod disk;
mod jobs;
pub mod kernel;
pub mod loaded;
mod look;
pub mod systemd;
mod unit_file;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use lamina_crds::hardware::{CpuInventory, NumaNode, Package};
use lamina_crds::{Bytes, CpuSet, Hardware, UnitName};
use lamina_node_agent::host::{Host, HostError, JobResult};
use lamina_node_agent::host_path::{HostPath, RUNTIME_CONTROL};
use lamina_node_agent::observed::{ObservedHost, Scope};
use lamina_node_agent::property::{Properties, Property, Value};

use crate::accident::{Accident, Fuse, Place};
use crate::host::disk::Disk;
use crate::host::kernel::{Cgroups, Machine};
use crate::host::systemd::{CallError, Grounds, Installed, Systemd};
use crate::story::Story;
use crate::witness::{Touch, Witness};
use lamina_trees::Random;

/// A host with its three layers and everything that is installed on it.
#[derive(Clone, Debug)]
pub struct SimulatedHost {
    /// Its name in the cluster.
    pub name: String,
    /// Layer one.
    pub disk: Disk,
    /// Layer two.
    pub systemd: Systemd,
    /// Layer three.
    pub cgroups: Cgroups,
    /// CPUs and nodes.
    pub machine: Machine,
    /// Programs and users.
    pub installed: Installed,
    /// Files of other people with their content: nobody of ours may touch them.
    pub foreign: BTreeMap<String, Vec<u8>>,
    /// Permission bits of files, other than 0644.
    pub modes: BTreeMap<String, u32>,
    /// Sees what the agent does.
    pub witness: Witness,
    /// Counts effects and lets accidents happen.
    pub fuse: Fuse,
    /// Where to tell what happens.
    pub story: Story,
    /// Counts what an agent would hear of: whatever systemd, inotify and the kernel tell.
    pub stirs: u64,
    boots: u32,
}

/// What a host is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// systemd's version: 252, 257 or 262.
    pub systemd: u32,
    /// The CPUs of each NUMA node.
    pub nodes: Vec<CpuSet>,
}

impl SimulatedHost {
    /// A host that has just been installed and booted, with the user and the directories that a Debian has.
    pub fn new(name: &str, kind: &Kind, fuse: Fuse, story: Story) -> Self {
        let present = kind.nodes.iter().fold(CpuSet::new(), |all, node| all.union(node));
        let mut disk = Disk::default();
        for directory in
            ["/etc/systemd/system/multi-user.target.wants", "/var/lib", "/run/systemd/system", "/etc/default"]
        {
            // A new disk has room and nothing in the way.
            let _ = disk.make_directory(directory);
        }
        disk.shut_down();
        Self {
            name: name.to_owned(),
            disk,
            systemd: Systemd::new(kind.systemd),
            cgroups: Cgroups::default(),
            machine: Machine { online: present.clone(), present, nodes: kind.nodes.clone() },
            installed: Installed { users: BTreeSet::from(["app".to_owned()]), ..Installed::default() },
            foreign: BTreeMap::new(),
            modes: BTreeMap::new(),
            witness: Witness::default(),
            fuse,
            story,
            stirs: 0,
            boots: 1,
        }
    }

    /// The same host in another world.
    pub fn moved_to(&self, fuse: &Fuse, story: &Story) -> Self {
        Self { fuse: fuse.clone(), story: story.clone(), ..self.clone() }
    }

    /// Lets systemd work on the other layers.
    pub fn with_systemd<T>(&mut self, work: impl FnOnce(&mut Systemd, &mut Grounds<'_>) -> T) -> T {
        let Self { disk, systemd, cgroups, machine, installed, .. } = self;
        let before = systemd.stuck_places(cgroups, machine);
        let result = work(systemd, &mut Grounds { disk, cgroups, machine, installed });
        systemd.release_stuck(&before, cgroups, machine);
        result
    }

    /// The power goes and comes back: what is not durable may be lost.
    pub fn lose_power(&mut self, random: &mut Random) {
        self.witness.is_file_in_doubt = true;
        self.disk.lose_power(random);
        self.boot();
    }

    /// An orderly reboot.
    pub fn reboot(&mut self) {
        self.disk.shut_down();
        self.boot();
    }

    fn boot(&mut self) {
        self.boots += 1;
        self.machine.online = self.machine.present.clone();
        self.with_systemd(|systemd, grounds| systemd.boot(grounds));
    }

    /// A few seconds pass: what systemd starts again by itself is started again.
    pub fn tick(&mut self) {
        if self.systemd.waits_to_restart() {
            self.stirs += 1;
            self.with_systemd(|systemd, grounds| systemd.tick(grounds));
        }
    }

    /// A foreign hand writes into a cgroup's file.
    pub fn write_cgroup(&mut self, unit: &UnitName, property: Property, value: &Value) {
        let path = self.systemd.cgroup_of(unit);
        self.with_systemd(|_, grounds| {
            // The shell says so if it fails.
            let _ = grounds.cgroups.write(grounds.machine, &path, property, value);
        });
    }

    /// One effect of the agent: counted, judged, and the place where an accident happens.
    async fn effect<T>(
        &mut self,
        touch: Touch<'_>,
        failure: impl FnOnce(&str) -> HostError,
        act: impl FnOnce(&mut Self) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let accident = self.fuse.strike(Place::Host, &touch);
        self.stirs += 1;
        let name = self.name.clone();
        match &accident {
            Some(Accident::DeathBefore | Accident::PowerLossBefore) => {
                self.story.tell(&name, || format!("{accident:?} to: {touch}"));
                return std::future::pending().await;
            }
            Some(Accident::FailureBefore) => {
                self.story.tell(&name, || format!("fails: {touch}"));
                return Err(failure("Input/output error"));
            }
            Some(Accident::Hand(hand)) => {
                self.story.tell(&name, || format!("a hand: {hand:?}"));
                self.witness.is_disturbed = true;
                hand.act(self);
            }
            Some(Accident::DeathAfter | Accident::PowerLossAfter | Accident::FailureAfter | Accident::Stop) | None => {}
        }
        let before = self.witness.before(self, &touch);
        let result = act(self);
        self.story.tell(&name, || match &result {
            Ok(_) => format!("agent: {touch}"),
            Err(error) => format!("agent: {touch}: {error}"),
        });
        let verdicts = self.witness.after(self, &touch, &before);
        self.witness.violations.extend(verdicts);
        match &accident {
            Some(Accident::DeathAfter | Accident::PowerLossAfter) => {
                self.story.tell(&name, || format!("{accident:?}"));
                std::future::pending().await
            }
            Some(Accident::FailureAfter) => {
                self.story.tell(&name, || "but the agent is told that it failed".to_owned());
                Err(failure("Interrupted system call"))
            }
            _ => result,
        }
    }

    async fn file_effect<T>(
        &mut self,
        attempt: &'static str,
        path: &HostPath,
        act: impl FnOnce(&mut Self) -> std::io::Result<T>,
    ) -> Result<T, HostError> {
        let failure = |source: std::io::Error| HostError::File { attempt, path: path.clone(), source };
        let told = |text: &str| failure(std::io::Error::other(text.to_owned()));
        self.effect(Touch::File { attempt, path: path.as_str() }, told, |host| act(host).map_err(failure)).await
    }

    async fn unit_effect<T>(
        &mut self,
        attempt: &'static str,
        unit: &UnitName,
        act: impl FnOnce(&mut Systemd, &mut Grounds<'_>) -> Result<T, CallError>,
    ) -> Result<T, HostError> {
        let failure =
            |message: &str| HostError::Systemd { attempt, object: unit.to_string(), message: message.to_owned() };
        let done = |host: &mut Self| host.with_systemd(act).map_err(|CallError(message)| failure(message));
        self.effect(Touch::Unit { attempt, unit }, failure, done).await
    }

    /// What the machine is, in the words of the inventory.
    fn inventory(&self) -> Hardware {
        let Machine { present, online, nodes } = &self.machine;
        let node = |(id, cpus): (usize, &CpuSet)| NumaNode {
            id: id as u32,
            cpus: cpus.intersection(online),
            memory: Bytes::mebi(64 << 10),
            distances: (0..nodes.len()).map(|other| if other == id { 10 } else { 21 }).collect(),
        };
        Hardware {
            machine_id: format!("{:0>32}", self.name.len()),
            cpus: CpuInventory { online: online.clone(), offline: present.difference(online), isolated: CpuSet::new() },
            packages: vec![Package { id: 0, cpus: online.clone() }],
            numa_nodes: nodes.iter().enumerate().map(node).collect(),
            l3: nodes.iter().map(|cpus| cpus.intersection(online)).collect(),
            kernel: if self.systemd.version < 257 { "6.1.0" } else { "6.12.0" }.to_owned(),
            systemd: self.systemd.version.to_string(),
            ..Hardware::default()
        }
    }
}

impl Host for SimulatedHost {
    async fn hardware(&mut self) -> Result<Hardware, HostError> {
        Ok(self.inventory())
    }

    async fn observe(&mut self, scope: &Scope) -> Result<ObservedHost, HostError> {
        self.witness.is_disturbed = false;
        self.systemd.collect();
        Ok(self.look(scope))
    }

    async fn read(&mut self, path: &HostPath) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.disk.read(path.as_str()).map(|content| content.to_vec()))
    }

    async fn make_directory(&mut self, path: &HostPath) -> Result<(), HostError> {
        // One that is there already is no effect.
        if matches!(self.disk.entry(path.as_str()), Some(disk::Entry::Directory)) {
            return Ok(());
        }
        self.file_effect("make directory", path, |host| {
            host.disk.make_directory(path.as_str())?;
            host.disk.sync(path.as_str());
            Ok(())
        })
        .await
    }

    async fn write(&mut self, path: &HostPath, content: &[u8]) -> Result<(), HostError> {
        self.file_effect("write", path, |host| host.disk.write(path.as_str(), content)).await
    }

    async fn mode(&mut self, path: &HostPath) -> Result<u32, HostError> {
        Ok(self.modes.get(path.as_str()).copied().unwrap_or(0o644))
    }

    async fn set_mode(&mut self, path: &HostPath, mode: u32) -> Result<(), HostError> {
        self.file_effect("set the mode of", path, |host| {
            host.modes.insert(path.as_str().to_owned(), mode);
            Ok(())
        })
        .await
    }

    async fn sync(&mut self, path: &HostPath) -> Result<(), HostError> {
        self.file_effect("sync", path, |host| match host.disk.entry(path.as_str()) {
            Some(_) => {
                host.disk.sync(path.as_str());
                Ok(())
            }
            None => Err(ErrorKind::NotFound.into()),
        })
        .await
    }

    async fn rename(&mut self, from: &HostPath, to: &HostPath) -> Result<(), HostError> {
        self.file_effect("rename to", to, |host| host.disk.rename(from.as_str(), to.as_str())).await
    }

    async fn link(&mut self, path: &HostPath, target: &str) -> Result<(), HostError> {
        self.file_effect("link", path, |host| host.disk.link(path.as_str(), target)).await
    }

    async fn remove(&mut self, path: &HostPath) -> Result<(), HostError> {
        self.file_effect("remove", path, |host| host.disk.remove(path.as_str()).map(drop)).await
    }

    async fn reload(&mut self) -> Result<(), HostError> {
        let failure =
            |message: &str| HostError::Systemd { attempt: "reload", object: "systemd".into(), message: message.into() };
        self.effect(Touch::Reload, failure, |host| {
            host.with_systemd(|systemd, grounds| systemd.reload(grounds));
            Ok(())
        })
        .await
    }

    async fn start(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        self.unit_effect("start", unit, |systemd, grounds| systemd.start(grounds, unit)).await
    }

    async fn stop(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        self.unit_effect("stop", unit, |systemd, grounds| systemd.stop(grounds, unit)).await
    }

    async fn restart(&mut self, unit: &UnitName) -> Result<JobResult, HostError> {
        self.unit_effect("restart", unit, |systemd, grounds| systemd.restart(grounds, unit)).await
    }

    async fn reset_failed(&mut self, unit: &UnitName) -> Result<(), HostError> {
        self.unit_effect("reset failed", unit, |systemd, _| {
            systemd.reset_failed(unit);
            Ok(())
        })
        .await
    }

    async fn set_properties(&mut self, unit: &UnitName, properties: &Properties) -> Result<(), HostError> {
        self.unit_effect("set properties of", unit, |systemd, grounds| {
            systemd.set_properties(grounds, unit, properties, RUNTIME_CONTROL)
        })
        .await
    }
}
