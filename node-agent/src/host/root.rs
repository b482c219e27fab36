//! Finds files of the host below the directory where the agent sees it, without being led astray by links.
//!
//! Links on the way are followed as the host itself would follow them, that is, never out of the root; the last
//! component is never followed. See openat2(2), `RESOLVE_IN_ROOT`.

#![expect(clippy::disallowed_methods, reason = "reads files of the kernel")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::host_path::HostPath;

/// The host's file system as the agent sees it.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// The file system below `path`; `/` when the agent runs on the host itself.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the host's root directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what stands at a path; the last component is not followed.
    ///
    /// # Errors
    /// Those of openat2(2); `ELOOP` when the last component is a link.
    pub fn open(&self, path: &HostPath, flags: OFlags) -> io::Result<OwnedFd> {
        let root = rustix::fs::open(&self.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let inside = match path.as_str().trim_start_matches('/') {
            "" => ".",
            inside => inside,
        };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(root, inside, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        Ok(opened)
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// As [`Root::open`]; `ENOTDIR` when it is none.
    pub fn open_directory(&self, path: &HostPath) -> io::Result<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Reads a file of the kernel's (below `/proc` or `/sys`), which is trusted; `None` if it is not there any more.
    ///
    /// # Errors
    /// Whatever reading says, but for a file, process or cgroup that is gone.
    pub fn read_kernel(&self, path: &str) -> io::Result<Option<String>> {
        let read = File::open(self.kernel(path)).and_then(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok(text)
        });
        match read {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(io::Error::new(error.kind(), format!("read {path}: {error}"))),
        }
    }

    /// The place of a path below `/proc` or `/sys`. A pod that shares the host's processes has them in its own `/proc`,
    /// so what the root does not offer is taken from there.
    pub fn kernel(&self, path: &str) -> PathBuf {
        let below = self.path.join(path.trim_start_matches('/'));
        let tree = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let marker = if tree == "proc" { "proc/self" } else { "sys/devices" };
        if self.path.join(marker).exists() || below.exists() { below } else { PathBuf::from(path) }
    }
}

/// Whether an error says that the file, the process or the cgroup is not there (any more).
pub fn is_gone(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH | rustix::io::Errno::NODEV))
}
