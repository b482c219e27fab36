//! Decides how the two kinds are told to the API server: the derived schemas, put into words that Kubernetes knows.

use kube::CustomResourceExt;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::{HostState, HostStateSpec, HostStateStatus, SliceTopology, SliceTopologySpec, SliceTopologyStatus, cel};

/// The manifests by file name, as YAML: one CRD per file.
pub fn manifests() -> Vec<(&'static str, String)> {
    vec![("hoststates.yaml", yaml(&host_state())), ("slicetopologies.yaml", yaml(&slice_topology()))]
}

/// The kind that users write.
pub fn slice_topology() -> Value {
    explained(described::<SliceTopologySpec, SliceTopologyStatus>(manifest(&SliceTopology::crd())))
}

/// The kind that operator and agents write.
pub fn host_state() -> Value {
    described::<HostStateSpec, HostStateStatus>(manifest(&HostState::crd()))
}

/// One CRD in the form in which it is applied.
fn manifest(derived: &impl serde::Serialize) -> Value {
    let mut crd = serde_json::to_value(derived).expect("a derived CRD is plain data");
    crd["metadata"]["annotations"] = json!({
        // Uninstalling the chart must never unpin a host: the kinds, and with them all objects, stay.
        "helm.sh/resource-policy": "keep",
    });
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        correct(schema);
        let status = &mut schema["properties"]["status"];
        status["properties"]["observedGeneration"]["default"] = json!(-1);
        // Without it an object nobody looked at has no status at all, and tools take it for current.
        status["default"] = json!({ "observedGeneration": -1 });
    }
    crd
}

