//! Conducts the verb `local`: this host without a cluster, resolved by the operator's code, applied and measured by the
//! agent's, once or for as long as somebody watches. Same state, lock and markers as the agent.

#![expect(clippy::disallowed_methods, reason = "gives every pass its time, and waits")]

pub mod answer;
pub mod journal;
pub mod single_host;
pub mod told;
pub mod wish;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use lamina_crds::host_state::{AgentForm, EntryState};
use lamina_crds::{Hardware, TopologyName};
use lamina_node_agent::accept::Accepted;
use lamina_node_agent::agent::{PassOutcome, Settings, pass};
use lamina_node_agent::foresight::{Foresight, foresee, recalled};
use lamina_node_agent::host::Host;
use lamina_node_agent::host::lock::InstanceLock;
use lamina_node_agent::host::real::RealHost;
use lamina_node_agent::memory::Memory;
use lamina_node_agent::watch::Watch;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::arguments::{Format, LocalArguments};
use crate::drawing::Colour;
use crate::formatted::formatted;
use crate::outcome::Outcome;
use crate::plan::{Entries, HostPlan};
use crate::{source, terminal};
use answer::{Answer, Verdict, is_under_way, slice_rows, step_rows, topology_rows};
use journal::Journal;
use single_host::SingleHost;
use wish::{Instruction, Ownership, Wish, instruct, selected};

/// Removals that are confirmed are forgotten, CPUs come and go: so often a pass is followed by another for that.
const MOST_AMENDMENTS: usize = 4;

/// Does what the command line asks of this host.
///
/// # Errors
/// Names what could not be read, what is refused, or who works on this host already.
pub fn run(arguments: &LocalArguments, colour: Colour) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(conduct(arguments, colour))
}

async fn conduct(arguments: &LocalArguments, colour: Colour) -> Result<Outcome> {
    let order = Order::read(arguments)?;
    if !rustix::process::geteuid().is_root() {
        bail!("running this host needs root; call it with sudo");
    }
    let listener = if arguments.output == Format::Table { terminal::progress } else { |_: &str, _: &str| {} };
    let mut host = Journal::new(RealHost::new("/", None), listener);
    if arguments.dry_run {
        let (answer, outcome) = look_ahead(&order, &mut host).await?;
        return show(arguments, colour, &answer).map(|()| outcome);
    }
    let _lock = InstanceLock::take(host.host.root()).context("work on this host")?;
    let mut ends = Ends::new()?;
    let mut run = Run::begin(order, host).await?;
    let outcome = run.settle(Duration::from_secs(arguments.timeout.get().into()), &mut ends).await;
    let answer = run.answer(&outcome).await?;
    show(arguments, colour, &answer)?;
    if arguments.watch {
        run.watch(&mut ends).await?;
        return Ok(Outcome::Done);
    }
    Ok(if answer.verdict == Verdict::AsAsked { Outcome::Done } else { Outcome::Changes })
}

fn show(arguments: &LocalArguments, colour: Colour, answer: &Answer) -> Result<()> {
    let text = match arguments.output {
        Format::Table => told::told(answer, terminal::width(), colour),
        format => formatted(format, answer)?,
    };
    terminal::print(&text).context("write the answer").map(drop)
}

/// What the command line says, read and understood.
struct Order {
    host: String,
    wish: Wish,
    ownership: Ownership,
    not_selected: Vec<TopologyName>,
}

impl Order {
    fn read(arguments: &LocalArguments) -> Result<Self> {
        let LocalArguments { topologies, remove, release, label, host_name, take_over, .. } = arguments;
        let names = |texts: &[String]| -> Result<Vec<TopologyName>> {
            texts.iter().map(|text| TopologyName::new(text).with_context(|| format!("topology {text}"))).collect()
        };
        let mut not_selected = Vec::new();
        let wish = match (topologies.as_slice(), remove.as_slice(), release.as_slice()) {
            ([], [], []) => Wish::Keep,
            ([], [], release) => Wish::Part { topologies: names(release)?, state: EntryState::Released },
            ([], remove, _) => Wish::Part { topologies: names(remove)?, state: EntryState::Absent },
            (paths, _, _) => {
                let labels = label.iter().cloned().collect();
                let (meant, others) = selected(source::topologies(paths)?, &labels);
                not_selected = others;
                Wish::Run(meant)
            }
        };
        let host = host_name.clone().unwrap_or_else(|| source::host_name(Path::new("/")));
        let ownership = if *take_over { Ownership::TakeOver } else { Ownership::Respect };
        Ok(Self { host, wish, ownership, not_selected })
    }

