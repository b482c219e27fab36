//! One operator, some hosts with an agent each, one API server, and time. Everybody's pass is run here, to its end or to
//! its author's death, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jiff::Timestamp;
use lamina_crds::conditions::{ConditionType, holds_at};
use lamina_crds::host_state::AgentForm;
use lamina_crds::{HostStateStatus, SliceTopologySpec, SliceTopologyStatus};
use lamina_node_agent::agent;
use lamina_node_agent::cluster::Cluster as _;
use lamina_node_agent::memory::Memory;
use lamina_operator::{controller, memory};
use serde::Deserialize;

use crate::accident::{Accident, Author as PassAuthor, Fuse};
use crate::api::admission::{Author, Part};
use crate::api::agent::{AgentClient, raw};
use crate::api::operator::OperatorClient;
use crate::api::{ApiServer, Kind as ObjectKind, Precondition};
use crate::asked::{entries_of, is_selected, mismatches};
use crate::hand::Hand;
use crate::host::{Kind, SimulatedHost};
use crate::random::Random;
use crate::story::Story;
use crate::truth::disagreements;
use crate::wake::Look;
use crate::wish::Wish;

/// Everything there is in one history.
pub struct World {
    /// What time it is.
    pub now: Timestamp,
    /// The API server.
    pub api: ApiServer,
    /// Counts effects and lets accidents happen.
    pub fuse: Fuse,
    /// What is told.
    pub story: Story,
    /// The operator's process, if it lives.
    pub operator: Option<Operator>,
    /// The hosts, by name.
    pub hosts: BTreeMap<String, Site>,
    /// What must never happen and did, in sentences.
    pub failures: Vec<String>,
    /// Whether anything but users, operator and agents changed a host since everything was last as asked.
    pub is_disturbed: bool,
    /// Topologies that were deleted with everything they run, in the orderly way.
    pub removed: BTreeSet<String>,
    /// Counts lives lost, by power or otherwise.
    pub deaths: u64,
    random: Random,
}

/// The operator's process.
#[derive(Clone)]
pub struct Operator {
    memory: memory::Memory,
    look: Option<Look<[u64; 4]>>,
    /// Its connection.
    pub client: OperatorClient,
}

/// A host and the agent on it.
#[derive(Clone)]
pub struct Site {
    /// The host.
    pub host: SimulatedHost,
    /// The agent's process, if it lives.
    pub agent: Option<Agent>,
}

/// An agent's process.
#[derive(Clone)]
pub struct Agent {
    memory: Memory,
    look: Option<Look<(u64, Option<String>)>>,
    /// Its connection.
    pub client: AgentClient,
}

impl Agent {
    fn new(api: &ApiServer, host: &str, fuse: &Fuse) -> Self {
        let memory = Memory::default();
        Self { memory, look: None, client: AgentClient::new(api, host, fuse) }
    }
}

/// After so long the kernel has written everything out.
const WRITE_BACK: Duration = Duration::from_secs(60);

/// How long after a write that came too late, or was refused, the operator looks again.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// The label that selects hosts in every history.
pub const ROLE: &str = "role";

impl World {
    /// A cluster of as many nodes as there are kinds, all labelled `role: app`, with nobody alive yet.
    pub fn new(kinds: &[Kind], seed: u64, story: Story) -> Self {
        let fuse = Fuse::default();
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        story.at(now);
        let api = ApiServer::new(fuse.clone(), story.clone(), now);
        let mut hosts = BTreeMap::new();
        for (index, kind) in kinds.iter().enumerate() {
            let name = format!("host-{index}");
            let host = SimulatedHost::new(&name, kind, fuse.clone(), story.clone());
            hosts.insert(name.clone(), Site { host, agent: None });
        }
        let mut world = Self {
            now,
            api,
            fuse,
            story,
            operator: None,
            hosts,
            failures: Vec::new(),
            is_disturbed: false,
            removed: BTreeSet::new(),
            deaths: 0,
            random: Random::new(seed),
        };
        let names: Vec<String> = world.hosts.keys().cloned().collect();
        names.iter().for_each(|name| world.add_node(name));
        world
    }

