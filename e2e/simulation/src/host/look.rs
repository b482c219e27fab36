//! What the agent's eyes see of a simulated host: exactly what the real one shows, and nothing it does not.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::{CpuSet, UnitKind, UnitName};
use lamina_node_agent::host_path::HostPath;
use lamina_node_agent::observed::{ObservedFile, ObservedHost, ObservedUnit, Scope, Threads};
use lamina_node_agent::property::{Properties, Property, Value};
use lamina_node_agent::start_settings::{LIMIT_KEYS, StartSettings};

use super::SimulatedHost;
use super::disk::Entry;
use super::loaded::{SEARCH, drop_in_names};
use super::systemd::{Activity, Failure, Process, Unit, is_enabled, with_defaults};

const THREADS: u32 = 3;

impl SimulatedHost {
    /// Measures everything in scope.
    pub(super) fn look(&mut self, scope: &Scope) -> ObservedHost {
        let files = self.files(scope);
        let units = self.units(scope, &files);
        let failed = self.systemd.units.values().any(|unit| matches!(unit.activity, Activity::Failed(_)));
        let user = |user: &&lamina_crds::UserName| self.installed.users.contains(user.as_str());
        ObservedHost {
            boot_id: format!("{}-{}", self.name, self.boots),
            systemd_version: self.systemd.version,
            system_state: if failed { "degraded" } else { "running" }.to_owned(),
            controllers: ["cpuset", "cpu", "io", "memory", "pids"].into_iter().map(str::to_owned).collect(),
            users: scope.users.iter().filter(user).cloned().collect(),
            executables: scope.executables.iter().map(|path| (path.clone(), self.executable(path.as_str()))).collect(),
            env_files: scope.env_files.iter().map(|key| (key.clone(), self.readable(key.0.as_str()))).collect(),
            files,
            units,
        }
    }

    fn executable(&self, path: &str) -> Result<(), String> {
        if self.installed.missing.contains(path) { Err("it is missing".to_owned()) } else { Ok(()) }
    }

    fn readable(&self, path: &str) -> Result<(), String> {
        self.disk.read(path).map(drop).ok_or_else(|| "it is missing".to_owned())
    }

    fn files(&self, scope: &Scope) -> BTreeMap<HostPath, ObservedFile> {
        let places = SEARCH.iter().copied().chain(["/etc/lamina/files"]);
        let seen = places.flat_map(|place| self.disk.below(place)).filter(|(path, _)| is_in_scope(path, scope));
        seen.map(|(path, entry)| (HostPath::new(path), self.file(path, entry))).collect()
    }

    fn file(&self, path: &str, entry: &Entry) -> ObservedFile {
        match entry {
            Entry::Directory => ObservedFile::Other { what: "a directory".to_owned() },
            Entry::Link(target) => ObservedFile::Link { target: target.to_string() },
            Entry::File(_) => {
                let content = self.disk.read(path).map(|content| content.to_vec()).unwrap_or_default();
                ObservedFile::Regular { content }
            }
        }
    }

    fn units(&mut self, scope: &Scope, files: &BTreeMap<HostPath, ObservedFile>) -> BTreeMap<UnitName, ObservedUnit> {
        let ours = |unit: &UnitName| scope.topologies.iter().any(|topology| unit.belongs_to(topology));
        let loaded = self.systemd.units.keys().cloned();
        let on_disk = files.keys().filter_map(|path| UnitName::new(path.as_str().rsplit_once('/')?.1).ok());
        let mut names: BTreeSet<UnitName> = loaded.chain(on_disk).filter(|unit| ours(unit)).collect();
        names.extend(scope.units.iter().cloned());
        for name in &names {
            self.systemd.know(&self.disk, name);
        }
        let units = names.into_iter().filter_map(|name| {
            let unit = self.unit(&name, self.systemd.units.get(&name)?, scope);
            Some((name, unit))
        });
        units.collect()
    }