    fn instruct(&self, hardware: &Hardware, accepted: &Accepted) -> Result<Instruction, wish::Refused> {
        instruct(&self.host, hardware, accepted, &self.wish, self.ownership)
    }

    fn topologies(&self) -> &[crate::document::Topology] {
        match &self.wish {
            Wish::Run(topologies) => topologies,
            Wish::Keep | Wish::Part { .. } => &[],
        }
    }

    fn answer(&self, verdict: Verdict, message: String, plan: Option<HostPlan>) -> Answer {
        Answer {
            api_version: "lamina.dev/v1alpha1",
            kind: "LocalRun",
            host: self.host.clone(),
            verdict,
            message,
            not_selected: self.not_selected.clone(),
            plan,
            steps: Vec::new(),
            done: BTreeMap::new(),
            slices: Vec::new(),
            topologies: Vec::new(),
        }
    }
}

async fn look_ahead(order: &Order, host: &mut impl Host) -> Result<(Answer, Outcome)> {
    let accepted = recalled(host).await?;
    let hardware = host.hardware().await?;
    let Instruction { entries, plan } = order.instruct(&hardware, &accepted)?;
    let cluster = SingleHost::new(&accepted, &entries);
    let seen = foresee(host, &hardware, &accepted, cluster.object()).await?;
    let hindrances = hindrances(&seen);
    let kept: Entries = accepted.entries.iter().map(|(name, kept)| (name.clone(), kept.entry.clone())).collect();
    let is_same = seen.plan.steps.is_empty() && entries == kept;
    let (verdict, outcome, message) = match (hindrances.is_empty(), is_same) {
        (false, _) => (Verdict::WouldNotFollow, Outcome::Incomplete, hindrances.join("; ")),
        (true, true) => (Verdict::WouldStay, Outcome::Done, "nothing would change".to_owned()),
        (true, false) => {
            (Verdict::WouldChange, Outcome::Changes, "nothing was changed, this was a look ahead".to_owned())
        }
    };
    let slices = slice_rows(&seen, order.topologies());
    Ok((Answer { steps: step_rows(&seen.plan.steps), slices, ..order.answer(verdict, message, plan) }, outcome))
}

/// What a run would leave undone, in sentences.
fn hindrances(seen: &Foresight) -> Vec<String> {
    let work = &seen.work;
    let unsupported = work.unsupported.iter().map(|refusal| refusal.message.clone());
    let refused = seen.refused.values().map(|refusal| refusal.message.clone());
    let entries = work.held.entries.values().map(|refusal| refusal.message.clone());
    let units = work.held.units.values().map(|refusal| refusal.message.clone());
    unsupported.chain(refused).chain(entries).chain(units).collect()
}

/// This host while it is worked on.
struct Run {
    order: Order,
    host: Journal<RealHost>,
    hardware: Hardware,
    cluster: SingleHost,
    entries: Entries,
    plan: Option<HostPlan>,
    memory: Memory,
    settings: Settings,
    watch: Watch,
    complaint: String,
}

impl Run {
    async fn begin(mut order: Order, mut host: Journal<RealHost>) -> Result<Self> {
        let accepted = recalled(&mut host).await?;
        let hardware = host.hardware().await?;
        let Instruction { entries, plan } = order.instruct(&hardware, &accepted)?;
        let watch = Watch::new(host.host.root(), host.host.bus_address().to_owned());
        let settings =
            Settings { host: order.host.clone(), version: env!("CARGO_PKG_VERSION").to_owned(), form: AgentForm::Host };
        // What was parted with is parted with once.
        if let Wish::Part { .. } = order.wish {
            order.wish = Wish::Keep;
        }
        Ok(Self {
            cluster: SingleHost::new(&accepted, &entries),
            watch: watch.context("listen for events of the host")?,
            memory: Memory::default(),
            complaint: String::new(),
            order,
            host,
            hardware,
            entries,
            plan,
            settings,
        })
    }

