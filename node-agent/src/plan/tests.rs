//! From whatever state, the plan leads to the desired one and then is empty.

use lamina_crds::{TopologyName, UnitName};
use proptest::prelude::*;

use super::*;
use crate::apply::apply;
use crate::host::Host;
use crate::model::{ModelHost, example};
use crate::observed::{ObservedFile, Scope};
use crate::property::{Property, Value};
use crate::render::render;

fn desired() -> DesiredHost {
    let entry = example();
    let name = entry.name.clone();
    let mut desired = render(&entry).expect("the name is free");
    desired.written = desired.paths();
    DesiredHost { entries: [(name, desired)].into(), ..DesiredHost::default() }
}

/// One hand on the host.
#[derive(Clone, Debug)]
enum Perturbation {
    RemoveFile(usize),
    EmptyFile(usize),
    EditFile(usize),
    Kernel(usize, u64),
    Push(usize, u64),
    Stop(usize),
    Fail(usize),
    Orphan,
    Unload(usize),
    StaleProcess(usize),
}

fn perturbations() -> impl Strategy<Value = Vec<Perturbation>> {
    let one = prop_oneof![
        (0..64usize).prop_map(Perturbation::RemoveFile),
        (0..64usize).prop_map(Perturbation::EmptyFile),
        (0..64usize).prop_map(Perturbation::EditFile),
        (0..16usize, 0..1u64 << 40).prop_map(|(unit, value)| Perturbation::Kernel(unit, value)),
        (0..16usize, 0..1u64 << 40).prop_map(|(unit, value)| Perturbation::Push(unit, value)),
        (0..16usize).prop_map(Perturbation::Stop),
        (0..16usize).prop_map(Perturbation::Fail),
        Just(Perturbation::Orphan),
        (0..16usize).prop_map(Perturbation::Unload),
        (0..16usize).prop_map(Perturbation::StaleProcess),
    ];
    proptest::collection::vec(one, 0..8)
}

fn pick<T: Clone>(items: impl Iterator<Item = T>, index: usize) -> Option<T> {
    let items: Vec<T> = items.collect();
    if items.is_empty() { None } else { Some(items[index % items.len()].clone()) }
}

fn perturb(host: &mut ModelHost, perturbation: &Perturbation) {
    let ours = |host: &ModelHost| -> Vec<HostPath> { host.files.keys().cloned().collect() };
    let units = |host: &ModelHost| -> Vec<UnitName> { host.loaded.keys().cloned().collect() };
    match perturbation {
        Perturbation::RemoveFile(index) => {
            if let Some(path) = pick(ours(host).into_iter(), *index) {
                host.files.remove(&path);
            }
        }
        Perturbation::EmptyFile(index) => {
            let known = desired().entries.into_values().flat_map(|entry| entry.written);
            let files = known.filter(|path| host.files.contains_key(path));
            if let Some(path) = pick(files, *index) {
                host.put(path.as_str(), "");
            }
        }
        Perturbation::EditFile(index) => {
            let files = ours(host).into_iter().filter(|path| matches!(host.files[path], ObservedFile::Regular { .. }));
            if let Some(path) = pick(files, *index) {
                let edited = host.content(&path).unwrap_or_default() + "\n# edited\n";
                host.put(path.as_str(), &edited);
            }
        }
        Perturbation::Kernel(index, value) => {
            if let Some(values) = pick(host.kernel.keys().cloned(), *index).and_then(|unit| host.kernel.get_mut(&unit))
            {
                values.insert(Property::MemoryMax, Value::Number(value & !4095));
            }
        }
        Perturbation::Push(index, value) => {
            if let Some(unit) = pick(units(host).into_iter(), *index) {
                let path = HostPath::runtime_push(&unit, Property::MemoryHigh);
                host.put(path.as_str(), &format!("[Slice]\nMemoryHigh={value}\n"));
                if let Some(loaded) = host.loaded.get_mut(&unit) {
                    loaded.properties.insert(Property::MemoryHigh, Value::Number(*value));
                }
            }
        }
        Perturbation::Stop(index) => {
            if let Some(unit) = pick(host.processes.keys().cloned(), *index) {
                host.processes.remove(&unit);
                host.states.remove(&unit);
            }
        }
        Perturbation::Fail(index) => {
            if let Some(unit) = pick(host.processes.keys().cloned(), *index) {
                host.processes.remove(&unit);
                host.states.insert(unit, "failed".to_owned());
            }
        }
        Perturbation::Orphan => {
            let topology = TopologyName::new("orchestrator").expect("legal");
            let body = "[Service]\nExecStart=\"/bin/old\"\n";
            host.put("/etc/systemd/system/orchestrator-old.service", &crate::marker::sealed(&topology, body));
        }
        Perturbation::Unload(index) => {
            if let Some(unit) = pick(units(host).into_iter(), *index) {
                host.loaded.remove(&unit);
            }
        }
        Perturbation::StaleProcess(index) => {
            let process = pick(host.processes.keys().cloned(), *index).and_then(|unit| host.processes.get_mut(&unit));
            if let Some(process) = process {
                process.started_from = None;
            }
        }
    }
}

