//! Decides what this host is asked to hold: what it held before, changed by what the command line wishes. Pure.

use std::collections::BTreeMap;
use std::fmt;

use lamina_crds::host_state::EntryState;
use lamina_crds::{Hardware, TopologyEntry, TopologyName};
use lamina_node_agent::accept::Accepted;
use lamina_operator::preview::violations;
use lamina_operator::selection::selects;

use super::single_host::UID;
use crate::document::Topology;
use crate::plan::{Entries, HostPlan, resolved, specs};

/// What the command line wishes for this host.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// That it goes on with what it holds.
    Keep,
    /// That it runs these topologies. Others that it holds stay.
    Run(Vec<Topology>),
    /// That these topologies are stopped and removed, or released.
    Part {
        /// Which.
        topologies: Vec<TopologyName>,
        /// Absent or Released.
        state: EntryState,
    },
}

/// Whether a host that follows a cluster is taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// What a cluster asked for is left to that cluster.
    Respect,
    /// From now on this command says what the host holds.
    TakeOver,
}

/// What the host is asked to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// All entries.
    pub entries: Entries,
    /// Where slices go, if topologies were placed.
    pub plan: Option<HostPlan>,
}

/// Why the host is asked for nothing new: each reason as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub Vec<String>);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "nothing is changed: {}", self.0.join("\n  "))
    }
}

impl std::error::Error for Refused {}

/// The topologies that mean a host with these labels. Without labels every topology that is given is meant for it.
pub fn selected(topologies: Vec<Topology>, labels: &BTreeMap<String, String>) -> (Vec<Topology>, Vec<TopologyName>) {
    if labels.is_empty() {
        return (topologies, Vec::new());
    }
    let (meant, others): (Vec<_>, Vec<_>) =
        topologies.into_iter().partition(|topology| selects(&topology.spec.host_selector, labels));
    (meant, others.into_iter().map(|topology| topology.name).collect())
}

/// What the host should hold now, after what it accepted before.
///
/// # Errors
/// Every reason why it cannot; then nothing of it is to be done.
pub fn instruct(
    host: &str,
    hardware: &Hardware,
    accepted: &Accepted,
    wish: &Wish,
    ownership: Ownership,
) -> Result<Instruction, Refused> {
    let is_followed = !accepted.uid.is_empty() && accepted.uid != UID;
    if is_followed && ownership == Ownership::Respect {
        return Err(Refused(vec![format!(
            "{host} follows the HostState of a cluster (uid {}), whose operator would ask for its own again; change the \
             SliceTopology there, or give --take-over if this host leaves that cluster",
            accepted.uid
        )]));
    }
    let held = held(accepted);
    match wish {
        Wish::Keep => Ok(Instruction { entries: held, plan: None }),
        Wish::Run(topologies) => run(host, hardware, held, topologies),
        Wish::Part { topologies, state } => part(held, topologies, *state),
    }
}

/// What is held; what was removed, and is measured to be gone, is forgotten.
fn held(accepted: &Accepted) -> Entries {
    let is_gone = |state: EntryState, reached_by: &str| state == EntryState::Absent && !reached_by.is_empty();
    let held = accepted.entries.iter().filter(|(_, kept)| !is_gone(kept.entry.state, &kept.reached_by));
    held.map(|(name, kept)| (name.clone(), kept.entry.clone())).collect()
}

fn run(host: &str, hardware: &Hardware, held: Entries, topologies: &[Topology]) -> Result<Instruction, Refused> {
    let (plan, placed) = resolved(host, hardware, topologies, &held);
    if plan.is_refused() {
        let refusals = plan.topologies.iter().filter_map(|fate| Some((&fate.topology, fate.refused.as_ref()?)));
        return Err(Refused(refusals.map(|(name, refusal)| format!("{name}: {}", refusal.message)).collect()));
    }
    let mut entries = held.clone();
    entries.extend(placed.into_iter().map(|(name, entry)| (name, unless_same(entry, &held))));
    match violations(host, hardware, &held, &specs(topologies), &entries) {
        found if found.is_empty() => Ok(Instruction { entries, plan: Some(plan) }),
        found => Err(Refused(found)),
    }
}

/// The entry that is there, if the new one says nothing else: the generation it came from does not matter.
fn unless_same(entry: TopologyEntry, held: &Entries) -> TopologyEntry {
    match held.get(&entry.name) {
        Some(old) if TopologyEntry { generation: old.generation, ..entry.clone() } == *old => old.clone(),
        Some(_) | None => entry,
    }
}

fn part(mut entries: Entries, topologies: &[TopologyName], state: EntryState) -> Result<Instruction, Refused> {
    let known: Vec<String> = entries.keys().map(TopologyName::to_string).collect();
    let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
    let mut unknown = Vec::new();
    for name in topologies {
        match entries.get_mut(name) {
            Some(entry) => entry.state = state,
            None => unknown.push(format!("topology {name} is not held here; this host holds {known}")),
        }
    }
    if unknown.is_empty() { Ok(Instruction { entries, plan: None }) } else { Err(Refused(unknown)) }
}

#[cfg(test)]
mod tests {
    use lamina_node_agent::accept::accept;

    use super::super::single_host::SingleHost;
    use super::*;
    use crate::document::topologies;
    use crate::shape::Shape;

