//! Decides whether the memory that slices are promised (`memory.min`) is there: on the host, and on the nodes that each
//! slice may use.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use lamina_crds::conditions::Reason;
use lamina_crds::host_state::{EntryState, SliceEntry};
use lamina_crds::{Bytes, Hardware, NodeSet, SliceTopologySpec, TopologyEntry, TopologyName};

use crate::view::{HostStateView, Refusal};

/// What is promised on one host, by topology.
pub struct MemoryLedger<'a> {
    hardware: &'a Hardware,
    promised: BTreeMap<TopologyName, Vec<Promise>>,
}

/// Memory that one slice is promised, on some of these nodes.
#[derive(Clone, Debug)]
struct Promise {
    slice: String,
    amount: u64,
    nodes: NodeSet,
}

impl<'a> MemoryLedger<'a> {
    /// What the entries of a host promise as they are written now. Those that are let go promise nothing.
    pub fn of(state: &HostStateView, hardware: &'a Hardware) -> Self {
        let kept = state.entries.values().filter(|entry| entry.state != EntryState::Released);
        let promised = kept.map(|entry| (entry.name.clone(), promises(entry, hardware)));
        Self { hardware, promised: promised.collect() }
    }

    /// Whether the host has the memory that a topology asks for, beside what others were promised.
    ///
    /// # Errors
    /// The sums and what to lower.
    pub fn admit(&self, topology: &TopologyName, spec: &SliceTopologySpec) -> Result<(), Refusal> {
        let asked: Bytes = spec.slices.iter().filter_map(|slice| slice.memory.as_ref()?.min).sum();
        let others = self.promised.iter().filter(|(other, _)| *other != topology).flat_map(|(_, promises)| promises);
        let others: Bytes = others.map(|promise| Bytes::new(promise.amount)).sum();
        let total = self.hardware.memory();
        if asked.saturating_add(others) <= total {
            return Ok(());
        }
        Err(infeasible(format!(
            "the slices ask for {asked} of protected memory together (memory.min); the host has {total} and {others} are \
             promised to other topologies; lower memory.min"
        )))
    }

    /// Whether the nodes that an entry's slices may use have that memory, and notes the promise if they do.
    ///
    /// # Errors
    /// The nodes that cannot keep what they would promise, who asks, and what to change.
    pub fn promise(&mut self, entry: &TopologyEntry) -> Result<(), Refusal> {
        let own = promises(entry, self.hardware);
        let others = self.promised.iter().filter(|(other, _)| **other != entry.name).flat_map(|(_, promises)| promises);
        let all: Vec<Promise> = others.cloned().chain(own.iter().cloned()).collect();
        if let Some(nodes) = overcommitted(&all, self.hardware) {
            return Err(too_much_on(&nodes, &all, self.hardware));
        }
        self.promised.insert(entry.name.clone(), own);
        Ok(())
    }
}

fn promises(entry: &TopologyEntry, hardware: &Hardware) -> Vec<Promise> {
    let promise = |slice: &SliceEntry| {
        let amount = slice.memory?.min?.get();
        let nodes = slice.memory_nodes.clone().unwrap_or_else(|| hardware.memory_nodes());
        Some(Promise { slice: slice.unit.to_string(), amount, nodes })
    };
    entry.slices.iter().filter_map(promise).collect()
}

/// Nodes on which more is promised than they have, if there are any: the promises are spread over the nodes like a flow,
/// each moved aside for another one as long as that helps.
fn overcommitted(promises: &[Promise], hardware: &Hardware) -> Option<NodeSet> {
    let free = hardware.numa_nodes.iter().map(|node| (node.id, node.memory.get())).collect();
    let mut spread = Spread { promises, free, taken: vec![BTreeMap::new(); promises.len()] };
    (0..promises.len()).find_map(|promise| spread.seat(promise).err())
}

/// Promises on nodes.
struct Spread<'a> {
    promises: &'a [Promise],
    free: BTreeMap<u32, u64>,
    taken: Vec<BTreeMap<u32, u64>>,
}

/// For each node that was reached: the promise that could use more of it, and the node that this would free.
type Ways = BTreeMap<u32, (usize, Option<u32>)>;

