//! Decides what kubeconform checks objects by: a JSON schema for each kind, out of what an API server publishes of its own.
//!
//! The schemas that kubeconform would fetch lie on the network, and would be those of another server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Where kubeconform finds the schema of a kind below a folder; see [`schemas`].
pub const LOCATION: &str = "{{ .ResourceKind }}{{ .KindSuffix }}.json";

/// The schemas of one OpenAPI v3 document of an API server (`/openapi/v3/apis/GROUP/VERSION`), by file name.
///
/// A field that a kind does not have is an error in them, as with the server's own strict validation.
pub fn schemas(document: &Value) -> BTreeMap<String, Value> {
    let mut components = document["components"].clone();
    close(&mut components);
    let mut schemas = BTreeMap::new();
    for (name, schema) in components["schemas"].as_object().into_iter().flatten() {
        // What is of many groups at once, such as the options of a deletion, is no object.
        let [kind] = schema["x-kubernetes-group-version-kind"].as_array().map_or(&[][..], Vec::as_slice) else {
            continue;
        };
        let reference = format!("#/components/schemas/{name}");
        schemas.insert(file_name(kind), json!({ "$ref": reference, "components": components }));
    }
    schemas
}

/// What kubeconform makes of [`LOCATION`] for a group, version and kind.
fn file_name(kind: &Value) -> String {
    let part = |name: &str| kind[name].as_str().unwrap_or_default().to_lowercase();
    let group = part("group");
    let group = group.split('.').next().filter(|first| !first.is_empty()).map(|first| format!("-{first}"));
    format!("{}{}-{}.json", part("kind"), group.unwrap_or_default(), part("version"))
}

/// Lets every object that lists its fields have no others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let lists = fields.get("properties").is_some_and(Value::is_object);
            let is_open = fields.contains_key("x-kubernetes-preserve-unknown-fields");
            if lists && !is_open && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_closed_schema_under_the_name_that_kubeconform_asks_for() {
        let kind = |group: &str, kind: &str| json!([{ "group": group, "version": "v1", "kind": kind }]);
        let document = json!({ "components": { "schemas": {
            "io.k8s.api.core.v1.Service": {
                "properties": { "spec": { "allOf": [{ "$ref": "#/components/schemas/Spec" }] } },
                "x-kubernetes-group-version-kind": kind("", "Service"),
            },
            "ClusterRole": { "x-kubernetes-group-version-kind": kind("rbac.authorization.k8s.io", "ClusterRole") },
            "Spec": { "properties": { "any": { "properties": {}, "x-kubernetes-preserve-unknown-fields": true } } },
        } } });
        let schemas = schemas(&document);
        assert_eq!(schemas.keys().collect::<Vec<_>>(), ["clusterrole-rbac-v1.json", "service-v1.json"]);
        let service = &schemas["service-v1.json"];
        assert_eq!(service["$ref"], "#/components/schemas/io.k8s.api.core.v1.Service");
        let parts = &service["components"]["schemas"];
        assert_eq!(parts["io.k8s.api.core.v1.Service"]["additionalProperties"], false);
        assert_eq!(parts["Spec"]["additionalProperties"], false);
        assert_eq!(parts["Spec"]["properties"]["any"]["additionalProperties"], Value::Null);
    }
}
