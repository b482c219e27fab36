//! The operator as a program: flags, log, signals and the clock around `controller::pass`.

#![expect(clippy::disallowed_methods, reason = "this file reads the clock for decisions that take it as `now`")]

use std::io::IsTerminal;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use jiff::Timestamp;
use kube::Client;
use lamina_crds::Term;
use lamina_endpoint::catalog::OPERATOR_PASS_SECONDS;
use lamina_endpoint::{Health, Listen, Readings};
use lamina_operator::cluster::{Cluster, ClusterError};
use lamina_operator::controller::{PassSummary, pass};
use lamina_operator::election::Tenure;
use lamina_operator::flags::{Command, Flags, LogFormat};
use lamina_operator::kube_cluster::teardown::teardown;
use lamina_operator::kube_cluster::{KubeCluster, Pen, configuration};
use lamina_operator::leadership::{Candidacy, Farewell, Leadership};
use lamina_operator::memory::Memory;
use lamina_operator::readings::{self, Counts};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;
use tokio::time::sleep;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long news are collected before a pass.
const DEBOUNCE: Duration = Duration::from_millis(150);
/// How long after a write that came too late the next pass looks again, if no news come first.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
/// How long after a refused write it is tried again.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);
/// The slow re-check behind every event source; a random part of up to the same length comes on top.
const RECHECK: Duration = Duration::from_secs(180);
/// How long the operator may work without a rest: every call of a pass has its own deadline, and a first pass may write to
/// every host.
const LONGEST_WORK: Duration = Duration::from_secs(900);
/// The longest pause between tries while the API server does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    start_log(flags.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    LocalSet::new().block_on(&runtime, async {
        match flags.command {
            Some(Command::Teardown { deadline }) => {
                let config = configuration(flags.kubeconfig.as_deref()).await?;
                let client = Client::try_from(config).context("build the client of the API server")?;
                teardown(client, Duration::from_secs(deadline)).await
            }
            None => run(flags).await,
        }
    })
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
    let Flags { command: _, kubeconfig, lease_namespace, lease_name, identity, listen, log_format: _ } = &flags;
    let config = configuration(kubeconfig.as_deref()).await?;
    let candidacy = Candidacy {
        namespace: lease_namespace.clone(),
        name: lease_name.clone(),
        identity: format!("{identity}_{:x}", Timestamp::now().as_nanosecond()),
    };
    let leadership = Leadership::seek(&config, candidacy)?;
    let cluster = KubeCluster::start(config, lease_namespace, leadership.tenure())?;
    info!(version = VERSION, %lease_namespace, "lamina-operator starts");
    let pen = cluster.pen();
    let ending = Rc::new(Notify::new());
    tokio::task::spawn_local(listen_for_the_end(Rc::clone(&pen), Rc::clone(&ending))?);
    work(cluster, &leadership, &ending, Watchers::of(*listen)).await;
    // The last write has ended, one way or another.
    leadership.resign(if pen.has_unanswered() { Farewell::RunOut } else { Farewell::HandBack });
    Ok(())
}

/// At the first signal no write begins any more; the second one waits for nothing.
fn listen_for_the_end(pen: Rc<Pen>, ending: Rc<Notify>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => info!("SIGTERM: ending"),
                _ = interrupt.recv() => info!("SIGINT: ending"),
            }
            if pen.is_down() {
                std::process::exit(1);
            }
            pen.put_down();
            ending.notify_one();
        }
    })
}

/// Makes passes whenever something happened and this operator leads, until it is to end.
async fn work(mut cluster: KubeCluster, leadership: &Leadership, ending: &Notify, mut watchers: Watchers) {
    let (pen, mut right) = (cluster.pen(), leadership.tenure());
    let mut state = State::default();
    while !pen.is_down() {
        watchers.health.works();
        let pause = look(&mut cluster, leadership, &mut state, &mut watchers).await;
        watchers.health.rests(pause);
        // While the server is away, news do not make it answer sooner.
        let is_deaf = state.failures > 0;
        tokio::select! {
            () = cluster.changed(), if !is_deaf => sleep(DEBOUNCE).await,
            () = of_another_term(&mut right, state.term) => {}
            () = sleep(pause) => {}
            () = ending.notified() => {}
        }
    }
}

