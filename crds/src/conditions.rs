//! Conditions and their reasons: the closed list of words in which Lamina says how things are.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a condition speaks of. Closed list; everything finer is a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// Everything asked is true, and measured.
    Ready,
    /// Work is under way or will be tried again.
    Reconciling,
    /// Nothing will change without a hand from outside.
    Stalled,
    /// Every selected host with a known inventory has a placement.
    Placed,
    /// Something is less than asked, though what can be done is done.
    Degraded,
    /// `spec.paused` keeps every change from the hosts.
    Paused,
    /// The host can run what Lamina needs: systemd, cgroup v2 and its controllers.
    Supported,
    /// Unit files are written, loaded and started.
    Applied,
    /// The kernel confirms what was asked: cpusets, memory nodes, limits and every thread.
    Verified,
    /// Somebody else's hand is on the managed units.
    Drifted,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell yet.
    Unknown,
}

/// Why a condition is as it is. Closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// Nobody has looked at this generation yet.
    NotObserved,
    /// No host matches the selector.
    NoHost,
    /// Everything asked is true and measured.
    AsAsked,
    /// Nothing is left to do.
    Settled,
    /// The change is being placed or written to the hosts.
    Progressing,
    /// `spec.paused` keeps a change from the hosts.
    Paused,
    /// The host's agent has not reported the hardware yet.
    NoInventory,
    /// The spec breaks a rule; the message names field, value, rule and remedy.
    InvalidSpec,
    /// A host cannot hold what is asked.
    Infeasible,
    /// A unit of that name belongs to somebody else: a vendor's unit, a foreign file, another topology.
    NameTaken,
    /// Another topology's exclusive slice holds CPUs that this one names.
    CpusTaken,
    /// Agents of some hosts are silent.
    HostsOffline,
    /// So many agents are silent that nothing can be said.
    TooManyOffline,
    /// The host lacks what Lamina needs.
    Unsupported,
    /// The host runs what Lamina needs.
    Supported,
    /// The host also runs a kubelet; "Exclusive" speaks of managed slices only.
    SharedWithPods,
    /// Units are being written, loaded or started.
    Applying,
    /// All units are written, loaded and running.
    Applied,
    /// What the kernel reports differs from what was asked.
    NotVerified,
    /// The kernel confirms everything.
    Verified,
    /// No foreign hand is visible.
    NoDrift,
    /// A drop-in that is not ours lies on a managed unit.
    ForeignDropIn,
    /// A file that is not ours stands where a unit file should.
    ForeignFile,
    /// A value keeps being changed, or a foreign setting wins.
    DriftPersists,
    /// The program of a service is not an executable file.
    MissingExecutable,
    /// The user of a service does not exist on the host.
    MissingUser,
    /// An environment file of a service is missing or not readable by its user.
    EnvFileRejected,
    /// A service does not start or does not stay up.
    ServiceFailed,
    /// Changed text waits for a restart of the service.
    PendingRestart,
    /// A slice got fewer CPUs than it asked for, as its `cpu.min` allows.
    Shrunk,
    /// A slice runs inside another one, as its `cpu.shareWith` allows.
    Shared,
    /// A preference of a slice could not be met.
    Relaxed,
    /// A CPU that a running slice uses went offline.
    #[serde(rename = "CPUOffline")]
    CpuOffline,
    /// The host does not have CPUs or memory nodes that the entry names.
    NotPresent,
    /// The entry holds a field or value that this agent does not understand.
    NotUnderstood,
    /// The spec is of an operator that was deposed: of a lower term than one that was accepted before.
    OlderTerm,
    /// Another machine claims this name.
    IdentityMismatch,
    /// An effect on the host failed; it is tried again.
    HostError,
    /// The entry is released: it keeps running, and is no longer enforced.
    Released,
    /// The entry is removed from the host.
    Absent,
}

impl Reason {
    /// The word as it stands in the object.
    pub fn word(self) -> String {
        let word = serde_json::to_value(self).expect("a word is plain data");
        word.as_str().unwrap_or_default().to_owned()
    }
}

/// One fact about an object, in the form of the Kubernetes API conventions (`metav1.Condition`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition speaks of.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// Whether it holds: True, False or Unknown.
    pub status: ConditionStatus,
    /// One word for why, in CamelCase.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z][A-Za-z0-9]*$"))]
    pub reason: String,
    /// What it means here, naming the object, the values and the remedy.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// When the status last changed.
    pub last_transition_time: Time,
    /// The generation of the object this was judged at.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub observed_generation: i64,
}

/// A condition before it is compared with the one already there: it carries no time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the verdict speaks of.
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word for why.
    pub reason: Reason,
    /// What it means here.
    pub message: String,
}

impl Verdict {
    /// A verdict of these parts. The message is cut at 4096 bytes.
    pub fn new(type_: ConditionType, status: ConditionStatus, reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > 4096 {
            let end = (0..=4093).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        Self { type_, status, reason, message }
    }
}

/// The conditions to write: the verdicts, sorted by type, each keeping its transition time while its status stays.
///
/// Conditions of other types in `present` are kept, so that two writers of one list do not erase each other.
pub fn settle(present: &[Condition], verdicts: &[Verdict], generation: i64, now: Timestamp) -> Vec<Condition> {
    let judged = |type_: ConditionType| verdicts.iter().any(|verdict| verdict.type_ == type_);
    let mut conditions: Vec<Condition> = present.iter().filter(|old| !judged(old.type_)).cloned().collect();
    for verdict in verdicts {
        let old = present.iter().find(|old| old.type_ == verdict.type_ && old.status == verdict.status);
        let since = old.map_or_else(|| Time(whole_second(now)), |old| old.last_transition_time.clone());
        conditions.push(Condition {
            type_: verdict.type_,
            status: verdict.status,
            reason: verdict.reason.word(),
            message: verdict.message.clone(),
            last_transition_time: since,
            observed_generation: generation,
        });
    }
    conditions.sort_by_key(|condition| condition.type_);
    conditions
}

/// The API server keeps times of conditions in whole seconds.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The condition of this type, if there is one.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is True, judged at this generation or later.
pub fn holds_at(conditions: &[Condition], type_: ConditionType, generation: i64) -> bool {
    find(conditions, type_)
        .is_some_and(|found| found.status == ConditionStatus::True && found.observed_generation >= generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a legal time")
    }

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let yes = Verdict::new(ConditionType::Ready, ConditionStatus::True, Reason::AsAsked, "");
        let still = Verdict::new(ConditionType::Ready, ConditionStatus::True, Reason::PendingRestart, "parser waits");
        let no = Verdict::new(ConditionType::Ready, ConditionStatus::False, Reason::Progressing, "");
        let first = settle(&[], &[yes], 1, at(100));
        let second = settle(&first, &[still], 2, at(200));
        assert_eq!(second[0].last_transition_time, Time(at(100)));
        assert_eq!(second[0].observed_generation, 2);
        let third = settle(&second, &[no], 2, at(300));
        assert_eq!(third[0].last_transition_time, Time(at(300)));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let verdict = Verdict::new(ConditionType::Ready, ConditionStatus::False, Reason::HostError, "ä".repeat(4000));
        assert!(verdict.message.len() <= 4096 && verdict.message.ends_with('…'));
    }
}
