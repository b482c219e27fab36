//! Hosts with a past: refused without leave, taken over with it, and given back.

use lamina_crds::slice_topology::Adoption;
use lamina_crds::text::Argument;

use super::*;
use crate::before_image::{BeforeImage, Recalled, path_of, recall};
use crate::host::Host;
use crate::restore::{NotRestored, restore};

const SERVICES: [(&str, &str); 8] = [
    ("orchestrator", "control"),
    ("router", "control"),
    ("parser", "control"),
    ("hitl", "control"),
    ("api", "control"),
    ("runner", "runner"),
    ("agent-runner", "runner"),
    ("fanout", "fanout"),
];

fn fragment(name: &str) -> HostPath {
    HostPath::fragment(&unit(name))
}

/// The running example, with leave to replace.
fn replacing() -> TopologyEntry {
    revised(TopologyEntry { adoption: Adoption::Replace, ..example() })
}

impl World {
    /// A host on which the services run from unit files that somebody wrote by hand.
    fn with_past(entry: TopologyEntry) -> Self {
        let mut world = Self::new(entry);
        world.host.put("/opt/orchestrator/etc/orchestrator.env", "PORT=8080\nGOMAXPROCS=8\nNODE=host-7\n");
        for slice in ["control", "runner", "fanout"] {
            world.put_fragment(&format!("{slice}.slice"), "[Slice]\nCPUAffinity=0 1 2 3\nMemoryMax=4096\n");
        }
        for (name, slice) in SERVICES {
            world.put_fragment(&format!("{name}.service"), &service_text(name, slice));
        }
        world.run(async |host| {
            host.reload().await.expect("a reload");
            for (name, _) in SERVICES {
                host.start(&unit(&format!("{name}.service"))).await.expect("a start");
            }
        });
        world.host.log.clear();
        world
    }

    fn put_fragment(&mut self, name: &str, text: &str) {
        self.host.put(fragment(name).as_str(), text);
    }

    fn run<T>(&mut self, work: impl AsyncFnOnce(&mut ModelHost) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(work(&mut self.host))
    }

    fn image(&self) -> BeforeImage {
        let topology = &example().name;
        let content = self.host.content(&path_of(topology)).map(String::into_bytes);
        match recall(topology, content.as_deref()) {
            Recalled::Image(image) => image,
            other => panic!("{other:?}"),
        }
    }

    /// What stands in the unit directory, with modes.
    fn units_on_disk(&self) -> Vec<(String, ObservedFile, u32)> {
        let files = self.host.files.iter().filter(|(path, _)| path.as_str().starts_with("/etc/systemd/system/"));
        let mode = |path: &HostPath| self.host.modes.get(path).copied().unwrap_or(0o644);
        files.map(|(path, file)| (path.to_string(), file.clone(), mode(path))).collect()
    }
}

/// Services that were started or restarted.
fn restarts(world: &World) -> Vec<&str> {
    let starts = starts(&world.host.log).into_iter().map(String::as_str);
    starts.filter(|line| line.ends_with(".service")).collect()
}

fn service_text(name: &str, slice: &str) -> String {
    let limit = if name == "fanout" { "LimitNOFILE=1048576\n" } else { "" };
    format!(
        "[Unit]\nDescription=by hand\n[Service]\nType=simple\nUser=orchestrator\nSlice=orchestrator-{slice}.slice\nEnvironmentFile=/opt/orchestrator/etc/orchestrator.env\nExecStart=/opt/orchestrator/bin/{name}\n{limit}"
    )
}

#[test]
fn a_host_with_a_past_is_refused_whole_and_nothing_is_touched() {
    let mut world = World::with_past(example());
    let before = world.host.clone();
    world.settle();
    assert_eq!(world.host.log, Vec::<String>::new());
    let without_state = |host: &ModelHost| {
        let mut files = host.files.clone();
        files.retain(|path, _| !path.as_str().starts_with("/var/lib/lamina/accepted"));
        files
    };
    assert_eq!(without_state(&world.host), without_state(&before));
    let (status, reason, message) = world.told();
    assert_eq!((status, reason.as_str()), (ConditionStatus::False, "ForeignFile"));
    assert!(message.starts_with("/etc/systemd/system/orchestrator-control.slice, "), "{message}");
    assert!(message.contains("/etc/systemd/system/orchestrator-api.service"), "{message}");
    assert!(message.contains("; write spec.adoption: Replace to have them saved"), "{message}");
}

