//! Decides whether decoded values keep the rules that span several fields, in the words that the API server's schema
//! uses. The operator asks for topologies, the agent for entries: neither trusts that admission was on.

mod entry;
mod hardware;
mod order;
mod request;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use entry::entry_faults;
pub use hardware::hardware_faults;
pub use topology::topology_faults;

use crate::bytes::Bytes;
use crate::slice_topology::{IoShare, MemoryLimits, ResourceLimits, RestartPolicy, TaskLimits};
use crate::term::Term;
use crate::text::{AbsolutePath, Argument};

/// The most slices of one topology.
pub const MOST_SLICES: usize = 64;
/// The most services of one topology.
pub const MOST_SERVICES: usize = 256;
/// The most words of one command.
pub const MOST_ARGUMENTS: usize = 64;
/// The most files of one topology.
pub const MOST_FILES: usize = 32;
/// The most bytes that the files of one topology hold together.
pub const LARGEST_FILES: usize = 64 << 10;
/// The least memory that a limit may leave.
pub const SMALLEST_MEMORY: Bytes = Bytes::mebi(16);

/// One rule that a value breaks. Prints as one sentence: the object first, the remedy last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The field's path, such as `spec.slices[1].memory`.
    pub path: String,
    /// What stands there, or what counts: cut at 512 characters, control characters escaped.
    pub value: String,
    /// The rule it breaks.
    pub rule: String,
    /// What to write instead.
    pub remedy: String,
}

impl Fault {
    /// A fault of these parts, fit to be printed anywhere.
    pub fn new(path: &str, value: &str, rule: &str, remedy: &str) -> Self {
        Self { path: shown(path), value: shown(value), rule: shown(rule), remedy: shown(remedy) }
    }

    /// The same fault seen from further outside: its path starts with `prefix`.
    pub fn within(self, prefix: &str) -> Self {
        let path = match self.path.as_str() {
            "" => prefix.to_owned(),
            path if path.starts_with('[') => format!("{prefix}{path}"),
            path => format!("{prefix}.{path}"),
        };
        Self { path, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, value, rule, remedy } = self;
        match (path.is_empty(), value.is_empty()) {
            (true, _) => write!(formatter, "{rule}; {remedy}"),
            (false, true) => write!(formatter, "{path}: {rule}; {remedy}"),
            (false, false) => write!(formatter, "{path} is `{value}`: {rule}; {remedy}"),
        }
    }
}

impl std::error::Error for Fault {}

/// The text with control and invisible characters escaped, cut at 512 characters. Quotes stay as they are.
pub(crate) fn shown(text: &str) -> String {
    let escaped = text.chars().take(512).flat_map(|character| match character {
        '"' | '\'' | '\\' => vec![character],
        other => other.escape_debug().collect(),
    });
    let end = if text.chars().nth(512).is_some() { "…" } else { "" };
    escaped.chain(end.chars()).collect()
}

/// Reports the second and every later bearer of a key.
fn duplicates<'a>(keys: impl Iterator<Item = (String, &'a str)>) -> Vec<Fault> {
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    let mut faults = Vec::new();
    for (path, key) in keys {
        match first.get(key) {
            Some(other) => faults.push(Fault::new(
                &path,
                key,
                &format!("the name is taken: {other} bears it"),
                "choose another name or remove one of them",
            )),
            None => {
                first.insert(key, path);
            }
        }
    }
    faults
}

fn at_most(path: &str, found: usize, limit: usize, what: &str) -> Option<Fault> {
    (found > limit).then(|| {
        Fault::new(path, &found.to_string(), &format!("at most {limit} {what} are accepted"), "split it into several")
    })
}

fn in_range(path: &str, found: Option<u64>, least: u64, most: u64) -> Option<Fault> {
    let found = found?;
    (found < least || found > most).then(|| {
        let rule = format!("a whole number from {least} to {most} is needed");
        Fault::new(path, &found.to_string(), &rule, "write a number of that range")
    })
}

/// min <= low <= high <= max, and the floor of what a limit may leave.
fn memory_faults(path: &str, memory: Option<&MemoryLimits>) -> Vec<Fault> {
    let Some(MemoryLimits { min, low, high, max, swap_max: _ }) = memory else { return Vec::new() };
    let written = [("min", min), ("low", low), ("high", high), ("max", max)];
    let written: Vec<(&str, Bytes)> =
        written.into_iter().filter_map(|(name, amount)| Some((name, (*amount)?))).collect();
    let disordered = written.windows(2).filter(|pair| pair[0].1 > pair[1].1).map(|pair| {
        let ((lower, low), (upper, high)) = (pair[0], pair[1]);
        Fault::new(
            path,
            &format!("{lower} {low}, {upper} {high}"),
            "need min <= low <= high <= max",
            &format!("raise {upper} to {low} or more, or lower {lower}"),
        )
    });
    let limits = [("high", high), ("max", max)].into_iter().filter_map(|(name, amount)| Some((name, (*amount)?)));
    let too_small = limits.filter(|(_, amount)| *amount < SMALLEST_MEMORY).map(|(name, amount)| {
        Fault::new(
            &format!("{path}.{name}"),
            &amount.to_string(),
            "a limit below 16Mi leaves no program alive",
            "write 16Mi or more",
        )
    });
    disordered.chain(too_small).collect()
}