    /// Another world that is the same and goes its own way, between two passes. Nothing of it is told.
    pub fn fork(&self) -> Self {
        let Self { now, api, fuse, story: _, operator, hosts, failures, is_disturbed, removed, deaths, random } = self;
        let (fuse, story) = (fuse.fork(), Story::default());
        let api = api.fork(fuse.clone(), story.clone());
        let operator =
            operator.as_ref().map(|operator| Operator { client: operator.client.moved_to(&api), ..operator.clone() });
        let site = |Site { host, agent }: &Site| Site {
            host: host.moved_to(&fuse, &story),
            agent: agent.as_ref().map(|agent| Agent { client: agent.client.moved_to(&api, &fuse), ..agent.clone() }),
        };
        Self {
            now: *now,
            operator,
            hosts: hosts.iter().map(|(name, present)| (name.clone(), site(present))).collect(),
            failures: failures.clone(),
            is_disturbed: *is_disturbed,
            removed: removed.clone(),
            deaths: *deaths,
            random: random.clone(),
            api,
            fuse,
            story,
        }
    }

    fn add_node(&mut self, name: &str) {
        let labels = BTreeMap::from([(ROLE.to_owned(), "app".to_owned())]);
        self.api.with(|store| {
            let node = crate::api::object(name, labels, serde_json::Value::Null);
            // Names of hosts are all different.
            let _ = store.create(&crate::api::admission::Author::Admin, ObjectKind::Node, node);
        });
    }

    /// A user applies a topology. One of that name that is being deleted is taken off first: the user's tool would wait
    /// for it, histories do not.
    pub fn apply(&mut self, name: &'static str, wish: &Wish) {
        self.story.tell("user", || format!("applies {name}: {}", wish.json()));
        self.removed.remove(name);
        self.api.with(|store| {
            let kind = ObjectKind::SliceTopology;
            if store.get(kind, name).is_some_and(|topology| topology.deletion_asked.is_some()) {
                store.delete_by_force(kind, name);
            }
            let spec = wish.json();
            // An admin's write to a server that is there does not fail.
            let _ = match store.get(kind, name) {
                None => store.create(&Author::Admin, kind, crate::api::object(name, BTreeMap::new(), spec)),
                Some(_) => {
                    store.change(&Author::Admin, (kind, name, Part::Whole), &Precondition::default(), |topology| {
                        topology.spec = Arc::new(spec);
                    })
                }
            };
        });
    }

    /// Time passes: systemd starts again what it starts again by itself.
    pub fn wait(&mut self, span: Duration) {
        self.now += span;
        self.story.at(self.now);
        self.api.with(|store| store.now = self.now);
        for Site { host, agent } in self.hosts.values_mut() {
            host.tick();
            if span >= WRITE_BACK {
                host.disk.write_back();
            }
            if let Some(agent) = agent {
                // Whoever lives gives signs of life all the time; one that gets lost is made up for by the next.
                let _ = run(agent.client.renew_lease(self.now));
            }
        }
        if let Some(operator) = &mut self.operator {
            self.api.with(|store| operator.client.view.catch_up_leases(store));
            operator.client.watch_leases(self.now);
        }
    }

    /// The dead are started again now and then, and every watch catches up as far as it likes.
    pub fn revive_some(&mut self, random: &mut Random) {
        let (api, now, fuse) = (self.api.clone(), self.now, self.fuse.clone());
        if self.operator.is_none() && random.chance(60) {
            self.operator = Some(Operator {
                memory: memory::Memory::default(),
                look: None,
                client: OperatorClient::new(&api, now),
            });
        }
        for (name, Site { host: _, agent }) in &mut self.hosts {
            if agent.is_none() && random.chance(60) {
                *agent = Some(Agent::new(&api, name, &fuse));
            }
        }
        api.with(|store| {
            let agents = self.hosts.values_mut().filter_map(|site| site.agent.as_mut());
            let views = agents.map(|agent| &mut agent.client.view);
            let operator = self.operator.iter_mut().map(|operator| &mut operator.client.view);
            operator.chain(views).for_each(|view| view.drift_forward(store, random));
        });
    }

    /// Whoever is dead is started again, and every watch catches up.
    pub fn revive(&mut self) {
        let (api, now, fuse) = (self.api.clone(), self.now, self.fuse.clone());
        let operator = self.operator.get_or_insert_with(|| Operator {
            memory: memory::Memory::default(),
            look: None,
            client: OperatorClient::new(&api, now),
        });
        api.with(|store| operator.client.view.catch_up(store));
        for (name, Site { host: _, agent }) in &mut self.hosts {
            let agent = agent.get_or_insert_with(|| Agent::new(&api, name, &fuse));
            api.with(|store| agent.client.view.catch_up(store));
        }
    }

