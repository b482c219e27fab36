//! Decides in which words a topology's status says what its slices lack on a host, the gravest first.

use std::collections::BTreeMap;

use lamina_crds::UnitName;
use lamina_crds::conditions::Reason;
use lamina_crds::slice_topology::Slice;

use crate::entry::Named;
use crate::placement::{PlacedSlice, Shortfall};
use crate::view::Refusal;

/// What a topology's slices lack, each as a sentence without the host's name. None where all is as asked.
pub fn shortages(named: &Named<'_>, placed: &BTreeMap<UnitName, PlacedSlice>) -> Vec<Refusal> {
    let slices = named.spec.slices.iter();
    let mut told: Vec<(Gravity, Refusal)> = slices.flat_map(|slice| of_slice(named, slice, placed)).collect();
    told.sort_by_key(|(gravity, _)| *gravity);
    told.into_iter().map(|(_, refusal)| refusal).collect()
}

/// How much a lack matters to who looks at a fleet: what broke, what was given up by consent, what was only preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    Offline,
    Shared,
    Shrunk,
    Relaxed,
}

fn of_slice(named: &Named<'_>, slice: &Slice, placed: &BTreeMap<UnitName, PlacedSlice>) -> Vec<(Gravity, Refusal)> {
    let Some(place) = named.unit_of(&slice.name).and_then(|unit| placed.get(unit)) else { return Vec::new() };
    let told = place.shortfalls.iter().map(|shortfall| told(slice, shortfall));
    let mut told: Vec<(Gravity, Refusal)> = told.collect();
    if !place.offline.is_empty() && told.iter().all(|(gravity, _)| *gravity != Gravity::Offline) {
        let message = format!("CPUs {} of {} are offline; {BRING_BACK}", place.offline, slice.name);
        told.push((Gravity::Offline, Refusal { reason: Reason::CpuOffline, message }));
    }
    told
}

const BRING_BACK: &str = "bring them back, or ask for fewer";

fn told(slice: &Slice, shortfall: &Shortfall) -> (Gravity, Refusal) {
    let (name, unit) = (&slice.name, if slice.cpu.cores.is_some() { "cores" } else { "CPUs" });
    let (gravity, reason, message) = match shortfall {
        Shortfall::Offline { cpus, asked, left } => {
            let message = format!("{name} has {left} of {asked} {unit}: CPUs {cpus} are offline; {BRING_BACK}");
            (Gravity::Offline, Reason::CpuOffline, message)
        }
        Shortfall::Shared { with, asked, available } => {
            let with = short(with);
            let message = format!("{name} runs inside {with} ({available} cores on this host, {asked} asked)");
            (Gravity::Shared, Reason::Shared, message)
        }
        Shortfall::Shrunk { asked, got } => {
            (Gravity::Shrunk, Reason::Shrunk, format!("{name} has {got} of {asked} {unit}"))
        }
        Shortfall::Relaxed { field, domain: _, asked, got } => {
            (Gravity::Relaxed, Reason::Relaxed, format!("{name}: {asked} wanted ({field}), {got}"))
        }
    };
    (gravity, Refusal { reason, message })
}

/// The slice's name in its unit's.
fn short(unit: &UnitName) -> &str {
    unit.stem().rsplit_once('-').map_or(unit.stem(), |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use lamina_crds::wishes::Domain;
    use lamina_crds::{SliceTopologySpec, TopologyName};
    use serde_json::json;

    use super::*;
    use crate::placement::WishField;

    #[test]
    fn the_gravest_lack_comes_first_in_the_users_words() {
        let name = TopologyName::new("web-shop").expect("legal");
        let spec: SliceTopologySpec = serde_json::from_value(json!({
            "hostSelector": { "matchLabels": { "a": "b" } },
            "slices": [
                { "name": "runner", "cpu": { "cores": 8, "min": 1 } },
                { "name": "fanout", "cpu": { "cpus": 4, "shareWith": "runner" } },
            ],
        }))
        .expect("a spec");
        let named = Named::of(&name, &spec).expect("legal names");
        let unit = |name: &str| UnitName::new(format!("web_shop-{name}.slice")).expect("legal");
        let relaxed = Shortfall::Relaxed {
            field: WishField::Apart,
            domain: Domain::Node,
            asked: "another node than control".to_owned(),
            got: "this host has one".to_owned(),
        };
        let shortfalls = [
            ("runner", vec![relaxed, Shortfall::Shrunk { asked: 8, got: 4 }]),
            ("fanout", vec![Shortfall::Shared { with: unit("runner"), asked: 20, available: 8 }]),
        ];
        let place = |shortfalls| PlacedSlice { shortfalls, ..PlacedSlice::default() };
        let placed = shortfalls.map(|(name, shortfalls)| (unit(name), place(shortfalls))).into();
        let told: Vec<String> = shortages(&named, &placed).into_iter().map(|refusal| refusal.message).collect();
        assert_eq!(
            told,
            [
                "fanout runs inside runner (8 cores on this host, 20 asked)",
                "runner has 4 of 8 cores",
                "runner: another node than control wanted (numa.apart), this host has one",
            ]
        );
    }
}
