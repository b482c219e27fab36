//! Which requests operator and agents may make: every verb on everything that the server serves, asked one by one of the
//! roles, and every write that the roles let through, sent one by one against the policy, with stolen tokens too.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use kube::Client;
use lamina_e2e::control_plane::ControlPlane;
use lamina_e2e::control_plane::kubeconfig::Credential;
use lamina_e2e::identity::Identities;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

mod api;

use api::{Answer, HOST_STATES, TOPOLOGIES, ask, create};

const RELEASE: &str = "lamina-system";
const HOSTS: &str = "lamina-hosts";
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina");

/// What each account may ask for: verbs, resource, where (`*`: in the cluster), and the one name if it is about one.
const OPERATOR: &[(&str, &str, &str, &str)] = &[
    ("get list watch patch", "lamina.dev/slicetopologies", "*", ""),
    ("patch", "lamina.dev/slicetopologies/status", "*", ""),
    ("get list watch create patch delete", "lamina.dev/hoststates", "*", ""),
    ("get list watch", "/nodes", "*", ""),
    ("get", "apiextensions.k8s.io/customresourcedefinitions", "*", "slicetopologies.lamina.dev"),
    ("get", "apiextensions.k8s.io/customresourcedefinitions", "*", "hoststates.lamina.dev"),
    ("get list watch", "coordination.k8s.io/leases", RELEASE, ""),
    ("create update", "coordination.k8s.io/leases", RELEASE, "lamina-operator"),
    ("create patch", "events.k8s.io/events", "default", ""),
];
const AGENT: &[(&str, &str, &str, &str)] = &[
    ("get list watch", "lamina.dev/hoststates", "*", ""),
    ("patch", "lamina.dev/hoststates/status", "*", ""),
    ("get create patch update", "coordination.k8s.io/leases", RELEASE, ""),
    ("create patch", "events.k8s.io/events", "default", ""),
];
/// What Kubernetes lets every account do: ask about itself, and whom to trust.
const EVERYBODY: &[(&str, &str, &str, &str)] = &[
    ("create", "authorization.k8s.io/selfsubjectaccessreviews", "*", ""),
    ("create", "authorization.k8s.io/selfsubjectrulesreviews", "*", ""),
    ("create", "authentication.k8s.io/selfsubjectreviews", "*", ""),
    ("get list watch", "certificates.k8s.io/clustertrustbundles", "*", ""),
];

const VERBS: [&str; 14] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "override",
    "impersonate",
    "bind",
    "escalate",
    "approve",
    "use",
];
/// Rights on these are asked for though nobody serves them.
const UNSERVED: [&str; 4] = ["/users", "/groups", "authentication.k8s.io/userextras", "/serviceaccounts/token"];
/// Names for which a right may exist though it does not for every name.
const NAMES: [&str; 5] =
    ["host-a", "lamina-operator", "lamina-agent", "slicetopologies.lamina.dev", "hoststates.lamina.dev"];

/// A cluster with the chart and two hosts, and everybody's token.
struct Cluster {
    plane: &'static ControlPlane,
    admin: Client,
    tokens: &'static BTreeMap<&'static str, String>,
}

async fn cluster() -> Cluster {
    static TOKENS: OnceCell<BTreeMap<&'static str, String>> = OnceCell::const_new();
    let plane = api::shared("api-rights").await;
    let tokens = TOKENS.get_or_init(|| install(plane)).await;
    Cluster { plane, admin: plane.client().await.expect("a client"), tokens }
}

impl Cluster {
    async fn client(&self, who: &str) -> Client {
        let kubeconfig = self.plane.kubeconfig(Credential::Token(self.tokens[who].clone())).expect("a kubeconfig");
        kubeconfig.client().await.expect("a client")
    }
}