    /// Everybody who lives makes one pass, the operator first.
    pub fn round(&mut self) {
        self.operator_pass();
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        names.iter().for_each(|name| self.agent_pass(name));
    }

    /// The operator makes one pass, if it lives and its watches have answered.
    pub fn operator_pass(&mut self) {
        let Some(mut operator) = self.operator.take() else { return };
        operator.client.watch_leases(self.now);
        if !operator.client.view.is_complete() {
            self.operator = Some(operator);
            return;
        }
        let heard = operator.client.heard();
        if operator.look.as_ref().is_some_and(|look| !look.is_over(&heard, self.now)) {
            self.operator = Some(operator);
            return;
        }
        let is_current = self.api.with(|store| operator.client.view.is_current(store));
        self.fuse.begin_pass(PassAuthor::Operator);
        let finished = run(controller::pass(&mut operator.memory, &mut operator.client, self.now));
        let claims = std::mem::take(&mut operator.client.claims);
        for (topology, status) in claims.into_iter().filter(|_| is_current) {
            self.judge_topology(&topology, &status);
        }
        if let Some(result) = finished {
            let due = result.map_or(Some(self.now), |summary| next_pass(&summary, self.now));
            operator.look = Some(Look { at: self.now, heard, due });
            self.operator = Some(operator);
        } else {
            self.deaths += 1;
            self.fuse.take_last();
        }
    }

    /// The agent of a host makes one pass, if it lives.
    pub fn agent_pass(&mut self, name: &str) {
        let Some(site) = self.hosts.get_mut(name) else { return };
        let Some(mut agent) = site.agent.take() else { return };
        let heard = (site.host.stirs, agent.client.heard());
        if agent.look.as_ref().is_some_and(|look| !look.is_over(&heard, self.now)) {
            site.agent = Some(agent);
            return;
        }
        if let Some(object) = self.api.with(|store| {
            let version = agent.client.view.of(ObjectKind::HostState)?;
            let object = store.get_at(ObjectKind::HostState, name, version)?;
            site.host.witness.is_news(&object.uid, object.generation).then(|| raw(object))
        }) {
            site.host.witness.instruct(&object);
        }
        let settings = agent::Settings { host: name.to_owned(), version: "0.1.0".to_owned(), form: AgentForm::Pod };
        let Agent { memory, client, look: _ } = &mut agent;
        self.fuse.begin_pass(PassAuthor::Agent);
        let outcome = run(agent::pass(memory, &mut site.host, client, &settings, self.now));
        self.failures.append(&mut site.host.witness.violations);
        let claim = client.claim.take();
        let unchanged = claim.as_ref().is_some_and(|(_, effects)| *effects == self.fuse.host_effects());
        if let Some((status, _)) = claim.filter(|_| unchanged) {
            self.judge_host(name, &status);
        }
        let Some(site) = self.hosts.get_mut(name) else { return };
        match outcome {
            Some(outcome) => {
                for problem in &outcome.problems {
                    self.story.tell(name, || format!("problem: {problem}"));
                }
                let due = outcome.again_after.map(|span| self.now + span);
                agent.look = Some(Look { at: self.now, heard, due });
                site.agent = Some(agent);
            }
            None => {
                self.deaths += 1;
                if let Some(Accident::PowerLossBefore | Accident::PowerLossAfter) = self.fuse.take_last() {
                    self.is_disturbed = true;
                    // What is left differs from one effect to the next, and not by what came before.
                    let chance = self.random.clone().bits() ^ self.fuse.effects();
                    site.host.lose_power(&mut Random::new(chance));
                }
            }
        }
    }

    /// Whether some agent means to do something within a span even if nothing happens.
    pub fn is_due_within(&self, span: Duration) -> bool {
        let looks = self.hosts.values().filter_map(|site| site.agent.as_ref()?.look.as_ref());
        looks.filter_map(|look| look.due).any(|due| due <= self.now + span)
    }

    /// Differs whenever anything may have happened.
    pub fn pulse(&self) -> (u64, u64) {
        (self.fuse.effects(), self.hosts.values().map(|site| site.host.stirs).sum())
    }

