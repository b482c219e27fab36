//! Keeps what is expensive to make (control plane, guest images, snapshots) outside the checkout, keyed by content.
//!
//! An entry is a directory that appears complete or not at all. Two programs that need the same entry at once: one
//! builds, the other waits for its lock.

#![expect(clippy::disallowed_methods, reason = "the cache is files")]

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use sha2::{Digest, Sha256};

use crate::progress;

/// What all entries together may take on disk; the least recently used go first.
const BUDGET: u64 = 16 << 30;

/// An entry used this recently is never removed: a running guest may still need its files.
const IN_USE: Duration = Duration::from_secs(6 * 3600);

/// The marker in an entry whose modification time says when it was last used.
const USED: &str = ".used";

/// The folder below which every entry lives.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user: `LAMINA_CACHE`, else `lamina` below `XDG_CACHE_HOME` or `~/.cache`.
    pub fn open() -> Result<Self> {
        let root = root().context("finding the cache: none of LAMINA_CACHE, XDG_CACHE_HOME and HOME is set")?;
        fs::create_dir_all(&root).with_context(|| format!("creating the cache {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself, for scratch space that is no entry (such as a compiler's own cache).
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the entry `kind` for `key`, made by `build` if it is not there.
    ///
    /// `build` fills the empty directory it is given; `what` tells a waiting person what is being made.
    pub async fn entry(
        &self,
        kind: &str,
        key: &Key,
        what: &str,
        build: impl AsyncFnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let name = format!("{kind}-{}", key.digest());
        let entry = self.root.join(&name);
        if entry.is_dir() {
            touch(&entry)?;
            return Ok(entry);
        }
        let _lock = self.lock(&name).await?;
        if !entry.is_dir() {
            self.trim()?;
            progress::during(what, self.build(&name, build)).await.with_context(|| format!("{what} for {name}"))?;
        }
        touch(&entry)?;
        Ok(entry)
    }

    /// The kinds of which there is an entry, whatever its key.
    ///
    /// # Errors
    /// Fails when the cache cannot be read.
    pub fn kinds(&self) -> Result<BTreeSet<String>> {
        let kind = |Entry { path, .. }: Entry| {
            let name = path.file_name()?.to_string_lossy().into_owned();
            name.rsplit_once('-').map(|(kind, _)| kind.to_owned())
        };
        Ok(self.entries()?.into_iter().filter_map(kind).collect())
    }

    /// Waits for the lock `name`, which other processes and tasks of this cache respect; it ends when dropped.
    pub async fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.lock_path(name);
        tokio::task::spawn_blocking(move || Lock::acquire(&path)).await?
    }

    /// The lock `name`, or nothing while somebody else holds it.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        Lock::try_acquire(&self.lock_path(name))
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join(format!(".{name}.lock"))
    }

    async fn build(&self, name: &str, build: impl AsyncFnOnce(&Path) -> Result<()>) -> Result<()> {
        let unfinished = self.root.join(format!(".{name}.unfinished"));
        remove_tree(&unfinished)?;
        fs::create_dir(&unfinished).with_context(|| format!("creating {}", unfinished.display()))?;
        build(&unfinished).await?;
        fs::rename(&unfinished, self.root.join(name)).with_context(|| format!("completing the entry {name}"))
    }

    /// Removes the least recently used entries until the rest fits the budget.
    fn trim(&self) -> Result<()> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| entry.used);
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for Entry { path, bytes, used } in entries {
            let idle = used.elapsed().unwrap_or(Duration::ZERO);
            if total <= BUDGET || idle < IN_USE {
                return Ok(());
            }
            remove_tree(&path)?;
            total -= bytes;
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for child in fs::read_dir(&self.root)? {
            let path = child?.path();
            if let Ok(marker) = fs::metadata(path.join(USED)) {
                entries.push(Entry { bytes: disk_bytes(&path)?, used: marker.modified()?, path });
            }
        }
        Ok(entries)
    }
}

struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// A file lock that is held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: OwnedFd,
}

impl Lock {
    /// Blocks until this process holds the lock at `path`.
    pub fn acquire(path: &Path) -> Result<Self> {
        let file = Self::open(path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(Self { _file: file })
    }

    /// The lock at `path`, or nothing while somebody else holds it.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let file = Self::open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }

    fn open(path: &Path) -> Result<OwnedFd> {
        rustix::fs::open(path, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
            .with_context(|| format!("opening the lock {}", path.display()))
    }
}

/// Everything an entry's content follows from.
#[derive(Clone, Debug, Default)]
pub struct Key {
    hasher: Sha256,
}

impl Key {
    /// A key that depends on nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same key, also depending on `value` in the role `name`.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        // Lengths keep two neighbouring values from being read as one another's.
        self.hasher.update(format!("{}:{name}:{}:", name.len(), value.len()));
        self.hasher.update(value);
        self
    }

    /// The same key, also depending on the content of the file at `path`.
    pub fn with_file(self, name: &str, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("reading {} for a cache key", path.display()))?;
        Ok(self.with(name, content))
    }

    /// Sixteen hexadecimal digits.
    pub fn digest(&self) -> String {
        let digest = self.hasher.clone().finalize();
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn root() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("LAMINA_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|base| base.join("lamina")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/lamina")))
}

fn touch(entry: &Path) -> Result<()> {
    let marker = entry.join(USED);
    fs::write(&marker, "").with_context(|| format!("marking {} as used", entry.display()))
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What a tree really takes on disk: images are sparse.
fn disk_bytes(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.blocks() * 512);
    }
    fs::read_dir(path)?.map(|child| disk_bytes(&child?.path())).sum()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn scratch() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { root: folder.path().to_owned() };
        (folder, cache)
    }

    #[tokio::test]
    async fn an_entry_is_built_once() {
        let (_folder, cache) = scratch();
        let key = Key::new().with("suite", "bookworm");
        for round in 0..2 {
            let entry = cache
                .entry("image", &key, "building a test entry", async |path| {
                    assert_eq!(round, 0, "built a second time");
                    Ok(fs::write(path.join("content"), "made")?)
                })
                .await
                .unwrap();
            assert_eq!(fs::read_to_string(entry.join("content")).unwrap(), "made");
        }
        assert_eq!(cache.kinds().unwrap(), BTreeSet::from(["image".to_owned()]));
    }

    #[tokio::test]
    async fn a_failed_build_leaves_no_entry() {
        let (_folder, cache) = scratch();
        let outcome = cache.entry("image", &Key::new(), "failing a test entry", async |_| bail!("no")).await;
        assert!(outcome.is_err());
        assert!(cache.entries().unwrap().is_empty());
    }

    #[test]
    fn neighbouring_values_do_not_run_into_one_another() {
        let left = Key::new().with("a", "b").with("c", "");
        let right = Key::new().with("a", "").with("c", "b");
        assert_ne!(left.digest(), right.digest());
    }
}
