//! The agent as a program: reads its flags, connects the seams to the real host and the real API server, and calls the
//! pass whenever something happened. Decides nothing.

#![expect(clippy::disallowed_methods, reason = "the shell gives every pass its time")]

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use jiff::Timestamp;
use lamina_endpoint::catalog::AGENT_PASS_SECONDS;
use lamina_endpoint::{Health, Listen, Looks, Readings};
use lamina_node_agent::agent::{PassOutcome, pass};
use lamina_node_agent::host::lock::InstanceLock;
use lamina_node_agent::host::real::RealHost;
use lamina_node_agent::kube_cluster::{Access, KubeCluster};
use lamina_node_agent::memory::Memory;
use lamina_node_agent::options::{Command, LogFormat, Options};
use lamina_node_agent::readings::{Counts, readings};
use lamina_node_agent::restore::{Restored, restore};
use lamina_node_agent::survey;
use lamina_node_agent::watch::Watch;
use prometheus_client::registry::Registry;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, info, warn};
use tracing_subscriber::EnvFilter;

/// How long a single pass waits for the API server's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
/// How long the agent may work without a rest: a pass waits up to 300 s for a unit that starts or stops, several times.
const LONGEST_WORK: Duration = Duration::from_secs(1800);
/// How long it rests at most: the slow re-check comes before.
const LONGEST_REST: Duration = Duration::from_secs(360);

fn main() -> ExitCode {
    let options = Options::parse();
    begin_log(options.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.context("start the runtime").and_then(|runtime| runtime.block_on(run(options))) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "agent ends");
            ExitCode::FAILURE
        }
    }
}

fn begin_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // The client would log every failed call as an error; whoever made the call tells what matters of it.
    let silent = "kube_client::client::builder=off".parse().expect("a directive in tracing's own syntax");
    let filter = filter.add_directive(silent);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn run(options: Options) -> anyhow::Result<ExitCode> {
    match &options.command {
        Some(Command::Restore { topology }) => {
            let mut host = RealHost::new(&options.host_root, options.bus_address.clone());
            print_restored(&restore(&mut host, topology).await?);
            Ok(ExitCode::SUCCESS)
        }
        None => serve(options).await,
    }
}

fn print_restored(restored: &Restored) {
    let Restored { files, removed, eased } = restored;
    for path in files {
        println!("put back  {path}");
    }
    for path in removed {
        println!("removed   {path}");
    }
    for unit in eased {
        println!("set live  {unit}: the limits of its former files");
    }
    println!("nothing was stopped; systemctl status shows the former files");
}

async fn serve(options: Options) -> anyhow::Result<ExitCode> {
    let mut ends = Ends::new()?;
    let mut host = RealHost::new(&options.host_root, options.bus_address.clone());
    let _lock = InstanceLock::take(host.root())?;
    let mut watch = Watch::new(host.root(), host.bus_address().to_owned()).context("listen for events of the host")?;
    let access = options.kubeconfig.clone().map_or(Access::InCluster, Access::Kubeconfig);
    let settings = options.settings()?;
    let mut cluster = KubeCluster::start(access, settings.host.clone(), options.lease_namespace.clone());
    let mut memory = Memory::default();
    info!(host = %settings.host, version = %settings.version, capabilities = %host.own_capabilities(), "agent starts");
    if options.once {
        let _ = tokio::time::timeout(FIRST_ANSWER, cluster.changed()).await;
    }
    let looks = survey::looks(&options.host_root, options.bus_address.clone(), &settings.host);
    let mut watchers = Watchers::of(options.listen, &settings.host, looks);
    // Before the first pass: it may wait for services that systemd starts no sooner than this boot goes on.
    tell_systemd(&[NotifyState::Ready]);
    let mut told = String::new();
    loop {
        let calls = host.bus_calls();
        watchers.health.works();
        let begin = tokio::time::Instant::now();
        let outcome = tokio::select! {
            outcome = pass(&mut memory, &mut host, &mut cluster, &settings, Timestamp::now()) => outcome,
            () = ends.next() => return Ok(ExitCode::SUCCESS),
        };
        tell(&outcome, host.bus_calls() - calls);
        tell_standing(&outcome, &mut told);
        watchers.tell(&outcome, begin.elapsed(), host.bus_calls());
        if options.once {
            return Ok(if outcome.ready { ExitCode::SUCCESS } else { ExitCode::from(2) });
        }
        if is_new_to(&mut watch, &host) {
            continue;
        }
        watchers.health.rests(LONGEST_REST);
        tokio::select! {
            wake = watch.next() => debug!(why = %wake, "looking again"),
            () = cluster.changed() => debug!(why = "new instruction", "looking again"),
            () = after(outcome.again_after) => debug!(why = "time", "looking again"),
            () = ends.next() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Whether there are directories that nobody listened to until now. Where the kernel gives no more watches, the slow
/// re-check has to do.
fn is_new_to(watch: &mut Watch, host: &RealHost) -> bool {
    watch.arm(host.topologies()).unwrap_or_else(|error| {
        warn!(error = %error, "not every directory can be watched");
        false
    })
}

fn tell(outcome: &PassOutcome, bus_calls: u64) {
    let PassOutcome { steps, api_writes, ready, problems, heals: _, restarts: _, again_after: _, measured: _ } =
        outcome;
    for problem in problems {
        warn!(problem, "not everything could be done");
    }
    if *steps == 0 {
        debug!(steps, api_writes, bus_calls, ready, "pass is over");
    } else {
        info!(steps, api_writes, bus_calls, ready, "pass is over");
    }
}

/// One line for `systemctl status`, when it says something new.
fn tell_standing(outcome: &PassOutcome, told: &mut String) {
    let standing = match (outcome.problems.first(), outcome.ready) {
        (Some(problem), _) => problem.as_str(),
        (None, true) => "everything asked is true and measured",
        (None, false) => "not everything is as asked",
    };
    if standing != told {
        tell_systemd(&[NotifyState::Status(standing)]);
        standing.clone_into(told);
    }
}

/// Those who ask the agent how it is.
struct Watchers {
    host: String,
    health: Health,
    readings: Readings,
    counts: Counts,
}

impl Watchers {
    /// Answers from now on.
    fn of(listen: Listen, host: &str, looks: Looks) -> Self {
        let mut registry = Registry::default();
        let readings = Readings::of(AGENT_PASS_SECONDS, &mut registry);
        let health = Health::beginning(LONGEST_WORK, "the first pass is not over yet");
        lamina_endpoint::serve(listen, health.clone(), registry, looks);
        Self { host: host.to_owned(), health, readings, counts: Counts::default() }
    }

    /// A pass is over. Ready is who can look at the host, whatever is found there: that is told elsewhere.
    fn tell(&mut self, outcome: &PassOutcome, took: Duration, bus_calls: u64) {
        let measured = outcome.measured.as_ref();
        self.health
            .lacks(measured.is_none().then_some("the last pass could not look at the host; see the agent's log"));
        self.counts.add(outcome);
        self.readings.took(took);
        self.readings.replace(readings(&self.host, self.counts, bus_calls, measured));
    }
}

/// Speaks to the systemd that started the agent, if one did and wants to hear it.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(error = %error, "systemd is not told");
    }
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// The signals that end the agent. Nothing needs to be tidied up: the host is safe between any two effects.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => info!("agent ends, asked to"),
            _ = self.interrupt.recv() => info!("agent ends, interrupted"),
        }
    }
}
