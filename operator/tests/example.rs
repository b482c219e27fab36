//! The running example on the twenty-CPU host: what the operator writes, to the byte. `host-7.yaml` is the answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use lamina_crds::{HostStateSpec, Term};
use lamina_operator::changes::{Change, changes};
use lamina_operator::check::check;
use lamina_operator::resolve::resolve;
use lamina_operator::snapshot::{RawObject, Snapshot};
use lamina_operator::view::gather;
use serde_json::{Value, json};

#[test]
fn the_example_gives_the_golden_host_state() {
    let text = written(&file("../examples/orchestrator.yaml"));
    assert_eq!(text, file("tests/host-7.yaml"), "if the change is meant, tests/host-7.yaml becomes:\n{text}");
}

#[test]
fn literal_sets_give_the_same_host_state_as_cores() {
    let example = file("../examples/orchestrator.yaml");
    let counted = ["cores: 8, min: 1", "cores: 8, min: 1", "cores: 4, shareWith: control"];
    let literal = counted.iter().zip(["0-7", "8-15", "16-19"]);
    let literal =
        literal.fold(example.clone(), |text, (cores, set)| text.replacen(cores, &format!("set: \"{set}\""), 1));
    assert_ne!(literal, example);
    assert_eq!(written(&literal), written(&example));
}

/// The spec that is written to host-7 for a topology, as YAML.
fn written(topology: &str) -> String {
    let view = gather(&snapshot(topology));
    let resolution = resolve(&view);
    assert_eq!(check(&view, &resolution), []);
    let mut changes = changes(&view, &resolution, &[], Term::NONE, Timestamp::UNIX_EPOCH);
    match changes.pop() {
        Some(Change::ApplyHostSpec { target: _, spec }) => yaml(&spec),
        other => panic!("one spec is to be written, not {other:?}"),
    }
}

fn snapshot(topology: &str) -> Snapshot {
    let mut topology: Value = serde_yaml::from_str(topology).expect("legal YAML");
    topology["metadata"]["generation"] = json!(1);
    let cpus = ["0-7,16-19", "8-15"];
    let node = |id: usize| json!({ "id": id, "cpus": cpus[id], "memory": "64Gi", "distances": if id == 0 { [10, 21] } else { [21, 10] } });
    let hardware = json!({
        "machineID": "0123", "cpus": { "online": "0-19", "offline": "", "isolated": "" },
        "packages": [{ "id": 0, "cpus": "0-19" }], "numaNodes": [node(0), node(1)], "l3": cpus, "cores": [],
        "kernel": "6.1.0", "systemd": "252",
    });
    let host = json!({ "metadata": { "name": "host-7" }, "spec": {}, "status": { "hardware": hardware } });
    let object = |object: &Value| Arc::new(RawObject::from_json(object).expect("it has a name"));
    let labels = BTreeMap::from([("lamina.dev/role".to_owned(), "orchestrator".to_owned())]);
    Snapshot {
        topologies: BTreeMap::from([("orchestrator".to_owned(), object(&topology))]),
        host_states: BTreeMap::from([("host-7".to_owned(), object(&host))]),
        nodes: BTreeMap::from([("host-7".to_owned(), labels)]),
        leases: BTreeMap::new(),
        watching_since: Timestamp::UNIX_EPOCH,
    }
}

fn yaml(spec: &HostStateSpec) -> String {
    serde_yaml::to_string(spec).expect("plain data")
}

#[expect(clippy::disallowed_methods, reason = "a test reads its example and its answer")]
fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}
