//! Decides how the standing of a fleet is told to people: the worst first, one line each; whatever was asked for by name
//! with its slices, services and conditions.

use std::collections::BTreeSet;

use jiff::Timestamp;
use lamina_crds::conditions::Condition;
use lamina_crds::host_state::SliceStatus;

use super::standing::{HostLine, ServiceLine, Standing, Status, TopologyLine, Verdict};
use crate::age::age;
use crate::arguments::Detail;
use crate::drawing::{Colour, Ink, counted, inked};
use crate::table::{row, table_within};

/// The status in words: topologies, and hosts on which not all is well; wide every host, with slices, services and
/// conditions.
pub fn told(status: &Status, detail: Detail, width: usize, colour: Colour, now: Timestamp) -> String {
    let Status { api_version: _, kind: _, topologies, hosts } = status;
    let is_told = |line: &&HostLine| detail == Detail::Wide || !line.verdict.standing.is_well();
    let hosts: Vec<&HostLine> = hosts.iter().filter(is_told).collect();
    let mut parts = vec![of_topologies(topologies, now), of_hosts(&hosts, now)];
    if detail == Detail::Wide {
        parts.extend([of_slices(&hosts), of_services(&hosts), of_conditions(topologies, &hosts, now)]);
    }
    parts.retain(|part| part.len() > 1);
    let tables = parts.iter().map(|rows| table_within(rows, width));
    let conclusion = inked(colour, Ink::Bold, &conclusion(status));
    let parts: Vec<String> = tables.chain([conclusion + "\n"]).collect();
    parts.join("\n")
}

type Rows = Vec<Vec<String>>;

fn headed(head: Vec<String>, lines: impl Iterator<Item = Vec<String>>) -> Rows {
    [head].into_iter().chain(lines).collect()
}

fn of_topologies(lines: &[TopologyLine], now: Timestamp) -> Rows {
    let line = |TopologyLine { topology, verdict, hosts, conditions: _ }: &TopologyLine| {
        let counts = format!("{}/{}", hosts.ready, hosts.selected);
        vec![topology.clone(), standing(verdict), age(verdict.since, now), counts, why(verdict)]
    };
    headed(row(["TOPOLOGY", "STANDING", "SINCE", "HOSTS", "WHY"]), lines.iter().map(line))
}

fn of_hosts(lines: &[&HostLine], now: Timestamp) -> Rows {
    let line = |line: &&HostLine| {
        let HostLine { host, topology, verdict, .. } = line;
        let topology = topology.clone().unwrap_or_else(|| "-".to_owned());
        vec![host.clone(), topology, standing(verdict), age(verdict.since, now), why(verdict)]
    };
    headed(row(["HOST", "TOPOLOGY", "STANDING", "SINCE", "WHY"]), lines.iter().map(line))
}

fn of_slices(lines: &[&HostLine]) -> Rows {
    let slices = lines.iter().flat_map(|line| line.slices.iter().map(|slice| (line.host.clone(), slice)));
    let line = |(host, slice): (String, &SliceStatus)| {
        let SliceStatus { unit, cpus, memory_nodes, services, services_ready } = slice;
        let services = format!("{services_ready}/{services}");
        vec![host, unit.clone(), cpus.to_string(), memory_nodes.to_string(), services]
    };
    headed(row(["HOST", "SLICE", "CPUS", "NODES", "SERVICES"]), slices.map(line))
}

fn of_services(lines: &[&HostLine]) -> Rows {
    let services = lines.iter().flat_map(|line| line.services.iter().map(|service| (line.host.clone(), service)));
    let line = |(host, service): (String, &ServiceLine)| {
        let ServiceLine { unit, slice: _, standing, message } = service;
        vec![host, unit.clone(), format!("{standing:?}"), message.clone()]
    };
    headed(row(["HOST", "SERVICE", "STANDING", "WHY"]), services.map(line))
}

fn of_conditions(topologies: &[TopologyLine], hosts: &[&HostLine], now: Timestamp) -> Rows {
    let dash = || "-".to_owned();
    let of_topologies = topologies.iter().map(|line| (dash(), line.topology.clone(), &line.conditions));
    let of_hosts =
        hosts.iter().map(|line| (line.host.clone(), line.topology.clone().unwrap_or_else(dash), &line.conditions));
    let lines = of_topologies.chain(of_hosts).flat_map(|(host, topology, conditions)| {
        conditions.iter().map(move |condition| {
            let Condition { type_, status, reason, message, last_transition_time, observed_generation: _ } = condition;
            let words = if message.is_empty() { reason.clone() } else { format!("{reason}: {message}") };
            let since = age(Some(last_transition_time.0), now);
            vec![host.clone(), topology.clone(), format!("{type_:?}"), format!("{status:?}"), since, words]
        })
    });
    headed(row(["HOST", "TOPOLOGY", "CONDITION", "STATUS", "SINCE", "WHY"]), lines)
}

