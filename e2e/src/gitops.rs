//! A fleet that is kept from Git: a control plane, repositories served over HTTP on loopback, and what applies them.

#![expect(clippy::disallowed_methods, reason = "it reads the manifests that users copy, and waits")]

pub mod argo;
pub mod binaries;
pub mod flux;
pub mod redis;
pub mod repository;
pub mod server;
pub mod subject;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use lamina_crds::CpuSet;
use serde_json::Value;

use crate::{
    cache::Cache,
    control_plane::{ControlPlane, Options},
    fleet::{Fleet, example::HOST, waiting},
    host::{Host, HostSpec, Lifetime, scratch::Scratch},
    image::Suite,
};
use repository::{Commit, Repository};
use server::GitServer;

/// The manifests that users copy.
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gitops");
/// Where the manifests say that the users' own repository is.
const FLEET_URL: &str = "https://git.example.com/fleet.git";
/// Where the manifests say that a copy of Lamina's repository is.
const LAMINA_URL: &str = "https://git.example.com/lamina.git";
/// Where the manifests say that the cluster is, seen from Argo CD inside of it.
const CLUSTER_URL: &str = "https://kubernetes.default.svc";

/// Makes the kinds known whose definitions lie in these files or folders.
async fn make_known(control_plane: &ControlPlane, definitions: &[PathBuf]) -> Result<()> {
    for path in definitions {
        let path = path.to_str().context("a path is text")?;
        let apply = ["apply", "--server-side", "-f", path];
        control_plane.kubectl(&apply).await?.success().with_context(|| format!("making the kinds of {path} known"))?;
    }
    // A definition that nobody has looked at yet has no status, which kubectl takes for an error.
    let wait = ["wait", "crd", "--all", "--timeout=10s", "--for=condition=Established"];
    let served = async || Ok(control_plane.kubectl(&wait).await?.code == 0);
    waiting::until("the kinds are served", waiting::MINUTE, served).await.map(drop)
}

/// A control plane, and the two repositories that the manifests speak of.
pub struct GitFleet {
    /// The control plane, and Lamina on it once it is there.
    pub fleet: Fleet,
    /// The users' own repository.
    pub repository: Repository,
    server: GitServer,
    /// Dropped last: the folder everything lies in.
    scratch: Scratch,
}

impl GitFleet {
    /// Starts a control plane and serves this checkout's charts, tagged with their version, and an empty repository.
    pub async fn begin() -> Result<Self> {
        let scratch = Scratch::new(&Cache::open()?, "gitops")?;
        let control_plane = ControlPlane::start(&scratch.path().join("control-plane"), Options::default()).await?;
        let fleet = Fleet::bare(control_plane, scratch.path()).await?;
        let server = GitServer::start(&scratch.path().join("git")).await?;
        let lamina = server.repository("lamina").await?;
        lamina.bring(&Path::new(MANIFESTS).join("../charts")).await?;
        lamina.commit("charts").await?;
        lamina.tag(&format!("v{}", env!("CARGO_PKG_VERSION"))).await?;
        let repository = server.repository("fleet").await?;
        Ok(Self { fleet, repository, server, scratch })
    }

    /// Where everything lies.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// A manifest as users copy it, with the two addresses that they are told to replace. Nobody here lives in the cluster,
    /// so its address is another one, too.
    pub fn manifest(&self, path: &str) -> Result<String> {
        let path = Path::new(MANIFESTS).join(path);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = text.replace(FLEET_URL, &self.fleet_url()).replace(LAMINA_URL, &self.lamina_url());
        Ok(text.replace(CLUSTER_URL, &argo::server(&self.fleet.control_plane)))
    }

    /// Where the users' repository is fetched from.
    pub fn fleet_url(&self) -> String {
        self.server.url("fleet")
    }

    /// Where Lamina's repository is fetched from.
    pub fn lamina_url(&self) -> String {
        self.server.url("lamina")
    }

    /// Where a manifest lies.
    pub fn path(path: &str) -> Result<String> {
        let path = Path::new(MANIFESTS).join(path);
        path.to_str().map(str::to_owned).with_context(|| format!("{} is text", path.display()))
    }

    /// Writes one object into the users' repository.
    pub fn write(&self, path: &str, object: &Value) -> Result<()> {
        self.repository.write(path, &format!("{object:#}\n"))
    }

    /// Commits one object.
    pub async fn commit(&self, path: &str, object: &Value) -> Result<Commit> {
        self.write(path, object)?;
        self.repository.commit(path).await
    }

    /// Does a kubelet's part for Lamina's pods while `work` goes on: without it no installation is ever complete.
    pub async fn with_pods<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let identities = self.fleet.identities();
        identities.register(HOST, &Default::default()).await?;
        let pods = async {
            loop {
                // Before the chart is there, there is nothing to find.
                let _ = identities.settle_pods().await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            outcome = work => outcome,
            () = pods => unreachable!("the loop has no end"),
        }
    }

    /// Boots a host with its agent, and starts the operator. The chart must be installed.
    pub async fn populate(&mut self) -> Result<()> {
        let labels = [("lamina.dev/role", "orchestrator")];
        let spec = HostSpec::twenty(HOST, Suite::Bookworm);
        self.fleet.add_host(&Cache::open()?, spec, &labels).await?;
        self.fleet.start_operator(Lifetime::Tethered).await
    }

    /// How many CPUs the slice of a topology has on the host, by the kernel.
    pub async fn cpus(&self, topology: &str) -> Result<usize> {
        let file = format!("/sys/fs/cgroup/{topology}.slice/{topology}-only.slice/cpuset.cpus.effective");
        let told = self.fleet.host(HOST)?.run(&format!("cat {file}")).await?;
        let set: CpuSet = told.trim().parse().with_context(|| format!("understanding `{told}` of {file}"))?;
        Ok(set.len())
    }

    /// Whether the service of a topology runs on the host.
    pub async fn is_active(&self, topology: &str) -> Result<bool> {
        let script = format!("systemctl is-active {topology}-sleeper.service || true");
        Ok(self.fleet.host(HOST)?.run(&script).await?.trim() == "active")
    }

    /// What stays the same of a topology's service as long as it is not restarted.
    pub async fn life(&self, topology: &str) -> Result<String> {
        let script = format!("systemctl show -p MainPID,InvocationID,ActiveState {topology}-sleeper.service");
        self.fleet.host(HOST)?.run(&script).await
    }
}