/// Plans and applies until nothing is left; how many rounds that took.
fn converge(host: &mut ModelHost, desired: &DesiredHost) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let scope = Scope {
        topologies: desired.entries.keys().cloned().collect(),
        units: desired.entries.values().flat_map(|entry| entry.units().cloned()).collect(),
        ..Scope::default()
    };
    for round in 0..8 {
        let observed = runtime.block_on(host.observe(&scope)).expect("a look");
        let held = Held::default();
        let plan = plan(desired, &observed, &held);
        if plan.steps.is_empty() {
            assert_eq!(stale(desired, &observed, &held), []);
            return round;
        }
        let outcome = runtime.block_on(apply(&plan, host));
        assert_eq!(outcome.failures, []);
    }
    panic!("the host does not settle: {:?}", host.log);
}

fn fresh(reload_applies: bool) -> ModelHost {
    let mut host = ModelHost { reload_applies, ..ModelHost::new() };
    converge(&mut host, &desired());
    host.log.clear();
    host
}

#[test]
fn a_fresh_host_takes_two_rounds() {
    let mut host = ModelHost::new();
    assert_eq!(converge(&mut host, &desired()), 2);
    assert_eq!(converge(&mut host, &desired()), 0, "and then nothing is left");
}

#[test]
fn slices_are_on_disk_before_services_and_links_come_last() {
    let mut host = ModelHost::new();
    converge(&mut host, &desired());
    let place = |part: &str| host.log.iter().position(|line| line.contains(part)).expect("it was done");
    let first_service = place(".service.d/");
    let last_slice = host.log.iter().rposition(|line| line.starts_with("write") && line.ends_with(".slice"));
    assert!(last_slice < Some(first_service));
    assert!(place("link") > host.log.iter().rposition(|line| line.starts_with("write")).expect("files"));
    assert!(place("reload") < place("start "));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_perturbed_host_comes_back(hands in perturbations(), reload_applies: bool) {
        let desired = desired();
        let mut host = fresh(reload_applies);
        let settled = host.clone();
        for hand in &hands {
            perturb(&mut host, hand);
        }
        converge(&mut host, &desired);
        let differing = host.files.iter().filter(|(path, file)| settled.files.get(*path) != Some(*file));
        prop_assert_eq!(differing.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&HostPath>::new());
        prop_assert_eq!(host.files.len(), settled.files.len());
        prop_assert_eq!(&host.kernel, &settled.kernel);
        prop_assert_eq!(host.processes.keys().collect::<Vec<_>>(), settled.processes.keys().collect::<Vec<_>>());
        let touched = hands.iter().any(|hand| {
            matches!(hand, Perturbation::Stop(_) | Perturbation::Fail(_) | Perturbation::StaleProcess(_))
        });
        if !touched {
            prop_assert_eq!(host.processes, settled.processes, "nobody is restarted in vain");
        }
    }
}

#[test]
fn what_stands_before_a_change_is_made_durable_first() {
    let desired = desired();
    let mut host = fresh(true);
    let unit = UnitName::new("orchestrator-api.service").expect("legal");
    host.files.remove(&HostPath::fragment(&unit));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let scope = Scope { topologies: desired.entries.keys().cloned().collect(), ..Scope::default() };
    let observed = runtime.block_on(host.observe(&scope)).expect("a look");
    let steps = plan(&desired, &observed, &Held::default()).steps;
    let place = |wanted: &dyn Fn(&Effect) -> bool| steps.iter().position(|step| wanted(&step.effect));
    let slice = HostPath::drop_in(&UnitName::new("orchestrator-control.slice").expect("legal")).directory();
    let synced = place(&|effect| matches!(effect, Effect::Sync { directory } if *directory == slice));
    let written = place(&|effect| matches!(effect, Effect::Write { .. }));
    assert!(synced.is_some() && synced < written, "{steps:?}");
}
