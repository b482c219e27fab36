//! Who did what, when. Kept only for a history that is told; the others are too many.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use jiff::Timestamp;

/// The record of one history. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Story(Option<Rc<RefCell<Inner>>>);

#[derive(Debug, Default)]
struct Inner {
    lines: Vec<String>,
    now: Timestamp,
    start: Timestamp,
}

impl Story {
    /// A story that keeps what it is told.
    pub fn told(start: Timestamp) -> Self {
        Self(Some(Rc::new(RefCell::new(Inner { lines: Vec::new(), now: start, start }))))
    }

    /// It is now so late.
    pub fn at(&self, now: Timestamp) {
        if let Some(inner) = &self.0 {
            inner.borrow_mut().now = now;
        }
    }

    /// Somebody did something; the words are only made up if somebody listens.
    pub fn tell<T: Display>(&self, who: impl Display, what: impl FnOnce() -> T) {
        if let Some(inner) = &self.0 {
            let mut inner = inner.borrow_mut();
            let seconds = inner.now.duration_since(inner.start).as_secs_f64();
            inner.lines.push(format!("{seconds:8.1}s  {who:<10} {}", what()));
        }
    }

    /// Everything told so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.as_ref().map(|inner| inner.borrow().lines.clone()).unwrap_or_default()
    }
}
