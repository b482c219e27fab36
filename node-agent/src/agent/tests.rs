//! The pass on a host in memory: what is done, what is left alone, and what is said about it.

use lamina_crds::conditions::{ConditionStatus, ConditionType, find};
use lamina_crds::host_state::{CONFIRM_MACHINE_ANNOTATION, EntryState};
use lamina_crds::slice_topology::{MemoryLimits, OnChange};
use lamina_crds::{Bytes, TopologyEntry, UnitName};

use super::*;
use crate::accept::{copies, stored};
use crate::cluster::Seen;
use crate::foresight::{foresee, recalled};
use crate::host_path::{HostPath, STATE};
use crate::instruction::desired;
use crate::model::{ModelCluster, ModelHost, example, revised};
use crate::observed::ObservedFile;
use crate::plan::{Effect, Plan};
use crate::property::{Properties, Property, Value};

mod memory_nodes;
mod past;

struct World {
    memory: Memory,
    host: ModelHost,
    cluster: ModelCluster,
    second: i64,
    generation: i64,
}

impl World {
    fn new(entry: TopologyEntry) -> Self {
        Self {
            memory: Memory::default(),
            host: ModelHost::new(),
            cluster: ModelCluster::with(1, &[entry]),
            second: 0,
            generation: 1,
        }
    }

    /// A world in which the running example is applied and settled.
    fn settled() -> Self {
        let mut world = Self::new(example());
        world.settle();
        assert!(world.ready(), "{:?}", world.told());
        world.host.log.clear();
        world.cluster.events.clear();
        world.cluster.statuses.clear();
        world
    }

    fn pass(&mut self) -> PassOutcome {
        self.second += 1;
        let now = Timestamp::from_second(self.second).expect("a time");
        let settings = Settings { host: "host-7".to_owned(), version: "0.1.0".to_owned(), form: AgentForm::Host };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(pass(&mut self.memory, &mut self.host, &mut self.cluster, &settings, now))
    }

    fn settle(&mut self) {
        for _ in 0..3 {
            self.pass();
        }
    }

    fn ask(&mut self, entry: TopologyEntry) {
        self.generation += 1;
        self.cluster.ask(self.generation, &[revised(entry)]);
    }

    fn status(&self) -> HostStateStatus {
        self.memory.written.as_ref().expect("a status").status.clone()
    }

    fn ready(&self) -> bool {
        is_ready(&self.status())
    }

    fn condition(&self, type_: ConditionType) -> (ConditionStatus, String, String) {
        let status = self.status();
        let conditions = status.topologies.first().map_or(&status.conditions, |topology| &topology.conditions);
        let found = find(conditions, type_).expect("the condition");
        (found.status, found.reason.clone(), found.message.clone())
    }

    fn told(&self) -> (ConditionStatus, String, String) {
        self.condition(ConditionType::Ready)
    }

    fn notes(&self) -> Vec<&str> {
        self.cluster.events.iter().map(|event| event.note.as_str()).collect()
    }
}

fn unit(name: &str) -> UnitName {
    UnitName::new(format!("orchestrator-{name}")).expect("a unit")
}

fn starts(log: &[String]) -> Vec<&String> {
    log.iter().filter(|line| line.starts_with("start") || line.starts_with("restart")).collect()
}

#[test]
fn a_fresh_host_takes_one_reload_and_starts_in_order() {
    let mut world = World::new(example());
    let outcome = world.pass();
    assert_eq!(outcome.problems, Vec::<String>::new());
    assert_eq!(world.host.log.iter().filter(|line| *line == "reload").count(), 1);
    let services: Vec<&str> =
        world.host.log.iter().filter_map(|line| line.strip_prefix("start orchestrator-")).collect();
    assert_eq!(services[..3], ["control.slice", "runner.slice", "fanout.slice"]);
    assert_eq!(services[3], "orchestrator.service");
    assert_eq!(services[10], "fanout.service");
    assert!(!outcome.ready, "a start is believed when it lasts");
    assert_eq!(outcome.again_after, Some(Duration::from_secs(1)));
    let outcome = world.pass();
    assert!(outcome.ready);
    let status = world.status();
    assert_eq!(status.topologies[0].state, Some(EntryState::Present));
    assert_eq!(status.topologies[0].revision, Some(example().revision));
    assert_eq!(status.summary.map(|summary| (summary.services, summary.services_ready)), Some((8, 8)));
    assert_eq!(world.told().2, "every thread, memory node and limit is as it was asked to be");
}

