//! Decides what a text means: topologies, hosts with what they are and run, plans. YAML and JSON alike, lists and many
//! documents in one text. Strict: the words are those of the operator.

use std::collections::BTreeMap;
use std::fmt;

use lamina_crds::decode::decode;
use lamina_crds::host_state::{EntryState, SliceEntry};
use lamina_crds::rules::{Fault, hardware_faults, topology_faults};
use lamina_crds::slice_topology::Adoption;
use lamina_crds::wishes::Migration;
use lamina_crds::{CpuSet, Hardware, NodeSet, SliceTopologySpec, TopologyEntry, TopologyName, UnitName};
use serde::Deserialize;
use serde_json::Value;

/// A topology as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// Its name.
    pub name: TopologyName,
    /// What it asks for.
    pub spec: SliceTopologySpec,
}

/// A host as a document tells of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Its name; nothing where the document has none.
    pub name: String,
    /// What it is; a plan does not say.
    pub hardware: Option<Hardware>,
    /// What it holds, by topology. Of what a plan tells there are slices only, without a revision.
    pub entries: BTreeMap<TopologyName, TopologyEntry>,
    /// CPUs kept free of slices, as far as a plan says so.
    pub housekeeping: CpuSet,
}

/// Why a text is not understood: every fault in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(formatter, "{only}");
        }
        write!(formatter, "{} rules are broken", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(formatter, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

/// The topologies of a text. Other kinds in it are left out, for files that hold more than topologies.
///
/// # Errors
/// Every rule that a topology breaks, in the words of the operator.
pub fn topologies(text: &str) -> Result<Vec<Topology>, Faults> {
    let objects = objects(text)?;
    let (mut read, mut faults) = (Vec::new(), Vec::new());
    for object in objects.iter().filter(|object| kind(object) == "SliceTopology") {
        match topology(object) {
            Ok(topology) => read.push(topology),
            Err(Faults(more)) => faults.extend(more),
        }
    }
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    if read.is_empty() {
        return Err(only("kind", &kinds(&objects), "a SliceTopology is needed", "write kind: SliceTopology"));
    }
    Ok(read)
}

/// The hosts of a text: HostStates, the inventory that `hardware` prints, or a plan.
///
/// # Errors
/// Names what is not understood.
pub fn hosts(text: &str) -> Result<Vec<Host>, Faults> {
    let objects = objects(text)?;
    let mut hosts = Vec::new();
    for object in &objects {
        match kind(object).as_str() {
            "HostState" => hosts.push(host_state(object)?),
            "Plan" => hosts.extend(plan(object)?),
            "" if object.get("cpus").is_some() => {
                let hardware: Hardware = decode(object).map_err(|fault| Faults(vec![fault]))?;
                sound(&hardware, "")?;
                hosts.push(Host { hardware: Some(hardware), ..Host::default() });
            }
            _ => {}
        }
    }
    if hosts.is_empty() {
        let rule = "a host is needed";
        return Err(only(
            "kind",
            &kinds(&objects),
            rule,
            "give a HostState, a plan, or what `hardware -o json` prints",
        ));
    }
    Ok(hosts)
}

fn topology(object: &Value) -> Result<Topology, Faults> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let version = object["apiVersion"].as_str().unwrap_or_default();
    if version != "lamina.dev/v1alpha1" {
        let rule = "this version of the kind is not known";
        return Err(only("apiVersion", version, rule, "write apiVersion: lamina.dev/v1alpha1"));
    }
    let name = TopologyName::new(name).map_err(|error| {
        let told = error.to_string();
        let (rule, remedy) = told.rsplit_once("; ").unwrap_or((&told, "choose another name"));
        only("metadata.name", name, rule, remedy)
    })?;
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let spec: SliceTopologySpec = decode(spec).map_err(|fault| Faults(vec![fault.within("spec")]))?;
    match topology_faults(name.as_str(), &spec) {
        faults if faults.is_empty() => Ok(Topology { name, spec }),
        faults => Err(Faults(faults)),
    }
}

fn host_state(object: &Value) -> Result<Host, Faults> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let told = |fault: Fault, path: &str| Faults(vec![fault.within(path)]);
    let hardware = object["status"].get("hardware");
    let hardware: Option<Hardware> =
        hardware.map(decode).transpose().map_err(|fault| told(fault, "status.hardware"))?;
    if let Some(hardware) = &hardware {
        sound(hardware, "status.hardware")?;
    }
    let entries = object["spec"].get("topologies").cloned().unwrap_or(Value::Array(Vec::new()));
    let entries: Vec<TopologyEntry> = decode(&entries).map_err(|fault| told(fault, "spec.topologies"))?;
    let entries = entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    Ok(Host { name, hardware, entries, housekeeping: CpuSet::new() })
}

