//! Decides what one topology's entry for one host says: names, order, defaults and derived values filled in, so that
//! the agent has nothing left to choose.

use std::collections::BTreeMap;

use lamina_crds::conditions::Reason;
use lamina_crds::host_state::{
    EntryState, ResolvedEnv, ResolvedEnvFile, ResolvedMemoryPolicy, ResolvedRestart, ServiceEntry, SliceEntry,
};
use lamina_crds::names::NameError;
use lamina_crds::seconds::Seconds;
use lamina_crds::slice_request::{CpuRequest, Housekeeping, Neighbour, NumaRequest, SliceMemory};
use lamina_crds::slice_topology::{
    EnvFile, EnvVariable, ResourceLimits, ResourceValue, Restart, Service, ServiceDefaults, Slice,
};
use lamina_crds::text::EnvValue;
use lamina_crds::wishes::{Domain, MemoryPolicy, NodesFrom};
use lamina_crds::{
    Hardware, NodeSet, ServiceName, SliceName, SliceTopologySpec, TopologyEntry, TopologyName, UnitName,
};

use crate::placement::{Demand, HousekeepingWish, MemoryNodesWish, OrdinalWish, PlacedSlice, Relation, Wanted};
use crate::view::Refusal;

/// How long systemd waits before a restart when nobody says otherwise.
const RESTART_DELAY: Seconds = Seconds::new(5);

/// A topology with the names of its units.
pub struct Named<'a> {
    /// Its name.
    pub name: &'a TopologyName,
    /// Its spec.
    pub spec: &'a SliceTopologySpec,
    slices: BTreeMap<&'a SliceName, UnitName>,
    services: BTreeMap<&'a ServiceName, UnitName>,
}

impl<'a> Named<'a> {
    /// Names all units, or says which name cannot be borne.
    pub fn of(name: &'a TopologyName, spec: &'a SliceTopologySpec) -> Result<Self, Refusal> {
        let slice = |slice: &'a Slice| Ok((&slice.name, UnitName::of_slice(name, &slice.name).map_err(refused)?));
        let service =
            |service: &'a Service| Ok((&service.name, UnitName::of_service(name, &service.name).map_err(refused)?));
        UnitName::of_topology(name).map_err(refused)?;
        Ok(Self {
            name,
            spec,
            slices: spec.slices.iter().map(slice).collect::<Result<_, Refusal>>()?,
            services: spec.services.iter().map(service).collect::<Result<_, Refusal>>()?,
        })
    }

    /// The unit of one of its slices.
    pub fn unit_of(&self, slice: &SliceName) -> Option<&UnitName> {
        self.slices.get(slice)
    }

    /// What its slices ask of a host, in the order of the list.
    pub fn demands(&self) -> Vec<Demand> {
        self.spec.slices.iter().filter_map(|slice| self.demand(slice)).collect()
    }

    /// What it wants kept free of managed slices, if anything.
    pub fn housekeeping(&self) -> Option<HousekeepingWish> {
        let Housekeeping { set, cores, per } = self.spec.housekeeping.as_ref()?;
        match (set, cores) {
            (Some(set), _) => Some(HousekeepingWish::Set(set.clone())),
            (None, Some(count)) => Some(HousekeepingWish::Cores { count: *count, per: per.unwrap_or_default() }),
            (None, None) => None,
        }
    }

    fn demand(&self, slice: &Slice) -> Option<Demand> {
        let Slice { name, priority, start_after: _, cpu, numa, memory, io: _, tasks: _, isolation } = slice;
        let CpuRequest { set: _, on_missing: _, cores: _, cpus: _, min, share_with, siblings, core_type, align } = cpu;
        let numa = numa.clone().unwrap_or_default();
        let NumaRequest { ordinal, ordinal_policy, nodes, near, apart, near_devices } = numa;
        let policy = ordinal_policy.unwrap_or_default();
        Some(Demand {
            topology: self.name.clone(),
            slice: name.clone(),
            unit: self.slices.get(name)?.clone(),
            priority: priority.unwrap_or_default(),
            cpus: wanted(cpu),
            min: *min,
            share_with: share_with.as_ref().and_then(|other| self.slices.get(other).cloned()),
            siblings: siblings.unwrap_or_default(),
            core_type: core_type.unwrap_or_default(),
            align: align.clone(),
            ordinal: ordinal.map(|ordinal| OrdinalWish { ordinal, policy }),
            nodes,
            near: self.relations(&near),
            apart: self.relations(&apart),
            near_devices: near_devices.iter().map(ToString::to_string).collect(),
            memory_nodes: memory_nodes(memory.as_ref()),
            isolation: isolation.unwrap_or_default(),
        })
    }

