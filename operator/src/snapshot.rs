//! What the caches of the operator hold at one moment: plain data, objects still undecoded, so that one that cannot be
//! understood never stands in the way of the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

/// Everything the operator knows of the cluster at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// All topologies, by name.
    pub topologies: BTreeMap<String, Arc<RawObject>>,
    /// All host states, by name.
    pub host_states: BTreeMap<String, Arc<RawObject>>,
    /// The labels of all Kubernetes nodes, by name.
    pub nodes: BTreeMap<String, BTreeMap<String, String>>,
    /// The agents' leases, by host.
    pub leases: BTreeMap<String, LeaseTrace>,
    /// Since when this process has watched the leases; silence is judged by its own clock only.
    pub watching_since: Timestamp,
}

/// What this process saw of one agent's lease, by its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTrace {
    /// When the lease was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen to change; none while it has not changed since it was first seen.
    pub last_change_seen: Option<Timestamp>,
}

/// One object of the API as it came: metadata read, spec and status left as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct RawObject {
    /// Its name.
    pub name: String,
    /// Its identity: another object of the same name has another.
    pub uid: String,
    /// Its version, for preconditions of writes.
    pub resource_version: String,
    /// The generation of its spec.
    pub generation: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its finalizers, in their order.
    pub finalizers: Vec<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When its deletion was asked for.
    pub deletion_asked: Option<Timestamp>,
    /// Its spec; null if it has none.
    pub spec: Arc<Value>,
    /// Its status; null if it has none.
    pub status: Arc<Value>,
}

impl RawObject {
    /// Reads an object as the API server sends it. None if it has no name.
    pub fn from_json(object: &Value) -> Option<Self> {
        let metadata = object.get("metadata")?;
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let time = |key: &str| metadata.get(key).and_then(Value::as_str).and_then(|text| text.parse().ok());
        let name = metadata.get("name").and_then(Value::as_str)?.to_owned();
        Some(Self {
            name,
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            generation: metadata.get("generation").and_then(Value::as_i64).unwrap_or(0),
            labels: string_map(metadata.get("labels")),
            annotations: string_map(metadata.get("annotations")),
            finalizers: strings(metadata.get("finalizers")),
            created: time("creationTimestamp"),
            deletion_asked: time("deletionTimestamp"),
            spec: Arc::new(object.get("spec").cloned().unwrap_or(Value::Null)),
            status: Arc::new(object.get("status").cloned().unwrap_or(Value::Null)),
        })
    }

    /// Whether this is a later version of the same object. Versions of one object count up; text that is no number
    /// compares as older.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let version = |object: &Self| object.resource_version.parse::<u64>().unwrap_or(0);
        self.uid == other.uid && version(self) > version(other)
    }
}

fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let pair = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    value.and_then(Value::as_object).map(|map| map.iter().filter_map(pair).collect()).unwrap_or_default()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let texts = |list: &Vec<Value>| list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    value.and_then(Value::as_array).map(texts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_without_understanding_its_spec() {
        let object = serde_json::json!({
            "metadata": { "name": "x", "uid": "u", "resourceVersion": "7", "generation": 3, "labels": { "a": "b" },
                "finalizers": ["f"], "creationTimestamp": "2026-01-02T03:04:05Z" },
            "spec": { "nonsense": [1] },
        });
        let read = RawObject::from_json(&object).expect("it has a name");
        assert_eq!((read.generation, read.resource_version.as_str()), (3, "7"));
        assert_eq!(read.labels["a"], "b");
        assert_eq!(read.created, "2026-01-02T03:04:05Z".parse().ok());
        assert_eq!(*read.spec, serde_json::json!({ "nonsense": [1] }));
        assert_eq!(*read.status, Value::Null);
    }
}
