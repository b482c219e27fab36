use lamina_crds::Term;
use lamina_crds::host_state::FINALIZER;
use proptest::prelude::*;
use serde_json::json;

use crate::changes::Change;
use crate::check::check;
use crate::placement::tests::seed;
use crate::resolve::resolve;
use crate::scene::{Scene, at};
use crate::view::{Definitions, NodePresence};

fn removing(scene: Scene) -> Scene {
    scene.edit("x", |spec| spec["deletionPolicy"] = "Remove".into())
}

#[test]
fn a_node_that_is_selected_gets_a_host_state_and_its_spec_only_after_the_hardware_is_known() {
    let scene = Scene::new().topology("x", &["cores: 4"]).node("bare").written();
    assert_eq!(scene.host_states["bare"]["metadata"]["labels"]["lamina.dev/origin"], "Node");
    let quiet = &scene.host_states["bare"]["metadata"]["annotations"]["argocd.argoproj.io/ignore-resource-updates"];
    assert_eq!(quiet, "true");
    assert!(scene.entries("bare").is_empty());
    let scene = scene.host_state("bare", |state| state["status"] = json!({ "hardware": seed() })).written();
    assert_eq!(scene.entries("bare"), ["x Present"]);
}

#[test]
fn a_node_that_nothing_selects_gets_no_host_state() {
    let mut scene = Scene::new().topology("x", &["cores: 4"]).node("other");
    scene.nodes.insert("other".to_owned(), Default::default());
    assert!(scene.written().host_states.is_empty());
}

#[test]
fn the_topology_says_that_it_is_moving_before_the_first_host_is_told() {
    let mut scene = Scene::new().topology("x", &["cores: 4"]).host("h");
    scene.pass();
    assert_eq!(scene.writes, ["write the status of x", "apply the spec of HostState h"]);
}

#[test]
fn one_more_pass_writes_nothing() {
    let mut scene = Scene::new().topology("x", &["cores: 4"]).topology("y", &["set: 0-3"]).hosts(3);
    scene = scene.written().reported().written();
    let before = scene.writes.len();
    scene.now = at(1030);
    assert_eq!(scene.pass().writes, 0);
    assert_eq!(scene.writes.len(), before);
}

#[test]
fn a_change_that_alters_no_host_writes_no_host_state() {
    let scene = Scene::new().topology("x", &["cores: 4"]).host("h").written().reported().written();
    let scene = removing(scene);
    let generation = scene.host_states["h"]["metadata"]["generation"].clone();
    let scene = scene.written();
    assert_eq!(scene.host_states["h"]["metadata"]["generation"], generation);
    assert_eq!(scene.condition("x", "Ready"), "True AsAsked");
    assert_eq!(scene.status("x").observed_generation, 2);
}

#[test]
fn a_topology_deleted_with_retain_is_released_and_leaves_after_the_agent_let_go() {
    let scene = Scene::new().topology("x", &["cores: 4"]).host("h").written().reported().written();
    let scene = scene.delete("x").written();
    assert_eq!(scene.entries("h"), ["x Released"]);
    let scene = scene.reported().written();
    assert!(scene.entries("h").is_empty());
}

#[test]
fn a_topology_that_comes_back_finds_its_slices_where_they_were() {
    let scene = Scene::new().topology("x", &["set: 4-7"]).host("h").written().reported().written();
    let scene = scene.delete("x").written();
    let scene = scene.topology("x", &["cores: 4"]).written();
    assert_eq!(scene.host_states["h"]["spec"]["topologies"][0]["slices"][0]["cpus"], "4-7");
    assert_eq!(scene.entries("h"), ["x Present"]);
}

#[test]
fn the_finalizer_is_there_exactly_while_the_policy_is_remove() {
    let finalizers = |scene: &Scene| scene.topologies["x"]["metadata"]["finalizers"].clone();
    let mut scene = removing(Scene::new().topology("x", &["cores: 4"]).host("h"));
    scene.pass();
    let order = ["write the status of x", "set the finalizers of SliceTopology x", "apply the spec of HostState h"];
    assert_eq!(scene.writes, order);
    assert_eq!(finalizers(&scene), json!([FINALIZER]));
    let scene = scene.edit("x", |spec| spec["deletionPolicy"] = "Retain".into()).written();
    assert_eq!(finalizers(&scene), json!([]));
}

#[test]
fn foreign_finalizers_are_kept() {
    let mut scene = removing(Scene::new().topology("x", &["cores: 4"]));
    scene.topologies.get_mut("x").expect("x")["metadata"]["finalizers"] = json!(["other.dev/keep"]);
    let scene = scene.written();
    assert_eq!(scene.topologies["x"]["metadata"]["finalizers"], json!(["other.dev/keep", FINALIZER]));
}

