//! Crashes at every effect of a scenario and at every pair of effects. What lies before a crash is not repeated: the world is
//! copied as it was, and goes on from there in every other way.

use crate::accident::{Accident, Author};
use crate::chance::Draw;
use crate::course::Course;
use crate::history::Outcome;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::search::{ACCIDENTS, Tally, undisturbed, with};

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
                let outcome = finish(self.trunk.with(at, accident));
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
                    let outcome = finish(branch.with(second, &other));
                    self.count(tally, &[(first, &one), (second, &other)], &outcome);
                }
            }
        }
    }

    /// So many histories with one or two accidents by chance: half of them deaths, the others of any kind.
    pub fn sample(&self, tally: &mut Tally, count: u64, random: &mut Random) {
        for _ in 0..count {
            let first = (random.below(self.effects() as usize) as u64, by_chance(random));
            let mut course = self.trunk.with(first.0, first.1);
            let second = first.0 + 1 + random.below(self.effects() as usize) as u64;
            let second = random.chance(70).then(|| (second, by_chance(random)));
            if let Some((at, accident)) = second {
                course.meet(at, accident);
            }
            let accidents: Vec<(u64, &Accident)> = std::iter::once(first).chain(second).collect();
            self.count(tally, &accidents, &finish(course));
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
        let mut marks = vec![course.fork()];
        while course.go_on() {
            // Of moments with nothing done in between, the last one is the nearest to what follows.
            marks.pop_if(|mark| mark.effects() == course.effects());
            marks.push(course.fork());
        }
        Self { marks, end: course }
    }

    fn effects(&self) -> u64 {
        self.end.effects()
    }

    /// The same history with an accident at an effect.
    fn with(&self, effect: u64, accident: &Accident) -> Course {
        let before = self.marks.partition_point(|mark| mark.effects() <= effect).saturating_sub(1);
        let mut course = self.marks[before].fork();
        course.meet(effect, accident);
        course
    }

    /// The crashes at an effect that differ from those at the effect before: dying before an effect is dying after the
    /// one before it, and the operator's machine is none that is looked at.
    fn crashes(&self, effect: u64) -> Vec<Accident> {
        use Accident::{DeathAfter, DeathBefore, PowerLossAfter, PowerLossBefore};
        match self.end.author_of(effect) {
            Some((Author::Agent, true)) => vec![DeathBefore, PowerLossBefore, DeathAfter, PowerLossAfter],
            Some((Author::Agent, false)) => vec![DeathAfter, PowerLossAfter],
            Some((Author::Operator, true)) => vec![DeathBefore, DeathAfter],
            Some((Author::Operator, false)) => vec![DeathAfter],
            None => Vec::new(),
        }
    }
}

fn finish(mut course: Course) -> Outcome {
    while course.go_on() {}
    course.outcome()
}

fn by_chance(random: &mut Random) -> &'static Accident {
    const DEATH: &Accident = &Accident::DeathAfter;
    if random.chance(50) { DEATH } else { random.pick(&ACCIDENTS).unwrap_or(DEATH) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::happen;
    use crate::scenario::all;

    fn told(outcome: &Outcome) -> (u64, u64, u64, &[String]) {
        let Outcome { failures, effects, struck, deaths, story: _ } = outcome;
        (*effects, *struck, *deaths, failures)
    }

    #[test]
    fn what_happens_on_a_copy_happens_from_the_start() {
        let scenarios = all();
        let scenario = scenarios.iter().find(|scenario| scenario.name == "a changed file restarts its readers");
        let crashes = Crashes::of(scenario.expect("there is one"), 257);
        for first in (0..crashes.effects()).step_by(17) {
            let one = (first, Accident::PowerLossAfter);
            let branch = Branch::grow(crashes.trunk.with(first, &one.1));
            let other = (first + 1 + (branch.effects() - first) / 3, Accident::DeathAfter);
            let copied = finish(branch.with(other.0, &other.1));
            let draw = with(&crashes.base, &[one, other]);
            let whole = happen(&draw.setting, &draw.steps);
            assert_eq!(told(&copied), told(&whole), "{:?}", draw.setting.accidents);
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
