//! Memory nodes that change under running services, and the policies of these.

use lamina_crds::host_state::ResolvedMemoryPolicy;
use lamina_crds::wishes::{MemoryPolicy, Migration};

use super::*;

/// The running example with other memory nodes for the runners.
fn moved(nodes: &str, migrate: Migration) -> TopologyEntry {
    let mut entry = example();
    entry.slices[1].memory_nodes = nodes.parse().ok();
    entry.slices[1].migrate = migrate;
    entry
}

fn bound(mut entry: TopologyEntry) -> TopologyEntry {
    let nodes = entry.slices[1].memory_nodes.clone();
    entry.slices[1].memory_policy = Some(ResolvedMemoryPolicy { policy: MemoryPolicy::Bind, nodes });
    entry
}

impl World {
    fn restart(&mut self, name: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.host.restart(&unit(name))).expect("systemd restarts it");
        self.host.log.clear();
    }

    /// The memory nodes that the kernel gives to the runners.
    fn nodes(&self) -> String {
        self.host.kernel[&unit("runner.slice")][&Property::AllowedMemoryNodes].to_string()
    }

    fn policy_of(&self, name: &str) -> Option<String> {
        self.host.loaded[&unit(name)].numa.as_ref().map(ToString::to_string)
    }
}

#[test]
fn a_change_of_memory_nodes_waits_until_the_last_service_of_the_slice_was_restarted() {
    let mut world = World::settled();
    world.ask(moved("0", Migration::OnRestart));
    world.settle();
    assert_eq!((world.told().0, world.told().1.as_str()), (ConditionStatus::True, "PendingRestart"));
    assert!(world.told().2.ends_with("orchestrator-runner.service, orchestrator-agent-runner.service"));
    assert_eq!(world.nodes(), "1");
    world.restart("runner.service");
    world.settle();
    assert_eq!((world.told().1.as_str(), world.nodes().as_str()), ("PendingRestart", "1"));
    world.restart("agent-runner.service");
    world.settle();
    assert_eq!((world.told().1.as_str(), world.nodes().as_str()), ("AsAsked", "0"));
    assert_eq!(starts(&world.host.log), Vec::<&String>::new());
    assert_eq!(world.notes().iter().filter(|note| note.contains("instead of")).count(), 0, "{:?}", world.notes());
}

#[test]
fn memory_moves_at_once_where_the_entry_says_so() {
    let mut world = World::settled();
    world.ask(moved("0", Migration::Now));
    world.settle();
    world.restart("runner.service");
    world.restart("agent-runner.service");
    world.ask(moved("0-1", Migration::Now));
    world.settle();
    assert_eq!((world.told().1.as_str(), world.nodes().as_str()), ("AsAsked", "0-1"));
    assert_eq!(starts(&world.host.log), Vec::<&String>::new());
}

#[test]
fn nodes_that_wait_are_still_defended() {
    let mut world = World::settled();
    world.ask(moved("0", Migration::OnRestart));
    world.settle();
    let other = Value::Nodes("0-1".parse().expect("a list"));
    let properties = Properties::from([(Property::AllowedMemoryNodes, other)]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(world.host.set_properties(&unit("runner.slice"), &properties)).expect("systemd obeys");
    world.settle();
    assert_eq!((world.told().1.as_str(), world.nodes().as_str()), ("PendingRestart", "1"));
}

#[test]
fn a_new_memory_policy_restarts_the_services_of_its_slice_only() {
    let mut world = World::settled();
    world.ask(bound(example()));
    world.settle();
    let restarted = ["restart orchestrator-runner.service", "restart orchestrator-agent-runner.service"];
    assert_eq!(starts(&world.host.log), restarted);
    assert_eq!(world.policy_of("runner.service").as_deref(), Some("NUMAPolicy=bind NUMAMask=1"));
    assert_eq!((world.policy_of("api.service"), world.told().1.as_str()), (None, "AsAsked"));
}

#[test]
fn a_policy_never_names_a_node_that_the_slice_does_not_have_yet() {
    let mut world = World::new(bound(example()));
    world.settle();
    world.host.log.clear();
    world.ask(bound(moved("0", Migration::OnRestart)));
    world.settle();
    assert_eq!((world.told().1.as_str(), world.nodes().as_str()), ("PendingRestart", "1"));
    assert_eq!(world.policy_of("runner.service").as_deref(), Some("NUMAPolicy=bind NUMAMask=1"));
    world.restart("runner.service");
    world.restart("agent-runner.service");
    world.settle();
    assert_eq!((world.told().1.as_str(), world.nodes().as_str()), ("AsAsked", "0"));
    assert_eq!(world.policy_of("runner.service").as_deref(), Some("NUMAPolicy=bind NUMAMask=0"));
    assert_eq!(starts(&world.host.log), Vec::<&String>::new());
}

#[test]
fn another_hands_policy_is_told() {
    let mut world = World::new(bound(example()));
    world.settle();
    let other = "[Service]\nNUMAPolicy=local\nNUMAMask=\n";
    world.host.put("/etc/systemd/system/orchestrator-runner.service.d/zzzzz-other.conf", other);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(world.host.reload()).expect("systemd reloads");
    world.settle();
    assert!(!world.ready(), "{:?}", world.told());
}

#[test]
fn a_host_with_a_kubelet_says_that_pods_share_its_cpus() {
    use lamina_crds::hardware::Kubelet;
    let mut world = World::settled();
    let kubelet = |policy: &str| Kubelet { cpu_manager_policy: policy.to_owned(), ..Kubelet::default() };
    let supported = |world: &World| {
        let found = find(&world.status().conditions, ConditionType::Supported).cloned().expect("the condition");
        (found.status, found.reason)
    };
    world.host.hardware.kubelet = Some(kubelet("none"));
    world.pass();
    assert_eq!(supported(&world), (ConditionStatus::True, "SharedWithPods".to_owned()));
    world.host.hardware.kubelet = Some(kubelet("static"));
    world.pass();
    assert_eq!(supported(&world), (ConditionStatus::True, "Supported".to_owned()));
}
