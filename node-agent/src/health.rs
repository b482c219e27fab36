//! Decides which services count as up: what was seen of them before tells a start that lasts from one that does not.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lamina_crds::UnitName;

use crate::observed::ObservedUnit;

/// A service that runs for so long after it was first seen has started.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(1);
/// A service that failed before must run for so long to be trusted again.
pub const RECOVERY: SignedDuration = SignedDuration::from_secs(10);
/// Trouble that lasts so long will not pass by itself.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// What is remembered of services between passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Services that do not come up, or did not until just now.
    pub failing: BTreeMap<UnitName, Failing>,
    running: BTreeMap<UnitName, Running>,
}

/// A service that does not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When it was first seen failing.
    pub since: Timestamp,
    /// How often it was started since then.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Running {
    invocation: String,
    since: Timestamp,
}

impl Health {
    /// Takes note of a service as it is now. `tried`: the agent started it in this pass. `trusted`: it is known to have
    /// been up before, so that one look is enough.
    pub fn note(&mut self, unit: &UnitName, seen: &ObservedUnit, tried: bool, trusted: bool, now: Timestamp) {
        if is_up(seen) {
            self.note_up(unit, seen, trusted, now);
            return;
        }
        self.running.remove(unit);
        let broken = seen.active_state == "failed" || seen.sub_state == "auto-restart" || tried;
        if broken {
            let failing =
                self.failing.entry(unit.clone()).or_insert(Failing { since: now, attempts: 0, retry_at: now });
            if tried || failing.attempts == 0 {
                failing.attempts += 1;
                failing.retry_at = now + pause(failing.attempts);
            }
        }
    }

    fn note_up(&mut self, unit: &UnitName, seen: &ObservedUnit, trusted: bool, now: Timestamp) {
        let since = match self.running.get(unit) {
            Some(known) if known.invocation == seen.invocation => known.since,
            Some(_) | None if trusted => now - SETTLE,
            Some(_) | None => now,
        };
        self.running.insert(unit.clone(), Running { invocation: seen.invocation.clone(), since });
        if now.duration_since(since) >= RECOVERY {
            self.failing.remove(unit);
        }
    }

    /// Forgets services that are no longer asked for.
    pub fn retain(&mut self, wanted: &BTreeSet<&UnitName>) {
        self.failing.retain(|unit, _| wanted.contains(unit));
        self.running.retain(|unit, _| wanted.contains(unit));
    }

    /// Whether the service runs, and has done so for long enough to believe it.
    pub fn has_settled(&self, unit: &UnitName, now: Timestamp) -> bool {
        let settled = |running: &Running| now.duration_since(running.since) >= SETTLE;
        !self.failing.contains_key(unit) && self.running.get(unit).is_some_and(settled)
    }

    /// Whether this very process was seen in an earlier pass.
    pub fn knows(&self, unit: &UnitName, seen: &ObservedUnit) -> bool {
        self.running.get(unit).is_some_and(|known| known.invocation == seen.invocation)
    }

    /// Services whose next try is not due yet.
    pub fn waiting(&self, now: Timestamp) -> BTreeSet<UnitName> {
        let due_later = self.failing.iter().filter(|(_, failing)| failing.retry_at > now);
        due_later.map(|(unit, _)| unit.clone()).collect()
    }

    /// When a service must be looked at again: a try is due, or a start will have settled.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let retries = self.failing.iter().filter(|(unit, _)| !self.running.contains_key(*unit));
        let retries = retries.map(|(_, failing)| failing.retry_at.max(now + SETTLE));
        let settling = self.running.iter().filter_map(|(unit, running)| {
            let wait = if self.failing.contains_key(unit) { RECOVERY } else { SETTLE };
            Some(running.since + wait).filter(|at| *at > now)
        });
        retries.chain(settling).min()
    }
}

/// Whether the service runs at this moment.
pub fn is_up(seen: &ObservedUnit) -> bool {
    seen.active_state == "active" && seen.sub_state == "running" && seen.main_pid != 0 && !seen.invocation.is_empty()
}

/// 5 s, doubling up to 5 minutes.
fn pause(attempts: u32) -> SignedDuration {
    let seconds = 5_i64 << attempts.saturating_sub(1).min(6);
    SignedDuration::from_secs(seconds.min(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn unit() -> UnitName {
        UnitName::new("shop-web.service").expect("legal")
    }

    fn up(invocation: &str) -> ObservedUnit {
        ObservedUnit {
            active_state: "active".to_owned(),
            sub_state: "running".to_owned(),
            main_pid: 7,
            invocation: invocation.to_owned(),
            ..ObservedUnit::default()
        }
    }

    fn failed() -> ObservedUnit {
        ObservedUnit { active_state: "failed".to_owned(), ..ObservedUnit::default() }
    }

    #[test]
    fn a_start_is_believed_when_it_lasts() {
        let mut health = Health::default();
        health.note(&unit(), &up("a"), true, false, at(0));
        assert!(!health.has_settled(&unit(), at(0)));
        assert_eq!(health.due(at(0)), Some(at(1)));
        health.note(&unit(), &up("a"), false, false, at(1));
        assert!(health.has_settled(&unit(), at(1)));
        assert_eq!(health.due(at(1)), None);
    }

    #[test]
    fn a_service_that_ran_before_is_believed_at_once() {
        let mut health = Health::default();
        health.note(&unit(), &up("a"), false, true, at(0));
        assert!(health.has_settled(&unit(), at(0)));
    }

    #[test]
    fn a_service_that_comes_and_goes_keeps_failing() {
        let mut health = Health::default();
        health.note(&unit(), &failed(), true, false, at(0));
        for second in 1..9 {
            health.note(&unit(), &up(&second.to_string()), false, false, at(second));
            assert!(!health.has_settled(&unit(), at(second)));
        }
        assert_eq!(health.failing[&unit()].since, at(0));
        health.note(&unit(), &up("8"), false, false, at(18));
        assert!(health.has_settled(&unit(), at(18)));
    }

    #[test]
    fn tries_become_rarer_up_to_five_minutes() {
        let mut health = Health::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            health.note(&unit(), &failed(), true, false, at(0));
            pauses.push(health.failing[&unit()].retry_at.as_second());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(health.waiting(at(299)).contains(&unit()) && health.waiting(at(300)).is_empty());
    }
}
