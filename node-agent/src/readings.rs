//! Decides what of a pass, and of all passes, is told to those who watch.

use lamina_crds::HostStateStatus;
use lamina_crds::host_state::{AgentIdentity, HostSummary, SliceStatus, TopologyStatus};
use lamina_endpoint::catalog::{
    AGENT_API_WRITES, AGENT_BUS_CALLS, AGENT_HEALS, AGENT_INFO, AGENT_PROBLEMS, AGENT_RESTARTS, AGENT_STEPS,
    HOST_CONDITION, HOST_CPUS, HOST_DRIFTED, HOST_TOPOLOGY_CONDITION, SLICE_CPUS, SLICE_SERVICES, SLICE_SERVICES_READY,
};
use lamina_endpoint::{Reading, by_status};

use crate::agent::PassOutcome;

/// What all passes of this process did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    steps: usize,
    heals: usize,
    restarts: usize,
    api_writes: usize,
    problems: usize,
}

impl Counts {
    /// One more pass.
    pub fn add(&mut self, outcome: &PassOutcome) {
        let PassOutcome { steps, heals, restarts, api_writes, problems, ready: _, again_after: _, measured: _ } =
            outcome;
        self.steps += steps;
        self.heals += heals;
        self.restarts += restarts;
        self.api_writes += api_writes;
        self.problems += problems.len();
    }
}

/// What is told after a pass. A host that could not be looked at has no measured values.
pub fn readings(host: &str, counts: Counts, bus_calls: u64, measured: Option<&HostStateStatus>) -> Vec<Reading> {
    let Counts { steps, heals, restarts, api_writes, problems } = counts;
    let mut told = vec![
        AGENT_STEPS.reads(steps as f64),
        AGENT_HEALS.reads(heals as f64),
        AGENT_RESTARTS.reads(restarts as f64),
        AGENT_API_WRITES.reads(api_writes as f64),
        AGENT_PROBLEMS.reads(problems as f64),
        AGENT_BUS_CALLS.reads(bus_calls as f64),
    ];
    told.extend(measured.into_iter().flat_map(|status| of_host(host, status)));
    told
}

fn of_host(host: &str, status: &HostStateStatus) -> Vec<Reading> {
    let agent = status
        .agent
        .iter()
        .map(|AgentIdentity { version, form }| ([host.to_owned(), version.clone(), format!("{form:?}")], 1.0));
    let summary = status.summary.unwrap_or_default();
    let HostSummary { cpus, services: _, services_ready: _, drifted } = summary;
    let topologies = &status.topologies;
    vec![
        AGENT_INFO.reads_each(agent),
        HOST_CPUS.reads(f64::from(cpus)),
        HOST_DRIFTED.reads(f64::from(drifted)),
        HOST_CONDITION.reads_each(status.conditions.iter().flat_map(by_status)),
        HOST_TOPOLOGY_CONDITION.reads_each(topologies.iter().flat_map(|topology| {
            let conditions = topology.conditions.iter().flat_map(by_status);
            conditions.map(|([condition, status], holds)| ([topology.name.clone(), condition, status], holds))
        })),
        SLICE_CPUS.reads_each(by_slice(topologies, |slice| slice.cpus.len() as f64)),
        SLICE_SERVICES.reads_each(by_slice(topologies, |slice| f64::from(slice.services))),
        SLICE_SERVICES_READY.reads_each(by_slice(topologies, |slice| f64::from(slice.services_ready))),
    ]
}

fn by_slice(
    topologies: &[TopologyStatus],
    value: impl Fn(&SliceStatus) -> f64 + Copy,
) -> impl Iterator<Item = ([String; 2], f64)> {
    topologies.iter().flat_map(move |topology| {
        topology.slices.iter().map(move |slice| ([topology.name.clone(), slice.unit.clone()], value(slice)))
    })
}
