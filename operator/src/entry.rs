//! Decides what one topology's entry for one host says: names, order, defaults and derived values filled in, so that
//! the agent has nothing left to choose.

use std::collections::BTreeMap;

use lamina_crds::conditions::Reason;
use lamina_crds::host_state::{EntryState, ResolvedEnv, ResolvedEnvFile, ResolvedRestart, ServiceEntry, SliceEntry};
use lamina_crds::names::NameError;
use lamina_crds::seconds::Seconds;
use lamina_crds::slice_topology::{
    EnvFile, EnvVariable, ResourceLimits, ResourceValue, Restart, Service, ServiceDefaults, Slice,
};
use lamina_crds::text::EnvValue;
use lamina_crds::wishes::{Domain, OnMissing, WishPolicy};
use lamina_crds::{ServiceName, SliceName, SliceTopologySpec, TopologyEntry, TopologyName, UnitName};

use crate::placement::{Demand, OrdinalWish, PlacedSlice, Relation, Wanted};
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

    /// What its slices ask of a host, in the order of the list.
    pub fn demands(&self) -> Vec<Demand> {
        let relation = |name: &SliceName| {
            Some(Relation { unit: self.slices.get(name)?.clone(), domain: Domain::Node, policy: WishPolicy::Prefer })
        };
        let demand = |slice: &Slice| {
            let numa = slice.numa.clone().unwrap_or_default();
            let wanted = match (&slice.cpu.set, slice.cpu.cores) {
                (Some(set), _) => Wanted::Set { cpus: set.clone(), on_missing: OnMissing::Refuse },
                (None, cores) => Wanted::Cores(cores.unwrap_or(1)),
            };
            let unit = self.slices.get(&slice.name)?.clone();
            Some(Demand {
                ordinal: numa.ordinal.map(|ordinal| OrdinalWish { ordinal, policy: WishPolicy::Prefer }),
                near: numa.near.iter().filter_map(|near| relation(&near.slice)).collect(),
                apart: numa.apart.iter().filter_map(|apart| relation(&apart.slice)).collect(),
                isolation: slice.isolation.unwrap_or_default(),
                ..Demand::of(self.name.clone(), slice.name.clone(), unit, wanted)
            })
        };
        self.spec.slices.iter().filter_map(demand).collect()
    }

    /// The entry for a host on which every slice has its place.
    pub fn entry(&self, host: &str, generation: i64, placed: &BTreeMap<UnitName, PlacedSlice>) -> TopologyEntry {
        let order = start_order(&self.spec.slices);
        let slices = order.iter().filter_map(|slice| self.slice_entry(slice, placed)).collect();
        let of_slice = |slice: &'a Slice| self.spec.services.iter().filter(|service| service.slice == slice.name);
        let services = order.iter().flat_map(|slice| of_slice(slice));
        let entry = TopologyEntry {
            name: self.name.clone(),
            state: EntryState::Present,
            revision: String::new(),
            generation,
            files: self.spec.files.clone(),
            slices,
            services: services.filter_map(|service| self.service_entry(service, host, placed)).collect(),
        };
        TopologyEntry { revision: entry.digest(), ..entry }
    }

    fn slice_entry(&self, slice: &Slice, placed: &BTreeMap<UnitName, PlacedSlice>) -> Option<SliceEntry> {
        let Slice { name, start_after, cpu: _, numa: _, memory, io, tasks, isolation: _ } = slice;
        let unit = self.slices.get(name)?;
        let PlacedSlice { cpus, memory_nodes, .. } = placed.get(unit)?;
        Some(SliceEntry {
            unit: unit.clone(),
            start_after: start_after.iter().filter_map(|name| self.slices.get(name).cloned()).collect(),
            cpus: cpus.clone(),
            memory_nodes: memory_nodes.clone(),
            memory: *memory,
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
    use serde_json::{Value, json};

    use super::*;
    use crate::placement::{Placement, place, tests as hosts};

    fn entry(spec: Value) -> TopologyEntry {
        let name = TopologyName::new("orchestrator").expect("legal");
        let spec: SliceTopologySpec = serde_json::from_value(spec).expect("a legal spec");
        let named = Named::of(&name, &spec).expect("legal names");
        let placed = place(&named.demands(), &hosts::site(&hosts::seed()), &Placement::default());
        assert_eq!(placed.refusals, BTreeMap::new());
        named.entry("host-7", 3, &placed.slices)
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
    fn the_revision_is_the_digest_of_the_entry() {
        let spec = json!({ "hostSelector": { "matchLabels": { "a": "b" } },
            "slices": [{ "name": "a", "cpu": { "cores": 1 } }] });
        let entry = entry(spec);
        assert_eq!(entry.revision, entry.digest());
        assert_eq!((entry.generation, entry.state), (3, EntryState::Present));
    }
}
