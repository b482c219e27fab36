//! Waits for a fact instead of for a time.

#![expect(clippy::disallowed_methods, reason = "it waits by the clock")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One minute.
pub const MINUTE: Duration = Duration::from_secs(60);

/// Asks until the fact is true and tells how long that took; the last error is told when time runs out.
pub async fn until(what: &str, limit: Duration, fact: impl AsyncFn() -> Result<bool>) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        let answer = fact().await;
        if matches!(answer, Ok(true)) {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > limit {
            answer.with_context(|| format!("waiting until {what}"))?;
            bail!("after {} s it is not so that {what}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
