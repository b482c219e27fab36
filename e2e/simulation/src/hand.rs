//! Foreign hands: what administrators, package managers and machines do to a host behind Lamina's back.

use lamina_crds::{CpuSet, UnitName};
use lamina_node_agent::host_path::{HostPath, PERSISTENT_CONTROL, RUNTIME_CONTROL, UNIT_DIRECTORY};
use lamina_node_agent::property::{Properties, Property, Value};

use crate::host::SimulatedHost;
use crate::host::systemd::Failure;

/// One thing that somebody else does to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hand {
    /// Adds lines to a unit file of ours.
    EditFragment(UnitName),
    /// Changes the CPUs in our drop-in.
    EditDropIn(UnitName),
    /// Empties a unit file: systemd takes it for masked.
    EmptyFragment(UnitName),
    /// Removes unit files that are empty, as one does who is told that they are in the way.
    RemoveEmptyFragments,
    /// Removes a unit file of ours.
    RemoveFragment(UnitName),
    /// Removes our drop-in.
    RemoveDropIn(UnitName),
    /// Takes a service out of the boot.
    Disable(UnitName),
    /// `systemctl daemon-reload`.
    Reload,
    /// `systemctl set-property --runtime`.
    SetRuntime(UnitName, Property, Value),
    /// `systemctl set-property`: leaves a drop-in that stays.
    SetPersistent(UnitName, Property, Value),
    /// Writes a file of a cgroup.
    WriteCgroup(UnitName, Property, Value),
    /// Puts a drop-in of its own below our last word.
    AddDropIn(UnitName),
    /// `systemctl stop`.
    Stop(UnitName),
    /// `systemctl restart`.
    Restart(UnitName),
    /// `kill -9` of a service's process.
    Kill(UnitName),
    /// Moves a service's process to another cgroup.
    Stray(UnitName),
    /// A service's threads cling to CPUs outside of their cgroup's.
    Stick(UnitName, CpuSet),
    /// A CPU is switched off.
    CpuOff(u32),
    /// A CPU is switched on.
    CpuOn(u32),
    /// A program disappears.
    RemoveProgram(String),
    /// A program that was missing or broken is there again.
    RepairProgram(String),
    /// A program ends as soon as it is started.
    BreakProgram(String),
    /// The user that runs services disappears.
    RemoveUser(String),
    /// The user is there again.
    AddUser(String),
    /// The disk fills up.
    FillDisk,
    /// There is room again.
    FreeDisk,
    /// The delivered file of this path is edited.
    EditFile(String),
    /// A script installs hand-written units of topology `app` and starts them.
    InstallPast,
}

impl Hand {
    /// Whether anything tells the agent of it. Programs, users, room on the disk and the affinity of threads change in
    /// silence.
    pub fn is_heard(&self) -> bool {
        !matches!(
            self,
            Self::RemoveProgram(_)
                | Self::RepairProgram(_)
                | Self::BreakProgram(_)
                | Self::RemoveUser(_)
                | Self::AddUser(_)
                | Self::FillDisk
                | Self::FreeDisk
                | Self::Stick(_, _)
        )
    }

