//! Decides what service units mean as services of a topology, and in which order their slices start.

use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::{TopologyName, UnitKind, UnitName};
use serde_json::{Map, Value, json};

use super::notes::{Kind, Notes};
use super::unit::{Placed, Unit};
use super::values::Unfit;
use super::{limits, own, values};

/// Which slices start after which.
type Order = BTreeMap<String, BTreeSet<String>>;

/// The services that can run inside a slice of the topology, and the order that their units ask for.
pub(super) fn services(
    name: &TopologyName,
    units: &BTreeMap<UnitName, Unit>,
    notes: &mut Notes,
) -> (Vec<Value>, Order) {
    let prefix = format!("{}-", own(name));
    let mut slice_of: BTreeMap<&UnitName, String> = BTreeMap::new();
    for unit in units.values().filter(|unit| unit.name.kind() == UnitKind::Service) {
        match slice(unit, &prefix) {
            Some(slice) => drop(slice_of.insert(&unit.name, slice)),
            None => notes.unit(unit, Kind::NoPlace, "it runs in no slice of the topology", "give it Slice="),
        }
    }
    let mut services = Vec::new();
    let mut order = Order::new();
    for (unit, slice) in &slice_of {
        let unit = &units[*unit];
        order.entry(slice.clone()).or_default().extend(earlier(unit, slice, &slice_of, notes));
        let name = unit.name.stem().strip_prefix(prefix.as_str()).unwrap_or(unit.name.stem());
        services.extend(service(unit, name, slice, notes));
    }
    (services, order)
}

fn slice(unit: &Unit, prefix: &str) -> Option<String> {
    let slice = unit.last("Slice")?.value.strip_suffix(".slice")?;
    let slice = slice.strip_prefix(prefix)?;
    (!slice.contains('-')).then(|| slice.to_owned())
}

/// The slices whose services this one starts after.
fn earlier(unit: &Unit, slice: &str, slice_of: &BTreeMap<&UnitName, String>, notes: &mut Notes) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for setting in unit.within("Unit", "After") {
        for other in setting.value.split_whitespace() {
            match UnitName::new(other).ok().and_then(|other| slice_of.get(&other)) {
                Some(other) if other != slice => {
                    found.insert(other.clone());
                }
                Some(_) => {
                    let why = "an order inside a slice";
                    notes.setting(setting, Kind::NoPlace, why, "services of a slice start in the order of the list");
                }
                None => {}
            }
        }
    }
    found
}

fn service(unit: &Unit, name: &str, slice: &str, notes: &mut Notes) -> Option<Value> {
    let mut value = Map::new();
    value.insert("name".into(), name.into());
    value.insert("slice".into(), slice.into());
    value.insert("command".into(), json!(command(unit, notes)?));
    let user = match unit.last("User") {
        Some(setting) => notes.value(setting, user),
        None => {
            notes.unit(unit, Kind::NoPlace, AS_ROOT, "give it User=");
            None
        }
    };
    if let Some(user) = user {
        value.insert("user".into(), user.into());
    }
    if let Some(directory) = unit.last("WorkingDirectory").and_then(|setting| notes.value(setting, directory)) {
        value.insert("workingDirectory".into(), directory.into());
    }
    let files = env_files(unit, notes);
    if !files.is_empty() {
        value.insert("envFiles".into(), files.into());
    }
    let env = env(unit, notes);
    if !env.is_empty() {
        value.insert("env".into(), env.into());
    }
    value.insert("restart".into(), restart(unit, notes));
    let (memory, tasks) = limits(unit, notes);
    if !memory.is_empty() {
        value.insert("memory".into(), memory.into());
    }
    if let Some(tasks) = tasks {
        value.insert("tasks".into(), tasks);
    }
    let rlimits = rlimits(unit, notes);
    if !rlimits.is_empty() {
        value.insert("rlimits".into(), rlimits.into());
    }
    unit.settings().iter().for_each(|setting| tell(unit, setting, notes));
    Some(value.into())
}