    fn relations(&self, neighbours: &[Neighbour]) -> Vec<Relation> {
        let relation = |Neighbour { slice, domain, policy }: &Neighbour| {
            let unit = self.slices.get(slice)?.clone();
            Some(Relation { unit, domain: domain.unwrap_or(Domain::Node), policy: policy.unwrap_or_default() })
        };
        neighbours.iter().filter_map(relation).collect()
    }

    /// The entry for a host on which every slice has its place.
    pub fn entry(&self, host: &Place<'_>, generation: i64, placed: &BTreeMap<UnitName, PlacedSlice>) -> TopologyEntry {
        let order = start_order(&self.spec.slices);
        let slices = order.iter().filter_map(|slice| self.slice_entry(slice, host, placed)).collect();
        let of_slice = |slice: &'a Slice| self.spec.services.iter().filter(|service| service.slice == slice.name);
        let services = order.iter().flat_map(|slice| of_slice(slice));
        let entry = TopologyEntry {
            name: self.name.clone(),
            state: EntryState::Present,
            revision: String::new(),
            generation,
            adoption: self.spec.adoption.unwrap_or_default(),
            files: self.spec.files.clone(),
            slices,
            services: services.filter_map(|service| self.service_entry(service, host.name, placed)).collect(),
        };
        TopologyEntry { revision: entry.digest(), ..entry }
    }

    fn slice_entry(
        &self,
        slice: &Slice,
        host: &Place<'_>,
        placed: &BTreeMap<UnitName, PlacedSlice>,
    ) -> Option<SliceEntry> {
        let Slice { name, priority: _, start_after, cpu: _, numa: _, memory, io, tasks, isolation: _ } = slice;
        let unit = self.slices.get(name)?;
        let PlacedSlice { cpus, memory_nodes, .. } = placed.get(unit)?;
        let policy = memory.as_ref().and_then(|memory| memory.policy);
        Some(SliceEntry {
            unit: unit.clone(),
            start_after: start_after.iter().filter_map(|name| self.slices.get(name).cloned()).collect(),
            cpus: cpus.clone(),
            memory_nodes: memory_nodes.clone(),
            memory_policy: policy.and_then(|policy| resolved_policy(policy, memory_nodes.as_ref(), host.hardware)),
            migrate: memory.as_ref().and_then(|memory| memory.migrate).unwrap_or_default(),
            memory: memory.as_ref().and_then(SliceMemory::limits),
            io: *io,
            tasks: *tasks,
        })
    }

    fn service_entry(
        &self,
        service: &Service,
        host: &str,
        placed: &BTreeMap<UnitName, PlacedSlice>,
    ) -> Option<ServiceEntry> {
        let defaults = self.spec.service_defaults.clone().unwrap_or_default();
        let ServiceDefaults { user, env_files, env, restart, rlimits } = defaults;
        let slice = self.slices.get(&service.slice)?;
        let cpus = placed.get(slice)?.cpus.len();
        Some(ServiceEntry {
            unit: self.services.get(&service.name)?.clone(),
            slice: slice.clone(),
            command: service.command.clone(),
            user: service.user.clone().or(user)?,
            working_directory: service.working_directory.clone(),
            env_files: service.env_files.clone().or(env_files).unwrap_or_default().into_iter().map(env_file).collect(),
            env: merged_env(&env, &service.env, host, cpus),
            restart: merged_restart(restart, service.restart),
            memory: service.memory,
            tasks: service.tasks,
            rlimits: merged_rlimits(rlimits, service.rlimits),
            on_change: service.on_change.unwrap_or_default(),
        })
    }
}

/// A host on which a topology gets its place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its name.
    pub name: &'a str,
    /// What the machine is.
    pub hardware: &'a Hardware,
}

fn wanted(cpu: &CpuRequest) -> Wanted {
    match (&cpu.set, cpu.cores, cpu.cpus) {
        (Some(set), _, _) => Wanted::Set { cpus: set.clone(), on_missing: cpu.on_missing.unwrap_or_default() },
        (None, None, Some(cpus)) => Wanted::Cpus(cpus),
        // Rules refuse a request that says nothing.
        (None, cores, _) => Wanted::Cores(cores.unwrap_or(1)),
    }
}

