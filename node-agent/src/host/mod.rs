//! The seam to the host: one verb per effect. Everything between two verbs is pure.

#[cfg(all(feature = "host", target_os = "linux"))]
pub mod bus;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod cgroups;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod consumption;
pub mod contract;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod lock;
pub mod log_fields;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod preflight;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod processes;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod real;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod root;
pub mod search_path;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod start_properties;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod systemd;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod unit_dir;
#[cfg(all(feature = "host", target_os = "linux"))]
pub mod unit_properties;

use lamina_crds::{Hardware, UnitName};

use crate::host_path::HostPath;
use crate::observed::{ObservedHost, Scope};
use crate::property::Properties;

/// A host: its disk, its systemd and its kernel. One verb per effect, so that an accident between any two can be tried.
#[expect(async_fn_in_trait, reason = "hosts are used by one task, on one thread; nobody needs the futures to be Send")]
pub trait Host {
    /// Reads what the machine is.
    async fn hardware(&mut self) -> Result<Hardware, HostError>;

    /// Measures everything in scope: files, units, cgroups, threads, users, programs.
    async fn observe(&mut self, scope: &Scope) -> Result<ObservedHost, HostError>;

    /// Reads a small file of Lamina's own; `None` if there is none.
    async fn read(&mut self, path: &HostPath) -> Result<Option<Vec<u8>>, HostError>;

    /// Creates the directory and its parents; one that is there already is fine.
    async fn make_directory(&mut self, path: &HostPath) -> Result<(), HostError>;

    /// Writes a file anew (mode 0644, root), replacing one of that name; durable only after [`Host::sync`].
    async fn write(&mut self, path: &HostPath, content: &[u8]) -> Result<(), HostError>;

    /// Reads a file's permission bits.
    async fn mode(&mut self, path: &HostPath) -> Result<u32, HostError>;

    /// Sets a file's permission bits.
    async fn set_mode(&mut self, path: &HostPath, mode: u32) -> Result<(), HostError>;

    /// Makes a file's content, or a directory's names, durable: fsync(2).
    async fn sync(&mut self, path: &HostPath) -> Result<(), HostError>;

    /// Renames a file over another in the same directory; durable only after a sync of the directory.
    async fn rename(&mut self, from: &HostPath, to: &HostPath) -> Result<(), HostError>;

    /// Makes a symbolic link; one that is there already with another target is an error.
    async fn link(&mut self, path: &HostPath, target: &str) -> Result<(), HostError>;

    /// Removes a file, a link or an empty directory; one that is not there is fine.
    async fn remove(&mut self, path: &HostPath) -> Result<(), HostError>;

    /// Makes systemd load all unit files again (`Manager.Reload`).
    async fn reload(&mut self) -> Result<(), HostError>;

    /// Starts a unit and waits for the job.
    async fn start(&mut self, unit: &UnitName) -> Result<JobResult, HostError>;

    /// Stops a unit and waits for the job.
    async fn stop(&mut self, unit: &UnitName) -> Result<JobResult, HostError>;

    /// Restarts a unit and waits for the job.
    async fn restart(&mut self, unit: &UnitName) -> Result<JobResult, HostError>;

    /// Clears a unit's failed state and its start limit.
    async fn reset_failed(&mut self, unit: &UnitName) -> Result<(), HostError>;

    /// Sets properties of a loaded unit until the next boot (`SetUnitProperties(runtime=true)`); leaves one drop-in per
    /// property at [`HostPath::runtime_push`].
    async fn set_properties(&mut self, unit: &UnitName, properties: &Properties) -> Result<(), HostError>;
}

/// How a job of systemd ended, `JobRemoved` in org.freedesktop.systemd1(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// It was carried out; look at the unit's state all the same.
    Done,
    /// It was not: `canceled`, `timeout`, `failed`, `dependency`, `skipped`, ...
    Other(String),
}

/// An effect on the host that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file operation failed.
    #[error("{attempt} {path}: {source}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: HostPath,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A call to systemd failed.
    #[error("{attempt} {object}: {message}")]
    Systemd {
        /// What was tried.
        attempt: &'static str,
        /// On which unit, or "systemd".
        object: String,
        /// The error's name and text.
        message: String,
    },
    /// The host cannot be reached any more: the bus is gone, or the agent is being stopped.
    #[error("the host is out of reach: {0}")]
    Gone(String),
}
