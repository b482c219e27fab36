//! Decides which conditions can be told of which object, and what a reader can do about each reason. The reference and the
//! tests are made of it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use crate::conditions::ConditionStatus::{False, True, Unknown};
use crate::conditions::{Condition, ConditionStatus, ConditionType, Reason};

/// Whose conditions they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A `SliceTopology`, told by the operator.
    Topology,
    /// A `HostState` as a whole, told by the host's agent.
    Host,
    /// One topology on one host (`status.topologies` of a `HostState`), told by the host's agent.
    TopologyOnHost,
}

/// One thing that can be told.
pub type Telling = (ConditionType, ConditionStatus, Reason);

/// What an agent says of what will not come right by itself.
const ALWAYS_STALLED: [Reason; 8] = [
    Reason::InvalidSpec,
    Reason::NotUnderstood,
    Reason::IdentityMismatch,
    Reason::Unsupported,
    Reason::NotPresent,
    Reason::ForeignFile,
    Reason::NameTaken,
    Reason::DriftPersists,
];

/// What an agent says of what may still come right, and after five minutes needs a hand.
const STALLED_LATER: [Reason; 7] = [
    Reason::MissingExecutable,
    Reason::MissingUser,
    Reason::EnvFileRejected,
    Reason::ServiceFailed,
    Reason::HostError,
    Reason::Applying,
    Reason::NotVerified,
];

/// What an agent says of what passes.
const PASSING: [Reason; 2] = [Reason::NotObserved, Reason::OlderTerm];

/// What the operator says of a host that it can write nothing to.
const REFUSED: [Reason; 4] = [Reason::InvalidSpec, Reason::Infeasible, Reason::CpusTaken, Reason::HostError];

/// What a host gives less than asked, by placement or by what fails there.
const LESS: [Reason; 9] = [
    Reason::CpuOffline,
    Reason::Shared,
    Reason::Shrunk,
    Reason::Relaxed,
    Reason::MissingExecutable,
    Reason::MissingUser,
    Reason::EnvFileRejected,
    Reason::ServiceFailed,
    Reason::HostsOffline,
];

/// Everything that can be told of objects of this kind.
pub fn tellings(subject: Subject) -> &'static BTreeSet<Telling> {
    static TOPOLOGIES: LazyLock<BTreeSet<Telling>> = LazyLock::new(of_topologies);
    static HOSTS: LazyLock<BTreeSet<Telling>> = LazyLock::new(of_hosts);
    static TOPOLOGIES_ON_HOSTS: LazyLock<BTreeSet<Telling>> = LazyLock::new(of_topologies_on_hosts);
    match subject {
        Subject::Topology => &TOPOLOGIES,
        Subject::Host => &HOSTS,
        Subject::TopologyOnHost => &TOPOLOGIES_ON_HOSTS,
    }
}

/// The first of these conditions that cannot be told of objects of this kind, as a sentence.
pub fn untold(subject: Subject, conditions: &[Condition]) -> Option<String> {
    let known = tellings(subject);
    let is_known = |condition: &&Condition| {
        let reason = serde_json::from_value(condition.reason.as_str().into());
        reason.is_ok_and(|reason| known.contains(&(condition.type_, condition.status, reason)))
    };
    let Condition { type_, status, reason, message, .. } = conditions.iter().find(|condition| !is_known(condition))?;
    Some(format!("{subject:?}: {type_:?} {status:?} {reason} is not in told.rs: {message}"))
}

fn of_topologies() -> BTreeSet<Telling> {
    use ConditionType::{Degraded, Paused, Placed, Ready, Reconciling, Stalled};
    let stalled = || ALWAYS_STALLED.into_iter().chain(STALLED_LATER).chain(REFUSED);
    let passing = STALLED_LATER.into_iter().chain(PASSING).chain([Reason::Progressing, Reason::NoInventory]);
    let content = [
        Reason::AsAsked,
        Reason::PendingRestart,
        Reason::HostsOffline,
        Reason::CpuOffline,
        Reason::Shared,
        Reason::Shrunk,
        Reason::Relaxed,
    ];
    let unknown = [Reason::NoHost, Reason::Paused, Reason::TooManyOffline];
    let mut all: BTreeSet<Telling> = content.map(|reason| (Ready, True, reason)).into();
    all.extend(stalled().chain(passing).map(|reason| (Ready, False, reason)));
    all.extend(unknown.map(|reason| (Ready, Unknown, reason)));
    all.extend(stalled().map(|reason| (Stalled, True, reason)));
    all.extend([Reason::Settled, Reason::Progressing].map(|reason| (Stalled, False, reason)));
    all.insert((Reconciling, True, Reason::Progressing));
    all.extend([Reason::Settled, Reason::InvalidSpec].map(|reason| (Reconciling, False, reason)));
    all.insert((Placed, True, Reason::AsAsked));
    let unplaced = [Reason::InvalidSpec, Reason::Infeasible, Reason::CpusTaken];
    all.extend(unplaced.map(|reason| (Placed, False, reason)));
    all.insert((Placed, Unknown, Reason::Progressing));
    all.extend(LESS.map(|reason| (Degraded, True, reason)));
    all.insert((Degraded, False, Reason::Settled));
    all.insert((Paused, True, Reason::Paused));
    all.insert((Paused, False, Reason::Settled));
    all.insert((Paused, Unknown, Reason::InvalidSpec));
    all
}

