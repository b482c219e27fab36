//! Who may write what, on a real API server with the chart's roles and policy: agents, operator, people, thieves.

#![expect(clippy::disallowed_methods, reason = "it waits with a limit")]

use std::collections::BTreeMap;

use kube::Client;
use lamina_e2e::control_plane::ControlPlane;
use lamina_e2e::control_plane::kubeconfig::Credential;
use lamina_e2e::identity::Identities;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

mod api;

use api::{Answer, HOST_STATES, TOPOLOGIES, ask, ask_as, create, merge};

const NAMESPACE: &str = "lamina-system";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/lamina-system/leases";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina");

const AGENT: (&str, &str) = ("impersonate-user", "system:serviceaccount:lamina-system:lamina-agent");
const OPERATOR: (&str, &str) = ("impersonate-user", "system:serviceaccount:lamina-system:lamina-operator");
const MASTERS: (&str, &str) = ("impersonate-group", "system:masters");
const ON_A: (&str, &str) = ("impersonate-extra-authentication.kubernetes.io%2fnode-name", "host-a");
const ON_B: (&str, &str) = ("impersonate-extra-authentication.kubernetes.io%2fnode-name", "host-b");

/// A cluster with the chart and two hosts, and everybody's own client.
struct Cluster {
    plane: &'static ControlPlane,
    identities: Identities,
    admin: Client,
    operator: Client,
    agent_a: Client,
}

async fn cluster() -> Cluster {
    static TOKENS: OnceCell<(String, String)> = OnceCell::const_new();
    let plane = api::shared("api-policies").await;
    let identities = Identities::new(&plane.kubeconfig_admin(), NAMESPACE, "lamina");
    let (operator, agent) = TOKENS.get_or_init(|| install(plane, &identities)).await;
    Cluster {
        plane,
        admin: plane.client().await.expect("a client"),
        operator: client_of(plane, operator).await,
        agent_a: client_of(plane, agent).await,
        identities,
    }
}

async fn client_of(plane: &ControlPlane, token: &str) -> Client {
    let kubeconfig = plane.kubeconfig(Credential::Token(token.to_owned())).expect("a kubeconfig");
    kubeconfig.client().await.expect("a client")
}

/// Installs the chart, registers two hosts, waits for their pods, and until the policy is in force.
async fn install(plane: &'static ControlPlane, identities: &Identities) -> (String, String) {
    let arguments = ["install", "lamina", CHART, "--namespace", NAMESPACE, "--create-namespace"];
    plane.helm(&arguments).await.expect("helm").success().expect("the chart installs");
    for host in ["host-a", "host-b"] {
        identities.register(host, &BTreeMap::new()).await.expect("a node");
    }
    let operator = identities.operator_token().await.expect("the operator's pod is bound");
    let agent = identities.agent_token("host-a").await.expect("the agent's pod is bound");
    let as_operator = client_of(plane, &operator).await;
    while ask(&as_operator, "GET", HOST_STATES, "application/json", "").await.expect("an answer").status == 404 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for host in ["host-a", "host-b", "outsider"] {
        let made = create(&as_operator, HOST_STATES, &host_state(host), false).await.expect("an answer");
        assert!(made.is_success(), "{}", made.message());
    }
    let thief = client_of(plane, &agent).await;
    let stolen = format!("{HOST_STATES}/host-b/status?dryRun=All");
    while merge(&thief, &stolen, &status(1)).await.expect("an answer").is_success() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    (operator, agent)
}

fn host_state(host: &str) -> Value {
    json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState", "metadata": { "name": host }, "spec": {} })
}

fn status(generation: i64) -> Value {
    json!({ "status": { "observedGeneration": generation } })
}

fn lease(host: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": host, "namespace": NAMESPACE },
        "spec": { "holderIdentity": host, "leaseDurationSeconds": 40 },
    })
}

fn event(name: &str, kind: &str, about: &str) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": "default" },
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "lamina-node-agent",
        "reportingInstance": "host-a",
        "action": "Heal",
        "reason": "Healed",
        "type": "Normal",
        "note": "a test",
        "regarding": { "apiVersion": "lamina.dev/v1alpha1", "kind": kind, "name": about },
    })
}

#[track_caller]
fn assert_refused(answer: &Answer, words: &[&str]) {
    let told = answer.message();
    assert!(!answer.is_success(), "it was let through: {:?}", answer.body);
    assert!(words.iter().all(|word| told.contains(word)), "should say {words:?}, says {told}");
}

#[track_caller]
fn assert_allowed(answer: &Answer) {
    assert!(answer.is_success(), "{}", answer.message());
}

