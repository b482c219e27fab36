//! Decides what the reference in `docs/` says of fields and conditions: pages made of the types.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::conditions::{ConditionStatus, ConditionType, Reason};
use crate::manifests::{host_state, slice_topology};
use crate::told::{Subject, Telling, remedy, tellings};

const SUBJECTS: [(Subject, &str, &str); 3] = [
    (
        Subject::Topology,
        "Of a SliceTopology",
        "`kubectl get slicetopology NAME -o yaml` shows them in `status.conditions`; the operator tells them.",
    ),
    (
        Subject::Host,
        "Of a host",
        "`kubectl get hoststate HOST -o yaml` shows them in `status.conditions`; the host's agent tells them. The host is as \
         its worst topology is.",
    ),
    (
        Subject::TopologyOnHost,
        "Of a topology on a host",
        "They stand in `status.topologies` of the HostState, one list per topology, so that one team's trouble is not \
         another's.",
    ),
];

/// The page about conditions and reasons.
pub fn conditions() -> String {
    let mut page = "# Conditions and reasons\n\nMade by `make generate` from `crds/src/conditions.rs` and \
                    `crds/src/told.rs`; do not edit.\n\nA condition has a type, a status, one word as reason, and a message \
                    that names object, values and remedy. Both lists are closed. [Troubleshooting](../troubleshooting.md) \
                    shows messages as they are told.\n"
        .to_owned();
    for (subject, title, where_it_stands) in SUBJECTS {
        page.push_str(&format!("\n## {title}\n\n{where_it_stands}\n"));
        let all = tellings(subject);
        let types: BTreeSet<ConditionType> = all.iter().map(|(type_, ..)| *type_).collect();
        page.extend(types.into_iter().map(|type_| table(type_, all)));
    }
    page.push_str("\n## Reasons\n");
    page.extend(reasons().iter().map(section));
    page
}

fn table(type_: ConditionType, all: &BTreeSet<Telling>) -> String {
    let mut table = format!("\n**{type_:?}**: {}\n\n| Status | Reasons |\n|---|---|\n", lower(&meaning_of_type(type_)));
    for status in [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown] {
        let told = all.iter().filter(|(told_type, told_status, _)| (*told_type, *told_status) == (type_, status));
        let links: Vec<String> = told.map(|(.., reason)| link(*reason)).collect();
        if !links.is_empty() {
            table.push_str(&format!("| {status:?} | {} |\n", links.join(", ")));
        }
    }
    table
}

fn link(reason: Reason) -> String {
    let word = reason.word();
    format!("[{word}](#{})", word.to_lowercase())
}

fn section((reason, meaning): &(Reason, String)) -> String {
    let told = SUBJECTS.iter().flat_map(|(subject, title, _)| {
        let types = tellings(*subject).iter().filter(|(.., told)| told == reason);
        let types: Vec<String> = types.map(|(type_, status, _)| format!("{type_:?} {status:?}")).collect();
        (!types.is_empty()).then(|| format!("- {}: {}\n", lower(title), types.join(", ")))
    });
    let told: String = told.collect();
    let remedy = remedy(*reason).map(|remedy| format!("\nWhat to do: {remedy}\n")).unwrap_or_default();
    format!("\n### {}\n\n{meaning}\n\n{told}{remedy}", reason.word())
}

/// Every reason with what it means, in the order of the type.
pub fn reasons() -> Vec<(Reason, String)> {
    words(&schemars::schema_for!(Reason).to_value())
}

fn meaning_of_type(type_: ConditionType) -> String {
    let all: Vec<(ConditionType, String)> = words(&schemars::schema_for!(ConditionType).to_value());
    all.into_iter().find_map(|(known, meaning)| (known == type_).then_some(meaning)).unwrap_or_default()
}

/// The words of an enumeration, each with its description.
fn words<T: serde::de::DeserializeOwned>(schema: &Value) -> Vec<(T, String)> {
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    let word = |variant: &Value| {
        let word = serde_json::from_value(variant["const"].clone()).ok()?;
        Some((word, one_line(&variant["description"])))
    };
    variants.filter_map(word).collect()
}

