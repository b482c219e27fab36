//! Touches the cluster, through kubectl, whose plugin this is: it knows every way to sign in.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The kinds, with their group, so that nobody else's are meant.
const KINDS: [&str; 2] = ["slicetopologies.lamina.dev", "hoststates.lamina.dev"];
/// What changes this soon after something else belongs to it.
const BURST: Duration = Duration::from_millis(200);

/// kubectl, and which cluster it is to ask.
#[derive(Clone, Debug, Default)]
pub struct Kubectl {
    /// What is passed on to it, such as `--context=…`.
    pub flags: Vec<OsString>,
}

impl Kubectl {
    /// All topologies and hosts, as one list in JSON.
    ///
    /// # Errors
    /// Fails with kubectl's own words.
    pub fn objects(&self) -> Result<String> {
        let output = self.command(&["get", &KINDS.join(","), "--output=json"]).output();
        let output = output.context("run kubectl; it must be on the PATH")?;
        if !output.status.success() {
            bail!("kubectl: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("read what kubectl writes")
    }

    /// Hears of changes, until it is dropped.
    ///
    /// # Errors
    /// Fails when kubectl cannot be started.
    pub fn watch(&self) -> Result<Watch> {
        let (sender, changes) = channel();
        let mut children = Vec::new();
        for kind in KINDS {
            let mut command = self.command(&["get", kind, "--watch-only", "--output=name"]);
            let mut child = command.stdout(Stdio::piped()).spawn().context("run kubectl; it must be on the PATH")?;
            let lines = child.stdout.take().map(BufReader::new);
            let sender = sender.clone();
            std::thread::spawn(move || {
                for _ in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                    if sender.send(()).is_err() {
                        return;
                    }
                }
            });
            children.push(child);
        }
        Ok(Watch { children, changes })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments).args(&self.flags).stdin(Stdio::null());
        command
    }
}

/// What tells of changes.
pub struct Watch {
    children: Vec<Child>,
    changes: Receiver<()>,
}

impl Watch {
    /// Waits until something has changed. Fails when kubectl hears nothing any more.
    ///
    /// # Errors
    /// Fails when every kubectl has ended.
    pub fn next(&self) -> Result<()> {
        self.changes.recv().context("kubectl does not watch any more")?;
        while self.changes.recv_timeout(BURST).is_ok() {}
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Whoever has ended already needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