#[test]
fn one_more_pass_does_nothing_at_all() {
    let mut world = World::settled();
    for _ in 0..3 {
        let outcome = world.pass();
        assert_eq!((outcome.steps, outcome.api_writes, outcome.again_after), (0, 0, None));
    }
    assert_eq!(world.host.log, Vec::<String>::new());
    world.memory = Memory::default();
    let outcome = world.pass();
    assert_eq!((outcome.steps, outcome.api_writes), (0, 0), "{:?}", world.host.log);
}

#[test]
fn what_was_true_is_not_said_of_what_is_asked_now() {
    let mut world = World::settled();
    let mut entry = example();
    entry.slices[0].cpus = "0-6".parse().expect("a list");
    world.ask(entry);
    world.pass();
    let first = &world.cluster.statuses[0];
    assert_eq!(first.observed_generation, 2);
    assert!(!is_ready(first) && first.topologies[0].revision.is_none());
    assert!(world.ready(), "a live change needs no second look");
}

#[test]
fn a_changed_limit_is_live() {
    for reload_applies in [true, false] {
        let mut world = World::settled();
        world.host.reload_applies = reload_applies;
        let before = world.host.invocations();
        let mut entry = example();
        entry.slices[0].memory =
            Some(MemoryLimits { max: Some(Bytes::mebi(16 << 10)), ..entry.slices[0].memory.expect("set") });
        world.ask(entry);
        world.settle();
        assert!(world.ready(), "{:?}", world.told());
        assert_eq!(world.host.invocations(), before);
        assert_eq!(world.host.kernel[&unit("control.slice")][&Property::MemoryMax], Value::Number(16 << 30));
        assert!(!world.host.files.keys().any(|path| path.as_str().starts_with("/run/")), "nothing is left behind");
        assert_eq!(world.notes().iter().filter(|note| note.contains("put back")).count(), 0, "this is no drift");
    }
}

#[test]
fn a_changed_command_restarts_just_that_service() {
    let mut world = World::settled();
    let mut entry = example();
    entry.services[2].command.push("--verbose".parse().expect("legal"));
    world.ask(entry);
    world.settle();
    assert!(world.ready());
    assert_eq!(starts(&world.host.log), ["restart orchestrator-parser.service"]);
}

#[test]
fn a_changed_file_restarts_just_its_readers() {
    let mut world = World::settled();
    let mut entry = example();
    entry.services[3].env_files.clear();
    world.ask(entry.clone());
    world.settle();
    world.host.log.clear();
    entry.files[0].content = "PORT=9\n".to_owned();
    world.ask(entry);
    world.settle();
    assert!(world.ready());
    assert_eq!(starts(&world.host.log).len(), 7);
    assert!(!world.host.log.iter().any(|line| line.contains("start orchestrator-hitl")));
}

#[test]
fn a_derived_value_restarts_nobody() {
    let mut world = World::settled();
    let mut entry = example();
    entry.services[1].env[0].value = "4".parse().expect("legal");
    world.ask(entry);
    world.settle();
    assert_eq!(starts(&world.host.log), Vec::<&String>::new());
    assert!(world.ready());
    assert_eq!(world.told().1, "PendingRestart");
}

#[test]
fn a_change_under_never_waits_for_the_next_start() {
    let mut entry = example();
    entry.services[2].on_change = OnChange::Never;
    let mut world = World::new(revised(entry.clone()));
    world.settle();
    world.host.log.clear();
    entry.services[2].command.push("-v".parse().expect("legal"));
    world.ask(entry);
    world.settle();
    assert_eq!(starts(&world.host.log), Vec::<&String>::new());
    assert!(world.ready() && world.told().2.contains("orchestrator-parser.service"));
}

