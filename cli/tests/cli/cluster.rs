//! The verbs that ask a cluster, with a kubectl that answers out of files: what it is asked, and what is made of that.

#![expect(clippy::disallowed_methods, reason = "runs a program that finds another on its path")]

use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Folder, Run, program};

/// A kubectl that notes how it is called and answers with the file that is named after the first word it is called with
/// that has one; without one it fails as a cluster does that knows nothing of the kind.
const KUBECTL: &str = r#"#!/bin/sh
echo "$@" >> "$ANSWERS/calls"
for word in "$@"; do
    name=$(echo "$word" | tr '/:,' '___')
    if [ -f "$ANSWERS/$name" ]; then exec cat "$ANSWERS/$name"; fi
done
echo "Error from server (Forbidden): $*" >&2
exit 1
"#;

struct Cluster(Folder);

impl Cluster {
    fn new(answers: &[(&str, Value)]) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        let kubectl = folder.file("bin/kubectl", KUBECTL);
        std::fs::set_permissions(Path::new(&kubectl), std::fs::Permissions::from_mode(0o755)).expect("it may run");
        for (name, answer) in answers {
            folder.file(name, &answer.to_string());
        }
        Self(folder)
    }

    fn run(&self, words: &[&str]) -> Run {
        let path = format!("{}:{}", self.0.path("bin"), std::env::var("PATH").unwrap_or_default());
        let mut command = program();
        let done = command.args(words).env("PATH", path).env("ANSWERS", self.0.path("")).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Run { code: done.status.code().expect("a code"), output: text(done.stdout), errors: text(done.stderr) }
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.0.path("calls")).unwrap_or_default()
    }
}

fn ready(message: &str) -> Value {
    json!([{ "type": "Ready", "status": "True", "reason": "AsAsked", "message": message,
        "lastTransitionTime": "2026-11-26T09:00:00Z", "observedGeneration": 3 }])
}

fn host(form: &str) -> Value {
    let slice =
        json!({ "unit": "web-front.slice", "cpus": "0-3", "memoryNodes": "0", "services": 1, "servicesReady": 1 });
    json!({ "kind": "HostState", "metadata": { "name": "host-7", "generation": 3 },
        "spec": { "topologies": [{ "name": "web", "state": "Present", "revision": "4f1c09ab52de", "generation": 1,
            "slices": [{ "unit": "web-front.slice", "cpus": "0-3", "memoryNodes": "0" }] }] },
        "status": { "observedGeneration": 3, "agent": { "version": "0.1.0", "form": form }, "conditions": ready("all is well"),
            "topologies": [{ "name": "web", "slices": [slice], "conditions": ready("all is well") }] } })
}

fn topology() -> Value {
    json!({ "kind": "SliceTopology", "metadata": { "name": "web", "generation": 3 },
        "spec": { "hostSelector": { "matchLabels": { "role": "web" } }, "slices": [{ "name": "front", "cpu": { "cores": 4 } }] },
        "status": { "observedGeneration": 3, "conditions": ready("all is well"), "hosts": { "selected": 1, "ready": 1,
            "updated": 1, "degraded": 0, "stalled": 0, "offline": 0 } } })
}

fn pods() -> Value {
    json!({ "items": [{ "metadata": { "name": "lamina-agent-x" }, "status": { "phase": "Running" }, "spec": { "nodeName": "host-7",
        "containers": [{ "ports": [{ "name": "metrics", "containerPort": 9641 }] }] } }] })
}

const BOTH: &str = "slicetopologies.lamina.dev_hoststates.lamina.dev";