fn conclusion(Status { topologies, hosts, .. }: &Status) -> String {
    let of_topologies = topologies.iter().filter(|line| !line.verdict.standing.is_well()).count();
    let of_hosts: BTreeSet<_> =
        hosts.iter().filter(|line| !line.verdict.standing.is_well()).map(|line| &line.host).collect();
    let is_silent = |line: &HostLine| line.verdict.standing == Standing::Silent;
    match (of_topologies, of_hosts.len()) {
        (0, 0) if topologies.is_empty() && hosts.is_empty() => "there is no topology and no host".to_owned(),
        (0, 0) => "everything is as asked".to_owned(),
        (topologies, hosts_told) => {
            let topologies = counted(topologies, "topology", "topologies");
            let silent = if hosts.iter().any(is_silent) { "; of silent hosts, what was said last is told" } else { "" };
            format!("not as asked: {topologies}, {}{silent}", counted(hosts_told, "host", "hosts"))
        }
    }
}

fn standing(verdict: &Verdict) -> String {
    format!("{:?}", verdict.standing)
}

fn why(Verdict { standing: _, since: _, reason, message }: &Verdict) -> String {
    if message.is_empty() { reason.clone() } else { message.clone() }
}

#[cfg(test)]
mod tests {
    use lamina_crds::measured::API_VERSION;
    use lamina_crds::slice_topology::HostCounts;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn verdict(standing: Standing, message: &str) -> Verdict {
        Verdict { standing, since: Some(at(0)), reason: "Why".to_owned(), message: message.to_owned() }
    }

    fn host(name: &str, standing: Standing) -> HostLine {
        let slice = SliceStatus {
            unit: "shop-web.slice".to_owned(),
            cpus: "0-7".parse().expect("a list"),
            memory_nodes: "0".parse().expect("a list"),
            services: 5,
            services_ready: 4,
        };
        let service = ServiceLine {
            unit: "shop-cart.service".to_owned(),
            slice: slice.unit.clone(),
            standing,
            message: String::new(),
        };
        HostLine {
            host: name.to_owned(),
            topology: Some("shop".to_owned()),
            verdict: verdict(
                standing,
                "shop-cart.service: /opt/shop/cart is missing; install it, the unit was not changed",
            ),
            heard: None,
            slices: vec![slice],
            services: vec![service],
            conditions: Vec::new(),
        }
    }

    fn status() -> Status {
        let topology = TopologyLine {
            topology: "shop".to_owned(),
            verdict: verdict(Standing::Stalled, "host-9: /opt/shop/cart is missing"),
            hosts: HostCounts { selected: 2, ready: 1, ..HostCounts::default() },
            conditions: Vec::new(),
        };
        Status {
            api_version: API_VERSION,
            kind: "FleetStatus",
            topologies: vec![topology],
            hosts: vec![host("host-9", Standing::Stalled), host("host-7", Standing::Ready)],
        }
    }

    #[test]
    fn hosts_on_which_all_is_well_are_not_told_unless_asked_for() {
        let expected = "TOPOLOGY  STANDING  SINCE  HOSTS  WHY\n\
                        shop      Stalled   3m     1/2    host-9: /opt/shop/cart is missing\n\n\
                        HOST    TOPOLOGY  STANDING  SINCE  WHY\n\
                        host-9  shop      Stalled   3m     shop-cart.service: /opt/shop/cart is missing;\n\
                        \u{20}                                  install it, the unit was not changed\n\n\
                        not as asked: 1 topology, 1 host\n";
        assert_eq!(told(&status(), Detail::Short, 80, Colour::None, at(185)), expected);
        let whole = told(&status(), Detail::Wide, 200, Colour::None, at(185));
        assert!(whole.contains("host-7  shop      Ready     3m"), "{whole}");
        assert!(whole.contains("host-9  shop-web.slice  0-7   0      4/5"), "{whole}");
        assert!(whole.contains("host-7  shop-cart.service  Ready"), "{whole}");
    }

    #[test]
    fn colours_change_no_letter() {
        let coloured = told(&status(), Detail::Short, 80, Colour::Codes, at(185));
        let plain = coloured.replace("\x1b[1m", "").replace("\x1b[0m", "");
        assert_ne!(coloured, plain);
        assert_eq!(plain, told(&status(), Detail::Short, 80, Colour::None, at(185)));
    }

    #[test]
    fn an_empty_cluster_says_so() {
        let empty = Status { topologies: Vec::new(), hosts: Vec::new(), ..status() };
        assert_eq!(told(&empty, Detail::Short, 80, Colour::None, at(0)), "there is no topology and no host\n");
    }
}
