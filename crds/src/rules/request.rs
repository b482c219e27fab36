//! Decides whether what a slice asks of a machine makes sense: CPUs, NUMA nodes, memory, and what is kept free.

use std::collections::{BTreeMap, BTreeSet};

use super::order::{Order, cycles};
use super::{Fault, at_most, duplicates, exactly_one, in_range, memory_faults, unknown_name};
use crate::id_set::CpuSet;
use crate::slice_request::{CpuRequest, Housekeeping, Neighbour, NumaRequest, SliceMemory};
use crate::slice_topology::{Isolation, Slice};
use crate::wishes::{Domain, NodesFrom, Siblings, WishPolicy};

/// Every rule that one slice's request breaks by itself. `slices` are the names in the topology.
pub(super) fn request_faults(path: &str, slice: &Slice, slices: &BTreeSet<&str>) -> Vec<Fault> {
    let priority = slice.priority.filter(|priority| !(-1000..=1000).contains(priority)).map(|priority| {
        let rule = "a whole number from -1000 to 1000 is needed";
        Fault::new(&format!("{path}.priority"), &priority.to_string(), rule, "write a number of that range")
    });
    let mut faults: Vec<Fault> = priority.into_iter().collect();
    faults.extend(cpu_faults(&format!("{path}.cpu"), &slice.cpu, slices));
    faults.extend(slice.numa.iter().flat_map(|numa| numa_faults(&format!("{path}.numa"), slice, numa, slices)));
    faults.extend(slice.memory.iter().flat_map(|memory| slice_memory_faults(&format!("{path}.memory"), memory)));
    faults
}

/// Rules that span the requests of several slices: sharing in circles, sets that overlap, sets that are kept free.
pub(super) fn joint_faults(slices: &[Slice], housekeeping: Option<&Housekeeping>) -> Vec<Fault> {
    let mut faults = cycles(&sharing(slices), "sharing runs in a circle");
    faults.extend(overlaps(slices));
    faults.extend(housekeeping.iter().flat_map(|housekeeping| housekeeping_faults(housekeeping, slices)));
    faults
}

fn cpu_faults(path: &str, cpu: &CpuRequest, slices: &BTreeSet<&str>) -> Vec<Fault> {
    let CpuRequest { set, on_missing, cores, cpus, min, share_with, siblings, core_type: _, align } = cpu;
    let counted = cores.is_some() || cpus.is_some();
    let one = exactly_one(path, &[("set", set.is_some()), ("cores", cores.is_some()), ("cpus", cpus.is_some())]);
    let mut faults: Vec<Fault> = one.into_iter().collect();
    faults.extend(empty(&format!("{path}.set"), set.as_ref().is_some_and(CpuSet::is_empty), UNPINNED));
    faults.extend(in_range(&format!("{path}.cores"), cores.map(u64::from), 1, 8192));
    faults.extend(in_range(&format!("{path}.cpus"), cpus.map(u64::from), 1, 8192));
    faults.extend(in_range(&format!("{path}.min"), min.map(u64::from), 1, 8192));
    let word = |known: bool, name: &str, value: Option<String>, others: &[&str]| {
        if known { None } else { only_with(path, name, value, others) }
    };
    faults.extend(word(counted, "min", min.map(|min| min.to_string()), &["cores", "cpus"]));
    faults.extend(word(counted, "shareWith", share_with.as_ref().map(ToString::to_string), &["cores", "cpus"]));
    faults.extend(word(set.is_some(), "onMissing", on_missing.map(|word| format!("{word:?}")), &["set"]));
    faults.extend(fewest(path, *min, cores.or(*cpus)));
    faults.extend((*siblings == Some(Siblings::Idle) && cores.is_none()).then(|| {
        let rule = "Idle goes with cores only";
        Fault::new(&format!("{path}.siblings"), "Idle", rule, "remove siblings, or write cores")
    }));
    faults.extend(share_with.iter().filter_map(|other| {
        unknown_name(&format!("{path}.shareWith"), other.as_str(), "slice in this topology", slices)
    }));
    let domains: Vec<String> = align.iter().map(|alignment| format!("{:?}", alignment.domain)).collect();
    let paths = domains.iter().enumerate().map(|(index, domain)| (format!("{path}.align[{index}]"), domain.as_str()));
    faults.extend(duplicates(paths));
    faults
}

/// A field that means something only beside one of others, which are not there.
fn only_with(path: &str, name: &str, value: Option<String>, others: &[&str]) -> Option<Fault> {
    let others = super::listed(others, "or");
    let rule = format!("{name} goes with {others} only");
    Some(Fault::new(&format!("{path}.{name}"), &value?, &rule, &format!("remove {name}, or write {others}")))
}

