//! Decides what a machine is from what was said of it: takes out contradictions, so that whoever reads the inventory may
//! count on domains that do not overlap and hold nothing but usable CPUs.

use std::collections::BTreeMap;

use lamina_crds::hardware::{CoreGroup, CoreKind, CpuInventory, Device, Hardware, Kubelet, NumaNode, Package};
use lamina_crds::{CpuSet, NodeSet};

use super::kinds::Kinds;

/// No machine has cores of more threads (POWER has eight).
const MOST_THREADS: usize = 8;

/// What a source says of a machine, as it says it: sets may overlap, contradict each other, and name what is not there.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The identity, machine-id(5).
    pub machine_id: String,
    /// CPUs that run and may be used.
    pub usable: CpuSet,
    /// CPUs that are plugged in.
    pub present: CpuSet,
    /// CPUs that the kernel keeps out of scheduling.
    pub isolated: CpuSet,
    /// Sockets by number.
    pub packages: Vec<(u32, CpuSet)>,
    /// NUMA nodes; distances are those to each other in the same order.
    pub nodes: Vec<NumaNode>,
    /// Threads of one core.
    pub cores: Vec<CpuSet>,
    /// CPUs that share a level-3 cache.
    pub level_3: Vec<CpuSet>,
    /// CPUs that share a level-2 cache.
    pub level_2: Vec<CpuSet>,
    /// Fast and frugal cores.
    pub kinds: Option<Kinds>,
    /// Devices, the most worth knowing first.
    pub devices: Vec<Device>,
    /// The kubelet.
    pub kubelet: Option<Kubelet>,
    /// The kernel's release.
    pub kernel: String,
    /// systemd's version.
    pub systemd: String,
}

/// The inventory: packages, nodes, caches and cores each divide the usable CPUs, a core lies in one of each, and a cache
/// in one package.
pub fn settle(claims: Claims) -> Hardware {
    let Claims { machine_id, usable, present, isolated, packages, nodes, cores, level_3, level_2, kinds, .. } = claims;
    let present = present.union(&usable);
    let packages = settled_packages(packages, &usable);
    let nodes = settled_nodes(nodes, &usable);
    let place = Places::new(&packages, &nodes);
    let cores = settled_cores(&cores, &usable, &place);
    let level_3 = settled_caches(&level_3, &usable, &cores, &place);
    let l3 =
        if level_3.is_empty() { joining(settled_caches(&level_2, &usable, &cores, &place), &cores) } else { level_3 };
    let mut hardware = Hardware {
        machine_id: bounded(machine_id, 64),
        cpus: CpuInventory {
            offline: present.difference(&usable),
            isolated: isolated.intersection(&present),
            online: usable.clone(),
        },
        packages,
        l3,
        core_types: kinds.map(|kinds| groups_of_kind(kinds, &usable, &cores)).unwrap_or_default(),
        cores,
        numa_nodes: nodes,
        devices: Vec::new(),
        kubelet: claims.kubelet.map(|kubelet| of_this_machine(kubelet, &present)),
        kernel: bounded(claims.kernel, 128),
        systemd: bounded(claims.systemd, 32),
    };
    hardware.devices = settled_devices(claims.devices, &hardware);
    hardware
}

/// As much of a text as the schema takes.
fn bounded(text: String, most: usize) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(most).collect()
}

/// Which package and which node each CPU is in.
struct Places {
    package: BTreeMap<u32, u32>,
    node: BTreeMap<u32, u32>,
}

impl Places {
    fn new(packages: &[Package], nodes: &[NumaNode]) -> Self {
        let package = packages.iter().flat_map(|package| package.cpus.iter().map(|cpu| (cpu, package.id)));
        let node = nodes.iter().flat_map(|node| node.cpus.iter().map(|cpu| (cpu, node.id)));
        Self { package: package.collect(), node: node.collect() }
    }
}

/// The sets without what an earlier one has and without what is not in `whole`; those that keep something.
fn divided(sets: impl IntoIterator<Item = CpuSet>, whole: &CpuSet) -> Vec<CpuSet> {
    let mut left = whole.clone();
    let take = |set: CpuSet| {
        let taken = set.intersection(&left);
        left = left.difference(&taken);
        taken
    };
    sets.into_iter().map(take).filter(|set| !set.is_empty()).collect()
}