#[test]
fn status_is_one_list_and_says_that_all_is_well() {
    let cluster = Cluster::new(&[(BOTH, json!({ "items": [topology(), host("Pod")] }))]);
    let told = cluster.run(&["status", "--context", "east"]);
    assert_eq!((told.code, told.errors.as_str()), (0, ""));
    assert!(
        told.output.starts_with("TOPOLOGY  STANDING  SINCE") && told.output.ends_with("everything is as asked\n"),
        "{}",
        told.output
    );
    assert!(cluster.calls().lines().all(|call| call.starts_with("--context=east get ")), "{}", cluster.calls());
    let json = cluster.run(&["status", "host/host-7", "-o", "json"]);
    let json: Value = serde_json::from_str(&json.output).expect("JSON");
    assert_eq!((json["kind"].as_str(), json["hosts"][0]["standing"].as_str()), (Some("FleetStatus"), Some("Ready")));
    let unknown = cluster.run(&["status", "nobody"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.errors.contains("nobody is no topology, host, slice or service"), "{}", unknown.errors);
}

#[test]
fn a_cluster_that_refuses_is_told_in_its_own_words() {
    let told = Cluster::new(&[]).run(&["status"]);
    assert_eq!((told.code, told.output.as_str()), (1, ""));
    assert!(told.errors.contains("Error from server (Forbidden)"), "{}", told.errors);
}

#[test]
fn verify_asks_the_agent_through_the_api_server() {
    let places = |list: &str| json!({ "asked": list, "property": list, "kernel": list });
    let unit = json!({ "unit": "web-front.slice", "cpus": places("0-3"), "memoryNodes": places("0"), "settings": [], "pages": { "0": 4096, "1": 0 } });
    let service = json!({ "unit": "web-app.service", "slice": "web-front.slice", "activeState": "active", "subState": "running",
        "threads": 2, "strayed": 0, "settings": [], "pages": {},
        "groups": [{ "cpus": "0-3", "memoryNodes": "0", "count": 2, "threads": [7, 8] }] });
    let measured = json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "HostVerification", "host": "host-7",
        "measuredAt": "2026-11-26T10:00:00Z", "topologies": [{ "name": "web", "state": "Present", "revision": "4f1c09ab52de",
            "slices": [unit], "services": [service] }] });
    let cluster = Cluster::new(&[
        ("hoststates.lamina.dev", host("Pod")),
        ("slicetopologies.lamina.dev", json!({ "items": [topology()] })),
        ("pods", pods()),
        ("_api_v1_namespaces_lamina-system_pods_lamina-agent-x_9641_proxy_verify", measured),
    ]);
    let told = cluster.run(&["verify", "host-7"]);
    let expected = "\
SLICE  ASKED    PROPERTY  KERNEL  THREADS  PAGES
front  4 cores  0-3       0-3     2 in     100 % node 0

host-7: everything is as asked, measured now
";
    assert_eq!((told.code, told.output.as_str(), told.errors.as_str()), (0, expected, ""));
}

#[test]
fn an_agent_that_cannot_be_asked_has_said_something_last() {
    let answers = |form| {
        [("hoststates.lamina.dev", host(form)), ("slicetopologies.lamina.dev", json!({ "items": [topology()] }))]
    };
    let told = Cluster::new(&answers("Host")).run(&["verify", "host-7"]);
    assert_eq!(told.code, 0);
    assert!(told.output.contains("not measured now: its agent is a service of the host"), "{}", told.output);
    assert!(told.output.ends_with("host-7: everything is as asked, as its agent said last\n"), "{}", told.output);
    let refused = Cluster::new(&answers("Pod")).run(&["verify", "host-7", "-o", "json"]);
    let json: Value = serde_json::from_str(&refused.output).expect("JSON");
    assert_eq!((json["source"].as_str(), json["verdict"].as_str()), (Some("HostState"), Some("AsAsked")));
    assert!(json["notMeasured"].as_str().is_some_and(|why| why.contains("Forbidden")), "{json}");
    let top = Cluster::new(&answers("Host")).run(&["top", "host-7"]);
    assert_eq!(top.code, 1);
    assert!(top.errors.contains("run `kubectl-lamina top` on the host itself"), "{}", top.errors);
}
