//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lamina_crds::seconds::Seconds;
use lamina_crds::{CpuSet, TopologyName};

/// Looks at machines, says where slices go, tells how a cluster's hosts are, and runs one host without a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-lamina",
    bin_name = "kubectl lamina",
    version,
    after_help = "Exit codes: 0 done, 1 error or something is infeasible, 2 of plan: something would change, of local, \
                  status and verify: something is not as asked."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Whether colours are written; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, global = true, value_name = "WHEN")]
    pub color: ColorChoice,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// What a machine is: packages, NUMA nodes, caches, cores, threads, devices.
    Hardware(HardwareArguments),
    /// Which CPUs and memory nodes the slices of topologies get on each host, and what would move.
    #[command(after_help = "Exit codes: 0 nothing would change, 2 something would change, 1 error or infeasible.")]
    Plan(PlanArguments),
    /// Places requests on machines, one JSON object per line in, one answer per line out.
    #[command(after_help = PLACE_HELP)]
    Place(PlaceArguments),
    /// Draws a machine, with every CPU in the colour and letter of its slice.
    Map(MapArguments),
    /// Turns hand-written unit files into a SliceTopology, and tells what in them never had an effect.
    #[command(after_help = "Exit codes: 0 the topology can be applied, 1 error or something is missing in it.")]
    Import(ImportArguments),
    /// How the topologies, hosts, slices and services of a cluster stand, since when, and what to do.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArguments),
    /// Whether a host is as asked: asked, systemd's property and the kernel side by side, measured now.
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArguments),
    /// What slices and services of a host use: CPUs, memory, tasks.
    #[command(after_help = TOP_HELP)]
    Top(TopArguments),
    /// Runs topologies on this host, with no cluster: places, applies and measures, once or for as long as you watch.
    #[cfg(all(feature = "local", target_os = "linux"))]
    #[command(after_help = LOCAL_HELP)]
    Local(LocalArguments),
    /// A script that lets a shell complete the words of `kubectl-lamina`.
    #[command(after_help = COMPLETION_HELP)]
    Completion(CompletionArguments),
    /// A page of the manual, as man(1) reads it: `kubectl lamina manual status | man -l -`.
    Manual(ManualArguments),
    /// What kubectl asks for when it completes words after `kubectl lamina`.
    #[command(name = "__complete", hide = true)]
    Complete(CompleteArguments),
}

#[cfg(all(feature = "local", target_os = "linux"))]
const LOCAL_HELP: &str = "\
The host keeps what it holds: topologies that are not given stay, what runs stays where it is, and a second run does
nothing. State, lock and unit files are those of the node-agent: it can take the host over without a restart, and
while it runs this command refuses. Needs root.
Exit codes: 0 everything asked is true and measured, 2 something is not, or not yet, 1 error or refused, nothing changed;
of --dry-run: 0 nothing would change, 2 something would, 1 error, or something asked could not be done.";

const STATUS_HELP: &str = "\
Names: a topology, a host, or the unit of a slice or service. A kind may stand before them, as for kubectl: host host-7,
host/host-7, slice control, service/api. Without names: all topologies, and every host on which not all is well.
Exit codes: 0 everything is as asked, as far as it can be; 2 something is not, or not yet; 1 error.";

const COMPLETION_HELP: &str = "\
bash: source <(kubectl-lamina completion bash)
zsh:  source <(kubectl-lamina completion zsh)
fish: kubectl-lamina completion fish | source
For `kubectl lamina` itself, kubectl runs a program called kubectl_complete-lamina, if it is on the PATH; the package brings
it, elsewhere two lines do: #!/bin/sh and exec kubectl-lamina __complete \"$@\".";

const VERIFY_HELP: &str = "\
Without HOST this machine is measured: no cluster is asked, no agent needs to run. A HOST of a cluster is measured by its
agent, asked through the API server; that needs the right to get pods and pods/proxy in Lamina's namespace. Where it cannot
be asked, as on a host whose agent is no pod, what it said last in its HostState is told, and when it was heard.
Exit codes: 0 everything is as asked; 2 something differs, or nobody knows; 1 error.";

const TOP_HELP: &str = "\
Without HOST this machine is looked at: no cluster is asked, no agent needs to run. A HOST of a cluster is looked at by its
agent, asked through the API server; that needs the right to get pods and pods/proxy in Lamina's namespace.
CPU is the number of CPUs kept busy between two looks, OF the number of CPUs there are; MEMORY counts page cache, too.
Exit codes: 0 done; 1 error.";

