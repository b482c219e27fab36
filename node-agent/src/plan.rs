//! Decides what must be done so that the host is as desired: ordered steps, each with its class and what was found.
//!
//! The stages follow each other, each only when the one before has nothing left: what is gone and what is on disk, then
//! one reload; live values; processes. The conductor observes again after each.

mod disk;
mod doubts;
mod processes;
mod removal;
mod values;

use std::fmt;

use lamina_crds::UnitName;
use lamina_crds::host_state::EntryState;

use crate::desired::{DesiredEntry, DesiredHost};
use crate::host_path::HostPath;
use crate::migration::in_force;
use crate::observed::ObservedHost;
use crate::preflight::Held;
use crate::property::Properties;

pub use disk::{foreign_drop_ins, outranking, stale};
pub use doubts::{Notes, notes};
pub use processes::{sits_in, waits_for_restart};
pub use values::{Difference, Layer, differences};

/// Steps that bring the host nearer to what is desired. Empty exactly when nothing that can be done is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are taken.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it costs.
    pub class: Class,
    /// The unit it concerns. When a step fails, later steps of the same unit are left out.
    pub unit: Option<UnitName>,
    /// Units whose failed steps leave this one out, too.
    pub after: Vec<UnitName>,
    /// What was found different, if the step answers a difference rather than following another step.
    pub findings: Vec<Finding>,
    /// What is done.
    pub effect: Effect,
}

/// What a step costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nothing notices.
    Live,
    /// systemd reads all unit files again.
    Reload,
    /// A service starts, stops or starts anew.
    Restart,
    /// A unit appears or disappears.
    Recreate,
}

/// One verb of the host, durable replacement of a file counting as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Replaces a file atomically; its name is durable after the next [`Effect::Sync`] of the directory.
    Write {
        /// Where.
        path: HostPath,
        /// What.
        content: String,
    },
    /// Makes a symbolic link.
    Link {
        /// Where.
        path: HostPath,
        /// Where it points.
        target: String,
    },
    /// Removes a file, a link or an empty directory.
    Remove {
        /// Which.
        path: HostPath,
    },
    /// Makes the names in a directory durable.
    Sync {
        /// Which.
        directory: HostPath,
    },
    /// Makes systemd read all unit files again.
    Reload,
    /// Sets live values.
    Set {
        /// Of which unit.
        unit: UnitName,
        /// Which.
        properties: Properties,
    },
    /// Clears a failed state.
    ResetFailed {
        /// Of which unit.
        unit: UnitName,
    },
    /// Starts a unit.
    Start {
        /// Which.
        unit: UnitName,
    },
    /// Stops a unit.
    Stop {
        /// Which.
        unit: UnitName,
    },
    /// Restarts a service.
    Restart {
        /// Which.
        unit: UnitName,
    },
}

impl Effect {
    /// What the effect removes.
    fn removed_path(&self) -> Option<&HostPath> {
        match self {
            Self::Remove { path } => Some(path),
            Self::Write { .. }
            | Self::Link { .. }
            | Self::Sync { .. }
            | Self::Reload
            | Self::Set { .. }
            | Self::ResetFailed { .. }
            | Self::Start { .. }
            | Self::Stop { .. }
            | Self::Restart { .. } => None,
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The unit or the path.
    pub object: String,
    /// What about it: a cgroup file, `file`, `process`, ...
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What should be there.
    pub wanted: String,
    /// Whose hand it looks like.
    pub hand: Hand,
}

/// Whose hand a difference looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hand {
    /// A file was edited.
    Edited,
    /// A file was removed.
    Removed,
    /// `systemctl set-property`.
    SetProperty,
    /// A write to a cgroup file.
    CgroupWrite,
    /// `systemctl stop`.
    Stopped,
    /// A process was moved to another cgroup.
    Moved,
    /// Nothing tells.
    Unknown,
}

impl fmt::Display for Hand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Edited => "the file was edited",
            Self::Removed => "the file was removed",
            Self::SetProperty => "systemctl set-property",
            Self::CgroupWrite => "a write to the cgroup file",
            Self::Stopped => "the service was stopped",
            Self::Moved => "the process was moved",
            Self::Unknown => "by an unknown hand",
        })
    }
}

