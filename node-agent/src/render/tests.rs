//! The running example as unit texts, and what decides about restarts.

use super::*;
use crate::model::example;
use crate::unit_text::tests::{settings, words};

fn rendered(entry: &TopologyEntry) -> DesiredEntry {
    render(entry).expect("the name is free")
}

fn service<'a>(desired: &'a DesiredEntry, name: &str) -> &'a DesiredService {
    desired.services.iter().find(|service| service.unit.as_str() == name).expect("there is such a service")
}

/// The text without the first and the last line, whose hash follows from the rest.
fn inner(text: &str) -> &str {
    let (_, rest) = text.split_once('\n').expect("a first line");
    rest.rsplit_once("# Lamina: end").expect("a last line").0
}

#[test]
fn a_slice_carries_every_managed_value_in_its_drop_in() {
    let desired = rendered(&example());
    let control = desired.slices.iter().find(|slice| slice.unit.as_str() == "orchestrator-control.slice");
    let control = control.expect("the first slice");
    assert_eq!(
        inner(&control.text.fragment),
        "[Unit]\nDescription=Slice orchestrator-control of topology orchestrator\n\n[Slice]\n"
    );
    assert_eq!(
        inner(&control.text.drop_in),
        "[Slice]\nAllowedCPUs=\nAllowedCPUs=0-7\nAllowedMemoryNodes=\nAllowedMemoryNodes=0\nMemoryMin=4294967296\n\
         MemoryLow=0\nMemoryHigh=8589934592\nMemoryMax=12884901888\nMemorySwapMax=infinity\nIOWeight=500\nTasksMax=4096\n"
    );
}

#[test]
fn the_slice_above_grants_what_the_slices_below_protect() {
    let desired = rendered(&example());
    let own = &desired.slices[0];
    assert_eq!(own.unit.as_str(), "orchestrator.slice");
    assert_eq!(own.properties[&Property::MemoryMin], Value::Number(14 << 30));
    assert!(!own.properties.contains_key(&Property::AllowedCpus) && own.cpus.is_none());
}

#[test]
fn a_service_is_what_the_entry_says_and_nothing_more() {
    let desired = rendered(&example());
    let runner = service(&desired, "orchestrator-agent-runner.service");
    let digests = &runner.digests;
    let TextDigests { text, start, derived } = digests;
    assert_eq!(
        inner(&runner.text.fragment),
        format!(
            "[Unit]\nDescription=Service orchestrator-agent-runner of topology orchestrator\n\
             After=orchestrator-orchestrator.service\nAfter=orchestrator-router.service\n\
             After=orchestrator-parser.service\nAfter=orchestrator-hitl.service\nAfter=orchestrator-api.service\n\
             StartLimitIntervalSec=0\n\n[Service]\nType=exec\nUser=orchestrator\nSlice=orchestrator-runner.slice\n\
             ExecStart=\"/opt/orchestrator/bin/agent-runner\"\nRestart=on-failure\nRestartSec=5\n\
             EnvironmentFile=/etc/lamina/files/orchestrator/orchestrator.env\n\
             EnvironmentFile=/etc/lamina/files/orchestrator/.orchestrator-agent-runner.service.env\n\
             LogExtraFields=\"LAMINA_TEXT={text}\"\nLogExtraFields=\"LAMINA_START={start}\"\n\
             LogExtraFields=\"LAMINA_DERIVED={derived}\"\n\n[Install]\nWantedBy=multi-user.target\n"
        )
    );
    assert_eq!(
        inner(&runner.text.drop_in),
        "[Service]\nMemoryMin=0\nMemoryLow=0\nMemoryHigh=infinity\nMemoryMax=8589934592\nMemorySwapMax=infinity\n"
    );
}

#[test]
fn own_variables_stand_in_the_last_file_so_that_they_win() {
    let desired = rendered(&example());
    let path = HostPath::new("/etc/lamina/files/orchestrator/.orchestrator-runner.service.env");
    assert_eq!(desired.files[&path], "GOMAXPROCS=\"8\"\nNODE=\"host-7\"\n");
    let mut entry = example();
    entry.services[0].env_files.clear();
    let fragment = service(&rendered(&entry), "orchestrator-orchestrator.service").text.fragment.clone();
    let variables: Vec<String> = settings(&fragment)
        .into_iter()
        .filter(|(_, key, _)| key == "Environment")
        .flat_map(|(_, _, value)| words(&value))
        .collect();
    assert_eq!(variables, ["GOMAXPROCS=8", "NODE=host-7"]);
}

#[test]
fn only_what_takes_effect_at_a_start_moves_the_start_digest() {
    let base = rendered(&example());
    let digests = |entry: &TopologyEntry| service(&rendered(entry), "orchestrator-router.service").digests.clone();
    let before = service(&base, "orchestrator-router.service").digests.clone();

    let mut restart = example();
    restart.services[1].restart.delay = lamina_crds::seconds::Seconds::new(9);
    assert_eq!(digests(&restart).start, before.start);
    assert_ne!(digests(&restart).text, before.text);

    let mut derived = example();
    derived.services[1].env[0].value = "4".parse().expect("legal");
    assert_eq!(digests(&derived).start, before.start);
    assert_ne!(digests(&derived).derived, before.derived);

    let mut given = example();
    given.services[1].env[0].derived = false;
    assert_ne!(digests(&given).start, before.start);

    let mut file = example();
    file.files[0].content.push_str("X=1\n");
    assert_ne!(digests(&file).start, before.start);

    let mut memory = example();
    memory.services[1].memory = Some(MemoryLimits { max: Some(Bytes::mebi(64)), ..MemoryLimits::default() });
    assert_eq!(digests(&memory), before);
}

#[test]
fn services_follow_through_slices_that_have_none() {
    let mut entry = example();
    entry.services.retain(|service| service.slice.as_str() != "orchestrator-runner.slice");
    let desired = rendered(&entry);
    let fanout = service(&desired, "orchestrator-fanout.service");
    assert_eq!(fanout.start_after.len(), 5);
}
