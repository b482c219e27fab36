//! Decides how a verification is told to people: asked, property and kernel side by side, a line for each slice; wide also
//! each service with its threads and memory nodes, and each setting.

use jiff::Timestamp;
use lamina_crds::NodeSet;
use lamina_crds::measured::{ComparedSetting, Pages, ThreadGroup, VerifiedService, VerifiedTopology};

use super::answer::{Answer, ServiceCount, SliceRow, Source, ThreadCount, Verdict};
use crate::age::age;
use crate::arguments::Detail;
use crate::drawing::{Colour, Ink, amount, counted, inked};
use crate::plan::own_name;
use crate::table::{paragraph, row, table_within};

/// The answer in words: a line for each slice; wide services, threads, memory and settings, too.
pub fn told(answer: &Answer, detail: Detail, width: usize, colour: Colour, now: Timestamp) -> String {
    let mut parts = vec![slices(answer, width)];
    if detail == Detail::Wide {
        parts.extend([services(answer, width), memory(answer, width), settings(answer, width)]);
    }
    let fault = |fault: &String| inked(colour, Ink::Bold, paragraph(fault, width).trim_end()) + "\n";
    parts.push(answer.faults.iter().map(fault).collect());
    parts.push(answer.notes.iter().map(|note| paragraph(note, width)).collect());
    parts.push(answer.not_measured.iter().map(|why| paragraph(&format!("not measured now: {why}"), width)).collect());
    parts.push(inked(colour, Ink::Bold, paragraph(&conclusion(answer, now), width).trim_end()) + "\n");
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn slices(answer: &Answer, width: usize) -> String {
    if answer.slices.is_empty() {
        return String::new();
    }
    let several = answer.slices.iter().any(|slice| slice.topology != answer.slices[0].topology);
    let head = match answer.source {
        Source::Here | Source::Agent => row(["SLICE", "ASKED", "PROPERTY", "KERNEL", "THREADS", "PAGES"]),
        Source::HostState => row(["SLICE", "ASKED", "PLACED", "KERNEL", "SERVICES"]),
    };
    let rows = answer.slices.iter().map(|slice| slice_row(slice, answer.source, several));
    table_within(&[head].into_iter().chain(rows).collect::<Vec<_>>(), width)
}

fn slice_row(slice: &SliceRow, source: Source, several: bool) -> Vec<String> {
    let SliceRow { topology: _, slice: name, unit, asked, cpus, memory_nodes, threads, services, pages, as_asked: _ } =
        slice;
    let name = if several { unit.stem() } else { name };
    let shown = |list: Option<String>| list.filter(|list| !list.is_empty()).unwrap_or_else(|| "-".to_owned());
    let list = |set: &Option<lamina_crds::CpuSet>| shown(set.as_ref().map(ToString::to_string));
    let begin = vec![name.to_owned(), asked.clone()];
    let end = match (source, threads) {
        (Source::HostState, _) | (_, None) => {
            let ServiceCount { as_asked, all } = services;
            vec![list(&cpus.asked), list(&cpus.kernel), format!("{as_asked} of {all} as asked")]
        }
        (Source::Here | Source::Agent, Some(threads)) => {
            let lie = lie(pages, memory_nodes.asked.as_ref());
            vec![list(&cpus.property), list(&cpus.kernel), inside(*threads), lie]
        }
    };
    [begin, end].concat()
}

fn inside(ThreadCount { all, outside }: ThreadCount) -> String {
    if outside == 0 { format!("{all} in") } else { format!("{} in, {outside} outside", all.saturating_sub(outside)) }
}

/// Where memory lies: the share on the nodes that are asked for, or on each node where none is.
fn lie(pages: &Pages, asked: Option<&NodeSet>) -> String {
    let all: u64 = pages.values().sum();
    if all == 0 {
        return "-".to_owned();
    }
    let Some(asked) = asked else {
        let used = pages.iter().filter(|(_, bytes)| **bytes > 0);
        let parts = used.map(|(node, bytes)| format!("{} node {node}", share(*bytes, all)));
        return parts.collect::<Vec<_>>().join(", ");
    };
    let there = pages.iter().filter(|(node, _)| asked.contains(**node)).map(|(_, bytes)| bytes).sum();
    format!("{} node {asked}", share(there, all))
}

/// A share in percent, cut and not rounded: 100 is all.
fn share(part: u64, all: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(all.max(1));
    if tenths % 10 == 0 { format!("{} %", tenths / 10) } else { format!("{}.{} %", tenths / 10, tenths % 10) }
}

fn services(answer: &Answer, width: usize) -> String {
    let mut rows = vec![row(["SERVICE", "SLICE", "STATE", "THREADS", "MAY RUN ON", "NODES", "IDS"])];
    for topology in &answer.measured {
        for service in &topology.services {
            rows.extend(service_rows(topology, service));
        }
    }
    if rows.len() > 1 { table_within(&rows, width) } else { String::new() }
}

/// A line for each place at which threads of the service may run.
fn service_rows(topology: &VerifiedTopology, service: &VerifiedService) -> Vec<Vec<String>> {
    let own = |unit| own_name(unit, &topology.name);
    let begin = vec![own(&service.unit), own(&service.slice), service.sub_state.clone()];
    let nothing = || String::new();
    if service.groups.is_empty() {
        return vec![[begin, vec![service.threads.to_string(), "-".to_owned(), "-".to_owned(), nothing()]].concat()];
    }
    let group = |(index, group): (usize, &ThreadGroup)| {
        let begin = if index == 0 { begin.clone() } else { vec![nothing(), nothing(), nothing()] };
        let ThreadGroup { cpus, memory_nodes, count, threads } = group;
        let ids: Vec<String> = threads.iter().map(ToString::to_string).collect();
        let more = if threads.len() < *count as usize { " ..." } else { "" };
        let end = vec![count.to_string(), cpus.to_string(), memory_nodes.to_string(), ids.join(" ") + more];
        [begin, end].concat()
    };
    let mut rows: Vec<Vec<String>> = service.groups.iter().enumerate().map(group).collect();
    if service.further_threads > 0 {
        let more = vec![service.further_threads.to_string(), "others".to_owned(), nothing(), nothing()];
        rows.push([vec![nothing(), nothing(), nothing()], more].concat());
    }
    rows
}

/// Memory of every unit on every node.
fn memory(answer: &Answer, width: usize) -> String {
    let units: Vec<(String, &Pages)> = answer
        .measured
        .iter()
        .flat_map(|topology| {
            let slices = topology.slices.iter().map(|slice| (slice.unit.to_string(), &slice.pages));
            slices.chain(topology.services.iter().map(|service| (service.unit.to_string(), &service.pages)))
        })
        .filter(|(_, pages)| !pages.is_empty())
        .collect();
    let nodes: std::collections::BTreeSet<u32> = units.iter().flat_map(|(_, pages)| pages.keys()).copied().collect();
    if nodes.is_empty() {
        return String::new();
    }
    let mut rows =
        vec![["UNIT".to_owned()].into_iter().chain(nodes.iter().map(|node| format!("NODE {node}"))).collect()];
    rows.extend(units.iter().map(|(unit, pages)| {
        let on = |node: &u32| amount(pages.get(node).copied().unwrap_or_default());
        [unit.clone()].into_iter().chain(nodes.iter().map(on)).collect::<Vec<_>>()
    }));
    table_within(&rows, width)
}

/// Settings that somebody asked for, and those that differ.
fn settings(answer: &Answer, width: usize) -> String {
    let mut rows = vec![row(["UNIT", "SETTING", "ASKED", "PROPERTY", "KERNEL"])];
    for topology in &answer.measured {
        let slices = topology.slices.iter().map(|slice| (&slice.unit, &slice.settings));
        let units = slices.chain(topology.services.iter().map(|service| (&service.unit, &service.settings)));
        for (unit, settings) in units {
            let told = settings.iter().filter(|setting| is_worth_telling(setting));
            rows.extend(told.map(|setting| {
                let ComparedSetting { key, asked, property, kernel } = setting;
                let shown = |value: &Option<String>| {
                    value.as_deref().map_or_else(|| "-".to_owned(), |value| readable(key, value))
                };
                vec![unit.to_string(), key.clone(), readable(key, asked), shown(property), shown(kernel)]
            }));
        }
    }
    if rows.len() > 1 { table_within(&rows, width) } else { String::new() }
}

/// Whether a setting is none of the defaults that Lamina writes where nothing is asked.
fn is_worth_telling(ComparedSetting { key: _, asked, property, kernel: _ }: &ComparedSetting) -> bool {
    !matches!(asked.as_str(), "" | "0" | "infinity") || property.as_ref().is_some_and(|property| property != asked)
}

fn readable(key: &str, value: &str) -> String {
    match value.parse() {
        Ok(bytes) if key.starts_with("Memory") => amount(bytes),
        _ => value.to_owned(),
    }
}

fn conclusion(answer: &Answer, now: Timestamp) -> String {
    let host = &answer.host;
    let said = || match answer.at {
        Some(at) => format!("as its agent said last; it was heard {} ago", age(Some(at), now)),
        None => "as its agent said last".to_owned(),
    };
    if answer.slices.is_empty() && answer.verdict == Verdict::AsAsked {
        return format!("{host}: no slice is asked for");
    }
    match (answer.verdict, answer.source) {
        (Verdict::AsAsked, Source::HostState) => format!("{host}: everything is as asked, {}", said()),
        (Verdict::AsAsked, _) => format!("{host}: everything is as asked, measured now"),
        (Verdict::Differs, Source::HostState) => format!("{host}: not everything is as asked, {}", said()),
        (Verdict::Differs, _) => {
            format!("{host}: {}, measured now", counted(answer.faults.len(), "difference", "differences"))
        }
        (Verdict::Unknown, _) => format!("{host}: nobody knows how it is: this is {}", said()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::{broken_host, host, told_host, wishes};
    use super::super::answer::{measured, said_last};
    use super::*;

    fn now() -> Timestamp {
        "2026-11-26T10:00:12Z".parse().expect("a time")
    }

    fn plain(answer: &Answer, detail: Detail) -> String {
        told(answer, detail, 80, Colour::None, now())
    }

    #[test]
    fn asked_property_and_kernel_stand_side_by_side() {
        let expected = "\
SLICE    ASKED                       PROPERTY  KERNEL  THREADS  PAGES
control  8 cores, NUMA node #0       0-7       0-7     112 in   100 % node 0
runner   8 cores apart from control  8-15      8-15    64 in    99.7 % node 1
fanout   4 cores near control        16-19     16-19   31 in    -

host-7: everything is as asked, measured now
";
        assert_eq!(plain(&measured(host(), Source::Here, &wishes()), Detail::Short), expected);
    }

    #[test]
    fn differences_are_counted_and_told() {
        let answer = measured(broken_host(), Source::Agent, &wishes());
        let expected = "\
SLICE    ASKED                       PROPERTY  KERNEL  THREADS            PAGES
control  8 cores, NUMA node #0       0-7       0-19    112 in, 2 outside  100 % node 0
runner   8 cores apart from control  8-15      8-15    64 in              99.7 % node 1
fanout   4 cores near control        16-19     16-19   31 in              -

orchestrator-control.slice: CPUs 0-7 are asked, the kernel gives `0-19`;
    look at the slices above it
orchestrator-api.service: a thread may run on CPUs 8-19, outside
    orchestrator-control.slice

changed settings take effect when these are restarted:
    orchestrator-api.service

host-7: 2 differences, measured now
";
        let told = plain(&answer, Detail::Short);
        assert_eq!(told, expected, "{told}");
        let coloured = super::told(&answer, Detail::Short, 80, Colour::Codes, now());
        assert_eq!(coloured.replace("\x1b[1m", "").replace("\x1b[0m", ""), expected);
    }

    #[test]
    fn wide_tells_services_threads_nodes_and_settings() {
        let told = plain(&measured(broken_host(), Source::Here, &wishes()), Detail::Wide);
        for line in [
            "SERVICE  SLICE    STATE    THREADS  MAY RUN ON  NODES  IDS",
            "api      control  running  2        0-19        0      4711 4712",
            "                           100      0-7         0      200 201 202 203 204 205",
            "UNIT                         NODE 0  NODE 1",
            "orchestrator-runner.slice    16 MiB  7 GiB",
            "UNIT                        SETTING    ASKED   PROPERTY  KERNEL",
            "orchestrator-control.slice  MemoryMax  12 GiB  12 GiB    12 GiB",
        ] {
            assert!(told.lines().any(|found| found.trim_end() == line), "`{line}` is not in\n{told}");
        }
        assert!(!told.contains("TasksMax"), "defaults are not told: {told}");
    }

    #[test]
    fn what_was_said_last_says_so_and_when() {
        let answer = said_last(&told_host(), "its agent is a service of the host".to_owned(), false, &wishes());
        let expected = "\
SLICE    ASKED                  PLACED  KERNEL  SERVICES
control  8 cores, NUMA node #0  0-7     0-7     5 of 5 as asked

not measured now: its agent is a service of the host

host-9: everything is as asked, as its agent said last; it was heard 12s ago
";
        assert_eq!(plain(&answer, Detail::Short), expected);
    }

    #[test]
    fn a_share_is_whole_only_when_nothing_lies_elsewhere() {
        assert_eq!([share(1000, 1000), share(9999, 10_000), share(1, 3)], ["100 %", "99.9 %", "33.3 %"]);
        let pages = Pages::from([(0, 60), (1, 40)]);
        assert_eq!(lie(&pages, None), "60 % node 0, 40 % node 1");
        assert_eq!(lie(&pages, Some(&"0-1".parse().expect("a list"))), "100 % node 0-1");
    }
}
