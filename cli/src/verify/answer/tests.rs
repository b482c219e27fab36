//! Answers out of a measurement and out of what was said last.

use lamina_crds::measured::{ComparedSetting, ThreadGroup, VerifiedFault};
use serde_json::json;

use super::*;
use crate::cluster::Objects;

fn unit(name: &str) -> UnitName {
    UnitName::new(format!("orchestrator-{name}")).expect("legal")
}

fn same<S: Clone + std::str::FromStr<Err: std::fmt::Debug>>(list: &str) -> Compared<S> {
    let set: S = list.parse().expect("a list");
    Compared { asked: Some(set.clone()), property: Some(set.clone()), kernel: Some(set) }
}

fn slice(name: &str, cpus: &str, node: &str, pages: &[(u32, u64)]) -> VerifiedSlice {
    let setting = |key: &str, asked: &str, kernel: &str| ComparedSetting {
        key: key.to_owned(),
        asked: asked.to_owned(),
        property: Some(asked.to_owned()),
        kernel: Some(kernel.to_owned()),
    };
    VerifiedSlice {
        unit: unit(name),
        cpus: same(cpus),
        memory_nodes: same(node),
        settings: vec![
            setting("MemoryMin", "0", "0"),
            setting("MemoryMax", "12884901888", "12884901888"),
            setting("IOWeight", "", "100"),
            setting("TasksMax", "infinity", "infinity"),
        ],
        pages: pages.iter().copied().collect(),
    }
}

fn service(name: &str, slice: &str, groups: &[(&str, &str, u32)], pages: &[(u32, u64)]) -> VerifiedService {
    let mut first = 100;
    let group = |(cpus, nodes, count): &(&str, &str, u32)| {
        first += 100;
        ThreadGroup {
            cpus: cpus.parse().expect("a list"),
            memory_nodes: nodes.parse().expect("a list"),
            count: *count,
            threads: (first..first + (*count).min(8)).collect(),
        }
    };
    let groups: Vec<ThreadGroup> = groups.iter().map(group).collect();
    VerifiedService {
        unit: unit(name),
        slice: unit(slice),
        active_state: "active".to_owned(),
        sub_state: "running".to_owned(),
        threads: groups.iter().map(|group| group.count).sum(),
        strayed: 0,
        groups,
        further_threads: 0,
        settings: Vec::new(),
        pages: pages.iter().copied().collect(),
    }
}

/// A host with three slices, on which all is as asked.
pub(in crate::verify) fn host() -> HostVerification {
    let gibi = |amount: u64| amount << 30;
    HostVerification {
        api_version: API_VERSION.to_owned(),
        kind: "HostVerification".to_owned(),
        host: "host-7".to_owned(),
        measured_at: "2026-11-26T10:00:00Z".parse().expect("a time"),
        topologies: vec![VerifiedTopology {
            name: TopologyName::new("orchestrator").expect("legal"),
            state: EntryState::Present,
            revision: "4f1c09ab52de".to_owned(),
            slices: vec![
                slice("control.slice", "0-7", "0", &[(0, gibi(4)), (1, 0)]),
                slice("runner.slice", "8-15", "1", &[(0, gibi(1) / 64), (1, gibi(7))]),
                slice("fanout.slice", "16-19", "0", &[(0, 0), (1, 0)]),
            ],
            services: vec![
                service("api.service", "control.slice", &[("0-7", "0", 100), ("3", "0", 12)], &[(0, gibi(4)), (1, 0)]),
                service("runner.service", "runner.slice", &[("8-15", "1", 64)], &[(0, gibi(1) / 64), (1, gibi(7))]),
                service("fanout.service", "fanout.slice", &[("16-19", "0", 31)], &[]),
            ],
            faults: Vec::new(),
            offline: Vec::new(),
            pending: Vec::new(),
        }],
    }
}

/// The same host after somebody widened a slice and moved a thread.
pub(in crate::verify) fn broken_host() -> HostVerification {
    let mut host = host();
    let topology = &mut host.topologies[0];
    topology.slices[0].cpus.kernel = Some("0-19".parse().expect("a list"));
    topology.services[0].groups.insert(
        0,
        ThreadGroup {
            cpus: "0-19".parse().expect("a list"),
            memory_nodes: "0".parse().expect("a list"),
            count: 2,
            threads: vec![4711, 4712],
        },
    );
    topology.services[0].threads += 2;
    let fault = |name: &str, message: &str| VerifiedFault { unit: unit(name), message: message.to_owned() };
    topology.faults = vec![
        fault(
            "control.slice",
            "orchestrator-control.slice: CPUs 0-7 are asked, the kernel gives `0-19`; look at the slices above it",
        ),
        fault(
            "api.service",
            "orchestrator-api.service: a thread may run on CPUs 8-19, outside orchestrator-control.slice",
        ),
    ];
    topology.pending = vec![unit("api.service")];
    host
}

