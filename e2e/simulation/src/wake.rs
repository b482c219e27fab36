//! Decides when operator and agents make a pass: as their programs do, when they hear of something, when it is time, and
//! after their slow re-check. What nobody hears of waits for that.

use std::time::Duration;

use jiff::Timestamp;

/// The last time somebody looked, and what there was to be heard by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look<T> {
    /// When that was.
    pub at: Timestamp,
    /// What had been heard when it began; what happens while somebody looks is heard afterwards.
    pub heard: T,
    /// When it is time to look again.
    pub due: Option<Timestamp>,
}

/// The agent looks again after about five minutes, the operator after three to six.
pub const RECHECK: Duration = Duration::from_secs(300);

impl<T: PartialEq> Look<T> {
    /// Whether somebody who looked last then, and hears this now, looks again.
    pub fn is_over(&self, heard: &T, now: Timestamp) -> bool {
        let Self { at, heard: known, due } = self;
        known != heard || due.is_some_and(|due| due <= now) || now >= *at + RECHECK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_looks_again_for_news_in_time_and_in_the_end() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let look = Look { at: at(0), heard: 7, due: Some(at(20)) };
        assert!(!look.is_over(&7, at(19)));
        assert!(look.is_over(&8, at(1)));
        assert!(look.is_over(&7, at(20)));
        assert!(!Look { due: None, ..look.clone() }.is_over(&7, at(299)));
        assert!(Look { due: None, ..look }.is_over(&7, at(300)));
    }
}