#[tokio::test]
async fn an_agent_writes_the_status_of_its_own_host_only() {
    let Cluster { agent_a, .. } = cluster().await;
    assert_allowed(&merge(&agent_a, &format!("{HOST_STATES}/host-a/status"), &status(1)).await.expect("an answer"));
    let stolen = merge(&agent_a, &format!("{HOST_STATES}/host-b/status"), &status(1)).await.expect("an answer");
    assert_refused(
        &stolen,
        &["status of HostState host-b belongs to the agent of that host", "your token is bound to host host-a"],
    );
}

#[tokio::test]
async fn an_agent_applies_status_with_its_own_field_manager() {
    let Cluster { agent_a, .. } = cluster().await;
    let mut object = host_state("host-a");
    object.as_object_mut().expect("an object").remove("spec");
    object["status"] = json!({ "observedGeneration": 2 });
    let path = |host: &str| format!("{HOST_STATES}/{host}/status?fieldManager=lamina-agent&force=true");
    let apply = async |host: &str, object: &Value| {
        let text = object.to_string();
        ask(&agent_a, "PATCH", &path(host), "application/apply-patch+yaml", &text).await.expect("an answer")
    };
    assert_allowed(&apply("host-a", &object).await);
    object["metadata"]["name"] = json!("host-b");
    assert_refused(&apply("host-b", &object).await, &["belongs to the agent of that host"]);
}

#[tokio::test]
async fn an_agent_never_writes_spec_nor_makes_nor_deletes_hosts() {
    let Cluster { agent_a, .. } = cluster().await;
    let own = format!("{HOST_STATES}/host-a");
    assert_eq!(merge(&agent_a, &own, &json!({ "spec": { "topologies": [] } })).await.expect("an answer").status, 403);
    assert_eq!(create(&agent_a, HOST_STATES, &host_state("host-c"), false).await.expect("an answer").status, 403);
    let deleted = ask(&agent_a, "DELETE", &own, "application/json", "").await.expect("an answer");
    assert_eq!(deleted.status, 403);
}

#[tokio::test]
async fn an_agent_keeps_its_own_lease_only() {
    let Cluster { agent_a, .. } = cluster().await;
    let apply = async |host: &str| {
        let path = format!("{LEASES}/{host}?fieldManager=lamina-agent&force=true");
        let text = lease(host).to_string();
        ask(&agent_a, "PATCH", &path, "application/apply-patch+yaml", &text).await.expect("an answer")
    };
    assert_allowed(&apply("host-a").await);
    assert_allowed(&apply("host-a").await);
    assert_refused(&apply("host-b").await, &["Lease host-b belongs to the agent of that host", "bound to host host-a"]);
    let created = create(&agent_a, LEASES, &lease("host-b"), false).await.expect("an answer");
    assert_refused(&created, &["Lease host-b belongs to the agent of that host"]);
}

#[tokio::test]
async fn an_agent_never_deletes_a_lease_even_with_stolen_rights() {
    let Cluster { admin, .. } = cluster().await;
    let caller = [AGENT, MASTERS, ON_A];
    let mut own = lease("host-a");
    own["metadata"]["namespace"] = json!("default");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    assert_allowed(&ask_as(&admin, &caller, "POST", leases, &own).await.expect("an answer"));
    let path = format!("{leases}/host-a");
    let deleted = ask_as(&admin, &caller, "DELETE", &path, &Value::Null).await.expect("an answer");
    assert_refused(&deleted, &["Lease host-a belongs to the agent of that host"]);
}

#[tokio::test]
async fn an_agent_records_events_about_its_own_host_only() {
    let Cluster { agent_a, admin, .. } = cluster().await;
    let record = async |event: &Value| create(&agent_a, EVENTS, event, false).await.expect("an answer");
    assert_allowed(&record(&event("own", "HostState", "host-a")).await);
    let about_own_only = "an agent records events about its own HostState only";
    let foreign = record(&event("foreign", "HostState", "host-b")).await;
    assert_refused(&foreign, &[about_own_only, "this one is about \"host-b\"", "bound to host host-a"]);
    assert_refused(&record(&event("topology", "SliceTopology", "host-a")).await, &[about_own_only]);
    let series = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z" } });
    assert_allowed(&merge(&agent_a, &format!("{EVENTS}/own"), &series).await.expect("an answer"));
    let core = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": "core", "namespace": "default" },
        "involvedObject": { "kind": "HostState", "name": "host-b" },
        "reason": "Healed",
        "message": "a test",
    });
    let path = "/api/v1/namespaces/default/events";
    let old_door = ask_as(&admin, &[AGENT, MASTERS, ON_A], "POST", path, &core).await.expect("an answer");
    assert_refused(&old_door, &[about_own_only]);
}

