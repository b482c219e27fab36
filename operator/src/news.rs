//! Decides which changes of a topology's conditions are worth an event: transitions only.

use lamina_crds::SliceTopologyStatus;
use lamina_crds::conditions::{Condition, ConditionStatus, ConditionType, find};

use crate::cluster::{Severity, TopologyEvent};
use crate::view::TopologyView;

/// The news in a new status.
pub fn news(topology: &TopologyView, status: &SliceTopologyStatus) -> Vec<TopologyEvent> {
    let watched = [
        (ConditionType::Stalled, Severity::Warning),
        (ConditionType::Degraded, Severity::Warning),
        (ConditionType::Ready, Severity::Normal),
    ];
    let event = |(type_, severity): (ConditionType, Severity)| {
        let new = find(&status.conditions, type_)?;
        let old = find(&topology.status.conditions, type_);
        is_news(old, new).then(|| TopologyEvent {
            topology: topology.target.name.clone(),
            uid: topology.target.uid.clone(),
            severity,
            reason: new.reason.clone(),
            note: new.message.clone(),
        })
    };
    watched.into_iter().filter_map(event).collect()
}

/// A condition that has become True, or is True for another reason than before.
fn is_news(old: Option<&Condition>, new: &Condition) -> bool {
    let told = old.is_some_and(|old| old.status == ConditionStatus::True && old.reason == new.reason);
    new.status == ConditionStatus::True && !told
}

#[cfg(test)]
mod tests {
    use lamina_crds::conditions::{Reason, Verdict, settle};

    use super::*;
    use crate::scene::{Scene, at};

    fn status(status: ConditionStatus, reason: Reason) -> SliceTopologyStatus {
        let verdict = Verdict::new(ConditionType::Stalled, status, reason, "why");
        SliceTopologyStatus { conditions: settle(&[], &[verdict], 1, at(1)), ..SliceTopologyStatus::default() }
    }

    #[test]
    fn only_transitions_are_news() {
        let mut topology = (*Scene::new().topology("x", &["cores: 1"]).view().topologies["x"]).clone();
        let stalled = status(ConditionStatus::True, Reason::Infeasible);
        let told = news(&topology, &stalled);
        assert_eq!((told[0].severity, told[0].reason.as_str()), (Severity::Warning, "Infeasible"));
        topology.status = stalled.clone();
        assert_eq!(news(&topology, &stalled), []);
        assert_eq!(news(&topology, &status(ConditionStatus::False, Reason::Settled)), []);
        assert_eq!(news(&topology, &status(ConditionStatus::True, Reason::CpusTaken)).len(), 1);
    }
}