const PLACE_HELP: &str = r#"A line: {"machine": MACHINE, "requests": [SLICE, ...], "running": {"NAME": "CPUS"}, "id": ANYTHING}
  MACHINE is what `hardware -o json` prints, or a shape: {"packages": 2, "nodesPerPackage": 1, "l3PerNode": 12,
  "coresPerL3": 8, "threadsPerCore": 2, "numbering": "Alternating", "memoryPerNode": "384Gi", "offline": "3"};
  every part of a shape may be left out. A SLICE is written as in spec.slices of a SliceTopology.
An answer: {"id", "status", "gap", "cpus": {"NAME": "CPUS"}, "memoryNodes", "degraded", "moves", "objective",
  "microseconds"}, or {"line", "id", "error"} in its place.
Exit codes: 0 every line is answered, 1 some line was an error."#;

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts.
    Json,
    /// For scripts and people.
    Yaml,
}

/// How an answer about a cluster is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WideFormat {
    /// For people.
    #[default]
    Table,
    /// For people, with everything that is known.
    Wide,
    /// For scripts.
    Json,
    /// For scripts and people.
    Yaml,
}

impl WideFormat {
    /// The form of the answer if a program reads it.
    pub fn for_programs(self) -> Option<Format> {
        match self {
            Self::Table | Self::Wide => None,
            Self::Json => Some(Format::Json),
            Self::Yaml => Some(Format::Yaml),
        }
    }

    /// How much of it people read.
    pub fn detail(self) -> Detail {
        match self {
            Self::Wide => Detail::Wide,
            Self::Table | Self::Json | Self::Yaml => Detail::Short,
        }
    }
}

/// How much is told to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What most come for.
    Short,
    /// Everything that is known.
    Wide,
}

/// When colours are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which cluster kubectl is asked about.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArguments {
    /// The context of the kubeconfig, as for kubectl.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig, as for kubectl.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The user to act as, as for kubectl.
    #[arg(long = "as", value_name = "USER")]
    pub impersonated: Option<String>,
    /// The namespace of Lamina's release, where agents and their Leases are.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "lamina-system")]
    pub namespace: String,
}

/// What `status` is told.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// What is asked for; without it, everything.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Tells it again whenever something changes.
    #[arg(short, long)]
    pub watch: bool,
    /// The form of the answer; wide: with slices, services and conditions.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: WideFormat,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArguments,
}

/// Whom a verb looks at, and how often.
#[derive(Debug, Args)]
pub struct LookArguments {
    /// A host of a cluster; without it, this machine.
    pub host: Option<String>,
    /// Looks again and again.
    #[arg(short, long)]
    pub watch: bool,
    /// The time between two looks.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    pub interval: Seconds,
}

/// What `verify` is told.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Whom to look at.
    #[command(flatten)]
    pub look: LookArguments,
    /// The form of the answer; wide: with services, threads, memory by NUMA node and settings.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: WideFormat,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArguments,
}

/// What `top` is told.
#[derive(Debug, Args)]
pub struct TopArguments {
    /// Whom to look at.
    #[command(flatten)]
    pub look: LookArguments,
    /// The form of the answer; wide: with every limit, the CPUs, and how much tasks waited.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: WideFormat,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArguments,
}

/// What `completion` is told.
#[derive(Debug, Args)]
pub struct CompletionArguments {
    /// The shell.
    #[arg(value_enum)]
    pub shell: ShellChoice,
}

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShellChoice {
    /// GNU Bourne-Again Shell.
    Bash,
    /// Z shell.
    Zsh,
    /// Friendly interactive shell.
    Fish,
}

/// What `manual` is told.
#[derive(Debug, Args)]
pub struct ManualArguments {
    /// The verb; without it, the page about all of them.
    pub verb: Option<String>,
}