async fn install(plane: &'static ControlPlane) -> BTreeMap<&'static str, String> {
    let identities = Identities::new(&plane.kubeconfig_admin(), RELEASE, "lamina");
    let helm = ["install", "lamina", CHART, "--namespace", RELEASE, "--create-namespace"];
    plane.helm(&helm).await.expect("helm").success().expect("the chart installs");
    for host in ["host-a", "host-b"] {
        identities.register(host, &BTreeMap::new()).await.expect("a node");
    }
    let kubectl =
        async |arguments: &[&str]| plane.kubectl(arguments).await.expect("kubectl").success().expect("kubectl");
    kubectl(&["create", "namespace", HOSTS]).await;
    kubectl(&["create", "serviceaccount", "guest", "-n", HOSTS]).await;
    let token = async |account: &str, namespace: &str| {
        kubectl(&["create", "token", account, "-n", namespace]).await.trim().to_owned()
    };
    let tokens = BTreeMap::from([
        ("operator", identities.operator_token().await.expect("the operator's pod is bound")),
        ("agent of host-a", identities.agent_token("host-a").await.expect("the agent's pod is bound")),
        ("agent of nowhere", token("lamina-agent", RELEASE).await),
        ("agent of guest", token("guest", HOSTS).await),
    ]);
    let admin = plane.client().await.expect("a client");
    while ask(&admin, "GET", HOST_STATES, "application/json", "").await.expect("an answer").status == 404 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for host in ["host-a", "host-b", "guest"] {
        let made = create(&admin, HOST_STATES, &host_state(host), false).await.expect("an answer");
        assert!(made.is_success(), "{}", made.message());
        create(&admin, &leases(), &lease(host, RELEASE), false).await.expect("an answer");
        create(&admin, EVENTS, &event(&format!("old-{host}"), host), false).await.expect("an answer");
    }
    let made = create(&admin, TOPOLOGIES, &topology(), false).await.expect("an answer");
    assert!(made.is_success(), "{}", made.message());
    tokens
}

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn leases() -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{RELEASE}/leases")
}

fn host_state(host: &str) -> Value {
    json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState", "metadata": { "name": host }, "spec": {} })
}

fn topology() -> Value {
    json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "SliceTopology", "metadata": { "name": "known" },
        "spec": { "hostSelector": { "matchLabels": { "a": "b" } }, "slices": [{ "name": "a", "cpu": { "cores": 1 } }] } })
}

fn lease(name: &str, namespace: &str) -> Value {
    json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name, "namespace": namespace },
        "spec": { "holderIdentity": name, "leaseDurationSeconds": 40 } })
}

fn event(name: &str, about: &str) -> Value {
    json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": name, "namespace": "default" },
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "lamina", "reportingInstance": "x",
        "action": "Heal", "reason": "Healed", "type": "Normal", "note": "a test",
        "regarding": { "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState", "name": about } })
}

/// Everything that the server serves: `group/resource`, with subresources, and whether it is in namespaces.
async fn served(admin: &Client) -> Vec<(String, bool)> {
    let get = async |path: &str| ask(admin, "GET", path, "application/json", "").await.expect("an answer").body;
    let groups = get("/apis").await;
    let groups = groups["groups"].as_array().into_iter().flatten();
    let versions =
        groups.map(|group| group["preferredVersion"]["groupVersion"].as_str().expect("a version").to_owned());
    let mut all = Vec::new();
    for (group, path) in versions
        .map(|version| (version.split_once('/').map(|(group, _)| group.to_owned()), format!("/apis/{version}")))
        .chain([(Some(String::new()), "/api/v1".to_owned())])
    {
        for resource in get(&path).await["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().expect("a name");
            let group = group.clone().unwrap_or_default();
            all.push((format!("{group}/{name}"), resource["namespaced"] == true));
        }
    }
    all.extend(UNSERVED.map(|name| (name.to_owned(), false)));
    all
}

/// One question to the roles.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    verb: String,
    resource: String,
    place: String,
    name: String,
}

fn questions(served: &[(String, bool)]) -> Vec<Question> {
    let mut all = Vec::new();
    for (resource, is_namespaced) in served {
        let places: &[&str] = if *is_namespaced { &["*", RELEASE, HOSTS, "default", "kube-system"] } else { &["*"] };
        let by_name = ["leases", "hoststates", "customresourcedefinitions", "secrets", "serviceaccounts"];
        let may_differ = by_name.iter().any(|part| resource.ends_with(part));
        let names = [""].into_iter().chain(NAMES.into_iter().filter(|_| may_differ));
        for (name, place) in names.flat_map(|name| places.iter().map(move |place| (name, place))) {
            let question = |verb: &str| Question {
                verb: verb.to_owned(),
                resource: resource.clone(),
                place: (*place).to_owned(),
                name: name.to_owned(),
            };
            all.extend(VERBS.map(question));
        }
    }
    all
}

/// Whether the roles let an account do it.
async fn allows(admin: &Client, account: &str, question: &Question) -> bool {
    let Question { verb, resource, place, name } = question;
    let (group, resource) = resource.split_once('/').expect("a group");
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (namespace, _) = account.split_once(':').expect("a namespace");
    let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": format!("system:serviceaccount:{account}"),
        "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
        "resourceAttributes": { "verb": verb, "group": group, "version": "*", "resource": resource,
            "subresource": subresource, "name": name, "namespace": if place == "*" { "" } else { place } },
    } });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = ask(admin, "POST", path, "application/json", &review.to_string()).await.expect("an answer");
    answer.body["status"]["allowed"] == true
}

