//! Which CPUs and how much memory a test host has, and on which NUMA nodes they are.

use std::{fmt, str::FromStr};

use lamina_crds::CpuSet;
use serde::{Deserialize, Serialize};

/// The CPUs of each NUMA node, in order of the nodes; written like `0-7,16-19/8-15`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Layout {
    nodes: Vec<CpuSet>,
}

impl Layout {
    /// The host of the running example: twenty CPUs on two nodes.
    pub fn twenty() -> Self {
        Self { nodes: vec![(0..8).chain(16..20).collect(), (8..16).collect()] }
    }

    /// The nodes' CPUs.
    pub fn nodes(&self) -> &[CpuSet] {
        &self.nodes
    }

    /// How many CPUs there are.
    pub fn cpus(&self) -> usize {
        self.nodes.iter().map(CpuSet::len).sum()
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(CpuSet::to_string).collect();
        formatter.write_str(&nodes.join("/"))
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let nodes = text
            .split('/')
            .map(|node| node.parse::<CpuSet>().map_err(|error| format!("{node:?} is no list of CPUs: {error}")))
            .collect::<Result<Vec<_>, _>>()?;
        let layout = Self { nodes };
        let mut expected = CpuSet::default();
        (0..layout.cpus()).filter_map(|cpu| u32::try_from(cpu).ok()).for_each(|cpu| expected.insert(cpu));
        let found = layout.nodes.iter().fold(CpuSet::default(), |all, node| all.union(node));
        if layout.nodes.iter().any(CpuSet::is_empty) || found != expected {
            return Err(format!("{text}: the nodes must name each CPU from 0 on exactly once, as in 0-7,16-19/8-15"));
        }
        Ok(layout)
    }
}

impl TryFrom<String> for Layout {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Layout> for String {
    fn from(layout: Layout) -> Self {
        layout.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twenty_cpus_read_as_they_are_written() {
        assert_eq!("0-7,16-19/8-15".parse(), Ok(Layout::twenty()));
        assert_eq!(Layout::twenty().to_string(), "0-7,16-19/8-15");
        assert_eq!(Layout::twenty().cpus(), 20);
    }

    #[test]
    fn a_cpu_on_two_nodes_or_on_none_is_refused() {
        for text in ["0-7/7-15", "0-3/5-7", "1-4", "0-3/", ""] {
            assert!(text.parse::<Layout>().is_err(), "{text}");
        }
    }
}