    /// Passes until what is asked is done or waits for something.
    async fn pass(&mut self) -> PassOutcome {
        let mut outcome = PassOutcome::default();
        for _ in 0..=MOST_AMENDMENTS {
            let Self { memory, host, cluster, settings, .. } = self;
            outcome = pass(memory, host, cluster, settings, Timestamp::now()).await;
            self.complain(outcome.problems.join("; "));
            if !self.amend() {
                break;
            }
        }
        outcome
    }

    /// Asks for something else where that follows from what the last pass found: a part of the machine came or went, or
    /// what was removed is gone.
    fn amend(&mut self) -> bool {
        let Some(accepted) = &self.memory.accepted else { return false };
        if let Some(hardware) = self.cluster.status().hardware {
            self.hardware = hardware;
        }
        match self.order.instruct(&self.hardware, accepted) {
            Ok(Instruction { entries, plan }) => {
                self.plan = plan;
                let is_new = entries != self.entries;
                if is_new {
                    self.cluster.ask(accepted, &entries);
                    self.entries = entries;
                }
                is_new
            }
            Err(refused) => {
                self.complain(refused.to_string());
                false
            }
        }
    }

    /// Tells a trouble once.
    fn complain(&mut self, complaint: String) {
        if !complaint.is_empty() && complaint != self.complaint {
            eprintln!("kubectl-lamina: {complaint}");
            self.complaint = complaint;
        }
    }

    /// Works until all is as asked, or only a hand from outside helps, or time is up.
    async fn settle(&mut self, limit: Duration, ends: &mut Ends) -> PassOutcome {
        let deadline = Instant::now() + limit;
        loop {
            let outcome = self.pass().await;
            if outcome.ready || !is_under_way(&self.cluster.status()) || Instant::now() >= deadline {
                return outcome;
            }
            if self.hears_more() {
                continue;
            }
            tokio::select! {
                _ = self.watch.next() => {}
                () = after(outcome.again_after) => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = ends.next() => return outcome,
            }
        }
    }

    /// Keeps the host as it is asked to be until somebody ends it, and tells what happens.
    async fn watch(&mut self, ends: &mut Ends) -> Result<()> {
        loop {
            let outcome = self.pass().await;
            for event in self.cluster.news() {
                let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
                terminal::print(&format!("{now} {}: {}\n", event.reason, event.note)).context("tell an event")?;
            }
            if self.hears_more() {
                continue;
            }
            tokio::select! {
                _ = self.watch.next() => {}
                () = after(outcome.again_after) => {}
                () = ends.next() => return Ok(()),
            }
        }
    }

    /// Whether there are directories that nobody listened to until now. Where the kernel gives no more watches, the slow
    /// re-check has to do.
    fn hears_more(&mut self) -> bool {
        let armed = self.watch.arm(self.host.host.topologies());
        armed.unwrap_or_else(|error| {
            self.complain(format!("not every directory can be watched: {error}"));
            false
        })
    }

    async fn answer(&mut self, outcome: &PassOutcome) -> Result<Answer> {
        let accepted = self.memory.accepted.clone().unwrap_or_default();
        let seen = foresee(&mut self.host, &self.hardware, &accepted, self.cluster.object()).await?;
        let topologies = topology_rows(&self.cluster.status());
        let verdict = if outcome.ready { Verdict::AsAsked } else { Verdict::NotAsAsked };
        let message = match (verdict, topologies.is_empty()) {
            (_, true) => "no topology is held".to_owned(),
            (Verdict::AsAsked, false) => lamina_node_agent::report::AS_ASKED.to_owned(),
            _ => "not everything is as asked".to_owned(),
        };
        let slices = slice_rows(&seen, self.order.topologies());
        let done = self.host.deeds().clone();
        let _ = self.cluster.news();
        Ok(Answer { done, slices, topologies, ..self.order.answer(verdict, message, self.plan.clone()) })
    }
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// The signals that end the command. Nothing needs to be tidied up: the host is safe between any two effects.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