fn fewest(path: &str, min: Option<u32>, wish: Option<u32>) -> Option<Fault> {
    let (min, wish) = (min?, wish?);
    (min > wish).then(|| {
        let rule = format!("min is at most the wish, which is {wish}");
        Fault::new(&format!("{path}.min"), &min.to_string(), &rule, &format!("write {wish} or less"))
    })
}

/// What an empty list would do, and what to write instead.
type EmptyList = (&'static str, &'static str);
const UNPINNED: EmptyList =
    ("an empty list would leave the slice unpinned", "list at least one CPU, or write cores instead");
const NOTHING: EmptyList = ("an empty list names nothing", "list at least one number, or remove the field");

fn empty(path: &str, is_empty: bool, (rule, remedy): EmptyList) -> Option<Fault> {
    is_empty.then(|| Fault::new(path, "\"\"", rule, remedy))
}

fn numa_faults(path: &str, slice: &Slice, numa: &NumaRequest, slices: &BTreeSet<&str>) -> Vec<Fault> {
    let NumaRequest { ordinal, ordinal_policy, nodes, near, apart, near_devices } = numa;
    let mut faults: Vec<Fault> =
        in_range(&format!("{path}.ordinal"), ordinal.map(u64::from), 0, 1023).into_iter().collect();
    if ordinal.is_none() {
        let policy = ordinal_policy.map(|policy| format!("{policy:?}"));
        faults.extend(only_with(path, "ordinalPolicy", policy, &["ordinal"]));
    }
    faults.extend(empty(&format!("{path}.nodes"), nodes.as_ref().is_some_and(|nodes| nodes.is_empty()), NOTHING));
    for (word, neighbours) in [("near", near), ("apart", apart)] {
        faults.extend(neighbour_faults(&format!("{path}.{word}"), slice, neighbours, slices));
    }
    faults.extend(contradictions(path, near, apart));
    let devices = near_devices.iter().enumerate();
    faults.extend(duplicates(devices.map(|(index, name)| (format!("{path}.nearDevices[{index}]"), name.as_str()))));
    faults.extend(at_most(&format!("{path}.nearDevices"), near_devices.len(), 16, "devices"));
    faults
}

fn neighbour_faults(path: &str, own: &Slice, neighbours: &[Neighbour], slices: &BTreeSet<&str>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, Neighbour { slice, domain: _, policy: _ }) in neighbours.iter().enumerate() {
        let path = format!("{path}[{index}].slice");
        faults.extend(unknown_name(&path, slice.as_str(), "slice in this topology", slices));
        if *slice == own.name {
            faults.push(Fault::new(&path, slice.as_str(), "a slice is no neighbour of itself", "name another slice"));
        }
    }
    let names = neighbours.iter().enumerate();
    faults.extend(duplicates(names.map(|(index, other)| (format!("{path}[{index}]"), other.slice.as_str()))));
    faults.extend(at_most(path, neighbours.len(), 16, "slices"));
    faults
}

/// Nobody can be near a slice and apart from it in the same domain; as mere preferences both may stand.
fn contradictions(path: &str, near: &[Neighbour], apart: &[Neighbour]) -> Vec<Fault> {
    let required = |list: &[Neighbour]| -> BTreeMap<(String, Domain), usize> {
        let named = list.iter().enumerate().filter(|(_, other)| other.policy == Some(WishPolicy::Require));
        named.map(|(index, other)| ((other.slice.to_string(), other.domain.unwrap_or(Domain::Node)), index)).collect()
    };
    let near = required(near);
    let both = required(apart).into_iter().filter_map(|(key, index)| Some((near.get(&key)?, key, index)));
    both.map(|(other, (slice, domain), index)| {
        let rule = format!("{path}.near[{other}] requires the same {domain:?}");
        Fault::new(&format!("{path}.apart[{index}]"), &slice, &rule, "remove one of the two, or write policy: Prefer")
    })
    .collect()
}

fn slice_memory_faults(path: &str, memory: &SliceMemory) -> Vec<Fault> {
    let SliceMemory { nodes_from, nodes, policy: _, migrate: _, min: _, low: _, high: _, max: _, swap_max: _ } = memory;
    let mut faults = memory_faults(path, memory.limits().as_ref());
    faults.extend(empty(&format!("{path}.nodes"), nodes.as_ref().is_some_and(|nodes| nodes.is_empty()), NOTHING));
    if nodes.is_some() != (*nodes_from == Some(NodesFrom::List)) {
        let nodes = nodes.as_ref().map_or("-".to_owned(), ToString::to_string);
        let from = nodes_from.map_or("-".to_owned(), word_of);
        let value = format!("nodes {nodes}, nodesFrom {from}");
        faults.push(Fault::new(path, &value, "nodes and nodesFrom List go together", "write both or neither"));
    }
    faults
}

