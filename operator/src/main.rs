//! The operator as a program: flags, log, signals and the clock around `controller::pass`.

#![expect(clippy::disallowed_methods, reason = "this file reads the clock for decisions that take it as `now`")]

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use jiff::Timestamp;
use lamina_operator::cluster::ClusterError;
use lamina_operator::controller::{PassSummary, pass};
use lamina_operator::kube_cluster::KubeCluster;
use lamina_operator::memory::Memory;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::sleep;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// Turns SliceTopologies into one resolved HostState per host, and says truthfully how far they are.
#[derive(Debug, Parser)]
#[command(name = "lamina-operator", version)]
struct Flags {
    /// How to reach the API server; without it the pod's service account is used.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the agents' Leases.
    #[arg(long, env = "POD_NAMESPACE", default_value = "lamina-system", value_name = "NAME")]
    lease_namespace: String,
    /// The form of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How long news are collected before a pass.
const DEBOUNCE: Duration = Duration::from_millis(150);
/// How long after a write that came too late the next pass looks again, if no news come first.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
/// How long after a refused write it is tried again.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);
/// The slow re-check behind every event source; a random part of up to the same length comes on top.
const RECHECK: Duration = Duration::from_secs(180);
/// The longest pause between tries while the API server does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    start_log(flags.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    LocalSet::new().block_on(&runtime, run(flags))
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    // Every write stands for itself, so the work may end between any two of them.
    tokio::select! {
        result = work(&flags) => result,
        _ = terminate.recv() => { info!("SIGTERM: ending"); Ok(()) }
        _ = interrupt.recv() => { info!("SIGINT: ending"); Ok(()) }
    }
}

async fn work(flags: &Flags) -> anyhow::Result<()> {
    let Flags { kubeconfig, lease_namespace, log_format: _ } = flags;
    let mut cluster = KubeCluster::connect(kubeconfig.as_deref(), lease_namespace).await?;
    info!(version = env!("CARGO_PKG_VERSION"), %lease_namespace, "lamina-operator starts");
    let mut memory = Memory::default();
    let mut failures = 0;
    while !cluster.is_complete() {
        cluster.changed().await;
    }
    info!("the caches are complete");
    loop {
        let result = pass(&mut memory, &mut cluster, Timestamp::now()).await;
        failures = if result.is_ok() { 0 } else { failures + 1 };
        let pause = pause(&result, failures, Timestamp::now());
        match result {
            // While the server is away, news do not make it answer sooner.
            Err(error) => {
                warn!(%error, pause_seconds = pause.as_secs_f32(), "trying again");
                sleep(pause).await;
            }
            Ok(_) => {
                tokio::select! {
                    () = cluster.changed() => sleep(DEBOUNCE).await,
                    () = sleep(pause) => {}
                }
            }
        }
    }
}

/// How long to wait for news before looking again anyway.
fn pause(result: &Result<PassSummary, ClusterError>, failures: u32, now: Timestamp) -> Duration {
    let summary = match result {
        Ok(summary) => summary,
        Err(_) => return (DEBOUNCE * 2u32.saturating_pow(failures.min(10))).min(LONGEST_PAUSE) + jitter(now, DEBOUNCE),
    };
    let until = |moment: Timestamp| Duration::try_from(moment.duration_since(now)).unwrap_or_default();
    let silence = summary.wake_at.map(until);
    let conflict = (summary.conflicts > 0).then_some(AFTER_CONFLICT);
    let refusal = (summary.refusals > 0).then_some(AFTER_REFUSAL);
    let recheck = Some(RECHECK + jitter(now, RECHECK));
    [silence, conflict, refusal, recheck].into_iter().flatten().min().unwrap_or(RECHECK)
}

/// A part of `most` that differs from process to process and from time to time.
fn jitter(now: Timestamp, most: Duration) -> Duration {
    let spread = u128::try_from(now.subsec_nanosecond()).unwrap_or(0) ^ (u128::from(std::process::id()) << 12);
    Duration::from_millis(u64::try_from(spread % most.as_millis().max(1)).unwrap_or(0))
}
