//! Reads small files of one line below a root, as text or as a list of numbers.

#![expect(clippy::disallowed_methods, reason = "reads the files of sysfs and procfs")]

use std::io;
use std::path::{Path, PathBuf};

use lamina_crds::id_set::{IdSet, Kind};

/// A file tree like that of a running machine.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`; paths are given without a leading slash.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The file's text without surrounding white space; `None` if it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The file as a list of numbers; `None` if it cannot be read or holds something else.
    pub fn list<K: Kind>(&self, path: &str) -> Option<IdSet<K>> {
        self.text(path)?.parse().ok()
    }

    /// The file as a list of numbers.
    ///
    /// # Errors
    /// Fails when the file cannot be read or holds something else.
    pub fn required<K: Kind>(&self, path: &str) -> io::Result<IdSet<K>> {
        let file = self.root.join(path);
        let named = |error: String| io::Error::other(format!("read {}: {error}", file.display()));
        let text = std::fs::read_to_string(&file).map_err(|error| named(error.to_string()))?;
        text.parse().map_err(|error: lamina_crds::id_set::ListError| named(error.to_string()))
    }

    /// Numbers of the directory's entries that are called `prefix` and a number.
    pub fn numbered(&self, directory: &str, prefix: &str) -> Vec<u32> {
        let entries = std::fs::read_dir(self.root.join(directory)).into_iter().flatten().flatten();
        let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok();
        let mut numbers: Vec<u32> = entries.filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }
}