#[tokio::test]
async fn a_token_without_exactly_one_node_claim_writes_nothing() {
    let Cluster { admin, .. } = cluster().await;
    let path = format!("{HOST_STATES}/host-a/status");
    let attempt =
        async |caller: &[(&str, &str)]| ask_as(&admin, caller, "PATCH", &path, &status(9)).await.expect("an answer");
    assert_allowed(&attempt(&[AGENT, ON_A]).await);
    assert_refused(&attempt(&[AGENT]).await, &["is not bound to a host", "pod-bound token", "1.30"]);
    assert_refused(&attempt(&[AGENT, ON_A, ON_B]).await, &["carries 2 node claims, exactly one is expected"]);
    assert_refused(&attempt(&[AGENT, ON_B]).await, &["belongs to the agent of that host", "bound to host host-b"]);
}

#[tokio::test]
async fn the_operator_writes_spec_and_never_status_of_hosts() {
    let Cluster { operator, admin, .. } = cluster().await;
    let object = json!({
        "apiVersion": "lamina.dev/v1alpha1",
        "kind": "HostState",
        "metadata": { "name": "host-a", "labels": { "lamina.dev/origin": "Node" } },
        "spec": { "topologies": [] },
    });
    let path = format!("{HOST_STATES}/host-a?fieldManager=lamina-operator&force=true");
    let applied = ask(&operator, "PATCH", &path, "application/apply-patch+yaml", &object.to_string()).await;
    assert_allowed(&applied.expect("an answer"));
    let path = format!("{HOST_STATES}/host-a/status");
    let by_role = merge(&operator, &path, &status(3)).await.expect("an answer");
    assert_refused(&by_role, &["cannot patch resource \"hoststates/status\""]);
    let by_policy = ask_as(&admin, &[OPERATOR, MASTERS], "PATCH", &path, &status(3)).await.expect("an answer");
    assert_refused(&by_policy, &["status of HostState host-a belongs to the agent of that host"]);
    let all = ask(&operator, "DELETE", HOST_STATES, "application/json", "").await.expect("an answer");
    assert_refused(&all, &["cannot deletecollection"]);
}

#[tokio::test]
async fn the_operator_marks_topologies_and_reports_on_them() {
    let Cluster { operator, admin, .. } = cluster().await;
    let topology = json!({
        "apiVersion": "lamina.dev/v1alpha1",
        "kind": "SliceTopology",
        "metadata": { "name": "marked" },
        "spec": { "hostSelector": { "matchLabels": { "a": "b" } }, "slices": [{ "name": "a", "cpu": { "cores": 1 } }] },
    });
    assert_allowed(&create(&admin, TOPOLOGIES, &topology, false).await.expect("an answer"));
    let path = format!("{TOPOLOGIES}/marked");
    let mark = json!({ "metadata": { "finalizers": ["lamina.dev/remove"] } });
    assert_allowed(&merge(&operator, &path, &mark).await.expect("an answer"));
    assert_allowed(&merge(&operator, &format!("{path}/status"), &status(1)).await.expect("an answer"));
    let unmark = json!({ "metadata": { "finalizers": null } });
    assert_allowed(&merge(&operator, &path, &unmark).await.expect("an answer"));
    assert_eq!(create(&operator, TOPOLOGIES, &topology, true).await.expect("an answer").status, 403);
}

#[tokio::test]
async fn people_edit_topologies_and_hosts_only_with_the_verb_override() {
    let Cluster { plane, admin, .. } = cluster().await;
    let roles = r"
{ apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: { name: edits-hosts },
  rules: [{ apiGroups: [lamina.dev], resources: [hoststates], verbs: ['get', patch, create, delete] }] }
---
{ apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: { name: overrides },
  rules: [{ apiGroups: [lamina.dev], resources: [hoststates], verbs: [override] }] }
---
{ apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: { name: edits-hosts },
  roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edits-hosts },
  subjects: [{ kind: User, name: alice }, { kind: User, name: root-of-hosts }] }
---
{ apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: { name: overrides },
  roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: overrides },
  subjects: [{ kind: User, name: root-of-hosts }] }
