//! Keeps what the watches say, complete lists replacing what was known at once. Pure: times are handed in.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::runtime::watcher::Event;

use crate::liveness::SILENCE;
use crate::snapshot::{LeaseTrace, RawObject, Snapshot};

/// Everything the watches have said.
pub struct Caches {
    /// All topologies.
    pub topologies: Cache<Arc<RawObject>>,
    /// All host states.
    pub host_states: Cache<Arc<RawObject>>,
    /// The labels of all nodes.
    pub nodes: Cache<BTreeMap<String, String>>,
    leases: Cache<String>,
    traces: BTreeMap<String, (String, LeaseTrace)>,
    watching_since: Timestamp,
}

/// Whether a pass should look at what has just come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It may change a decision.
    Matters,
    /// It is known already, or only keeps somebody alive.
    Idle,
}

/// The objects of one kind.
pub struct Cache<T> {
    objects: BTreeMap<String, T>,
    incoming: BTreeMap<String, T>,
    is_complete: bool,
}

impl Caches {
    /// Empty caches; the leases are watched from now on.
    pub fn new(now: Timestamp) -> Self {
        Self {
            topologies: Cache::new(),
            host_states: Cache::new(),
            nodes: Cache::new(),
            leases: Cache::new(),
            traces: BTreeMap::new(),
            watching_since: now,
        }
    }

    /// Whether every list has come in once.
    pub fn is_complete(&self) -> bool {
        let Self { topologies, host_states, nodes, leases, traces: _, watching_since: _ } = self;
        topologies.is_complete && host_states.is_complete && nodes.is_complete && leases.is_complete
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        let Self { topologies, host_states, nodes, leases: _, traces, watching_since } = self;
        Snapshot {
            topologies: topologies.objects.clone(),
            host_states: host_states.objects.clone(),
            nodes: nodes.objects.clone(),
            leases: traces.iter().map(|(host, (_, trace))| (host.clone(), *trace)).collect(),
            watching_since: *watching_since,
        }
    }

    /// Takes in news about leases: name and time of renewal, as text that changes with every renewal.
    pub fn take_lease(&mut self, event: Event<(String, String)>, now: Timestamp) -> Weight {
        if let Event::Apply((host, renewal)) = &event {
            let weight = self.trace(host.clone(), renewal.clone(), now);
            let _ = self.leases.take(event);
            return weight;
        }
        let ends_list = matches!(event, Event::InitDone | Event::Delete(_));
        let weight = self.leases.take(event);
        if !ends_list {
            return weight;
        }
        let listed: Vec<(String, String)> = self.leases.objects.clone().into_iter().collect();
        self.traces.retain(|host, _| self.leases.objects.contains_key(host));
        let weights: Vec<Weight> = listed.into_iter().map(|(host, renewal)| self.trace(host, renewal, now)).collect();
        if weights.contains(&Weight::Matters) { Weight::Matters } else { weight }
    }

    fn trace(&mut self, host: String, renewal: String, now: Timestamp) -> Weight {
        let known = self.traces.get(&host);
        let (trace, weight) = match known {
            Some((seen, trace)) if *seen == renewal => (*trace, Weight::Idle),
            Some((_, trace)) => {
                let weight = if was_in_doubt(*trace, now) { Weight::Matters } else { Weight::Idle };
                (LeaseTrace { last_change_seen: Some(now), ..*trace }, weight)
            }
            None => (LeaseTrace { first_seen: now, last_change_seen: None }, Weight::Idle),
        };
        self.traces.insert(host, (renewal, trace));
        weight
    }

    /// The leases could not be watched: silence heard so far means nothing.
    pub fn leases_were_lost(&mut self, now: Timestamp) {
        self.watching_since = now;
        for (_, trace) in self.traces.values_mut() {
            *trace = LeaseTrace { first_seen: now, last_change_seen: None };
        }
    }
}

/// Whether a lease with this trace did not count as alive until now.
fn was_in_doubt(trace: LeaseTrace, now: Timestamp) -> bool {
    let end = trace.last_change_seen.and_then(|last| last.checked_add(SILENCE).ok());
    end.is_none_or(|end| end <= now)
}

impl<T: PartialEq> Cache<T> {
    const fn new() -> Self {
        Self { objects: BTreeMap::new(), incoming: BTreeMap::new(), is_complete: false }
    }

    /// Takes in one piece of news.
    pub fn take(&mut self, event: Event<(String, T)>) -> Weight {
        match event {
            Event::Init => {
                self.incoming.clear();
                Weight::Idle
            }
            Event::InitApply((name, object)) => {
                self.incoming.insert(name, object);
                Weight::Idle
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.incoming);
                let is_news = !self.is_complete || listed != self.objects;
                self.objects = listed;
                self.is_complete = true;
                if is_news { Weight::Matters } else { Weight::Idle }
            }
            Event::Apply((name, object)) => {
                if self.objects.get(&name) == Some(&object) {
                    return Weight::Idle;
                }
                self.objects.insert(name, object);
                Weight::Matters
            }
            Event::Delete((name, _)) => {
                self.objects.remove(&name);
                Weight::Matters
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::at;

    fn named(name: &str, value: u32) -> (String, u32) {
        (name.to_owned(), value)
    }

    fn lease(renewal: &str) -> Event<(String, String)> {
        Event::Apply(("h".to_owned(), renewal.to_owned()))
    }

    #[test]
    fn a_new_list_replaces_the_old_one_only_when_it_is_whole() {
        let mut cache = Cache::new();
        cache.take(Event::Init);
        cache.take(Event::InitApply(named("a", 1)));
        assert!(!cache.is_complete);
        assert_eq!(cache.take(Event::InitDone), Weight::Matters);
        cache.take(Event::Init);
        cache.take(Event::InitApply(named("b", 2)));
        assert_eq!(cache.objects, BTreeMap::from([named("a", 1)]));
        cache.take(Event::InitDone);
        assert_eq!(cache.objects, BTreeMap::from([named("b", 2)]));
    }

    #[test]
    fn what_is_known_already_does_not_matter() {
        let mut cache = Cache::new();
        assert_eq!(cache.take(Event::Apply(named("a", 1))), Weight::Matters);
        assert_eq!(cache.take(Event::Apply(named("a", 1))), Weight::Idle);
        assert_eq!(cache.take(Event::Delete(named("a", 1))), Weight::Matters);
    }

    #[test]
    fn a_renewal_matters_only_if_the_agent_was_in_doubt() {
        let mut caches = Caches::new(at(0));
        assert_eq!(caches.take_lease(lease("1"), at(1)), Weight::Idle);
        assert_eq!(caches.take_lease(lease("2"), at(11)), Weight::Matters);
        assert_eq!(caches.take_lease(lease("3"), at(21)), Weight::Idle);
        assert_eq!(caches.take_lease(lease("4"), at(61)), Weight::Matters);
        let trace = caches.snapshot().leases["h"];
        assert_eq!(trace, LeaseTrace { first_seen: at(1), last_change_seen: Some(at(61)) });
    }

    #[test]
    fn silence_while_nobody_listened_is_forgotten() {
        let mut caches = Caches::new(at(0));
        caches.take_lease(lease("1"), at(1));
        caches.take_lease(lease("2"), at(11));
        caches.leases_were_lost(at(100));
        let snapshot = caches.snapshot();
        assert_eq!(snapshot.watching_since, at(100));
        assert_eq!(snapshot.leases["h"], LeaseTrace { first_seen: at(100), last_change_seen: None });
    }
}