fn word_of(from: NodesFrom) -> String {
    match from {
        NodesFrom::Cpus => "CPUs".to_owned(),
        NodesFrom::All => "All".to_owned(),
        NodesFrom::List => "List".to_owned(),
    }
}

/// Who runs inside whom, where there are not enough CPUs.
fn sharing(slices: &[Slice]) -> Order<'_> {
    let sharers =
        slices.iter().enumerate().filter_map(|(index, slice)| Some((index, slice, slice.cpu.share_with.as_ref()?)));
    let named = sharers.map(|(index, slice, with)| {
        (slice.name.as_str(), (format!("spec.slices[{index}].cpu.shareWith"), vec![with.as_str()]))
    });
    named.collect()
}

/// Literal sets that name the same CPUs although one of the slices wants them for itself.
fn overlaps(slices: &[Slice]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, slice) in slices.iter().enumerate() {
        for (other, earlier) in slices.iter().enumerate().take(index) {
            let (Some(set), Some(taken)) = (&slice.cpu.set, &earlier.cpu.set) else { continue };
            let shared = set.intersection(taken);
            let both_shared = [slice, earlier].iter().all(|slice| slice.isolation == Some(Isolation::Shared));
            if !shared.is_empty() && !both_shared {
                faults.push(Fault::new(
                    &format!("spec.slices[{index}].cpu.set"),
                    &set.to_string(),
                    &format!("CPUs {shared} are also named by spec.slices[{other}] ({}), and exclusive", earlier.name),
                    "name other CPUs, or write isolation: Shared on both slices",
                ));
            }
        }
    }
    faults
}

fn housekeeping_faults(housekeeping: &Housekeeping, slices: &[Slice]) -> Vec<Fault> {
    let Housekeeping { set, cores, per } = housekeeping;
    let path = "spec.housekeeping";
    let mut faults: Vec<Fault> =
        exactly_one(path, &[("set", set.is_some()), ("cores", cores.is_some())]).into_iter().collect();
    faults.extend(empty(&format!("{path}.set"), set.as_ref().is_some_and(CpuSet::is_empty), NOTHING));
    faults.extend(in_range(&format!("{path}.cores"), cores.map(u64::from), 0, 8192));
    if cores.is_none() {
        faults.extend(only_with(path, "per", per.map(|per| format!("{per:?}")), &["cores"]));
    }
    let kept = set.iter().flat_map(|kept| slices.iter().enumerate().map(move |(index, slice)| (kept, index, slice)));
    faults.extend(kept.filter_map(|(kept, index, slice)| {
        let asked = slice.cpu.set.as_ref()?;
        let common = asked.intersection(kept);
        (!common.is_empty()).then(|| {
            Fault::new(
                &format!("spec.slices[{index}].cpu.set"),
                &asked.to_string(),
                &format!("CPUs {common} are kept free by spec.housekeeping.set"),
                "name other CPUs, or remove these from housekeeping",
            )
        })
    }));
    faults
}

#[cfg(test)]
mod tests {
    use crate::SliceTopologySpec;
    use crate::rules::topology_faults;

    /// What is said about a topology with these slices and the other fields as given.
    fn told(slices: &[&str], rest: &str) -> Vec<String> {
        let text = format!("{{ hostSelector: {{ matchLabels: {{ a: b }} }}, slices: [{}]{rest} }}", slices.join(", "));
        let spec: SliceTopologySpec = serde_yaml::from_str(&text).expect("decodes");
        topology_faults("t", &spec).iter().map(ToString::to_string).collect()
    }

    fn told_of(slice: &str) -> Vec<String> {
        told(&[&format!("{{ name: a, {slice} }}"), "{ name: b, cpu: { cores: 1 } }"], "")
    }

    #[test]
    fn every_wish_may_stand() {
        let rich = "priority: -5, cpu: { cores: 8, min: 8, shareWith: b, siblings: Idle, coreType: Performance, \
            align: [{ domain: L3, policy: Require }, { domain: Node, policy: Spread }] }, \
            numa: { ordinal: 1, ordinalPolicy: Require, nodes: '0-1', near: [{ slice: b, domain: L3, policy: Require }], \
            apart: [{ slice: b }], nearDevices: ['0000:3b:00.0', eth0] }, \
            memory: { nodesFrom: List, nodes: '0', policy: Bind, migrate: Now, min: 1Gi }";
        assert_eq!(told_of(rich), [""; 0]);
        assert_eq!(
            told(&["{ name: a, cpu: { set: 4-7, onMissing: UseOnline } }"], ", housekeeping: { set: 0-3 }"),
            [""; 0]
        );
        assert_eq!(
            told(&["{ name: a, cpu: { cpus: 3, min: 1 } }"], ", housekeeping: { cores: 0, per: Node }"),
            [""; 0]
        );
    }

