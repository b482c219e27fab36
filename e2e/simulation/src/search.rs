//! Tries many histories and counts them, and finds the shortest form of a failing one that still fails.

use crate::accident::Accident;
use crate::chance::{Draw, draw};
use crate::history::{Outcome, Setting, Step, happen};
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

/// The versions of systemd that a scenario is run with.
pub const VERSIONS: [u32; 3] = [252, 257, 262];

impl Tally {
    /// Lets one history happen and counts it.
    pub fn try_one(&mut self, name: impl FnOnce() -> String, draw: Draw) -> Outcome {
        let outcome = happen(&draw.setting, &draw.steps);
        self.count(&outcome, name, || draw);
        outcome
    }

    /// Counts a history that happened.
    pub fn count(&mut self, outcome: &Outcome, name: impl FnOnce() -> String, draw: impl FnOnce() -> Draw) {
        self.histories += 1;
        self.accidents += outcome.struck;
        self.effects += outcome.effects;
        if let Some(failure) = outcome.failures.first() {
            self.failures.push(Failed { name: name(), failure: failure.clone(), draw: draw() });
        }
    }

    /// A scenario as it is, on the systemd of this version.
    pub fn plain(&mut self, scenario: &Scenario, version: u32) {
        self.try_one(|| format!("{} (systemd {version})", scenario.name), undisturbed(scenario, version));
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
