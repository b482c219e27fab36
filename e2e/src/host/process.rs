//! Starts a host's process, either to die with its owner or to outlive it, and ends exactly that process again.

#![expect(clippy::disallowed_methods, reason = "processes are found in /proc and waited for")]

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::tether;

/// How long a host lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// Ends with the process that started it, whatever that dies of.
    Tethered,
    /// Lives on until somebody ends it.
    Detached,
}

/// A process that can be recognised later: process numbers are reused, start times are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process number.
    pub pid: i32,
    /// When it started, in clock ticks since this machine's boot.
    pub started: u64,
}

impl ProcessId {
    /// The process `pid` as it runs now.
    pub fn of(pid: i32) -> Result<Self> {
        let started = start_time(pid).with_context(|| format!("looking for process {pid}"))?;
        Ok(Self { pid, started })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Sends SIGKILL and waits until the process is gone; one that is gone already is fine.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_gone(Duration::from_secs(20))
    }

    /// Sends a signal, if this very process still runs.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match Pid::from_raw(self.pid).filter(|_| self.is_alive()).map(|pid| kill_process(pid, signal)) {
            Some(Err(error)) if error != rustix::io::Errno::SRCH => {
                Err(error).with_context(|| format!("sending a signal to process {}", self.pid))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the process has ended.
    pub fn wait_gone(&self, limit: Duration) -> Result<()> {
        let begin = Instant::now();
        while self.is_alive() {
            if begin.elapsed() > limit {
                bail!("process {} does not end", self.pid);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Where a program is started.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Its working directory.
    pub folder: &'a Path,
    /// The file there that gets what it says.
    pub log: &'a str,
    /// Variables beside those of this program.
    pub variables: &'a [(&'a str, String)],
}

/// A started program; dropping it ends a tethered one and leaves a detached one alone.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    child: Option<Child>,
    lifetime: Lifetime,
}

impl Process {
    /// Starts a program in `folder`; what it says goes to `log` there.
    pub fn start(program: &Path, arguments: &[String], folder: &Path, log: &str, lifetime: Lifetime) -> Result<Self> {
        Self::start_in(&Surroundings { folder, log, variables: &[] }, program, arguments, lifetime)
    }

    /// Starts a program in these surroundings.
    pub fn start_in(
        surroundings: &Surroundings<'_>,
        program: &Path,
        arguments: &[String],
        lifetime: Lifetime,
    ) -> Result<Self> {
        let Surroundings { folder, log, variables } = surroundings;
        let mut command = match lifetime {
            Lifetime::Tethered => tether::command(program),
            Lifetime::Detached => session(program),
        };
        let path = folder.join(log);
        let output = File::options().create(true).append(true).open(&path);
        let output = output.with_context(|| format!("opening {}", path.display()))?;
        let errors = output.try_clone().with_context(|| format!("opening {} twice", path.display()))?;
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = match lifetime {
            Lifetime::Tethered => tether::spawn(command),
            Lifetime::Detached => command.spawn(),
        };
        let child = child.with_context(|| format!("starting {}", program.display()))?;
        let pid = i32::try_from(child.id()).context("reading a process number")?;
        Ok(Self { id: ProcessId::of(pid)?, child: Some(child), lifetime })
    }

    /// A process that an earlier program started.
    pub fn attach(id: ProcessId) -> Self {
        Self { id, child: None, lifetime: Lifetime::Detached }
    }

    /// How to recognise it.
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// Whether it ends with this program; one that another program started does not.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Whether it still runs; one of our own that has ended is collected.
    pub fn is_alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => self.id.is_alive(),
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        match &mut self.child {
            Some(child) => {
                // An error here says that it has ended already.
                let _ = child.kill();
                child.wait().map(drop).with_context(|| format!("waiting for process {}", self.id.pid))
            }
            None => self.id.kill(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Tethered {
            let _ = self.kill();
        }
    }
}

/// A session of its own keeps the program from ending with its starter's terminal.
fn session(program: &Path) -> Command {
    let mut command = Command::new("setsid");
    command.arg("--").arg(program);
    command
}

/// The start time of a process that runs; a dead one that nobody has collected does not.
fn start_time(pid: i32) -> Option<u64> {
    running_since(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time of the process that `stat` describes, if any of its threads still runs.
///
/// The first thread alone can be dead: the others still hold the process's files, and their locks, until the last ends.
/// `stat` is that of proc_pid_stat(5): the state is field 3, the number of threads 20, the start time 22.
fn running_since(stat: &str) -> Option<u64> {
    // The program's name may contain anything, even brackets.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let threads: u32 = fields.get(17)?.parse().ok()?;
    let ended = matches!(*fields.first()?, "Z" | "X") && threads <= 1;
    if ended { None } else { fields.get(19)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_the_same_number_is_not_the_same() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn a_process_runs_until_its_last_thread_has_ended() {
        let stat = |state: char, threads: u32| {
            format!(
                "7 (a (b) c) {state} 1 7 7 0 -1 4 5 0 0 0 1 2 0 0 20 0 {threads} 0 4711 8192 3 18446744073709551615"
            )
        };
        assert_eq!(running_since(&stat('S', 1)), Some(4711));
        assert_eq!(running_since(&stat('Z', 2)), Some(4711), "its files are still open");
        assert_eq!(running_since(&stat('Z', 1)), None);
        assert_eq!(running_since(&stat('X', 0)), None);
        assert_eq!(running_since(""), None);
    }

    #[test]
    fn dropping_a_tethered_process_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let sleep = Path::new("/bin/sleep");
        let process = Process::start(sleep, &["60".to_owned()], folder.path(), "log", Lifetime::Tethered).unwrap();
        let id = process.id().clone();
        assert!(id.is_alive());
        drop(process);
        assert!(!id.is_alive());
    }
}
