//! Conducts a plan: one verb of the host per step, in order. A failed step leaves out what builds on it and nothing else.

use std::collections::BTreeSet;

use lamina_crds::UnitName;

use crate::host::{Host, HostError, JobResult};
use crate::plan::{Effect, Plan, Step};
use crate::replace::replace;

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps that were tried, as places in the plan.
    pub tried: Vec<usize>,
    /// Steps that did not succeed.
    pub failures: Vec<Failure>,
    /// Whether the host went out of reach; nothing after that was tried.
    pub gone: bool,
}

/// A step that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The unit it concerns.
    pub unit: Option<UnitName>,
    /// Whether a job of systemd ended badly, in contrast to a call or a file operation that failed.
    pub job: bool,
    /// What was tried, on what, and what came of it.
    pub message: String,
}

/// Takes the steps of a plan in order.
pub async fn apply(plan: &Plan, host: &mut impl Host) -> Outcome {
    let mut outcome = Outcome::default();
    let mut failed: BTreeSet<&UnitName> = BTreeSet::new();
    for (place, step) in plan.steps.iter().enumerate() {
        if step.unit.iter().chain(&step.after).any(|unit| failed.contains(unit)) {
            continue;
        }
        outcome.tried.push(place);
        let failure = match perform(&step.effect, host).await {
            Ok(JobResult::Done) => continue,
            Ok(JobResult::Other(result)) => Failure {
                unit: step.unit.clone(),
                job: true,
                message: format!("{}: the job ended with `{result}`", told(step)),
            },
            Err(error) => {
                outcome.gone = matches!(error, HostError::Gone(_));
                Failure { unit: step.unit.clone(), job: false, message: error.to_string() }
            }
        };
        outcome.failures.push(failure);
        // What is not durable, or not loaded, must not be built on.
        let fatal = outcome.gone || (step.unit.is_none() && !outcome.failures.iter().all(|failure| failure.job));
        if fatal {
            break;
        }
        failed.extend(&step.unit);
    }
    outcome
}

fn told(step: &Step) -> String {
    match &step.effect {
        Effect::Start { unit } => format!("starting {unit}"),
        Effect::Stop { unit } => format!("stopping {unit}"),
        Effect::Restart { unit } => format!("restarting {unit}"),
        Effect::Write { path, content: _ } | Effect::Link { path, target: _ } | Effect::Remove { path } => {
            format!("changing {path}")
        }
        Effect::Sync { directory } => format!("syncing {directory}"),
        Effect::Reload => "reloading systemd".to_owned(),
        Effect::Set { unit, properties: _ } => format!("setting properties of {unit}"),
        Effect::ResetFailed { unit } => format!("resetting {unit}"),
    }
}

async fn perform(effect: &Effect, host: &mut impl Host) -> Result<JobResult, HostError> {
    match effect {
        Effect::Write { path, content } => replace(host, path, content.as_bytes()).await?,
        Effect::Link { path, target } => {
            host.make_directory(&path.directory()).await?;
            host.link(path, target).await?;
        }
        Effect::Remove { path } => host.remove(path).await?,
        Effect::Sync { directory } => host.sync(directory).await?,
        Effect::Reload => host.reload().await?,
        Effect::Set { unit, properties } => host.set_properties(unit, properties).await?,
        Effect::ResetFailed { unit } => host.reset_failed(unit).await?,
        Effect::Start { unit } => return host.start(unit).await,
        Effect::Stop { unit } => return host.stop(unit).await,
        Effect::Restart { unit } => return host.restart(unit).await,
    }
    Ok(JobResult::Done)
}