/// Whether an inventory can be that of a machine.
fn sound(hardware: &Hardware, path: &str) -> Result<(), Faults> {
    let faults = hardware_faults(hardware).into_iter();
    let faults: Vec<Fault> = faults.map(|fault| if path.is_empty() { fault } else { fault.within(path) }).collect();
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

/// What is read of a plan; it may say more.
#[derive(Deserialize)]
struct PlanText {
    hosts: Vec<PlanHost>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlanHost {
    host: String,
    #[serde(default)]
    housekeeping: CpuSet,
    #[serde(default)]
    slices: Vec<PlanSlice>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlanSlice {
    topology: TopologyName,
    unit: UnitName,
    cpus: CpuSet,
    #[serde(default)]
    memory_nodes: Option<NodeSet>,
}

fn plan(object: &Value) -> Result<Vec<Host>, Faults> {
    let PlanText { hosts } = decode(object).map_err(|fault| Faults(vec![fault]))?;
    Ok(hosts.into_iter().map(planned_host).collect())
}

fn planned_host(PlanHost { host, housekeeping, slices }: PlanHost) -> Host {
    let mut entries: BTreeMap<TopologyName, TopologyEntry> = BTreeMap::new();
    for PlanSlice { topology, unit, cpus, memory_nodes } in slices.into_iter().filter(|slice| !slice.cpus.is_empty()) {
        let entry = entries.entry(topology.clone()).or_insert_with(|| bare_entry(topology));
        entry.slices.push(bare_slice(unit, cpus, memory_nodes));
    }
    Host { name: host, hardware: None, entries, housekeeping }
}

/// An entry of which nothing is known but that it is there.
pub fn bare_entry(name: TopologyName) -> TopologyEntry {
    TopologyEntry {
        name,
        state: EntryState::Present,
        revision: String::new(),
        generation: 0,
        adoption: Adoption::default(),
        files: Vec::new(),
        slices: Vec::new(),
        services: Vec::new(),
    }
}

/// A slice of which nothing is known but its place.
pub fn bare_slice(unit: UnitName, cpus: CpuSet, memory_nodes: Option<NodeSet>) -> SliceEntry {
    SliceEntry {
        unit,
        start_after: Vec::new(),
        cpus,
        memory_nodes,
        memory_policy: None,
        migrate: Migration::default(),
        memory: None,
        io: None,
        tasks: None,
    }
}

/// All objects of a text; lists, such as `kubectl get -o yaml` prints, are taken apart.
fn objects(text: &str) -> Result<Vec<Value>, Faults> {
    let unreadable = |error: String| only("", "", &format!("this is neither YAML nor JSON: {error}"), "correct it");
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| unreadable(error.to_string()))?;
        match value {
            Value::Null => {}
            mut list if kind(&list).ends_with("List") && list["items"].is_array() => {
                objects.extend(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
            }
            Value::Array(items) => objects.extend(items),
            object => objects.push(object),
        }
    }
    Ok(objects)
}

fn kind(object: &Value) -> String {
    object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn kinds(objects: &[Value]) -> String {
    objects.iter().map(kind).filter(|kind| !kind.is_empty()).collect::<Vec<_>>().join(", ")
}

fn only(path: &str, value: &str, rule: &str, remedy: &str) -> Faults {
    Faults(vec![Fault::new(path, value, rule, remedy)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPOLOGY: &str = "apiVersion: lamina.dev/v1alpha1\nkind: SliceTopology\nmetadata: { name: web }\n\
        spec: { hostSelector: { matchLabels: { a: b } }, slices: [{ name: front, cpu: { cores: 1 } }] }\n";

    fn told(result: Result<Vec<Topology>, Faults>) -> String {
        result.expect_err("it must be refused").to_string()
    }

    #[test]
    fn several_documents_and_lists_are_read_and_other_kinds_left_out() {
        let indented = TOPOLOGY.replace('\n', "\n    ").replace("web", "shop");
        let text =
            format!("kind: ConfigMap\n---\n{TOPOLOGY}---\n---\nkind: List\nitems:\n  - {}\n", indented.trim_end());
        let names: Vec<String> =
            topologies(&text).expect("legal").iter().map(|topology| topology.name.to_string()).collect();
        assert_eq!(names, ["web", "shop"]);
    }

    #[test]
    fn a_fault_names_field_value_rule_and_remedy() {
        let wrong = told(topologies(&TOPOLOGY.replace("cores: 1", "set: '7-3'")));
        assert_eq!(wrong, "spec.slices[0].cpu.set is `7-3`: CPU list `7-3`: range 7-3 is backwards; write 3-7");
        let wrong = told(topologies(&TOPOLOGY.replace("cores", "core")));
        assert!(wrong.contains("spec.slices[0].cpu.core") && wrong.contains("did you mean `cores`?"), "{wrong}");
        let wrong = told(topologies("kind: HostState"));
        assert_eq!(wrong, "kind is `HostState`: a SliceTopology is needed; write kind: SliceTopology");
        assert!(told(topologies("a: [")).starts_with("this is neither YAML nor JSON"));
        let wrong = told(topologies(&TOPOLOGY.replace("v1alpha1", "v9")));
        assert!(wrong.starts_with("apiVersion is `lamina.dev/v9`"), "{wrong}");
    }

    #[test]
    fn a_plan_tells_where_slices_are() {
        let text = r#"{"kind":"Plan","hosts":[{"host":"h","housekeeping":"0","slices":[
            {"topology":"web","unit":"web-front.slice","slice":"front","cpus":"1-3","memoryNodes":null}]}]}"#;
        let hosts = hosts(text).expect("legal");
        assert_eq!((hosts[0].name.as_str(), hosts[0].housekeeping.to_string().as_str()), ("h", "0"));
        assert_eq!(hosts[0].entries.values().next().expect("one").slices[0].cpus.to_string(), "1-3");
    }
}
