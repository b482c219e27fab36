//! Every object of ours in a block of YAML is one that operator and agent accept, or says that it is refused and why.

use lamina_crds::decode::decode;
use lamina_crds::rules::{entry_faults, topology_faults};
use lamina_crds::{HostStateSpec, SliceTopologySpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::names::has;
use crate::pages::{Page, all, read};

/// The word behind the fence of an object that breaks a rule: the page then says which.
const REFUSED: &str = "refused";

#[test]
fn objects_are_accepted_as_they_stand() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in all() {
        for (info, text) in page.blocks().filter(|(info, _)| info.split_whitespace().next() == Some("yaml")) {
            for document in serde_yaml::Deserializer::from_str(text) {
                let object = Value::deserialize(document);
                let object = object.unwrap_or_else(|error| panic!("{}: {error} in\n{text}", page.path));
                let faults = faults(&object);
                let is_refused = info.split_whitespace().any(|word| word == REFUSED);
                wrong
                    .extend(judged(&page, is_refused, &faults).map(|what| format!("{}: {what} in\n{text}", page.path)));
                seen += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 5, "only {seen} objects are found");
}

fn judged(page: &Page, is_refused: bool, faults: &[String]) -> Option<String> {
    match (is_refused, faults.first()) {
        (false, None) => None,
        (false, Some(fault)) => Some(fault.clone()),
        (true, None) => Some("this breaks no rule".to_owned()),
        (true, Some(fault)) => (!page.words().contains(fault)).then(|| format!("the page does not say `{fault}`")),
    }
}

fn faults(object: &Value) -> Vec<String> {
    let is_ours = object["apiVersion"].as_str().is_some_and(|version| version.starts_with("lamina.dev/"));
    match (is_ours, object["kind"].as_str()) {
        (true, Some("SliceTopology")) if object["apiVersion"] == "lamina.dev/v1alpha1" => {
            topology(object["metadata"]["name"].as_str().unwrap_or_default(), &object["spec"])
        }
        (true, Some("HostState")) if object["apiVersion"] == "lamina.dev/v1alpha1" => host_state(&object["spec"]),
        (true, kind) => vec![format!("there is no kind {kind:?} in {}", object["apiVersion"])],
        (false, Some(_)) => Vec::new(),
        (false, None) => fragment(object),
    }
}

fn topology(name: &str, spec: &Value) -> Vec<String> {
    match decode::<SliceTopologySpec>(spec) {
        Ok(spec) => topology_faults(name, &spec).iter().map(ToString::to_string).collect(),
        Err(fault) => vec![fault.within("spec").to_string()],
    }
}

fn host_state(spec: &Value) -> Vec<String> {
    match decode::<HostStateSpec>(spec) {
        Ok(spec) => spec.topologies.iter().flat_map(entry_faults).map(|fault| fault.to_string()).collect(),
        Err(fault) => vec![fault.within("spec").to_string()],
    }
}

/// A part of a topology's spec, completed to a whole one; values of the chart; or something that is not ours.
fn fragment(object: &Value) -> Vec<String> {
    let Some(fields) = object.as_object() else {
        return vec!["this is neither an object nor a part of one".to_owned()];
    };
    let spec = fields.get("spec").and_then(Value::as_object).unwrap_or(fields);
    let schema: Value = serde_json::from_str(&read("charts/lamina/values.schema.json")).expect("JSON");
    let of_chart = |name: &String| schema["properties"][name.as_str()].is_object();
    let reference = read("docs/reference/fields.md");
    let of_spec = |name: &String| reference.contains(&format!("| `spec.{name}` |"));
    if spec.keys().all(of_chart) {
        let names = leaves("", object);
        return names.into_iter().filter(|name| !has(&schema, name)).map(|name| format!("no value {name}")).collect();
    }
    if spec.keys().any(of_spec) { topology("fragment", &Value::Object(completed(spec.clone()))) } else { Vec::new() }
}

/// What a spec needs beside the part that is shown: services need a user, and a slice each.
fn completed(mut spec: Map<String, Value>) -> Map<String, Value> {
    let named: Vec<Value> = match spec.get("services").and_then(Value::as_array) {
        Some(services) => services.iter().map(|service| service["slice"].clone()).collect(),
        None => vec![json!("only")],
    };
    let mut names: Vec<Value> = Vec::new();
    for name in named {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let slices: Vec<Value> = names.iter().map(|name| json!({ "name": name, "cpu": { "cores": 1 } })).collect();
    spec.entry("hostSelector").or_insert_with(|| json!({ "matchLabels": { "a": "b" } }));
    spec.entry("slices").or_insert(json!(slices));
    if spec.get("services").is_some() {
        spec.entry("serviceDefaults").or_insert_with(|| json!({ "user": "app" }));
    }
    spec
}

/// Dotted names of everything set in a values file.
fn leaves(prefix: &str, value: &Value) -> Vec<String> {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        None => vec![prefix.to_owned()],
        Some(fields) => {
            let name = |field: &String| if prefix.is_empty() { field.clone() } else { format!("{prefix}.{field}") };
            fields.iter().flat_map(|(field, value)| leaves(&name(field), value)).collect()
        }
    }
}