fn command(unit: &Unit, notes: &mut Notes) -> Option<Vec<String>> {
    let commands = unit.all("ExecStart");
    let [setting] = commands.as_slice() else {
        let why = if commands.is_empty() { "it has no ExecStart=" } else { "it has several commands" };
        notes.unit(unit, Kind::NoPlace, why, "a service is one command; keep the unit beside the topology");
        return None;
    };
    let text = setting.value.trim_start_matches(['-', ':', '+', '!', '@']);
    if text != setting.value {
        let now = "a topology's command has no prefix";
        notes.setting(setting, Kind::NoPlace, "prefixes such as - and + are systemd's", now);
    }
    let words = notes.value(setting, |_| values::words(text))?;
    if words.iter().any(|word| word.replace("$$", "").contains('$')) {
        let why = "variables in a command are expanded by systemd, a topology is taken literally";
        notes.setting(setting, Kind::Changed, why, "write the values out, or the service restarts without them");
    }
    if let Some(place) = words.iter().position(|word| word.starts_with('#')).filter(|place| *place > 0) {
        let why = "a comment behind a command is arguments of the program";
        notes.setting(
            setting,
            Kind::Changed,
            why,
            &format!("argument {place} and all behind it come over as they are"),
        );
    }
    Some(words.into_iter().map(|word| word.replace("$$", "$")).collect())
}

const AS_ROOT: &str = "a topology runs nothing as root";

fn user(text: &str) -> Result<String, Unfit> {
    if text == "root" {
        return Err(Unfit::NoPlace(AS_ROOT, "write an unprivileged user"));
    }
    let is_plain = text.chars().all(|character| character.is_ascii_alphanumeric() || "_-.".contains(character));
    if is_plain { Ok(text.to_owned()) } else { Err(Unfit::Invalid("it is no name of a user")) }
}

fn directory(text: &str) -> Result<String, Unfit> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err(Unfit::NoPlace("only an absolute directory can be asked for", "write it out in workingDirectory"))
}

fn env_files(unit: &Unit, notes: &mut Notes) -> Vec<Value> {
    let mut files = Vec::new();
    for setting in unit.all("EnvironmentFile") {
        let path = setting.value.trim_start_matches('-');
        if path != setting.value {
            let why = "a topology's file must be there";
            notes.setting(setting, Kind::Changed, why, "where it is missing the service is not written; make it");
        }
        files.push(json!({ "path": path }));
    }
    files
}

fn env(unit: &Unit, notes: &mut Notes) -> Vec<Value> {
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for setting in unit.all("Environment") {
        for word in notes.value(setting, values::words).unwrap_or_default() {
            match word.split_once('=') {
                Some((name, value)) => drop(variables.insert(name.to_owned(), value.to_owned())),
                None => notes.setting(setting, Kind::NeverHadAnEffect, "it assigns nothing", "left out"),
            }
        }
    }
    if !variables.is_empty() && !unit.all("EnvironmentFile").is_empty() {
        let setting = unit.all("Environment")[0];
        let why = "in a unit file EnvironmentFile= wins, in a topology env does";
        notes.setting(setting, Kind::Changed, why, "leave out what a file sets as well");
    }
    variables.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
}

fn restart(unit: &Unit, notes: &mut Notes) -> Value {
    let policy = unit.last("Restart").map_or("Never", |setting| match setting.value.as_str() {
        "always" => "Always",
        "on-failure" => "OnFailure",
        "no" => "Never",
        _ => {
            let why = "a topology restarts always, on failure or never";
            notes.setting(setting, Kind::Changed, why, "restart.policy: OnFailure");
            "OnFailure"
        }
    });
    let delay = unit.last("RestartSec").and_then(|setting| notes.value(setting, values::seconds));
    match delay {
        Some(delay) => json!({ "policy": policy, "delay": format!("{delay}s") }),
        None => json!({ "policy": policy }),
    }
}

