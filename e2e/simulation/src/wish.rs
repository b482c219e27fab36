//! What users of a history ask for: a small topology with knobs, turned into the object they would apply.

use std::collections::BTreeMap;

use lamina_crds::SliceTopologySpec;
use serde_json::{Value, json};

use lamina_trees::Random;

/// One topology as its user wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Its slices.
    pub slices: BTreeMap<&'static str, SliceWish>,
    /// Its services.
    pub services: BTreeMap<&'static str, ServiceWish>,
    /// Which content the delivered file has.
    pub file: u32,
    /// Whether deletion removes everything.
    pub removes: bool,
    /// Whether files that others wrote for its units may be replaced.
    pub replaces: bool,
    /// Whether every change is kept from the hosts.
    pub paused: bool,
    /// The role of the hosts it selects.
    pub role: &'static str,
}

/// One slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceWish {
    /// How many cores, or which CPUs.
    pub cpu: CpuWish,
    /// `memory.max` in MiB.
    pub memory: u64,
}

/// How many cores, or which CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuWish {
    /// So many.
    Cores(u32),
    /// These.
    Set(&'static str),
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceWish {
    /// Its slice.
    pub slice: &'static str,
    /// Its last argument.
    pub argument: u32,
    /// The value of one variable.
    pub value: u32,
    /// Whether it reads the delivered file.
    pub reads_file: bool,
    /// Whether it learns how many CPUs it has.
    pub counts_cpus: bool,
    /// Whether changed text waits for the next start.
    pub waits: bool,
}

impl Wish {
    /// Two slices and three services on hosts of role `app`.
    pub fn app() -> Self {
        let slice = |cores, memory| SliceWish { cpu: CpuWish::Cores(cores), memory };
        let service = |slice, reads_file, counts_cpus| ServiceWish {
            slice,
            argument: 1,
            value: 1,
            reads_file,
            counts_cpus,
            waits: false,
        };
        Self {
            slices: BTreeMap::from([("control", slice(2, 1024)), ("runner", slice(3, 2048))]),
            services: BTreeMap::from([
                ("api", service("control", true, true)),
                ("router", service("control", false, false)),
                ("worker", service("runner", true, false)),
            ]),
            file: 1,
            removes: false,
            replaces: false,
            paused: false,
            role: "app",
        }
    }

    /// One slice with one service beside it.
    pub fn etl() -> Self {
        let mut wish = Self::app();
        wish.slices.retain(|name, _| *name == "control");
        wish.services.retain(|name, _| *name == "router");
        wish.slices.values_mut().for_each(|slice| slice.cpu = CpuWish::Cores(1));
        wish
    }

    /// The object's spec.
    pub fn spec(&self) -> SliceTopologySpec {
        serde_json::from_value(self.json()).expect("a wish has the shape of the type")
    }

    /// The object's spec as its user writes it.
    pub fn json(&self) -> Value {
        let Self { slices, services, file, removes, replaces, paused, role } = self;
        let slices: Vec<Value> = slices.iter().map(|(name, slice)| slice.json(name)).collect();
        let services: Vec<Value> = services.iter().map(|(name, service)| service.json(name)).collect();
        json!({
            "hostSelector": { "matchLabels": { "role": role } },
            "deletionPolicy": if *removes { "Remove" } else { "Retain" },
            "paused": paused,
            "adoption": if *replaces { "Replace" } else { "Refuse" },
            "files": [{ "name": "app.env", "content": format!("VERSION={file}\n") }],
            "serviceDefaults": { "user": "app" },
            "slices": slices,
            "services": services,
        })
    }

    /// The same wish with one thing changed.
    pub fn mutated(&self, random: &mut Random) -> Self {
        let mut wish = self.clone();
        let slices: Vec<&'static str> = wish.slices.keys().copied().collect();
        let slice = *random.pick(&slices);
        let services: Vec<&'static str> = wish.services.keys().copied().collect();
        let name = *random.pick(&services);
        let number = 1 + random.below(9);
        match random.below(10) {
            0 => wish.slices.values_mut().for_each(|slice| slice.memory = 512 * u64::from(number)),
            1 => resize(&mut wish, slice, 1 + number % 3),
            2 => wish.file = number,
            3 => wish.removes = !wish.removes,
            4 => drop(
                wish.services.insert("extra", ServiceWish { slice, argument: number, ..wish.services[name].clone() }),
            ),
            5 if services.len() > 1 => drop(wish.services.remove(name)),
            6 => change(&mut wish, name, |service| service.slice = slice),
            7 => change(&mut wish, name, |service| service.value = number),
            8 => change(&mut wish, name, |service| service.waits = !service.waits),
            _ if number > 7 => wish.paused = !wish.paused,
            _ => change(&mut wish, name, |service| service.argument = number),
        }
        wish
    }
}

fn resize(wish: &mut Wish, slice: &str, cores: u32) {
    if let Some(slice) = wish.slices.get_mut(slice) {
        slice.cpu = CpuWish::Cores(cores);
    }
}

fn change(wish: &mut Wish, service: &str, edit: impl FnOnce(&mut ServiceWish)) {
    if let Some(service) = wish.services.get_mut(service) {
        edit(service);
    }
}

impl SliceWish {
    fn json(&self, name: &str) -> Value {
        let cpu = match self.cpu {
            CpuWish::Cores(cores) => json!({ "cores": cores }),
            CpuWish::Set(set) => json!({ "set": set }),
        };
        let memory = json!({ "min": "64Mi", "max": format!("{}Mi", self.memory) });
        json!({ "name": name, "cpu": cpu, "memory": memory, "io": { "weight": 200 }, "tasks": { "max": 512 } })
    }
}

impl ServiceWish {
    fn json(&self, name: &str) -> Value {
        let Self { slice, argument, value, reads_file, counts_cpus, waits } = self;
        let mut env = vec![json!({ "name": "VALUE", "value": format!("{value} % of \"it\"") })];
        if *counts_cpus {
            env.push(json!({ "name": "GOMAXPROCS", "valueFrom": { "resource": "CPUs" } }));
        }
        let files = if *reads_file { vec![json!({ "file": "app.env" })] } else { Vec::new() };
        json!({
            "name": name,
            "slice": slice,
            "command": [program(name), format!("--shard={argument}")],
            "env": env,
            "envFiles": files,
            "onChange": if *waits { "Never" } else { "Restart" },
        })
    }
}

/// The program of a service.
pub fn program(service: &str) -> String {
    format!("/opt/app/bin/{service}")
}
