//! Crashes at every effect of a scenario and at every pair of effects. What lies before a crash is not repeated: the world is
//! copied as it was, and goes on from there in every other way.

use crate::accident::Accident;
use crate::api::admission::Author;
use crate::chance::Draw;
use crate::course::Course;
use crate::history::Outcome;
use crate::scenario::Scenario;
use crate::search::{ACCIDENTS, Tally, undisturbed, with};
use lamina_trees::Random;

/// A history to its end, with the moments from which it can go on in another way.
struct Branch {
    marks: Vec<Course>,
    end: Course,
}

/// A scenario on one systemd, and everything that may go wrong there.
pub struct Crashes<'a> {
    scenario: &'a Scenario,
    version: u32,
    base: Draw,
    trunk: Branch,
}

impl<'a> Crashes<'a> {
    /// The scenario as it is.
    pub fn of(scenario: &'a Scenario, version: u32) -> Self {
        let base = undisturbed(scenario, version);
        let trunk = Branch::grow(Course::begin(&base.setting, &base.steps));
        Self { scenario, version, base, trunk }
    }

    /// How many effects there are without accidents.
    pub fn effects(&self) -> u64 {
        self.trunk.effects()
    }

    /// One accident of every kind at every effect.
    pub fn singles(&self, tally: &mut Tally) {
        for at in 0..self.effects() {
            for accident in &ACCIDENTS {
                let outcome = ended(self.trunk.with(at, accident)).outcome();
                self.count(tally, &[(at, accident)], &outcome);
            }
        }
    }

    /// Every crash at this effect, followed by every crash at every later effect of what comes of it.
    pub fn pairs(&self, first: u64, tally: &mut Tally) {
        for one in self.trunk.crashes(first) {
            let branch = Branch::grow(self.trunk.with(first, &one));
            self.count(tally, &[(first, &one)], &branch.end.outcome());
            for second in first + 1..branch.effects() {
                for other in branch.crashes(second) {
                    let outcome = ended(branch.with(second, &other)).outcome();
                    self.count(tally, &[(first, &one), (second, &other)], &outcome);
                }
            }
        }
    }

    /// The number of one of its effects.
    fn any_effect(&self, random: &mut Random) -> u64 {
        u64::from(random.below(self.effects() as u32))
    }

    /// So many histories with one or two accidents by chance: half of them deaths, the others of any kind.
    pub fn sample(&self, tally: &mut Tally, count: u64, random: &mut Random) {
        for _ in 0..count {
            let first = (self.any_effect(random), by_chance(random));
            let mut course = self.trunk.with(first.0, first.1);
            let second = first.0 + 1 + self.any_effect(random);
            let second = random.chance(70).then(|| (second, by_chance(random)));
            if let Some((at, accident)) = second {
                course.meet(at, accident);
            }
            let accidents: Vec<(u64, &Accident)> = std::iter::once(first).chain(second).collect();
            self.count(tally, &accidents, &ended(course).outcome());
        }
    }

    fn count(&self, tally: &mut Tally, accidents: &[(u64, &Accident)], outcome: &Outcome) {
        let Self { scenario, version, base, .. } = self;
        let told = || format!("{} (systemd {version}), {accidents:?}", scenario.name);
        let accidents: Vec<(u64, Accident)> = accidents.iter().map(|(at, kind)| (*at, (*kind).clone())).collect();
        tally.count(outcome, told, || with(base, &accidents));
    }
}

impl Branch {
    fn grow(mut course: Course) -> Self {
        let mut marks: Vec<Course> = course.fork().into_iter().collect();
        while course.go_on() {
            let Some(mark) = course.fork() else { continue };
            // Of moments with nothing done in between, the last one is the nearest to what follows.
            marks.pop_if(|former| former.effects() == mark.effects());
            marks.push(mark);
        }
        Self { marks, end: course }
    }

    fn effects(&self) -> u64 {
        self.end.effects()
    }

    /// The same history with an accident at an effect.
    fn with(&self, effect: u64, accident: &Accident) -> Course {
        let before = self.marks.partition_point(|mark| mark.effects() <= effect).saturating_sub(1);
        let mut course = self.marks[before].fork().expect("a moment that could be copied can be copied again");
        course.meet(effect, accident);
        course
    }