/// What kubectl asks.
#[derive(Debug, Args)]
pub struct CompleteArguments {
    /// The words so far; the last one is to be completed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// What `hardware` is told.
#[derive(Debug, Args)]
pub struct HardwareArguments {
    /// A sysfs tree, lstopo XML, a HostState or `hardware -o json`; `-` reads standard input; without it, this machine.
    pub path: Option<PathBuf>,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What `plan` is told.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// Files with SliceTopologies.
    #[arg(short = 'f', long = "filename", value_name = "TOPOLOGY", required = true)]
    pub topologies: Vec<PathBuf>,
    /// Sysfs trees, lstopo XML, HostStates (one, many or a list) or `hardware -o json`. A HostState also tells what runs.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub hardware: Vec<PathBuf>,
    /// What runs now: HostStates, or an earlier plan as JSON or YAML. It replaces what the HostStates of --hardware say.
    #[arg(long, value_name = "FILE")]
    pub current: Option<PathBuf>,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What `place` is told.
#[derive(Debug, Args)]
pub struct PlaceArguments {
    /// Answer each line with one line of JSON, as soon as it is read.
    #[arg(long, conflicts_with = "output")]
    pub jsonl: bool,
    /// A file with JSON lines; without it, standard input.
    pub path: Option<PathBuf>,
    /// The form of all answers together, without --jsonl.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What `map` is told.
#[derive(Debug, Args)]
pub struct MapArguments {
    /// A sysfs tree, lstopo XML, a HostState or `hardware -o json`; `-` reads standard input; without it, this machine.
    pub path: Option<PathBuf>,
    /// SliceTopologies to place on it.
    #[arg(short = 'f', long = "filename", value_name = "TOPOLOGY", conflicts_with = "placement")]
    pub topologies: Vec<PathBuf>,
    /// Who is where: a HostState, or a plan as JSON or YAML.
    #[arg(long, value_name = "FILE")]
    pub placement: Option<PathBuf>,
    /// Draw SVG instead of text.
    #[arg(long)]
    pub svg: bool,
    /// The surroundings of an SVG drawing.
    #[arg(long, value_enum, default_value_t)]
    pub theme: ThemeChoice,
    /// The widest drawing: characters (the terminal's width, else 80), or pixels with --svg (1280).
    #[arg(long, value_name = "N")]
    pub width: Option<usize>,
    /// The form of the answer; json and yaml list every CPU's use instead of drawing it.
    #[arg(short, long, value_enum, default_value_t, conflicts_with = "svg")]
    pub output: Format,
}

/// What `import` is told.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// The directory with .slice and .service files, and NAME.d directories of drop-ins.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The topology's name; without it, what all units begin with.
    #[arg(long)]
    pub name: Option<TopologyName>,
    /// CPUs of a slice, in place of those its files name, such as control=0-7.
    #[arg(long = "cpus", value_name = "SLICE=LIST", value_parser = cpus_of_slice)]
    pub cpus: Vec<(String, CpuSet)>,
    /// Write adoption: Replace, so that the topology takes the place of these files where they are installed.
    #[arg(long)]
    pub replace: bool,
    /// table: the topology on standard output, what is to be known of it on standard error; json and yaml: both together.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What `local` is told.
#[cfg(all(feature = "local", target_os = "linux"))]
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false).args(["topologies", "remove", "release", "keep"]))]
pub struct LocalArguments {
    /// Files with SliceTopologies to run here.
    #[arg(short = 'f', long = "filename", value_name = "TOPOLOGY")]
    pub topologies: Vec<PathBuf>,
    /// Stops the services of these topologies in order, and removes everything of them.
    #[arg(long, value_name = "NAME")]
    pub remove: Vec<String>,
    /// Lets these topologies go: they keep running as they are, pinned, and are not enforced any more.
    #[arg(long, value_name = "NAME")]
    pub release: Vec<String>,
    /// Asks for nothing new: puts right and measures what this host holds.
    #[arg(long)]
    pub keep: bool,
    /// A label of this host. If any is given, only topologies whose hostSelector means these labels are run; without, all.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label, requires = "topologies")]
    pub label: Vec<(String, String)>,
    /// The host's name, as `valueFrom: { resource: HostName }` gives it; if not given, this machine's.
    #[arg(long, value_name = "NAME")]
    pub host_name: Option<String>,
    /// Goes on until it is ended: heals what others change as soon as they do, and follows CPUs that come and go. Files are
    /// read once.
    #[arg(long, conflicts_with_all = ["dry_run", "output"])]
    pub watch: bool,
    /// Only says what would be done, and what that costs: live, reload, restart, recreate.
    #[arg(long)]
    pub dry_run: bool,
    /// Runs a host that follows the HostState of a cluster, which it leaves thereby.
    #[arg(long)]
    pub take_over: bool,
    /// How long to wait until everything asked is true.
    #[arg(long, value_name = "TIME", default_value = "2m", conflicts_with = "dry_run")]
    pub timeout: Seconds,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// A pause that is none would only keep everybody busy.
fn interval(text: &str) -> Result<Seconds, String> {
    match text.parse::<Seconds>() {
        Ok(time) if time.get() == 0 => Err("the time between two looks is at least 1s".to_owned()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

fn cpus_of_slice(text: &str) -> Result<(String, CpuSet), String> {
    let (slice, list) = text.split_once('=').ok_or("write SLICE=LIST, such as control=0-7")?;
    let cpus = list.parse().map_err(|error| format!("{list}: {error}"))?;
    Ok((slice.to_owned(), cpus))
}

/// A label as it is written on the command line.
#[cfg(all(feature = "local", target_os = "linux"))]
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("a label is a key and a value; write KEY=VALUE".to_owned()),
    }
}

/// The surroundings of an SVG drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ThemeChoice {
    /// Dark text on light ground.
    #[default]
    Light,
    /// Light text on dark ground.
    Dark,
}