    /// Lets the hand act. What is impossible now does nothing.
    pub fn act(&self, host: &mut SimulatedHost) {
        let control = |property: Property, value: &Value| Properties::from([(property, value.clone())]);
        match self {
            Self::EditFragment(unit) => append(host, HostPath::fragment(unit).as_str(), "# by hand\n[Unit]\nAfter=x\n"),
            Self::EditDropIn(unit) => edit_drop_in(host, unit),
            Self::EmptyFragment(unit) => replace(host, HostPath::fragment(unit).as_str(), b""),
            Self::RemoveEmptyFragments => remove_empty(host),
            Self::RemoveFragment(unit) => remove(host, HostPath::fragment(unit).as_str()),
            Self::RemoveDropIn(unit) => remove(host, HostPath::drop_in(unit).as_str()),
            Self::Disable(unit) => remove(host, HostPath::enablement(unit).as_str()),
            Self::Reload => host.with_systemd(|systemd, grounds| systemd.reload(grounds)),
            // Of a unit that is not there nobody sets anything.
            Self::SetRuntime(unit, ..) if host.disk.entry(HostPath::fragment(unit).as_str()).is_none() => {}
            Self::SetRuntime(unit, property, value) => set(host, unit, &control(*property, value), RUNTIME_CONTROL),
            Self::SetPersistent(unit, property, value) => {
                set(host, unit, &control(*property, value), PERSISTENT_CONTROL);
            }
            Self::WriteCgroup(unit, property, value) => host.write_cgroup(unit, *property, value),
            Self::AddDropIn(unit) => {
                let path = format!("{UNIT_DIRECTORY}/{unit}.d/20-site.conf");
                host.disk.put(&path, b"[Unit]\nDescription=a word of the site\n");
                host.foreign.insert(path, b"[Unit]\nDescription=a word of the site\n".to_vec());
            }
            Self::Stop(unit) => host.with_systemd(|systemd, grounds| drop(systemd.stop(grounds, unit))),
            Self::Restart(unit) => host.with_systemd(|systemd, grounds| drop(systemd.restart(grounds, unit))),
            Self::Kill(unit) => host.with_systemd(|systemd, grounds| {
                systemd.die(grounds, unit, Failure { result: "signal", status: 9 });
            }),
            Self::Stray(unit) => on_process(host, unit, |process| process.cgroup = "/system.slice".to_owned()),
            Self::Stick(unit, cpus) => on_process(host, unit, |process| process.stuck_on = Some(cpus.clone())),
            Self::CpuOff(cpu) => host.machine.online.remove(*cpu),
            Self::CpuOn(cpu) if host.machine.present.contains(*cpu) => host.machine.online.insert(*cpu),
            Self::CpuOn(_) => {}
            Self::RemoveProgram(program) => {
                host.installed.missing.insert(program.clone());
            }
            Self::RepairProgram(program) => {
                host.installed.missing.remove(program);
                host.installed.crashing.remove(program);
            }
            Self::BreakProgram(program) => {
                host.installed.crashing.insert(program.clone());
            }
            Self::RemoveUser(user) => {
                host.installed.users.remove(user);
            }
            Self::AddUser(user) => {
                host.installed.users.insert(user.clone());
            }
            Self::FillDisk => host.disk.is_full = true,
            Self::FreeDisk => host.disk.is_full = false,
            Self::InstallPast => crate::past::install(host),
            Self::EditFile(path) => {
                host.witness.is_file_in_doubt = true;
                append(host, path, "BY=hand\n");
            }
        }
    }
}

fn set(host: &mut SimulatedHost, unit: &UnitName, properties: &Properties, directory: &str) {
    // What systemd refuses, the hand leaves.
    let _ = host.with_systemd(|systemd, grounds| systemd.set_properties(grounds, unit, properties, directory));
}

fn edit_drop_in(host: &mut SimulatedHost, unit: &UnitName) {
    let path = HostPath::drop_in(unit);
    let Some(content) = host.disk.read(path.as_str()) else { return };
    let text = String::from_utf8_lossy(&content).replace("MemoryMax=", "MemoryMax=\nMemoryMax=512M\n#");
    host.disk.put(path.as_str(), text.as_bytes());
}

fn append(host: &mut SimulatedHost, path: &str, text: &str) {
    if let Some(content) = host.disk.read(path).filter(|content| !content.is_empty()) {
        host.disk.put(path, &[&content[..], text.as_bytes()].concat());
    }
}

fn remove_empty(host: &mut SimulatedHost) {
    let is_empty = |path: &&str| host.disk.read(path).is_some_and(|content| content.is_empty());
    let units = host.disk.list(UNIT_DIRECTORY).map(|(path, _)| path);
    let empty: Vec<String> = units.filter(is_empty).map(str::to_owned).collect();
    empty.iter().for_each(|path| remove(host, path));
}

fn replace(host: &mut SimulatedHost, path: &str, content: &[u8]) {
    if host.disk.read(path).is_some() {
        host.disk.put(path, content);
    }
}

fn remove(host: &mut SimulatedHost, path: &str) {
    if host.disk.entry(path).is_some_and(|entry| !matches!(entry, crate::host::disk::Entry::Directory)) {
        host.disk.remove_tree(path);
    }
}

fn on_process(host: &mut SimulatedHost, unit: &UnitName, change: impl FnOnce(&mut crate::host::systemd::Process)) {
    if let Some(process) = host.systemd.units.get_mut(unit).and_then(|unit| unit.process.as_mut()) {
        change(process);
    }
}
