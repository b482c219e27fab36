//! Reads small files below a root, as text, as numbers or as sets of numbers. Never waits for a pipe, never reads without
//! end, and takes whatever is not what it should be for missing.

#![expect(clippy::disallowed_methods, reason = "reads the files of sysfs and procfs")]

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lamina_crds::id_set::{IdSet, Kind, ListError};

use super::ReadError;

/// No file of sysfs is larger than a page, which is 64 KiB on some machines.
const LARGEST_FILE: u64 = 64 << 10;
/// No directory that matters has more entries: 8192 CPUs and what lies beside them.
const LARGEST_DIRECTORY: usize = 10_000;

/// A file tree like that of a running machine.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`; paths are given without a leading slash.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where a path of the tree is.
    pub fn place(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The file's text without surrounding white space; `None` if it cannot be read.
    pub fn text(&self, path: &str) -> Option<String> {
        small_text(&self.place(path)).ok().map(|text| text.trim().to_owned())
    }

    /// The file as one value; `None` if it cannot be read or holds something else.
    pub fn value<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The file as a list of numbers; `None` if it cannot be read or holds something else.
    pub fn list<K: Kind>(&self, path: &str) -> Option<IdSet<K>> {
        self.text(path)?.parse().ok()
    }

    /// The file as a bitmap; `None` if it cannot be read or holds something else.
    pub fn mask<K: Kind>(&self, path: &str) -> Option<IdSet<K>> {
        from_mask(&self.text(path)?)
    }

    /// The set that lies in a directory under a name, as `NAME_list`, or as the bitmap `NAME` or `NAME_map`.
    pub fn either<K: Kind>(&self, directory: &str, name: &str) -> Option<IdSet<K>> {
        let path = |ending: &str| format!("{directory}/{name}{ending}");
        self.list(&path("_list")).or_else(|| self.mask(&path(""))).or_else(|| self.mask(&path("_map")))
    }

    /// The file as a list of numbers.
    ///
    /// # Errors
    /// Fails when the file cannot be read or holds something else.
    pub fn required<K: Kind>(&self, path: &str) -> Result<IdSet<K>, ReadError> {
        let path = self.place(path);
        match small_text(&path) {
            Ok(text) => text.parse().map_err(|source: ListError| ReadError::List { path, source }),
            Err(source) => Err(ReadError::File { path, source }),
        }
    }

    /// Whether there is a directory at the path.
    pub fn has_directory(&self, path: &str) -> bool {
        self.place(path).is_dir()
    }

    /// The names in a directory, sorted; none if it cannot be read.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.place(directory)).into_iter().flatten().take(LARGEST_DIRECTORY).flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Numbers of the directory's entries that are called `prefix` and a number.
    pub fn numbered<K: Kind>(&self, directory: &str, prefix: &str) -> IdSet<K> {
        let number = |name: &String| name.strip_prefix(prefix)?.parse().ok();
        self.names(directory).iter().filter_map(number).collect()
    }

    /// Where a link of the tree leads, as a path of the tree; `None` if that is nowhere or outside of it.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let root = self.root.canonicalize().ok()?;
        let target = self.place(path).canonicalize().ok()?;
        Some(target.strip_prefix(root).ok()?.to_str()?.to_owned())
    }
}

/// The text of a regular file of no more than a page.
fn small_text(path: &Path) -> io::Result<String> {
    text_of_at_most(path, LARGEST_FILE)
}

/// The text of a regular file.
///
/// # Errors
/// Whatever the kernel says; something that is no file, is larger than `limit` bytes, or is no text.
pub fn text_of_at_most(path: &Path, limit: u64) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file"));
    }
    let mut text = String::new();
    File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {limit} bytes")));
    }
    Ok(text)
}

/// The kernel's form of a bitmap: hexadecimal words of 32 bits, the highest first, with commas between.
fn from_mask<K: Kind>(text: &str) -> Option<IdSet<K>> {
    let words: Option<Vec<u32>> = text.split(',').map(|word| u32::from_str_radix(word, 16).ok()).collect();
    Some(from_words(words?.into_iter().rev()))
}

/// The set whose bitmap these words are, the lowest first.
pub fn from_words<K: Kind>(words: impl Iterator<Item = u32>) -> IdSet<K> {
    let bits = (0_u32..).zip(words).flat_map(|(index, word)| {
        (0..32).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index.saturating_mul(32) + bit)
    });
    bits.collect()
}

#[cfg(test)]
mod tests {
    use lamina_crds::CpuSet;

    use super::*;

    #[test]
    fn a_bitmap_of_the_kernel_is_a_set() {
        let set = |text: &str| from_mask(text).map(|set: CpuSet| set.to_string());
        assert_eq!(set("ff").as_deref(), Some("0-7"));
        assert_eq!(set("00000001,80000000,00000003").as_deref(), Some("0-1,63-64"));
        assert_eq!(set("xyz"), None);
        assert_eq!(set(""), None);
    }
}