#[test]
fn a_service_that_moves_is_restarted_and_its_old_slice_goes_when_empty() {
    let mut world = World::settled();
    let mut entry = example();
    entry.services[7].slice = unit("control.slice");
    entry.slices.remove(2);
    world.ask(entry);
    world.settle();
    assert!(world.ready(), "{:?}", world.told());
    assert_eq!(starts(&world.host.log), ["restart orchestrator-fanout.service"]);
    assert!(world.host.log.contains(&"stop orchestrator-fanout.slice".to_owned()));
    assert!(!world.host.files.contains_key(&HostPath::fragment(&unit("fanout.slice"))));
    assert_eq!(world.host.processes.len(), 8);
}

#[test]
fn a_failed_start_blocks_nobody() {
    let mut world = World::new(example());
    world.host.broken.insert(unit("router.service"));
    world.pass();
    world.pass();
    assert_eq!(world.host.processes.len(), 7);
    let (status, reason, message) = world.told();
    assert_eq!((status, reason.as_str()), (ConditionStatus::False, "ServiceFailed"));
    assert!(message.starts_with("orchestrator-router.service does not stay up (Result=exit-code"), "{message}");
    assert_eq!(world.condition(ConditionType::Reconciling).0, ConditionStatus::True);
    let tries = starts(&world.host.log).iter().filter(|line| line.contains("router")).count();
    assert_eq!(tries, 1, "the next try waits");
    world.second += 400;
    world.pass();
    assert_eq!(world.condition(ConditionType::Stalled).0, ConditionStatus::True);
    world.host.broken.clear();
    world.second += 400;
    world.pass();
    world.second += 60;
    world.pass();
    assert!(world.ready(), "{:?}", world.told());
}

#[test]
fn a_missing_program_holds_its_service_and_no_other() {
    let mut world = World::new(example());
    world.host.missing.insert("/opt/orchestrator/bin/api".to_owned());
    world.settle();
    assert_eq!(world.host.processes.len(), 7);
    assert!(!world.host.files.contains_key(&HostPath::fragment(&unit("api.service"))));
    let expected =
        "orchestrator-api.service: /opt/orchestrator/bin/api is missing; install it, the unit was not changed";
    assert_eq!(world.told().2, expected);
    let status = world.status();
    assert_eq!(
        find(&status.conditions, ConditionType::Ready).map(|ready| ready.message.clone()),
        Some(expected.to_owned())
    );
    world.host.missing.clear();
    world.settle();
    assert!(world.ready());
}

#[test]
fn a_missing_user_is_said() {
    let mut world = World::new(example());
    world.host.users.clear();
    world.settle();
    assert_eq!((world.host.processes.len(), world.told().1.as_str()), (0, "MissingUser"));
}

#[test]
fn cpus_that_are_not_there_hold_the_whole_entry() {
    let mut entry = example();
    entry.slices[2].cpus = "16-23".parse().expect("a list");
    let mut world = World::new(revised(entry));
    world.settle();
    assert_eq!(
        (world.told().1.as_str(), world.condition(ConditionType::Stalled).0),
        ("NotPresent", ConditionStatus::True)
    );
    assert!(world.host.processes.is_empty() && world.host.loaded.is_empty());
    assert!(world.told().2.contains("20-23"), "{:?}", world.told());
}

