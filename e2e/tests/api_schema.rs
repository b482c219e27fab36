//! Schema and rules on a real API server: what it accepts, what it refuses, in which words, and what it fills in.

use kube::Client;
use lamina_crds::manifests::manifests;
use lamina_e2e::control_plane::ControlPlane;
use lamina_e2e::examples;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

mod api;

use api::{HOST_STATES, TOPOLOGIES, ask, create, merge};

const CORPUS: &str = include_str!("../../crds/tests/corpus.yaml");

/// The control plane with both kinds established, and what the server warned of while they were made.
async fn with_kinds() -> (&'static ControlPlane, Client, &'static [String]) {
    static WARNINGS: OnceCell<Vec<String>> = OnceCell::const_new();
    let plane = api::shared("api-schema").await;
    let client = plane.client().await.expect("a client");
    let warnings = WARNINGS.get_or_init(|| async { establish(&plane.client().await.expect("a client")).await }).await;
    (plane, client, warnings)
}

async fn establish(client: &Client) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, text) in manifests() {
        let manifest: Value = serde_yaml::from_str(&text).expect(name);
        let kind = manifest["metadata"]["name"].as_str().expect("a name");
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind}?fieldManager=test");
        let answer = ask(client, "PATCH", &path, "application/apply-patch+yaml", &text).await.expect("an answer");
        assert!(answer.is_success(), "{kind}: {}", answer.message());
        warnings.extend(answer.warnings);
    }
    for path in [TOPOLOGIES, HOST_STATES] {
        while !ask(client, "GET", path, "application/json", "").await.expect("an answer").is_success() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    warnings
}

fn corpus() -> Value {
    serde_yaml::from_str(CORPUS).expect("the corpus is YAML")
}

fn changed(sound: &Value, changes: &Map<String, Value>) -> Value {
    let mut object = sound.clone();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer starts with a slash");
        match object.pointer_mut(parent).expect("the parent is there") {
            Value::Object(fields) => drop(fields.insert(field.to_owned(), value.clone())),
            Value::Array(items) => items[field.parse::<usize>().expect("an index")] = value.clone(),
            other => panic!("{pointer} leads into {other}"),
        }
    }
    object
}

#[tokio::test]
async fn the_kinds_are_accepted_without_a_warning() {
    let (plane, _, warnings) = with_kinds().await;
    assert_eq!(warnings, [""; 0]);
    let said = plane.kubectl(&["api-resources", "--api-group=lamina.dev", "--no-headers"]).await.expect("kubectl");
    let told = said.success().expect("kubectl lists them");
    assert!(told.contains("slicetopologies") && told.contains("slt") && told.contains("hst"), "{told}");
}

#[tokio::test]
async fn the_examples_are_accepted_word_for_word() {
    let (_, client, _) = with_kinds().await;
    for name in ["first.yaml", "orchestrator.yaml", "smallest.yaml", "every-field.yaml"] {
        let object: Value = serde_yaml::from_str(&examples::read(name).expect(name)).expect(name);
        let rehearsed = create(&client, TOPOLOGIES, &object, true).await.expect("an answer");
        assert!(rehearsed.is_success(), "{name}: {}", rehearsed.message());
        let made = create(&client, TOPOLOGIES, &object, false).await.expect("an answer");
        assert!(made.is_success() && made.warnings.is_empty(), "{name}: {} {:?}", made.message(), made.warnings);
        assert_eq!(made.body["spec"], object["spec"], "{name}: the server changes nothing of a spec");
    }
    let scaled = examples::scaled_orchestrator(32).expect("the example scales");
    let mut scaled = serde_json::to_value(scaled).expect("plain data");
    scaled["metadata"]["name"] = json!("scaled");
    let answer = create(&client, TOPOLOGIES, &scaled, true).await.expect("an answer");
    assert!(answer.is_success(), "{}", answer.message());
}

#[tokio::test]
async fn every_field_of_the_schema_is_used_by_the_example() {
    let (_, client, _) = with_kinds().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/slicetopologies.lamina.dev";
    let kind = ask(&client, "GET", path, "application/json", "").await.expect("an answer").body;
    let schema = &kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let example: Value = serde_yaml::from_str(&examples::read("every-field.yaml").expect("read")).expect("YAML");
    let mut unused = Vec::new();
    collect_unused("spec", schema, &[&example["spec"]], &mut unused);
    // The example keeps cores free by the other one of the two measures that exclude each other.
    assert_eq!(unused, ["spec.housekeeping.set"]);
}

fn collect_unused(path: &str, schema: &Value, values: &[&Value], unused: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let found: Vec<&Value> = values.iter().filter_map(|value| value.get(name)).collect();
        if found.is_empty() {
            unused.push(path);
        } else {
            collect_unused(&path, property, &found, unused);
        }
    }
    if schema["items"].is_object() {
        let items: Vec<&Value> = values.iter().filter_map(|value| value.as_array()).flatten().collect();
        collect_unused(&format!("{path}[]"), &schema["items"], &items, unused);
    }
}

