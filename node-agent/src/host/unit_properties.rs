//! Reads a unit's properties, as systemd sends them, into what we know of it. A property that this systemd does not have
//! is left at its default: no version has them all.

use zbus::Variant;

use crate::host::bus::PropertyMap;
use crate::host::{log_fields, start_properties};
use crate::numa::NumaPolicy;
use crate::observed::ObservedUnit;
use crate::property::{Properties, Property, Value};
use lamina_crds::{CpuSet, NodeSet};

/// What systemd says about a unit; the cgroup and the processes are not looked at here.
pub fn read(properties: &PropertyMap<'_>) -> ObservedUnit {
    let loaded_text = loaded_text(properties);
    ObservedUnit {
        load_state: text(properties, "LoadState"),
        active_state: text(properties, "ActiveState"),
        sub_state: text(properties, "SubState"),
        result: text(properties, "Result"),
        exit_status: match properties.get("ExecMainStatus") {
            Some(Variant::I32(status)) => *status,
            _ => 0,
        },
        restarts: number32(properties, "NRestarts"),
        need_reload: matches!(properties.get("NeedDaemonReload"), Some(Variant::Bool(true))),
        fragment_path: text(properties, "FragmentPath"),
        drop_in_paths: texts(properties, "DropInPaths"),
        unit_file_state: text(properties, "UnitFileState"),
        slice: text(properties, "Slice"),
        control_group: text(properties, "ControlGroup"),
        invocation: invocation(properties),
        main_pid: number32(properties, "MainPID"),
        active_since: number(properties, "ActiveEnterTimestampMonotonic").unwrap_or_default(),
        loaded: loaded(properties),
        numa: numa(properties),
        past: if loaded_text.is_none() { start_properties::read(properties) } else { None },
        loaded_text,
        ..ObservedUnit::default()
    }
}

/// One property of the Manager as text.
pub fn text(properties: &PropertyMap<'_>, name: &str) -> String {
    match properties.get(name) {
        Some(Variant::Str(text)) => text.as_str().to_owned(),
        _ => String::new(),
    }
}

/// One property that is a list of texts.
pub fn texts(properties: &PropertyMap<'_>, name: &str) -> Vec<String> {
    let Some(Variant::Array(array)) = properties.get(name) else { return Vec::new() };
    let text = |item: &Variant<'_>| match item {
        Variant::Str(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    array.inner().iter().filter_map(text).collect()
}

/// One property that is a number of 64 bits.
pub fn number(properties: &PropertyMap<'_>, name: &str) -> Option<u64> {
    match properties.get(name) {
        Some(Variant::U64(number)) => Some(*number),
        _ => None,
    }
}

fn number32(properties: &PropertyMap<'_>, name: &str) -> u32 {
    match properties.get(name) {
        Some(Variant::U32(number)) => *number,
        _ => 0,
    }
}

/// A list of bytes.
pub fn bytes(value: &Variant<'_>) -> Option<Vec<u8>> {
    let Variant::Array(array) = value else { return None };
    let byte = |item: &Variant<'_>| match item {
        Variant::U8(byte) => Some(*byte),
        _ => None,
    };
    array.inner().iter().map(byte).collect()
}

fn invocation(properties: &PropertyMap<'_>) -> String {
    let id = properties.get("InvocationID").and_then(bytes).unwrap_or_default();
    if id.iter().all(|byte| *byte == 0) { String::new() } else { id.iter().map(|byte| format!("{byte:02x}")).collect() }
}

fn loaded(properties: &PropertyMap<'_>) -> Properties {
    let value = |property: Property| Some((property, loaded_value(property, properties.get(property.key())?)?));
    Property::ALL.into_iter().filter_map(value).collect()
}

fn loaded_value(property: Property, value: &Variant<'_>) -> Option<Value> {
    match (property, value) {
        (Property::AllowedCpus, value) => Some(Value::Cpus(CpuSet::from_bus_bytes(&bytes(value)?))),
        (Property::AllowedMemoryNodes, value) => Some(Value::Nodes(NodeSet::from_bus_bytes(&bytes(value)?))),
        (Property::IoWeight, Variant::U64(u64::MAX)) => Some(Value::Default),
        (_, Variant::U64(u64::MAX)) => Some(Value::Infinity),
        (_, Variant::U64(number)) => Some(Value::Number(*number)),
        (_, _) => None,
    }
}