    /// The crashes at an effect that differ from those at the effect before: dying before an effect is dying after the
    /// one before it, and the operator's machine is none that is looked at.
    fn crashes(&self, effect: u64) -> Vec<Accident> {
        use Accident::{DeathAfter, DeathBefore, PowerLossAfter, PowerLossBefore};
        match self.end.author_of(effect) {
            Some((Author::Agent(_), true)) => vec![DeathBefore, PowerLossBefore, DeathAfter, PowerLossAfter],
            Some((Author::Agent(_), false)) => vec![DeathAfter, PowerLossAfter],
            Some((Author::Operator(_), true)) => vec![DeathBefore, DeathAfter],
            Some((Author::Operator(_), false)) => vec![DeathAfter],
            Some((Author::Admin, _)) | None => Vec::new(),
        }
    }
}

fn ended(mut course: Course) -> Course {
    while course.go_on() {}
    course
}

fn by_chance(random: &mut Random) -> &'static Accident {
    const DEATH: &Accident = &Accident::DeathAfter;
    if random.chance(50) { DEATH } else { random.pick(&ACCIDENTS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::all;

    /// Users, hands, a leader that is stopped in the middle of a write, a watch that goes back, hosts with a past.
    const COPIED: [&str; 6] = [
        "a changed file restarts its readers",
        "lost files are put back",
        "what a deposed leader had sent comes too late",
        "a leader that is drained hands over",
        "a watch that goes back in time undoes nothing",
        "a host with a past is taken over, changed and released",
    ];

    #[test]
    fn what_happens_on_a_copy_happens_from_the_start() {
        for scenario in all().iter().filter(|scenario| COPIED.contains(&scenario.name)) {
            let crashes = Crashes::of(scenario, 257);
            for first in (0..crashes.effects()).step_by(37) {
                let one = (first, Accident::PowerLossAfter);
                let branch = Branch::grow(crashes.trunk.with(first, &one.1));
                let other = (first + 1 + (branch.effects() - first) / 3, Accident::DeathAfter);
                let copied = ended(branch.with(other.0, &other.1));
                let draw = with(&crashes.base, &[one, other]);
                let whole = ended(Course::begin(&draw.setting, &draw.steps));
                assert_eq!(copied.outcome(), whole.outcome(), "{} {:?}", scenario.name, draw.setting.accidents);
                // An agent tells in events how long a repair took it, by a clock that is not simulated.
                let lines = |remains: &str| -> Vec<String> {
                    remains.lines().filter(|line| !line.contains("put back in")).map(str::to_owned).collect()
                };
                let (copied, whole) = (lines(&copied.remains()), lines(&whole.remains()));
                let differs = copied.iter().zip(&whole).find(|(copied, whole)| copied != whole);
                assert_eq!(differs, None, "{} {:?}", scenario.name, draw.setting.accidents);
                assert_eq!(copied.len(), whole.len(), "{} {:?}", scenario.name, draw.setting.accidents);
            }
        }
    }

    #[test]
    fn what_happens_on_a_copy_leaves_the_original_as_it_was() {
        let scenarios = all();
        let crashes = Crashes::of(&scenarios[1], 257);
        for mark in &crashes.trunk.marks {
            let before = mark.remains();
            ended(mark.fork().expect("it is a copy itself"));
            assert!(mark.remains() == before, "after effect {}", mark.effects());
        }
    }

    #[test]
    fn every_effect_has_its_crashes_and_none_is_met_twice() {
        let scenarios = all();
        let crashes = Crashes::of(&scenarios[0], 252);
        let kinds: Vec<Vec<Accident>> = (0..crashes.effects()).map(|effect| crashes.trunk.crashes(effect)).collect();
        assert!(kinds.iter().all(|kinds| kinds.contains(&Accident::DeathAfter)));
        let before = kinds.iter().filter(|kinds| kinds.contains(&Accident::DeathBefore)).count();
        assert!(before > 1 && before < kinds.len() / 2, "{before} of {}", kinds.len());
    }
}