#[test]
fn a_foreign_file_is_never_overwritten() {
    let mut world = World::new(example());
    // On a host on which nothing is Lamina's yet nothing at all would be touched.
    let ours = crate::marker::sealed(&example().name, "[Service]\n");
    world.host.put("/etc/systemd/system/orchestrator-router.service", &ours);
    let foreign = "[Service]\nExecStart=/bin/theirs\n";
    world.host.put("/etc/systemd/system/orchestrator-api.service", foreign);
    world.host.put("/etc/systemd/system/orchestrator-fanout.slice", "");
    world.settle();
    assert_eq!(world.told().1, "ForeignFile");
    assert_eq!(world.condition(ConditionType::Stalled).0, ConditionStatus::True);
    let content = |name: &str| world.host.content(&HostPath::fragment(&unit(name)));
    assert_eq!(content("api.service").as_deref(), Some(foreign));
    assert_eq!(content("fanout.slice").as_deref(), Some(""), "somebody's mask stays");
    assert_eq!(world.host.processes.len(), 6, "neither api nor fanout, whose slice would not pin it");
    assert!(
        !world.host.log.iter().any(|line| line.contains("orchestrator-api") || line.contains("orchestrator-fanout.s"))
    );
}

#[test]
fn links_in_our_places_are_not_followed() {
    let mut world = World::new(example());
    let path = HostPath::fragment(&unit("api.service"));
    world.host.files.insert(path, ObservedFile::Link { target: "/dev/null".to_owned() });
    world.settle();
    assert!(world.told().2.contains("a symbolic link to /dev/null"), "{:?}", world.told());
}

#[test]
fn a_zero_byte_file_of_ours_is_written_again() {
    let mut world = World::settled();
    world.host.put("/etc/systemd/system/orchestrator-api.service", "");
    world.pass();
    assert!(world.ready(), "{:?}", world.told());
    assert!(world.host.content(&HostPath::fragment(&unit("api.service"))).is_some_and(|text| text.len() > 100));
}

#[test]
fn absence_means_hold() {
    let mut world = World::settled();
    let processes = world.host.processes.clone();
    for seen in [Seen::Nothing, Seen::NotYet] {
        world.cluster.seen = seen;
        world.memory = Memory::default();
        world.host.put("/etc/systemd/system/orchestrator-api.service", "# Lamina: orchestrator torn\n");
        world.pass();
        assert!(world.host.content(&HostPath::fragment(&unit("api.service"))).is_some_and(|text| text.len() > 100));
    }
    world.generation += 1;
    world.cluster.ask(world.generation, &[]);
    world.settle();
    assert_eq!(world.host.processes, processes);
    assert!(world.ready());
}

#[test]
fn an_older_object_than_the_accepted_one_changes_nothing() {
    let mut world = World::settled();
    let mut entry = example();
    entry.slices[0].cpus = "0-6".parse().expect("a list");
    world.ask(entry);
    world.settle();
    world.host.log.clear();
    world.cluster.ask(1, &[example()]);
    world.settle();
    assert_eq!(world.host.log, Vec::<String>::new());
    assert_eq!(world.status().observed_generation, 2);
}

#[test]
fn an_entry_that_is_not_understood_leaves_the_former_in_force() {
    let mut world = World::settled();
    let mut strange = serde_json::to_value(example()).expect("plain data");
    strange["slices"][0]["colour"] = "red".into();
    if let Seen::Object(object) = &mut world.cluster.seen {
        object.generation = 2;
        object.entries = vec![strange];
    }
    world.pass();
    assert_eq!(
        (world.told().1.as_str(), world.condition(ConditionType::Stalled).0),
        ("NotUnderstood", ConditionStatus::True)
    );
    assert!(world.told().2.contains("colour") && world.told().2.contains("upgrade the agent"), "{:?}", world.told());
    assert_eq!(world.host.processes.len(), 8);
    assert_eq!(world.condition(ConditionType::Verified).0, ConditionStatus::True);
}

#[test]
fn released_units_run_on_and_are_taken_over_with_the_same_processes() {
    let mut world = World::settled();
    let processes = world.host.processes.clone();
    world.ask(TopologyEntry { state: EntryState::Released, ..example() });
    world.settle();
    assert_eq!(world.status().topologies[0].state, Some(EntryState::Released));
    world.host.put("/etc/systemd/system/orchestrator-api.service", "# Lamina: orchestrator x\n[Service]\n");
    world.settle();
    assert_eq!(world.host.log, Vec::<String>::new(), "not enforced");
    world.ask(example());
    world.settle();
    assert!(world.ready());
    assert_eq!(world.host.processes, processes);
}

