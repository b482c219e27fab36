//! Accidents, and the fuse that lets them happen at chosen effects. Between two effects everything is pure, so nothing
//! else can go wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;

use crate::api::admission::Author;
use crate::hand::Hand;

/// What happens at an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accident {
    /// Whoever causes the effect dies before it.
    DeathBefore,
    /// Whoever causes the effect dies after it.
    DeathAfter,
    /// The host loses power before the effect; at an effect on the API server: its author dies.
    PowerLossBefore,
    /// The host loses power after the effect; at an effect on the API server: its author dies.
    PowerLossAfter,
    /// The effect does not happen and its author is told so.
    FailureBefore,
    /// The effect happens and its author is told that it did not.
    FailureAfter,
    /// Somebody else acts on the host first; at an effect on the API server: nothing.
    Hand(Hand),
    /// The operator is stopped while it sends: what it sends arrives when it goes on. Nothing to anybody else.
    Stop,
}

/// Counts effects and strikes at those that were chosen. Shared by everything that causes effects in one history.
#[derive(Clone, Debug, Default)]
pub struct Fuse(Rc<RefCell<Inner>>);

#[derive(Clone, Debug, Default)]
struct Inner {
    effects: u64,
    host_effects: u64,
    /// Where passes began, in the order of their first effects, and whose they were.
    passes: Vec<(u64, Author)>,
    chosen: BTreeMap<u64, Accident>,
    awaited: Vec<(String, Accident)>,
    struck: u64,
    outage: Option<Outage>,
    last: Option<Accident>,
}

/// Accidents that come by chance instead of by number.
#[derive(Clone, Debug)]
pub struct Outage {
    /// In so many of a thousand effects something happens.
    pub per_thousand: u32,
    /// Which accident and when.
    pub random: lamina_trees::Random,
    /// What may happen.
    pub kinds: Vec<Accident>,
}

impl Fuse {
    /// Another fuse that has seen the same and goes its own way.
    pub fn fork(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// Somebody begins a pass: the effects that follow are that one's.
    pub fn begin_pass(&self, author: Author) {
        let mut inner = self.0.borrow_mut();
        let began = inner.effects;
        // A pass that had no effect is none here.
        inner.passes.pop_if(|(before, _)| *before == began);
        inner.passes.push((began, author));
    }

    /// In whose pass an effect of the past was, and whether it was the first one there; `None` before any pass.
    pub fn author_of(&self, effect: u64) -> Option<(Author, bool)> {
        let inner = self.0.borrow();
        let pass = inner.passes.partition_point(|(began, _)| *began <= effect).checked_sub(1)?;
        let (began, author) = &inner.passes[pass];
        Some((author.clone(), *began == effect))
    }

    /// Chooses an accident for the effect of this number, counted from 0.
    pub fn choose(&self, effect: u64, accident: Accident) {
        self.0.borrow_mut().chosen.insert(effect, accident);
    }

    /// Chooses an accident for the next effect of which this is a part, as the story tells it.
    pub fn choose_next(&self, part: &str, accident: Accident) {
        self.0.borrow_mut().awaited.push((part.to_owned(), accident));
    }

    /// Accidents come by chance from now on; `None` ends that.
    pub fn by_chance(&self, outage: Option<Outage>) {
        self.0.borrow_mut().outage = outage;
    }

    /// Takes back whatever was chosen and has not happened.
    pub fn calm(&self) {
        let mut inner = self.0.borrow_mut();
        inner.chosen.clear();
        inner.awaited.clear();
        inner.outage = None;
    }

    /// An effect is about to happen. Says what happens with it.
    pub fn strike(&self, place: Place, effect: &dyn Display) -> Option<Accident> {
        let mut inner = self.0.borrow_mut();
        let number = inner.effects;
        inner.effects += 1;
        inner.host_effects += u64::from(place == Place::Host);
        let by_chance = inner.outage.as_mut().and_then(Outage::draw);
        let awaited = inner.take_awaited(effect);
        let accident = inner.chosen.remove(&number).or(awaited).or(by_chance);
        if accident.is_some() {
            inner.struck += 1;
            inner.last.clone_from(&accident);
        }
        accident
    }

    /// How many effects there were.
    pub fn effects(&self) -> u64 {
        self.0.borrow().effects
    }

    /// How many of them were on hosts.
    pub fn host_effects(&self) -> u64 {
        self.0.borrow().host_effects
    }

    /// How many accidents there were.
    pub fn struck(&self) -> u64 {
        self.0.borrow().struck
    }

    /// The accident that has just ended somebody's pass.
    pub fn take_last(&self) -> Option<Accident> {
        self.0.borrow_mut().last.take()
    }
}

impl Inner {
    fn take_awaited(&mut self, effect: &dyn Display) -> Option<Accident> {
        if self.awaited.is_empty() {
            return None;
        }
        let words = effect.to_string();
        let place = self.awaited.iter().position(|(part, _)| words.contains(part))?;
        Some(self.awaited.remove(place).1)
    }
}

impl Outage {
    fn draw(&mut self) -> Option<Accident> {
        let Self { per_thousand, random, kinds } = self;
        let happens = random.below(1000) < *per_thousand;
        (happens && !kinds.is_empty()).then(|| random.pick(kinds).clone())
    }
}

/// Where an effect happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a host.
    Host,
    /// On the API server.
    ApiServer,
}
