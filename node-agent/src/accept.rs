//! Decides which instructions the agent follows: what it accepted before, changed only by what it understands now.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::conditions::Reason;
use lamina_crds::decode::decode;
use lamina_crds::host_state::{EntryState, digest_of_bytes};
use lamina_crds::rules::{entry_faults, term_fault};
use lamina_crds::{Term, TopologyEntry, TopologyName, UnitName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checksummed::{unwrap, wrap};
use crate::cluster::RawHostState;
use crate::host_path::{HostPath, STATE};
use crate::preflight::Refusal;
use crate::render::render;
use crate::takeover::Adopted;

/// The version of the file format that this agent writes and reads.
pub const SCHEMA: u64 = 1;

/// Everything the agent has accepted: what it enforces with or without an API server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// The format, [`SCHEMA`].
    pub schema: u64,
    /// Counts the writes; the larger of two copies is the newer.
    pub sequence: u64,
    /// The uid of the HostState it came from.
    pub uid: String,
    /// That object's generation.
    pub generation: i64,
    /// The highest term that was accepted, from whatever object.
    #[serde(default, skip_serializing_if = "Term::is_none")]
    pub term: Term,
    /// The entries by topology.
    pub entries: BTreeMap<TopologyName, AcceptedEntry>,
    /// What is known of the past of topologies that were let go: their processes may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left: BTreeMap<TopologyName, Past>,
}

/// What is known of the units of a topology before they were Lamina's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// Digests of foreign content, by path, that stands in the topology's before-image and may be replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub saved: BTreeMap<String, BTreeSet<String>>,
    /// Processes that were started from foreign text: what was found of them before that text was replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adopted: BTreeMap<UnitName, Adopted>,
}

impl Past {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        let Self { saved, adopted } = self;
        saved.is_empty() && adopted.is_empty()
    }
}

/// One accepted entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedEntry {
    /// The instruction.
    pub entry: TopologyEntry,
    /// The version of the agent under which the host was once seen to be as this entry says; empty before.
    pub reached_by: String,
    /// Paths on which the agent is known to have written for this topology.
    pub written: BTreeSet<String>,
    /// Digests of what was delivered where when an instruction was last reached, and of what others asked for since.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub formerly: BTreeMap<String, BTreeSet<String>>,
    /// Processes, by unit and invocation, that may have read another content of a delivered file than the one asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub doubted: BTreeMap<UnitName, String>,
    /// Processes, by unit and invocation, that were started before a delivered file they read was last changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<UnitName, String>,
    /// What is known of its units before they were Lamina's.
    #[serde(default, skip_serializing_if = "Past::is_empty")]
    pub past: Past,
}

/// What became of an object's entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// What is enforced from now on.
    pub accepted: Accepted,
    /// Entries that are not followed, by the name they bear.
    pub refused: BTreeMap<String, Refusal>,
}

/// What is accepted after a look at the object. An entry that is gone is kept unless it was confirmed Released or Absent;
/// one that is not understood leaves the former one of its name in force; an older object than the accepted one, as a
/// lagging replica shows it, changes nothing, and neither does one that an operator of an older term wrote.
pub fn accept(former: &Accepted, object: &RawHostState) -> Judged {
    if is_left_behind(former, object) || object.term < former.term {
        return Judged { accepted: former.clone(), refused: BTreeMap::new() };
    }
    let mut judged = Judged::default();
    for value in &object.entries {
        judged.take(former, value);
    }
    let Judged { accepted, refused } = &mut judged;
    let mut left = former.left.clone();
    for (name, kept) in &former.entries {
        let finished = kept.entry.state != EntryState::Present && !kept.reached_by.is_empty();
        let gone = !accepted.entries.contains_key(name) && !refused.contains_key(name.as_str());
        if !(gone && finished) {
            accepted.entries.entry(name.clone()).or_insert_with(|| kept.clone());
        } else if !kept.past.is_empty() {
            left.insert(name.clone(), kept.past.clone());
        }
    }
    left.retain(|name, _| !accepted.entries.contains_key(name));
    accepted.left = left;
    accepted.schema = SCHEMA;
    accepted.sequence = former.sequence;
    accepted.uid = object.uid.clone();
    accepted.generation = object.generation;
    accepted.term = object.term;
    judged
}

/// Whether the object is one that was followed before, as it was then.
fn is_left_behind(accepted: &Accepted, object: &RawHostState) -> bool {
    object.uid == accepted.uid && object.generation < accepted.generation
}

/// Why an object is not followed that an operator of an older term wrote: it was deleted and made again, and whoever
/// leads now has not written it yet.
pub fn older_term(accepted: &Accepted, object: &RawHostState) -> Option<Refusal> {
    let fault = term_fault(accepted.term, object.term).filter(|_| !is_left_behind(accepted, object))?;
    Some(Refusal::new(Reason::OlderTerm, format!("{fault}; until then the host stays as it is")))
}

