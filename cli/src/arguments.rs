//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lamina_crds::{CpuSet, TopologyName};

/// Looks at machines and says where slices go, with the operator's own decisions and without a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-lamina",
    bin_name = "kubectl lamina",
    version,
    after_help = "Exit codes: 0 done, 1 error or something is infeasible, and of plan: 2 something would change."
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
}

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

fn cpus_of_slice(text: &str) -> Result<(String, CpuSet), String> {
    let (slice, list) = text.split_once('=').ok_or("write SLICE=LIST, such as control=0-7")?;
    let cpus = list.parse().map_err(|error| format!("{list}: {error}"))?;
    Ok((slice.to_owned(), cpus))
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
