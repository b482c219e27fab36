//! Decides what is read of the objects that kubectl shows: topologies, hosts, and when each host's agent was last heard.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use lamina_crds::{HostStateStatus, SliceTopologySpec, SliceTopologyStatus, TopologyEntry};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What kubectl shows of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// The topologies.
    pub topologies: Vec<Topology>,
    /// The hosts.
    pub hosts: Vec<Host>,
}

/// A topology.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// Its name.
    pub name: String,
    /// The generation of its spec.
    pub generation: i64,
    /// What it asks; none where a newer Lamina wrote what this one does not understand.
    pub spec: Option<SliceTopologySpec>,
    /// How it stands.
    pub status: SliceTopologyStatus,
}

/// A host.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The generation of its spec.
    pub generation: i64,
    /// What it is asked to run; without what a newer Lamina wrote and this one does not understand.
    pub entries: Vec<TopologyEntry>,
    /// What its agent said last.
    pub status: HostStateStatus,
    /// When its agent was last heard, if that may be read.
    pub heard: Option<Timestamp>,
}

impl Objects {
    /// Reads a list as `kubectl get slicetopologies,hoststates -o json` writes it, or one object.
    ///
    /// # Errors
    /// Names the object whose status is not of this version.
    pub fn read(list: &str) -> Result<Self> {
        let mut objects = Self::default();
        for item in items(list)? {
            let name = text(&item["metadata"]["name"]);
            let generation = item["metadata"]["generation"].as_i64().unwrap_or_default();
            match item["kind"].as_str() {
                Some("SliceTopology") => objects.topologies.push(Topology {
                    spec: serde_json::from_value(item["spec"].clone()).ok(),
                    status: status(&item, &name)?,
                    name,
                    generation,
                }),
                Some("HostState") => objects.hosts.push(Host {
                    entries: entries(&item["spec"]["topologies"]),
                    status: status(&item, &name)?,
                    name,
                    generation,
                    heard: None,
                }),
                Some(_) | None => {}
            }
        }
        Ok(objects)
    }

    /// The host among them.
    ///
    /// # Errors
    /// Fails when it is not.
    pub fn host(self, name: &str) -> Result<Host> {
        let mut hosts = self.hosts.into_iter();
        hosts.find(|host| host.name == name).with_context(|| format!("{name} is no host of this cluster"))
    }

    /// Notes when agents were last heard, from their Leases.
    ///
    /// # Errors
    /// Fails when it is no JSON.
    pub fn note_leases(&mut self, list: &str) -> Result<()> {
        let renewed = |item: &Value| {
            let time = item["spec"]["renewTime"].as_str()?.parse::<Timestamp>().ok()?;
            Some((text(&item["metadata"]["name"]), time))
        };
        let heard: BTreeMap<String, Timestamp> = items(list)?.iter().filter_map(renewed).collect();
        for host in &mut self.hosts {
            host.heard = heard.get(&host.name).copied();
        }
        Ok(())
    }
}

/// The items of a list in JSON; of one object, that.
pub(super) fn items(list: &str) -> Result<Vec<Value>> {
    let mut list: Value = serde_json::from_str(list).context("read what kubectl writes")?;
    match list.get_mut("items").and_then(Value::as_array_mut) {
        Some(items) => Ok(std::mem::take(items)),
        None => Ok(vec![list]),
    }
}

fn entries(topologies: &Value) -> Vec<TopologyEntry> {
    let items = topologies.as_array().into_iter().flatten();
    items.filter_map(|entry| serde_json::from_value(entry.clone()).ok()).collect()
}

fn status<S: DeserializeOwned + Default>(item: &Value, name: &str) -> Result<S> {
    match &item["status"] {
        Value::Null => Ok(S::default()),
        status => serde_json::from_value(status.clone()).with_context(|| {
            format!("read the status of {name}; is this kubectl-lamina older than the cluster's Lamina?")
        }),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_of_another_version_is_named() {
        let host = json!({ "kind": "HostState", "metadata": { "name": "host-7" }, "status": { "topologies": 3 } });
        let error = Objects::read(&json!({ "items": [host] }).to_string()).expect_err("a number is no list");
        assert!(format!("{error:#}").starts_with("read the status of host-7"), "{error:#}");
    }

    #[test]
    fn what_a_newer_version_asks_hides_nothing_else() {
        let host = json!({ "kind": "HostState", "metadata": { "name": "host-7", "generation": 3 },
            "spec": { "topologies": [{ "name": "web", "fromTheFuture": true }] } });
        let topology =
            json!({ "kind": "SliceTopology", "metadata": { "name": "web" }, "spec": { "fromTheFuture": 1 } });
        let mut objects = Objects::read(&json!({ "items": [host, topology] }).to_string()).expect("a list");
        assert_eq!((objects.hosts[0].generation, objects.hosts[0].entries.len()), (3, 0));
        assert_eq!(objects.topologies[0].spec, None);
        let lease = json!({ "metadata": { "name": "host-7" }, "spec": { "renewTime": "2026-11-26T10:00:00.123456Z" } });
        objects.note_leases(&json!({ "items": [lease] }).to_string()).expect("a list");
        assert_eq!(objects.hosts[0].heard, "2026-11-26T10:00:00.123456Z".parse().ok());
    }
}