";
    plane.kubectl_with(&["apply", "-f", "-"], roles).await.expect("kubectl").success().expect("roles");
    let alice = [("impersonate-user", "alice")];
    let host_admin = [("impersonate-user", "root-of-hosts")];
    let words = ["HostState host-b is written by the operator only", "edit the SliceTopology instead", "verb override"];
    let path = format!("{HOST_STATES}/host-b");
    let patch = json!({ "metadata": { "labels": { "a": "b" } } });
    while ask_as(&admin, &host_admin, "PATCH", &path, &patch).await.expect("an answer").status == 403 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_refused(&ask_as(&admin, &alice, "PATCH", &path, &patch).await.expect("an answer"), &words);
    assert_refused(&ask_as(&admin, &alice, "DELETE", &path, &Value::Null).await.expect("an answer"), &words);
    let newcomer = host_state("host-z");
    let made = ask_as(&admin, &alice, "POST", HOST_STATES, &newcomer).await.expect("an answer");
    assert_refused(&made, &["HostState host-z is written by the operator only"]);
    let status_door = ask_as(&admin, &[host_admin[0], MASTERS], "PATCH", &format!("{path}/status"), &status(1)).await;
    assert_refused(&status_door.expect("an answer"), &["status of HostState host-b belongs to the agent"]);
}

#[tokio::test]
async fn a_host_that_is_no_node_writes_by_the_name_of_its_account() {
    let Cluster { plane, .. } = cluster().await;
    let kubectl =
        async |arguments: &[&str]| plane.kubectl(arguments).await.expect("kubectl").success().expect("kubectl");
    kubectl(&["create", "namespace", "lamina-hosts"]).await;
    kubectl(&["create", "serviceaccount", "outsider", "-n", "lamina-hosts"]).await;
    let token = kubectl(&["create", "token", "outsider", "-n", "lamina-hosts"]).await;
    let outsider = client_of(plane, token.trim()).await;
    let write = async |host: &str| {
        merge(&outsider, &format!("{HOST_STATES}/{host}/status"), &status(1)).await.expect("an answer")
    };
    assert_allowed(&write("outsider").await);
    assert_refused(&write("host-a").await, &["HostState host-a belongs", "your token is bound to host outsider"]);
    assert_allowed(&create(&outsider, LEASES, &lease("outsider"), false).await.expect("an answer"));
}

#[tokio::test]
async fn roles_give_what_is_needed_and_nothing_more() {
    let Cluster { plane, .. } = cluster().await;
    let accounts =
        ["system:serviceaccount:lamina-system:lamina-agent", "system:serviceaccount:lamina-system:lamina-operator"];
    let refused = [
        ("get", "secrets"),
        ("list", "pods"),
        ("create", "pods"),
        ("update", "nodes"),
        ("patch", "nodes"),
        ("deletecollection", "hoststates.lamina.dev"),
        ("update", "hoststates.lamina.dev"),
        ("create", "slicetopologies.lamina.dev"),
        ("delete", "slicetopologies.lamina.dev"),
        ("delete", "customresourcedefinitions.apiextensions.k8s.io"),
        ("list", "customresourcedefinitions.apiextensions.k8s.io"),
        ("override", "hoststates.lamina.dev"),
        ("impersonate", "users"),
        ("escalate", "clusterroles.rbac.authorization.k8s.io"),
    ];
    for account in accounts {
        for (verb, resource) in refused {
            let arguments = ["auth", "can-i", verb, resource, "-A", "--as", account];
            let said = plane.kubectl(&arguments).await.expect("kubectl");
            assert_eq!(said.stdout.trim(), "no", "{account} can {verb} {resource}");
        }
    }
}

#[tokio::test]
async fn a_removed_host_leaves_its_agent_without_a_voice() {
    let Cluster { plane, identities, .. } = cluster().await;
    identities.register("passing", &BTreeMap::from([("a".to_owned(), "b".to_owned())])).await.expect("a node");
    let token = identities.agent_token("passing").await.expect("a pod is bound");
    identities.settle_pods().await.expect("pods run");
    let said = plane.kubectl(&["get", "pods", "-n", NAMESPACE, "--field-selector=spec.nodeName=passing"]).await;
    assert!(said.expect("kubectl").stdout.contains("Running"));
    let agent = client_of(plane, &token).await;
    assert!(ask(&agent, "GET", HOST_STATES, "application/json", "").await.expect("an answer").is_success());
    identities.remove("passing").await.expect("the host goes");
    let begin = std::time::Instant::now();
    while ask(&agent, "GET", HOST_STATES, "application/json", "").await.expect("an answer").status != 401 {
        assert!(begin.elapsed().as_secs() < 60, "a token outlives its pod");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