    #[test]
    fn words_that_do_not_go_together_are_told() {
        let cases = [
            (
                "cpu: { cores: 2, cpus: 2 }",
                "cpu is `several`: exactly one of set, cores and cpus is needed; remove cores or cpus",
            ),
            ("cpu: { cores: 4, min: 5 }", "cpu.min is `5`: min is at most the wish, which is 4; write 4 or less"),
            (
                "cpu: { set: 0-3, min: 2 }",
                "cpu.min is `2`: min goes with cores or cpus only; remove min, or write cores or cpus",
            ),
            (
                "cpu: { set: 0-3, shareWith: b }",
                "cpu.shareWith is `b`: shareWith goes with cores or cpus only; remove shareWith, or write cores or cpus",
            ),
            (
                "cpu: { cores: 4, onMissing: UseOnline }",
                "cpu.onMissing is `UseOnline`: onMissing goes with set only; remove onMissing, or write set",
            ),
            (
                "cpu: { cpus: 4, siblings: Idle }",
                "cpu.siblings is `Idle`: Idle goes with cores only; remove siblings, or write cores",
            ),
            (
                "cpu: { cores: 1, align: [{ domain: L3, policy: Ignore }, { domain: L3, policy: Prefer }] }",
                "cpu.align[1] is `L3`: the name is taken: spec.slices[0].cpu.align[0] bears it; choose another name or remove one of them",
            ),
            (
                "cpu: { cores: 1 }, numa: { ordinalPolicy: Require }",
                "numa.ordinalPolicy is `Require`: ordinalPolicy goes with ordinal only; remove ordinalPolicy, or write ordinal",
            ),
            (
                "cpu: { cores: 1 }, numa: { nodes: '' }",
                "numa.nodes is `\"\"`: an empty list names nothing; list at least one number, or remove the field",
            ),
            (
                "cpu: { cores: 1 }, memory: { nodesFrom: List }",
                "memory is `nodes -, nodesFrom List`: nodes and nodesFrom List go together; write both or neither",
            ),
            (
                "cpu: { cores: 1 }, memory: { nodes: '1', nodesFrom: CPUs }",
                "memory is `nodes 1, nodesFrom CPUs`: nodes and nodesFrom List go together; write both or neither",
            ),
            (
                "priority: 1001, cpu: { cores: 1 }",
                "priority is `1001`: a whole number from -1000 to 1000 is needed; write a number of that range",
            ),
        ];
        for (slice, sentence) in cases {
            assert_eq!(told_of(slice), [format!("spec.slices[0].{sentence}")]);
        }
    }

    #[test]
    fn nobody_is_near_and_apart_by_need() {
        let both = "cpu: { cores: 1 }, numa: { near: [{ slice: b, policy: Require }], apart: [{ slice: b, policy: Require }] }";
        assert_eq!(
            told_of(both),
            [
                "spec.slices[0].numa.apart[0] is `b`: spec.slices[0].numa.near[0] requires the same Node; remove one of the two, or write policy: Prefer"
            ]
        );
        assert_eq!(told_of(&both.replacen("policy: Require", "domain: Package, policy: Require", 1)), [""; 0]);
    }

    #[test]
    fn sharing_names_slices_and_runs_in_no_circle() {
        let slice = |name: &str, with: &str| format!("{{ name: {name}, cpu: {{ cores: 1, shareWith: {with} }} }}");
        assert_eq!(
            told(&[&slice("a", "z"), &slice("b", "a")], ""),
            [
                "spec.slices[0].cpu.shareWith is `z`: there is no such slice in this topology; name one of a, b, or add it"
            ]
        );
        assert_eq!(
            told(&[&slice("a", "b"), &slice("b", "a")], ""),
            ["spec.slices[0].cpu.shareWith is `a > b > a`: sharing runs in a circle; remove one of these references"]
        );
        assert_eq!(told(&[&slice("a", "a")], "").len(), 1);
    }

    #[test]
    fn what_is_kept_free_is_no_slices() {
        let slices = ["{ name: a, cpu: { set: 0-3 } }"];
        assert_eq!(
            told(&slices, ", housekeeping: { set: '0,8' }"),
            [
                "spec.slices[0].cpu.set is `0-3`: CPUs 0 are kept free by spec.housekeeping.set; name other CPUs, or remove these from housekeeping"
            ]
        );
        assert_eq!(
            told(&slices, ", housekeeping: { set: '8', cores: 1, per: Node }"),
            ["spec.housekeeping is `both`: exactly one of set and cores is needed; remove set or cores"]
        );
        assert_eq!(
            told(&slices, ", housekeeping: { set: '8', per: Node }"),
            ["spec.housekeeping.per is `Node`: per goes with cores only; remove per, or write cores"]
        );
    }
}