/// Ready, Reconciling and Stalled, which an agent always tells together.
fn progress(content: &[Reason]) -> BTreeSet<Telling> {
    use ConditionType::{Ready, Reconciling, Stalled};
    let stalled = ALWAYS_STALLED.into_iter().chain(STALLED_LATER);
    let stalled =
        stalled.flat_map(|reason| [(Ready, False, reason), (Reconciling, False, reason), (Stalled, True, reason)]);
    let passing = STALLED_LATER.into_iter().chain(PASSING);
    let passing =
        passing.flat_map(|reason| [(Ready, False, reason), (Reconciling, True, reason), (Stalled, False, reason)]);
    let content = content.iter().map(|reason| (Ready, True, *reason));
    let calm = [(Reconciling, False, Reason::Settled), (Stalled, False, Reason::Settled)];
    stalled.chain(passing).chain(content).chain(calm).collect()
}

fn of_hosts() -> BTreeSet<Telling> {
    use ConditionType::Supported;
    let mut all = progress(&[Reason::AsAsked, Reason::PendingRestart, Reason::CpuOffline]);
    all.extend([Reason::Supported, Reason::SharedWithPods].map(|reason| (Supported, True, reason)));
    all.insert((Supported, False, Reason::Unsupported));
    all.insert((Supported, Unknown, Reason::NotObserved));
    all
}

fn of_topologies_on_hosts() -> BTreeSet<Telling> {
    use ConditionType::{Applied, Drifted, Verified};
    let content = [Reason::AsAsked, Reason::PendingRestart, Reason::CpuOffline, Reason::Released, Reason::Absent];
    let mut all = progress(&content);
    all.extend([Reason::Applied, Reason::Absent].map(|reason| (Applied, True, reason)));
    let undone = ALWAYS_STALLED.into_iter().chain(STALLED_LATER).chain([Reason::OlderTerm]);
    all.extend(undone.filter(|reason| *reason != Reason::NotVerified).map(|reason| (Applied, False, reason)));
    all.extend([Reason::NotObserved, Reason::Released].map(|reason| (Applied, Unknown, reason)));
    all.insert((Verified, True, Reason::Verified));
    all.insert((Verified, False, Reason::NotVerified));
    all.insert((Drifted, False, Reason::NoDrift));
    all.extend([Reason::ForeignDropIn, Reason::DriftPersists].map(|reason| (Drifted, True, reason)));
    all.extend([Verified, Drifted].map(|type_| (type_, Unknown, Reason::NotObserved)));
    all
}

