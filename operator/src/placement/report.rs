//! Says of every slice where it is, what it lacks of what it asked for, and what changes for it.

use lamina_crds::wishes::{AlignPolicy, Domain, Siblings, WishPolicy};
use lamina_crds::{CpuSet, NodeSet};

use crate::placement::answer::{MemoryMove, Move, PlacedSlice, Shortfall, Spread, WishField};
use crate::placement::board::device_nodes;
use crate::placement::demand::{Demand, MemoryNodesWish, Placement, Relation, Wanted};
use crate::placement::machine::{Machine, slot};
use crate::placement::memory::memory_nodes;
use crate::placement::problem::{NODE, outside};
use crate::placement::staged::{Given, Staged};

/// What is known when a slice is reported on.
pub struct Report<'a> {
    /// The machine.
    pub machine: &'a Machine<'a>,
    /// What ran before.
    pub running: &'a Placement,
    /// The nodes that have allocatable CPUs.
    pub allocatable_nodes: &'a [u16],
    /// The CPUs kept free.
    pub housekeeping: &'a CpuSet,
    /// What the slices placed together got.
    pub staged: &'a Staged,
}

impl Report<'_> {
    /// The place of one slice.
    pub fn slice(&self, demand: &Demand, given: &Given) -> PlacedSlice {
        let hardware = self.machine.hardware;
        let offline = given.cpus.difference(&hardware.cpus.online);
        let online = given.cpus.intersection(&hardware.cpus.online);
        let cores = self.machine.cores_touching(&online).len() as u32;
        let (asked, got) = match &demand.cpus {
            Wanted::Set { cpus, on_missing: _ } => (cpus.len() as u32, online.len() as u32),
            Wanted::Cores(count) => (*count, cores),
            Wanted::Cpus(count) => (*count, online.len() as u32),
        };
        let incumbent = self.running.slices.get(&demand.unit);
        let memory_nodes = memory_nodes(self.machine, &demand.memory_nodes, &given.cpus, incumbent);
        let spread = self.spread(demand, &online);
        let mut shortfalls = Vec::new();
        match (&given.inside, offline.is_empty()) {
            (Some(with), _) => {
                let (asked, available) = self.staged.asked_and_there;
                shortfalls.push(Shortfall::Shared { with: with.clone(), asked, available });
            }
            (None, false) => shortfalls.push(Shortfall::Offline { cpus: offline.clone(), asked, left: got }),
            (None, true) if got < asked => shortfalls.push(lack(demand, asked, got, &given.cpus)),
            (None, true) => {}
        }
        self.relaxed(demand, given, &spread, &mut shortfalls);
        shortfalls.extend(self.remote_memory(demand, &online, memory_nodes.as_ref()));
        PlacedSlice { cpus: given.cpus.clone(), memory_nodes, offline, asked, got, spread, shortfalls }
    }

    /// What changes for a running slice, if anything does.
    pub fn moved(&self, demand: &Demand, slice: &PlacedSlice) -> Option<Move> {
        let incumbent = self.running.slices.get(&demand.unit)?;
        let gained = slice.cpus.difference(&incumbent.cpus);
        let lost = incumbent.cpus.difference(&slice.cpus);
        let (from, to) = (incumbent.memory_nodes.clone(), slice.memory_nodes.clone());
        let memory_nodes = from.zip(to).filter(|(from, to)| from != to).map(|(from, to)| MemoryMove { from, to });
        let changes = !gained.is_empty() || !lost.is_empty() || memory_nodes.is_some();
        changes.then(|| Move { unit: demand.unit.clone(), gained, lost, memory_nodes })
    }

    fn spread(&self, demand: &Demand, online: &CpuSet) -> Vec<Spread> {
        let written = |domain: Domain| demand.align.iter().any(|wish| wish.domain == domain);
        let domains = [Domain::Package, Domain::Node, Domain::L3].into_iter();
        let counted = domains.filter(|domain| *domain != Domain::Package || written(Domain::Package));
        let spread = |domain: Domain| {
            let used = self.machine.domains_of(slot(domain), online).len() as u32;
            let least = if used > 1 { self.least(demand, domain, online).min(used) } else { used };
            Spread { domain, used, least }
        };
        counted.map(spread).collect()
    }

    /// The fewest domains of a kind that as many CPUs need, were the slice alone on this host.
    fn least(&self, demand: &Demand, domain: Domain, online: &CpuSet) -> u32 {
        let machine = self.machine;
        let isolated = &machine.hardware.cpus.isolated;
        let mut rooms = vec![0; machine.domains[slot(domain)]];
        for (index, core) in machine.cores.iter().enumerate() {
            let threads = machine.threads(index);
            let is_kept = threads.iter().any(|cpu| self.housekeeping.contains(*cpu) || isolated.contains(*cpu));
            let node = machine.node_id(core.domains[NODE]);
            let in_nodes = demand.nodes.as_ref().is_none_or(|nodes| node.is_some_and(|node| nodes.contains(node)));
            if !is_kept && in_nodes {
                rooms[core.domains[slot(domain)] as usize] += threads.len();
            }
        }
        rooms.sort_unstable_by(|a, b| b.cmp(a));
        let mut rest = match demand.siblings {
            Siblings::Take => online.len(),
            Siblings::Idle => machine.cores_touching(online).iter().map(|core| machine.threads(*core).len()).sum(),
        };
        let mut least = 0;
        for room in rooms {
            least += u32::from(rest > 0);
            rest = rest.saturating_sub(room);
        }
        least
    }

    /// The preferences that are not met.
    fn relaxed(&self, demand: &Demand, given: &Given, spread: &[Spread], shortfalls: &mut Vec<Shortfall>) {
        for wish in demand.align.iter().filter(|wish| wish.policy == AlignPolicy::Prefer) {
            let counted = spread.iter().find(|spread| spread.domain == wish.domain && spread.used > spread.least);
            shortfalls.extend(counted.map(|Spread { domain, used, least }| {
                relaxed(WishField::Align, *domain, count(*domain, *least), format!("it uses {used}"))
            }));
        }
        let nodes = self.machine.domains_of(NODE, &given.cpus);
        if let Some(wish) = demand.ordinal.filter(|wish| wish.policy == WishPolicy::Prefer) {
            let node = self.allocatable_nodes.get(wish.ordinal as usize).copied();
            let asked = match node.and_then(|node| self.machine.node_id(node)) {
                Some(id) => format!("node {id} (ordinal {})", wish.ordinal),
                None => format!("ordinal {} of {} nodes with CPUs", wish.ordinal, self.allocatable_nodes.len()),
            };
            // A slice that needs several nodes cannot be in one.
            let needs = spread.iter().find(|spread| spread.domain == Domain::Node).map_or(1, |spread| spread.least);
            let is_met = node.is_some_and(|node| nodes.contains(&node)) && nodes.len() as u32 <= needs;
            if !is_met && outside(&nodes, node.as_slice()) > 0 {
                let got = format!("it is in {}", self.place(Domain::Node, &nodes));
                shortfalls.push(relaxed(WishField::Ordinal, Domain::Node, asked, got));
            }
        }
        for (field, relations) in [(WishField::Near, &demand.near), (WishField::Apart, &demand.apart)] {
            let unmet = relations.iter().filter_map(|relation| self.unmet(field, relation, given));
            shortfalls.extend(unmet);
        }
        self.devices(demand, &nodes, shortfalls);
    }

    fn unmet(&self, field: WishField, relation: &Relation, given: &Given) -> Option<Shortfall> {
        let Relation { unit, domain, policy: _ } = relation;
        let other = self.staged.given.get(unit)?;
        let here = self.machine.domains_of(slot(*domain), &given.cpus);
        let there = self.machine.domains_of(slot(*domain), &other.cpus);
        let elsewhere = outside(&here, &there);
        let common: Vec<u16> = here.iter().copied().filter(|one| there.contains(one)).collect();
        let word = word(*domain);
        if field == WishField::Apart {
            let asked = format!("another {word} than {unit}");
            let got = || format!("both are in {}", self.place(*domain, &common));
            return (!common.is_empty()).then(|| relaxed(field, *domain, asked, got()));
        }
        let asked = format!("the {word} of {unit}, {}", self.place(*domain, &there));
        (elsewhere > 0).then(|| relaxed(field, *domain, asked, format!("it is in {}", self.place(*domain, &here))))
    }

    fn devices(&self, demand: &Demand, nodes: &[u16], shortfalls: &mut Vec<Shortfall>) {
        let devices = &self.machine.hardware.devices;
        for name in &demand.near_devices {
            let known = devices.iter().find(|device| device.name == *name || device.pci.as_ref() == Some(name));
            let got = match known.map(|device| device.node) {
                None => "this host has no such device".to_owned(),
                Some(None) => "its firmware does not say where that is".to_owned(),
                Some(Some(_)) => continue,
            };
            shortfalls.push(relaxed(WishField::NearDevices, Domain::Node, format!("the node of {name}"), got));
        }
        let wished = device_nodes(self.machine, demand);
        if !wished.is_empty() && outside(nodes, &wished) > 0 {
            let asked = format!("{} of {}", self.place(Domain::Node, &wished), demand.near_devices.join(", "));
            let got = format!("it is in {}", self.place(Domain::Node, nodes));
            shortfalls.push(relaxed(WishField::NearDevices, Domain::Node, asked, got));
        }
    }

    /// Says so when CPUs have no memory of their own.
    fn remote_memory(&self, demand: &Demand, online: &CpuSet, nodes: Option<&NodeSet>) -> Option<Shortfall> {
        let nodes = nodes.filter(|_| demand.memory_nodes == MemoryNodesWish::Cpus)?;
        let with_memory: Vec<u16> = self.machine.memory_nodes().collect();
        let own = self.machine.domains_of(NODE, online);
        let bare: Vec<u16> = own.into_iter().filter(|node| !with_memory.contains(node)).collect();
        (!bare.is_empty()).then(|| {
            let asked = "memory beside its CPUs".to_owned();
            let without =
                if bare.iter().any(|node| self.machine.node_id(*node).is_some()) { " without any" } else { "" };
            let place = self.place(Domain::Node, &bare);
            let got = format!("they are in {place}{without}; the nearest memory is in node {nodes}");
            relaxed(WishField::MemoryNodes, Domain::Node, asked, got)
        })
    }

    fn place(&self, domain: Domain, indices: &[u16]) -> String {
        let nowhere = self.machine.domains[slot(domain)] as u16 - 1;
        let number = |index: &u16| match domain {
            Domain::Node => self.machine.node_id(*index),
            Domain::Package | Domain::L3 => Some(u32::from(*index)).filter(|_| *index != nowhere),
        };
        let numbers: NodeSet = indices.iter().filter_map(number).collect();
        let plural = if numbers.len() > 1 { "s" } else { "" };
        match (numbers.is_empty(), indices.contains(&nowhere) && domain == Domain::Node) {
            (true, _) => format!("no {}", word(domain)),
            (false, true) => format!("{}{plural} {numbers} and CPUs in no node", word(domain)),
            (false, false) => format!("{}{plural} {numbers}", word(domain)),
        }
    }
}

fn lack(demand: &Demand, asked: u32, got: u32, cpus: &CpuSet) -> Shortfall {
    match &demand.cpus {
        Wanted::Set { cpus: set, on_missing: _ } => {
            let missing = set.difference(cpus);
            relaxed(WishField::Set, Domain::Node, format!("CPUs {set}"), format!("{missing} are not online"))
        }
        Wanted::Cores(_) | Wanted::Cpus(_) => Shortfall::Shrunk { asked, got },
    }
}

fn relaxed(field: WishField, domain: Domain, asked: String, got: String) -> Shortfall {
    Shortfall::Relaxed { field, domain, asked, got }
}

/// The word for a domain in messages.
pub fn word(domain: Domain) -> &'static str {
    match domain {
        Domain::Package => "package",
        Domain::Node => "node",
        Domain::L3 => "L3 cache",
    }
}

fn count(domain: Domain, count: u32) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {}{plural}", word(domain))
}
