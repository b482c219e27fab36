//! What is refused before anything is touched, and in which words.

use super::*;
use crate::desired::DesiredHost;
use crate::model::{example, hardware};
use crate::observed::ObservedUnit;
use crate::render::render;

fn desired() -> DesiredHost {
    let entry = example();
    let entries = [(entry.name.clone(), render(&entry).expect("the name is free"))].into();
    DesiredHost { entries, ..DesiredHost::default() }
}

/// A host with every program and user and nothing of ours.
fn bare(desired: &DesiredHost) -> ObservedHost {
    let services = desired.entries.values().flat_map(|entry| &entry.services);
    ObservedHost {
        systemd_version: 252,
        system_state: "running".to_owned(),
        controllers: CONTROLLERS.map(str::to_owned).into(),
        users: services.clone().map(|service| service.needs.user.clone()).collect(),
        executables: services.filter_map(|service| Some((service.needs.executable.clone()?, Ok(())))).collect(),
        ..ObservedHost::default()
    }
}

fn unit(name: &str) -> UnitName {
    UnitName::new(format!("orchestrator-{name}")).expect("a unit")
}

fn refusal_of(name: &str, seen: ObservedUnit) -> Option<Refusal> {
    let desired = desired();
    let mut observed = bare(&desired);
    observed.units.insert(unit(name), seen);
    preflight(&desired, &observed, &hardware()).units.get(&unit(name)).cloned()
}

#[test]
fn a_bare_host_holds_nothing() {
    let desired = desired();
    assert_eq!(preflight(&desired, &bare(&desired), &hardware()), Held::default());
    assert_eq!(unsupported(&bare(&desired)), None);
}

#[test]
fn a_vendors_unit_of_the_same_name_is_left_to_the_vendor() {
    let vendor = ObservedUnit {
        load_state: "loaded".to_owned(),
        fragment_path: "/usr/lib/systemd/system/orchestrator-api.service".to_owned(),
        ..ObservedUnit::default()
    };
    let refusal = refusal_of("api.service", vendor).expect("a refusal");
    assert_eq!(refusal.reason, Reason::NameTaken);
    assert!(refusal.message.contains("/usr/lib/systemd/system/orchestrator-api.service"), "{}", refusal.message);
    let implicit = ObservedUnit { load_state: "loaded".to_owned(), ..ObservedUnit::default() };
    assert_eq!(refusal_of("control.slice", implicit), None, "a slice that only its name made is free");
}

#[test]
fn a_mask_counts_as_long_as_it_stands_on_disk() {
    let desired = desired();
    let api = unit("api.service");
    let mut observed = bare(&desired);
    let masked = ObservedUnit { load_state: "masked".to_owned(), ..ObservedUnit::default() };
    observed.units.insert(api.clone(), masked);
    assert!(preflight(&desired, &observed, &hardware()).units.is_empty(), "only a reload is missing");
    let link = ObservedFile::Link { target: "/dev/null".to_owned() };
    observed.files.insert(HostPath::new(format!("/run/systemd/system/{api}")), link);
    let held = preflight(&desired, &observed, &hardware());
    assert_eq!(held.units.get(&api).map(|refusal| refusal.reason), Some(Reason::NameTaken));
}

#[test]
fn a_slice_that_is_taken_holds_its_services() {
    let mut desired = desired();
    let entry = desired.entries.values_mut().next().expect("the entry");
    entry.written.insert(HostPath::fragment(&unit("control.slice")));
    let mut observed = bare(&desired);
    let file = ObservedFile::Regular { content: b"[Slice]\n".to_vec() };
    observed.files.insert(HostPath::fragment(&unit("runner.slice")), file);
    let held = preflight(&desired, &observed, &hardware());
    let units: Vec<&str> = held.units.keys().map(UnitName::as_str).collect();
    let expected = ["orchestrator-agent-runner.service", "orchestrator-runner.service", "orchestrator-runner.slice"];
    assert_eq!(units, expected);
}

#[test]
fn a_directory_of_ours_that_is_a_link_is_not_followed() {
    let desired = desired();
    let link = || ObservedFile::Link { target: "/tmp".to_owned() };
    let mut observed = bare(&desired);
    observed.files.insert(HostPath::drop_in(&unit("api.service")).directory(), link());
    assert_eq!(preflight(&desired, &observed, &hardware()).units.len(), 1);
    let mut observed = bare(&desired);
    observed.files.insert(HostPath::new("/etc/lamina/files/orchestrator"), link());
    assert_eq!(preflight(&desired, &observed, &hardware()).entries.len(), 1);
}

#[test]
fn a_memory_node_without_memory_is_refused() {
    let mut machine = hardware();
    machine.numa_nodes[1].memory = lamina_crds::Bytes::new(0);
    let held = preflight(&desired(), &bare(&desired()), &machine);
    let refusal = held.entries.values().next().expect("a refusal");
    assert_eq!(refusal.reason, Reason::NotPresent);
    assert!(refusal.message.starts_with("orchestrator-runner.slice: memory node 1"), "{}", refusal.message);
}

#[test]
fn a_host_without_what_is_needed_is_told_what() {
    let told = |change: fn(&mut ObservedHost)| {
        let mut observed = bare(&desired());
        change(&mut observed);
        unsupported(&observed).map(|refusal| refusal.message).unwrap_or_default()
    };
    assert!(told(|host| host.systemd_version = 249).starts_with("systemd is version 249, 252 is needed"));
    assert!(told(|host| host.controllers.clear()).contains("cgroup v2"));
    assert!(
        told(|host| {
            host.controllers.remove("cpuset");
        })
        .contains("cpuset")
    );
    assert!(told(|host| host.system_state = "maintenance".to_owned()).contains("`maintenance`"));
    assert_eq!(told(|host| host.system_state = "degraded".to_owned()), "");
}