    fn text(name: &str, cores: u32) -> String {
        format!(
            "apiVersion: lamina.dev/v1alpha1\nkind: SliceTopology\nmetadata: {{ name: {name} }}\n\
             spec: {{ hostSelector: {{ matchLabels: {{ role: {name} }} }}, slices: [{{ name: front, cpu: {{ cores: {cores} }} }}] }}\n"
        )
    }

    fn topology(name: &str, cores: u32) -> Topology {
        topologies(&text(name, cores)).expect("legal").remove(0)
    }

    fn machine() -> Hardware {
        Shape { cores_per_l3: 8, ..Shape::default() }.hardware()
    }

    fn asked(accepted: &Accepted, wish: &Wish) -> Result<Instruction, Refused> {
        instruct("h", &machine(), accepted, wish, Ownership::Respect)
    }

    fn followed(accepted: &Accepted, instruction: &Instruction) -> Accepted {
        accept(accepted, SingleHost::new(accepted, &instruction.entries).object()).accepted
    }

    fn cpus(instruction: &Instruction, name: &str) -> String {
        let name = TopologyName::new(name).expect("legal");
        instruction.entries[&name].slices[0].cpus.to_string()
    }

    fn name(text: &str) -> TopologyName {
        TopologyName::new(text).expect("legal")
    }

    #[test]
    fn what_runs_stays_where_it_is_and_what_comes_takes_what_is_free() {
        let first = asked(&Accepted::default(), &Wish::Run(vec![topology("web", 3)])).expect("room");
        let accepted = followed(&Accepted::default(), &first);
        let again = asked(&accepted, &Wish::Run(vec![topology("web", 3)])).expect("room");
        assert_eq!(again.entries, first.entries);
        let more = asked(&accepted, &Wish::Run(vec![topology("api", 5)])).expect("room");
        assert_eq!((cpus(&more, "web"), cpus(&more, "api")), ("0-2".to_owned(), "3-7".to_owned()));
    }

    #[test]
    fn what_does_not_fit_changes_nothing_and_says_why() {
        let first = asked(&Accepted::default(), &Wish::Run(vec![topology("web", 6)])).expect("room");
        let accepted = followed(&Accepted::default(), &first);
        let refused = asked(&accepted, &Wish::Run(vec![topology("api", 3), topology("web", 6)])).expect_err("full");
        assert!(refused.to_string().starts_with("nothing is changed: api: h: "), "{refused}");
    }

    #[test]
    fn a_topology_that_is_removed_is_forgotten_once_it_is_gone() {
        let first = asked(&Accepted::default(), &Wish::Run(vec![topology("web", 3)])).expect("room");
        let accepted = followed(&Accepted::default(), &first);
        let wish = Wish::Part { topologies: vec![name("web")], state: EntryState::Absent };
        let parting = asked(&accepted, &wish).expect("it is held");
        assert_eq!(parting.entries[&name("web")].state, EntryState::Absent);
        let mut accepted = followed(&accepted, &parting);
        assert_eq!(asked(&accepted, &Wish::Keep).expect("nothing new").entries, parting.entries);
        accepted.entries.get_mut(&name("web")).expect("kept").reached_by = "0.1.0".to_owned();
        assert!(asked(&accepted, &Wish::Keep).expect("nothing new").entries.is_empty());
    }

    #[test]
    fn a_topology_that_is_released_comes_back_to_its_place() {
        let both = Wish::Run(vec![topology("web", 3), topology("api", 3)]);
        let accepted = followed(&Accepted::default(), &asked(&Accepted::default(), &both).expect("room"));
        let before = cpus(&asked(&accepted, &Wish::Keep).expect("nothing new"), "web");
        let wish = Wish::Part { topologies: vec![name("web")], state: EntryState::Released };
        let mut accepted = followed(&accepted, &asked(&accepted, &wish).expect("it is held"));
        accepted.entries.get_mut(&name("web")).expect("kept").reached_by = "0.1.0".to_owned();
        let back = asked(&accepted, &Wish::Run(vec![topology("web", 3)])).expect("room");
        assert_eq!(cpus(&back, "web"), before);
        assert_eq!(back.entries[&name("web")].state, EntryState::Present);
    }

    #[test]
    fn parting_with_what_is_not_held_is_a_mistake() {
        let wish = Wish::Part { topologies: vec![name("web")], state: EntryState::Absent };
        let refused = asked(&Accepted::default(), &wish).expect_err("unknown").to_string();
        assert_eq!(refused, "nothing is changed: topology web is not held here; this host holds nothing");
    }

    #[test]
    fn a_host_of_a_cluster_is_left_to_it_unless_it_is_taken_over() {
        let accepted = Accepted { uid: "6f1c".to_owned(), generation: 7, ..Accepted::default() };
        let refused = asked(&accepted, &Wish::Keep).expect_err("a cluster's").to_string();
        assert!(refused.contains("uid 6f1c") && refused.contains("--take-over"), "{refused}");
        let taken = instruct("h", &machine(), &accepted, &Wish::Keep, Ownership::TakeOver);
        assert!(taken.is_ok());
    }

    #[test]
    fn labels_choose_among_topologies_and_no_labels_choose_all() {
        let both = || vec![topology("web", 1), topology("api", 1)];
        assert_eq!(selected(both(), &BTreeMap::new()).1, []);
        let labels = BTreeMap::from([("role".to_owned(), "api".to_owned())]);
        let (meant, others) = selected(both(), &labels);
        assert_eq!((meant[0].name.as_str(), others), ("api", vec![name("web")]));
    }
}