fn memory_nodes(memory: Option<&SliceMemory>) -> MemoryNodesWish {
    let (from, nodes) = memory.map(|memory| (memory.nodes_from, memory.nodes.clone())).unwrap_or_default();
    match from.unwrap_or_default() {
        NodesFrom::Cpus => MemoryNodesWish::Cpus,
        NodesFrom::All => MemoryNodesWish::All,
        NodesFrom::List => MemoryNodesWish::List(nodes.unwrap_or_default()),
    }
}

/// The policy with the nodes it speaks of: those of the slice, all of the host where nothing is to be chosen.
fn resolved_policy(policy: MemoryPolicy, slice: Option<&NodeSet>, hardware: &Hardware) -> Option<ResolvedMemoryPolicy> {
    let all = || slice.cloned().unwrap_or_else(|| hardware.memory_nodes());
    let nodes = match policy {
        MemoryPolicy::Default | MemoryPolicy::Local => return Some(ResolvedMemoryPolicy { policy, nodes: None }),
        MemoryPolicy::Preferred => all().first().map(|first| NodeSet::from_iter([first])).unwrap_or_default(),
        MemoryPolicy::Bind | MemoryPolicy::Interleave => all(),
    };
    (!nodes.is_empty()).then_some(ResolvedMemoryPolicy { policy, nodes: Some(nodes) })
}

fn refused(error: NameError) -> Refusal {
    Refusal { reason: Reason::InvalidSpec, message: error.to_string() }
}

/// The slices so that each comes after those it names, otherwise in the order of the list.
fn start_order(slices: &[Slice]) -> Vec<&Slice> {
    let mut open: Vec<&Slice> = slices.iter().collect();
    let mut order: Vec<&Slice> = Vec::new();
    while !open.is_empty() {
        let waits = |slice: &Slice| slice.start_after.iter().any(|name| open.iter().any(|other| other.name == *name));
        // Rules refuse circles; if one came through, the order of the list breaks it.
        let next = open.iter().position(|slice| !waits(slice)).unwrap_or(0);
        order.push(open.remove(next));
    }
    order
}

fn env_file(EnvFile { file, path }: EnvFile) -> ResolvedEnvFile {
    ResolvedEnvFile { file, path }
}

fn merged_env(defaults: &[EnvVariable], own: &[EnvVariable], host: &str, cpus: usize) -> Vec<ResolvedEnv> {
    let variables = defaults.iter().chain(own);
    let by_name: BTreeMap<_, _> = variables.map(|variable| (&variable.name, variable)).collect();
    by_name.into_values().filter_map(|variable| resolved_env(variable, host, cpus)).collect()
}

fn resolved_env(variable: &EnvVariable, host: &str, cpus: usize) -> Option<ResolvedEnv> {
    let EnvVariable { name, value, value_from } = variable;
    let derived = value_from.as_ref().map(|source| match source.resource {
        ResourceValue::Cpus => cpus.to_string(),
        ResourceValue::HostName => host.to_owned(),
    });
    let value = match (value, &derived) {
        (_, Some(derived)) => EnvValue::new(derived.clone()).ok()?,
        (Some(value), None) => value.clone(),
        (None, None) => return None,
    };
    Some(ResolvedEnv { name: name.clone(), value, derived: derived.is_some() })
}

fn merged_restart(defaults: Option<Restart>, own: Option<Restart>) -> ResolvedRestart {
    let (defaults, own) = (defaults.unwrap_or_default(), own.unwrap_or_default());
    ResolvedRestart {
        policy: own.policy.or(defaults.policy).unwrap_or_default(),
        delay: own.delay.or(defaults.delay).unwrap_or(RESTART_DELAY),
    }
}

fn merged_rlimits(defaults: Option<ResourceLimits>, own: Option<ResourceLimits>) -> Option<ResourceLimits> {
    let (Some(ResourceLimits { nofile, nproc, memlock, core }), Some(own)) = (defaults, own) else {
        return own.or(defaults);
    };
    Some(ResourceLimits {
        nofile: own.nofile.or(nofile),
        nproc: own.nproc.or(nproc),
        memlock: own.memlock.or(memlock),
        core: own.core.or(core),
    })
}

#[cfg(test)]
mod tests {
    use lamina_crds::slice_topology::Isolation;
    use lamina_crds::wishes::{AlignPolicy, Alignment, CoreType, OnMissing, Per, Siblings, WishPolicy};
    use serde_json::{Value, json};

