//! Makes sure that one agent alone works on a host, whichever way it was started: a lock on a file of the host.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::host::HostError;
use crate::host::root::Root;
use crate::host::unit_dir;
use crate::host_path::{HostPath, STATE};

/// The right to work on this host; it ends with the process, however it ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock, which is `agent.lock` in the state directory.
    ///
    /// # Errors
    /// Fails when another agent has it, and names that one.
    pub fn take(root: &Root) -> Result<Self, HostError> {
        let path = HostPath::new(format!("{STATE}/agent.lock"));
        let failed = |source| HostError::File { attempt: "lock", path: path.clone(), source };
        let mut file = open(root, &path).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(failed(taken(&mut file))),
            Err(error) => return Err(failed(error.into())),
        }
        write_holder(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn open(root: &Root, path: &HostPath) -> std::io::Result<File> {
    unit_dir::make_directory(root, &path.directory())?;
    let directory = root.open_directory(&path.directory())?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::openat(directory, "agent.lock", flags, Mode::from_raw_mode(0o644))?;
    Ok(File::from(file))
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "process {}, version {}", std::process::id(), env!("CARGO_PKG_VERSION"))
}

fn taken(file: &mut File) -> std::io::Error {
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    let holder = holder.trim();
    std::io::Error::other(format!("another agent works on this host ({holder}); stop it first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_told_who_is_there_until_the_first_one_ends() {
        let host = tempfile::tempdir().expect("a directory");
        let root = Root::new(host.path());
        let first = InstanceLock::take(&root).expect("free");
        let error = InstanceLock::take(&root).expect_err("taken").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(InstanceLock::take(&root).is_ok());
    }
}