/// Whether a difference that nobody asked for looks like a foreign hand rather than like work of our own that was not
/// finished. On the first pass of an agent's life a service that does not run may just not have been started yet.
pub fn is_drift(finding: &Finding, first_pass: bool) -> bool {
    match finding.hand {
        Hand::Edited | Hand::Removed | Hand::SetProperty | Hand::CgroupWrite | Hand::Moved => true,
        Hand::Stopped => !first_pass,
        Hand::Unknown => crate::property::Property::ALL.iter().any(|property| property.key() == finding.subject),
    }
}

impl Step {
    fn new(class: Class, effect: Effect) -> Self {
        Self { class, unit: None, after: Vec::new(), findings: Vec::new(), effect }
    }

    fn of(mut self, unit: &UnitName) -> Self {
        self.unit = Some(unit.clone());
        self
    }

    fn after(mut self, units: impl IntoIterator<Item = UnitName>) -> Self {
        self.after.extend(units);
        self
    }

    fn because(mut self, finding: Finding) -> Self {
        self.findings.push(finding);
        self
    }
}

/// What must be done on the host so that it runs `desired` and nothing else of ours, leaving alone what is held.
pub fn plan(desired: &DesiredHost, observed: &ObservedHost, held: &Held) -> Plan {
    let first = stages(desired, observed, held).into_iter().find(|steps| !steps.is_empty());
    Plan { steps: first.unwrap_or_default() }
}

/// The steps of all stages as they look before the first one is taken, for those who only want to know. What is loaded
/// at the reload need not be set any more afterwards, so the real plans may be shorter.
pub fn outlook(desired: &DesiredHost, observed: &ObservedHost, held: &Held) -> Plan {
    Plan { steps: stages(desired, observed, held).concat() }
}

fn stages(desired: &DesiredHost, observed: &ObservedHost, held: &Held) -> [Vec<Step>; 3] {
    let in_force: Vec<_> =
        desired.entries.iter().map(|(name, entry)| (name, in_force(name, entry, observed))).collect();
    let entries: Vec<Entry<'_>> = in_force
        .iter()
        .filter(|(name, entry)| {
            let is_left_alone = held.entries.contains_key(*name) || desired.paused.contains(*name);
            entry.state != EntryState::Released && !is_left_alone
        })
        .map(|(name, entry)| Entry { name, entry, observed, held })
        .collect();
    let stages: [Stage; 3] =
        [on_disk, |entries| each(entries, values::steps), |entries| each(entries, processes::steps)];
    stages.map(|stage| stage(&entries))
}

/// What one kind of work needs, over all entries.
type Stage = fn(&[Entry<'_>]) -> Vec<Step>;

/// One entry with all that its steps depend on.
#[derive(Clone, Copy)]
struct Entry<'a> {
    name: &'a lamina_crds::TopologyName,
    entry: &'a DesiredEntry,
    observed: &'a ObservedHost,
    held: &'a Held,
}

impl Entry<'_> {
    fn is_free(&self, unit: &UnitName) -> bool {
        !self.held.units.contains_key(unit)
    }
}

fn each(entries: &[Entry<'_>], stage: fn(&Entry<'_>) -> Vec<Step>) -> Vec<Step> {
    entries.iter().flat_map(stage).collect()
}

/// Removals and files of all entries, and one reload for all of them together.
fn on_disk(entries: &[Entry<'_>]) -> Vec<Step> {
    let mut steps = each(entries, removal::steps);
    steps.extend(each(entries, disk::steps));
    steps.extend(each(entries, removal::leftovers));
    let reason: Vec<Finding> = entries.iter().flat_map(|entry| entry.stale_units()).collect();
    let changed = steps.iter().any(|step| step.changes_units());
    if changed || !reason.is_empty() {
        let mut reload = Step::new(Class::Reload, Effect::Reload);
        if !changed {
            reload.findings = reason;
        }
        steps.push(reload);
    }
    steps
}

impl Step {
    /// Whether systemd must read its files again after this step.
    fn changes_units(&self) -> bool {
        let path = match &self.effect {
            Effect::Write { path, content: _ } | Effect::Link { path, target: _ } | Effect::Remove { path } => path,
            Effect::Sync { .. }
            | Effect::Reload
            | Effect::Set { .. }
            | Effect::ResetFailed { .. }
            | Effect::Start { .. }
            | Effect::Stop { .. }
            | Effect::Restart { .. } => return false,
        };
        path.as_str().starts_with(crate::host_path::UNIT_DIRECTORY) && !path.is_staging()
    }
}

#[cfg(test)]
mod tests;