/// The parts of a set whose members have the same key.
fn split<Key: Ord>(set: &CpuSet, key: impl Fn(u32) -> Key) -> Vec<CpuSet> {
    let mut parts: BTreeMap<Key, CpuSet> = BTreeMap::new();
    for cpu in set.iter() {
        parts.entry(key(cpu)).or_default().insert(cpu);
    }
    parts.into_values().collect()
}

fn settled_packages(packages: Vec<(u32, CpuSet)>, usable: &CpuSet) -> Vec<Package> {
    let mut by_id: BTreeMap<u32, CpuSet> = BTreeMap::new();
    let mut left = usable.clone();
    for (id, cpus) in packages {
        let cpus = cpus.intersection(&left);
        left = left.difference(&cpus);
        let all = by_id.entry(id).or_default();
        *all = all.union(&cpus);
    }
    by_id.into_iter().filter(|(_, cpus)| !cpus.is_empty()).map(|(id, cpus)| Package { id, cpus }).collect()
}

/// Nodes in order of number, each number once. What two nodes claim is the first one's.
fn settled_nodes(nodes: Vec<NumaNode>, usable: &CpuSet) -> Vec<NumaNode> {
    let distances = settled_distances(&nodes);
    let mut left = usable.clone();
    let mut settled: BTreeMap<u32, (usize, NumaNode)> = BTreeMap::new();
    for (index, NumaNode { id, cpus, memory, distances: _ }) in nodes.into_iter().enumerate() {
        settled.entry(id).or_insert_with(|| {
            let cpus = cpus.intersection(&left);
            left = left.difference(&cpus);
            (index, NumaNode { id, cpus, memory, distances: Vec::new() })
        });
    }
    let order: Vec<usize> = settled.values().map(|(index, _)| *index).collect();
    let row = |from: usize| order.iter().map(|to| distances[from][*to]).collect();
    settled.into_values().map(|(index, node)| NumaNode { distances: row(index), ..node }).collect()
}

/// The distances as told if they are a whole table in which nothing is nearer than what is local; else those that the
/// kernel assumes where the firmware's table is useless, 10 and 20 (`LOCAL_DISTANCE`, `REMOTE_DISTANCE`).
fn settled_distances(nodes: &[NumaNode]) -> Vec<Vec<u32>> {
    let is_sound = |(index, node): (usize, &NumaNode)| {
        let local = node.distances.get(index).copied().unwrap_or_default();
        let is_possible = |distance: &u32| *distance >= local && *distance <= 255;
        local > 0 && node.distances.len() == nodes.len() && node.distances.iter().all(is_possible)
    };
    if nodes.iter().enumerate().all(is_sound) {
        return nodes.iter().map(|node| node.distances.clone()).collect();
    }
    let assumed = |from: usize| (0..nodes.len()).map(|to| if from == to { 10 } else { 20 }).collect();
    (0..nodes.len()).map(assumed).collect()
}

/// Cores of several threads, in order of their first CPU.
fn settled_cores(cores: &[CpuSet], usable: &CpuSet, place: &Places) -> Vec<CpuSet> {
    let possible = cores.iter().filter(|core| core.len() <= MOST_THREADS).cloned();
    let within = |core: CpuSet| split(&core, |cpu| (place.package.get(&cpu), place.node.get(&cpu)));
    let mut cores: Vec<CpuSet> = divided(possible, usable).into_iter().flat_map(within).collect();
    cores.retain(|core| core.len() > 1);
    cores.sort_by_key(CpuSet::first);
    cores
}

/// Caches of whole cores, in order of their first CPU. A core belongs where its first thread does.
fn settled_caches(caches: &[CpuSet], usable: &CpuSet, cores: &[CpuSet], place: &Places) -> Vec<CpuSet> {
    let leader: BTreeMap<u32, u32> =
        cores.iter().flat_map(|core| core.iter().filter_map(|cpu| Some((cpu, core.first()?)))).collect();
    let followers = cores.iter().flat_map(|core| core.iter().skip(1)).collect();
    let leaders = usable.difference(&followers);
    let within = |cache: CpuSet| split(&cache, |cpu| place.package.get(&cpu));
    let whole = |cache: CpuSet| -> CpuSet {
        let is_here = |cpu: &u32| cache.contains(leader.get(cpu).copied().unwrap_or(*cpu));
        usable.iter().filter(is_here).collect()
    };
    let mut caches: Vec<CpuSet> = divided(caches.iter().cloned(), &leaders).into_iter().flat_map(within).collect();
    caches = caches.into_iter().map(whole).collect();
    caches.sort_by_key(CpuSet::first);
    caches
}

