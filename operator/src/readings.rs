//! Decides what of the passes, and of what they saw, is told to those who watch.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lamina_crds::slice_topology::HostCounts;
use lamina_crds::{SliceTopologyStatus, Term};
use lamina_endpoint::catalog::{
    HOSTS, OPERATOR_FAILED_PASSES, OPERATOR_INFO, OPERATOR_LEADING, OPERATOR_TERM, OPERATOR_VIOLATIONS,
    OPERATOR_WRITES, TOPOLOGY_BEHIND, TOPOLOGY_CONDITION, TOPOLOGY_HOSTS,
};
use lamina_endpoint::{Reading, by_status};

use crate::cluster::ClusterError;
use crate::controller::PassSummary;
use crate::liveness::{Liveness, liveness};
use crate::view::{ClusterView, TopologyView};

/// What all passes of this process did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    writes: usize,
    conflicts: usize,
    refusals: usize,
    failed: usize,
}

impl Counts {
    /// One more pass.
    pub fn add(&mut self, result: &Result<PassSummary, ClusterError>) {
        match result {
            Ok(PassSummary { writes, conflicts, refusals, violations: _, wake_at: _ }) => {
                self.writes += writes;
                self.conflicts += conflicts;
                self.refusals += refusals;
            }
            Err(_) => self.failed += 1,
        }
    }
}

/// What an operator tells of itself, whether it leads or not.
pub fn own(version: &str, counts: Counts, term: Option<Term>) -> Vec<Reading> {
    let Counts { writes, conflicts, refusals, failed } = counts;
    let outcomes = [("Done", writes), ("Conflict", conflicts), ("Refused", refusals)];
    vec![
        OPERATOR_INFO.reads_each([([version.to_owned()], 1.0)]),
        OPERATOR_LEADING.reads(if term.is_some() { 1.0 } else { 0.0 }),
        OPERATOR_TERM.reads(f64::from(term.map_or(0, Term::get))),
        OPERATOR_WRITES.reads_each(outcomes.map(|(outcome, count)| ([outcome.to_owned()], count as f64))),
        OPERATOR_FAILED_PASSES.reads(failed as f64),
    ]
}

/// What the operator that leads tells of the cluster. Hosts are counted and never named.
pub fn of_cluster(view: &ClusterView, violations: usize, now: Timestamp) -> Vec<Reading> {
    let topologies = || view.topologies.iter().map(|(name, topology)| (name.clone(), topology.as_ref()));
    vec![
        OPERATOR_VIOLATIONS.reads(violations as f64),
        HOSTS.reads_each(hosts(view, now)),
        TOPOLOGY_CONDITION.reads_each(topologies().flat_map(|(name, topology)| {
            let conditions = topology.status.conditions.iter().flat_map(by_status);
            conditions.map(move |([condition, status], holds)| ([name.clone(), condition, status], holds))
        })),
        TOPOLOGY_HOSTS.reads_each(topologies().flat_map(|(name, topology)| {
            by_state(&topology.status).map(|(state, count)| ([name.clone(), state.to_owned()], f64::from(count)))
        })),
        TOPOLOGY_BEHIND.reads_each(topologies().map(|(name, topology)| ([name], behind(topology)))),
    ]
}

fn hosts(view: &ClusterView, now: Timestamp) -> impl Iterator<Item = ([String; 1], f64)> {
    let mut counts = BTreeMap::from([Liveness::Live, Liveness::Unjudged, Liveness::Silent].map(|known| (known, 0_u32)));
    for host in view.hosts.values().filter(|host| host.state.is_some()) {
        *counts.entry(liveness(host, view.watching_since, now)).or_default() += 1;
    }
    counts.into_iter().map(|(known, count)| ([format!("{known:?}")], f64::from(count)))
}

fn by_state(status: &SliceTopologyStatus) -> [(&'static str, u32); 6] {
    let HostCounts { selected, updated, ready, degraded, stalled, offline } = status.hosts.unwrap_or_default();
    [
        ("Selected", selected),
        ("Updated", updated),
        ("Ready", ready),
        ("Degraded", degraded),
        ("Stalled", stalled),
        ("Offline", offline),
    ]
}

fn behind(topology: &TopologyView) -> f64 {
    (topology.generation - topology.status.observed_generation.max(0)).max(0) as f64
}

#[cfg(test)]
mod tests {
    use lamina_endpoint::Readings;
    use lamina_endpoint::catalog::OPERATOR_PASS_SECONDS;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::scene::Scene;

    /// What Prometheus is told, without comments.
    fn told(readings: Vec<Reading>) -> Vec<String> {
        let mut registry = Registry::default();
        Readings::of(OPERATOR_PASS_SECONDS, &mut registry).replace(readings);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes everything");
        text.lines().filter(|line| !line.starts_with('#') && !line.contains("_duration_")).map(str::to_owned).collect()
    }

    #[test]
    fn a_leader_tells_topologies_and_counts_hosts() {
        let scene = Scene::new().hosts(2).topology("shop", &["cores: 4"]).written().silence(&["h02"]);
        let lines = told(of_cluster(&scene.view(), 0, scene.now));
        for line in [
            "lamina_hosts{agent=\"Live\"} 1.0",
            "lamina_hosts{agent=\"Silent\"} 1.0",
            "lamina_hosts{agent=\"Unjudged\"} 0.0",
            "lamina_topology_condition{topology=\"shop\",condition=\"Ready\",status=\"True\"} 0.0",
            "lamina_topology_condition{topology=\"shop\",condition=\"Placed\",status=\"True\"} 1.0",
            "lamina_topology_hosts{topology=\"shop\",state=\"Selected\"} 2.0",
            "lamina_topology_generations_behind{topology=\"shop\"} 0.0",
            "lamina_operator_violations 0.0",
        ] {
            assert!(lines.iter().any(|told| told == line), "{line} is not in {lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("h01")), "{lines:#?}");
        let edited = scene.edit("shop", |spec| spec["slices"][0]["cpu"]["cores"] = 2.into());
        let lines = told(of_cluster(&edited.view(), 0, edited.now));
        let line = "lamina_topology_generations_behind{topology=\"shop\"} 1.0";
        assert!(lines.iter().any(|told| told == line), "{lines:#?}");
    }

    #[test]
    fn every_operator_tells_what_it_did_and_whether_it_leads() {
        let mut counts = Counts::default();
        counts.add(&Ok(PassSummary { writes: 3, conflicts: 1, ..PassSummary::default() }));
        counts.add(&Err(ClusterError::NotLeading { attempt: "a write".to_owned() }));
        let expected = [
            "lamina_operator_info{version=\"0.1.0\"} 1.0",
            "lamina_operator_leading 1.0",
            "lamina_operator_term 1.0",
            "lamina_operator_writes_total{outcome=\"Done\"} 3.0",
            "lamina_operator_writes_total{outcome=\"Conflict\"} 1.0",
            "lamina_operator_writes_total{outcome=\"Refused\"} 0.0",
            "lamina_operator_failed_passes_total 1.0",
        ];
        assert_eq!(told(own("0.1.0", counts, Some(Term::NONE.next()))), expected);
    }
}