#[test]
fn with_leave_everything_is_taken_over_and_nobody_is_restarted_in_vain() {
    let mut world = World::with_past(replacing());
    let before = world.host.invocations();
    world.settle();
    assert!(world.ready(), "{:?}", world.told());
    assert_eq!(restarts(&world), Vec::<&str>::new(), "nothing started anew");
    assert_eq!(world.host.invocations(), before);
    assert!(world.host.content(&fragment("router.service")).expect("a file").starts_with("# Lamina: orchestrator"));
    let slice = &world.host.kernel[&unit("control.slice")];
    assert_eq!(slice[&Property::AllowedCpus].to_string(), "0-7");
    // Its file says eight processors, four are asked: that waits, and is told.
    let (_, reason, message) = world.told();
    assert_eq!(reason, "PendingRestart", "{message}");
    assert!(message.contains("orchestrator-fanout.service") && !message.contains("router"), "{message}");
    assert_eq!(world.pass().steps, 0, "one more pass does nothing");
}

#[test]
fn what_is_replaced_stands_in_the_before_image_with_its_mode_and_its_link() {
    let mut world = World::with_past(replacing());
    let link = HostPath::enablement(&unit("api.service"));
    let target = fragment("api.service").to_string();
    world.host.files.insert(link.clone(), ObservedFile::Link { target: target.clone() });
    world.host.modes.insert(fragment("api.service"), 0o600);
    world.settle();
    let image = world.image();
    assert_eq!(image.files.len(), 11, "three slices and eight services");
    let api = &image.files[fragment("api.service").as_str()];
    assert_eq!((api.len(), api[0].mode), (1, 0o600));
    assert_eq!(api[0].content, service_text("api", "control"));
    assert_eq!(image.links, BTreeMap::from([(link.to_string(), target)]));
}

#[test]
fn nothing_is_replaced_while_it_cannot_be_saved() {
    let mut world = World::with_past(replacing());
    let units = world.units_on_disk();
    world.host.put(path_of(&example().name).as_str(), "somebody else's");
    let outcome = world.pass();
    assert_eq!(world.units_on_disk(), units);
    assert!(outcome.problems.iter().any(|problem| problem.contains("move it away")), "{:?}", outcome.problems);
    assert!(!world.ready());
}

#[test]
fn a_service_that_runs_otherwise_restarts_once_and_says_in_what() {
    let mut world = World::with_past(replacing());
    world.put_fragment("router.service", &service_text("router", "control").replace("/router", "/router --old"));
    world.put_fragment("parser.service", &service_text("parser", "runner"));
    world.run(async |host| {
        host.reload().await.expect("a reload");
        for name in ["router.service", "parser.service"] {
            host.restart(&unit(name)).await.expect("a restart");
        }
    });
    world.host.log.clear();
    world.settle();
    assert_eq!(restarts(&world).len(), 2, "{:?}", world.host.log);
    let told = world.notes().join("\n");
    assert!(told.contains("router.service is restarted: started text of its former file (another command)"), "{told}");
    assert!(
        told.contains("parser.service is restarted: cgroup /orchestrator.slice/orchestrator-runner.slice"),
        "{told}"
    );
}

#[test]
fn a_file_that_changed_after_the_start_makes_the_process_a_stranger() {
    let mut world = World::with_past(replacing());
    let path = fragment("hitl.service").to_string();
    world.host.edited.insert(unit("hitl.service"), BTreeSet::from([path]));
    world.settle();
    assert_eq!(restarts(&world), ["restart orchestrator-hitl.service"]);
}

#[test]
fn losing_what_was_accepted_costs_restarts_and_never_a_false_ready() {
    let mut world = World::with_past(replacing());
    world.settle();
    for path in copies() {
        world.host.files.remove(&path);
    }
    world.memory = Memory::default();
    world.host.log.clear();
    world.settle();
    assert_eq!(restarts(&world).len(), 8, "nobody knows what they were started from");
    assert!(world.ready(), "{:?}", world.told());
}

#[test]
fn a_new_agent_knows_whom_the_former_one_adopted() {
    let mut world = World::with_past(replacing());
    world.settle();
    world.memory = Memory::default();
    world.host.log.clear();
    world.settle();
    assert_eq!(world.host.log, Vec::<String>::new());
    let mut changed = replacing();
    changed.services[1].command.push(Argument::new("-v").expect("a word"));
    world.ask(changed);
    world.settle();
    assert_eq!(restarts(&world), ["restart orchestrator-router.service"]);
}