    use super::*;
    use crate::placement::{Placement, place, tests as hosts};

    fn entry(spec: Value) -> TopologyEntry {
        let name = TopologyName::new("orchestrator").expect("legal");
        let spec: SliceTopologySpec = serde_json::from_value(spec).expect("a legal spec");
        let named = Named::of(&name, &spec).expect("legal names");
        let hardware = hosts::seed();
        let placed = place(&named.demands(), &hosts::site(&hardware), &Placement::default());
        assert_eq!(placed.refusals, BTreeMap::new());
        named.entry(&Place { name: "host-7", hardware: &hardware }, 3, &placed.slices)
    }

    #[test]
    fn defaults_are_merged_by_name_and_lists_are_replaced() {
        let entry = entry(json!({
            "hostSelector": { "matchLabels": { "a": "b" } },
            "serviceDefaults": {
                "user": "app", "envFiles": [{ "path": "/etc/a" }], "restart": { "policy": "Always" },
                "env": [{ "name": "N", "valueFrom": { "resource": "CPUs" } }, { "name": "A", "value": "default" }],
                "rlimits": { "nofile": 1024, "nproc": 64 },
            },
            "slices": [{ "name": "control", "cpu": { "cores": 8 } }],
            "services": [{ "name": "router", "slice": "control", "command": ["/bin/router"],
                "envFiles": [{ "path": "/etc/b" }], "restart": { "delay": "2s" }, "rlimits": { "nofile": 2048 },
                "env": [{ "name": "A", "value": "own" }, { "name": "H", "valueFrom": { "resource": "HostName" } }] }],
        }));
        let service = serde_json::to_value(&entry.services[0]).expect("plain data");
        let expected = json!({
            "unit": "orchestrator-router.service", "slice": "orchestrator-control.slice", "command": ["/bin/router"],
            "user": "app", "envFiles": [{ "path": "/etc/b" }],
            "env": [{ "name": "A", "value": "own" }, { "name": "H", "value": "host-7", "derived": true },
                { "name": "N", "value": "8", "derived": true }],
            "restart": { "policy": "Always", "delay": "2s" }, "rlimits": { "nofile": 2048, "nproc": 64 },
            "onChange": "Restart",
        });
        assert_eq!(service, expected);
    }

    #[test]
    fn slices_start_after_those_they_name_and_services_follow_their_slices() {
        let service =
            |name: &str, slice: &str| json!({ "name": name, "slice": slice, "command": ["/bin/x"], "user": "u" });
        let entry = entry(json!({
            "hostSelector": { "matchLabels": { "a": "b" } },
            "slices": [
                { "name": "c", "cpu": { "cores": 1 }, "startAfter": ["a"] },
                { "name": "b", "cpu": { "cores": 1 } },
                { "name": "a", "cpu": { "cores": 1 } },
            ],
            "services": [service("one", "c"), service("two", "a"), service("three", "b"), service("four", "a")],
        }));
        let units = |units: Vec<&UnitName>| units.iter().map(|unit| unit.stem().replace("orchestrator-", "")).collect();
        let slices: Vec<String> = units(entry.slices.iter().map(|slice| &slice.unit).collect());
        let services: Vec<String> = units(entry.services.iter().map(|service| &service.unit).collect());
        assert_eq!(slices, ["b", "a", "c"]);
        assert_eq!(services, ["three", "two", "four", "one"]);
        assert_eq!(entry.slices[2].start_after, [entry.slices[1].unit.clone()]);
    }