    /// A foreign hand acts on a host.
    pub fn disturb(&mut self, name: &str, hand: &Hand) {
        self.is_disturbed = true;
        if let Some(site) = self.hosts.get_mut(name) {
            self.story.tell(name, || format!("a hand: {hand:?}"));
            hand.act(&mut site.host);
            site.host.stirs += u64::from(hand.is_heard());
        }
    }

    /// The agent of a host is killed between two passes.
    pub fn kill_agent(&mut self, name: &str) {
        if let Some(site) = self.hosts.get_mut(name) {
            self.story.tell(name, || "the agent is killed");
            self.deaths += 1;
            site.agent = None;
        }
    }

    /// The operator is killed between two passes.
    pub fn kill_operator(&mut self) {
        self.story.tell("operator", || "killed");
        self.deaths += 1;
        self.operator = None;
    }

    /// A host reboots in good order.
    pub fn reboot(&mut self, name: &str) {
        self.story.tell(name, || "reboots");
        self.is_disturbed = true;
        if let Some(site) = self.hosts.get_mut(name) {
            site.agent = None;
            site.host.reboot();
        }
    }

    /// A host loses power and comes back.
    pub fn lose_power(&mut self, name: &str) {
        self.story.tell(name, || "loses power");
        self.is_disturbed = true;
        if let Some(site) = self.hosts.get_mut(name) {
            site.agent = None;
            site.host.lose_power(&mut self.random);
        }
    }

    /// Ready is never claimed while any layer disagrees with the spec of that generation.
    fn judge_host(&mut self, name: &str, status: &HostStateStatus) {
        let Some(site) = self.hosts.get(name) else { return };
        if site.host.witness.is_disturbed {
            return;
        }
        let generation = status.observed_generation;
        let entries = self.api.with(|store| entries_of(store, name, generation));
        for topology in &status.topologies {
            let entry = entries.iter().find(|entry| entry.name.as_str() == topology.name);
            if !holds_at(&topology.conditions, ConditionType::Ready, generation) {
                continue;
            }
            let Some(entry) = entry else { continue };
            if entry.state == lamina_crds::host_state::EntryState::Present {
                let found = disagreements(&site.host, entry);
                if let Some(first) = found.first() {
                    self.failures.push(format!("{name} says Ready of {} at {generation}: {first}", topology.name));
                }
            }
        }
    }

    /// A topology is not Ready while an undisturbed host that it selects is something else.
    fn judge_topology(&mut self, name: &str, status: &SliceTopologyStatus) {
        if self.is_disturbed || !holds_at(&status.conditions, ConditionType::Ready, status.observed_generation) {
            return;
        }
        let object = self.api.with(|store| store.get(ObjectKind::SliceTopology, name).cloned());
        let Some(object) = object.filter(|object| object.generation == status.observed_generation) else { return };
        let spec: Option<SliceTopologySpec> = SliceTopologySpec::deserialize(&*object.spec).ok();
        let Some(spec) = spec else { return };
        for found in self.unlike(name, &spec) {
            self.failures.push(format!("the operator says {name} is Ready at {}: {found}", object.generation));
        }
    }

    /// In what the selected hosts differ from what a topology asks.
    pub fn unlike(&self, topology: &str, spec: &SliceTopologySpec) -> Vec<String> {
        let mut found = Vec::new();
        for (name, Site { host, .. }) in &self.hosts {
            if !self.api.with(|store| is_selected(store, name, spec)) {
                continue;
            }
            let entries = self.api.with(|store| entries_of(store, name, i64::MAX));
            let Some(entry) = entries.iter().find(|entry| entry.name.as_str() == topology) else {
                found.push(format!("{name} has no entry of it"));
                continue;
            };
            found.extend(mismatches(spec, entry).into_iter().map(|what| format!("{name}: {what}")));
            found.extend(disagreements(host, entry).into_iter().map(|what| format!("{name}: {what}")));
        }
        found
    }
}

/// When the operator looks again even if it hears nothing.
fn next_pass(summary: &controller::PassSummary, now: Timestamp) -> Option<Timestamp> {
    let conflict = (summary.conflicts > 0).then(|| now + AFTER_CONFLICT);
    let refusal = (summary.refusals > 0).then(|| now + AFTER_REFUSAL);
    [summary.wake_at, conflict, refusal].into_iter().flatten().min()
}

/// Runs a pass to its end, or to its author's death: simulated effects never wait, only the dead do.
fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    let future = pin!(future);
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