/// What a reader can do about it; nothing, where all is well or time alone helps.
pub fn remedy(reason: Reason) -> Option<&'static str> {
    let remedy = match reason {
        Reason::AsAsked
        | Reason::Settled
        | Reason::Supported
        | Reason::Applied
        | Reason::Verified
        | Reason::NoDrift
        | Reason::Released
        | Reason::Absent
        | Reason::Progressing
        | Reason::Applying => return None,
        Reason::NotObserved => "Wait for the agent's next pass. If it does not end, read the agent's log.",
        Reason::NoHost => {
            "Label a node as `spec.hostSelector` says, or make a HostState for a host that is no node. Labels of both count."
        }
        Reason::Paused => "Set `spec.paused: false` when the change may go out.",
        Reason::NoInventory => {
            "Check that an agent runs on the host and reaches the API server: `kubectl get pods -n lamina-system -o wide`, \
             or `systemctl status lamina-node-agent`."
        }
        Reason::InvalidSpec => {
            "Correct the field that the message names. Hosts keep what they have until then. On a host's own entry it is \
             the operator that wrote what no agent follows: use one version of both."
        }
        Reason::Infeasible => {
            "Ask for less, or consent to less where a host is too small: `cpu.min`, `cpu.shareWith`, policy Prefer. The \
             message says what there is. `kubectl lamina plan` tries a topology without touching a host."
        }
        Reason::NameTaken => "Rename the topology or the service, or remove the other unit.",
        Reason::CpusTaken => "Name other CPUs in `cpu.set`, or make both slices `isolation: Shared`.",
        Reason::HostsOffline => {
            "See whether node and agent run. What runs on the host runs on, pinned as it was. A host that is gone for good \
             goes with its Node; a HostState made by hand is deleted by hand."
        }
        Reason::TooManyOffline => {
            "More than a fifth of the hosts are silent: look for what they have in common, such as the network or an \
             upgrade of the agents."
        }
        Reason::Unsupported => "Do what the message says: upgrade systemd, or boot with cgroup v2 and all controllers.",
        Reason::SharedWithPods => {
            "Nothing, if pods may run on these CPUs. Else give the kubelet the static CPU manager policy and reserve CPUs \
             for slices."
        }
        Reason::NotVerified => {
            "The message has both values. Look for what else sets this one on the host: a drop-in, a parent slice, a tool."
        }
        Reason::ForeignDropIn => {
            "Remove the drop-in, or move what it sets into the topology. Lamina's own settings outrank it, and nobody \
             deletes it for you."
        }
        Reason::ForeignFile => {
            "Write `spec.adoption: Replace` to have the files saved and replaced, or remove them, or rename the topology. \
             Symbolic links and masks are only ever removed by you."
        }
        Reason::DriftPersists => {
            "Find who keeps changing it (the events name object, values and hand), and take the unit away from them, or \
             put their wish into the topology."
        }
        Reason::MissingExecutable => {
            "Install the program at the path of the message, executable for its user. In a pod the agent sees the \
             directories of `agent.programDirectories` only."
        }
        Reason::MissingUser => "Create the user on the host. Lamina makes none.",
        Reason::EnvFileRejected => "Make the file, readable for the service's user.",
        Reason::ServiceFailed => {
            "`journalctl -u UNIT` on the host says why the program ends. It is started again by itself, at ever longer \
             intervals up to five minutes."
        }
        Reason::PendingRestart => "Restart the named services when it suits you: `systemctl restart UNIT` on the host.",
        Reason::Shrunk => {
            "Nothing, if that is what you consented to by `cpu.min`. Else free cores, or use larger hosts."
        }
        Reason::Shared => {
            "Nothing, if that is what you consented to by `cpu.shareWith`. Else free cores, or use larger hosts."
        }
        Reason::Relaxed => {
            "Nothing, if a preference is all it was. With policy Require the host is refused instead. A slice that runs is \
             not moved for a preference alone."
        }
        Reason::CpuOffline => "Bring the CPUs back, or ask for fewer.",
        Reason::NotPresent => "Correct `cpu.set`, or let cores be counted by `cpu.cores`.",
        Reason::NotUnderstood => "Upgrade the agent: it is older than the operator that wrote this.",
        Reason::OlderTerm => "Wait until the operator that leads has written the host anew.",
        Reason::IdentityMismatch => {
            "If the machine was replaced, confirm it with the annotation of the message. Else give one of the two another \
             name."
        }
        Reason::HostError => "Repair what the message names, such as a full disk. It is tried again by itself.",
    };
    Some(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::reasons;

    #[test]
    fn every_reason_is_told_of_something() {
        let subjects = [Subject::Topology, Subject::Host, Subject::TopologyOnHost];
        let told: BTreeSet<Reason> = subjects.into_iter().flat_map(tellings).map(|(_, _, reason)| *reason).collect();
        let known: BTreeSet<Reason> = reasons().into_iter().map(|(reason, _)| reason).collect();
        assert_eq!(told, known);
    }

    #[test]
    fn what_is_not_in_the_list_is_named() {
        use crate::conditions::{Verdict, settle};
        let strange = Verdict::new(ConditionType::Ready, True, Reason::Infeasible, "it fits");
        let conditions = settle(&[], &[strange], 1, jiff::Timestamp::UNIX_EPOCH);
        let told = untold(Subject::Topology, &conditions).expect("a sentence");
        assert_eq!(told, "Topology: Ready True Infeasible is not in told.rs: it fits");
    }
}