/// A host whose agent is a service of it.
pub(in crate::verify) fn told_host() -> Host {
    let slice = json!({ "unit": "orchestrator-control.slice", "cpus": "0-7", "memoryNodes": "0", "services": 5, "servicesReady": 5 });
    let ready = json!({ "type": "Ready", "status": "True", "reason": "AsAsked", "message": "all is well",
        "lastTransitionTime": "2026-11-26T09:00:00Z", "observedGeneration": 3 });
    let item = json!({ "kind": "HostState", "metadata": { "name": "host-9", "generation": 3 },
        "spec": { "topologies": [{ "name": "orchestrator", "state": "Present", "revision": "4f1c09ab52de", "generation": 1,
            "slices": [{ "unit": "orchestrator-control.slice", "cpus": "0-7", "memoryNodes": "0" }] }] },
        "status": { "observedGeneration": 3, "agent": { "version": "0.1.0", "form": "Host" }, "conditions": [ready],
            "topologies": [{ "name": "orchestrator", "slices": [slice], "conditions": [ready] }] } });
    let mut objects = Objects::read(&json!({ "items": [item] }).to_string()).expect("a list");
    let mut host = objects.hosts.remove(0);
    host.heard = "2026-11-26T10:00:00Z".parse().ok();
    host
}

pub(in crate::verify) fn wishes() -> Wishes {
    let text = "apiVersion: lamina.dev/v1alpha1\nkind: SliceTopology\nmetadata: { name: orchestrator }\nspec: { hostSelector: { matchLabels: { a: b } }, slices: [\
        { name: control, cpu: { cores: 8 }, numa: { ordinal: 0 } }, { name: runner, cpu: { cores: 8 }, numa: { apart: [{ slice: control }] } },\
        { name: fanout, cpu: { cores: 4 }, numa: { near: [{ slice: control }] } }] }";
    let topology = crate::document::topologies(text).expect("legal").remove(0);
    [(topology.name, topology.spec)].into()
}

#[test]
fn what_is_measured_as_asked_ends_well() {
    let answer = measured(host(), Source::Here, &wishes());
    assert_eq!((answer.verdict, answer.outcome()), (Verdict::AsAsked, Outcome::Done));
    let rows: Vec<_> = answer.slices.iter().map(|row| (row.slice.as_str(), row.asked.as_str(), row.as_asked)).collect();
    let expected = [
        ("control", "8 cores, NUMA node #0", true),
        ("runner", "8 cores apart from control", true),
        ("fanout", "4 cores near control", true),
    ];
    assert_eq!(rows, expected);
    assert_eq!(answer.slices[0].threads, Some(ThreadCount { all: 112, outside: 0 }));
    assert_eq!(measured(host(), Source::Here, &Wishes::new()).slices[0].asked, "CPUs 0-7, node 0");
}

#[test]
fn what_differs_is_counted_and_named() {
    let answer = measured(broken_host(), Source::Agent, &wishes());
    assert_eq!((answer.verdict, answer.outcome(), answer.faults.len()), (Verdict::Differs, Outcome::Changes, 2));
    assert_eq!(answer.slices[0].threads, Some(ThreadCount { all: 114, outside: 2 }));
    assert_eq!(answer.slices[0].services, ServiceCount { as_asked: 0, all: 1 });
    assert!(!answer.slices[0].as_asked && answer.slices[1].as_asked);
    assert!(answer.notes[0].ends_with("orchestrator-api.service"), "{:?}", answer.notes);
}

#[test]
fn what_was_said_last_counts_while_its_agent_is_heard() {
    let host = told_host();
    let answer = |host: &Host, is_silent| said_last(host, "nobody can ask it".to_owned(), is_silent, &wishes());
    let alive = answer(&host, false);
    assert_eq!((alive.verdict, alive.source, alive.at), (Verdict::AsAsked, Source::HostState, host.heard));
    assert_eq!((alive.slices[0].threads, alive.slices[0].services.all), (None, 5));
    assert_eq!(answer(&host, true).outcome(), Outcome::Changes);
    let stale = Host { generation: 4, ..host };
    let stale = answer(&stale, false);
    assert_eq!(stale.verdict, Verdict::Differs);
    assert!(stale.faults.iter().any(|fault| fault.contains("generation 4")), "{:?}", stale.faults);
}