/// What schemars writes and Kubernetes does not know, or what would change users' objects.
fn correct(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("type") || fields.contains_key("properties") {
                correct_node(fields);
            }
            fields.values_mut().for_each(correct);
        }
        Value::Array(items) => items.iter_mut().for_each(correct),
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15) {
                *schema = json!(whole as i64);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn correct_node(fields: &mut Map<String, Value>) {
    // `default` and `nullable` are keywords here only beside a type; as names of properties they hold an object.
    if fields.get("default").is_some() && fields.get("type").is_some_and(Value::is_string) {
        fields.remove("default");
    }
    if fields.get("nullable").is_some_and(Value::is_boolean) {
        fields.remove("nullable");
    }
    let unsigned = fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
    if unsigned {
        fields.insert("format".to_owned(), json!("int64"));
        fields.entry("minimum").or_insert(json!(0));
    }
}

/// The manifest with each field's own description. Where a field may be absent and its type is a closed list of words, the
/// derived schema tells of the type what should be told of the field.
fn described<Spec: JsonSchema, Status: JsonSchema>(mut crd: Value) -> Value {
    let told = |settings: SchemaSettings| settings.with(|settings| settings.inline_subschemas = true);
    let generator = || told(SchemaSettings::draft2020_12()).into_generator();
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    describe(&mut schema["spec"], &generator().into_root_schema_for::<Spec>().to_value());
    describe(&mut schema["status"], &generator().into_root_schema_for::<Status>().to_value());
    crd
}

/// Carries the descriptions of fields from what is told of the type to the schema.
fn describe(schema: &mut Value, told: &Value) {
    let choices = ["anyOf", "allOf"].into_iter().filter_map(|keyword| told[keyword].as_array()).flatten();
    for part in std::iter::once(told).chain(choices) {
        for (name, field) in part["properties"].as_object().into_iter().flatten() {
            let Some(node) = schema["properties"].get_mut(name) else { continue };
            if field["description"].is_string() {
                node["description"] = field["description"].clone();
            }
            describe(node, field);
        }
        for keyword in ["items", "additionalProperties"] {
            if part[keyword].is_object() && schema[keyword].is_object() {
                describe(&mut schema[keyword], &part[keyword]);
            }
        }
    }
}

/// The manifest of what people write: every pattern that has words gets them.
fn explained(mut crd: Value) -> Value {
    explain(&mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
    crd
}

fn explain(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let words = fields.get("pattern").and_then(Value::as_str).and_then(cel::words_of);
            if let Some(rule) = words {
                let rules = fields.entry("x-kubernetes-validations").or_insert(json!([]));
                rules.as_array_mut().into_iter().for_each(|rules| rules.push(json!(rule)));
            }
            fields.values_mut().for_each(explain);
        }
        Value::Array(items) => items.iter_mut().for_each(explain),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn yaml(manifest: &Value) -> String {
    let text = serde_yaml::to_string(manifest).expect("JSON values are YAML values");
    format!("# Made by `make generate` from crds/src; do not edit.\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema node with its path.
    fn nodes<'a>(path: String, schema: &'a Value, all: &mut Vec<(String, &'a Value)>) {
        all.push((path.clone(), schema));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            nodes(format!("{path}.{name}"), property, all);
        }
        for keyword in ["items", "additionalProperties"] {
            if schema[keyword].is_object() {
                nodes(format!("{path}[]"), &schema[keyword], all);
            }
        }
    }

    fn schemas() -> Vec<Value> {
        let schema = |crd: &Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        vec![schema(&slice_topology()), schema(&host_state())]
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the committed files are what is compared")]
    fn the_committed_manifests_are_those_of_the_types() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina-crds/templates");
        for (name, text) in manifests() {
            let committed = std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
            assert!(committed == text, "{name} differs from the types; run `make generate`");
        }
    }

    #[test]
    fn every_field_is_described_and_bounded() {
        for schema in schemas() {
            let mut all = Vec::new();
            nodes(String::new(), &schema, &mut all);
            for (path, node) in all {
                let described = node["description"].as_str().is_some_and(|text| !text.is_empty());
                let is_named = !path.ends_with("[]") && !path.is_empty() && path != ".metadata";
                assert!(described || !is_named, "{path} has no description");
                let bound = match node["type"].as_str() {
                    Some("array") => "maxItems",
                    Some("string") if node["enum"].is_null() && node["format"].is_null() => "maxLength",
                    _ => continue,
                };
                assert!(node[bound].is_u64(), "{path} has no {bound}");
            }
        }
    }

    #[test]
    fn a_field_says_what_it_means_and_not_what_its_type_is() {
        let spec = &schemas()[0]["properties"]["spec"]["properties"];
        for (field, meaning) in [
            (&spec["adoption"], "Refuse (the default meaning)"),
            (&spec["deletionPolicy"], "Retain (the default meaning)"),
            (&spec["slices"]["items"]["properties"]["cpu"]["properties"]["siblings"], "Take (the default meaning)"),
        ] {
            let told = field["description"].as_str().unwrap_or_default();
            assert!(told.replace('\n', " ").contains(meaning), "{told}");
        }
    }

    #[test]
    fn nothing_is_left_that_kubernetes_does_not_know() {
        for schema in schemas() {
            let mut all = Vec::new();
            nodes(String::new(), &schema, &mut all);
            for (path, node) in all {
                assert!(node["nullable"].is_null(), "{path} is nullable");
                assert!(
                    !node["format"].as_str().unwrap_or_default().starts_with("uint"),
                    "{path} has an unknown format"
                );
                let allowed = path == ".status" || path == ".status.observedGeneration";
                assert_eq!(!node["default"].is_null(), allowed, "{path}: defaults");
                assert!(!node["maximum"].is_f64() && !node["minimum"].is_f64(), "{path}: bounds are whole numbers");
            }
        }
    }

    #[test]
    fn the_manifests_fit_into_an_annotation() {
        for (name, text) in manifests() {
            assert!(text.len() < 100_000, "{name} has {} bytes", text.len());
            assert!(!text.contains("{{"), "{name} would be taken for a template");
        }
    }
}
