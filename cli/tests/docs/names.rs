//! Names that a page tells are names that there are: fields, values of the chart, files of the source.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::pages::{all, read, root};

/// Folders of the source whose files a reader is told to use.
const FOLDERS: [&str; 3] = ["examples/", "charts/", "gitops/"];

#[test]
fn values_of_the_chart_are_in_its_schema() {
    let schema: Value = serde_json::from_str(&read("charts/lamina/values.schema.json")).expect("JSON");
    let mut unknown = Vec::new();
    for page in all() {
        let set = page.blocks().map(|(_, text)| text).chain(page.spans()).flat_map(set_values);
        let told = page.spans().filter(|span| is_value(&schema, span)).map(str::to_owned);
        for value in set.chain(told).filter(|value| !has(&schema, value)) {
            unknown.push(format!("{}: {value}", page.path));
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// What `--set` names in a text.
fn set_values(text: &str) -> Vec<String> {
    let assignments = text.split("--set").skip(1);
    let assignments = assignments.filter_map(|rest| rest.strip_prefix([' ', '='])?.split_once('='));
    assignments.map(|(name, _)| name.trim_matches(['\'', '"']).to_owned()).collect()
}

/// Whether a span looks like a value of the chart: dotted words, the first of them a group of values.
fn is_value(schema: &Value, span: &str) -> bool {
    let name = span.split('=').next().unwrap_or_default();
    let mut parts = name.split('.');
    let is_group = parts.next().is_some_and(|first| schema["properties"][first]["properties"].is_object());
    let is_word = |part: &str| !part.is_empty() && part.chars().all(|symbol| symbol.is_ascii_alphanumeric());
    let rest: Vec<&str> = parts.collect();
    is_group && !rest.is_empty() && rest.iter().all(|part| is_word(part)) && !["env", "rs", "yaml"].contains(&rest[0])
}

/// Whether the schema has a value of this name. Below a value of any form, everything goes.
pub fn has(schema: &Value, name: &str) -> bool {
    let name = name.split('=').next().unwrap_or_default();
    let mut node = schema;
    for part in name.split('.') {
        let Some(properties) = node["properties"].as_object() else { return true };
        match properties.get(part) {
            Some(next) => node = next,
            None => return false,
        }
    }
    true
}

#[test]
fn fields_are_fields_of_one_of_the_kinds() {
    let reference = read("docs/reference/fields.md");
    let fields = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let fields: BTreeSet<String> = fields.map(|field| field.replace("[]", "").replace("{}", "")).collect();
    assert!(fields.contains("spec.slices.cpu.min"), "{fields:?}");
    let mut unknown = Vec::new();
    for page in all().iter().filter(|page| page.path != "docs/reference/fields.md") {
        for span in page.spans().filter(|span| span.starts_with("spec.") || span.starts_with("status.")) {
            let field = span.split([':', ' ', '=']).next().unwrap_or_default().replace("[]", "");
            if !field.contains('[') && !fields.contains(&field) {
                unknown.push(format!("{}: {span}", page.path));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn files_of_the_source_are_there() {
    let mut missing = Vec::new();
    for page in all() {
        for text in page.blocks().map(|(_, text)| text).chain(page.spans()) {
            for word in text.split(|symbol: char| symbol.is_whitespace() || "'\"`()[],;".contains(symbol)) {
                let is_ours = FOLDERS.iter().any(|folder| word.starts_with(folder));
                let is_pattern = word.contains(['*', '{', '$', '…']) || word.contains("NAME");
                if is_ours && !is_pattern && !root().join(word.trim_end_matches(['.', ':'])).exists() {
                    missing.push(format!("{}: {word}", page.path));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
