//! Hosts with a real systemd: emulated machines that have everything, and containers at native speed.

#![expect(clippy::disallowed_methods, reason = "logs are files")]

pub mod channel;
pub mod container;
pub mod frame;
pub mod guest;
pub mod keeper;
pub mod layout;
pub mod machine;
pub mod monitor;
pub mod process;
pub mod scratch;
pub mod snapshot;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};

use crate::program;

pub use container::NspawnHost;
pub use guest::{HostSpec, QemuHost};
pub use layout::Layout;
pub use process::Lifetime;

/// How long a command may take that nobody thought about; emulated machines on a busy host are slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a command in a host left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Everything it wrote to standard output.
    pub stdout: String,
    /// Everything it wrote to standard error.
    pub stderr: String,
    /// Its exit code: 124 when it took too long, negative for a signal.
    pub code: i64,
}

/// A machine, or what looks like one to systemd, that the harness commands as root.
pub trait Host: Send + Sync {
    /// The name that the host has in its cluster.
    fn name(&self) -> &str;

    /// Runs a script of bash; an error means that the host did not answer, not that the script failed.
    fn exec(&self, script: &str, limit: Duration) -> impl Future<Output = Result<Output>> + Send;

    /// Writes a file of the host as a whole, with its folders.
    fn put(&self, path: &str, mode: u32, content: Vec<u8>) -> impl Future<Output = Result<()>> + Send;

    /// Reads a file of the host.
    fn get(&self, path: &str) -> impl Future<Output = Result<Vec<u8>>> + Send;

    /// The standard output, without the last line break, of a script that must succeed.
    fn run(&self, script: &str) -> impl Future<Output = Result<String>> + Send {
        async move {
            let Output { stdout, stderr, code } = self.exec(script, PATIENCE).await?;
            if code != 0 {
                bail!("{}: `{script}` ended with {code}: {stderr}{stdout}", self.name());
            }
            Ok(stdout.trim_end_matches('\n').to_owned())
        }
    }

    /// Puts a program of this workspace, without its symbols, to `path`.
    fn install(&self, program: &str, path: &str) -> impl Future<Output = Result<()>> + Send {
        async move { self.put(path, 0o755, program::stripped(program).await?).await }
    }

    /// Waits until systemd has started everything, and tells the state it then is in.
    fn wait_booted(&self) -> impl Future<Output = Result<String>> + Send {
        async move {
            let Output { stdout, .. } = self.exec("systemctl is-system-running --wait", PATIENCE).await?;
            Ok(stdout.trim().to_owned())
        }
    }
}

/// Quotes one word for a shell.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The last lines of a log, for errors; empty if there is none.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// A path as text, which every path the harness makes is.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}
