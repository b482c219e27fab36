//! Jobs of PID 1: what starting, stopping, restarting and dying do to units, processes and cgroups.

use std::rc::Rc;

use lamina_crds::{UnitKind, UnitName};
use lamina_node_agent::host::JobResult;

use super::disk::Disk;
use super::loaded::{LoadState, Program};
use super::systemd::{
    Activity, CallError, Failure, Grounds, Installed, Process, Systemd, Unit, slice_chain, slice_path,
};

impl Systemd {
    /// `StartUnit`, and the wait for its job.
    pub fn start(&mut self, grounds: &mut Grounds<'_>, name: &UnitName) -> Result<JobResult, CallError> {
        self.may_queue(grounds.disk, name)?;
        match (name.kind(), self.know(grounds.disk, name).activity) {
            (_, Activity::Active) => Ok(JobResult::Done),
            (UnitKind::Slice, _) => {
                self.activate_slices(grounds, Some(name));
                Ok(JobResult::Done)
            }
            (UnitKind::Service, _) => Ok(self.spawn(grounds, name)),
        }
    }

    /// `StopUnit`, and the wait for its job. A slice takes its services with it.
    pub fn stop(&mut self, grounds: &mut Grounds<'_>, name: &UnitName) -> Result<JobResult, CallError> {
        if self.know(grounds.disk, name).loaded.state == LoadState::NotFound
            && self.units[name].activity == Activity::Inactive
        {
            return Err(CallError("org.freedesktop.systemd1.NoSuchUnit"));
        }
        for inside in self.inside(name) {
            self.end(grounds, &inside, Activity::Inactive);
        }
        Ok(JobResult::Done)
    }

    /// `RestartUnit`, and the wait for its job.
    pub fn restart(&mut self, grounds: &mut Grounds<'_>, name: &UnitName) -> Result<JobResult, CallError> {
        self.may_queue(grounds.disk, name)?;
        let inside = self.inside(name);
        let running: Vec<UnitName> = inside.into_iter().filter(|unit| self.units[unit].process.is_some()).collect();
        for unit in &running {
            self.end(grounds, unit, Activity::Inactive);
        }
        let result = self.start(grounds, name);
        for unit in running.iter().filter(|unit| *unit != name) {
            self.start(grounds, unit)?;
        }
        result
    }

    /// The process of a service ends, by itself or by a signal from anybody.
    pub fn die(&mut self, grounds: &mut Grounds<'_>, name: &UnitName, failure: Failure) {
        let Some(unit) = self.units.get(name).filter(|unit| unit.process.is_some()) else { return };
        let next = if unit.loaded.restarts { Activity::WaitsToRestart(failure) } else { Activity::Failed(failure) };
        self.end(grounds, name, next);
    }

    /// Whether something waits to be started again.
    pub fn waits_to_restart(&self) -> bool {
        self.units.values().any(|unit| matches!(unit.activity, Activity::WaitsToRestart(_)))
    }