#[test]
fn a_drop_in_that_contradicts_goes_and_one_that_does_not_stays() {
    let mut world = World::with_past(replacing());
    let directory = HostPath::drop_in(&unit("router.service")).directory();
    let (contradicting, harmless) = (format!("{directory}/env.conf"), format!("{directory}/nice.conf"));
    world.host.put(&contradicting, "[Service]\nEnvironment=GOMAXPROCS=8\n");
    world.host.put(&harmless, "[Service]\nNice=5\n");
    world.run(async |host| host.reload().await.expect("a reload"));
    world.settle();
    assert!(!world.host.files.contains_key(&HostPath::new(contradicting.clone())));
    assert!(world.host.files.contains_key(&HostPath::new(harmless)));
    assert!(world.image().files.contains_key(&contradicting));
    let (status, _, message) = world.condition(ConditionType::Drifted);
    assert!(status == ConditionStatus::True && message.contains("nice.conf"), "{message}");
}

#[test]
fn links_masks_and_what_is_no_text_are_never_replaced() {
    let mut world = World::with_past(replacing());
    let link = ObservedFile::Link { target: "/srv/api.service".to_owned() };
    world.host.files.insert(fragment("api.service"), link.clone());
    world.host.put(fragment("hitl.service").as_str(), "");
    let noise = ObservedFile::Regular { content: vec![b'#', 0xff, b'\n'] };
    world.host.files.insert(fragment("router.service"), noise.clone());
    world.settle();
    assert_eq!(world.host.files[&fragment("api.service")], link);
    assert_eq!(world.host.files[&fragment("router.service")], noise);
    assert_eq!(world.host.content(&fragment("hitl.service")).as_deref(), Some(""));
    assert!(!world.ready());
}

#[test]
fn the_way_back_gives_every_file_its_content_and_mode_and_stops_nobody() {
    let mut world = World::with_past(replacing());
    let link = HostPath::enablement(&unit("api.service"));
    let target = fragment("api.service").to_string();
    world.host.files.insert(link, ObservedFile::Link { target });
    world.host.modes.insert(fragment("api.service"), 0o600);
    world.host.put(
        &format!("{}/env.conf", HostPath::drop_in(&unit("router.service")).directory()),
        "[Service]\nUser=orchestrator\n",
    );
    world.run(async |host| host.reload().await.expect("a reload"));
    world.host.reload_applies = false;
    let (files, processes) = (world.units_on_disk(), world.host.invocations());
    world.settle();
    let name = example().name;
    let refused = world.run(async |host| restore(host, &name).await);
    assert!(matches!(refused, Err(NotRestored::Refused(_))), "still enforced");
    world.ask(TopologyEntry { state: EntryState::Released, ..replacing() });
    world.settle();
    let restored = world.run(async |host| restore(host, &name).await).expect("it comes back");
    assert_eq!(restored.files.len(), 12);
    assert_eq!(world.units_on_disk(), files);
    assert_eq!(world.host.invocations(), processes);
    let slice = &world.host.kernel[&unit("control.slice")];
    assert_eq!(slice[&Property::AllowedCpus].to_string(), "0-19", "the former file pinned nothing");
    let again = world.run(async |host| restore(host, &name).await).expect("once more");
    assert_eq!((again.files, again.removed), (Vec::new(), Vec::new()));
}

#[test]
fn a_host_that_was_given_back_is_taken_over_again_without_a_restart() {
    let mut world = World::with_past(replacing());
    world.settle();
    world.ask(TopologyEntry { state: EntryState::Released, ..replacing() });
    world.settle();
    world.generation += 1;
    world.cluster.ask(world.generation, &[]);
    world.settle();
    let name = example().name;
    world.run(async |host| restore(host, &name).await).expect("it comes back");
    for (name, _) in SERVICES {
        let path = fragment(&format!("{name}.service")).to_string();
        world.host.edited.insert(unit(&format!("{name}.service")), BTreeSet::from([path]));
    }
    world.host.log.clear();
    world.ask(replacing());
    world.settle();
    assert_eq!(restarts(&world), Vec::<&str>::new());
    assert!(world.ready(), "{:?}", world.told());
}

#[test]
fn what_somebody_put_there_since_is_not_overwritten_by_the_way_back() {
    let mut world = World::with_past(replacing());
    world.settle();
    world.ask(TopologyEntry { state: EntryState::Released, ..replacing() });
    world.settle();
    world.put_fragment("api.service", "[Service]\nExecStart=/bin/newer\n");
    let name = example().name;
    world.run(async |host| restore(host, &name).await).expect("it comes back");
    assert_eq!(world.host.content(&fragment("api.service")).as_deref(), Some("[Service]\nExecStart=/bin/newer\n"));
}
