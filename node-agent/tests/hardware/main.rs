//! The reader of hardware on machines of every kind: against what was written, against hwloc, and under damage.

#![expect(clippy::disallowed_methods, reason = "the tests make machines out of files")]

mod consistency;
mod damage;
mod hwloc;
mod speed;
mod trees;

use std::path::{Path, PathBuf};

use lamina_crds::Hardware;
use lamina_node_agent::hardware;
use lamina_trees::Machine;

/// A machine as files that are gone when it is.
struct Tree {
    directory: tempfile::TempDir,
}

impl Tree {
    fn new(machine: &Machine) -> Self {
        // Trees have thousands of files: they are in memory where there is a place for that.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.expect("a directory");
        let tree = Self { directory };
        lamina_trees::write(machine, &tree.root()).expect("a tree");
        tree
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("machine")
    }

    fn read(&self) -> Hardware {
        hardware::read(&self.root(), "252").expect("a machine")
    }
}

/// So many random machines and every known one, each with a name to find it again.
fn machines(random: u64) -> impl Iterator<Item = (String, Machine)> {
    let known = lamina_trees::shapes::all().into_iter().map(|(name, machine)| (name.to_owned(), machine));
    known.chain((0..random).map(|seed| (format!("seed {seed}"), lamina_trees::any_machine(seed))))
}