impl Spread<'_> {
    /// Seats all of a promise, or says which nodes are too small for those who can use no others.
    fn seat(&mut self, promise: usize) -> Result<(), NodeSet> {
        let mut left = self.promises[promise].amount;
        while left > 0 {
            let ways = self.ways(promise);
            let open = ways.keys().copied().find(|node| self.free.get(node).is_some_and(|free| *free > 0));
            let Some(end) = open else { return Err(ways.into_keys().collect()) };
            left -= self.shift(&ways, end, left);
        }
        Ok(())
    }

    fn ways(&self, promise: usize) -> Ways {
        let mut ways: Ways = self.promises[promise].nodes.iter().map(|node| (node, (promise, None))).collect();
        let mut open: BTreeSet<u32> = ways.keys().copied().collect();
        while let Some(node) = open.pop_first() {
            let seated =
                self.taken.iter().enumerate().filter(|(_, taken)| taken.get(&node).is_some_and(|part| *part > 0));
            for (other, _) in seated {
                for next in self.promises[other].nodes.iter() {
                    if let Entry::Vacant(way) = ways.entry(next) {
                        way.insert((other, Some(node)));
                        open.insert(next);
                    }
                }
            }
        }
        ways
    }

    /// Moves as much as can be along the way that ends at a node with free memory.
    fn shift(&mut self, ways: &Ways, end: u32, wanted: u64) -> u64 {
        let mut steps = Vec::new();
        let mut node = end;
        while let Some((promise, freed)) = ways.get(&node) {
            steps.push((*promise, node, *freed));
            match freed {
                Some(freed) => node = *freed,
                None => break,
            }
        }
        let movable = steps.iter().filter_map(|(promise, _, freed)| self.taken[*promise].get(&(*freed)?).copied());
        let free = self.free.get(&end).copied().unwrap_or_default();
        let amount = movable.fold(wanted.min(free), u64::min);
        for (promise, node, freed) in steps {
            *self.taken[promise].entry(node).or_default() += amount;
            if let Some(part) = freed.and_then(|freed| self.taken[promise].get_mut(&freed)) {
                *part -= amount;
            }
        }
        if let Some(free) = self.free.get_mut(&end) {
            *free -= amount;
        }
        amount
    }
}

fn too_much_on(nodes: &NodeSet, promises: &[Promise], hardware: &Hardware) -> Refusal {
    let bound = || promises.iter().filter(|promise| promise.nodes.difference(nodes).is_empty());
    let asked: Bytes = bound().map(|promise| Bytes::new(promise.amount)).sum();
    let there: Bytes = hardware.numa_nodes.iter().filter(|node| nodes.contains(node.id)).map(|node| node.memory).sum();
    let slices: Vec<&str> = bound().map(|promise| promise.slice.as_str()).collect();
    infeasible(format!(
        "{} ask for {asked} of protected memory (memory.min) on NUMA nodes {nodes}, which have {there}; lower memory.min, or \
         let the memory come from more nodes (memory.nodesFrom: All)",
        slices.join(", ")
    ))
}

fn infeasible(message: String) -> Refusal {
    Refusal { reason: Reason::Infeasible, message }
}

#[cfg(test)]
mod tests {
    use lamina_crds::hardware::NumaNode;

    use super::*;

    /// A host of nodes with so many bytes.
    fn host(nodes: &[u64]) -> Hardware {
        let node = |(id, memory): (usize, &u64)| NumaNode {
            id: id as u32,
            cpus: Default::default(),
            memory: Bytes::new(*memory),
            distances: Vec::new(),
        };
        Hardware { numa_nodes: nodes.iter().enumerate().map(node).collect(), ..Hardware::default() }
    }

    fn too_full(nodes: &[u64], promises: &[(&str, u64)]) -> Option<String> {
        let promise = |(nodes, amount): &(&str, u64)| Promise {
            slice: "t-a.slice".to_owned(),
            amount: *amount,
            nodes: nodes.parse().expect("a list"),
        };
        let promises: Vec<Promise> = promises.iter().map(promise).collect();
        overcommitted(&promises, &host(nodes)).map(|nodes| nodes.to_string())
    }

    #[test]
    fn a_node_cannot_promise_more_than_it_has() {
        assert_eq!(too_full(&[64, 64], &[("0", 64), ("1", 64)]), None);
        assert_eq!(too_full(&[64, 64], &[("0", 65)]), Some("0".to_owned()));
        assert_eq!(too_full(&[64, 64], &[("1", 40), ("0-1", 60), ("1", 25)]), Some("1".to_owned()));
    }

    #[test]
    fn who_can_go_elsewhere_makes_room() {
        assert_eq!(too_full(&[64, 64, 64], &[("0-1", 64), ("0", 64), ("1-2", 64)]), None);
        assert_eq!(too_full(&[64, 64, 64], &[("0-1", 64), ("0-1", 64), ("0-2", 65)]), Some("0-2".to_owned()));
        assert_eq!(too_full(&[10, 10, 100], &[("0-1", 15), ("1", 6)]), Some("0-1".to_owned()));
    }
}
