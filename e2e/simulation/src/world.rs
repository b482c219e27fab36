//! Two operators, some hosts with an agent each, one API server, and time. Everybody's pass is run here, to its end or to
//! its author's death, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jiff::Timestamp;
use lamina_crds::conditions::{ConditionType, holds_at};
use lamina_crds::host_state::AgentForm;
use lamina_crds::{HostStateStatus, SliceTopologySpec, SliceTopologyStatus, Term};
use lamina_node_agent::accept::Accepted;
use lamina_node_agent::agent;
use lamina_node_agent::cluster::Cluster as _;
use lamina_node_agent::memory::Memory;
use serde::Deserialize;

use crate::accident::{Accident, Fuse};
use crate::api::admission::{Author, Part};
use crate::api::agent::{AgentClient, raw};
use crate::api::{ApiServer, Kind as ObjectKind, Precondition, Store};
use crate::asked::{broken_pauses, entries_of, is_selected, mismatches};
use crate::hand::Hand;
use crate::host::{Kind, SimulatedHost};
use crate::judgement::{untold_of_host, untold_of_topology};
use crate::operators::{SEATS, Seat, Turn};
use crate::story::Story;
use crate::truth::disagreements;
use crate::wake::Look;
use crate::wish::Wish;
use crate::witness::stored;
use lamina_trees::Random;

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
    /// The operators' seats.
    pub operators: [Seat; SEATS],
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

/// A host and the agent on it.
pub struct Site {
    /// The host.
    pub host: SimulatedHost,
    /// The agent's process, if it lives.
    pub agent: Option<Agent>,
    /// The highest term that an agent has acted on here.
    acted_on: Term,
}

/// An agent's process.
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

    /// The same process in another world.
    fn moved_to(&self, api: &ApiServer, fuse: &Fuse) -> Self {
        let Self { memory, look, client } = self;
        Self { memory: memory.clone(), look: look.clone(), client: client.moved_to(api, fuse) }
    }
}

