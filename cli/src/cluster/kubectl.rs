//! Touches the cluster, through kubectl, whose plugin this is: it knows every way to sign in.

#![expect(clippy::disallowed_methods, reason = "tells apart a watch that ended from one that never began")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::arguments::ClusterArguments;

/// The kinds, with their group, so that nobody else's are meant.
const KINDS: [&str; 2] = ["slicetopologies.lamina.dev", "hoststates.lamina.dev"];
/// What changes this soon after something else belongs to it.
const BURST: Duration = Duration::from_millis(200);
/// A watch that ends sooner is followed by no other at once.
const SHORTEST_WATCH: Duration = Duration::from_secs(5);
/// A cluster that does not answer for so long is not reached.
const PATIENCE: &str = "--request-timeout=30s";

/// kubectl, and which cluster it is to ask.
#[derive(Clone, Debug)]
pub struct Kubectl {
    flags: Vec<String>,
    namespace: String,
}

impl Kubectl {
    /// kubectl, told of the cluster as this plugin was.
    pub fn of(cluster: &ClusterArguments) -> Self {
        let ClusterArguments { context, kubeconfig, impersonated, namespace } = cluster;
        let kubeconfig = kubeconfig.as_ref().map(|path| path.display().to_string());
        let given = [("context", context), ("kubeconfig", &kubeconfig), ("as", impersonated)];
        let flags = given.into_iter().filter_map(|(flag, value)| Some(format!("--{flag}={}", value.as_ref()?)));
        Self { flags: flags.collect(), namespace: namespace.clone() }
    }

    /// All topologies and hosts, as one list in JSON.
    ///
    /// # Errors
    /// Fails with kubectl's own words.
    pub fn objects(&self) -> Result<String> {
        self.answer(&["get", &KINDS.join(","), "--output=json", PATIENCE])
    }

    /// One host, as JSON.
    ///
    /// # Errors
    /// Fails with kubectl's own words, also when there is no such host.
    pub fn host(&self, name: &str) -> Result<String> {
        let [_, hosts] = KINDS;
        self.answer(&["get", hosts, "--output=json", PATIENCE, "--", name])
    }

    /// All topologies, as one list in JSON.
    ///
    /// # Errors
    /// Fails with kubectl's own words.
    pub fn topologies(&self) -> Result<String> {
        let [topologies, _] = KINDS;
        self.answer(&["get", topologies, "--output=json", PATIENCE])
    }

    /// The Lease of one host's agent.
    ///
    /// # Errors
    /// Fails with kubectl's own words; not everybody may read it.
    pub fn lease(&self, host: &str) -> Result<String> {
        self.in_namespace(&["get", "leases.coordination.k8s.io", host, "--output=json"])
    }

    /// The Leases in Lamina's namespace: agents renew theirs while they live.
    ///
    /// # Errors
    /// Fails with kubectl's own words; not everybody may read them.
    pub fn leases(&self) -> Result<String> {
        self.in_namespace(&["get", "leases.coordination.k8s.io", "--output=json"])
    }

    /// The agents' pods.
    ///
    /// # Errors
    /// Fails with kubectl's own words; not everybody may read them.
    pub fn agents(&self) -> Result<String> {
        let labels = "--selector=app.kubernetes.io/name=lamina,app.kubernetes.io/component=agent";
        self.in_namespace(&["get", "pods", labels, "--output=json"])
    }

    /// What a pod of Lamina's answers at this port to a GET of this path, by way of the API server.
    ///
    /// # Errors
    /// Fails with kubectl's own words: the right `get` on `pods/proxy` may be missing, or the way to the node.
    pub fn from_pod(&self, pod: &str, port: u16, path: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}", self.namespace);
        self.answer(&["get", "--raw", &path, PATIENCE])
    }

    /// The namespace of Lamina's release.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Hears of changes of topologies and hosts, until it is dropped.
    ///
    /// # Errors
    /// Fails when kubectl cannot be started.
    pub fn watch(&self) -> Result<Watch> {
        let (sender, changes) = channel();
        let mut children = Vec::new();
        for kind in KINDS {
            let mut command = self.command(&["get", kind, "--watch-only", "--output=name"]);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().context("run kubectl; it must be on the PATH")?;
            let lines = child.stdout.take().map(BufReader::new);
            let sender = sender.clone();
            std::thread::spawn(move || {
                for _ in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                    if sender.send(News::Changed).is_err() {
                        return;
                    }
                }
                // Nobody may listen any more.
                let _ = sender.send(News::Ended);
            });
            children.push(child);
        }
        Ok(Watch { children, changes, began: Instant::now() })
    }

    fn in_namespace(&self, arguments: &[&str]) -> Result<String> {
        let namespace = format!("--namespace={}", self.namespace);
        self.answer(&[arguments, &[namespace.as_str(), PATIENCE]].concat())
    }

    fn answer(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("run kubectl; it must be on the PATH")?;
        if !output.status.success() {
            bail!("kubectl: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("read what kubectl writes")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(&self.flags).args(arguments).stdin(Stdio::null());
        command
    }
}

/// What a watch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Something has changed.
    Changed,
    /// One of the watches ended, as the API server ends each after a while: look, and begin another.
    Ended,
}

/// What tells of changes.
pub struct Watch {
    children: Vec<Child>,
    changes: Receiver<News>,
    began: Instant,
}

impl Watch {
    /// Waits until something has changed, or the watch is over.
    pub fn next(&self) -> News {
        let mut news = self.changes.recv().unwrap_or(News::Ended);
        while let Ok(next) = self.changes.recv_timeout(BURST) {
            if next == News::Ended {
                news = next;
                break;
            }
        }
        if news == News::Ended {
            std::thread::sleep(SHORTEST_WATCH.saturating_sub(self.began.elapsed()));
        }
        news
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_that_is_meant_is_passed_on() {
        let cluster = ClusterArguments {
            context: Some("east".to_owned()),
            kubeconfig: Some("/tmp/config".into()),
            impersonated: None,
            namespace: "lamina-system".to_owned(),
        };
        let command = Kubectl::of(&cluster).command(&["get", "nodes"]);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(words, ["--context=east", "--kubeconfig=/tmp/config", "get", "nodes"]);
    }
}
