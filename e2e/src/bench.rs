//! Measures what Lamina costs: memory, calls of a pass with nothing to do, and the way to a fresh host that runs the
//! example, against a shell script that does the same.

#![expect(clippy::disallowed_methods, reason = "it measures time and tells how busy the machine was")]

mod idle;
mod race;
mod script;

use std::time::Instant;

use anyhow::{Context, Result};

use crate::fleet::example::{self, Example, PATIENCE, TOPOLOGY};
use crate::image::Suite;
use crate::progress;
use race::{Contestant, Recipe};
use script::Style;

/// The time that the agent may take, as a multiple of the script's.
const GOAL: f64 = 1.1;

/// Who takes turns, in this order.
const CONTESTANTS: [Contestant; 3] =
    [Contestant::Agent, Contestant::Script(Style::Plain), Contestant::Script(Style::Lean)];

/// Measures everything and prints it as a table. The ways to a running example take turns, `rounds` times each.
///
/// # Errors
/// Fails when a host or a control plane does not come up, or when anybody's work does not give what it should.
pub async fn bench(suite: Suite, rounds: usize) -> Result<()> {
    let example = progress::during("starting a control plane, a host, its agent and the operator", Example::up(suite));
    let example = example.await?;
    let whole = progress::during("applying the example", whole_way(&example)).await?;
    let memory = idle::memory(&example).await?;
    let recipe = Recipe::of(&example).await?;
    let quiet = progress::during("looking at a pass with nothing to do", idle::pass(&example)).await?;
    drop(example);
    let mut seconds: [Vec<f64>; 3] = Default::default();
    for round in 1..=rounds {
        for (contestant, seconds) in CONTESTANTS.into_iter().zip(&mut seconds) {
            let what = format!("fresh host {round} of {rounds} for {contestant}");
            let took = progress::during(&what, race::run(suite, contestant, &recipe)).await?;
            eprintln!("  {took:.2} s");
            seconds.push(took);
        }
    }
    println!("{}, {} with 20 emulated CPUs", build(), suite.name());
    for (name, memory) in [("agent", memory.agent), ("operator", memory.operator)] {
        row(&format!("{name}, resident when idle"), mebibytes(memory.resident), "MiB");
        row(&format!("{name}, of that its own (anonymous)"), mebibytes(memory.anonymous), "MiB");
    }
    let idle::Quiet { bus_calls, bus_saw, api_writes, api_counted } = quiet;
    row("pass with nothing to do", format!("{bus_calls}"), &format!("D-Bus calls (the bus saw {bus_saw})"));
    row("pass with nothing to do", format!("{api_writes}"), &format!("API writes (the server counted {api_counted})"));
    row("kubectl apply until Ready", format!("{whole:.2}"), "s");
    for (contestant, seconds) in CONTESTANTS.iter().zip(&seconds) {
        row(&format!("fresh host, by {contestant}"), format!("{:.2}", median(seconds)), &spread(seconds));
    }
    let [agent, plain, lean] = &seconds;
    row("the agent / the script", ratio(agent, plain), &format!("goal: at most {GOAL}; {}", single(agent, plain)));
    let lean_is = "one systemctl for all starts, no cat";
    row("the agent / the lean script", ratio(agent, lean), &format!("{lean_is}; {}", single(agent, lean)));
    row("load of this machine", load()?, "processes that want to run; more than it has CPUs distorts all times");
    Ok(())
}

/// From `kubectl apply` until the topology is Ready, in seconds.
async fn whole_way(example: &Example) -> Result<f64> {
    let text = example::text()?;
    let begin = Instant::now();
    example.fleet.apply(&text).await?;
    example.fleet.wait_ready(TOPOLOGY, PATIENCE).await?;
    Ok(begin.elapsed().as_secs_f64())
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "programs built for tests (not release)" } else { "programs built for release" }
}

fn row(what: &str, value: String, unit: &str) {
    println!("  {what:36} {value:>8} {unit}");
}

fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{}", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}

fn spread(seconds: &[f64]) -> String {
    let (least, most) =
        (seconds.iter().copied().fold(f64::INFINITY, f64::min), seconds.iter().copied().fold(0.0, f64::max));
    format!("s, median of {} ({least:.2} to {most:.2})", seconds.len())
}

/// How the medians compare.
fn ratio(these: &[f64], those: &[f64]) -> String {
    format!("{:.2}", median(these) / median(those))
}

/// How single rounds compare, which tells how much the medians may be trusted.
fn single(these: &[f64], those: &[f64]) -> String {
    let rounds: Vec<String> = these.iter().zip(those).map(|(this, that)| format!("{:.2}", this / that)).collect();
    format!("single rounds {}", rounds.join(" "))
}

/// The average number over the last five minutes.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    text.split_whitespace().nth(1).map(str::to_owned).context("reading the load")
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        assert!((median(&[3.0, 1.0, 90.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(&[3.0, 1.0, 90.0, 2.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn memory_is_told_in_tenths_of_mebibytes() {
        assert_eq!(mebibytes(14092), "13.7");
        assert_eq!(mebibytes(1024), "1.0");
    }
}