    #[test]
    fn every_wish_reaches_placement() {
        let name = TopologyName::new("o").expect("legal");
        let spec: SliceTopologySpec = serde_json::from_value(json!({
            "hostSelector": { "matchLabels": { "a": "b" } },
            "housekeeping": { "cores": 1, "per": "Node" },
            "slices": [
                { "name": "a", "priority": -7,
                    "cpu": { "cores": 4, "min": 2, "shareWith": "b", "siblings": "Idle", "coreType": "Efficiency",
                        "align": [{ "domain": "L3", "policy": "Require" }] },
                    "numa": { "ordinal": 1, "ordinalPolicy": "Require", "nodes": "0-1", "nearDevices": ["eth0"],
                        "near": [{ "slice": "b", "domain": "Package", "policy": "Require" }], "apart": [{ "slice": "b" }] },
                    "memory": { "nodesFrom": "List", "nodes": "1" } },
                { "name": "b", "cpu": { "cpus": 3 }, "memory": { "nodesFrom": "All" }, "isolation": "Shared" },
                { "name": "c", "cpu": { "set": "0-1", "onMissing": "UseOnline" } },
            ],
        }))
        .expect("a legal spec");
        let named = Named::of(&name, &spec).expect("legal names");
        let unit = |name: &str| UnitName::new(format!("o-{name}.slice")).expect("legal");
        let slice = |name: &str| SliceName::new(name).expect("legal");
        let of = |name: &str, wanted| Demand::of(named.name.clone(), slice(name), unit(name), wanted);
        let relation = |domain, policy| vec![Relation { unit: unit("b"), domain, policy }];
        let set = Wanted::Set { cpus: "0-1".parse().expect("a list"), on_missing: OnMissing::UseOnline };
        let expected = [
            Demand {
                priority: -7,
                min: Some(2),
                share_with: Some(unit("b")),
                siblings: Siblings::Idle,
                core_type: CoreType::Efficiency,
                align: vec![Alignment { domain: Domain::L3, policy: AlignPolicy::Require }],
                ordinal: Some(OrdinalWish { ordinal: 1, policy: WishPolicy::Require }),
                nodes: "0-1".parse().ok(),
                near: relation(Domain::Package, WishPolicy::Require),
                apart: relation(Domain::Node, WishPolicy::Prefer),
                near_devices: vec!["eth0".to_owned()],
                memory_nodes: MemoryNodesWish::List("1".parse().expect("a list")),
                ..of("a", Wanted::Cores(4))
            },
            Demand { memory_nodes: MemoryNodesWish::All, isolation: Isolation::Shared, ..of("b", Wanted::Cpus(3)) },
            of("c", set),
        ];
        assert_eq!(named.demands(), expected);
        assert_eq!(named.housekeeping(), Some(HousekeepingWish::Cores { count: 1, per: Per::Node }));
    }

    /// What the only slice says about memory policy on the twenty-CPU host, with these nodes.
    fn policy(memory: Value, nodes: Option<&str>) -> Option<String> {
        let name = TopologyName::new("o").expect("legal");
        let spec: SliceTopologySpec = serde_json::from_value(json!({
            "hostSelector": { "matchLabels": { "a": "b" } },
            "slices": [{ "name": "a", "cpu": { "cores": 1 }, "memory": memory }],
        }))
        .expect("a legal spec");
        let named = Named::of(&name, &spec).expect("legal names");
        let memory_nodes = nodes.map(|nodes| nodes.parse().expect("a list"));
        let place = PlacedSlice { cpus: "0".parse().expect("a list"), memory_nodes, ..PlacedSlice::default() };
        let placed = [(UnitName::new("o-a.slice").expect("legal"), place)].into();
        let entry = named.entry(&Place { name: "h", hardware: &hosts::seed() }, 1, &placed);
        let ResolvedMemoryPolicy { policy, nodes } = entry.slices[0].memory_policy.clone()?;
        Some(format!("{policy:?} {}", nodes.unwrap_or_default()))
    }

    #[test]
    fn a_memory_policy_names_nodes_of_its_slice_only() {
        assert_eq!(policy(json!({ "policy": "Bind" }), Some("1")).as_deref(), Some("Bind 1"));
        assert_eq!(policy(json!({ "policy": "Interleave" }), Some("0-1")).as_deref(), Some("Interleave 0-1"));
        assert_eq!(policy(json!({ "policy": "Preferred" }), Some("0-1")).as_deref(), Some("Preferred 0"));
        assert_eq!(policy(json!({ "policy": "Local" }), Some("1")).as_deref(), Some("Local "));
        assert_eq!(policy(json!({ "policy": "Bind" }), None).as_deref(), Some("Bind 0-1"), "all of the host");
        assert_eq!(policy(json!({ "min": "1Gi" }), Some("1")), None);
    }

    #[test]
    fn the_revision_is_the_digest_of_the_entry() {
        let spec = json!({ "hostSelector": { "matchLabels": { "a": "b" } },
            "slices": [{ "name": "a", "cpu": { "cores": 1 } }] });
        let entry = entry(spec);
        assert_eq!(entry.revision, entry.digest());
        assert_eq!((entry.generation, entry.state), (3, EntryState::Present));
    }
}