fn rlimits(unit: &Unit, notes: &mut Notes) -> Map<String, Value> {
    let mut limits = Map::new();
    for (key, field) in [("LimitNOFILE", "nofile"), ("LimitNPROC", "nproc")] {
        let setting = unit.last(key);
        if let Some(count) = setting.and_then(|setting| notes.value(setting, limit).flatten()) {
            limits.insert(field.into(), count.into());
        }
    }
    for (key, field) in [("LimitMEMLOCK", "memlock"), ("LimitCORE", "core")] {
        let setting = unit.last(key);
        if let Some(bytes) = setting.and_then(|setting| notes.value(setting, limit).flatten()) {
            limits.insert(field.into(), lamina_crds::Bytes::new(bytes).to_string().into());
        }
    }
    limits
}

fn limit(text: &str) -> Result<Option<u64>, Unfit> {
    const OTHER: &str = "write one number in rlimits";
    match text.split_once(':') {
        Some((soft, hard)) if soft == hard => limit(soft),
        Some(_) => Err(Unfit::NoPlace("a topology's soft and hard limits are the same", OTHER)),
        None if text == "infinity" => Err(Unfit::NoPlace("a topology cannot ask for no limit", OTHER)),
        None => values::size(text),
    }
}

/// Keys of `[Service]` that come over, or that say the same as a topology does anyway.
const KNOWN: [&str; 25] = [
    "Environment",
    "EnvironmentFile",
    "ExecStart",
    "LimitCORE",
    "LimitMEMLOCK",
    "LimitNOFILE",
    "LimitNPROC",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMax",
    "MemoryMin",
    "MemorySwapMax",
    "NUMAMask",
    "NUMAPolicy",
    "CPUAffinity",
    "Restart",
    "RestartSec",
    "Slice",
    "StandardError",
    "StandardOutput",
    "SyslogIdentifier",
    "TasksMax",
    "Type",
    "User",
    "WorkingDirectory",
];

/// Tells what does not come over.
fn tell(unit: &Unit, setting: &Placed, notes: &mut Notes) {
    let value = setting.value.as_str();
    let mut no_place = |why: &str, now: &str| notes.setting(setting, Kind::NoPlace, why, now);
    match (setting.section.as_str(), setting.key.as_str()) {
        ("Service", "Type") if !["simple", "exec"].contains(&value) => {
            no_place("a topology's service counts as started when its program runs", "Type=exec");
        }
        ("Service", "CPUAffinity") => {
            no_place("a service has the CPUs of its slice", "left out; its process restarts to get all of them");
        }
        ("Service", "NUMAPolicy" | "NUMAMask") => {
            no_place("a policy belongs to a slice", "left out; write memory.policy of the slice");
        }
        ("Service", "StandardOutput" | "StandardError") if !["journal", "inherit", ""].contains(&value) => {
            no_place("a topology's services write to the journal", "left out");
        }
        ("Service", key) if KNOWN.contains(&key) || key.ends_with("Accounting") => {}
        ("Service", "Group") if unit.last("User").is_some_and(|user| user.value == value) => {}
        ("Service", _) => {
            no_place("a topology cannot ask for it", "left out; a running process keeps it until its next start")
        }
        ("Unit", "Description" | "Documentation" | "After" | "StartLimitIntervalSec" | "StartLimitBurst") => {}
        ("Unit", "Wants" | "Requires") if value.split(' ').all(|other| other.contains("network")) => {}
        ("Unit", _) => no_place("a topology orders slices, by startAfter, and nothing else", "left out"),
        ("Install", "WantedBy") if value == "multi-user.target" => {}
        ("Install", _) => no_place("a topology's services start with multi-user.target", "left out"),
        (_, _) => notes.setting(setting, Kind::NeverHadAnEffect, "a service has no such section", "left out"),
    }
}
