use crate::scene::{Scene, at};

fn three_hosts() -> Scene {
    Scene::new().topology("x", &["cores: 4"]).hosts(3)
}

fn settled(scene: Scene) -> Scene {
    scene.written().reported().written()
}

/// Ready, Reconciling, Stalled, Degraded: status and, for Ready, reason.
fn row(scene: &Scene) -> [String; 4] {
    let status = |type_| scene.condition("x", type_).split(' ').next().unwrap_or_default().to_owned();
    [scene.condition("x", "Ready"), status("Reconciling"), status("Stalled"), status("Degraded")]
}

#[test]
fn no_host_matches_is_unknown() {
    let scene = Scene::new().topology("x", &["cores: 4"]).written();
    assert_eq!(row(&scene), ["Unknown NoHost", "False", "False", "False"]);
    assert_eq!(scene.condition("x", "Placed"), "True AsAsked");
}

#[test]
fn being_applied_is_reconciling() {
    let scene = three_hosts().written();
    assert_eq!(row(&scene), ["False Progressing", "True", "False", "False"]);
}

#[test]
fn every_host_verified_is_ready() {
    let scene = settled(three_hosts());
    assert_eq!(row(&scene), ["True AsAsked", "False", "False", "False"]);
    let status = scene.status("x");
    assert_eq!(status.observed_generation, 1);
    let hosts = status.hosts.expect("counts");
    assert_eq!((hosts.selected, hosts.updated, hosts.ready), (3, 3, 3));
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == 1));
    assert_eq!(status.conditions[0].message, "1 slice and 0 services as asked on 3 of 3 hosts (generation 1)");
}

#[test]
fn a_host_without_inventory_is_named() {
    let scene = Scene::new().topology("x", &["cores: 4"]).node("bare").written();
    assert_eq!(row(&scene), ["False NoInventory", "True", "False", "False"]);
    assert_eq!(scene.status("x").worst[0].host, "bare");
}

#[test]
fn a_few_silent_hosts_are_counted_and_the_rest_is_ready() {
    let scene = settled(Scene::new().topology("x", &["cores: 4"]).hosts(5)).silence(&["h02"]).written();
    assert_eq!(row(&scene), ["True HostsOffline", "False", "False", "True"]);
    let hosts = scene.status("x").hosts.expect("counts");
    assert_eq!((hosts.ready, hosts.offline), (4, 1));
}

#[test]
fn too_many_silent_hosts_leave_it_unknown() {
    let scene = settled(Scene::new().topology("x", &["cores: 4"]).hosts(4)).silence(&["h02"]).written();
    assert_eq!(row(&scene), ["Unknown TooManyOffline", "False", "False", "True"]);
}

#[test]
fn an_operator_that_just_started_does_not_contradict_a_status_that_names_silent_hosts() {
    let mut scene = settled(Scene::new().topology("x", &["cores: 4"]).hosts(4)).silence(&["h02"]).written();
    scene.watching_since = at(970);
    scene.leases.clear();
    assert_eq!(scene.pass().writes, 0);
    scene.now = at(1010);
    for host in ["h01", "h02", "h03", "h04"] {
        scene.renew(host);
    }
    let scene = scene.written();
    assert_eq!(scene.condition("x", "Ready"), "True AsAsked");
}

#[test]
fn a_cpu_that_went_offline_leaves_it_ready_and_degraded() {
    let scene = settled(Scene::new().topology("x", &["set: 8-11"]).hosts(3));
    let scene = scene.host_state("h01", |state| {
        state["status"]["hardware"]["cpus"]["online"] = "0-8,10-19".into();
        state["status"]["hardware"]["cpus"]["offline"] = "9".into();
    });
    let scene = scene.written();
    assert_eq!(row(&scene), ["True CPUOffline", "False", "False", "True"]);
    assert_eq!(scene.status("x").hosts.expect("counts").degraded, 1);
}

