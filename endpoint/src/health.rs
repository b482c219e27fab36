//! Decides whether a loop lives and is ready, from what the loop said of itself: that it works, or that it rests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A rest shorter than this is none: a loop that never rests longer is spinning.
const SHORTEST_REST: Duration = Duration::from_millis(10);
/// How much later than it said a loop may come back from its rest.
const GRACE: Duration = Duration::from_secs(60);

/// What a loop says of itself, to be judged on another thread, since a loop that is stuck answers nobody.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Standing>>);

/// What a loop last said.
#[derive(Clone, Debug)]
pub struct Standing {
    patience: Duration,
    doing: Doing,
    missing: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    /// It has worked since then, without a rest worth the name.
    Working { since: Instant },
    /// It waits for news, and looks again by itself after a while; before that it worked since `worked_since`.
    Resting { began: Instant, until: Instant, worked_since: Instant },
}

impl Health {
    /// A loop that begins to work now; how long it may work without a rest, and what it lacks until it is ready.
    pub fn beginning(patience: Duration, missing: &str) -> Self {
        let doing = Doing::Working { since: Instant::now() };
        Self(Arc::new(Mutex::new(Standing { patience, doing, missing: Some(missing.to_owned()) })))
    }

    /// The loop works.
    pub fn works(&self) {
        self.change(|standing| standing.doing = standing.doing.working(Instant::now()));
    }

    /// The loop waits for news, and looks again after this time at the latest.
    pub fn rests(&self, at_most: Duration) {
        self.change(|standing| standing.doing = standing.doing.resting(Instant::now(), at_most));
    }

    /// What the loop lacks; ready if it lacks nothing.
    pub fn lacks(&self, missing: Option<&str>) {
        self.change(|standing| standing.missing = missing.map(str::to_owned));
    }

    /// What was last said.
    pub fn standing(&self) -> Standing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Doing {
    fn working(self, now: Instant) -> Self {
        match self {
            Self::Resting { began, until: _, worked_since: _ } if now - began >= SHORTEST_REST => {
                Self::Working { since: now }
            }
            Self::Resting { began: _, until: _, worked_since: since } | Self::Working { since } => {
                Self::Working { since }
            }
        }
    }

    fn resting(self, now: Instant, at_most: Duration) -> Self {
        let Self::Working { since: worked_since } = self.working(now) else { return self };
        Self::Resting { began: now, until: now + at_most, worked_since }
    }
}

impl Standing {
    /// Why the loop counts as stuck or spinning; `None` while it does as it said.
    pub fn stuck(&self, now: Instant) -> Option<String> {
        let late = |since: Instant, limit: Duration| Some(now.checked_duration_since(since)?).filter(|d| *d > limit);
        match self.doing {
            Doing::Working { since } => {
                let worked = late(since, self.patience)?;
                Some(format!("the loop has not rested for {} s: it is stuck, or spins", worked.as_secs()))
            }
            Doing::Resting { began: _, until, worked_since: _ } => {
                let late = late(until, GRACE)?;
                Some(format!("the loop does not wake: it meant to look again {} s ago", late.as_secs()))
            }
        }
    }

    /// Why the loop is not ready; one that is stuck is not.
    pub fn unready(&self, now: Instant) -> Option<String> {
        self.stuck(now).or_else(|| self.missing.clone())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stuck(health: &Health) -> Option<String> {
        health.standing().stuck(Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_never_ends_is_stuck() {
        let health = Health::beginning(10 * SECOND, "nothing was seen yet");
        advance(10 * SECOND).await;
        assert_eq!(stuck(&health), None);
        advance(3 * SECOND).await;
        let told = "the loop has not rested for 13 s: it is stuck, or spins";
        assert_eq!(stuck(&health).as_deref(), Some(told));
        health.rests(SECOND);
        assert_eq!(stuck(&health), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_never_rests_spins_however_often_it_says_so() {
        let health = Health::beginning(10 * SECOND, "nothing was seen yet");
        for _ in 0..110 {
            health.works();
            advance(SECOND / 10).await;
            health.rests(SECOND);
        }
        health.works();
        assert!(stuck(&health).is_some());
        health.rests(SECOND);
        advance(SHORTEST_REST).await;
        health.works();
        assert_eq!(stuck(&health), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_is_no_fault_and_an_endless_one_is() {
        let health = Health::beginning(10 * SECOND, "nothing was seen yet");
        health.rests(300 * SECOND);
        advance(359 * SECOND).await;
        assert_eq!(stuck(&health), None);
        advance(2 * SECOND).await;
        let told = "the loop does not wake: it meant to look again 61 s ago";
        assert_eq!(stuck(&health).as_deref(), Some(told));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_ready_when_it_lacks_nothing_and_not_when_it_is_stuck() {
        let health = Health::beginning(10 * SECOND, "nothing was seen yet");
        assert_eq!(health.standing().unready(Instant::now()).as_deref(), Some("nothing was seen yet"));
        health.lacks(None);
        assert_eq!(health.standing().unready(Instant::now()), None);
        advance(11 * SECOND).await;
        assert!(health.standing().unready(Instant::now()).is_some());
    }
}
