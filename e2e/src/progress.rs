//! Tells a waiting person, on standard error, what takes long and for how long it has been going on.

use std::time::Duration;

use tokio::time::Instant;

/// How long a step stays silent between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Runs `work` and prints a line at its start, every ten seconds, and at its end with the time it took.
pub async fn during<T, E>(what: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let begin = Instant::now();
    eprintln!("{what} ...");
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(INTERVAL, &mut work).await {
            Err(_) => eprintln!("{what} ... {} s", begin.elapsed().as_secs()),
            Ok(outcome) => {
                let verdict = if outcome.is_ok() { "done" } else { "failed" };
                eprintln!("{what}: {verdict} after {:.1} s", begin.elapsed().as_secs_f64());
                return outcome;
            }
        }
    }
}
