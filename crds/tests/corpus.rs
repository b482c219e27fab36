//! Bad inputs are refused by operator and agent alone, admission off, in words that say where, what, why and what to do.

use lamina_crds::decode::decode;
use lamina_crds::rules::{entry_faults, topology_faults};
use lamina_crds::{SliceTopologySpec, TopologyEntry};
use serde_json::{Map, Value};

const CORPUS: &str = include_str!("corpus.yaml");

fn corpus() -> Value {
    serde_yaml::from_str(CORPUS).expect("the corpus is YAML")
}

/// The sound object with the row's changes, each at a JSON pointer.
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

fn told_by_operator(topology: &Value) -> Vec<String> {
    let name = topology["metadata"]["name"].as_str().expect("a name");
    match decode::<SliceTopologySpec>(&topology["spec"]) {
        Ok(spec) => topology_faults(name, &spec).iter().map(ToString::to_string).collect(),
        Err(fault) => vec![fault.within("spec").to_string()],
    }
}

fn told_by_agent(entry: &Value) -> Vec<String> {
    match decode::<TopologyEntry>(entry) {
        Ok(entry) => entry_faults(&entry).iter().map(ToString::to_string).collect(),
        Err(fault) => vec![fault.within("spec.topologies[shop]").to_string()],
    }
}

fn assert_says(row: &Value, layer: &str, told: &[String]) {
    let Some(parts) = row[layer].as_array() else { return };
    let parts: Vec<&str> = parts.iter().map(|part| part.as_str().expect("a text")).collect();
    let found = told.iter().any(|sentence| parts.iter().all(|part| sentence.contains(part)));
    assert!(found, "{}: {layer} should say {parts:?}, says {told:?}", row["row"]);
    assert!(!told.iter().any(|sentence| sentence.contains('\n')), "{}: {layer} lets a line break through", row["row"]);
    assert!(told.iter().all(|sentence| sentence.contains("; ")), "{}: {layer} names no remedy: {told:?}", row["row"]);
}

#[test]
fn the_sound_objects_are_sound() {
    let corpus = corpus();
    assert_eq!(told_by_operator(&corpus["topology"]), [""; 0]);
    assert_eq!(told_by_agent(&corpus["entry"]), [""; 0]);
}

#[test]
fn the_operator_refuses_every_row() {
    let corpus = corpus();
    for row in corpus["rows"].as_array().expect("rows") {
        if let Some(changes) = row["topology"].as_object() {
            assert_says(row, "operator", &told_by_operator(&changed(&corpus["topology"], changes)));
        }
    }
}

#[test]
fn the_agent_refuses_every_row() {
    let corpus = corpus();
    for row in corpus["rows"].as_array().expect("rows") {
        if let Some(changes) = row["entry"].as_object() {
            assert_says(row, "agent", &told_by_agent(&changed(&corpus["entry"], changes)));
        }
    }
}

#[test]
fn sizes_are_bounded() {
    let corpus = corpus();
    let many = |list: &str, count: usize, build: &dyn Fn(usize) -> Value| {
        let mut topology = corpus["topology"].clone();
        topology["spec"][list] = (0..count).map(build).collect();
        told_by_operator(&topology)
    };
    let service =
        |index: usize| serde_json::json!({ "name": format!("s{index}"), "slice": "front", "command": ["/srv/x"] });
    assert!(
        many("services", 257, &service)[0].starts_with("spec.services is `257`: at most 256 services are accepted")
    );
    let slice = |index: usize| serde_json::json!({ "name": format!("s{index}"), "cpu": { "cores": 1 } });
    assert!(many("slices", 65, &slice)[0].starts_with("spec.slices is `65`: at most 64 slices are accepted"));
    let file = |index: usize| serde_json::json!({ "name": format!("f{index}"), "content": "x".repeat(40_000) });
    assert!(
        many("files", 2, &file)[0].starts_with("spec.files is `80000 bytes`: all files together hold at most 65536")
    );
}
