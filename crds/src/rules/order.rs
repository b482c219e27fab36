//! Finds circles in what leads from slice to slice: "starts after", "shares with".

use std::collections::{BTreeMap, BTreeSet};

use super::Fault;

/// What names what, by name, with the path of the field that says so.
pub(super) type Order<'a> = BTreeMap<&'a str, (String, Vec<&'a str>)>;

/// One fault per cycle, told at the first of its names; a name that names itself is the shortest cycle.
pub(super) fn cycles(order: &Order<'_>, rule: &str) -> Vec<Fault> {
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut faults = Vec::new();
    for (name, (path, _)) in order {
        if told.contains(name) {
            continue;
        }
        if let Some(cycle) = way_back(order, name) {
            told.extend(cycle.iter().copied());
            let value = format!("{} > {name}", cycle.join(" > "));
            faults.push(Fault::new(path, &value, rule, "remove one of these references"));
        }
    }
    faults
}

/// A shortest way from a name back to itself, starting with it.
fn way_back<'a>(order: &Order<'a>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut ways: Vec<Vec<&str>> = vec![vec![start]];
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = way.last().copied().unwrap_or(start);
            for next in order.get(last).map(|(_, after)| after.as_slice()).unwrap_or_default() {
                if *next == start {
                    return Some(way);
                }
                if seen.insert(next) {
                    longer.push(way.iter().copied().chain([*next]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(order: &[(&'static str, &[&'static str])]) -> Vec<String> {
        let order = order.iter().map(|(name, after)| (*name, (format!("at.{name}"), after.to_vec()))).collect();
        cycles(&order, "it runs in a circle").iter().map(|fault| format!("{}: {}", fault.path, fault.value)).collect()
    }

    #[test]
    fn a_circle_is_told_once() {
        assert_eq!(told(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]), ["at.a: a > b > c > a"]);
        assert_eq!(told(&[("a", &["a"])]), ["at.a: a > a"]);
    }

    #[test]
    fn a_diamond_is_no_circle() {
        assert!(told(&[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])]).is_empty());
    }

    #[test]
    fn a_name_before_a_circle_is_not_blamed() {
        assert_eq!(told(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]), ["at.b: b > c > b"]);
    }
}
