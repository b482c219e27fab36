//! Decides what the chart's values.yaml and the table of its README say, out of values.schema.json, which is the one
//! source of all three.

use anyhow::{Context, Result, bail};
use serde_yaml::Value;

/// Between these lines stands what is generated in the README.
const MARKERS: [&str; 2] = ["<!-- values: made by `make generate` -->\n", "<!-- end of values -->\n"];
const WIDTH: usize = 120;

/// One thing that users may set, or a section of such things.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its keys from the top.
    pub path: Vec<String>,
    /// What the schema says about it.
    pub description: String,
    /// Its default; none if it is a section.
    pub default: Option<Value>,
}

/// Everything that users may set, in the schema's order. What has neither default nor parts is for Helm alone.
pub fn entries(schema: &str) -> Result<Vec<Entry>> {
    // JSON is YAML, and this reader keeps the order of keys.
    let schema: Value = serde_yaml::from_str(schema).context("reading the schema")?;
    let mut all = Vec::new();
    collect(&schema, &mut Vec::new(), &mut all)?;
    Ok(all)
}

fn collect(section: &Value, path: &mut Vec<String>, all: &mut Vec<Entry>) -> Result<()> {
    for (key, node) in section["properties"].as_mapping().into_iter().flatten() {
        let key = key.as_str().context("a key is no text")?;
        path.push(key.to_owned());
        let name = path.join(".");
        let description =
            node["description"].as_str().with_context(|| format!("{name} has no description"))?.to_owned();
        let before = all.len();
        all.push(Entry { path: path.clone(), description, default: node.get("default").cloned() });
        if all[before].default.is_none() {
            collect(node, path, all)?;
            // Nothing of it can be set.
            if all.len() == before + 1 {
                all.pop();
            }
        }
        path.pop();
    }
    Ok(())
}

