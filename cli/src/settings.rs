//! Decides what changes between two entries besides places, and what each change does to what runs.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::TopologyEntry;
use lamina_crds::host_state::{ResolvedEnv, ServiceEntry, SliceEntry};
use lamina_crds::slice_topology::{DeliveredFile, OnChange};
use serde::Serialize;
use serde_json::Value;

/// The longest value that is shown, in characters.
const LONGEST_VALUE: usize = 48;

/// One setting that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// The unit, or the file below the topology's directory.
    pub object: String,
    /// The field; empty for the whole object.
    pub field: String,
    /// What it is; nothing where it is not set.
    pub from: String,
    /// What it becomes; nothing where it is not set any more.
    pub to: String,
    /// What that does.
    pub effect: Effect,
}

/// What a change does to what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Effect {
    /// It holds at once, and nothing is restarted.
    Live,
    /// The service restarts.
    Restart,
    /// It waits until somebody restarts the service.
    Pending,
    /// It holds from the next start on, whenever that is.
    NextStart,
    /// A service is started.
    Start,
    /// A service is stopped and removed.
    Stop,
}

/// What would change, places left out. Nothing is said about an entry of which only places are known.
pub fn settings(before: &TopologyEntry, after: &TopologyEntry) -> Vec<Setting> {
    if before.revision.is_empty() {
        return Vec::new();
    }
    let slices = after.slices.iter().flat_map(|slice| slice_settings(before, slice));
    let files = file_settings(&before.files, &after.files);
    slices.chain(files).chain(service_settings(&before.services, &after.services)).collect()
}

fn slice_settings(before: &TopologyEntry, after: &SliceEntry) -> Vec<Setting> {
    let Some(before) = before.slices.iter().find(|slice| slice.unit == after.unit) else { return Vec::new() };
    let placed = ["unit", "startAfter", "cpus", "memoryNodes"];
    let changed = differences(&leaves(before), &leaves(after));
    let changed = changed.into_iter().filter(|(field, _, _)| !placed.contains(&field.as_str()));
    changed.map(|(field, from, to)| setting(after.unit.as_str(), field, from, to, Effect::Live)).collect()
}

fn file_settings(before: &[DeliveredFile], after: &[DeliveredFile]) -> Vec<Setting> {
    let contents = |files: &[DeliveredFile]| -> BTreeMap<String, String> {
        files.iter().map(|file| (file.name.to_string(), format!("{} bytes", file.content.len()))).collect()
    };
    let same = |name: &str| {
        let content = |files: &[DeliveredFile]| {
            files.iter().find(|file| file.name.as_str() == name).map(|file| file.content.clone())
        };
        content(before) == content(after)
    };
    let (from, to) = (contents(before), contents(after));
    let names: BTreeSet<&str> = from.keys().chain(to.keys()).map(String::as_str).collect();
    let changed = names.into_iter().filter(|name| !same(name));
    let text = |contents: &BTreeMap<String, String>, name: &str| contents.get(name).cloned().unwrap_or_default();
    changed.map(|name| setting(name, String::new(), text(&from, name), text(&to, name), Effect::Restart)).collect()
}

fn service_settings(before: &[ServiceEntry], after: &[ServiceEntry]) -> Vec<Setting> {
    let of = |services: &[ServiceEntry]| -> BTreeMap<String, ServiceEntry> {
        services.iter().map(|service| (service.unit.to_string(), service.clone())).collect()
    };
    let (before, after) = (of(before), of(after));
    let mut changed = Vec::new();
    for (unit, service) in &after {
        match before.get(unit) {
            None => changed.push(setting(unit, String::new(), String::new(), String::new(), Effect::Start)),
            Some(old) => {
                let fields = differences(&leaves(old), &leaves(service));
                changed.extend(fields.into_iter().map(|(field, from, to)| {
                    let effect = effect(&field, old, service);
                    setting(unit, field, from, to, effect)
                }));
            }
        }
    }
    let gone = before.keys().filter(|unit| !after.contains_key(*unit));
    changed.extend(gone.map(|unit| setting(unit, String::new(), String::new(), String::new(), Effect::Stop)));
    changed
}

/// Limits are live, and so is what systemd does when the service ends; values that follow from the host never restart; the
/// rest is up to the service's `onChange`.
fn effect(field: &str, before: &ServiceEntry, after: &ServiceEntry) -> Effect {
    let own = |service: &ServiceEntry| -> Vec<ResolvedEnv> {
        service.env.iter().filter(|variable| !variable.derived).cloned().collect()
    };
    if ["memory.", "tasks.", "restart."].iter().any(|live| field.starts_with(live)) {
        return Effect::Live;
    }
    if field == "onChange" || (field == "env" && own(before) == own(after)) {
        return Effect::NextStart;
    }
    match after.on_change {
        OnChange::Restart => Effect::Restart,
        OnChange::Never => Effect::Pending,
    }
}

fn setting(object: &str, field: String, from: String, to: String, effect: Effect) -> Setting {
    Setting { object: object.to_owned(), field, from, to, effect }
}

/// All fields that differ, with both values.
fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<(String, String, String)> {
    let fields: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let both = |field: &String| {
        let value = |fields: &BTreeMap<String, String>| fields.get(field).cloned().unwrap_or_default();
        (field.clone(), value(before), value(after))
    };
    fields.into_iter().map(both).filter(|(_, from, to)| from != to).collect()
}

/// The fields of a value by path; a list is one field.
fn leaves(value: &impl Serialize) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    collect("", &serde_json::to_value(value).unwrap_or_default(), &mut leaves);
    leaves
}

fn collect(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(&path, value, leaves);
            }
            return;
        }
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value.to_string(),
    };
    leaves.insert(path.to_owned(), text);
}

/// A value as it is shown: without control characters, cut where it is long.
pub fn shown(value: &str) -> String {
    let text: String = value.chars().take(LONGEST_VALUE).flat_map(char::escape_debug).collect();
    if value.chars().count() > LONGEST_VALUE { text + "…" } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_systemd_reads_when_a_service_ends_is_live() {
        let service = json!({ "unit": "shop-web.service", "slice": "shop-front.slice", "command": ["/bin/web"], "user": "web",
            "restart": { "policy": "OnFailure", "delay": "5s" }, "onChange": "Restart" });
        let service: ServiceEntry = serde_json::from_value(service).expect("a service");
        for (field, expected) in [
            ("restart.delay", Effect::Live),
            ("memory.max", Effect::Live),
            ("command", Effect::Restart),
            ("rlimits.nofile", Effect::Restart),
        ] {
            assert_eq!(effect(field, &service, &service), expected, "{field}");
        }
    }
}
