//! Decides what a JSON value means as one of our types, strictly: what is not known is a fault with a path, not a guess.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::rules::{Fault, shown};

/// Reads a value as a `T`. An unknown field, a wrong type or a value outside its alphabet is a fault whose path is
/// relative to `value`; see [`Fault::within`].
pub fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        fault(value, &path, &error.into_inner().to_string())
    })
}

fn fault(root: &Value, path: &str, message: &str) -> Fault {
    if let Some(field) = between(message, "unknown field `", "`") {
        return unknown_field(root, path, field, message);
    }
    let path = if path == "." { "" } else { path };
    let found = lookup(root, path).map(text_of).unwrap_or_default();
    if let Some(field) = between(message, "missing field `", "`") {
        return Fault::new(path, &found, &format!("the field `{field}` is required"), "add it");
    }
    let (rule, remedy) = message.rsplit_once("; ").unwrap_or((message, "write a value that the field accepts"));
    Fault::new(path, &found, rule, remedy)
}

fn unknown_field(root: &Value, path: &str, field: &str, message: &str) -> Fault {
    // The path ends at the field itself or at the object that holds it, depending on where serde noticed.
    let ends_there = path == field || path.ends_with(&format!(".{field}"));
    let path = match path {
        path if ends_there => path.to_owned(),
        "." | "" => field.to_owned(),
        path => format!("{path}.{field}"),
    };
    let found = lookup(root, &path).map(text_of).unwrap_or_default();
    let known = message.split('`').skip(3).step_by(2);
    let remedy = match known.min_by_key(|candidate| distance(candidate, field)) {
        Some(near) if distance(near, field) <= 2 => format!("did you mean `{near}`?"),
        _ => "remove it, or upgrade what reads it".to_owned(),
    };
    Fault::new(&path, &found, &format!("the field `{}` is not known to this version", shown(field)), &remedy)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// The value at a path such as `slices[1].cpu.set`.
fn lookup<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '[', ']']).filter(|part| !part.is_empty()).try_fold(root, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        Value::Object(fields) => fields.get(part),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Levenshtein's distance; names of fields are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{SliceTopologySpec, TopologyEntry};

    fn refused(spec: Value) -> String {
        decode::<SliceTopologySpec>(&spec).expect_err("a fault").to_string()
    }

    #[test]
    fn an_unknown_field_is_named_with_its_path_and_a_guess() {
        let spec = json!({ "hostSelector": {}, "slices": [{ "name": "a", "cpu": { "cors": 2 } }] });
        assert_eq!(
            refused(spec),
            "slices[0].cpu.cors is `2`: the field `cors` is not known to this version; did you mean `cores`?"
        );
        let spec = json!({ "hostSelector": {}, "slices": [], "execStartPre": "x" });
        assert_eq!(
            refused(spec),
            "execStartPre is `x`: the field `execStartPre` is not known to this version; remove it, or upgrade what reads it"
        );
    }

    #[test]
    fn a_value_outside_its_alphabet_is_told_with_rule_and_remedy() {
        let spec = json!({ "hostSelector": {}, "slices": [{ "name": "a", "cpu": { "set": "8-4" } }] });
        assert_eq!(refused(spec), "slices[0].cpu.set is `8-4`: CPU list `8-4`: range 8-4 is backwards; write 4-8");
        let spec = json!({ "hostSelector": {}, "slices": [{ "name": "a", "cpu": { "cores": "3" } }] });
        assert!(refused(spec).starts_with("slices[0].cpu.cores is `3`: invalid type: string \"3\", expected u32; "));
        assert_eq!(refused(json!({ "slices": [] })), "the field `hostSelector` is required; add it");
    }

    #[test]
    fn control_characters_never_reach_a_message() {
        let entry = json!({ "name": "a\u{202e}\nb", "state": "Present", "revision": "0", "generation": 1 });
        let told = decode::<TopologyEntry>(&entry).expect_err("a fault").to_string();
        assert!(!told.contains(['\n', '\u{202e}']), "{told}");
    }
}
