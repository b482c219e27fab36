//! Decides how the standing of topologies and hosts is told to people: the worst first, one line each; whatever was asked
//! for by name with all its conditions and slices.

use std::time::Duration;

use jiff::Timestamp;
use lamina_crds::conditions::{Condition, ConditionStatus};
use lamina_crds::host_state::SliceStatus;

use crate::drawing::counted;
use crate::status::{HostLine, Standing, Status, TopologyLine, Verdict};
use crate::table::{row, table};

/// How much is told of each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// One line, and none for hosts on which all is well.
    Short,
    /// Every host, with slices and conditions.
    Whole,
}

/// The status in words.
pub fn told(status: &Status, detail: Detail, now: Timestamp) -> String {
    let Status { topologies, hosts } = status;
    let is_told = |line: &&HostLine| detail == Detail::Whole || line.verdict.standing < Standing::Degraded;
    let hosts_told: Vec<&HostLine> = hosts.iter().filter(is_told).collect();
    let mut parts = vec![of_topologies(topologies, now), of_hosts(&hosts_told, now)];
    if detail == Detail::Whole {
        parts.push(of_slices(&hosts_told));
        parts.push(of_conditions(&hosts_told, now));
    }
    parts.push(conclusion(status));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn of_topologies(lines: &[TopologyLine], now: Timestamp) -> String {
    let line = |TopologyLine { verdict, topology, hosts }: &TopologyLine| {
        let counts = format!("{}/{}", hosts.ready, hosts.selected);
        vec![topology.clone(), standing(verdict), since(verdict.since, now), counts, why(verdict)]
    };
    headed(row(["TOPOLOGY", "STANDING", "SINCE", "HOSTS", "WHY"]), lines.iter().map(line))
}

fn of_hosts(lines: &[&HostLine], now: Timestamp) -> String {
    let line = |HostLine { verdict, host, topology, slices: _, conditions: _ }: &&HostLine| {
        let topology = topology.clone().unwrap_or_else(|| "-".to_owned());
        vec![host.clone(), topology, standing(verdict), since(verdict.since, now), why(verdict)]
    };
    headed(row(["HOST", "TOPOLOGY", "STANDING", "SINCE", "WHY"]), lines.iter().map(line))
}

fn of_slices(lines: &[&HostLine]) -> String {
    let slices = lines.iter().flat_map(|line| line.slices.iter().map(|slice| (line.host.clone(), slice)));
    let line = |(host, slice): (String, &SliceStatus)| {
        let SliceStatus { unit, cpus, memory_nodes, services, services_ready } = slice;
        let services = format!("{services_ready}/{services}");
        vec![host, unit.clone(), cpus.to_string(), memory_nodes.to_string(), services]
    };
    headed(row(["HOST", "SLICE", "CPUS", "NODES", "SERVICES"]), slices.map(line))
}

fn of_conditions(lines: &[&HostLine], now: Timestamp) -> String {
    let conditions = lines.iter().flat_map(|line| line.conditions.iter().map(move |condition| (line, condition)));
    let line = |(line, condition): (&&HostLine, &Condition)| {
        let Condition { type_, status, reason, message, last_transition_time, observed_generation: _ } = condition;
        let topology = line.topology.clone().unwrap_or_else(|| "-".to_owned());
        let (type_, status) = (format!("{type_:?}"), word(*status).to_owned());
        let since = since(Some(last_transition_time.0), now);
        vec![line.host.clone(), topology, type_, status, since, format!("{reason}: {message}")]
    };
    headed(row(["HOST", "TOPOLOGY", "CONDITION", "STATUS", "SINCE", "WHY"]), conditions.map(line))
}

fn headed(head: Vec<String>, lines: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = [head].into_iter().chain(lines).collect();
    if rows.len() > 1 { table(&rows) } else { String::new() }
}

fn conclusion(Status { topologies, hosts }: &Status) -> String {
    let well = |standing: Standing| standing >= Standing::Degraded;
    let of_topologies = topologies.iter().filter(|line| !well(line.verdict.standing)).count();
    let of_hosts: std::collections::BTreeSet<_> =
        hosts.iter().filter(|line| !well(line.verdict.standing)).map(|line| &line.host).collect();
    match (topologies.len(), of_topologies, of_hosts.len()) {
        (0, _, 0) if hosts.is_empty() => "there is no topology and no host\n".to_owned(),
        (_, 0, 0) => "everything is as asked\n".to_owned(),
        (_, topologies, hosts) => {
            let topologies = counted(topologies, "topology", "topologies");
            format!("not as asked: {topologies}, {}\n", counted(hosts, "host", "hosts"))
        }
    }
}

fn standing(verdict: &Verdict) -> String {
    format!("{:?}", verdict.standing)
}

fn why(Verdict { standing: _, since: _, reason, message }: &Verdict) -> String {
    if message.is_empty() { reason.clone() } else { message.clone() }
}

fn word(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

/// An age as kubectl writes it, of one unit.
fn since(moment: Option<Timestamp>, now: Timestamp) -> String {
    let Some(moment) = moment else { return "-".to_owned() };
    let seconds = Duration::try_from(now.duration_since(moment)).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
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
        HostLine {
            verdict: verdict(standing, "install /opt/shop/web"),
            host: name.to_owned(),
            topology: Some("shop".to_owned()),
            slices: vec![slice],
            conditions: Vec::new(),
        }
    }

    #[test]
    fn hosts_on_which_all_is_well_are_not_told_unless_asked_for() {
        let hosts = HostCounts { selected: 2, ready: 1, ..HostCounts::default() };
        let topology = TopologyLine {
            verdict: verdict(Standing::Stalled, "host-9: install /opt/shop/web"),
            topology: "shop".to_owned(),
            hosts,
        };
        let hosts = vec![host("host-9", Standing::Stalled), host("host-7", Standing::Ready)];
        let status = Status { topologies: vec![topology], hosts };
        let expected = "TOPOLOGY  STANDING  SINCE  HOSTS  WHY\n\
                        shop      Stalled   3m     1/2    host-9: install /opt/shop/web\n\n\
                        HOST    TOPOLOGY  STANDING  SINCE  WHY\n\
                        host-9  shop      Stalled   3m     install /opt/shop/web\n\n\
                        not as asked: 1 topology, 1 host\n";
        assert_eq!(told(&status, Detail::Short, at(185)), expected);
        let whole = told(&status, Detail::Whole, at(185));
        assert!(whole.contains("host-7  shop      Ready     3m"), "{whole}");
        assert!(whole.contains("host-9  shop-web.slice  0-7   0      4/5"), "{whole}");
    }

    #[test]
    fn an_age_is_of_one_unit() {
        let ages = [5, 119, 120, 7199, 7200, 172_799, 172_800].map(|second| since(Some(at(0)), at(second)));
        assert_eq!(ages, ["5s", "119s", "2m", "119m", "2h", "47h", "2d"]);
        assert_eq!(since(Some(at(9)), at(5)), "0s", "another machine's clock may be ahead");
    }
}
