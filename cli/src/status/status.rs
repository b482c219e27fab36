//! Decides what is told of topologies and hosts: how each one stands, since when, and why, in the words of its conditions,
//! which end in what to do.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use jiff::Timestamp;
use lamina_crds::conditions::{Condition, ConditionStatus, ConditionType, find};
use lamina_crds::host_state::{SliceStatus, TopologyStatus};
use lamina_crds::slice_topology::HostCounts;
use lamina_crds::{HostStateStatus, SliceTopologyStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::outcome::Outcome;

/// How something stands, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Standing {
    /// Nothing will change without a hand from outside.
    Stalled,
    /// Nobody can tell, or not everything asked is true.
    NotReady,
    /// Work is under way, or this generation was not looked at yet.
    Reconciling,
    /// `spec.paused` keeps a change away.
    Paused,
    /// As asked as far as it can be, which is less than asked.
    Degraded,
    /// Everything asked is true, and measured.
    Ready,
}

/// Everything that is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// The topologies, worst first.
    pub topologies: Vec<TopologyLine>,
    /// What stands on hosts, worst first.
    pub hosts: Vec<HostLine>,
}

/// How one topology stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopologyLine {
    /// How it stands.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Its name.
    pub topology: String,
    /// Its hosts, counted.
    pub hosts: HostCounts,
}

/// How one topology stands on one host; without a topology, how the host itself does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostLine {
    /// How it stands.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The host.
    pub host: String,
    /// The topology; none where the host as a whole is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// Its slices, as the kernel has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceStatus>,
    /// Its conditions, as the agent wrote them.
    pub conditions: Vec<Condition>,
}

/// How something stands, since when, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// How it stands.
    pub standing: Standing,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// One word for why.
    pub reason: String,
    /// Why, and what to do.
    pub message: String,
}

/// What kubectl shows of the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    topologies: Vec<Object<SliceTopologyStatus>>,
    hosts: Vec<Object<HostStateStatus>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Object<S> {
    name: String,
    generation: i64,
    status: S,
}

impl Objects {
    /// Reads a list as `kubectl get slicetopologies,hoststates -o json` writes it.
    ///
    /// # Errors
    /// Names the object whose status is not of this version.
    pub fn read(list: &str) -> Result<Self> {
        let list: Value = serde_json::from_str(list).context("read what kubectl writes")?;
        let mut objects = Self::default();
        for item in list["items"].as_array().into_iter().flatten() {
            match item["kind"].as_str() {
                Some("SliceTopology") => objects.topologies.push(object(item)?),
                Some("HostState") => objects.hosts.push(object(item)?),
                Some(_) | None => {}
            }
        }
        Ok(objects)
    }
}

fn object<S: DeserializeOwned + Default>(item: &Value) -> Result<Object<S>> {
    let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let generation = item["metadata"]["generation"].as_i64().unwrap_or_default();
    let status = match &item["status"] {
        Value::Null => S::default(),
        status => serde_json::from_value(status.clone()).with_context(|| format!("read the status of {name}"))?,
    };
    Ok(Object { name, generation, status })
}

/// What is told of these objects, and of those only that bear one of these names: of topologies, hosts or units. Without
/// names, everything.
pub fn status(objects: &Objects, names: &BTreeSet<String>) -> Status {
    let is_meant = |name: &str| names.is_empty() || names.contains(name);
    let topologies = objects.topologies.iter().filter(|topology| is_meant(&topology.name)).map(topology_line);
    let hosts = objects.hosts.iter().flat_map(|host| {
        let whole = is_meant(&host.name).then(|| host_line(host));
        let entries = host.status.topologies.iter().filter_map(|entry| {
            let is_whole = is_meant(&host.name) || is_meant(&entry.name);
            let slices: Vec<_> =
                entry.slices.iter().filter(|slice| is_whole || is_meant(&slice.unit)).cloned().collect();
            (is_whole || !slices.is_empty()).then(|| entry_line(host, entry, slices))
        });
        whole.into_iter().chain(entries).collect::<Vec<_>>()
    });
    let (mut topologies, mut hosts): (Vec<_>, Vec<_>) = (topologies.collect(), hosts.collect());
    topologies.sort_by_key(|line| line.verdict.standing);
    hosts.sort_by_key(|line| line.verdict.standing);
    Status { topologies, hosts }
}

impl Status {
    /// The names that mean nothing here.
    pub fn missing<'a>(&self, names: &'a BTreeSet<String>) -> Vec<&'a String> {
        let slices = self.hosts.iter().flat_map(|line| &line.slices).map(|slice| slice.unit.clone());
        let hosts = self.hosts.iter().flat_map(|line| line.topology.iter().chain([&line.host])).cloned();
        let known: BTreeSet<String> =
            self.topologies.iter().map(|line| line.topology.clone()).chain(hosts).chain(slices).collect();
        names.iter().filter(|name| !known.contains(*name)).collect()
    }

    /// How asking ends: Done where everything is as asked, or as far as it can be.
    pub fn outcome(&self) -> Outcome {
        let topologies = self.topologies.iter().map(|line| line.verdict.standing);
        let mut all = topologies.chain(self.hosts.iter().map(|line| line.verdict.standing));
        if all.all(|standing| standing >= Standing::Degraded) { Outcome::Done } else { Outcome::Changes }
    }
}

fn topology_line(topology: &Object<SliceTopologyStatus>) -> TopologyLine {
    let Object { name, generation, status } = topology;
    let SliceTopologyStatus { observed_generation, hosts, worst: _, conditions } = status;
    let verdict = verdict(conditions, *generation, *observed_generation);
    TopologyLine { verdict, topology: name.clone(), hosts: hosts.unwrap_or_default() }
}