fn io_faults(path: &str, io: Option<&IoShare>) -> Option<Fault> {
    let IoShare { weight } = io?;
    in_range(&format!("{path}.weight"), weight.map(u64::from), 1, 10_000)
}

fn task_faults(path: &str, tasks: Option<&TaskLimits>) -> Option<Fault> {
    let TaskLimits { max } = tasks?;
    in_range(&format!("{path}.max"), *max, 16, 4_194_304)
}

fn rlimit_faults(path: &str, rlimits: Option<&ResourceLimits>) -> Vec<Fault> {
    let Some(ResourceLimits { nofile, nproc, memlock: _, core: _ }) = rlimits else { return Vec::new() };
    let nofile = in_range(&format!("{path}.nofile"), *nofile, 64, 1_073_741_816);
    let nproc = in_range(&format!("{path}.nproc"), *nproc, 16, 4_194_304);
    nofile.into_iter().chain(nproc).collect()
}

/// systemd gives up at once on a service that ends and starts again without a pause.
fn restart_fault(path: &str, policy: RestartPolicy, delay_seconds: u32) -> Option<Fault> {
    (policy == RestartPolicy::Always && delay_seconds == 0).then(|| {
        Fault::new(&format!("{path}.delay"), "0s", "policy Always needs a delay of at least 1s", "write 1s or more")
    })
}

fn command_faults(path: &str, command: &[Argument]) -> Vec<Fault> {
    let many = at_most(path, command.len(), MOST_ARGUMENTS, "words of a command");
    let program = match command.first() {
        None => Some(Fault::new(path, "[]", "a command is needed", "write the program's absolute path")),
        Some(program) => AbsolutePath::new(program.as_str()).err().map(|_| {
            Fault::new(
                &format!("{path}[0]"),
                program,
                "the program is an absolute path in canonical form, without a prefix such as + or !",
                "write it like /opt/app/bin/server",
            )
        }),
    };
    many.into_iter().chain(program).collect()
}

fn exactly_one(path: &str, fields: &[(&str, bool)]) -> Option<Fault> {
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let written: Vec<&str> = fields.iter().filter(|(_, is_written)| *is_written).map(|(name, _)| *name).collect();
    let rule = format!("exactly one of {} is needed", listed(&names, "and"));
    let (several, none) = how_many(fields.len());
    match written.len() {
        0 => Some(Fault::new(path, none, &rule, &format!("write {}", listed(&names, "or")))),
        1 => None,
        _ => Some(Fault::new(path, several, &rule, &format!("remove {}", listed(&written, "or")))),
    }
}

/// A term that falls is that of an operator which was deposed.
pub fn term_fault(former: Term, new: Term) -> Option<Fault> {
    let rule = term_rule(&former.to_string());
    let (rule, remedy) = rule.split_once("; ").unwrap_or((&rule, ""));
    (new < former).then(|| Fault::new("spec.term", &new.to_string(), rule, remedy))
}

/// The rule and its remedy; `former` is the higher term.
pub(crate) fn term_rule(former: &str) -> String {
    format!("the term never falls, and it was {former}; leave the write to the operator that leads now")
}

/// The words for more than one of so many, and for none of them.
pub(crate) fn how_many(choices: usize) -> (&'static str, &'static str) {
    if choices == 2 { ("both", "neither") } else { ("several", "none") }
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn listed(names: &[&str], joint: &str) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [head @ .., last] => format!("{} {joint} {last}", head.join(", ")),
    }
}

fn unknown_name(path: &str, name: &str, what: &str, known: &BTreeSet<&str>) -> Option<Fault> {
    (!known.contains(name)).then(|| {
        let known: Vec<&str> = known.iter().copied().take(8).collect();
        let remedy = match known.is_empty() {
            true => format!("add a {what} of that name"),
            false => format!("name one of {}, or add it", known.join(", ")),
        };
        Fault::new(path, name, &format!("there is no such {what}"), &remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(min: &str, high: &str) -> MemoryLimits {
        let read = |text: &str| Some(text.parse().expect("a quantity"));
        MemoryLimits { min: read(min), high: read(high), ..MemoryLimits::default() }
    }

    #[test]
    fn a_fault_is_one_sentence_with_the_remedy_last() {
        let faults = memory_faults("spec.slices[0].memory", Some(&limits("8Gi", "4Gi")));
        assert_eq!(
            faults[0].to_string(),
            "spec.slices[0].memory is `min 8Gi, high 4Gi`: need min <= low <= high <= max; raise high to 8Gi or more, or lower min"
        );
    }

    #[test]
    fn quantities_are_compared_by_amount_not_by_text() {
        assert_eq!(memory_faults("m", Some(&limits("1024Mi", "1Gi"))), []);
        assert_eq!(memory_faults("m", Some(&limits("9Mi", "10Mi"))).len(), 1, "below the floor");
    }

    #[test]
    fn a_prefix_extends_the_path() {
        let fault = Fault::new("cpus", "", "r", "x").within("slices[0]").within("spec");
        assert_eq!(fault.path, "spec.slices[0].cpus");
        assert_eq!(Fault::new("", "", "r", "x").within("spec").path, "spec");
    }
}