/// What the table says about a question: a right in the cluster holds everywhere, one on all names holds for each.
fn is_expected(table: &[(&str, &str, &str, &str)], question: &Question) -> bool {
    table.iter().chain(EVERYBODY).any(|(verbs, resource, place, name)| {
        verbs.split(' ').any(|verb| verb == question.verb)
            && *resource == question.resource
            && (*place == "*" || *place == question.place)
            && (name.is_empty() || *name == question.name)
    })
}

#[tokio::test]
async fn roles_give_what_the_table_says_and_nothing_else_of_all_there_is() {
    let Cluster { admin, .. } = &cluster().await;
    let served = served(admin).await;
    for known in ["/secrets", "/pods/exec", "/nodes/proxy", "lamina.dev/hoststates/status", "apps/deployments/scale"] {
        assert!(served.iter().any(|(name, _)| name == known), "{known} is not served");
    }
    let questions = questions(&served);
    assert!(questions.len() > 4000, "{}", questions.len());
    for (account, table) in [
        ("lamina-system:lamina-operator", OPERATOR),
        ("lamina-system:lamina-agent", AGENT),
        ("lamina-hosts:guest", AGENT),
    ] {
        let answers = stream::iter(&questions).map(async |question| (question, allows(admin, account, question).await));
        let wrong: BTreeSet<String> = answers
            .buffer_unordered(16)
            .filter_map(async |(question, allowed)| {
                (allowed != is_expected(table, question)).then(|| format!("{allowed}: {question:?}"))
            })
            .collect()
            .await;
        assert!(wrong.is_empty(), "{account}: {wrong:#?}");
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// It is done.
    Done,
    /// The roles refuse it.
    ByRole,
    /// The policy refuses it, in these words.
    ByPolicy(&'static str),
}

use Outcome::{ByPolicy, ByRole, Done};

/// A write as it is sent: method, path, body. A patch is a merge patch, `APPLY` a server-side apply.
type Write = (&'static str, String, Value);

fn status_of(host: &str) -> Write {
    ("PATCH", format!("{HOST_STATES}/{host}/status"), json!({ "status": { "observedGeneration": 1 } }))
}

fn status_applied_of(host: &str) -> Write {
    let mut object = host_state(host);
    object["status"] = json!({ "observedGeneration": 2 });
    object.as_object_mut().expect("an object").remove("spec");
    ("APPLY", format!("{HOST_STATES}/{host}/status"), object)
}

fn spec_of(host: &str) -> Write {
    ("PATCH", format!("{HOST_STATES}/{host}"), json!({ "spec": { "term": 1, "topologies": [] } }))
}

fn labels_of(host: &str) -> Write {
    ("PATCH", format!("{HOST_STATES}/{host}"), json!({ "metadata": { "labels": { "a": "b" } } }))
}

fn new_host(host: &str) -> Write {
    ("POST", HOST_STATES.to_owned(), host_state(host))
}

fn lease_of(name: &str) -> Write {
    ("APPLY", format!("{}/{name}", leases()), lease(name, RELEASE))
}

fn new_lease(name: &str) -> Write {
    ("POST", leases(), lease(name, RELEASE))
}

fn put_lease(name: &str) -> Write {
    ("PUT", format!("{}/{name}", leases()), lease(name, RELEASE))
}

fn event_about(name: &str, host: &str) -> Write {
    ("POST", EVENTS.to_owned(), event(name, host))
}

fn series_of(name: &str) -> Write {
    let series = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z" } });
    ("PATCH", format!("{EVENTS}/{name}"), series)
}

fn delete(path: String) -> Write {
    ("DELETE", path, Value::Null)
}

async fn send(client: &Client, (method, path, body): &Write) -> Answer {
    let (method, path, content) = match *method {
        "PATCH" => ("PATCH", path.clone(), "application/merge-patch+json"),
        "APPLY" => ("PATCH", format!("{path}?fieldManager=a-test&force=true"), "application/apply-patch+yaml"),
        other => (other, path.clone(), "application/json"),
    };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    ask(client, method, &path, content, &body).await.expect("an answer")
}

async fn assert_outcome(client: &Client, who: &str, write: &Write, expected: Outcome) {
    let answer = send(client, write).await;
    let told = answer.message();
    let is_so = match expected {
        Done => answer.is_success(),
        ByRole => answer.status == 403 && told.contains(" cannot "),
        ByPolicy(words) => !answer.is_success() && told.contains("lamina-writers") && told.contains(words),
    };
    assert!(is_so, "{who}: {} {} should be {expected:?}: {} {told}", write.0, write.1, answer.status);
}

#[tokio::test]
async fn an_agent_writes_three_things_about_its_own_host_whatever_its_token_is_used_for() {
    let cluster = cluster().await;
    for (who, own, other) in [("agent of host-a", "host-a", "host-b"), ("agent of guest", "guest", "host-a")] {
        let client = cluster.client(who).await;
        let only = "about its own HostState only";
        let state = |host: &str| format!("{HOST_STATES}/{host}");
        let rows = [
            (status_of(own), Done),
            (status_applied_of(own), Done),
            (status_of(other), ByPolicy("belongs to the agent of that host")),
            (status_applied_of(other), ByPolicy("belongs to the agent of that host")),
            (("PUT", format!("{}/status", state(own)), host_state(own)), ByRole),
            (spec_of(own), ByRole),
            (spec_of(other), ByRole),
            (labels_of(own), ByRole),
            (new_host("newcomer"), ByRole),
            (delete(state(own)), ByRole),
            (delete(HOST_STATES.to_owned()), ByRole),
            (lease_of(own), Done),
            (lease_of(other), ByPolicy("belongs to the agent of that host")),
            (new_lease("host-c"), ByPolicy("belongs to the agent of that host")),
            (lease_of("lamina-operator"), ByPolicy("belongs to the operators")),
            (new_lease("lamina-operator"), ByPolicy("belongs to the operators")),
            (put_lease("lamina-operator"), ByPolicy("belongs to the operators")),
            (delete(format!("{}/{own}", leases())), ByRole),
            (event_about(&format!("by-{own}"), own), Done),
            (series_of(&format!("by-{own}")), Done),
            (event_about("stolen", other), ByPolicy(only)),
            (series_of(&format!("old-{other}")), ByPolicy(only)),
            (("PATCH", format!("{TOPOLOGIES}/known"), json!({ "spec": {} })), ByRole),
            (("PATCH", format!("{TOPOLOGIES}/known/status"), json!({ "status": {} })), ByRole),
            (delete(format!("{TOPOLOGIES}/known")), ByRole),
        ];
        for (write, expected) in &rows {
            assert_outcome(&client, who, write, *expected).await;
        }
    }
}

#[tokio::test]
async fn an_agent_reads_host_states_and_its_lease_and_nothing_else() {
    let cluster = cluster().await;
    let client = cluster.client("agent of host-a").await;
    let read = async |path: &str| ask(&client, "GET", path, "application/json", "").await.expect("an answer").status;
    assert_eq!(read(HOST_STATES).await, 200, "a documented limit: they hold no secret");
    assert_eq!(read(&format!("{}/host-a", leases())).await, 200);
    for path in [
        "/api/v1/secrets",
        "/api/v1/namespaces/lamina-system/secrets",
        "/api/v1/nodes",
        "/api/v1/nodes/host-a",
        "/api/v1/pods",
        "/api/v1/namespaces/lamina-system/pods",
        "/api/v1/namespaces/lamina-system/configmaps",
        "/api/v1/namespaces/lamina-system/serviceaccounts",
        "/api/v1/namespaces/default/events",
        "/apis/coordination.k8s.io/v1/namespaces/lamina-system/leases",
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/host-a",
        "/apis/lamina.dev/v1alpha1/slicetopologies",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    ] {
        assert_eq!(read(path).await, 403, "{path}");
    }
    let token = "/api/v1/namespaces/lamina-system/serviceaccounts/lamina-operator/token";
    let request =
        json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "audiences": [] } });
    for write in [
        ("POST", token.to_owned(), request),
        ("POST", "/api/v1/namespaces/lamina-system/pods/x/exec?command=sh".to_owned(), Value::Null),
        ("PATCH", "/api/v1/nodes/host-a".to_owned(), json!({ "metadata": { "labels": { "a": "b" } } })),
        ("PATCH", "/api/v1/nodes/host-a/status".to_owned(), json!({ "status": {} })),
        ("DELETE", "/api/v1/namespaces/lamina-system/pods".to_owned(), Value::Null),
    ] {
        assert_outcome(&client, "agent of host-a", &write, ByRole).await;
    }
}

