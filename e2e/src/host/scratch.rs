//! Gives each host that dies with its owner a folder, and removes the folders of owners that died before they could.

#![expect(clippy::disallowed_methods, reason = "folders are made and removed")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::cache::{Cache, Lock};

/// A folder that is removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: Lock,
}

impl Scratch {
    /// A new empty folder, beside the cache, because copies of snapshots need as much room.
    pub fn new(cache: &Cache, name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let runs = cache.root().join("runs");
        fs::create_dir_all(&runs).with_context(|| format!("creating {}", runs.display()))?;
        let _sweeping = Lock::acquire(&runs.join(".lock"))?;
        sweep(&runs)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{}-{number}-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { _lock: Lock::acquire(&path.join(".lock"))?, path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is swept by a later run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The owner of a folder holds its lock as long as it lives.
fn sweep(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs).with_context(|| format!("listing {}", runs.display()))? {
        let path = entry.with_context(|| format!("listing {}", runs.display()))?.path();
        if path.is_dir() && Lock::try_acquire(&path.join(".lock"))?.is_some() {
            fs::remove_dir_all(&path).with_context(|| format!("removing the abandoned {}", path.display()))?;
        }
    }
    Ok(())
}