#[test]
fn a_topology_deleted_with_remove_goes_when_every_live_host_has_confirmed() {
    let scene = removing(Scene::new().topology("x", &["cores: 4"]).hosts(2)).written().reported().written();
    let scene = scene.delete("x").written();
    assert_eq!(scene.entries("h01"), ["x Absent"]);
    assert!(scene.topologies.contains_key("x"));
    let scene = scene.reported().written();
    assert!(!scene.topologies.contains_key("x"));
    assert!(scene.entries("h01").is_empty() && scene.entries("h02").is_empty());
}

#[test]
fn a_silent_host_does_not_hold_a_removal_once_its_object_says_it() {
    let scene = removing(Scene::new().topology("x", &["cores: 4"]).host("h")).written().reported().written();
    let scene = scene.silence(&["h"]).delete("x").written();
    assert!(!scene.topologies.contains_key("x"));
    assert_eq!(scene.entries("h"), ["x Absent"]);
}

#[test]
fn while_the_definition_is_deleted_every_deletion_counts_as_retain() {
    let mut scene = removing(Scene::new().topology("x", &["cores: 4"]).host("h")).written().reported().written();
    scene.definitions = Definitions::Leave;
    let scene = scene.delete("x").written();
    assert_eq!(scene.entries("h"), ["x Released"]);
    assert!(!scene.topologies.contains_key("x"));
}

#[test]
fn a_host_that_no_longer_matches_is_let_go_by_policy() {
    let unlabelled = |mut scene: Scene| {
        scene.nodes.insert("h".to_owned(), Default::default());
        scene.written()
    };
    let scene = Scene::new().topology("x", &["cores: 4"]).host("h").written().reported().written();
    assert_eq!(unlabelled(scene.clone()).entries("h"), ["x Released"]);
    assert_eq!(unlabelled(removing(scene).written()).entries("h"), ["x Absent"]);
}

#[test]
fn a_node_that_vanishes_releases_at_most_and_its_object_is_collected_when_its_agent_is_silent() {
    let mut scene = removing(Scene::new().topology("x", &["cores: 4"]).host("h")).written().reported().written();
    scene.nodes.clear();
    let scene = scene.written();
    assert_eq!(scene.entries("h"), ["x Released"]);
    assert!(scene.silence(&["h"]).written().host_states.is_empty());
}

#[test]
fn a_host_that_an_admin_made_is_never_collected() {
    let scene = Scene::new().host("h").host_state("h", |state| state["metadata"]["labels"] = json!({ "role": "edge" }));
    let mut scene = scene.silence(&["h"]);
    scene.nodes.clear();
    assert_eq!(scene.view().hosts["h"].node, NodePresence::Missing);
    assert!(scene.written().host_states.contains_key("h"));
}

#[test]
fn a_host_state_deleted_by_force_comes_back_with_every_slice_in_its_place() {
    let scene = Scene::new().topology("x", &["set: 4-7"]).topology("y", &["cores: 4"]).host("h");
    let mut scene = scene.written().reported().written().edit("x", |spec| {
        spec["slices"][0]["cpu"] = json!({ "cores": 4 });
    });
    scene = scene.written().reported().written();
    let before = scene.host_states["h"].clone();
    scene.host_states.remove("h");
    scene = scene.written();
    assert!(scene.entries("h").is_empty());
    let scene = scene.host_state("h", |state| state["status"] = before["status"].clone()).written();
    let cpus =
        |state: &serde_json::Value, index: usize| state["spec"]["topologies"][index]["slices"][0]["cpus"].clone();
    assert_eq!(cpus(&scene.host_states["h"], 0), cpus(&before, 0));
    assert_eq!(cpus(&scene.host_states["h"], 1), cpus(&before, 1));
}

#[test]
fn a_spec_that_is_refused_leaves_every_host_as_it_is() {
    let scene = Scene::new().topology("x", &["cores: 4"]).host("h").written().reported().written();
    let before = scene.host_states["h"]["spec"].clone();
    let scene = scene.edit("x", |spec| spec["polcy"] = 1.into()).written();
    assert_eq!(scene.host_states["h"]["spec"], before);
    let scene = scene.edit("x", |spec| {
        spec.as_object_mut().expect("a map").remove("polcy");
        spec["slices"][0]["cpu"] = json!({ "cores": 40 });
    });
    assert_eq!(scene.written().host_states["h"]["spec"], before);
}

#[test]
fn protected_memory_that_the_host_does_not_have_is_refused() {
    let scene = Scene::new().topology("x", &["cores: 4"]).host("h");
    let scene = scene.edit("x", |spec| spec["slices"][0]["memory"] = json!({ "min": "200Gi" })).written();
    assert_eq!(scene.condition("x", "Ready"), "False Infeasible");
    let message = scene.status("x").worst[0].message.clone();
    assert!(message.contains("200Gi of protected memory") && message.contains("the host has 128Gi"), "{message}");
}

