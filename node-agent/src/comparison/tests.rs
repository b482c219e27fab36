//! What is told of the running example on a host in memory, as asked and after somebody's hand was on it.

use super::*;
use crate::converge::{converge, look};
use crate::memory::Memory;
use crate::model::{ModelHost, example};
use crate::render::render;

fn unit(name: &str) -> UnitName {
    UnitName::new(format!("orchestrator-{name}")).expect("legal")
}

fn places(groups: &[(&str, &str, u32)]) -> BTreeMap<(CpuSet, NodeSet), Vec<u32>> {
    let group = |(cpus, nodes, count): &(&str, &str, u32)| {
        ((cpus.parse().expect("a list"), nodes.parse().expect("a list")), (1..=*count).collect())
    };
    groups.iter().map(group).collect()
}

/// The example, applied; then whatever `change` does to the host; then what is told of it.
async fn told(change: impl FnOnce(&mut ModelHost), probes: BTreeMap<UnitName, Probe>) -> HostVerification {
    let entry = example();
    let rendered = render(&entry).expect("the name is free");
    let desired = DesiredHost { entries: [(entry.name, rendered)].into(), ..DesiredHost::default() };
    let (mut memory, mut host) = (Memory::default(), ModelHost::new());
    let hardware = host.hardware.clone();
    converge(&mut memory, &mut host, &desired, &hardware, Timestamp::UNIX_EPOCH).await;
    change(&mut host);
    let observed = look(&mut host, &desired, &hardware).await.observed.expect("a host in memory is seen");
    compare("host-7", &desired, &observed, &hardware, &probes, Timestamp::UNIX_EPOCH)
}

#[tokio::test]
async fn what_is_as_asked_agrees_in_every_layer() {
    let pages = Pages::from([(0, 1 << 20)]);
    let probe = Probe { pages: pages.clone(), threads: places(&[("0-7", "0", 2)]) };
    let told = told(|_| {}, [(unit("router.service"), probe)].into()).await;
    let topology = &told.topologies[0];
    assert_eq!(topology.faults, []);
    let slices: Vec<_> = topology.slices.iter().map(|slice| slice.unit.as_str()).collect();
    assert_eq!(slices, ["orchestrator-control.slice", "orchestrator-runner.slice", "orchestrator-fanout.slice"]);
    let Compared { asked, property, kernel } = &topology.slices[1].cpus;
    assert!(asked == property && property == kernel && asked.as_ref().is_some_and(|cpus| cpus.to_string() == "8-15"));
    let router = topology.services.iter().find(|service| service.unit == unit("router.service")).expect("told");
    assert_eq!((router.threads, router.groups[0].count, &router.pages), (2, 2, &pages));
    let memory = topology.slices[0].settings.iter().find(|setting| setting.key == "MemoryMax").expect("told");
    let gibi = 12u64 << 30;
    assert_eq!(
        (memory.asked.as_str(), memory.kernel.as_deref()),
        (gibi.to_string().as_str(), Some(gibi.to_string().as_str()))
    );
    let json = serde_json::to_value(&told).expect("plain data");
    assert_eq!(json["topologies"][0]["slices"][0]["cpus"]["kernel"], "0-7");
    assert!(!json.to_string().contains("GOMAXPROCS"), "no environment is told");
    assert_eq!(serde_json::from_value::<HostVerification>(json).expect("its own form"), told);
}

#[tokio::test]
async fn what_somebody_changed_is_told_beside_what_is_asked() {
    let change = |host: &mut ModelHost| {
        let kernel = host.kernel.get_mut(&unit("control.slice")).expect("it runs");
        kernel.insert(Property::AllowedCpus, Value::Cpus("0-19".parse().expect("a list")));
    };
    let told = told(change, BTreeMap::new()).await;
    let topology = &told.topologies[0];
    let cpus = &topology.slices[0].cpus;
    let shown = |cpus: &Option<CpuSet>| cpus.as_ref().map(ToString::to_string).unwrap_or_default();
    assert_eq!(
        (shown(&cpus.asked), shown(&cpus.property), shown(&cpus.kernel)),
        ("0-7".into(), "0-7".into(), "0-19".into())
    );
    assert!(topology.faults.iter().any(|fault| fault.unit == unit("control.slice")), "{:?}", topology.faults);
}

#[test]
fn threads_outside_come_first_and_no_more_are_told_than_fit() {
    let slice = render(&example()).expect("legal").slices.remove(1);
    let inside = "0-7".parse::<CpuSet>().expect("a list");
    assert_eq!(slice.cpus.as_ref(), Some(&inside));
    let (told, further) = groups(places(&[("0-7", "0", 20), ("0", "0", 3), ("0-9", "0", 1)]), Some(&slice));
    let counts: Vec<_> = told.iter().map(|group| (group.cpus.to_string(), group.count, group.threads.len())).collect();
    assert_eq!(counts, [("0-9".to_owned(), 1, 1), ("0-7".to_owned(), 20, 8), ("0".to_owned(), 3, 3)]);
    assert_eq!(further, 0);
    let many: Vec<String> = (0..40).map(|cpu| cpu.to_string()).collect();
    let many: Vec<(&str, &str, u32)> = many.iter().map(|cpu| (cpu.as_str(), "0", 2)).collect();
    let (told, further) = groups(places(&many), None);
    assert_eq!((told.len(), further), (MOST_GROUPS, 16));
}
