//! How things stand, by what the objects say.

use serde_json::{Value, json};

use super::*;

fn at(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

fn condition(type_: &str, status: &str, message: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": "Why", "message": message,
        "lastTransitionTime": "2026-11-26T10:00:00Z", "observedGeneration": 2 })
}

fn topology(name: &str, observed: i64, conditions: &[Value]) -> Value {
    json!({ "kind": "SliceTopology", "metadata": { "name": name, "generation": 2 },
        "status": { "observedGeneration": observed, "conditions": conditions } })
}

/// A host with two slices, of which one has a service too few.
fn host() -> Value {
    let slice = |unit: &str, ready: u32| json!({ "unit": unit, "cpus": "0-7", "memoryNodes": "0", "services": 2, "servicesReady": ready });
    let service = |name: &str, slice: &str| {
        json!({ "unit": format!("shop-{name}.service"), "slice": format!("shop-{slice}.slice"),
        "command": ["/bin/x"], "user": "shop", "restart": { "policy": "OnFailure", "delay": "1s" }, "onChange": "Restart" })
    };
    let services = [service("cart", "web"), service("old-cart", "web"), service("cache", "web"), service("db", "data")];
    json!({ "kind": "HostState", "metadata": { "name": "host-7", "generation": 2 },
        "spec": { "topologies": [{ "name": "shop", "state": "Present", "revision": "4f1c09ab52de", "generation": 1,
            "slices": [{ "unit": "shop-web.slice", "cpus": "0-7" }, { "unit": "shop-data.slice", "cpus": "8-15" }],
            "services": services }] },
        "status": { "observedGeneration": 2,
            "conditions": [condition("Ready", "False", "shop waits")],
            "topologies": [{ "name": "shop", "slices": [slice("shop-web.slice", 1), slice("shop-data.slice", 2)],
                "conditions": [condition("Ready", "False", "shop-old-cart.service: install it"),
                    condition("Stalled", "True", "shop-old-cart.service: install it")] }] } })
}

fn objects(items: &[Value]) -> Objects {
    Objects::read(&json!({ "items": items }).to_string()).expect("a list")
}

fn told(items: &[Value], words: &[&str]) -> Status {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    status(&objects(items), &Names::read(&words).expect("legal"), at("2026-11-26T10:05:00Z"))
}

#[test]
fn the_worst_comes_first_and_says_what_to_do() {
    let ready = condition("Ready", "True", "all is well");
    let stalled = [condition("Ready", "False", "no"), condition("Stalled", "True", "host-7: install it")];
    let status = told(
        &[
            topology("calm", 2, std::slice::from_ref(&ready)),
            topology("small", 2, &[ready.clone(), condition("Degraded", "True", "fewer CPUs")]),
            topology("shop", 2, &stalled),
            topology("held", 2, &[condition("Ready", "False", "no"), condition("Paused", "True", "paused")]),
            topology("fresh", 1, &[ready]),
        ],
        &[],
    );
    let lines: Vec<_> = status.topologies.iter().map(|line| (line.topology.as_str(), line.verdict.standing)).collect();
    let expected = [
        ("shop", Standing::Stalled),
        ("fresh", Standing::Reconciling),
        ("held", Standing::Paused),
        ("small", Standing::Degraded),
        ("calm", Standing::Ready),
    ];
    assert_eq!(lines, expected);
    assert_eq!(status.topologies[0].verdict.message, "host-7: install it");
    assert_eq!(status.topologies[0].verdict.since, Some(at("2026-11-26T10:00:00Z")));
    assert_eq!(status.outcome(), Outcome::Changes);
}

#[test]
fn what_is_as_asked_as_far_as_it_can_be_is_well() {
    let ready = [condition("Ready", "True", "ok"), condition("Degraded", "True", "fewer CPUs")];
    assert_eq!(told(&[topology("small", 2, &ready)], &[]).outcome(), Outcome::Done);
    assert_eq!(told(&[], &[]).outcome(), Outcome::Done);
}

#[test]
fn a_name_leaves_out_everything_else() {
    let items = [topology("calm", 2, &[]), host()];
    let lines = |words: &[&str]| -> Vec<_> {
        let status = told(&items, words);
        let line = |line: &HostLine| (line.topology.clone(), line.slices.len(), line.services.len());
        status.hosts.iter().map(line).collect()
    };
    let shop = || Some("shop".to_owned());
    assert_eq!(lines(&["host-7"]), [(shop(), 2, 4), (None, 0, 0)]);
    assert_eq!(lines(&["shop"]), [(shop(), 2, 4)]);
    assert_eq!(lines(&["slice", "data"]), [(shop(), 1, 0)]);
    assert_eq!(lines(&["shop-db.service"]), [(shop(), 0, 1)]);
    assert_eq!(lines(&["calm"]), []);
    let missing = Names::read(&["nobody".to_owned(), "shop".to_owned()]).expect("legal").missing(&objects(&items));
    assert_eq!(missing, ["nobody"]);
}

#[test]
fn a_service_stands_as_the_messages_and_counts_say() {
    let status = told(&[host()], &["shop"]);
    let services: Vec<_> = status.hosts[0]
        .services
        .iter()
        .map(|line| (line.unit.as_str(), line.standing, line.message.as_str()))
        .collect();
    let counted = "1 of 2 services of shop-web.slice are as asked; `kubectl lamina verify` tells which";
    let expected = [
        ("shop-cart.service", Standing::NotReady, counted),
        ("shop-old-cart.service", Standing::Stalled, "shop-old-cart.service: install it"),
        ("shop-cache.service", Standing::NotReady, counted),
        ("shop-db.service", Standing::Ready, ""),
    ];
    assert_eq!(services, expected);
    assert!(!names_unit("xshop-cart.service: gone", "shop-cart.service"));
}

#[test]
fn what_nobody_has_said_a_word_about_is_not_ready() {
    let mut host = host();
    host["status"]["topologies"] = json!([]);
    let status = told(&[host], &["shop"]);
    let line = &status.hosts[0];
    assert_eq!(
        (line.verdict.standing, line.verdict.message.as_str()),
        (Standing::NotReady, "nothing was said of it yet")
    );
    assert_eq!(line.services.len(), 4);
}

#[test]
fn a_silent_agent_is_told_by_its_lease_or_by_the_operator() {
    let lease = |time: &str| {
        let lease = json!({ "metadata": { "name": "host-7" }, "spec": { "renewTime": time } });
        json!({ "items": [lease] }).to_string()
    };
    let worst =
        json!([{ "host": "host-7", "reason": "HostsOffline", "message": "host-7: its agent is silent; look there" }]);
    let topology = json!({ "kind": "SliceTopology", "metadata": { "name": "shop" }, "status": { "worst": worst } });
    let mut objects = objects(&[host(), topology]);
    let line = |objects: &Objects| {
        let names = Names::read(&["host/host-7".to_owned()]).expect("legal");
        let status = status(objects, &names, at("2026-11-26T10:05:00Z"));
        (status.hosts[0].verdict.standing, status.hosts[0].verdict.since)
    };
    assert_eq!(line(&objects), (Standing::Silent, None));
    objects.note_leases(&lease("2026-11-26T10:01:00Z")).expect("a list");
    assert_eq!(line(&objects), (Standing::Silent, Some(at("2026-11-26T10:01:00Z"))));
    objects.note_leases(&lease("2026-11-26T10:04:50Z")).expect("a list");
    assert_eq!(line(&objects).0, Standing::Stalled);
}
