//! Decides how a slice's wish is told in a few words.

use lamina_crds::slice_request::Neighbour;
use lamina_crds::slice_topology::Slice;
use lamina_crds::{CpuSet, NodeSet};

use crate::drawing::counted;

/// What a slice asks for.
pub fn asked(slice: &Slice) -> String {
    let amount = |number: u32, one, several| counted(number as usize, one, several);
    let cpu = &slice.cpu;
    let mut words = match (&cpu.set, cpu.cores, cpu.cpus) {
        (Some(set), _, _) => format!("CPUs {set}"),
        (None, Some(cores), _) => amount(cores, "core", "cores"),
        (None, None, cpus) => amount(cpus.unwrap_or_default(), "CPU", "CPUs"),
    };
    let Some(numa) = &slice.numa else { return words };
    if let Some(ordinal) = numa.ordinal {
        words.push_str(&format!(", NUMA node #{ordinal}"));
    }
    if let Some(nodes) = &numa.nodes {
        words.push_str(&format!(", nodes {nodes}"));
    }
    let names = |neighbours: &[Neighbour]| {
        neighbours.iter().map(|neighbour| neighbour.slice.to_string()).collect::<Vec<_>>().join(", ")
    };
    for (word, neighbours) in [("near", &numa.near), ("apart from", &numa.apart)] {
        if !neighbours.is_empty() {
            words.push_str(&format!(" {word} {}", names(neighbours)));
        }
    }
    words
}

/// What a slice is to have, where nobody knows what was wished for.
pub fn resolved(cpus: Option<&CpuSet>, nodes: Option<&NodeSet>) -> String {
    let cpus = cpus.map(|cpus| format!("CPUs {cpus}"));
    let nodes = nodes.map(|nodes| format!("node {nodes}"));
    let parts: Vec<String> = cpus.into_iter().chain(nodes).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::topologies;

    #[test]
    fn a_wish_is_told_in_a_few_words() {
        let text = "apiVersion: lamina.dev/v1alpha1\nkind: SliceTopology\nmetadata: { name: web }\nspec: { hostSelector: { matchLabels: { a: b } }, slices: [\
            { name: a, cpu: { cores: 8 }, numa: { ordinal: 0 } }, { name: b, cpu: { cpus: 1 }, numa: { apart: [{ slice: a }] } }, { name: c, cpu: { set: '5-7' } }] }";
        let topology = topologies(text).expect("legal").remove(0);
        let words: Vec<String> = topology.spec.slices.iter().map(asked).collect();
        assert_eq!(words, ["8 cores, NUMA node #0", "1 CPU apart from a", "CPUs 5-7"]);
    }

    #[test]
    fn without_a_wish_the_place_is_told() {
        let (cpus, nodes) = ("0-7".parse().expect("a list"), "0".parse().expect("a list"));
        assert_eq!(resolved(Some(&cpus), Some(&nodes)), "CPUs 0-7, node 0");
        assert_eq!(resolved(None, None), "-");
    }
}
