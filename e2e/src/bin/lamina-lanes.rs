//! Runs the test lanes one after the other and ends with one line per lane and a total.
#![expect(clippy::disallowed_methods, reason = "it tells how long each lane took")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use lamina_e2e::cache::Cache;
use lamina_e2e::cargo_tool::CARGO_DENY;

/// Runs Lamina's test lanes; without names, all that `make test` is made of.
#[derive(Parser)]
struct Arguments {
    /// The lanes to run.
    #[arg(value_enum)]
    lanes: Vec<Lane>,
    /// The minutes that all of it may take. A lane that needs real Kubernetes nodes or Git engines is left out when it
    /// would not fit, and the closing lines say so; every other lane always runs.
    #[arg(long, value_name = "MINUTES")]
    within: Option<u64>,
    /// How many random histories the simulation lane runs.
    #[arg(long, default_value_t = 4000)]
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
    /// What a real Prometheus sees of operator and agent.
    Metrics,
    /// The user's whole path.
    All,
    /// A fleet in Git, kept by the real Flux and the real Argo CD.
    Gitops,
    /// A real Kubernetes node: images, DaemonSet and Deployment, beside a kubelet.
    Node,
}

/// What `make test` is made of, in this order: what takes long and is least likely to fail comes last.
const TESTED: [Lane; 11] = [
    Lane::Lint,
    Lane::Unit,
    Lane::Simulation,
    Lane::Comparison,
    Lane::Api,
    Lane::Bus,
    Lane::Host,
    Lane::Metrics,
    Lane::All,
    Lane::Gitops,
    Lane::Node,
];

/// What a lane came to.
enum Outcome {
    /// It ran.
    Ran(Tally),
    /// It was left out, for this reason.
    LeftOut(String),
}

/// What a lane that ran came to.
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
    let begin = Instant::now();
    let outcome = |lane| match in_time(lane, &arguments, begin.elapsed(), &cached()) {
        Ok(()) => Outcome::Ran(run(lane, &arguments)),
        Err(reason) => Outcome::LeftOut(reason),
    };
    let outcomes: Vec<(Lane, Outcome)> = chosen.into_iter().map(|lane| (lane, outcome(lane))).collect();
    conclude(&outcomes)
}

/// Prints the closing lines; success only if something passed, in every lane that was not left out, and nothing failed.
fn conclude(outcomes: &[(Lane, Outcome)]) -> ExitCode {
    println!();
    let (mut passed, mut failed, mut empty) = (0, 0, false);
    for (lane, outcome) in outcomes {
        match outcome {
            Outcome::Ran(Tally { passed: good, failed: bad, problems, took }) => {
                passed += good;
                failed += bad;
                empty |= *good == 0;
                println!("lane {lane:?}: {good} passed, {bad} failed, {} s", took.as_secs());
                for problem in problems {
                    println!("  {problem}");
                }
            }
            Outcome::LeftOut(reason) => println!("lane {lane:?}: NOT RUN, {reason}"),
        }
    }
    println!("{passed} passed, {failed} failed");
    if passed > 0 && failed == 0 && !empty { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a lane that may be left out takes, as far as is known.
struct Cost {
    /// The minutes it takes once what it needs lies in the cache.
    ready: u64,
    /// The minutes it takes when all of that must be made first.
    from_nothing: u64,
    /// The kinds of cache entries that it needs and takes long to make.
    needs: &'static [&'static str],
}

/// What `lane` takes; nothing for a lane that always runs.
fn cost(lane: Lane) -> Option<Cost> {
    match lane {
        Lane::Gitops => Some(Cost {
            ready: 10,
            from_nothing: 45,
            needs: &["argocd", "source-controller", "kustomize-controller", "helm-controller", "redis", "git-server"],
        }),
        Lane::Node => Some(Cost {
            ready: 20,
            from_nothing: 45,
            needs: &["kubelet", "kube-proxy", "first-programs", "snapshot-bookworm-node"],
        }),
        _ => None,
    }
}

/// Whether a lane that may be left out still fits after `elapsed`, with these kinds of entries in the cache; else why not.
fn in_time(lane: Lane, arguments: &Arguments, elapsed: Duration, cached: &BTreeSet<String>) -> Result<(), String> {
    let (Some(within), Some(Cost { ready, from_nothing, needs })) = (arguments.within, cost(lane)) else {
        return Ok(());
    };
    let is_ready = needs.iter().all(|kind| cached.contains(*kind));
    let takes = if is_ready { ready } else { from_nothing };
    let left = within.saturating_sub(elapsed.as_secs() / 60);
    if takes <= left {
        return Ok(());
    }
    let why = if is_ready { "" } else { ", for its programs are not in the cache" };
    Err(format!("{left} of {within} minutes were left, and it takes about {takes}{why}"))
}

/// The kinds of entries that the cache has.
fn cached() -> BTreeSet<String> {
    Cache::open().and_then(|cache| cache.kinds()).unwrap_or_default()
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

/// How many tests of a lane run at once: where a test mostly waits for its machine, another one works meanwhile.
fn at_once(lane: Lane) -> u32 {
    match lane {
        Lane::Api | Lane::Host | Lane::All => 2,
        _ => 1,
    }
}

fn steps(lane: Lane, arguments: &Arguments) -> Vec<Step> {
    // Every step selects from the whole workspace: a part of it would have its dependencies built anew, with fewer features.
    let binaries = "cargo build --quiet --workspace --bins --tests";
    let cargo_test = "cargo test --quiet --no-fail-fast --workspace";
    let ours = |prefix: &str| {
        let tests = format!("{cargo_test} --test {prefix}_* -- --test-threads={} --nocapture", at_once(lane));
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

    fn left_out(lane: Lane, minutes: u64, cached: &BTreeSet<String>) -> Option<String> {
        let arguments = Arguments::parse_from(["lamina-lanes", "--within", "85"]);
        in_time(lane, &arguments, Duration::from_secs(60 * minutes), cached).err()
    }

    #[test]
    fn a_lane_is_left_out_only_where_it_may_be_and_does_not_fit() {
        let everything = [Lane::Gitops, Lane::Node].into_iter().filter_map(cost).flat_map(|cost| cost.needs);
        let everything: BTreeSet<String> = everything.map(|kind| (*kind).to_owned()).collect();
        assert_eq!(left_out(Lane::Node, 65, &everything), None);
        assert_eq!(
            left_out(Lane::Node, 66, &everything).as_deref(),
            Some("19 of 85 minutes were left, and it takes about 20")
        );
        let nothing = left_out(Lane::Node, 66, &BTreeSet::new()).unwrap();
        assert!(nothing.ends_with("it takes about 45, for its programs are not in the cache"), "{nothing}");
        assert_eq!(left_out(Lane::All, 90, &BTreeSet::new()), None);
    }

    #[test]
    fn closing_lines_are_counted() {
        let mut tally = Tally::default();
        count("test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out", &mut tally);
        count("test result: ok. 4 passed; 0 failed; 0 ignored", &mut tally);
        count("nothing", &mut tally);
        assert_eq!((tally.passed, tally.failed), (7, 1));
    }
}