#[test]
fn absent_units_stop_in_reverse_order_and_leave_nothing() {
    let mut world = World::settled();
    world.ask(TopologyEntry { state: EntryState::Absent, ..example() });
    world.settle();
    let stops: Vec<&String> = world.host.log.iter().filter(|line| line.starts_with("stop")).collect();
    assert_eq!(
        (stops[0].as_str(), stops[7].as_str()),
        ("stop orchestrator-fanout.service", "stop orchestrator-orchestrator.service")
    );
    assert_eq!(stops.last().map(|line| line.as_str()), Some("stop orchestrator.slice"));
    assert_eq!(world.status().topologies[0].state, Some(EntryState::Absent));
    let left: Vec<&HostPath> = world.host.files.keys().filter(|path| !path.as_str().starts_with("/var/")).collect();
    assert_eq!(left, Vec::<&HostPath>::new());
    assert!(world.host.loaded.is_empty() && world.host.processes.is_empty());
    world.generation += 1;
    world.cluster.ask(world.generation, &[]);
    world.settle();
    assert!(world.status().topologies.is_empty() && world.ready());
}

#[test]
fn every_kind_of_drift_is_healed_and_told() {
    type Hand = fn(&mut ModelHost);
    let hands: [(Hand, &str); 5] = [
        (
            |host| {
                let path = HostPath::drop_in(&unit("runner.slice"));
                let edited = host.content(&path).expect("ours").replace("8-15", "0-3");
                host.put(path.as_str(), &edited);
            },
            "/etc/systemd/system/orchestrator-runner.slice.d/zzzz-lamina.conf: file was other content",
        ),
        (
            |host| {
                host.files.remove(&HostPath::enablement(&unit("api.service")));
            },
            "was nothing instead of a link that starts it at boot (the file was removed)",
        ),
        (
            |host| {
                let unit = unit("control.slice");
                host.put(HostPath::runtime_push(&unit, Property::MemoryMax).as_str(), "[Slice]\nMemoryMax=1\n");
                let loaded = host.loaded.get_mut(&unit).expect("loaded");
                loaded.properties.insert(Property::MemoryMax, Value::Number(1));
            },
            "MemoryMax was 1 instead of 12884901888 (systemctl set-property)",
        ),
        (
            |host| {
                let kernel = host.kernel.get_mut(&unit("control.slice")).expect("a cgroup");
                kernel.insert(Property::AllowedCpus, Value::Cpus("3".parse().expect("a list")));
            },
            "cpuset.cpus was 3 instead of 0-7 (a write to the cgroup file)",
        ),
        (
            |host| {
                host.states.remove(&unit("hitl.service"));
                host.processes.remove(&unit("hitl.service"));
            },
            "process was inactive instead of active (the service was stopped)",
        ),
    ];
    for (hand, expected) in hands {
        let mut world = World::settled();
        let before = world.host.invocations();
        hand(&mut world.host);
        world.pass();
        world.pass();
        assert!(world.ready(), "{expected}: {:?}", world.told());
        assert!(world.cluster.statuses.iter().all(is_ready), "healed drift leaves Ready as it is: {expected}");
        assert_eq!(world.notes().len(), 1, "{:?}", world.notes());
        assert!(world.notes()[0].contains(expected), "{:?}", world.notes());
        let restarted = world.host.invocations().iter().filter(|(name, now)| before[*name] != **now).count();
        assert_eq!(restarted, usize::from(expected.contains("stopped")));
        assert!(!world.host.files.keys().any(|path| path.as_str().starts_with("/run/")));
        let reloads = world.host.log.iter().filter(|line| *line == "reload").count();
        assert_eq!(
            reloads,
            usize::from(!expected.contains("cgroup") && expected.contains("file")),
            "a value is never healed by a reload: {expected}"
        );
    }
}