/// The caches if at least one joins several cores; one cache per core says nothing that the cores do not say.
fn joining(caches: Vec<CpuSet>, cores: &[CpuSet]) -> Vec<CpuSet> {
    let is_of_one_core = |cache: &CpuSet| cache.len() == 1 || cores.contains(cache);
    if caches.iter().all(is_of_one_core) { Vec::new() } else { caches }
}

/// The kinds if every usable CPU is of one of two, and no core is of both.
fn groups_of_kind(kinds: Kinds, usable: &CpuSet, cores: &[CpuSet]) -> Vec<CoreGroup> {
    let performance = kinds.performance.intersection(usable);
    let efficiency = kinds.efficiency.intersection(usable);
    let is_mixed = |core: &CpuSet| !core.is_disjoint(&performance) && !core.is_disjoint(&efficiency);
    let is_whole = performance.is_disjoint(&efficiency) && performance.union(&efficiency) == *usable;
    if performance.is_empty() || efficiency.is_empty() || !is_whole || cores.iter().any(is_mixed) {
        return Vec::new();
    }
    vec![
        CoreGroup { core_type: CoreKind::Performance, cpus: performance },
        CoreGroup { core_type: CoreKind::Efficiency, cpus: efficiency },
    ]
}

fn of_this_machine(kubelet: Kubelet, present: &CpuSet) -> Kubelet {
    Kubelet { reserved_cpus: kubelet.reserved_cpus.intersection(present), ..kubelet }
}

/// How large the inventory may become, as JSON, and how much of that devices get at least.
const LARGEST_INVENTORY: usize = 8 << 10;
const ROOM_FOR_DEVICES: usize = 1 << 10;
/// How many devices the schema takes.
const MOST_DEVICES: usize = 128;