#[test]
fn what_is_given_up_by_consent_leaves_it_ready_and_is_counted() {
    let scene = Scene::new().topology("x", &["cores: 16", "cores: 8"]).hosts(3);
    let scene = settled(scene.edit("x", |spec| {
        spec["slices"][0]["priority"] = 5.into();
        spec["slices"][1]["cpu"]["shareWith"] = "s0".into();
    }));
    assert_eq!(row(&scene), ["True Shared", "False", "False", "True"]);
    assert_eq!(
        (scene.condition("x", "Placed"), scene.condition("x", "Degraded")),
        ("True AsAsked".into(), "True Shared".into())
    );
    let status = scene.status("x");
    assert_eq!(status.hosts.map(|hosts| (hosts.ready, hosts.degraded)), Some((3, 3)));
    let worst = &status.worst[0];
    assert_eq!(worst.reason, "Shared");
    assert!(worst.message.starts_with("h01: s1 runs inside s0 (20 cores on this host, 24 asked)"), "{}", worst.message);
}

#[test]
fn fewer_cores_by_consent_leave_it_ready_and_degraded() {
    let scene = Scene::new().topology("x", &["cores: 16", "cores: 8"]).hosts(1);
    let scene = settled(scene.edit("x", |spec| {
        spec["slices"][0]["cpu"]["min"] = 1.into();
        spec["slices"][1]["cpu"]["min"] = 8.into();
    }));
    assert_eq!(row(&scene), ["True Shrunk", "False", "False", "True"]);
    let message = &scene.status("x").worst[0].message;
    assert!(message.starts_with("h01: s0 has 12 of 16 cores"), "{message}");
}

#[test]
fn promised_memory_that_its_nodes_do_not_have_is_refused() {
    let scene = Scene::new().topology("x", &["cores: 4", "cores: 4"]).hosts(1);
    let bound = |min: &str| serde_json::json!({ "nodesFrom": "List", "nodes": "0", "min": min });
    let scene = scene.edit("x", |spec| {
        spec["slices"][0]["memory"] = bound("40Gi");
        spec["slices"][1]["memory"] = bound("40Gi");
    });
    let scene = settled(scene);
    assert_eq!(row(&scene), ["False Infeasible", "False", "True", "False"]);
    let message = &scene.status("x").worst[0].message;
    let told =
        "h01: x-s0.slice, x-s1.slice ask for 80Gi of protected memory (memory.min) on NUMA nodes 0, which have 64Gi";
    assert!(message.starts_with(told), "{message}");
}

#[test]
fn an_outranked_foreign_drop_in_leaves_it_ready() {
    let scene =
        settled(three_hosts()).says("h01", "x", "Drifted", "True", "ForeignDropIn", "50-foreign.conf").written();
    assert_eq!(row(&scene), ["True AsAsked", "False", "False", "False"]);
}

#[test]
fn a_pending_restart_is_ready_and_said() {
    let scene = settled(three_hosts()).says("h01", "x", "Ready", "True", "PendingRestart", "x-a waits").written();
    assert_eq!(row(&scene), ["True PendingRestart", "False", "False", "False"]);
    assert!(scene.status("x").conditions[0].message.starts_with("h01: x-a waits"));
}

#[test]
fn a_refused_spec_is_stalled() {
    let scene = three_hosts().edit("x", |spec| spec["polcy"] = 1.into()).written();
    assert_eq!(row(&scene), ["False InvalidSpec", "False", "True", "False"]);
    assert_eq!(scene.entries("h01"), [""; 0]);
}

#[test]
fn a_host_that_cannot_follow_stalls_it_and_is_named() {
    let scene = Scene::new().topology("x", &["cores: 30"]).hosts(2).written();
    assert_eq!(row(&scene), ["False Infeasible", "False", "True", "False"]);
    assert_eq!(scene.condition("x", "Placed"), "False Infeasible");
    let message = &scene.status("x").worst[0].message;
    assert!(message.starts_with("h01: slice s0 asks for 30 whole cores"), "{message}");
    assert_eq!(scene.entries("h01"), [""; 0]);
    assert_eq!(scene.events.len(), 1);
}

