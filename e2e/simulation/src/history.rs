//! One history as data: what it starts from, what users and others do, step by step, with accidents at chosen effects, and
//! how it ended.

use crate::accident::{Accident, Outage};
use crate::api::Kind as ObjectKind;
use crate::course::Course;
use crate::hand::Hand;
use crate::host::Kind;
use crate::wish::Wish;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// Lets a history happen. It ends with a settling, whether its last step is one or not, and at its first failure.
pub fn happen(setting: &Setting, steps: &[Step]) -> Outcome {
    let mut course = Course::begin(setting, steps);
    while course.go_on() {}
    course.outcome()
}
