//! Tries many histories: scenarios with accidents at every effect and at pairs of effects, and seeds; and finds the
//! shortest beginning of a failing one that still fails.

use crate::accident::Accident;
use crate::chance::{Draw, draw};
use crate::history::{Outcome, Setting, Step, happen};
use crate::random::Random;
use crate::scenario::{Scenario, kind};

/// What was tried, and what failed.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Histories.
    pub histories: u64,
    /// Accidents in them.
    pub accidents: u64,
    /// Effects in them.
    pub effects: u64,
    /// Those that failed.
    pub failures: Vec<Failed>,
}

/// A history that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// How to repeat it.
    pub name: String,
    /// What was wrong.
    pub failure: String,
    /// Everything that decides it.
    pub draw: Draw,
}

/// Every way in which somebody may be hit at an effect.
pub const ACCIDENTS: [Accident; 5] = [
    Accident::DeathBefore,
    Accident::DeathAfter,
    Accident::PowerLossAfter,
    Accident::FailureBefore,
    Accident::FailureAfter,
];

/// The version of systemd a scenario is run with first; the others follow.
const VERSIONS: [u32; 3] = [252, 257, 262];

impl Tally {
    /// Lets one history happen and counts it.
    pub fn try_one(&mut self, name: impl FnOnce() -> String, draw: Draw) -> Outcome {
        let outcome = happen(&draw.setting, &draw.steps);
        self.histories += 1;
        self.accidents += outcome.struck;
        self.effects += outcome.effects;
        if let Some(failure) = outcome.failures.first() {
            self.failures.push(Failed { name: name(), failure: failure.clone(), draw });
        }
        outcome
    }

    /// A scenario as it is, on each systemd.
    pub fn plain(&mut self, scenario: &Scenario) {
        for version in VERSIONS {
            self.try_one(|| format!("{} (systemd {version})", scenario.name), undisturbed(scenario, version));
        }
    }

    /// A scenario with one accident, at every effect and of every kind.
    pub fn singles(&mut self, scenario: &Scenario) {
        for version in VERSIONS {
            let base = undisturbed(scenario, version);
            let effects = happen(&base.setting, &base.steps).effects;
            for at in 0..effects {
                for accident in &ACCIDENTS {
                    let name = || format!("{} (systemd {version}), {accident:?} at {at}", scenario.name);
                    self.try_one(name, with(&base, &[(at, accident.clone())]));
                }
            }
        }
    }

    /// A scenario with two accidents, at every pair of effects: half of them deaths, the others of any kind.
    pub fn pairs(&mut self, scenario: &Scenario, random: &mut Random) {
        for version in VERSIONS {
            let base = undisturbed(scenario, version);
            let effects = happen(&base.setting, &base.steps).effects;
            for first in 0..effects {
                // What comes after the first accident may take more effects than before: some lie beyond the end.
                for second in first + 1..effects + 8 {
                    self.pair(scenario, version, &base, (first, second), random);
                }
            }
        }
    }

    /// So many histories of a scenario, each with one or two accidents by chance.
    pub fn sample(&mut self, scenario: &Scenario, count: u64, random: &mut Random) {
        for turn in 0..count {
            let version = VERSIONS[turn as usize % VERSIONS.len()];
            let base = undisturbed(scenario, version);
            let effects = happen(&base.setting, &base.steps).effects as usize;
            let first = random.below(effects) as u64;
            if random.chance(30) {
                let accidents = [(first, random.pick(&ACCIDENTS).cloned().unwrap_or(Accident::DeathAfter))];
                let name = || format!("{} (systemd {version}), {accidents:?}", scenario.name);
                self.try_one(name, with(&base, &accidents));
            } else {
                let second = first + 1 + random.below(effects) as u64;
                self.pair(scenario, version, &base, (first, second), random);
            }
        }
    }

    fn pair(&mut self, scenario: &Scenario, version: u32, base: &Draw, at: (u64, u64), random: &mut Random) {
        let mut kind = || {
            if random.chance(50) {
                Accident::DeathAfter
            } else {
                random.pick(&ACCIDENTS).cloned().unwrap_or(Accident::DeathAfter)
            }
        };
        let accidents = [(at.0, kind()), (at.1, kind())];
        let name = || format!("{} (systemd {version}), {accidents:?}", scenario.name);
        self.try_one(name, with(base, &accidents));
    }

    /// The history of a seed.
    pub fn seed(&mut self, seed: u64) {
        self.try_one(|| format!("--seed {seed}"), draw(seed));
    }
}

/// A scenario on one host with this systemd, without accidents.
pub fn undisturbed(scenario: &Scenario, version: u32) -> Draw {
    let setting = Setting {
        hosts: vec![kind(version)],
        seed: u64::from(version),
        accidents: Vec::new(),
        outage: None,
        is_told: false,
    };
    Draw { setting, steps: scenario.steps.clone() }
}

/// The same history with these accidents; without any, the history itself.
pub fn with(base: &Draw, accidents: &[(u64, Accident)]) -> Draw {
    let mut draw = base.clone();
    draw.setting.accidents = accidents.to_vec();
    // Chance decides what a loss of power leaves, so it should not be the same each time.
    draw.setting.seed =
        accidents.iter().fold(draw.setting.seed, |seed, (at, _)| seed.wrapping_mul(31).wrapping_add(*at));
    draw
}

/// The failing history with every step left out that is not needed for it to fail, told as a story.
pub fn shortened(draw: &Draw) -> (Draw, Outcome) {
    let kind = |draw: &Draw| happen(&draw.setting, &draw.steps).failures.first().map(|failure| alike(failure));
    let wanted = kind(draw);
    let fails = |draw: &Draw| kind(draw) == wanted;
    let mut short = draw.clone();
    let mut at = short.steps.len();
    while at > 0 {
        at -= 1;
        let mut tried = short.clone();
        let left_out = tried.steps.remove(at);
        if !matches!(left_out, Step::Calm) && fails(&tried) {
            short = tried;
        }
    }
    if short.setting.outage.is_some() {
        let mut tried = short.clone();
        tried.setting.outage = None;
        if fails(&tried) {
            short = tried;
        }
    }
    short.setting.is_told = true;
    let outcome = happen(&short.setting, &short.steps);
    (short, outcome)
}

/// A failure without what differs from one history to the next: numbers and quoted values.
fn alike(failure: &str) -> String {
    let words = failure.split_whitespace().filter(|word| !word.contains(['`', '"', '0', '1', '2', '3', '4', '5']));
    words.take(8).collect::<Vec<_>>().join(" ")
}
