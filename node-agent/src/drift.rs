//! Decides what is told about differences that nobody asked for, and how often the same one is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::cluster::{EventKind, HostEvent};
use crate::plan::{Finding, Plan};

/// Heals of the same thing are counted over this span.
const SPAN: SignedDuration = SignedDuration::from_mins(10);
/// More heals than this within the span mean that somebody insists.
const MOST_HEALS: usize = 5;
/// Then it is healed no more often than this.
const SLOW: SignedDuration = SignedDuration::from_secs(60);

/// What was healed, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    heals: BTreeMap<Thing, Vec<Timestamp>>,
}

/// What a finding is about, whatever was found there.
type Thing = (String, String);

fn thing(finding: &Finding) -> Thing {
    (finding.object.clone(), finding.subject.clone())
}

impl Ledger {
    /// Notes that these differences were healed; old entries are dropped.
    pub fn record(&mut self, findings: &BTreeSet<Finding>, now: Timestamp) {
        for finding in findings {
            self.heals.entry(thing(finding)).or_default().push(now);
        }
        self.heals.retain(|_, times| {
            times.retain(|time| now.duration_since(*time) < SPAN);
            !times.is_empty()
        });
    }

    /// Things that keep being changed, each as "OBJECT: SUBJECT".
    pub fn persistent(&self, now: Timestamp) -> Vec<(String, String)> {
        let many = self.heals.iter().filter(|(_, times)| recent(times, now) > MOST_HEALS);
        many.map(|(thing, _)| thing.clone()).collect()
    }

    /// The plan without steps for what keeps being changed and was healed just now.
    pub fn slowed(&self, mut plan: Plan, now: Timestamp) -> Plan {
        let skipped = |finding: &Finding| {
            let times = self.heals.get(&thing(finding)).map(Vec::as_slice).unwrap_or_default();
            let just_now = times.last().is_some_and(|time| now.duration_since(*time) < SLOW);
            recent(times, now) > MOST_HEALS && just_now
        };
        plan.steps.retain(|step| step.findings.is_empty() || !step.findings.iter().all(skipped));
        let only_follow_ups = plan.steps.iter().all(|step| step.findings.is_empty());
        if only_follow_ups && !self.persistent(now).is_empty() {
            plan.steps.clear();
        }
        plan
    }

    /// When something is healed again that waits because it keeps being changed.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let many = self.heals.values().filter(|times| recent(times, now) > MOST_HEALS);
        many.filter_map(|times| Some(*times.last()? + SLOW)).filter(|at| *at > now).min()
    }
}

fn recent(times: &[Timestamp], now: Timestamp) -> usize {
    times.iter().filter(|time| now.duration_since(**time) < SPAN).count()
}

/// What the people who watch the host are told about one difference that was healed.
pub fn healed(finding: &Finding, took: Duration) -> HostEvent {
    let Finding { object, subject, found, wanted, hand } = finding;
    let took = took.as_millis();
    HostEvent {
        kind: EventKind::Warning,
        reason: "DriftHealed",
        action: "Heal",
        note: format!("{object}: {subject} was {found} instead of {wanted} ({hand}); put back in {took} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Hand;

    fn finding(subject: &str) -> Finding {
        Finding {
            object: "shop-web.slice".to_owned(),
            subject: subject.to_owned(),
            found: "1".to_owned(),
            wanted: "2".to_owned(),
            hand: Hand::CgroupWrite,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn the_sixth_heal_in_ten_minutes_says_that_somebody_insists() {
        let mut ledger = Ledger::default();
        for second in 0..5 {
            ledger.record(&BTreeSet::from([finding("memory.max")]), at(second));
        }
        assert!(ledger.persistent(at(5)).is_empty());
        ledger.record(&BTreeSet::from([finding("memory.max")]), at(5));
        assert_eq!(ledger.persistent(at(6)).len(), 1);
        assert_eq!(ledger.due(at(6)), Some(at(65)));
        assert!(ledger.persistent(at(700)).is_empty(), "ten quiet minutes are forgiven");
    }

    #[test]
    fn an_event_names_unit_values_hand_and_time() {
        let note = healed(&finding("memory.max"), Duration::from_millis(12)).note;
        assert_eq!(
            note,
            "shop-web.slice: memory.max was 1 instead of 2 (a write to the cgroup file); put back in 12 ms"
        );
    }
}
