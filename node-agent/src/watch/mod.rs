//! Wakes the agent when something happened on the host that may concern it: files, cgroups, systemd's signals, CPUs and
//! nodes that come and go, and a slow re-check behind all of them. An event only says "look again", never what is so.

mod directories;
mod hotplug;
mod signals;

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::Duration;

use lamina_crds::TopologyName;
use tokio::time::Instant;

use crate::host::root::Root;
use directories::Directories;
use hotplug::Hotplug;
use signals::Signals;

/// Events come in bursts: a rename is three, a start is ten. What follows this soon belongs to the same change.
const BURST: Duration = Duration::from_millis(20);
/// Every host looks again after this time even if nothing was heard, a fifth more or less.
const RECHECK: Duration = Duration::from_secs(300);

/// Why the agent looks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A file of a unit, or a delivered one, changed.
    File(String),
    /// A setting of a cgroup was written, or a cgroup came or went.
    Cgroup(String),
    /// systemd said that something happened to this unit, or to itself.
    Systemd(String),
    /// A CPU, a NUMA node or memory came or went.
    Machine,
    /// Nothing was heard for long.
    Recheck,
}

impl fmt::Display for Wake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{path} changed"),
            Self::Cgroup(path) => write!(formatter, "{path} was written"),
            Self::Systemd(what) => write!(formatter, "systemd: {what}"),
            Self::Machine => formatter.write_str("a part of the machine came or went"),
            Self::Recheck => formatter.write_str("slow re-check"),
        }
    }
}

/// Everything that wakes the agent.
pub struct Watch {
    directories: Directories,
    signals: Signals,
    hotplug: Option<Hotplug>,
    topologies: BTreeSet<TopologyName>,
    recheck_at: Instant,
}

impl Watch {
    /// Begins to listen; [`Watch::arm`] says for whom.
    ///
    /// # Errors
    /// Fails when the kernel gives no inotify instance.
    pub fn new(root: &Root, bus_address: String) -> io::Result<Self> {
        Ok(Self {
            directories: Directories::new(root.clone())?,
            signals: Signals::new(bus_address),
            hotplug: announced(Hotplug::new()),
            topologies: BTreeSet::new(),
            recheck_at: next_recheck(),
        })
    }

    /// Listens for these topologies. Says whether a directory is watched that was not before: what happened in it until
    /// now was not heard, so somebody should look once more.
    ///
    /// # Errors
    /// Whatever the kernel says to a new watch, but for a directory that is gone.
    pub fn arm(&mut self, topologies: &BTreeSet<TopologyName>) -> io::Result<bool> {
        self.topologies.clone_from(topologies);
        self.directories.arm(topologies)
    }

    /// Waits until there is a reason to look again. May be dropped and called anew: whoever does so looks again anyway.
    pub async fn next(&mut self) -> Wake {
        let wake = self.first().await;
        burst(async || drop(self.first().await)).await;
        wake
    }

    async fn first(&mut self) -> Wake {
        let Self { directories, signals, hotplug, topologies, recheck_at } = self;
        tokio::select! {
            wake = directories.next() => wake,
            wake = signals.next(topologies) => wake,
            () = hotplugged(hotplug) => Wake::Machine,
            () = tokio::time::sleep_until(*recheck_at) => {
                // At once: a re-check that stays due would be heard without end.
                *recheck_at = next_recheck();
                Wake::Recheck
            }
        }
    }
}

/// Hears out what belongs to the change that was heard first. It asks the clock itself, so that it ends in time also where
/// there is always something to hear.
async fn burst(mut heard: impl AsyncFnMut()) {
    let ends = Instant::now() + BURST;
    while Instant::now() < ends {
        let _ = tokio::time::timeout_at(ends, heard()).await;
    }
}

/// A sandbox may forbid the socket; then the slow re-check sees parts come and go.
fn announced(hotplug: io::Result<Hotplug>) -> Option<Hotplug> {
    hotplug
        .inspect_err(
            |error| tracing::warn!(error = %error, "the kernel does not announce parts of the machine that come or go"),
        )
        .ok()
}

async fn hotplugged(hotplug: &mut Option<Hotplug>) {
    match hotplug {
        Some(hotplug) => hotplug.next().await,
        None => std::future::pending().await,
    }
}

/// Spread over a fifth of the time to either side, so that hosts which started together do not stay together.
fn next_recheck() -> Instant {
    let spread = RECHECK / 5;
    let random = RandomState::new().hash_one(0_u8) % 1000;
    let share = u32::try_from(random).unwrap_or_default();
    Instant::now() + RECHECK - spread + spread * 2 * share / 1000
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Far more than any of this takes, far less than a re-check.
    const LONG: Duration = Duration::from_secs(20);

    fn due_now(directory: &tempfile::TempDir) -> Watch {
        let root = Root::new(directory.path());
        let nobody = format!("unix:path={}", directory.path().join("bus").display());
        Watch {
            directories: Directories::new(root).expect("an inotify instance"),
            signals: Signals::new(nobody),
            hotplug: None,
            topologies: BTreeSet::new(),
            recheck_at: Instant::now(),
        }
    }

    #[tokio::test]
    async fn a_recheck_that_is_due_is_heard_once_and_then_there_is_silence() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut watch = due_now(&directory);
        assert_eq!(timeout(LONG, watch.next()).await, Ok(Wake::Recheck));
        assert!(watch.recheck_at > Instant::now() + RECHECK / 2);
        assert!(timeout(Duration::from_millis(200), watch.next()).await.is_err(), "it was heard again");
    }

    #[tokio::test]
    async fn a_burst_without_end_ends() {
        timeout(LONG, burst(async || {})).await.expect("something happens all the time, and the agent never looks");
        timeout(LONG, burst(async || tokio::task::yield_now().await)).await.expect("the same, with others in between");
    }
}
