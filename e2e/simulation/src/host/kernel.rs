//! The third layer of a host: cgroups with what was written to them, and what the kernel makes of it through all
//! ancestors. Impossible lists of CPUs or nodes are refused by the kernel and leave what was there: pinning fails open.

use std::collections::BTreeMap;

use lamina_crds::{CpuSet, NodeSet};
use lamina_node_agent::property::{Properties, Property, Value};

/// All cgroups below the root, by path (`/a.slice/a-b.slice`), with what their files hold.
#[derive(Clone, Debug, Default)]
pub struct Cgroups {
    groups: BTreeMap<String, Properties>,
}

/// The CPUs and memory nodes of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that are there, switched on or not.
    pub present: CpuSet,
    /// CPUs that run.
    pub online: CpuSet,
    /// The CPUs of each NUMA node, by number. Every node has memory.
    pub nodes: Vec<CpuSet>,
}

impl Machine {
    /// The numbers of all memory nodes.
    pub fn memory_nodes(&self) -> NodeSet {
        (0..self.nodes.len() as u32).collect()
    }
}

impl Cgroups {
    /// Makes a cgroup; one that is there already keeps its values.
    pub fn make(&mut self, path: &str) {
        if !self.groups.contains_key(path) {
            self.groups.insert(path.to_owned(), Properties::new());
        }
    }

    /// Removes a cgroup and everything below.
    pub fn remove(&mut self, path: &str) {
        let inside = format!("{path}/");
        self.groups.retain(|group, _| group != path && !group.starts_with(&inside));
    }

    /// What the files of a cgroup hold; `None` if there is no such cgroup.
    pub fn values(&self, path: &str) -> Option<&Properties> {
        self.groups.get(path)
    }

    /// write(2) to a file of a cgroup. A list with one absent number is refused as a whole.
    pub fn write(&mut self, machine: &Machine, path: &str, property: Property, value: &Value) -> Result<(), Refused> {
        let group = self.groups.get_mut(path).ok_or(Refused)?;
        match value {
            Value::Cpus(cpus) if !cpus.is_subset(&machine.present) => return Err(Refused),
            Value::Nodes(nodes) if !nodes.is_subset(&machine.memory_nodes()) => return Err(Refused),
            // Kernel 6.1 does not take the last list away from a cgroup with processes.
            Value::Cpus(cpus) if cpus.is_empty() => return Err(Refused),
            Value::Nodes(nodes) if nodes.is_empty() => return Err(Refused),
            Value::Number(bytes) if property.is_memory() => {
                group.insert(property, Value::Number(bytes & !4095));
            }
            Value::Cpus(_) | Value::Nodes(_) | Value::Number(_) | Value::Infinity | Value::Default => {
                group.insert(property, value.clone());
            }
        }
        Ok(())
    }

    /// `cpuset.cpus.effective`: what every ancestor leaves of it. A level that would leave nothing gives what is above.
    pub fn effective_cpus(&self, machine: &Machine, path: &str) -> CpuSet {
        self.narrowed(path, Property::AllowedCpus).fold(machine.online.clone(), |above, value| match value {
            Value::Cpus(own) if !own.is_disjoint(&above) => own.intersection(&above),
            Value::Cpus(_) | Value::Nodes(_) | Value::Number(_) | Value::Infinity | Value::Default => above,
        })
    }

    /// `cpuset.mems.effective`, likewise.
    pub fn effective_nodes(&self, machine: &Machine, path: &str) -> NodeSet {
        self.narrowed(path, Property::AllowedMemoryNodes).fold(machine.memory_nodes(), |above, value| match value {
            Value::Nodes(own) if !own.is_disjoint(&above) => own.intersection(&above),
            Value::Cpus(_) | Value::Nodes(_) | Value::Number(_) | Value::Infinity | Value::Default => above,
        })
    }

    /// The values of a property from the root down to the cgroup, where one is set.
    fn narrowed<'a>(&'a self, path: &'a str, property: Property) -> impl Iterator<Item = &'a Value> {
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
        ends.filter_map(move |end| self.groups.get(&path[..end])?.get(&property))
    }

    /// Forgets everything: a reboot.
    pub fn clear(&mut self) {
        self.groups.clear();
    }
}

/// The kernel did not take a value (ERANGE, EINVAL, ENOSPC), or there is no such cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let set = |text: &str| text.parse::<CpuSet>().expect("legal");
        Machine { present: set("0-7"), online: set("0-6"), nodes: vec![set("0-3"), set("4-7")] }
    }

    fn cpus(text: &str) -> Value {
        Value::Cpus(text.parse().expect("legal"))
    }

    #[test]
    fn ancestors_narrow_and_a_disjoint_list_fails_open() {
        let (mut groups, machine) = (Cgroups::default(), machine());
        groups.make("/a.slice");
        groups.make("/a.slice/x.service");
        let set = |groups: &mut Cgroups, path, text| groups.write(&machine, path, Property::AllowedCpus, &cpus(text));
        assert_eq!(set(&mut groups, "/a.slice", "2-5"), Ok(()));
        assert_eq!(groups.effective_cpus(&machine, "/a.slice/x.service").to_string(), "2-5");
        assert_eq!(set(&mut groups, "/a.slice/x.service", "5-7"), Ok(()));
        assert_eq!(groups.effective_cpus(&machine, "/a.slice/x.service").to_string(), "5");
        assert_eq!(set(&mut groups, "/a.slice/x.service", "0-1"), Ok(()));
        assert_eq!(groups.effective_cpus(&machine, "/a.slice/x.service").to_string(), "2-5");
    }

    #[test]
    fn one_absent_cpu_voids_the_whole_list() {
        let (mut groups, machine) = (Cgroups::default(), machine());
        groups.make("/a.slice");
        assert_eq!(groups.write(&machine, "/a.slice", Property::AllowedCpus, &cpus("6-9")), Err(Refused));
        assert_eq!(groups.effective_cpus(&machine, "/a.slice").to_string(), "0-6");
    }
}