#[test]
fn a_foreign_drop_in_is_outranked_and_reported() {
    let mut world = World::settled();
    world.host.put("/etc/systemd/system/orchestrator-control.slice.d/50-mine.conf", "[Slice]\nMemoryMax=1\n");
    world.pass();
    assert!(world.ready());
    let (status, reason, message) = world.condition(ConditionType::Drifted);
    assert_eq!((status, reason.as_str()), (ConditionStatus::True, "ForeignDropIn"));
    assert!(message.contains("50-mine.conf"));
    assert_eq!(world.status().summary.map(|summary| summary.drifted), Some(1));
    assert_eq!(world.host.log, Vec::<String>::new());
}

#[test]
fn a_foreign_drop_in_that_wins_needs_a_hand() {
    let mut world = World::settled();
    world.host.put("/etc/systemd/system/orchestrator-control.slice.d/zzzzz.conf", "[Slice]\nMemoryMax=1\n");
    world.pass();
    assert_eq!(
        (world.told().1.as_str(), world.condition(ConditionType::Stalled).0),
        ("DriftPersists", ConditionStatus::True)
    );
    assert!(world.told().2.contains("zzzzz.conf outranks"), "{:?}", world.told());
}

#[test]
fn a_hand_that_insists_is_named_and_healed_slowly() {
    let mut world = World::settled();
    for _ in 0..8 {
        let kernel = world.host.kernel.get_mut(&unit("control.slice")).expect("a cgroup");
        kernel.insert(Property::MemoryMax, Value::Number(4096));
        world.pass();
    }
    assert_eq!(world.told().1, "DriftPersists");
    assert_eq!(world.condition(ConditionType::Stalled).0, ConditionStatus::True);
    assert_eq!(world.host.log.iter().filter(|line| line.starts_with("set")).count(), 6);
    world.second += 61;
    world.pass();
    assert_eq!(world.host.log.iter().filter(|line| line.starts_with("set")).count(), 7);
    world.second += 700;
    world.pass();
    assert!(world.ready(), "{:?}", world.told());
}

#[test]
fn a_full_disk_changes_nothing_and_is_said() {
    let mut world = World::settled();
    world.host.disk_full = true;
    let mut entry = example();
    entry.slices[0].cpus = "0-6".parse().expect("a list");
    world.ask(entry);
    let outcome = world.pass();
    assert!(outcome.problems[0].contains("the instruction is not followed yet"), "{:?}", outcome.problems);
    assert!(!world.ready());
    assert_eq!((world.told().0, world.told().1.as_str()), (ConditionStatus::False, "HostError"));
    assert_eq!(world.host.log, Vec::<String>::new());
    world.host.disk_full = false;
    world.settle();
    assert!(world.ready());
}

#[test]
fn without_an_api_server_the_accepted_state_is_enforced() {
    let mut world = World::settled();
    world.cluster.seen = Seen::NotYet;
    world.memory = Memory::default();
    world.host.processes.clear();
    world.host.states.clear();
    world.host.kernel.clear();
    world.pass();
    assert_eq!(world.host.processes.len(), 8);
    assert_eq!(world.cluster.statuses.len(), 0);
}

#[test]
fn what_a_dead_agent_accepted_is_durable_before_it_is_followed() {
    let mut world = World::settled();
    world.cluster.seen = Seen::NotYet;
    world.memory = Memory::default();
    world.host.pending.insert(HostPath::new(STATE));
    world.host.processes.clear();
    world.pass();
    assert!(world.host.log.len() >= 8, "{:?}", world.host.log);
    assert_eq!(world.host.rash, Vec::<String>::new());
}

#[test]
fn a_torn_copy_of_the_accepted_state_leaves_the_other() {
    let mut world = World::settled();
    let sequence = world.memory.accepted.as_ref().expect("accepted").sequence;
    let newest = &copies()[usize::try_from(sequence % 2).expect("small")];
    world.host.put(newest.as_str(), "lamina-accepted sha256 0000\n{}\n");
    world.cluster.seen = Seen::NotYet;
    world.memory = Memory::default();
    world.pass();
    assert_eq!(world.memory.accepted.as_ref().map(|accepted| accepted.entries.len()), Some(1));
}

