//! The harness as a program: brings up hosts to play with, runs commands in them, takes them down again.

#![expect(clippy::disallowed_methods, reason = "it reads the files that people put into hosts")]

use std::{
    io::IsTerminal,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lamina_e2e::{
    bench,
    cache::Cache,
    demo::{self, Story},
    fleet::example::HOST,
    host::{
        Host, Layout,
        frame::Kind,
        keeper::{self, Start},
        machine::Machine,
        quoted, snapshot,
    },
    image::{Purpose, Suite, root},
    lab::{Lab, LabSpec},
    relay,
};

/// The name of the demo's lab.
const DEMO: &str = "demo";

/// Labs for Lamina: a real control plane, and emulated machines with a real systemd.
#[derive(Parser)]
#[command(name = "lamina-lab", version)]
struct Arguments {
    /// The folder of all labs [default: ~/.local/state/lamina-lab]
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    /// The lab's name; labs with different names run side by side
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a lab
    Up(Shape),
    /// Run a command in a host, with its output and exit code
    Exec {
        /// The host's name, such as host-1
        host: String,
        /// Seconds after which the command is ended
        #[arg(long, default_value_t = 3600)]
        limit: u64,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Copy a file of this machine into a host
    Put {
        /// The host's name, such as host-1
        host: String,
        /// The file on this machine
        file: PathBuf,
        /// Its path in the host
        path: String,
    },
    /// Show what runs
    Status,
    /// End everything that `up` started, and forget it
    Down,
    /// Run kubectl as an administrator of the lab
    Kubectl {
        /// kubectl's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Print where the administrator's kubeconfig is
    Kubeconfig,
    /// Tell the story of one machine, from nothing
    Demo(Shape),
    /// Remove what an interrupted demo left
    DemoDown,
    /// Measure what Lamina costs, and how fast it is compared to a shell script
    Bench {
        /// bookworm (systemd 252) or trixie (systemd 257)
        #[arg(long, default_value_t = Suite::Bookworm)]
        suite: Suite,
        /// How many fresh hosts the agent and each script get
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Renew the tokens of a lab until it is taken down
    #[command(hide = true)]
    Tend,
    /// Build what `up` needs and is not cached yet
    Image(Shape),
    /// Connect standard input and output to a port of this machine (hosts reach their API server through it)
    #[command(hide = true)]
    Relay {
        /// The port
        port: u16,
    },
    /// Keep the machine of the current folder running until it is switched off
    #[command(hide = true)]
    Keep {
        /// How it starts for the first time
        start: Start,
    },
}

#[derive(clap::Args)]
struct Shape {
    /// How many hosts
    #[arg(long, default_value_t = 1)]
    hosts: u32,
    /// How many CPUs a host has; without --numa they are all on one node
    #[arg(long)]
    cpus: Option<u32>,
    /// The CPUs of each NUMA node, as in 0-7,16-19/8-15
    #[arg(long)]
    numa: Option<Layout>,
    /// bookworm (systemd 252) or trixie (systemd 257)
    #[arg(long, default_value_t = Suite::Bookworm)]
    suite: Suite,
    /// The memory of each NUMA node, in MiB
    #[arg(long, default_value_t = 1536)]
    node_memory: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lamina-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { state, name, verb }: Arguments) -> Result<ExitCode> {
    let state = state.map_or_else(Lab::default_state, Ok)?;
    // Hosts are started from other folders.
    let state = std::path::absolute(&state).with_context(|| format!("resolving {}", state.display()))?;
    let lab = Lab::new(&state, &name)?;
    match verb {
        Verb::Up(shape) => up(&lab, shape).await?,
        Verb::Exec { host, limit, command } => return exec(&lab, &host, Duration::from_secs(limit), &command).await,
        Verb::Put { host, file, path } => put(&lab, &host, &file, &path).await?,
        Verb::Status => status(&lab).await?,
        Verb::Down => lab.take_down().await?,
        Verb::Kubectl { arguments } => return kubectl(&lab, &arguments).await,
        Verb::Kubeconfig => println!("{}", lab.fleet().await?.control_plane.kubeconfig_admin().display()),
        Verb::Demo(shape) => demo(&Lab::new(&state, DEMO)?, shape).await?,
        Verb::DemoDown => Lab::new(&state, DEMO)?.take_down().await?,
        Verb::Bench { suite, rounds } => bench::bench(suite, rounds).await?,
        Verb::Tend => lab.tend().await?,
        Verb::Image(shape) => image(shape).await?,
        // The guest would take what is said here for the server's words; the closed connection says enough.
        Verb::Relay { port } => return Ok(relay::relay(port).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)),
        Verb::Keep { start } => keeper::keep(&std::env::current_dir().context("finding the machine")?, start)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn up(lab: &Lab, shape: Shape) -> Result<()> {
    let (cache, spec) = (Cache::open()?, shape.lab()?);
    interruptible(lab, async { lab.up(&cache, &spec).await.map(drop) }).await?;
    status(lab).await
}

/// Takes the lab down when the work fails or somebody presses Ctrl-C.
async fn interruptible(lab: &Lab, work: impl Future<Output = Result<()>>) -> Result<()> {
    let outcome = tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if outcome.is_err() {
        lab.take_down().await?;
    }
    outcome
}

/// Tells the story; on a terminal the lab stays until Ctrl-C, without one it goes at the end.
async fn demo(lab: &Lab, shape: Shape) -> Result<()> {
    let (cache, spec) = (Cache::open()?, shape.lab()?);
    let told = async {
        let mut story = Story::begin();
        story.title("A machine with two NUMA nodes appears");
        let mut fleet = lab.up(&cache, &spec).await?;
        story.step(&format!("{} with {} CPUs and its agent run under Lamina's operator", HOST, spec.layout.cpus()));
        demo::tell(&mut fleet, lab).await
    };
    interruptible(lab, told).await?;
    if std::io::stdout().is_terminal() {
        println!("\nCtrl-C removes everything.");
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
    }
    lab.take_down().await
}

/// Runs kubectl as an administrator of the lab, with this terminal.
async fn kubectl(lab: &Lab, arguments: &[String]) -> Result<ExitCode> {
    let fleet = lab.fleet().await?;
    let mut command = std::process::Command::new(fleet.control_plane.kubectl_path());
    let status = command.args(arguments).env("KUBECONFIG", fleet.control_plane.kubeconfig_admin()).status();
    let code = status.context("running kubectl")?.code();
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

async fn exec(lab: &Lab, host: &str, limit: Duration, command: &[String]) -> Result<ExitCode> {
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    // One word is a script, several are a command.
    let script = if let [script] = command { script.clone() } else { words.join(" ") };
    let print = |kind, piece: &[u8]| {
        // A reader that has gone is no reason to end the command.
        let _ = match kind {
            Kind::Err => std::io::stderr().write_all(piece),
            _ => std::io::stdout().write_all(piece).and_then(|()| std::io::stdout().flush()),
        };
    };
    let code = lab.host(host)?.exec_to(&script, limit, Box::new(print)).await?;
    // Shells report a signal as 128 and its number.
    let code = if code < 0 { 128 - code } else { code };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn put(lab: &Lab, host: &str, file: &Path, path: &str) -> Result<()> {
    let content = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let mode = std::fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.permissions().mode();
    lab.host(host)?.put(path, mode & 0o777, content).await
}

async fn status(lab: &Lab) -> Result<()> {
    let mut fleet = lab.fleet().await?;
    println!("lab {} in {}", lab.name(), lab.folder().display());
    println!("{:14} https://127.0.0.1:{}", "API server", fleet.control_plane.port());
    println!("{:14} {}", "kubeconfig", fleet.control_plane.kubeconfig_admin().display());
    for (name, host) in &mut fleet.hosts {
        let state = if host.is_running() { "running" } else { "off" };
        let spec = host.spec();
        println!("{name:14} {state}, {}, CPUs {}", spec.suite.name(), spec.layout);
    }
    Ok(())
}

async fn image(shape: Shape) -> Result<()> {
    let cache = Cache::open()?;
    let LabSpec { hosts: _, suite, layout, node_mebibytes } = shape.lab()?;
    root::root(&cache, suite, Purpose::Plain).await?;
    snapshot::snapshot(&cache, suite, Purpose::Plain, &Machine { layout, node_mebibytes }).await?;
    Ok(())
}

impl Shape {
    fn lab(self) -> Result<LabSpec> {
        let Self { hosts, cpus, numa, suite, node_memory } = self;
        let layout = match (cpus, numa) {
            (None, None) => Layout::twenty(),
            (Some(cpus), None) => format!("0-{}", cpus.saturating_sub(1)).parse().map_err(anyhow::Error::msg)?,
            (None, Some(numa)) => numa,
            (Some(cpus), Some(numa)) if numa.cpus() == cpus as usize => numa,
            (Some(cpus), Some(numa)) => anyhow::bail!("--numa {numa} names {} CPUs and --cpus {cpus}", numa.cpus()),
        };
        Ok(LabSpec { hosts, suite, layout, node_mebibytes: node_memory })
    }
}