#[test]
fn a_newcomer_that_collides_is_told_and_the_incumbent_is_not_touched() {
    let scene = Scene::new().topology("x", &["set: 0-3"]).host("h").written().reported().written();
    let before = scene.host_states["h"]["spec"].clone();
    let scene = scene.topology("a", &["set: 3-6"]).written();
    assert_eq!(scene.host_states["h"]["spec"], before);
    assert_eq!(scene.condition("a", "Ready"), "False CpusTaken");
    assert_eq!(scene.condition("x", "Ready"), "True AsAsked");
}

#[test]
fn a_stale_target_is_a_conflict_and_not_a_write() {
    let mut scene = Scene::new().topology("x", &["cores: 4"]).host("h");
    let view = scene.view();
    let resolution = resolve(&view);
    let changes = crate::changes::changes(&view, &resolution, &check(&view, &resolution), scene.term, scene.now);
    assert!(matches!(changes.as_slice(), [Change::ApplyHostSpec { .. }]));
    scene = scene.host_state("h", |state| state["status"]["observedGeneration"] = 7.into());
    let result = futures::executor::block_on(crate::cluster::Cluster::perform(&mut scene, &changes[0]));
    assert!(matches!(result, Err(crate::cluster::ClusterError::Conflict { .. })));
}

fn in_term(mut scene: Scene, number: i64) -> Scene {
    scene.term = Term::new(number).expect("a term");
    scene
}

#[test]
fn a_new_term_is_written_only_with_another_change() {
    let settled = in_term(Scene::new().topology("x", &["cores: 4"]).host("h"), 3).written().reported().written();
    assert_eq!(settled.host_states["h"]["spec"]["term"], 3);
    let mut scene = in_term(settled, 4);
    assert_eq!(scene.pass().writes, 0);
    let scene = scene.edit("x", |spec| spec["slices"][0]["cpu"]["cores"] = 5.into()).written();
    assert_eq!(scene.host_states["h"]["spec"]["term"], 4);
}

#[test]
fn a_host_that_comes_into_being_bears_the_term_from_the_start() {
    let scene = in_term(Scene::new().topology("x", &["cores: 4"]).node("h"), 3).written();
    assert_eq!(scene.host_states["h"]["spec"], serde_json::json!({ "term": 3 }));
}

#[test]
fn an_operator_that_finds_a_later_term_writes_nothing_anywhere() {
    let scene = in_term(Scene::new().topology("x", &["cores: 4"]).hosts(2), 3);
    for later in [&["spec", "term"], &["status", "term"]] {
        let mut scene = scene.clone().host_state("h02", |state| state[later[0]][later[1]] = 4.into());
        let told = scene.try_pass().expect_err("it does not lead any more");
        assert!(matches!(told, crate::cluster::ClusterError::NotLeading { .. }), "{told}");
        assert_eq!(scene.writes, [""; 0]);
    }
}

#[test]
fn an_object_whose_agent_has_accepted_a_later_term_is_written_anew() {
    let settled = in_term(Scene::new().topology("x", &["cores: 4"]).host("h"), 3).written().reported().written();
    let scene = settled.host_state("h", |state| state["status"]["term"] = 6.into());
    let scene = in_term(scene, 7).written();
    assert_eq!(scene.host_states["h"]["spec"]["term"], 7);
    assert_eq!(scene.entries("h"), ["x Present"]);
    let empty = Scene::new().host("h").host_state("h", |state| state["status"]["term"] = 6.into());
    assert_eq!(in_term(empty, 7).written().host_states["h"]["spec"]["term"], 7);
}

prop_compose! {
    fn worlds()(requests in prop::collection::vec((1u32..9, any::<bool>()), 1..6), hosts in 1usize..4) -> (Vec<(u32, bool)>, usize) {
        (requests, hosts)
    }
}

fn world(requests: &[(u32, bool)], hosts: usize) -> Scene {
    let mut scene = Scene::new().hosts(hosts);
    for (index, (size, literal)) in requests.iter().enumerate() {
        let cpus = if *literal { format!("set: {}-{}", size - 1, size + 1) } else { format!("cores: {size}") };
        scene = scene.topology(&format!("t{index}"), &[&cpus]);
    }
    scene
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is asked: it settles, breaks no invariant, and the order in which topologies arrive in the caches does
    /// not change a byte.
    #[test]
    fn any_world_settles_without_a_violation((requests, hosts) in worlds()) {
        let scene = world(&requests, hosts).written().reported().written();
        let view = scene.view();
        let resolution = resolve(&view);
        prop_assert_eq!(check(&view, &resolution), vec![]);
        let mut shuffled = view.clone();
        let mut hosts: Vec<_> = std::mem::take(&mut shuffled.hosts).into_iter().collect();
        hosts.reverse();
        shuffled.hosts.extend(hosts);
        prop_assert_eq!(format!("{:?}", resolve(&shuffled)), format!("{resolution:?}"));
    }
}