/// After so long the kernel has written everything out.
const WRITE_BACK: Duration = Duration::from_secs(60);

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
            hosts.insert(name.clone(), Site { host, agent: None, acted_on: Term::NONE });
        }
        let mut world = Self {
            now,
            api,
            fuse,
            story,
            operators: Default::default(),
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

    /// Another world that is the same and goes its own way. Nothing of it is told. There is none while an operator is
    /// stopped in the middle of its turn.
    pub fn fork(&self) -> Option<Self> {
        let Self { now, api, fuse, story: _, operators, hosts, failures, is_disturbed, removed, deaths, random } = self;
        let (fuse, story) = (fuse.fork(), Story::default());
        let api = api.fork(fuse.clone(), story.clone());
        let [first, second] = operators.each_ref().map(|seat| seat.moved_to(&api));
        let site = |Site { host, agent, acted_on }: &Site| Site {
            host: host.moved_to(&fuse, &story),
            agent: agent.as_ref().map(|agent| agent.moved_to(&api, &fuse)),
            acted_on: *acted_on,
        };
        Some(Self {
            now: *now,
            operators: [first?, second?],
            hosts: hosts.iter().map(|(name, present)| (name.clone(), site(present))).collect(),
            failures: failures.clone(),
            is_disturbed: *is_disturbed,
            removed: removed.clone(),
            deaths: *deaths,
            random: random.clone(),
            api,
            fuse,
            story,
        })
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
                        topology.spec = spec.into();
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
        for Site { host, agent, acted_on: _ } in self.hosts.values_mut() {
            host.tick();
            if span >= WRITE_BACK {
                host.disk.write_back();
            }
            if let Some(agent) = agent {
                // Whoever lives gives signs of life all the time; one that gets lost is made up for by the next.
                let _ = run(agent.client.renew_lease(self.now));
            }
        }
        // Whoever leads renews all the time, so the others see a Lease that moves.
        self.operators.iter_mut().for_each(Seat::renew);
        self.operators.iter_mut().for_each(|seat| seat.watch(self.now));
    }

    /// The dead are started again now and then, and every watch catches up as far as it likes.
    pub fn revive_some(&mut self, random: &mut Random) {
        let (api, now, fuse) = (self.api.clone(), self.now, self.fuse.clone());
        for (number, seat) in self.operators.iter_mut().enumerate() {
            if !seat.is_taken() && random.chance(60) {
                seat.fill(number, &api, now);
            }
        }
        for (name, Site { host: _, agent, acted_on: _ }) in &mut self.hosts {
            if agent.is_none() && random.chance(60) {
                *agent = Some(Agent::new(&api, name, &fuse));
            }
        }
        api.with(|store| {
            let agents = self.hosts.values_mut().filter_map(|site| site.agent.as_mut());
            let views = agents.map(|agent| &mut agent.client.view);
            let awake = |(seat, _): &(usize, &mut Seat)| !store.stopped.contains(seat);
            let operators = self.operators.iter_mut().enumerate().filter(awake);
            let operators = operators.filter_map(|(_, seat)| seat.process.as_mut());
            let operators = operators.map(|operator| &mut operator.client.view);
            operators.chain(views).for_each(|view| view.drift_forward(store, random));
        });
    }

    /// Whoever is dead is started again, whoever is stopped goes on, and every watch catches up.
    pub fn revive(&mut self) {
        let (api, now, fuse) = (self.api.clone(), self.now, self.fuse.clone());
        self.let_operators_go_on();
        for (number, seat) in self.operators.iter_mut().enumerate() {
            seat.fill(number, &api, now);
            if let Some(operator) = &mut seat.process {
                api.with(|store| operator.client.view.catch_up(store));
            }
        }
        for (name, Site { host: _, agent, acted_on: _ }) in &mut self.hosts {
            let agent = agent.get_or_insert_with(|| Agent::new(&api, name, &fuse));
            api.with(|store| agent.client.view.catch_up(store));
        }
    }

    /// Everybody who lives makes one pass, the operators first.
    pub fn round(&mut self) {
        (0..SEATS).for_each(|seat| self.operator_turn(seat));
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        names.iter().for_each(|name| self.agent_pass(name));
    }

    /// The operator in this seat has its turn.
    fn operator_turn(&mut self, seat: usize) {
        self.fuse.begin_pass(Author::Operator(seat));
        match self.operators[seat].take_turn(seat, &self.api, self.now) {
            Turn::None => {}
            Turn::Died => {
                self.deaths += 1;
                self.fuse.take_last();
            }
            Turn::Ended { is_current } => {
                let operator = self.operators[seat].process.as_mut();
                let claims = operator.map(|operator| std::mem::take(&mut operator.client.claims)).unwrap_or_default();
                for (topology, status) in claims.into_iter().filter(|_| is_current) {
                    self.failures.extend(untold_of_topology(&topology, &status));
                    self.judge_topology(&topology, &status);
                }
            }
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
        let news = self.api.with(|store| {
            let version = agent.client.view.of(ObjectKind::HostState)?;
            let object = store.get_at(ObjectKind::HostState, name, version)?;
            site.host.witness.is_news(&object.uid, object.generation).then(|| raw(object))
        });
        if let Some(object) = &news {
            site.host.witness.instruct(object, site.acted_on);
        }
        let settings = agent::Settings { host: name.to_owned(), version: "0.1.0".to_owned(), form: AgentForm::Pod };
        let Agent { memory, client, look: _ } = &mut agent;
        self.fuse.begin_pass(Author::Agent(name.to_owned()));
        let outcome = run(agent::pass(memory, &mut site.host, client, &settings, self.now));
        self.failures.append(&mut site.host.witness.violations);
        if news.is_some() {
            self.failures.extend(self.api.with(|store| site.hear_one_voice(store, name)));
            self.failures.extend(self.api.with(|store| broken_pauses(store, name)));
        }
        let claim = client.claim.take();
        let unchanged = claim.as_ref().is_some_and(|(_, effects)| *effects == self.fuse.host_effects());
        if let Some((status, _)) = claim.filter(|_| unchanged) {
            self.failures.extend(untold_of_host(name, &status));
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

    /// The last versions of what operators and agents watch.
    pub fn news(&self) -> [u64; 2] {
        let kinds = [ObjectKind::SliceTopology, ObjectKind::HostState];
        self.api.with(|store| kinds.map(|kind| store.last_change(kind, u64::MAX)))
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

    /// The seat of the operator that leads; the first one if nobody does.
    fn leader(&self) -> usize {
        self.operators.iter().position(|seat| seat.leads(self.now)).unwrap_or(0)
    }

    /// Whether somebody leads.
    pub fn is_led(&self) -> bool {
        self.operators.iter().any(|seat| seat.leads(self.now))
    }

    /// The operator that leads is killed.
    pub fn kill_operator(&mut self) {
        let seat = self.leader();
        self.story.tell(Author::Operator(seat), || "is killed");
        self.deaths += 1;
        self.api.with(|store| store.stopped.remove(&seat));
        self.operators[seat].kill();
    }

    /// The operator that leads is asked to end, and hands over.
    pub fn drain_operator(&mut self) {
        let seat = self.leader();
        self.story.tell(Author::Operator(seat), || "is asked to end");
        self.fuse.begin_pass(Author::Operator(seat));
        self.operators[seat].drain();
    }

    /// The operator that leads is stopped between two passes.
    pub fn stop_operator(&mut self) {
        let seat = self.leader();
        self.story.tell(Author::Operator(seat), || "is stopped");
        self.api.with(|store| store.stopped.insert(seat));
    }

    /// Whichever operators are stopped go on.
    pub fn let_operators_go_on(&mut self) {
        for seat in self.api.with(|store| std::mem::take(&mut store.stopped)) {
            self.story.tell(Author::Operator(seat), || "goes on");
        }
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

impl Site {
    /// What is followed on this host, as its disk says, never is of an older term than before: the API server's own
    /// history tells the terms.
    fn hear_one_voice(&mut self, store: &Store, name: &str) -> Option<String> {
        let Accepted { uid, generation, .. } = stored(&self.host)?;
        let term = store.term_of(name, &uid, generation)?;
        let former = self.acted_on;
        self.acted_on = term.max(former);
        (term < former).then(|| format!("{name} follows term {term} after term {former}"))
    }
}

/// Runs a pass to its end, or to its author's death: simulated effects never wait, only the dead do.
fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    let future = pin!(future);
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
