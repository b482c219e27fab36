//! Tells how long each step of a story took.

#![expect(clippy::disallowed_methods, reason = "it measures by the clock")]

use std::time::{Duration, Instant};

use lamina_cli::table::{row, table};

/// What was reached, when.
#[derive(Debug)]
pub struct Stages {
    last: Instant,
    all: Vec<(String, Duration)>,
}

impl Stages {
    /// Nothing is reached yet.
    pub fn begin() -> Self {
        Self { last: Instant::now(), all: Vec::new() }
    }

    /// This is reached now.
    pub fn reached(&mut self, what: &str) {
        let took = self.last.elapsed();
        eprintln!("{what} ({:.1} s)", took.as_secs_f64());
        self.all.push((what.to_owned(), took));
        self.last = Instant::now();
    }

    /// Every stage with its time, and the sum.
    pub fn told(&self) -> String {
        let seconds = |took: &Duration| format!("{:>7.1}", took.as_secs_f64());
        let sum: Duration = self.all.iter().map(|(_, took)| *took).sum();
        let mut rows = vec![row(["SECONDS", "STAGE"])];
        rows.extend(self.all.iter().map(|(what, took)| vec![seconds(took), what.clone()]));
        rows.push(vec![seconds(&sum), "all".to_owned()]);
        table(&rows)
    }
}
