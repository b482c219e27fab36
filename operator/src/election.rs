//! Decides whether this operator leads, by what it saw of the operators' Lease and by its own clock: clocks of others play
//! no part. Whoever holds the Lease stops writing before anybody else may take it.

use std::time::Duration;

use lamina_crds::Term;

/// A Lease that nobody was seen to renew for so long is free.
pub const DURATION: Duration = Duration::from_secs(15);
/// For so long after its last renewal began the holder may write: less than [`DURATION`], so that it has stopped before
/// anybody else begins.
pub const TENURE: Duration = Duration::from_secs(10);
/// So long after a renewal began the holder renews again.
pub const RENEWAL: Duration = Duration::from_secs(3);
/// The longest that the holder of a Lease may ask others to wait.
const LONGEST: Duration = Duration::from_secs(60);
/// Who is written into a Lease that was lost: it never renews, so everybody waits as for a holder that died.
const NOBODY: &str = "nobody";

/// A moment by this process's own clock: the time since some beginning. It never jumps, and goes on while the process is
/// stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

/// The operators' Lease as somebody wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it; empty if it was handed back.
    pub holder: String,
    /// The holder's term, or that of whoever handed it back.
    pub term: Term,
    /// For how long the holder asks others to wait.
    pub duration: Duration,
    /// A text that differs after each renewal.
    pub renewed: String,
    /// The object's identity; with the version it is the precondition of writes.
    pub uid: String,
    /// The object's version.
    pub version: String,
}

/// What is known of the Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet.
    #[default]
    NotYet,
    /// There is none.
    Missing,
    /// It stands there like this.
    There(Lease),
}

/// The right to write, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The term in which everything is written.
    pub term: Term,
    /// When the renewal began from which it counts.
    pub began: Moment,
}

/// One operator, as far as the election goes.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    seen: Seen,
    since: Moment,
    tenure: Option<Tenure>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write the Lease with this name in it and a new term.
    Acquire {
        /// The one that must still stand there like this; `None` if there must be none.
        over: Option<Lease>,
        /// The new term.
        term: Term,
    },
    /// Create a Lease in this term which nobody holds: whoever held the one that was lost may not know yet.
    Restore {
        /// The term.
        term: Term,
    },
    /// Write it anew in the same term.
    Renew {
        /// The one that must still stand there like this.
        over: Lease,
    },
    /// Wait for news, and look again at this moment if none come.
    Wait {
        /// That moment; `None` if only news matter.
        until: Option<Moment>,
    },
    /// Somebody else holds the Lease: write nothing any more.
    Stop,
}

impl Candidate {
    /// An operator that has seen nothing. No other process, past or present, bears the same identity.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: Seen::NotYet, since: Moment::default(), tenure: None }
    }

    /// Takes note of what stands there. News that are older than what is known change nothing: a watch may lag behind a
    /// write of ours, or go back in time.
    pub fn see(&mut self, seen: Seen, now: Moment) {
        if !seen.is_older_than(&self.seen) {
            self.read(seen, now);
        }
    }

    /// Takes note of what was just read from the server itself, which is so whatever was known before.
    pub fn read(&mut self, seen: Seen, now: Moment) {
        if seen != self.seen {
            (self.seen, self.since) = (seen, now);
        }
    }

    /// A write of ours, begun at this moment, was answered now with this Lease.
    pub fn wrote(&mut self, lease: Lease, began: Moment, now: Moment) {
        self.tenure = (lease.holder == self.identity).then_some(Tenure { term: lease.term, began });
        (self.seen, self.since) = (Seen::There(lease), now);
    }

    /// Gives up whatever right to write there is.
    pub fn stop(&mut self) {
        self.tenure = None;
    }

    /// The right to write, which counts only as long as [`Tenure::left`] says.
    pub fn tenure(&self) -> Option<Tenure> {
        self.tenure
    }

    /// What to do now. `highest` is the highest term that any `HostState` shows.
    pub fn decide(&self, highest: Term, now: Moment) -> Decision {
        match &self.seen {
            Seen::NotYet => Decision::Wait { until: None },
            // Nobody ever led here.
            Seen::Missing if highest.is_none() => Decision::Acquire { over: None, term: Term::NONE.next() },
            Seen::Missing => Decision::Restore { term: highest },
            Seen::There(lease) if lease.holder == self.identity => self.keep(lease, highest, now),
            Seen::There(_) if self.tenure.is_some() => Decision::Stop,
            Seen::There(lease) if lease.holder.is_empty() => acquire(lease, highest),
            Seen::There(lease) => {
                let free = self.since.after(lease.duration.clamp(DURATION, LONGEST));
                if now < free { Decision::Wait { until: Some(free) } } else { acquire(lease, highest) }
            }
        }
    }

    fn keep(&self, lease: &Lease, highest: Term, now: Moment) -> Decision {
        // A host knows a later term, from before the Lease was lost.
        if highest > lease.term {
            return acquire(lease, highest);
        }
        // A write of ours may have been done without an answer: then nothing counts from it.
        let due = self.tenure.filter(|tenure| tenure.term == lease.term).map(|tenure| tenure.began.after(RENEWAL));
        match due {
            Some(due) if now < due => Decision::Wait { until: Some(due) },
            Some(_) | None => Decision::Renew { over: lease.clone() },
        }
    }

    /// The Lease to write with our name in it.
    pub fn lease(&self, term: Term) -> Lease {
        Lease { holder: self.identity.clone(), term, duration: DURATION, ..Lease::default() }
    }

    /// The Lease to write in place of one that was lost.
    pub fn vacant(&self, term: Term) -> Lease {
        Lease { holder: NOBODY.to_owned(), ..self.lease(term) }
    }

    /// How the Lease is handed back, if it is ours: the one that must still stand there, and what to write over it.
    pub fn handed_back(&self) -> Option<(Lease, Lease)> {
        match &self.seen {
            Seen::There(lease) if lease.holder == self.identity => {
                Some((lease.clone(), Lease { holder: String::new(), ..self.lease(lease.term) }))
            }
            Seen::There(_) | Seen::Missing | Seen::NotYet => None,
        }
    }
}

fn acquire(lease: &Lease, highest: Term) -> Decision {
    Decision::Acquire { over: Some(lease.clone()), term: lease.term.max(highest).next() }
}

impl Seen {
    fn is_older_than(&self, known: &Self) -> bool {
        let version = |lease: &Lease| lease.version.parse::<u64>().unwrap_or(0);
        matches!((self, known), (Self::There(new), Self::There(known)) if version(new) < version(known))
    }
}

impl Tenure {
    /// For how long writing is allowed from now on; `None` if it is not any more. A write must have ended by then.
    pub fn left(self, now: Moment) -> Option<Duration> {
        let end = self.began.after(TENURE);
        (now >= self.began && now < end).then(|| now.until(end))
    }
}

impl Moment {
    /// The moment so long after the beginning.
    pub const fn new(since_the_beginning: Duration) -> Self {
        Self(since_the_beginning)
    }

    /// The moment so long after this one.
    pub const fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The time from this moment until a later one.
    pub const fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

#[cfg(test)]
mod tests;
