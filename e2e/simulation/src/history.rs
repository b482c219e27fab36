//! One history: what users and others do, step by step, with accidents at chosen effects; then everything must settle, and
//! one more pass must do nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use lamina_crds::conditions::{ConditionType, holds_at};
use lamina_crds::decode::decode;
use lamina_crds::host_state::EntryState;
use lamina_crds::{HostStateStatus, SliceTopologyStatus};

use crate::accident::{Accident, Outage};
use crate::api::admission::{Author, Part};
use crate::api::{Kind as ObjectKind, Precondition, View};
use crate::asked::{entries_of, is_selected};
use crate::hand::Hand;
use crate::host::Kind;
use crate::random::Random;
use crate::story::Story;
use crate::truth::{disagreements_after, leftovers, remains};
use crate::wish::Wish;
use crate::world::{ROLE, World};

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A user applies a topology.
    Apply(&'static str, Wish),
    /// A user deletes a topology.
    Delete(&'static str),
    /// Somebody deletes an object and takes its finalizers off.
    DeleteByForce(ObjectKind, String),
    /// Somebody changes the role of a node.
    Role(String, &'static str),
    /// Lamina's definitions are being deleted, or come back.
    DefinitionsLeave(bool),
    /// The API server goes away, or comes back.
    Away(bool),
    /// A foreign hand acts on a host.
    Hand(String, Hand),
    /// The agent of a host is killed.
    KillAgent(String),
    /// The operator that leads is killed.
    KillOperator,
    /// The operator that leads is asked to end.
    DrainOperator,
    /// The operator that leads is stopped between two passes.
    StopOperator,
    /// Operators that are stopped go on.
    OperatorsGoOn,
    /// A host reboots in good order.
    Reboot(String),
    /// A host loses power and comes back.
    LosePower(String),
    /// The next effect of which this is a part, as the story tells it, meets an accident.
    Accident(&'static str, Accident),
    /// The watch of an agent goes back in time.
    GoBack(String),
    /// The watches of the operators go back in time.
    OperatorGoesBack,
    /// A few seconds pass and everybody who lives makes a pass, with watches that lag.
    Round,
    /// Accidents end: whatever was to happen by chance or by number does not, and the API server is back.
    Calm,
    /// Everybody is started again, and everything must come right.
    Settle,
}

/// How a history ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What must never happen and did.
    pub failures: Vec<String>,
    /// How many effects there were.
    pub effects: u64,
    /// How many accidents struck.
    pub struck: u64,
    /// How many processes died.
    pub deaths: u64,
    /// The story, if it was told.
    pub story: Vec<String>,
}

/// What a history starts from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The hosts.
    pub hosts: Vec<Kind>,
    /// Decides what is left to chance.
    pub seed: u64,
    /// Accidents by number of effect.
    pub accidents: Vec<(u64, Accident)>,
    /// Accidents by chance.
    pub outage: Option<Outage>,
    /// Whether the story is kept.
    pub is_told: bool,
}

/// The longest that a settling may take, in rounds of five seconds and then of a minute.
const ROUNDS: usize = 60;
const SHORT_ROUNDS: usize = 30;

/// Lets a history happen. It ends with a settling, whether its last step is one or not, and at its first failure.
pub fn happen(setting: &Setting, steps: &[Step]) -> Outcome {
    let start = jiff::Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let story = if setting.is_told { Story::told(start) } else { Story::default() };
    let mut history = History {
        world: World::new(&setting.hosts, setting.seed, story.clone()),
        wishes: BTreeMap::new(),
        random: Random::new(setting.seed ^ 0x5eed),
    };
    for (effect, accident) in &setting.accidents {
        history.world.fuse.choose(*effect, accident.clone());
    }
    history.world.fuse.by_chance(setting.outage.clone());
    let last = [Step::Settle];
    let needs_end = !matches!(steps.last(), Some(Step::Settle));
    for step in steps.iter().chain(last.iter().filter(|_| needs_end)) {
        history.take(step);
        if !history.world.failures.is_empty() {
            break;
        }
    }
    let World { fuse, failures, deaths, .. } = history.world;
    Outcome { failures, effects: fuse.effects(), struck: fuse.struck(), deaths, story: story.lines() }
}

struct History {
    world: World,
    wishes: BTreeMap<&'static str, Wish>,
    random: Random,
}

impl History {
    fn take(&mut self, step: &Step) {
        let world = &mut self.world;
        match step {
            Step::Apply(name, wish) => self.apply(name, wish),
            Step::Delete(name) => self.delete(name),
            Step::DeleteByForce(kind, name) => {
                world.story.tell("admin", || format!("deletes {kind:?} {name} by force"));
                world.api.with(|store| store.delete_by_force(*kind, name));
                self.wishes.retain(|topology, _| *kind != ObjectKind::SliceTopology || topology != name);
            }
            Step::Role(host, role) => {
                world.story.tell("admin", || format!("gives {host} the role {role}"));
                world.api.with(|store| {
                    let set = |node: &mut lamina_operator::snapshot::RawObject| {
                        node.labels.insert(ROLE.to_owned(), (*role).to_owned());
                    };
                    // The node is there from the start.
                    let _ = store.change(
                        &Author::Admin,
                        (ObjectKind::Node, host, Part::Whole),
                        &Precondition::default(),
                        set,
                    );
                });
            }
            Step::DefinitionsLeave(leave) => world.api.with(|store| store.definitions_leave = *leave),
            Step::Away(is_away) => {
                world.story.tell("server", || if *is_away { "goes away" } else { "is back" });
                world.api.with(|store| store.is_away = *is_away);
            }
            Step::Hand(host, hand) => world.disturb(host, hand),
            Step::KillAgent(host) => world.kill_agent(host),
            Step::KillOperator => world.kill_operator(),
            Step::DrainOperator => world.drain_operator(),
            Step::StopOperator => world.stop_operator(),
            Step::OperatorsGoOn => world.let_operators_go_on(),
            Step::Reboot(host) => world.reboot(host),
            Step::LosePower(host) => world.lose_power(host),
            Step::Accident(part, accident) => world.fuse.choose_next(part, accident.clone()),
            Step::GoBack(host) => self.go_back(Some(host)),
            Step::OperatorGoesBack => self.go_back(None),
            Step::Round => self.round(),
            Step::Calm => {
                world.fuse.calm();
                world.api.with(|store| store.is_away = false);
            }
            Step::Settle => self.settle(),
        }
    }

    fn apply(&mut self, name: &'static str, wish: &Wish) {
        self.wishes.insert(name, wish.clone());
        self.world.apply(name, wish);
    }

    fn delete(&mut self, name: &'static str) {
        self.world.story.tell("user", || format!("deletes {name}"));
        let is_held = self.world.api.with(|store| {
            let is_held = store.get(ObjectKind::SliceTopology, name).is_some_and(|o| !o.finalizers.is_empty());
            // One that is gone already is fine.
            let _ = store.delete(&Author::Admin, ObjectKind::SliceTopology, name, &Precondition::default());
            is_held && !store.definitions_leave
        });
        if self.wishes.remove(name).is_some_and(|wish| wish.removes) && is_held {
            self.world.removed.insert(name.to_owned());
        }
    }

    fn go_back(&mut self, host: Option<&String>) {
        let Self { world, random, .. } = self;
        let who = host.map_or("operators", String::as_str);
        world.story.tell(who, || "the watch goes back in time");
        let views: Vec<&mut View> = match host {
            Some(host) => {
                let agent = world.hosts.get_mut(host).and_then(|site| site.agent.as_mut());
                agent.map(|agent| &mut agent.client.view).into_iter().collect()
            }
            None => {
                let operators = world.operators.iter_mut().filter_map(|seat| seat.process.as_mut());
                operators.map(|operator| &mut operator.client.view).collect()
            }
        };
        for view in views {
            world.api.with(|store| view.go_back(store, random, 12));
        }
    }

    /// A few seconds with everybody who lives; the dead are started again now and then.
    fn round(&mut self) {
        let Self { world, random, .. } = self;
        world.wait(Duration::from_secs(1 + random.below(8) as u64));
        world.revive_some(random);
        world.round();
    }

    fn settle(&mut self) {
        self.world.api.with(|store| {
            store.is_away = false;
            store.definitions_leave = false;
        });
        let mut judged = None;
        for round in 0..ROUNDS {
            let span = if round < SHORT_ROUNDS { 5 } else { 60 };
            self.world.wait(Duration::from_secs(span));
            self.world.revive();
            let before = (self.world.fuse.effects(), self.world.pulse(), self.world.news());
            self.world.round();
            if !self.world.failures.is_empty() {
                return;
            }
            let pulse = self.world.pulse();
            // A write that was on its way for long may arrive without an effect in this round.
            let is_still = (self.world.fuse.effects(), pulse, self.world.news()) == before;
            let is_quiet = is_still && !self.world.is_due_within(Duration::from_secs(90));
            // Nothing has changed since something was found wrong.
            if is_quiet && self.everybody_lives() && judged != Some(pulse) {
                if self.wrong().is_empty() {
                    return self.rest();
                }
                judged = Some(pulse);
            }
        }
        let wrong = self.wrong();
        let what = wrong.first().map_or("somebody keeps doing something", String::as_str);
        self.world.failures.push(format!("it does not settle: {what}"));
    }

    /// Everything is as asked. One more pass does nothing, and a loss of power changes nothing.
    fn rest(&mut self) {
        self.world.wait(Duration::from_secs(600));
        self.world.revive();
        let before = self.world.fuse.effects();
        self.world.round();
        if self.world.fuse.effects() != before {
            self.world.failures.push("one more pass does something".to_owned());
        }
        self.world.is_disturbed = false;
        let failures = self.after_a_loss_of_power();
        self.world.failures.extend(failures);
    }

    fn everybody_lives(&self) -> bool {
        self.world.is_led()
            && self.world.operators.iter().all(|seat| seat.process.is_some())
            && self.world.hosts.values().all(|site| site.agent.is_some())
    }

    /// What is not as it should be once everything has settled.
    fn wrong(&self) -> Vec<String> {
        let Self { world, wishes, .. } = self;
        let mut wrong = Vec::new();
        for (name, wish) in wishes {
            wrong.extend(world.unlike(name, &wish.spec()));
            wrong.extend(self.unreported(name, wish));
        }
        for name in &world.removed {
            if world.api.with(|store| store.get(ObjectKind::SliceTopology, name).is_some()) {
                wrong.push(format!("topology {name} is still there"));
            }
        }
        for (name, site) in &world.hosts {
            wrong.extend(leftovers(&site.host).into_iter().map(|what| format!("{name}: {what}")));
            let absent = site.host.witness.wanted.values().filter(|entry| entry.state == EntryState::Absent);
            wrong.extend(absent.flat_map(|entry| remains(&site.host, entry)).map(|what| format!("{name}: {what}")));
            for (path, content) in &site.host.foreign {
                let is_gone = site.host.disk.read(path).as_deref() != Some(content);
                if is_gone && !site.host.witness.can_be_given_back(&site.host, path) {
                    wrong.push(format!("{name}: {path} is not what its owner wrote"));
                }
            }
        }
        wrong
    }

    /// Ready must be said of everything that is, at the generation that is.
    fn unreported(&self, name: &str, wish: &Wish) -> Vec<String> {
        let mut wrong = Vec::new();
        let ready = ConditionType::Ready;
        self.world.api.with(|store| {
            let Some(topology) = store.get(ObjectKind::SliceTopology, name) else {
                return wrong.push(format!("topology {name} is gone"));
            };
            let status: Option<SliceTopologyStatus> = decode(&topology.status).ok();
            let told = status.as_ref().is_some_and(|status| holds_at(&status.conditions, ready, topology.generation));
            let selects = self.world.hosts.keys().any(|host| is_selected(store, host, &wish.spec()));
            if !told && selects {
                let conditions = status.map(|status| status.conditions);
                wrong.push(format!("topology {name} is not said to be Ready: {conditions:?}"));
            }
            for host in self.world.hosts.keys().filter(|host| is_selected(store, host, &wish.spec())) {
                let Some(object) = store.get(ObjectKind::HostState, host) else { continue };
                let status: Option<HostStateStatus> = decode(&object.status).ok();
                let told = status.iter().flat_map(|status| &status.topologies).find(|topology| topology.name == name);
                if !told.is_some_and(|told| holds_at(&told.conditions, ready, object.generation)) {
                    wrong.push(format!(
                        "{host} does not say that {name} is Ready: {:?}",
                        told.map(|told| &told.conditions)
                    ));
                }
            }
        });
        wrong
    }

    /// The disk alone brings everything back: the same host after a loss of power, before any agent has run.
    fn after_a_loss_of_power(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, site) in &self.world.hosts {
            let mut host = site.host.clone();
            host.story = Story::default();
            host.lose_power(&mut self.random.clone());
            let entries = self.world.api.with(|store| entries_of(store, name, i64::MAX));
            for entry in entries.iter().filter(|entry| entry.state == EntryState::Present) {
                // A slice nobody runs in is not started at boot, and nothing is missing.
                let is_used =
                    |slice: &lamina_crds::UnitName| entry.services.iter().any(|service| service.slice == *slice);
                let unused: Vec<String> =
                    entry.slices.iter().filter(|s| !is_used(&s.unit)).map(|s| format!("{} ", s.unit)).collect();
                let found = disagreements_after(&site.host, &host, entry);
                let found = found.into_iter().filter(|what| !unused.iter().any(|unit| what.starts_with(unit)));
                wrong.extend(found.map(|what| format!("{name} after a loss of power: {what}")));
            }
        }
        wrong
    }
}