/// What the program remembers between two looks.
#[derive(Default)]
struct State {
    memory: Memory,
    term: Option<Term>,
    failures: u32,
}

/// Waits until this operator leads in another term than this one, or leads no more.
async fn of_another_term(right: &mut watch::Receiver<Option<Tenure>>, term: Option<Term>) {
    if right.wait_for(|tenure| tenure.map(|tenure| tenure.term) != term).await.is_err() {
        std::future::pending().await
    }
}

/// One look: a pass, if this operator leads and knows everything. Says when to look again.
async fn look(
    cluster: &mut KubeCluster,
    leadership: &Leadership,
    state: &mut State,
    watchers: &mut Watchers,
) -> Duration {
    if !cluster.is_complete() {
        return RECHECK;
    }
    watchers.health.lacks(None);
    leadership.note(cluster.snapshot().highest_term());
    let term = leadership.tenure().borrow().map(|tenure| tenure.term);
    if state.term != term {
        *state = State { term, ..State::default() };
    }
    let Some(term) = term else {
        watchers.tell_of_waiting();
        return RECHECK;
    };
    let begin = tokio::time::Instant::now();
    let result = pass(&mut state.memory, cluster, term, Timestamp::now()).await;
    watchers.tell_of_pass(&result, begin.elapsed(), term, &mut state.memory, cluster);
    let is_failure = matches!(result, Err(ClusterError::Unavailable { .. }));
    state.failures = if is_failure { state.failures + 1 } else { 0 };
    let pause = pause(&result, state.failures, Timestamp::now());
    if let Err(error) = result {
        warn!(%error, pause_seconds = pause.as_secs_f32(), "looking again later");
    }
    pause
}

/// Those who ask the operator how it is.
struct Watchers {
    health: Health,
    readings: Readings,
    counts: Counts,
}

impl Watchers {
    /// Answers from now on.
    fn of(listen: Listen) -> Self {
        let mut registry = Registry::default();
        let readings = Readings::of(OPERATOR_PASS_SECONDS, &mut registry);
        let health = Health::beginning(LONGEST_WORK, "the API server has not told everything yet");
        lamina_endpoint::serve(listen, health.clone(), registry, lamina_endpoint::Looks::none());
        let watchers = Self { health, readings, counts: Counts::default() };
        watchers.tell_of_waiting();
        watchers
    }

    /// Another one leads, or nobody does yet.
    fn tell_of_waiting(&self) {
        self.readings.replace(readings::own(VERSION, self.counts, None));
    }

    /// A pass is over; what it wrote is told of already.
    fn tell_of_pass(
        &mut self,
        result: &Result<PassSummary, ClusterError>,
        took: Duration,
        term: Term,
        memory: &mut Memory,
        cluster: &KubeCluster,
    ) {
        self.counts.add(result);
        self.readings.took(took);
        let now = Timestamp::now();
        let view = memory.refresh(cluster.snapshot(), now);
        let view = memory.decode(&view);
        let violations = result.as_ref().map_or(0, |summary| summary.violations.len());
        let mut told = readings::own(VERSION, self.counts, Some(term));
        told.extend(readings::of_cluster(&view, violations, now));
        self.readings.replace(told);
    }
}

/// How long to wait for news before looking again anyway.
fn pause(result: &Result<PassSummary, ClusterError>, failures: u32, now: Timestamp) -> Duration {
    let summary = match result {
        Ok(summary) => summary,
        Err(ClusterError::NotLeading { .. }) => return AFTER_CONFLICT,
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
