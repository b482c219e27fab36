//! Decides whether a process that was started from somebody else's unit file runs as a service is asked to run: the same
//! command, user, directory, environment, limits and memory policy.

use std::collections::{BTreeMap, BTreeSet};

use crate::environment_file::variables;
use crate::numa::NumaPolicy;

/// What a process is to be started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedStart {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The user.
    pub user: String,
    /// The directory; empty where none is asked.
    pub working_directory: String,
    /// Files with variables, in the order in which they are read.
    pub files: Vec<WantedFile>,
    /// Variables that were given. They win over files.
    pub given: BTreeMap<String, String>,
    /// Variables that follow from the placement; a difference in them waits for a restart.
    pub derived: BTreeMap<String, String>,
    /// Resource limits; what is not asked is systemd's own default.
    pub limits: Limits,
}

/// A file with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedFile {
    /// One that the host already has.
    Path(String),
    /// One that is delivered, by its content.
    Content(String),
}

/// Resource limits of a process by systemd's key, each soft and hard.
pub type Limits = BTreeMap<&'static str, (u64, u64)>;

/// The keys of the limits that a service can ask for.
pub const LIMIT_KEYS: [&str; 4] = ["LimitCORE", "LimitMEMLOCK", "LimitNOFILE", "LimitNPROC"];

/// What a running process was started with, as systemd has it loaded and as the process shows it. It is read only of
/// processes that were not started from a text of Lamina's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartSettings {
    /// The loaded command line before variables are expanded; empty if there are several or none.
    pub command: Vec<String>,
    /// The command line that the process shows; empty where it cannot be read.
    pub process: Vec<String>,
    /// `User`.
    pub user: String,
    /// `Group`.
    pub group: String,
    /// `WorkingDirectory`.
    pub working_directory: String,
    /// `Environment`, each `NAME=value`.
    pub environment: Vec<String>,
    /// `EnvironmentFiles`, in order.
    pub environment_files: Vec<String>,
    /// Contents of environment files, theirs and those asked for, that could be read; one that is optional and missing
    /// is empty.
    pub contents: BTreeMap<String, String>,
    /// The loaded limits.
    pub limits: Limits,
    /// What systemd sets where no limit is asked.
    pub default_limits: Limits,
    /// Further settings in force that no topology asks for and that change where a process runs or what it is given.
    pub further: BTreeSet<&'static str>,
    /// When the process was started, in microseconds since 1970.
    pub started_at: u64,
    /// Files that were changed after the process had started: nobody can tell what it read there.
    pub changed: BTreeSet<String>,
}

/// How a process differs from what is asked; empty lists where it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What only a restart can put right, each in words.
    pub differences: Vec<String>,
    /// Derived variables that differ: they wait for a restart.
    pub derived: Vec<String>,
}

/// Compares what is asked with what was found.
pub fn compare(
    wanted: &WantedStart,
    policy: Option<&NumaPolicy>,
    found: &StartSettings,
    found_policy: Option<&NumaPolicy>,
) -> Comparison {
    let environment = Environments::of(wanted, found);
    let mut differences = Vec::new();
    let mut note = |differs: bool, what: String| {
        if differs {
            differences.push(what);
        }
    };
    note(!is_same_command(wanted, found), "another command".to_owned());
    note(wanted.user != found.user, "another user".to_owned());
    note(!found.group.is_empty() && found.group != wanted.user, "another group".to_owned());
    note(wanted.working_directory != found.working_directory, "another directory".to_owned());
    note(
        policy.map(|policy| policy.policy) != found_policy.map(|policy| policy.policy),
        "another NUMA policy".to_owned(),
    );
    for key in LIMIT_KEYS {
        let asked = wanted.limits.get(key).or_else(|| found.default_limits.get(key));
        note(asked != found.limits.get(key), format!("another {key}"));
    }
    for key in &found.further {
        note(true, format!("{key}, which no topology asks for"));
    }
    for path in found.changed.iter().filter(|path| !wanted.reads(path)) {
        note(true, format!("perhaps another text: {path} was changed since"));
    }
    for name in environment.differing() {
        note(true, format!("another environment ({name})"));
    }
    Comparison { differences, derived: environment.differing_derived(&wanted.derived) }
}

/// Variables in a command line are expanded by systemd, and a process may give itself another one: so one of both must be
/// what is asked, and the loaded one only counts where nothing in it is expanded.
fn is_same_command(wanted: &WantedStart, found: &StartSettings) -> bool {
    let is_literal = found.command.iter().all(|word| !word.contains('$'));
    (is_literal && found.command == wanted.command) || found.process == wanted.command
}

impl WantedStart {
    fn reads(&self, path: &str) -> bool {
        self.files.iter().any(|file| *file == WantedFile::Path(path.to_owned()))
    }
}

/// The environments, asked and found, without derived variables on both sides.
struct Environments {
    asked: Option<BTreeMap<String, String>>,
    found: Option<BTreeMap<String, String>>,
    found_derived: BTreeMap<String, String>,
    is_same_source: bool,
}

impl Environments {
    fn of(wanted: &WantedStart, found: &StartSettings) -> Self {
        let content = |path: &String| found.contents.get(path).map(|content| variables(content));
        let asked_files = wanted.files.iter().map(|file| match file {
            WantedFile::Path(path) => content(path),
            WantedFile::Content(content) => Some(variables(content)),
        });
        let asked = merged(asked_files).map(|mut asked| {
            asked.extend(wanted.given.clone());
            asked
        });
        let given: BTreeMap<String, String> = found.environment.iter().filter_map(|line| assignment(line)).collect();
        let own = std::iter::once(Some(given.clone()));
        let all = merged(own.chain(found.environment_files.iter().map(content)));
        let paths = found.environment_files.iter().cloned().map(WantedFile::Path);
        // What cannot be read is the same if the same files are read and nothing else is said beside them.
        let is_same_source = paths.eq(wanted.files.iter().cloned()) && given.is_empty() && wanted.given.is_empty();
        let without = |mut all: BTreeMap<String, String>| {
            all.retain(|name, _| !wanted.derived.contains_key(name));
            all
        };
        let found_derived = all.clone().unwrap_or(given);
        Self { asked: asked.map(without), found: all.map(without), found_derived, is_same_source }
    }

    fn differing(&self) -> Vec<String> {
        let (Some(asked), Some(found)) = (&self.asked, &self.found) else {
            return if self.is_same_source { Vec::new() } else { vec!["a file cannot be read".to_owned()] };
        };
        let names: BTreeSet<&String> = asked.keys().chain(found.keys()).collect();
        names.into_iter().filter(|name| asked.get(*name) != found.get(*name)).cloned().collect()
    }

    fn differing_derived(&self, derived: &BTreeMap<String, String>) -> Vec<String> {
        let differs = |(name, value): &(&String, &String)| self.found_derived.get(*name) != Some(*value);
        derived.iter().filter(differs).map(|(name, _)| name.clone()).collect()
    }
}

/// Later maps win; nothing is known if one of them is not.
fn merged(maps: impl Iterator<Item = Option<BTreeMap<String, String>>>) -> Option<BTreeMap<String, String>> {
    maps.collect::<Option<Vec<_>>>().map(|maps| maps.into_iter().flatten().collect())
}

fn assignment(line: &str) -> Option<(String, String)> {
    line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests;