#[tokio::test]
async fn a_token_that_names_no_host_writes_nothing() {
    let cluster = cluster().await;
    let client = cluster.client("agent of nowhere").await;
    let unbound = "is not bound to a host";
    for write in [
        status_of("host-a"),
        lease_of("host-a"),
        lease_of("lamina-agent"),
        new_lease("host-c"),
        event_about("unbound", "host-a"),
    ] {
        assert_outcome(&client, "agent of nowhere", &write, ByPolicy(unbound)).await;
    }
}

#[tokio::test]
async fn the_operator_writes_specs_and_its_own_lease_and_no_statuses_of_hosts() {
    let cluster = cluster().await;
    let client = cluster.client("operator").await;
    let known = format!("{TOPOLOGIES}/known");
    let rows = [
        (new_host("host-d"), Done),
        (spec_of("host-d"), Done),
        (labels_of("host-d"), Done),
        (delete(format!("{HOST_STATES}/host-d")), Done),
        (delete(HOST_STATES.to_owned()), ByRole),
        (status_of("host-a"), ByRole),
        (status_applied_of("host-a"), ByRole),
        (put_lease("lamina-operator"), Done),
        (put_lease("host-a"), ByRole),
        (new_lease("lamina-operator"), ByRole),
        (lease_of("lamina-operator"), ByRole),
        (lease_of("host-a"), ByRole),
        (delete(format!("{}/lamina-operator", leases())), ByRole),
        (delete(format!("{}/host-a", leases())), ByRole),
        (("PATCH", known.clone(), json!({ "metadata": { "finalizers": ["lamina.dev/remove"] } })), Done),
        (("PATCH", known.clone(), json!({ "metadata": { "finalizers": null } })), Done),
        (("PATCH", format!("{known}/status"), json!({ "status": { "observedGeneration": 1 } })), Done),
        (("PUT", known.clone(), topology()), ByRole),
        (("POST", TOPOLOGIES.to_owned(), topology()), ByRole),
        (delete(known), ByRole),
        (event_about("by-operator", "host-a"), Done),
        (("PATCH", "/api/v1/nodes/host-a".to_owned(), json!({ "metadata": { "labels": { "a": "b" } } })), ByRole),
        (delete("/api/v1/nodes/host-a".to_owned()), ByRole),
    ];
    for (write, expected) in &rows {
        assert_outcome(&client, "operator", write, *expected).await;
    }
    for path in ["/api/v1/secrets", "/api/v1/pods", "/api/v1/namespaces/lamina-system/configmaps"] {
        let read = ask(&client, "GET", path, "application/json", "").await.expect("an answer");
        assert_eq!(read.status, 403, "{path}");
    }
}