#[tokio::test]
async fn bad_input_is_refused_with_path_value_rule_and_remedy() {
    let (_, client, _) = with_kinds().await;
    let corpus = corpus();
    let sound = create(&client, TOPOLOGIES, &corpus["topology"], true).await.expect("an answer");
    assert!(sound.is_success(), "{}", sound.message());
    for row in corpus["rows"].as_array().expect("rows") {
        let (Some(changes), Some(parts)) = (row["topology"].as_object(), row["server"].as_array()) else { continue };
        let answer = create(&client, TOPOLOGIES, &changed(&corpus["topology"], changes), true).await.expect("answer");
        let beyond_its_cost = parts.is_empty();
        assert_eq!(answer.is_success(), beyond_its_cost, "{}: {}", row["row"], answer.message());
        for part in parts.iter().filter_map(Value::as_str) {
            let told = answer.message();
            assert!(told.contains(part), "{}: should say {part:?}, says {told}", row["row"]);
        }
    }
}

#[tokio::test]
async fn sizes_and_bodies_are_bounded() {
    let (_, client, _) = with_kinds().await;
    let corpus = corpus();
    let with = |list: &str, items: Vec<Value>| {
        let mut topology = corpus["topology"].clone();
        topology["spec"][list] = Value::Array(items);
        topology
    };
    let service = |index: usize| json!({ "name": format!("s{index}"), "slice": "front", "command": ["/srv/x"] });
    let refused = [
        (with("services", (0..257).map(service).collect()), "must have at most 256 items"),
        (
            with("services", vec![json!({ "name": "a", "slice": "front", "command": vec!["/x"; 65] })]),
            "at most 64 items",
        ),
        (
            with("services", vec![json!({ "name": "a", "slice": "front", "command": ["/x", "y".repeat(1025)] })]),
            "may not be more than 1024",
        ),
        (
            with(
                "files",
                vec![
                    json!({ "name": "a", "content": "x".repeat(40_000) }),
                    json!({ "name": "b", "content": "x".repeat(40_000) }),
                ],
            ),
            "`80000 bytes`: all files together hold at most 65536 bytes; shorten them",
        ),
    ];
    for (topology, words) in refused {
        let answer = create(&client, TOPOLOGIES, &topology, true).await.expect("an answer");
        assert!(!answer.is_success() && answer.message().contains(words), "{words}: {}", answer.message());
    }
    let most = with("services", (0..256).map(service).collect());
    assert!(create(&client, TOPOLOGIES, &most, true).await.expect("an answer").is_success());
}

#[tokio::test]
async fn what_is_no_object_of_ours_is_refused() {
    let (_, client, _) = with_kinds().await;
    let strict = format!("{TOPOLOGIES}?fieldValidation=Strict&dryRun=All");
    let send = async |body: &str| ask(&client, "POST", &strict, "application/json", body).await.expect("an answer");
    let twice =
        r#"{"apiVersion":"lamina.dev/v1alpha1","kind":"SliceTopology","metadata":{"name":"a"},"spec":{},"spec":{}}"#;
    assert!(send(twice).await.message().contains("duplicate field \"spec\""));
    let old = r#"{"apiVersion":"lamina.dev/v1","kind":"SliceTopology","metadata":{"name":"a"},"spec":{}}"#;
    let told = send(old).await;
    assert!(told.message().contains("in version \"v1\" cannot be handled"), "{}", told.message());
    let host = json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState", "metadata": { "name": "Host_7" }, "spec": {} });
    let told = create(&client, HOST_STATES, &host, true).await.expect("an answer");
    assert!(!told.is_success() && told.message().contains("Host_7"), "{}", told.message());
}

#[tokio::test]
async fn an_object_nobody_looked_at_says_so() {
    let (plane, client, _) = with_kinds().await;
    let mut topology = corpus()["topology"].clone();
    topology["metadata"]["name"] = json!("unseen");
    assert!(create(&client, TOPOLOGIES, &topology, false).await.expect("an answer").is_success());
    let path = format!("{TOPOLOGIES}/unseen");
    let found = ask(&client, "GET", &path, "application/json", "").await.expect("an answer");
    assert_eq!(found.body["status"], json!({ "observedGeneration": -1 }));
    let arguments = ["wait", "--for=condition=Ready", "slicetopology/unseen", "--timeout=1s"];
    let waited = plane.kubectl(&arguments).await.expect("kubectl");
    assert_ne!(waited.code, 0, "nothing is ready that nobody looked at");
}

