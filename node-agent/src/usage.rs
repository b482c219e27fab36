//! Decides which cgroups are looked at to tell what a host's slices and services use, and what their files mean.

use lamina_crds::host_state::EntryState;
use lamina_crds::measured::Pages;
use lamina_crds::{TopologyEntry, TopologyName, UnitName};

/// A unit whose use is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its topology.
    pub topology: TopologyName,
    /// Its unit.
    pub unit: UnitName,
    /// The slice that it is in; nothing for slices.
    pub slice: Option<UnitName>,
    /// Its cgroup.
    pub group: String,
}

/// The slices and services of these entries, each slice followed by its services. What is released runs on and is told, too.
pub fn consumers<'a>(entries: impl Iterator<Item = &'a TopologyEntry>) -> Vec<Consumer> {
    let held = entries.filter(|entry| entry.state != EntryState::Absent);
    held.flat_map(|entry| {
        let topology = entry.name.clone();
        entry.slices.iter().flat_map(move |slice| {
            let group = group_of_slice(&slice.unit);
            let own =
                Consumer { topology: topology.clone(), unit: slice.unit.clone(), slice: None, group: group.clone() };
            let inside = entry.services.iter().filter(|service| service.slice == slice.unit);
            let services = inside.map(|service| Consumer {
                topology: topology.clone(),
                unit: service.unit.clone(),
                slice: Some(slice.unit.clone()),
                group: format!("{group}/{}", service.unit),
            });
            [own].into_iter().chain(services).collect::<Vec<_>>()
        })
    })
    .collect()
}

/// The cgroup of a slice: each dash in its name is a level, systemd.slice(5).
fn group_of_slice(unit: &UnitName) -> String {
    let stem = unit.stem();
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("/{}.slice", &stem[..end])).collect()
}

/// The value of a line such as `usage_usec 1234` (`cpu.stat`).
pub fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A file with one number; `max`, no limit, is nothing.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The share of the last ten seconds in percent in which some task waited (`cpu.pressure`, `memory.pressure`).
pub fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
}

/// Bytes by node of what a program has touched or read: anonymous pages and page cache (`memory.numa_stat`). What the
/// kernel keeps for itself on its behalf (stacks, page tables, slab) is left out: it may lie anywhere.
pub fn pages(text: &str) -> Pages {
    let mut pages = Pages::new();
    let lines = text.lines().filter_map(|line| line.strip_prefix("anon ").or_else(|| line.strip_prefix("file ")));
    for word in lines.flat_map(str::split_whitespace) {
        let parsed = word.strip_prefix('N').and_then(|word| word.split_once('='));
        if let Some((Ok(node), Ok(bytes))) = parsed.map(|(node, bytes)| (node.parse::<u32>(), bytes.parse::<u64>())) {
            *pages.entry(node).or_default() += bytes;
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::example;

    #[test]
    fn every_slice_is_followed_by_its_services_in_its_cgroup() {
        let entry = example();
        let told = consumers([&entry].into_iter());
        assert_eq!(told.len(), 11, "three slices, eight services");
        assert_eq!(told[0].group, "/orchestrator.slice/orchestrator-control.slice");
        assert_eq!(told[1].group, format!("{}/orchestrator-orchestrator.service", told[0].group));
        assert_eq!(told[1].slice.as_ref(), Some(&told[0].unit));
        let gone = TopologyEntry { state: EntryState::Absent, ..entry };
        assert_eq!(consumers([&gone].into_iter()), []);
    }

    #[test]
    fn dashes_nest() {
        let unit = UnitName::new("shop-web-front.slice").expect("legal");
        assert_eq!(group_of_slice(&unit), "/shop.slice/shop-web.slice/shop-web-front.slice");
    }

    #[test]
    fn the_kernels_files_are_read() {
        let stat = "usage_usec 173\nuser_usec 100\nsystem_usec 73\nnr_periods 0\n";
        assert_eq!((counter(stat, "usage_usec"), counter(stat, "usage")), (Some(173), None));
        assert_eq!((number("4096\n"), number("max\n")), (Some(4096), None));
        let waits = "some avg10=1.50 avg60=0.10 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!((pressure(waits), pressure("")), (Some(1.5), None));
        let stat = "anon N0=4096 N1=0\nfile N0=8192 N1=4096\nkernel_stack N0=100 N1=100\nanon_thp N0=7 N1=7\n";
        assert_eq!(pages(stat), Pages::from([(0, 12_288), (1, 4096)]));
    }
}