/// The operators' Lease is made and replaced by the same verb, which names it. A version alone keeps nobody from making an
/// object that is gone, so a write names the identity, too.
#[tokio::test]
async fn a_lease_is_replaced_only_by_whoever_knows_it() {
    let cluster = cluster().await;
    let admin = &cluster.admin;
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a-test";
    let put = async |known: Option<(&str, &str)>, holder: &str| {
        let mut object = lease("a-test", "kube-system");
        object["metadata"]["uid"] = json!(known.map(|(uid, _)| uid));
        object["metadata"]["resourceVersion"] = json!(known.map(|(_, version)| version));
        object["spec"]["holderIdentity"] = json!(holder);
        send(admin, &("PUT", path.to_owned(), object)).await
    };
    let made = put(None, "first").await;
    assert_eq!(made.status, 201, "{}", made.message());
    assert!(!put(None, "second").await.is_success(), "there is one already");
    let text = |key: &str| made.body["metadata"][key].as_str().expect("a text").to_owned();
    let (uid, version) = (text("uid"), text("resourceVersion"));
    let known = Some((uid.as_str(), version.as_str()));
    assert!(put(known, "third").await.is_success());
    assert_eq!(put(known, "fourth").await.status, 409, "it has changed since");
    assert!(send(admin, &delete(path.to_owned())).await.is_success());
    let told = put(known, "fifth").await;
    assert!(!told.is_success(), "the one that was known is gone, and is not made again: {:?}", told.body);
}

#[tokio::test]
async fn a_term_never_falls_whoever_writes_it() {
    let cluster = cluster().await;
    let admin = &cluster.admin;
    let mut host = host_state("termed");
    host["spec"] = json!({ "term": 7 });
    assert!(create(admin, HOST_STATES, &host, false).await.expect("an answer").is_success());
    let path = format!("{HOST_STATES}/termed");
    let patch = async |spec: Value| send(admin, &("PATCH", path.clone(), json!({ "spec": spec }))).await;
    for lower in [json!({ "term": 6 }), json!({ "term": 0 }), json!({ "term": null })] {
        let told = patch(lower).await;
        let words = "the term never falls, and it was 7; leave the write to the operator that leads now";
        assert!(!told.is_success() && told.message().contains(words), "{}", told.message());
    }
    assert!(patch(json!({ "term": 7, "topologies": [] })).await.is_success());
    assert!(patch(json!({ "term": 8 })).await.is_success());
}
