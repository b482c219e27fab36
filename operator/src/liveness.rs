//! Decides whether a host's agent is alive, by what this process itself saw of its lease: clocks of others play no part.

use std::time::Duration;

use jiff::Timestamp;

use crate::snapshot::LeaseTrace;
use crate::view::HostView;

/// How long a lease may rest before its agent counts as silent.
pub const SILENCE: Duration = Duration::from_secs(40);

/// What is known of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Its lease changed within the last 40 s.
    Live,
    /// It has not been watched for long enough.
    Unjudged,
    /// Its lease has not changed for 40 s.
    Silent,
}

/// Whether the agent of this host is alive at this moment.
pub fn liveness(host: &HostView, watching_since: Timestamp, now: Timestamp) -> Liveness {
    let changed = host.lease.is_some_and(|lease| lease.last_change_seen.is_some());
    match silent_from(host, watching_since) {
        Some(moment) if now >= moment => Liveness::Silent,
        Some(_) if changed => Liveness::Live,
        Some(_) | None => Liveness::Unjudged,
    }
}

/// From when on the agent counts as silent unless its lease changes. None for a host that has no HostState yet: nobody
/// has asked its agent for anything.
pub fn silent_from(host: &HostView, watching_since: Timestamp) -> Option<Timestamp> {
    let state = host.state.as_ref()?;
    let last = match host.lease {
        Some(LeaseTrace { first_seen, last_change_seen }) => last_change_seen.unwrap_or(first_seen),
        None => state.created.map_or(watching_since, |created| created.max(watching_since)),
    };
    last.checked_add(SILENCE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::{Scene, at};

    fn judged(lease: Option<LeaseTrace>, now: i64) -> Liveness {
        let mut host = Scene::new().host("h").view().hosts["h"].clone();
        host.lease = lease;
        liveness(&host, at(100), at(now))
    }

    #[test]
    fn silence_is_judged_only_after_forty_seconds_of_watching() {
        let old = Some(LeaseTrace { first_seen: at(100), last_change_seen: None });
        assert_eq!(judged(old, 139), Liveness::Unjudged);
        assert_eq!(judged(old, 140), Liveness::Silent);
        assert_eq!(judged(None, 139), Liveness::Unjudged);
        assert_eq!(judged(None, 140), Liveness::Silent);
    }

    #[test]
    fn a_lease_that_changes_is_a_live_agent() {
        let renewed = Some(LeaseTrace { first_seen: at(100), last_change_seen: Some(at(200)) });
        assert_eq!(judged(renewed, 239), Liveness::Live);
        assert_eq!(judged(renewed, 240), Liveness::Silent);
    }
}