    /// Time passes: what waits to be started again is started again.
    pub fn tick(&mut self, grounds: &mut Grounds<'_>) {
        let waits = |unit: &Unit| matches!(unit.activity, Activity::WaitsToRestart(_));
        let names: Vec<UnitName> =
            self.units.iter().filter(|(_, unit)| waits(unit)).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(unit) = self.units.get_mut(&name) {
                unit.restarts += 1;
            }
            self.spawn(grounds, &name);
        }
    }

    fn may_queue(&mut self, disk: &Disk, name: &UnitName) -> Result<(), CallError> {
        match (self.know(disk, name).loaded.state, name.kind()) {
            (LoadState::Loaded, _) | (LoadState::NotFound, UnitKind::Slice) => Ok(()),
            (LoadState::NotFound, UnitKind::Service) => Err(CallError("org.freedesktop.systemd1.NoSuchUnit")),
            (LoadState::Masked, _) => Err(CallError("org.freedesktop.systemd1.UnitMasked")),
            (LoadState::BadSetting, _) => Err(CallError("org.freedesktop.systemd1.BadUnitSetting")),
            (LoadState::Error, _) => Err(CallError("org.freedesktop.DBus.Error.InconsistentMessage")),
        }
    }

    /// Makes the slice and its ancestors exist, and writes their settings.
    fn activate_slices(&mut self, grounds: &mut Grounds<'_>, slice: Option<&UnitName>) {
        for name in slice.map(slice_chain).unwrap_or_default() {
            let now = self.tick_clock();
            let invocation = self.new_invocation();
            let unit = self.know(grounds.disk, &name);
            if unit.activity != Activity::Active {
                unit.activity = Activity::Active;
                unit.active_since = now;
                unit.invocation = invocation;
            }
            grounds.cgroups.make(&slice_path(&name));
            self.realize(grounds, &name);
        }
    }

    fn spawn(&mut self, grounds: &mut Grounds<'_>, name: &UnitName) -> JobResult {
        let (slice, program, restarts) = {
            let loaded = &self.know(grounds.disk, name).loaded;
            (loaded.slice.clone(), Rc::clone(&loaded.program), loaded.restarts)
        };
        self.activate_slices(grounds, slice.as_ref());
        let fate = fate(grounds, &program);
        let now = self.tick_clock();
        self.next_pid += 1;
        let pid = self.next_pid;
        let invocation = self.new_invocation();
        let Some(unit) = self.units.get_mut(name) else { return JobResult::Other("canceled".to_owned()) };
        unit.invocation = invocation;
        let env_contents = match fate {
            Fate::Refused(failure) => {
                unit.activity = if restarts { Activity::WaitsToRestart(failure) } else { Activity::Failed(failure) };
                return JobResult::Other("failed".to_owned());
            }
            Fate::Runs(contents) | Fate::Crashes(contents) => contents,
        };
        unit.activity = Activity::Active;
        unit.active_since = now;
        let home = format!("{}/{name}", slice.as_ref().map_or_else(|| "/system.slice".to_owned(), slice_path));
        let started_from = unit.loaded.digests.clone();
        unit.home = Some(home.clone());
        let (cgroup, started_at) = (home.clone(), grounds.disk.now());
        let process = Process { pid, program, env_contents, started_at, started_from, cgroup, stuck_on: None };
        unit.process = Some(process);
        grounds.cgroups.make(&home);
        self.realize(grounds, name);
        if grounds.installed.crashing.contains(self.units[name].loaded.program.command.first().map_or("", |c| c)) {
            self.die(grounds, name, Failure { result: "exit-code", status: 1 });
        }
        JobResult::Done
    }

    fn end(&mut self, grounds: &mut Grounds<'_>, name: &UnitName, next: Activity) {
        let path = self.cgroup_of(name);
        if let Some(unit) = self.units.get_mut(name) {
            unit.activity = next;
            unit.process = None;
            unit.home = None;
            grounds.cgroups.remove(&path);
        }
    }
}

enum Fate {
    Runs(Vec<Rc<[u8]>>),
    Crashes(Vec<Rc<[u8]>>),
    Refused(Failure),
}

/// What becomes of a start: systemd.exec(5) names the statuses.
fn fate(grounds: &Grounds<'_>, program: &Program) -> Fate {
    let Installed { users, missing, crashing } = grounds.installed;
    let contents: Option<Vec<Rc<[u8]>>> = program.env_files.iter().map(|path| grounds.disk.read(path)).collect();
    let executable = program.command.first().map_or("", |word| word);
    match contents {
        None => Fate::Refused(Failure { result: "resources", status: 0 }),
        Some(_) if !users.contains(&program.user) => Fate::Refused(Failure { result: "exit-code", status: 217 }),
        Some(_) if missing.contains(executable) => Fate::Refused(Failure { result: "exit-code", status: 203 }),
        Some(contents) if crashing.contains(executable) => Fate::Crashes(contents),
        Some(contents) => Fate::Runs(contents),
    }
}