fn numa(properties: &PropertyMap<'_>) -> Option<NumaPolicy> {
    let Some(Variant::I32(policy)) = properties.get("NUMAPolicy") else { return None };
    let mask = properties.get("NUMAMask").and_then(bytes).unwrap_or_default();
    NumaPolicy::from_bus(*policy, &mask)
}

fn loaded_text(properties: &PropertyMap<'_>) -> Option<crate::desired::TextDigests> {
    let Some(Variant::Array(array)) = properties.get("LogExtraFields") else { return None };
    let fields: Vec<Vec<u8>> = array.inner().iter().filter_map(bytes).collect();
    log_fields::digests(fields.iter().map(Vec::as_slice))
}

/// A managed value as `SetUnitProperties` takes it.
pub fn to_bus(property: Property, value: &Value) -> (&'static str, Variant<'static>) {
    let value = match value {
        Value::Cpus(cpus) => Variant::from(cpus.to_bus_bytes()),
        Value::Nodes(nodes) => Variant::from(nodes.to_bus_bytes()),
        Value::Number(number) => Variant::from(*number),
        Value::Infinity | Value::Default => Variant::from(u64::MAX),
    };
    (property.key(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_properties_become_what_we_know_of_it() {
        let properties = PropertyMap::from([
            ("LoadState", Variant::from("loaded")),
            ("MainPID", Variant::from(7_u32)),
            ("ExecMainStatus", Variant::from(203_i32)),
            ("InvocationID", Variant::from(vec![0xab_u8; 16])),
            ("MemoryMax", Variant::from(u64::MAX)),
            ("MemoryHigh", Variant::from(4096_u64)),
            ("IOWeight", Variant::from(u64::MAX)),
            ("AllowedCPUs", Variant::from(vec![0x00_u8, 0xff, 0, 0])),
            ("DropInPaths", Variant::from(vec!["/etc/a.conf"])),
            ("NUMAPolicy", Variant::from(2_i32)),
            ("NUMAMask", Variant::from(vec![0x02_u8])),
            (
                "LogExtraFields",
                Variant::from(vec![
                    b"LAMINA_TEXT=a".to_vec(),
                    b"LAMINA_START=b".to_vec(),
                    b"LAMINA_DERIVED=c".to_vec(),
                ]),
            ),
        ]);
        let unit = read(&properties);
        assert_eq!((unit.load_state.as_str(), unit.main_pid, unit.exit_status), ("loaded", 7, 203));
        assert_eq!(unit.invocation, "ab".repeat(16));
        assert_eq!(unit.loaded[&Property::MemoryMax], Value::Infinity);
        assert_eq!(unit.loaded[&Property::MemoryHigh], Value::Number(4096));
        assert_eq!(unit.loaded[&Property::IoWeight], Value::Default);
        assert_eq!(unit.loaded[&Property::AllowedCpus], Value::Cpus("8-15".parse().expect("list")));
        assert_eq!(unit.drop_in_paths, ["/etc/a.conf"]);
        assert_eq!(unit.numa.expect("a policy").to_string(), "NUMAPolicy=bind NUMAMask=1");
        assert_eq!(unit.loaded_text.map(|digests| digests.start).as_deref(), Some("b"));
    }

    #[test]
    fn a_unit_that_never_ran_has_no_invocation() {
        assert_eq!(read(&PropertyMap::from([("InvocationID", Variant::from(vec![0_u8; 16]))])).invocation, "");
        assert_eq!(read(&PropertyMap::new()).invocation, "");
    }

    #[test]
    fn what_is_sent_reads_back_the_same() {
        let cpus = Value::Cpus("3-6,10".parse().expect("list"));
        let (name, sent) = to_bus(Property::AllowedCpus, &cpus);
        assert_eq!((name, bytes(&sent)), ("AllowedCPUs", Some(vec![0x78, 0x04])));
        assert_eq!(loaded_value(Property::AllowedCpus, &sent), Some(cpus));
    }
}
