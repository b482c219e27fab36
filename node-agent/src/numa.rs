//! The NUMA policy of a service's processes: as unit text, as systemd sends it, and as a setting to compare.
//!
//! systemd.exec(5) `NUMAPolicy=`, `NUMAMask=`. It is fixed when a process starts; SetUnitProperties refuses it. In files the
//! mask is a list; on D-Bus it is bytes, lowest nodes first.

use std::fmt;

use lamina_crds::NodeSet;
use lamina_crds::host_state::ResolvedMemoryPolicy;
use lamina_crds::wishes::MemoryPolicy;

use crate::property::Value;
use crate::unit_text::UnitFile;

/// The keys in unit files.
pub const KEYS: [&str; 2] = ["NUMAPolicy", "NUMAMask"];

/// A policy with the nodes it speaks of; none for those that take none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaPolicy {
    /// The policy.
    pub policy: MemoryPolicy,
    /// The nodes.
    pub nodes: NodeSet,
}

impl NumaPolicy {
    /// What an entry asks.
    pub fn asked(policy: &ResolvedMemoryPolicy) -> Self {
        let ResolvedMemoryPolicy { policy, nodes } = policy;
        Self { policy: *policy, nodes: nodes.clone().unwrap_or_default() }
    }

    /// What systemd says: the number of the kernel's policy (below zero: none is set) and the mask's bytes. A policy that
    /// nobody can ask for (`preferred-many`, `weighted-interleave`) counts as none.
    pub fn from_bus(policy: i32, mask: &[u8]) -> Option<Self> {
        let policy = match policy {
            0 => MemoryPolicy::Default,
            1 => MemoryPolicy::Preferred,
            2 => MemoryPolicy::Bind,
            3 => MemoryPolicy::Interleave,
            4 => MemoryPolicy::Local,
            _ => return None,
        };
        Some(Self { policy, nodes: NodeSet::from_bus_bytes(mask) })
    }

    /// The same policy for a slice that has these nodes only: a mask outside them would keep the service from starting
    /// (242/NUMA_POLICY).
    pub fn within(&self, nodes: &NodeSet) -> Self {
        let nodes = match self.policy {
            MemoryPolicy::Default | MemoryPolicy::Local => NodeSet::new(),
            MemoryPolicy::Preferred if self.nodes.difference(nodes).is_empty() => self.nodes.clone(),
            MemoryPolicy::Preferred => nodes.first().into_iter().collect(),
            MemoryPolicy::Bind | MemoryPolicy::Interleave => nodes.clone(),
        };
        Self { policy: self.policy, nodes }
    }

    /// The settings in a unit file; the mask is emptied first, because it merges with earlier files.
    pub fn lines(&self, file: UnitFile) -> UnitFile {
        let file = file.set(KEYS[0], &self.word()).reset(KEYS[1]);
        if self.nodes.is_empty() { file } else { file.set(KEYS[1], &Value::Nodes(self.nodes.clone())) }
    }

    /// systemd's word for the policy.
    pub fn word(&self) -> &'static str {
        match self.policy {
            MemoryPolicy::Default => "default",
            MemoryPolicy::Local => "local",
            MemoryPolicy::Preferred => "preferred",
            MemoryPolicy::Bind => "bind",
            MemoryPolicy::Interleave => "interleave",
        }
    }
}

impl fmt::Display for NumaPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NUMAPolicy={} NUMAMask={}", self.word(), self.nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(policy: MemoryPolicy, nodes: &str) -> NumaPolicy {
        NumaPolicy { policy, nodes: nodes.parse().expect("a list") }
    }

    #[test]
    fn the_mask_of_a_file_is_a_list_and_on_the_bus_it_is_bytes() {
        let bind = policy(MemoryPolicy::Bind, "1,9");
        let text = bind.lines(UnitFile::new().section("Service")).finish();
        assert_eq!(text, "[Service]\nNUMAPolicy=bind\nNUMAMask=\nNUMAMask=1,9\n");
        assert_eq!(NumaPolicy::from_bus(2, &[0x02, 0x02]), Some(bind));
        assert_eq!(NumaPolicy::from_bus(4, &[]), Some(policy(MemoryPolicy::Local, "")));
        assert_eq!(NumaPolicy::from_bus(-1, &[]), None);
    }

    #[test]
    fn a_policy_shrinks_to_the_nodes_of_its_slice() {
        let nodes: NodeSet = "2-3".parse().expect("a list");
        assert_eq!(policy(MemoryPolicy::Bind, "0").within(&nodes), policy(MemoryPolicy::Bind, "2-3"));
        assert_eq!(policy(MemoryPolicy::Preferred, "0").within(&nodes), policy(MemoryPolicy::Preferred, "2"));
        assert_eq!(policy(MemoryPolicy::Preferred, "3").within(&nodes), policy(MemoryPolicy::Preferred, "3"));
        assert_eq!(policy(MemoryPolicy::Local, "").within(&nodes), policy(MemoryPolicy::Local, ""));
    }
}