    /// What a process was started with, where no text of ours is loaded and it runs none: settings as loaded, arguments as
    /// the process has them.
    fn past(&self, unit: &Unit, process: &Process, scope: &Scope) -> Option<StartSettings> {
        if unit.loaded.digests.is_some() || process.started_from.is_some() {
            return None;
        }
        let program = &unit.loaded.program;
        let asked = scope.env_files.iter().map(|(path, _)| path.to_string());
        let readable = |path: String| {
            let content = self.disk.read(&path)?;
            Some((path, String::from_utf8_lossy(&content).into_owned()))
        };
        let own = unit.loaded.fragment.iter().chain(&unit.loaded.drop_ins).chain(&program.env_files);
        let limit = |key: &'static str| {
            let amount = program.limits.get(key)?.parse().ok()?;
            Some((key, (amount, amount)))
        };
        Some(StartSettings {
            command: program.command.clone(),
            process: process.program.command.clone(),
            user: program.user.clone(),
            working_directory: program.working_directory.clone(),
            environment: program.environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            environment_files: program.env_files.clone(),
            contents: program.env_files.iter().cloned().chain(asked).filter_map(readable).collect(),
            limits: LIMIT_KEYS.into_iter().filter_map(limit).collect(),
            started_at: process.started_at,
            changed: own.filter(|path| self.disk.changed(path) > process.started_at).cloned().collect(),
            ..StartSettings::default()
        })
    }

    fn unit(&self, name: &UnitName, unit: &Unit, scope: &Scope) -> ObservedUnit {
        let path = self.systemd.cgroup_of(name);
        let group = self.cgroups.values(&path);
        let is_service = name.kind() == UnitKind::Service;
        let (active_state, sub_state, failure) = activity(unit.activity, name.kind());
        let has_file = unit.loaded.fragment.is_some();
        let process = unit.process.as_ref();
        ObservedUnit {
            load_state: unit.loaded.state.word().to_owned(),
            active_state: active_state.to_owned(),
            sub_state: sub_state.to_owned(),
            result: failure.result.to_owned(),
            exit_status: failure.status,
            restarts: unit.restarts,
            need_reload: self.systemd.needs_reload(&self.disk, name),
            fragment_path: unit.loaded.fragment.clone().unwrap_or_default(),
            drop_in_paths: unit.loaded.drop_ins.clone(),
            unit_file_state: match (has_file, is_service && is_enabled(&self.disk, name)) {
                (false, _) => String::new(),
                (true, true) => "enabled".to_owned(),
                (true, false) => if is_service { "disabled" } else { "static" }.to_owned(),
            },
            slice: match (is_service, &unit.loaded.slice) {
                (true, Some(slice)) => slice.to_string(),
                (true, None) => "system.slice".to_owned(),
                (false, _) => String::new(),
            },
            control_group: group.map(|_| path.clone()).unwrap_or_default(),
            invocation: unit.invocation.clone(),
            main_pid: process.map_or(0, |process| process.pid),
            active_since: unit.active_since,
            loaded: with_defaults(name.kind(), &unit.loaded.properties),
            numa: unit.loaded.numa.clone(),
            kernel: group.map(|values| kernel(name.kind(), values)).unwrap_or_default(),
            effective_cpus: group.map(|_| self.cgroups.effective_cpus(&self.machine, &path)),
            effective_memory_nodes: group.map(|_| self.cgroups.effective_nodes(&self.machine, &path)),
            loaded_text: unit.loaded.digests.clone(),
            started_from: process.and_then(|process| process.started_from.clone()),
            past: process.and_then(|process| self.past(unit, process, scope)),
            threads: process.map(|process| self.threads(process, &path)).unwrap_or_default(),
        }
    }

    fn threads(&self, process: &Process, unit_group: &str) -> Threads {
        Threads {
            count: THREADS,
            cpus: self.cpus_of(process),
            memory_nodes: self.cgroups.effective_nodes(&self.machine, &process.cgroup),
            strayed: u32::from(process.cgroup != unit_group),
        }
    }

    /// The CPUs on which the threads of a process may run.
    pub fn cpus_of(&self, process: &Process) -> CpuSet {
        let effective = || self.cgroups.effective_cpus(&self.machine, &process.cgroup);
        process.stuck_on.clone().unwrap_or_else(effective)
    }
}

fn activity(activity: Activity, kind: UnitKind) -> (&'static str, &'static str, Failure) {
    const FINE: Failure = Failure { result: "success", status: 0 };
    match (activity, kind) {
        (Activity::Inactive, _) => ("inactive", "dead", FINE),
        (Activity::Active, UnitKind::Slice) => ("active", "active", FINE),
        (Activity::Active, UnitKind::Service) => ("active", "running", FINE),
        (Activity::Failed(failure), _) => ("failed", "failed", failure),
        (Activity::WaitsToRestart(failure), _) => ("activating", "auto-restart", failure),
    }
}

/// The files of a cgroup. `cpuset.*` exists where a sibling uses it: for slices here, for services only if set.
fn kernel(kind: UnitKind, values: &Properties) -> Properties {
    let mut shown = values.clone();
    if kind == UnitKind::Slice {
        shown.entry(Property::AllowedCpus).or_insert_with(|| Value::Cpus(CpuSet::new()));
        shown.entry(Property::AllowedMemoryNodes).or_insert_with(|| Value::Nodes(lamina_crds::NodeSet::new()));
    }
    shown
}

/// Whether a path is ours to use, or may have a word in what our units become.
fn is_in_scope(path: &str, scope: &Scope) -> bool {
    let delivered = |rest: &str| scope.topologies.iter().any(|name| rest.split('/').next() == Some(name.as_str()));
    if let Some(rest) = path.strip_prefix("/etc/lamina/files/") {
        return rest.contains('/') && delivered(rest);
    }
    let Some(rest) = SEARCH.iter().find_map(|directory| path.strip_prefix(directory)?.strip_prefix('/')) else {
        return false;
    };
    let belongs = |name: &str| {
        let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(".lamina-new")).unwrap_or(name);
        UnitName::new(name).is_ok_and(|unit| {
            scope.units.contains(&unit) || scope.topologies.iter().any(|topology| unit.belongs_to(topology))
        })
    };
    match rest.split_once('/') {
        None => belongs(rest),
        Some(("multi-user.target.wants", name)) => belongs(name),
        Some((directory, _)) => directory
            .strip_suffix(".d")
            .is_some_and(|unit| belongs(unit) || matches!(unit, "slice" | "service") || is_prefix_of_ours(unit, scope)),
    }
}

/// Whether `NAME-.slice` or `NAME-.service` names a prefix of our units.
fn is_prefix_of_ours(unit: &str, scope: &Scope) -> bool {
    let Some((stem, kind)) = unit.rsplit_once('.') else { return false };
    let example = UnitName::new(format!("{stem}x.{kind}"));
    stem.ends_with('-')
        && example.is_ok_and(|example| {
            drop_in_names(&example).contains(&format!("{unit}.d"))
                && scope.topologies.iter().any(|topology| example.belongs_to(topology))
        })
}