impl Judged {
    fn take(&mut self, former: &Accepted, value: &Value) {
        match understand(value) {
            Ok(entry) if self.accepted.entries.contains_key(&entry.name) => {
                let message =
                    format!("spec.topologies[{}] stands there twice; the operator writes it once", entry.name);
                self.refused.insert(entry.name.to_string(), Refusal::new(Reason::InvalidSpec, message));
            }
            Ok(entry) => {
                let left = former.left.get(&entry.name);
                let former = former.entries.get(&entry.name);
                self.accepted.entries.insert(entry.name.clone(), succeed(former, left, entry));
            }
            Err((name, refusal)) => {
                self.refused.insert(name, refusal);
            }
        }
    }
}

/// The new entry with what is remembered of the former one.
fn succeed(former: Option<&AcceptedEntry>, left: Option<&Past>, entry: TopologyEntry) -> AcceptedEntry {
    let Some(former) = former else {
        return AcceptedEntry {
            entry,
            reached_by: String::new(),
            written: BTreeSet::new(),
            formerly: BTreeMap::new(),
            doubted: BTreeMap::new(),
            seen: BTreeMap::new(),
            past: left.cloned().unwrap_or_default(),
        };
    };
    let same = former.entry.state == entry.state && former.entry.digest() == entry.digest();
    if same && !former.reached_by.is_empty() {
        return AcceptedEntry { entry, ..former.clone() };
    }
    let reached_by = if same { former.reached_by.clone() } else { String::new() };
    // Delivered files bear no mark: whatever the former entry asked for may have been written.
    let delivered = render(&former.entry).map(|desired| desired.files).unwrap_or_default();
    let written = former.written.iter().cloned().chain(delivered.keys().map(HostPath::to_string)).collect();
    let mut formerly = former.formerly.clone();
    for (path, content) in delivered.iter().filter(|_| !same) {
        formerly.entry(path.to_string()).or_default().insert(digest_of_bytes(content.as_bytes()));
    }
    AcceptedEntry { entry, reached_by, written, formerly, ..former.clone() }
}

fn understand(value: &Value) -> Result<TopologyEntry, (String, Refusal)> {
    let name = value.get("name").and_then(Value::as_str).unwrap_or("?");
    let name: String = name.chars().filter(|character| !character.is_control()).take(63).collect();
    let path = format!("spec.topologies[{name}]");
    let entry: TopologyEntry = decode(value).map_err(|fault| {
        let message = format!("{}; or upgrade the agent", fault.within(&path));
        (name.clone(), Refusal::new(Reason::NotUnderstood, message))
    })?;
    let invalid = |message: String| (name.clone(), Refusal::new(Reason::InvalidSpec, message));
    if let Some(fault) = entry_faults(&entry).first() {
        return Err(invalid(fault.to_string()));
    }
    UnitName::of_topology(&entry.name).map_err(|error| invalid(format!("{path}: {error}")))?;
    Ok(entry)
}

/// The two places of the accepted state; writes alternate between them.
pub fn copies() -> [HostPath; 2] {
    [0, 1].map(|index| HostPath::new(format!("{STATE}/accepted.{index}")))
}

/// What the files of the accepted state hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Recalled {
    /// Neither copy is there or whole.
    Nothing,
    /// The newest whole copy.
    Accepted(Box<Accepted>),
    /// A newer agent wrote it: nothing is changed by this one.
    Newer {
        /// The format it is written in.
        schema: u64,
    },
}

/// Chooses among the contents of the two copies.
pub fn recall(copies: &[Option<Vec<u8>>]) -> Recalled {
    let bodies: Vec<Value> = copies.iter().flatten().filter_map(|content| body(content)).collect();
    let schema = |body: &Value| body.get("schema").and_then(Value::as_u64).unwrap_or(0);
    if let Some(schema) = bodies.iter().map(schema).max().filter(|schema| *schema > SCHEMA) {
        return Recalled::Newer { schema };
    }
    let read = bodies.into_iter().filter_map(|body| serde_json::from_value::<Accepted>(body).ok());
    match read.max_by_key(|accepted| accepted.sequence) {
        Some(accepted) => Recalled::Accepted(Box::new(accepted)),
        None => Recalled::Nothing,
    }
}

/// Where and how the state is written: over the older copy, with its checksum in front.
pub fn stored(accepted: &Accepted) -> (HostPath, String) {
    let [even, odd] = copies();
    let path = if accepted.sequence.is_multiple_of(2) { even } else { odd };
    let body = serde_json::to_string(accepted).expect("plain data with string keys always serialises");
    (path, wrap(KIND, &body))
}

/// The kind that the first line of a copy names.
const KIND: &str = "lamina-accepted";

/// The body of a whole copy.
fn body(content: &[u8]) -> Option<Value> {
    serde_json::from_str(unwrap(KIND, content)?).ok()
}

#[cfg(test)]
mod tests;