impl Entry {
    /// Its keys, joined by dots.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}

/// The text of values.yaml.
pub fn values(entries: &[Entry]) -> String {
    let mut text = "# Values of the Lamina chart. Unknown keys are refused.\n\
                    # Made by `make generate` from values.schema.json; do not edit.\n"
        .to_owned();
    for Entry { path, description, default } in entries {
        let indent = "  ".repeat(path.len() - 1);
        if path.len() == 1 {
            text.push('\n');
        }
        for line in wrapped(description, WIDTH - indent.len() - 2) {
            text.push_str(&format!("{indent}# {line}\n"));
        }
        let key = path.last().map(String::as_str).unwrap_or_default();
        let value = default.as_ref().map(|value| format!(" {}", flow(value))).unwrap_or_default();
        text.push_str(&format!("{indent}{key}:{value}\n"));
    }
    text
}

/// The README with its table renewed.
pub fn readme(former: &str, entries: &[Entry]) -> Result<String> {
    let [begin, end] = MARKERS;
    let (Some((head, _)), Some((_, tail))) = (former.split_once(begin), former.split_once(end)) else {
        bail!("the README has no lines {begin:?} and {end:?}");
    };
    let row = |entry: &Entry| {
        let default = entry.default.as_ref().map(|value| format!("`{}`", flow(value))).unwrap_or_default();
        format!("| `{}` | {default} | {} |\n", entry.name(), entry.description.replace('|', "\\|"))
    };
    let rows: String = entries.iter().map(row).collect();
    Ok(format!("{head}{begin}\n| Value | Default | Meaning |\n|---|---|---|\n{rows}\n{end}{tail}"))
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a first line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A value on one line, quoted only where YAML would take it for something else.
fn flow(value: &Value) -> String {
    match value {
        Value::Sequence(items) => format!("[{}]", joined(items.iter().map(flow))),
        Value::Mapping(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Mapping(fields) => {
            let field = |(key, value): (&Value, &Value)| format!("{}: {}", flow(key), flow(value));
            format!("{{ {} }}", joined(fields.iter().map(field)))
        }
        Value::String(text) if is_plain(text) => text.clone(),
        Value::String(text) => format!("{text:?}"),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null | Value::Tagged(_) => "null".to_owned(),
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn is_plain(text: &str) -> bool {
    let is_safe = |symbol: char| symbol.is_ascii_alphanumeric() || "/_.%-".contains(symbol);
    text.chars().all(is_safe) && serde_yaml::from_str(text).is_ok_and(|value: Value| value == text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "the committed files are what is compared")]

    use super::*;

    fn committed(name: &str) -> String {
        let path = format!("{}/../charts/lamina/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn schema() -> Value {
        serde_yaml::from_str(&committed("values.schema.json")).unwrap()
    }

    fn at<'a>(values: &'a Value, path: &[String]) -> Option<&'a Value> {
        path.iter().try_fold(values, |value, key| value.get(key))
    }

    /// Every key of a values file that is no part of an entry with a default.
    fn keys(values: &Value, above: &[String], leaves: &[Entry], all: &mut Vec<String>) {
        for (key, value) in values.as_mapping().into_iter().flatten() {
            let path = [above, &[key.as_str().unwrap().to_owned()]].concat();
            if value.as_mapping().is_none() || leaves.iter().any(|leaf| leaf.path == path) {
                all.push(path.join("."));
            } else {
                keys(value, &path, leaves, all);
            }
        }
    }

    /// Every node of the schema, also inside of definitions, with where it stands.
    fn nodes<'a>(place: String, node: &'a Value, all: &mut Vec<(String, &'a Value)>) {
        for keyword in ["properties", "definitions"] {
            for (key, child) in node[keyword].as_mapping().into_iter().flatten() {
                nodes(format!("{place}/{}", key.as_str().unwrap()), child, all);
            }
        }
        for keyword in ["items", "additionalProperties"] {
            if node[keyword].is_mapping() {
                nodes(format!("{place}/{keyword}"), &node[keyword], all);
            }
        }
        all.push((place, node));
    }

    #[test]
    fn the_committed_files_are_those_of_the_schema() {
        let entries = entries(&committed("values.schema.json")).unwrap();
        assert!(committed("values.yaml") == values(&entries), "values.yaml is not the schema's; run `make generate`");
        let former = committed("README.md");
        assert!(former == readme(&former, &entries).unwrap(), "the README is not the schema's; run `make generate`");
    }

    #[test]
    fn values_and_schema_know_the_same_keys() {
        let entries = entries(&committed("values.schema.json")).unwrap();
        let leaves: Vec<Entry> = entries.into_iter().filter(|entry| entry.default.is_some()).collect();
        let known: Vec<String> = leaves.iter().map(Entry::name).collect();
        assert!(known.len() > 40, "{known:?}");
        let defaults: Value = serde_yaml::from_str(&committed("values.yaml")).unwrap();
        let everything: Value = serde_yaml::from_str(&committed("ci/everything-values.yaml")).unwrap();
        for values in [&defaults, &everything] {
            let mut found = Vec::new();
            keys(values, &[], &leaves, &mut found);
            assert_eq!(found, known, "in the schema's order");
        }
        for leaf in &leaves {
            assert_eq!(at(&defaults, &leaf.path), leaf.default.as_ref(), "{}", leaf.name());
            let set = at(&everything, &leaf.path);
            // Switches are on there, whatever their default, so that what they switch is seen.
            let is_as_meant = match leaf.path.last().map(String::as_str) {
                // Two monitors at once are refused.
                Some("enabled") if leaf.name() == "monitoring.serviceMonitor.enabled" => true,
                Some("enabled") => set.and_then(Value::as_bool) == Some(true),
                _ => set != leaf.default.as_ref(),
            };
            assert!(is_as_meant, "{} is {set:?}", leaf.name());
        }
    }

    #[test]
    fn every_value_is_typed_and_bounded_and_nothing_else_is_let_in() {
        let (schema, mut all) = (schema(), Vec::new());
        nodes(String::new(), &schema, &mut all);
        for (place, node) in all {
            let is_free = place.ends_with("/global");
            let types: Vec<&str> = match &node["type"] {
                Value::Sequence(several) => several.iter().filter_map(Value::as_str).collect(),
                one => one.as_str().into_iter().collect(),
            };
            let refers = node["$ref"].is_string() || node["enum"].is_sequence();
            assert!(refers == types.is_empty(), "{place} has no type, or two kinds of it");
            for kind in types {
                let has = |keyword: &str| node.get(keyword).is_some();
                let is_bounded = match kind {
                    "object" => node["additionalProperties"] == false || has("maxProperties") || is_free,
                    "array" => has("maxItems") && has("items"),
                    "string" => has("maxLength"),
                    "integer" => has("minimum") && has("maximum"),
                    "boolean" => true,
                    other => panic!("{place}: {other}"),
                };
                assert!(is_bounded, "{place} has no bounds");
            }
        }
    }

    #[test]
    fn a_value_is_quoted_only_where_yaml_would_misread_it() {
        let cases = [("\"10%\"", "10%"), ("\"1\"", "\"1\""), ("\"true\"", "\"true\""), ("\"\"", "\"\"")];
        for (given, told) in cases.into_iter().chain([("{\"a\":[1,\"10m\"],\"b\":{}}", "{ a: [1, 10m], b: {} }")]) {
            assert_eq!(flow(&serde_yaml::from_str(given).unwrap()), told);
        }
    }

    #[test]
    fn comments_keep_to_the_width() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
    }
}