/// As many devices as the inventory has room for, in order of name. None lies on a node that is not there.
fn settled_devices(devices: Vec<Device>, hardware: &Hardware) -> Vec<Device> {
    let nodes: NodeSet = hardware.numa_nodes.iter().map(|node| node.id).collect();
    let size = |value: serde_json::Result<String>| value.map_or(LARGEST_INVENTORY, |text| text.len());
    let room = LARGEST_INVENTORY.saturating_sub(size(serde_json::to_string(hardware)) + "\"devices\":[],".len());
    let mut room = room.max(ROOM_FOR_DEVICES);
    let known = |device: Device| Device { node: device.node.filter(|node| nodes.contains(*node)), ..device };
    let fits = |device: &Device| {
        let left = room.checked_sub(size(serde_json::to_string(device)) + 1);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let mut devices: Vec<Device> = devices.into_iter().map(known).take_while(fits).take(MOST_DEVICES).collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    devices.dedup_by(|a, b| a.name == b.name);
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(list: &str) -> CpuSet {
        list.parse().expect("a list")
    }

    fn lists(sets: &[CpuSet]) -> Vec<String> {
        sets.iter().map(ToString::to_string).collect()
    }

    fn node(id: u32, list: &str, distances: &[u32]) -> NumaNode {
        NumaNode { id, cpus: cpus(list), memory: lamina_crds::Bytes::mebi(1), distances: distances.to_vec() }
    }

    fn eight() -> Claims {
        Claims { usable: cpus("0-7"), present: cpus("0-7"), ..Claims::default() }
    }

    #[test]
    fn what_two_domains_claim_is_the_first_ones() {
        let hardware = settle(Claims {
            packages: vec![(0, cpus("0-5")), (1, cpus("4-9"))],
            nodes: vec![node(0, "0-3", &[10, 20]), node(1, "3-7", &[20, 10])],
            ..eight()
        });
        assert_eq!(hardware.packages[1].cpus, cpus("6-7"));
        assert_eq!(hardware.numa_nodes[1].cpus, cpus("4-7"));
    }

    #[test]
    fn a_core_ends_where_its_node_ends() {
        let hardware = settle(Claims {
            nodes: vec![node(0, "0-2", &[10, 20]), node(1, "3-7", &[20, 10])],
            cores: vec![cpus("0-1"), cpus("2-3"), cpus("4-5")],
            ..eight()
        });
        assert_eq!(lists(&hardware.cores), ["0-1", "4-5"]);
    }

    #[test]
    fn a_cache_ends_where_its_package_ends_and_holds_whole_cores() {
        let hardware = settle(Claims {
            packages: vec![(0, cpus("0-3")), (1, cpus("4-7"))],
            cores: vec![cpus("0,2")],
            level_3: vec![cpus("0-1,4"), cpus("2-3,5-7")],
            ..eight()
        });
        assert_eq!(lists(&hardware.l3), ["0-2", "3", "4", "5-7"]);
    }

    #[test]
    fn the_level_below_counts_only_without_level_3_and_where_it_joins_cores() {
        let second = |level_2: &[&str], level_3: &[&str]| {
            let [level_2, level_3] = [level_2, level_3].map(|lists| lists.iter().map(|list| cpus(list)).collect());
            lists(&settle(Claims { level_2, level_3, cores: vec![cpus("0-1")], ..eight() }).l3)
        };
        assert_eq!(second(&["0-3", "4-7"], &[]), ["0-3", "4-7"]);
        assert_eq!(second(&["0-3", "4-7"], &["0-7"]), ["0-7"]);
        assert!(second(&["0-1", "2", "3"], &[]).is_empty());
    }

    #[test]
    fn a_core_of_nine_threads_is_nonsense() {
        let usable = cpus("0-15");
        let hardware = settle(Claims { usable, cores: vec![cpus("0-8"), cpus("9-10")], ..Claims::default() });
        assert_eq!(lists(&hardware.cores), ["9-10"]);
    }

    #[test]
    fn useless_distances_become_the_kernels_own() {
        for wrong in [vec![], vec![10, 20, 30], vec![20, 10], vec![0, 0], vec![10, 1000]] {
            let nodes = vec![node(0, "0-3", &wrong), node(1, "4-7", &[21, 10])];
            let hardware = settle(Claims { nodes, ..eight() });
            assert_eq!(hardware.numa_nodes[0].distances, [10, 20], "{wrong:?}");
            assert_eq!(hardware.numa_nodes[1].distances, [20, 10]);
        }
    }

    #[test]
    fn nodes_come_in_order_with_their_distances() {
        let nodes = vec![node(4, "4-7", &[10, 30]), node(1, "0-3", &[31, 11])];
        let hardware = settle(Claims { nodes, ..eight() });
        let seen: Vec<_> = hardware.numa_nodes.iter().map(|node| (node.id, node.distances.clone())).collect();
        assert_eq!(seen, [(1, vec![11, 31]), (4, vec![30, 10])]);
    }

    #[test]
    fn kinds_count_only_if_they_are_two_and_whole() {
        let groups = |performance: &str, efficiency: &str| {
            let kinds = Some(Kinds { performance: cpus(performance), efficiency: cpus(efficiency) });
            settle(Claims { kinds, cores: vec![cpus("0-1"), cpus("2-3")], ..eight() }).core_types.len()
        };
        assert_eq!(groups("0-3", "4-7"), 2);
        assert_eq!(groups("0-3", "4-6"), 0);
        assert_eq!(groups("0-4", "4-7"), 0);
        assert_eq!(groups("0-7", ""), 0);
        assert_eq!(groups("0", "1-7"), 0, "one core of both kinds");
    }

    #[test]
    fn devices_fill_what_room_is_left_and_know_only_nodes_that_are_there() {
        let device = |index: u32| Device {
            name: format!("nvme{index}n1"),
            pci: Some(format!("0000:{index:02x}:00.0")),
            node: Some(index % 2),
        };
        let nodes = vec![node(0, "0-7", &[10])];
        let hardware = settle(Claims { nodes, devices: (0..250).map(device).collect(), ..eight() });
        assert_eq!(hardware.devices.len(), 128);
        assert!(hardware.devices.iter().all(|device| device.node != Some(1)));
        assert!(serde_json::to_string(&hardware).expect("JSON").len() <= LARGEST_INVENTORY);
    }
}