fn host_line(host: &Object<HostStateStatus>) -> HostLine {
    let HostStateStatus { observed_generation, conditions, .. } = &host.status;
    HostLine {
        verdict: verdict(conditions, host.generation, *observed_generation),
        host: host.name.clone(),
        topology: None,
        slices: Vec::new(),
        conditions: conditions.clone(),
    }
}

fn entry_line(host: &Object<HostStateStatus>, entry: &TopologyStatus, slices: Vec<SliceStatus>) -> HostLine {
    let TopologyStatus { name, state: _, revision: _, slices: _, conditions } = entry;
    HostLine {
        verdict: verdict(conditions, host.generation, host.status.observed_generation),
        host: host.name.clone(),
        topology: Some(name.clone()),
        slices,
        conditions: conditions.clone(),
    }
}

/// The first condition that tells more than Ready does, in kstatus' order; what was said of an older generation counts
/// as said before the question.
fn verdict(conditions: &[Condition], generation: i64, observed: i64) -> Verdict {
    use ConditionType::{Degraded, Paused, Ready, Reconciling, Stalled};
    if observed < generation {
        return Verdict {
            standing: Standing::Reconciling,
            since: None,
            reason: "NotObserved".to_owned(),
            message: format!("generation {generation} was not looked at yet"),
        };
    }
    let is_true = |type_| find(conditions, type_).filter(|found| found.status == ConditionStatus::True);
    let (standing, told) = match is_true(Ready) {
        Some(ready) => is_true(Degraded).map_or((Standing::Ready, Some(ready)), |told| (Standing::Degraded, Some(told))),
        None => [(Standing::Stalled, Stalled), (Standing::Paused, Paused), (Standing::Reconciling, Reconciling)]
            .into_iter()
            .find_map(|(standing, type_)| Some((standing, Some(is_true(type_)?))))
            .unwrap_or((Standing::NotReady, find(conditions, Ready))),
    };
    Verdict {
        standing,
        since: told.map(|told| told.last_transition_time.0),
        reason: told.map(|told| told.reason.clone()).unwrap_or_default(),
        message: told.map(|told| told.message.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(type_: &str, status: &str, message: &str) -> Value {
        json!({ "type": type_, "status": status, "reason": "Why", "message": message,
            "lastTransitionTime": "2026-11-26T10:00:00Z", "observedGeneration": 2 })
    }

    fn objects() -> Objects {
        let topology = |name: &str, observed: i64, conditions: Vec<Value>| {
            json!({ "kind": "SliceTopology", "metadata": { "name": name, "generation": 2 },
                "status": { "observedGeneration": observed, "conditions": conditions } })
        };
        let slice = |unit: &str| json!({ "unit": unit, "cpus": "0-7", "memoryNodes": "0", "services": 5, "servicesReady": 5 });
        let host = json!({ "kind": "HostState", "metadata": { "name": "host-7", "generation": 2 }, "status": {
            "observedGeneration": 2,
            "conditions": [condition("Ready", "False", "orchestrator waits")],
            "topologies": [{ "name": "shop", "slices": [slice("shop-web.slice"), slice("shop-db.slice")],
                "conditions": [condition("Ready", "False", "no"), condition("Stalled", "True", "install /opt/shop/web")] }],
        } });
        let list = json!({ "items": [
            topology("calm", 2, vec![condition("Ready", "True", "all is well")]),
            topology("small", 2, vec![condition("Ready", "True", "ok"), condition("Degraded", "True", "fewer CPUs")]),
            topology("shop", 2, vec![condition("Ready", "False", "no"), condition("Stalled", "True", "host-7: install it")]),
            topology("fresh", 1, vec![condition("Ready", "True", "of the spec before")]),
            host,
        ] });
        Objects::read(&list.to_string()).expect("a list")
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_worst_comes_first_and_says_what_to_do() {
        let told = status(&objects(), &names(&[]));
        let lines: Vec<_> = told.topologies.iter().map(|line| (line.topology.as_str(), line.verdict.standing)).collect();
        let expected = [
            ("shop", Standing::Stalled),
            ("fresh", Standing::Reconciling),
            ("small", Standing::Degraded),
            ("calm", Standing::Ready),
        ];
        assert_eq!(lines, expected);
        assert_eq!(told.topologies[0].verdict.message, "host-7: install it");
        assert_eq!(told.topologies[0].verdict.since, "2026-11-26T10:00:00Z".parse().ok());
        assert_eq!(told.outcome(), Outcome::Changes);
    }

    #[test]
    fn a_name_means_a_topology_a_host_or_a_slice() {
        let of = |name: &str| status(&objects(), &names(&[name]));
        assert_eq!(of("calm").outcome(), Outcome::Done);
        assert_eq!(of("small").outcome(), Outcome::Done);
        let host = of("host-7");
        assert!(host.topologies.is_empty());
        let lines: Vec<_> = host.hosts.iter().map(|line| (line.topology.as_deref(), line.slices.len())).collect();
        assert_eq!(lines, [(Some("shop"), 2), (None, 0)]);
        let slice = of("shop-db.slice");
        assert_eq!(slice.hosts.len(), 1);
        assert_eq!(slice.hosts[0].slices[0].unit.as_str(), "shop-db.slice");
        assert_eq!(of("nobody").missing(&names(&["nobody"])), ["nobody"]);
        assert!(slice.missing(&names(&["shop-db.slice"])).is_empty());
    }

    #[test]
    fn a_status_of_another_version_is_named() {
        let list = json!({ "items": [{ "kind": "HostState", "metadata": { "name": "host-7" }, "status": { "topologies": 3 } }] });
        let error = Objects::read(&list.to_string()).expect_err("a number is no list");
        assert!(format!("{error:#}").starts_with("read the status of host-7"), "{error:#}");
    }
}