#[tokio::test]
async fn status_is_written_through_its_own_door_only() {
    let (_, client, _) = with_kinds().await;
    let mut topology = corpus()["topology"].clone();
    topology["metadata"]["name"] = json!("doors");
    topology["status"] = json!({ "observedGeneration": 7 });
    assert!(create(&client, TOPOLOGIES, &topology, false).await.expect("an answer").is_success());
    let path = format!("{TOPOLOGIES}/doors");
    let status = json!({ "spec": { "deletionPolicy": "Remove" }, "status": { "observedGeneration": 1 } });
    let answer = merge(&client, &format!("{path}/status"), &status).await.expect("an answer");
    assert!(answer.is_success(), "{}", answer.message());
    assert_eq!(answer.body["status"]["observedGeneration"], json!(1));
    assert_eq!(answer.body["spec"]["deletionPolicy"], Value::Null);
    assert_eq!(answer.body["metadata"]["generation"], json!(1));
}

#[tokio::test]
async fn host_states_refuse_what_would_start_unpinned() {
    let (_, client, _) = with_kinds().await;
    let corpus = corpus();
    let host = |entry: Value| {
        json!({
            "apiVersion": "lamina.dev/v1alpha1",
            "kind": "HostState",
            "metadata": { "name": "host-7", "annotations": { "argocd.argoproj.io/ignore-resource-updates": "true" } },
            "spec": { "topologies": [entry] },
        })
    };
    let sound = create(&client, HOST_STATES, &host(corpus["entry"].clone()), true).await.expect("an answer");
    assert!(sound.is_success(), "{}", sound.message());
    let cases = [
        ("/slices/0/cpus", json!(""), "an empty list would leave the slice unpinned"),
        ("/services/0/command/0", json!("sh"), "the program is an absolute path"),
        ("/services/0/user", json!("root"), "root may not run services"),
        ("/services/0/restart", json!({ "policy": "Always", "delay": "0s" }), "at least 1s"),
        ("/slices/0/memory", json!({ "min": "2Gi", "max": "1Gi" }), "need min <= low <= high <= max"),
        ("/services/0/unit", json!("../x.service"), "should match"),
        ("/services/0/unitText", json!("x"), "unknown field"),
    ];
    for (pointer, value, words) in cases {
        let changes = Map::from_iter([(pointer.to_owned(), value)]);
        let entry = host(changed(&corpus["entry"], &changes));
        let answer = create(&client, HOST_STATES, &entry, true).await.expect("an answer");
        assert!(!answer.is_success() && answer.message().contains(words), "{pointer}: {}", answer.message());
    }
}

#[tokio::test]
async fn an_old_object_that_breaks_a_new_rule_can_still_be_changed() {
    let (_, client, _) = with_kinds().await;
    let kinds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut kind: Value = serde_yaml::from_str(&manifests()[1].1).expect("YAML");
    // A kind of its own, so that the other tests keep their rules.
    kind["metadata"]["name"] = json!("looseties.test.lamina.dev");
    kind["spec"]["group"] = json!("test.lamina.dev");
    kind["spec"]["names"] = json!({ "plural": "looseties", "singular": "loosety", "kind": "Loosety" });
    let rules = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/slices/items/properties/cpu";
    let strict = kind.pointer_mut(rules).expect("cpu")["x-kubernetes-validations"].take();
    let answer = create(&client, kinds, &kind, false).await.expect("an answer");
    assert!(answer.is_success(), "{}", answer.message());
    let mut old = corpus()["topology"].clone();
    old["apiVersion"] = json!("test.lamina.dev/v1alpha1");
    old["kind"] = json!("Loosety");
    old["spec"]["slices"][0]["cpu"] = json!({ "set": "0-1", "cores": 2 });
    let objects = "/apis/test.lamina.dev/v1alpha1/looseties";
    let mut made = create(&client, objects, &old, false).await.expect("an answer");
    while made.status == 404 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        made = create(&client, objects, &old, false).await.expect("an answer");
    }
    assert!(made.is_success(), "{}", made.message());
    let mut tightened = json!({ "spec": kind["spec"].clone() });
    tightened.pointer_mut(rules).expect("cpu")["x-kubernetes-validations"] = strict;
    let path = format!("{kinds}/looseties.test.lamina.dev");
    assert!(merge(&client, &path, &tightened).await.expect("an answer").is_success());
    let with_rule = async || {
        let mut newcomer = old.clone();
        newcomer["metadata"]["name"] = json!("newcomer");
        create(&client, objects, &newcomer, true).await.expect("an answer").is_success()
    };
    while with_rule().await {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let untouched = json!({ "spec": { "deletionPolicy": "Remove" } });
    let answer = merge(&client, &format!("{objects}/shop"), &untouched).await.expect("an answer");
    assert!(answer.is_success(), "unchanged parts are not judged again: {}", answer.message());
}