#[test]
fn a_service_that_does_not_start_is_reconciling_and_degraded() {
    let scene = settled(three_hosts()).says("h02", "x", "Ready", "False", "ServiceFailed", "x-a.service exits with 1");
    let scene = scene.written();
    assert_eq!(row(&scene), ["False ServiceFailed", "True", "False", "True"]);
}

#[test]
fn a_service_that_still_does_not_start_is_stalled_and_degraded() {
    let scene = settled(three_hosts()).says("h02", "x", "Ready", "False", "MissingUser", "user app is missing");
    let scene = scene.says("h02", "x", "Stalled", "True", "MissingUser", "user app is missing; create it").written();
    assert_eq!(row(&scene), ["False MissingUser", "False", "True", "True"]);
    assert_eq!(scene.status("x").hosts.expect("counts").stalled, 1);
}

#[test]
fn drift_that_cannot_be_healed_is_stalled() {
    let scene = settled(three_hosts()).says("h02", "x", "Ready", "False", "DriftPersists", "a foreign setting wins");
    let scene = scene.says("h02", "x", "Stalled", "True", "DriftPersists", "a foreign setting wins").written();
    assert_eq!(row(&scene), ["False DriftPersists", "False", "True", "False"]);
}

#[test]
fn a_report_about_an_older_spec_does_not_make_it_ready() {
    let scene = settled(three_hosts()).edit("x", |spec| spec["slices"][0]["io"] = serde_json::json!({ "weight": 50 }));
    let scene = scene.written().host_state("h01", |state| {
        let revision = state["spec"]["topologies"][0]["revision"].clone();
        state["status"]["topologies"][0]["revision"] = revision;
    });
    let scene = scene.written();
    assert_eq!(row(&scene), ["False Progressing", "True", "False", "False"]);
    assert_eq!(scene.status("x").observed_generation, 2);
}

#[test]
fn another_topology_on_the_same_hosts_does_not_put_it_in_doubt() {
    let scene = settled(three_hosts()).topology("y", &["cores: 2"]).written();
    assert_eq!(scene.condition("x", "Ready"), "True AsAsked");
    assert_eq!(scene.condition("y", "Ready"), "False Progressing");
}

#[test]
fn a_topology_being_removed_says_who_holds_it() {
    let scene = three_hosts().edit("x", |spec| spec["deletionPolicy"] = "Remove".into());
    let scene = settled(scene).delete("x").written();
    assert_eq!(row(&scene), ["False Progressing", "True", "False", "False"]);
    assert!(scene.status("x").conditions[0].message.contains("3 hosts have not let go of it yet, h01 first"));
}

#[test]
fn a_write_that_the_server_refuses_is_said() {
    let mut scene = three_hosts();
    scene.refuses = Some("h02".to_owned());
    for _ in 0..3 {
        scene.pass();
    }
    assert_eq!(row(&scene), ["False HostError", "False", "True", "False"]);
    scene.refuses = None;
    let scene = settled(scene);
    assert_eq!(row(&scene), ["True AsAsked", "False", "False", "False"]);
}

#[test]
fn at_most_twenty_hosts_are_named_worst_first() {
    let scene = settled(Scene::new().topology("x", &["cores: 4"]).hosts(30));
    let mut scene = scene.says("h30", "x", "Stalled", "True", "NameTaken", "x-s0.slice belongs to somebody");
    for host in 1..=29 {
        scene = scene.silence(&[&format!("h{host:02}")]);
    }
    let scene = scene.written();
    let worst = scene.status("x").worst;
    assert_eq!((worst.len(), worst[0].host.as_str(), worst[1].host.as_str()), (20, "h30", "h01"));
}