#[test]
fn state_of_a_newer_agent_is_not_touched() {
    let mut world = World::settled();
    let mut newer = world.memory.accepted.clone().expect("accepted");
    newer.schema = 2;
    newer.sequence += 1;
    let (path, content) = stored(&newer);
    world.host.put(path.as_str(), &content);
    world.memory = Memory::default();
    world.host.processes.remove(&unit("api.service"));
    world.host.states.remove(&unit("api.service"));
    world.host.log.clear();
    world.pass();
    assert_eq!(world.host.log, Vec::<String>::new());
    let status = world.status();
    assert!(
        find(&status.conditions, ConditionType::Stalled).is_some_and(|stalled| stalled.message.contains("newer agent"))
    );
}

#[test]
fn another_machine_under_the_same_name_is_held_until_confirmed() {
    let mut world = World::settled();
    world.host.hardware.machine_id = "9999".to_owned();
    world.memory = Memory::default();
    world.host.processes.remove(&unit("api.service"));
    world.host.states.remove(&unit("api.service"));
    world.pass();
    assert_eq!(world.host.log, Vec::<String>::new());
    assert_eq!(world.told().1, "IdentityMismatch");
    assert_eq!(world.status().hardware.map(|hardware| hardware.machine_id), Some("0123".to_owned()));
    if let Seen::Object(object) = &mut world.cluster.seen {
        object.annotations.insert(CONFIRM_MACHINE_ANNOTATION.to_owned(), "9999".to_owned());
    }
    world.settle();
    assert!(world.ready());
    assert_eq!(world.status().hardware.map(|hardware| hardware.machine_id), Some("9999".to_owned()));
}

#[test]
fn an_offline_cpu_leaves_the_slice_where_it_is() {
    let mut world = World::settled();
    world.host.hardware.cpus.online.remove(7);
    world.host.hardware.cpus.offline.insert(7);
    world.pass();
    assert!(world.ready());
    assert_eq!(world.told().1, "CPUOffline");
    assert!(world.told().2.contains("7 of 8 CPUs are left"), "{:?}", world.told());
    assert_eq!(world.host.log, Vec::<String>::new());
}

