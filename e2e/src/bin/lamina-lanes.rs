//! Runs the test lanes one after the other and ends with one line per lane and a total.
#![expect(clippy::disallowed_methods, reason = "it tells how long each lane took")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use lamina_e2e::cargo_tool::CARGO_DENY;

/// Runs Lamina's test lanes; without names, all that `make test` is made of.
#[derive(Parser)]
struct Arguments {
    /// The lanes to run.
    #[arg(value_enum)]
    lanes: Vec<Lane>,
    /// How many random histories the simulation lane runs.
    #[arg(long, default_value_t = 2000)]
    histories: u32,
}

/// One answer to "is it right?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Lane {
    /// Formatting, lints, licences and who may use what.
    Lint,
    /// Each decision, alone.
    Unit,
    /// The whole loop under every accident.
    Simulation,
    /// Placement against the kubelet's own code.
    Comparison,
    /// Schema, CEL, policies and chart on a real API server.
    Api,
    /// Unit files, jobs and signals on real systemd in containers.
    Bus,
    /// Kernel truth in emulated machines.
    Host,
    /// A real Kubernetes node: images, DaemonSet and Deployment, beside a kubelet.
    Node,
    /// What a real Prometheus sees of operator and agent.
    Metrics,
    /// A fleet in Git, kept by the real Flux and the real Argo CD.
    Gitops,
    /// The user's whole path.
    All,
}

/// What `make test` is made of. The lanes `node` and `gitops` run by their names alone: they take some twenty and some seven
/// minutes more, and each of their tests has been seen to pass once only.
const TESTED: [Lane; 9] = [
    Lane::Lint,
    Lane::Unit,
    Lane::Simulation,
    Lane::Comparison,
    Lane::Api,
    Lane::Bus,
    Lane::Host,
    Lane::Metrics,
    Lane::All,
];

/// What a lane came to.
#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    problems: Vec<String>,
    took: Duration,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: BTreeSet<Lane> =
        if arguments.lanes.is_empty() { TESTED.into() } else { arguments.lanes.iter().copied().collect() };
    let tallies: Vec<(Lane, Tally)> = chosen.into_iter().map(|lane| (lane, run(lane, &arguments))).collect();
    conclude(&tallies)
}

/// Prints the closing lines; success only if every lane ran something and nothing failed.
fn conclude(tallies: &[(Lane, Tally)]) -> ExitCode {
    println!();
    let (mut passed, mut failed) = (0, 0);
    for (lane, Tally { passed: good, failed: bad, problems, took }) in tallies {
        passed += good;
        failed += bad;
        println!("lane {lane:?}: {good} passed, {bad} failed, {} s", took.as_secs());
        for problem in problems {
            println!("  {problem}");
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && tallies.iter().all(|(_, tally)| tally.passed > 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(lane: Lane, arguments: &Arguments) -> Tally {
    println!("\n=== lane {lane:?}");
    let start = Instant::now();
    let mut tally = Tally::default();
    for step in steps(lane, arguments) {
        if let Err(error) = step.run(&mut tally) {
            tally.failed += 1;
            tally.problems.push(format!("{error:#}"));
        }
    }
    tally.took = start.elapsed();
    tally
}

/// One command of a lane.
struct Step {
    words: Vec<String>,
    counts: Counts,
}

/// How a command's outcome is counted.
enum Counts {
    /// Not at all, unless it fails: it prepares.
    Nothing,
    /// As one check.
    Once,
    /// By the closing lines of cargo's test runner.
    Tests,
}

fn step(counts: Counts, words: &str) -> Step {
    Step { words: words.split_whitespace().map(str::to_owned).collect(), counts }
}

fn steps(lane: Lane, arguments: &Arguments) -> Vec<Step> {
    // Every step selects from the whole workspace: a part of it would have its dependencies built anew, with fewer features.
    let binaries = "cargo build --quiet --workspace --bins --tests";
    let cargo_test = "cargo test --quiet --no-fail-fast --workspace";
    let ours = |prefix: &str| {
        let tests = format!("{cargo_test} --test {prefix}_* -- --test-threads=1 --nocapture");
        vec![step(Counts::Nothing, binaries), step(Counts::Tests, &tests)]
    };
    match lane {
        Lane::Lint => vec![
            step(Counts::Once, "cargo fmt --all --check"),
            step(Counts::Once, "cargo clippy --quiet --workspace --all-targets -- -D warnings"),
            step(Counts::Once, &format!("{} check --hide-inclusion-graph bans licenses sources", cargo_deny())),
        ],
        Lane::Unit => vec![
            step(Counts::Tests, &format!("{cargo_test} --lib --bins")),
            step(Counts::Tests, &format!("{cargo_test} --exclude lamina-e2e --exclude lamina-peers --test *")),
        ],
        Lane::Simulation => {
            let histories = format!("target/debug/lamina-simulate --budget {}", arguments.histories);
            vec![step(Counts::Nothing, binaries), step(Counts::Once, &histories)]
        }
        Lane::Comparison => vec![step(Counts::Tests, &format!("{cargo_test} --test comparison"))],
        Lane::Api => ours("api"),
        Lane::Bus => ours("bus"),
        Lane::Host => ours("host"),
        Lane::Node => ours("node"),
        Lane::Metrics => ours("metrics"),
        Lane::Gitops => ours("gitops"),
        Lane::All => ours("all"),
    }
}

/// cargo-deny; where it cannot be had, the check that follows fails.
fn cargo_deny() -> String {
    CARGO_DENY.program().unwrap_or_else(|error| {
        println!("{error:#}; the check that follows fails");
        CARGO_DENY.name.to_owned()
    })
}

impl Step {
    /// Runs the command, passes its output on, and counts.
    fn run(&self, tally: &mut Tally) -> Result<()> {
        let line = self.words.join(" ");
        println!("$ {line}");
        let (program, rest) = self.words.split_first().context("a step has no command")?;
        let mut child = Command::new(program)
            .args(rest)
            .current_dir(workspace())
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start `{line}`"))?;
        let output = child.stdout.take().context("the output is piped")?;
        let before = tally.failed;
        for text in BufReader::new(output).lines() {
            let text = text.with_context(|| format!("read the output of `{line}`"))?;
            let _ = writeln!(std::io::stdout(), "{text}");
            if matches!(self.counts, Counts::Tests) {
                count(&text, tally);
            }
        }
        let status = child.wait().with_context(|| format!("wait for `{line}`"))?;
        if status.success() {
            tally.passed += u32::from(matches!(self.counts, Counts::Once));
            return Ok(());
        }
        if tally.failed == before {
            tally.failed += 1;
        }
        tally.problems.push(format!("`{line}` ended with {status}"));
        Ok(())
    }
}

/// Adds one `test result:` line of cargo's runner.
fn count(text: &str, tally: &mut Tally) {
    let Some(at) = text.find("test result:") else { return };
    let number = |word: &str| {
        let found = text[at..].split(';').find_map(|part| part.trim().strip_suffix(word)).unwrap_or("0");
        found.rsplit(' ').find_map(|digits| digits.parse::<u32>().ok()).unwrap_or(0)
    };
    tally.passed += number(" passed");
    tally.failed += number(" failed");
}

/// The workspace this program was built from.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let mut tally = Tally::default();
        count("test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out", &mut tally);
        count("test result: ok. 4 passed; 0 failed; 0 ignored", &mut tally);
        count("nothing", &mut tally);
        assert_eq!((tally.passed, tally.failed), (7, 1));
    }
}