/// The page about fields.
pub fn fields() -> String {
    let mut page = "# Fields\n\nMade by `make generate` from `crds/src`; do not edit.\n\nBoth kinds are of group and \
                    version `lamina.dev/v1alpha1`, and cluster-scoped. `kubectl explain slicetopology.spec --recursive` \
                    tells the same. A field that is left out stays out: nothing fills it in, and its description says what is \
                    meant then. Unknown fields are refused. `[]` is each item of a list, `{}` each value of a map.\n"
        .to_owned();
    let kinds = [
        ("SliceTopology", "what users write", slice_topology()),
        ("HostState", "what the operator writes for one host, and what its agent reports", host_state()),
    ];
    for (kind, what, crd) in kinds {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            page.push_str(&format!("\n## {kind}: {part}\n"));
            if part == "spec" {
                page.push_str(&format!("\n{}.\n", upper(what)));
            }
            page.push_str("\n| Field | Type | Bounds | Meaning |\n|---|---|---|---|\n");
            rows(part, &schema[part], &mut page);
        }
    }
    page
}

/// The fields below a schema, depth first.
fn rows(path: &str, schema: &Value, page: &mut String) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let needed = schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name));
        let bounds: Vec<String> = needed.then(|| "required".to_owned()).into_iter().chain(bounds(field)).collect();
        let meaning = escaped(&one_line(&field["description"]));
        page.push_str(&format!("| `{path}` | {} | {} | {meaning} |\n", type_of(field), escaped(&bounds.join("; "))));
        below(&path, field, page);
    }
}

fn below(path: &str, field: &Value, page: &mut String) {
    rows(path, field, page);
    rows(&format!("{path}[]"), &field["items"], page);
    rows(&format!("{path}{{}}"), &field["additionalProperties"], page);
}

fn type_of(field: &Value) -> String {
    let name = field["type"].as_str().unwrap_or("any");
    match name {
        "array" => format!("list of {}", plural(&type_of(&field["items"]))),
        "object" if field["additionalProperties"].is_object() => {
            format!("map of {}", plural(&type_of(&field["additionalProperties"])))
        }
        "string" if field["format"] == "date-time" => "time".to_owned(),
        name => name.to_owned(),
    }
}

fn plural(name: &str) -> String {
    format!("{name}s")
}

/// What a value must keep to, as far as the schema says it in numbers and words.
fn bounds(field: &Value) -> Vec<String> {
    let number = |key: &str| field[key].as_i64();
    let range = |from: Option<i64>, to: Option<i64>, unit: &str| match (from, to) {
        (Some(from), Some(to)) => Some(format!("{from} to {to}{unit}")),
        (Some(0), None) | (None, None) => None,
        (Some(from), None) => Some(format!("at least {from}{unit}")),
        (None, Some(to)) => Some(format!("at most {to}{unit}")),
    };
    let choice = field["enum"].as_array().map(|words| {
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        words.join(", ")
    });
    let rules = field["x-kubernetes-validations"].as_array().into_iter().flatten();
    let rules = rules.filter_map(|rule| rule["message"].as_str()).map(str::to_owned);
    let default = Some(&field["default"]).filter(|value| !value.is_null()).map(|value| format!("default `{value}`"));
    let bounds = [
        choice,
        range(number("minimum"), number("maximum"), ""),
        range(number("minLength"), number("maxLength"), " characters"),
        range(number("minItems"), number("maxItems"), " items"),
        range(number("minProperties"), number("maxProperties"), " keys"),
        default,
    ];
    bounds.into_iter().flatten().chain(rules).collect()
}

fn one_line(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text that stands in a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn lower(text: &str) -> String {
    with_first(text, |first| first.to_lowercase().collect())
}

fn upper(text: &str) -> String {
    with_first(text, |first| first.to_uppercase().collect())
}

fn with_first(text: &str, change: impl Fn(char) -> String) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| change(first) + rest.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the committed pages are what is compared")]
    fn the_committed_pages_are_those_of_the_types() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference");
        for (name, page) in [("conditions.md", conditions()), ("fields.md", fields())] {
            let committed = std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
            assert!(committed == page, "docs/reference/{name} is old; run `make generate`");
        }
    }

    #[test]
    fn every_reason_has_a_meaning() {
        let all = reasons();
        assert!(
            [Reason::NotObserved, Reason::Absent].iter().all(|reason| all.iter().any(|(known, _)| known == reason))
        );
        assert!(all.iter().all(|(_, meaning)| meaning.ends_with('.')), "{all:?}");
    }

    #[test]
    fn every_field_stands_on_the_page() {
        let page = fields();
        for field in
            ["spec.slices[].cpu.shareWith", "spec.topologies[].services[].rlimits.nofile", "status.worst[].host"]
        {
            assert!(page.contains(&format!("| `{field}` |")), "{field}");
        }
    }
}
