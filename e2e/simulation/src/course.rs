//! One history on its way, taken in moves between which it can be copied: what has happened is not repeated to see what
//! else might come of it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use lamina_crds::SliceTopologySpec;
use lamina_crds::slice_topology::DeletionPolicy;

use crate::accident::Accident;
use crate::api::admission::{Author, Part};
use crate::api::{Kind as ObjectKind, Precondition, View};
use crate::history::{Outcome, Setting, Step};
use crate::judgement::{after_a_loss_of_power, wrong};
use crate::story::Story;
use crate::wish::Wish;
use crate::world::{ROLE, World};
use lamina_trees::Random;

/// A history up to some moment between two passes.
pub struct Course {
    world: World,
    /// What users want by now.
    wanted: BTreeMap<&'static str, Rc<SliceTopologySpec>>,
    random: Random,
    steps: Rc<[Step]>,
    /// The step that comes next.
    next: usize,
    settling: Option<Settling>,
}

/// How far a settling has come.
#[derive(Clone, Copy)]
struct Settling {
    round: usize,
    /// When something was last found wrong, as the world's pulse was then.
    judged: Option<(u64, u64)>,
}

/// The longest that a settling may take, in rounds of five seconds and then of a minute.
const ROUNDS: usize = 60;
const SHORT_ROUNDS: usize = 30;

impl Course {
    /// A history before anything has happened. It ends with a settling, whether its last step is one or not.
    pub fn begin(setting: &Setting, steps: &[Step]) -> Self {
        let start = Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let story = if setting.is_told { Story::told(start) } else { Story::default() };
        let world = World::new(&setting.hosts, setting.seed, story);
        for (effect, accident) in &setting.accidents {
            world.fuse.choose(*effect, accident.clone());
        }
        world.fuse.by_chance(setting.outage.clone());
        let end = [Step::Settle];
        let needs_end = !matches!(steps.last(), Some(Step::Settle));
        Self {
            world,
            wanted: BTreeMap::new(),
            random: Random::new(setting.seed ^ 0x5eed),
            steps: steps.iter().chain(end.iter().filter(|_| needs_end)).cloned().collect(),
            next: 0,
            settling: None,
        }
    }

    /// The same history up to here, to go on in another way. It is not told. There is none while an operator is stopped in
    /// the middle of its turn.
    pub fn fork(&self) -> Option<Self> {
        let Self { world, wanted, random, steps, next, settling } = self;
        Some(Self {
            world: world.fork()?,
            wanted: wanted.clone(),
            random: random.clone(),
            steps: Rc::clone(steps),
            next: *next,
            settling: *settling,
        })
    }

    /// An accident is to happen at the effect of this number.
    pub fn meet(&mut self, effect: u64, accident: &Accident) {
        self.world.fuse.choose(effect, accident.clone());
    }

    /// How many effects there were.
    pub fn effects(&self) -> u64 {
        self.world.fuse.effects()
    }

    /// In whose pass an effect was, and whether it was the first one there.
    pub fn author_of(&self, effect: u64) -> Option<(Author, bool)> {
        self.world.fuse.author_of(effect)
    }

    /// The next move: one step, or one round of a settling. False once the history is over, at its first failure or its
    /// end.
    pub fn go_on(&mut self) -> bool {
        match self.settling.take() {
            Some(settling) => self.settling = self.settle(settling),
            None => {
                let steps = Rc::clone(&self.steps);
                steps.get(self.next).into_iter().for_each(|step| self.take(step));
                self.next += 1;
            }
        }
        self.world.failures.is_empty() && (self.settling.is_some() || self.next < self.steps.len())
    }

    /// How the history ended, or stands.
    pub fn outcome(&self) -> Outcome {
        let World { fuse, failures, deaths, story, .. } = &self.world;
        let (effects, struck) = (fuse.effects(), fuse.struck());
        Outcome { failures: failures.clone(), effects, struck, deaths: *deaths, story: story.lines() }
    }

    /// All that this history has come to on the API server and on hosts, in words: to be compared with another.
    #[cfg(test)]
    pub fn remains(&self) -> String {
        let hosts = self.world.hosts.values().map(|site| format!("{:#?}", site.host));
        self.world.api.with(|store| format!("{store:#?}")) + &hosts.collect::<String>()
    }
}

impl Course {
    fn take(&mut self, step: &Step) {
        let world = &mut self.world;
        match step {
            Step::Apply(name, wish) => self.apply(name, wish),
            Step::Delete(name) => self.delete(name),
            Step::DeleteByForce(kind, name) => {
                world.story.tell("admin", || format!("deletes {kind:?} {name} by force"));
                world.api.with(|store| store.delete_by_force(*kind, name));
                self.wanted.retain(|topology, _| *kind != ObjectKind::SliceTopology || topology != name);
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
            Step::Settle => self.settling = Some(self.begin_to_settle()),
        }
    }

    fn apply(&mut self, name: &'static str, wish: &Wish) {
        self.wanted.insert(name, Rc::new(wish.spec()));
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
        let removes = |spec: Rc<SliceTopologySpec>| spec.deletion_policy == Some(DeletionPolicy::Remove);
        if self.wanted.remove(name).is_some_and(removes) && is_held {
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
        world.wait(Duration::from_secs(1 + u64::from(random.below(8))));
        world.revive_some(random);
        world.round();
    }
}

impl Course {
    fn begin_to_settle(&mut self) -> Settling {
        self.world.api.with(|store| {
            store.is_away = false;
            store.definitions_leave = false;
        });
        Settling { round: 0, judged: None }
    }

    /// One round with everybody alive. Nothing if that was the last one.
    fn settle(&mut self, settling: Settling) -> Option<Settling> {
        let Settling { round, judged } = settling;
        let span = if round < SHORT_ROUNDS { 5 } else { 60 };
        self.world.wait(Duration::from_secs(span));
        self.world.revive();
        let before = (self.world.pulse(), self.world.news());
        self.world.round();
        if !self.world.failures.is_empty() {
            return None;
        }
        let pulse = self.world.pulse();
        // A write that was on its way for long may arrive without an effect in this round.
        let is_still = (pulse, self.world.news()) == before;
        let is_quiet = is_still && !self.world.is_due_within(Duration::from_secs(90));
        // Nothing has changed since something was found wrong.
        let mut judged = judged;
        if is_quiet && self.everybody_lives() && judged != Some(pulse) {
            if wrong(&self.world, &self.wanted).is_empty() {
                self.rest();
                return None;
            }
            judged = Some(pulse);
        }
        if round + 1 == ROUNDS {
            self.give_up();
            return None;
        }
        Some(Settling { round: round + 1, judged })
    }

    fn give_up(&mut self) {
        let wrong = wrong(&self.world, &self.wanted);
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
        let failures = after_a_loss_of_power(&self.world, &self.random);
        self.world.failures.extend(failures);
    }

    fn everybody_lives(&self) -> bool {
        self.world.is_led()
            && self.world.operators.iter().all(|seat| seat.process.is_some())
            && self.world.hosts.values().all(|site| site.agent.is_some())
    }
}