#[test]
fn threads_that_the_kernel_left_outside_are_moved_by_a_range_that_differs() {
    let mut world = World::settled();
    let desired = desired(world.memory.accepted.as_ref().expect("accepted"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let scope = crate::observed::Scope { topologies: desired.entries.keys().cloned().collect(), ..Default::default() };
    let mut observed = runtime.block_on(world.host.observe(&scope)).expect("a look");
    observed.units.get_mut(&unit("api.service")).expect("seen").threads.cpus.insert(12);
    let plan = crate::plan::plan(&desired, &observed, &crate::preflight::Held::default());
    let set: Vec<Properties> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.effect {
            crate::plan::Effect::Set { unit: _, properties } => Some(properties.clone()),
            _ => None,
        })
        .collect();
    let cpus = |list: &str| Properties::from([(Property::AllowedCpus, Value::Cpus(list.parse().expect("a list")))]);
    assert_eq!((set.len(), &set[1]), (2, &cpus("0-7")));
    assert_ne!(set[0], set[1]);
}

#[test]
fn what_a_deposed_operator_writes_is_told_and_not_done() {
    let mut world = World::new(example());
    let in_term = |world: &mut World, uid: &str, number: i64| {
        let Seen::Object(object) = &mut world.cluster.seen else { panic!("an object") };
        (object.uid, object.term) = (uid.to_owned(), lamina_crds::Term::new(number).expect("a term"));
    };
    in_term(&mut world, "u1", 5);
    world.settle();
    assert_eq!(world.status().term.get(), 5);
    world.host.log.clear();
    world.cluster.events.clear();
    let mut changed = example();
    changed.files[0].content.push('x');
    world.cluster.ask(1, &[revised(changed)]);
    in_term(&mut world, "u2", 4);
    world.settle();
    assert_eq!(world.host.log, [""; 0]);
    let (status, reason, message) = world.told();
    assert_eq!((status, reason.as_str()), (ConditionStatus::False, "OlderTerm"));
    assert!(message.contains("spec.term is `4`") && message.contains("it was 5"), "{message}");
    assert_eq!((world.status().observed_generation, world.status().term.get()), (1, 5));
    assert_eq!(world.cluster.events.iter().filter(|event| event.reason == "OlderTerm").count(), 1);
    assert_eq!(world.condition(ConditionType::Stalled).0, ConditionStatus::False, "whoever leads writes it anew");
    // The agent dies and has only its disk.
    world.memory = Memory::default();
    world.settle();
    assert_eq!(world.told().1, "OlderTerm");
    in_term(&mut world, "u2", 6);
    let Seen::Object(object) = &mut world.cluster.seen else { panic!("an object") };
    object.generation = 2;
    world.settle();
    assert!(world.host.log.iter().any(|line| line.starts_with("restart")), "{:?}", world.host.log);
    assert!(world.ready() && world.status().term.get() == 6);
}

#[test]
fn a_look_ahead_names_every_step_and_takes_none() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut world = World::new(example());
    let Seen::Object(object) = world.cluster.seen() else { panic!("an object") };
    let foreseen = |world: &mut World| {
        let hardware = runtime.block_on(world.host.hardware()).expect("hardware");
        let accepted = runtime.block_on(recalled(&mut world.host)).expect("an accepted state");
        runtime.block_on(foresee(&mut world.host, &hardware, &accepted, &object)).expect("a look")
    };
    let fresh = foreseen(&mut world).plan;
    let units = fresh.steps.iter().filter(|step| matches!(step.effect, Effect::Start { .. })).count();
    assert_eq!(
        units,
        example().slices.len() + example().services.len() + 1,
        "every unit starts, the parent slice, too"
    );
    assert_eq!(fresh.steps.iter().filter(|step| step.effect == Effect::Reload).count(), 1);
    assert_eq!((world.host.log.len(), world.host.files.len()), (0, 0));
    world.settle();
    assert_eq!(foreseen(&mut world).plan, Plan::default());
}

#[cfg(feature = "host")]
#[test]
fn a_pass_is_told_to_those_who_watch() {
    use lamina_endpoint::{Readings, catalog::AGENT_PASS_SECONDS};
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use crate::readings::{Counts, readings};

    let mut world = World::settled();
    let mut counts = Counts::default();
    let kernel = world.host.kernel.get_mut(&unit("control.slice")).expect("a cgroup");
    kernel.insert(Property::AllowedCpus, Value::Cpus("3".parse().expect("a list")));
    let outcome = world.pass();
    counts.add(&outcome);
    let mut registry = Registry::default();
    Readings::of(AGENT_PASS_SECONDS, &mut registry).replace(readings("host-7", counts, 42, outcome.measured.as_ref()));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes everything");
    for line in [
        "lamina_agent_info{host=\"host-7\",version=\"0.1.0\",form=\"Host\"} 1.0",
        "lamina_agent_heals_total 1.0",
        "lamina_agent_bus_calls_total 42.0",
        "lamina_host_condition{condition=\"Ready\",status=\"True\"} 1.0",
        "lamina_host_condition{condition=\"Ready\",status=\"Unknown\"} 0.0",
        "lamina_host_topology_condition{topology=\"orchestrator\",condition=\"Verified\",status=\"True\"} 1.0",
        "lamina_slice_cpus{topology=\"orchestrator\",slice=\"orchestrator-control.slice\"} 8.0",
        "lamina_slice_services{topology=\"orchestrator\",slice=\"orchestrator-control.slice\"} 5.0",
        "lamina_slice_services_ready{topology=\"orchestrator\",slice=\"orchestrator-control.slice\"} 5.0",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
    }
}
