//! Lamina on a real node: a guest with kubelet and container runtime joins a control plane, and pulls images of this
//! checkout from a registry on loopback. Nothing of Lamina runs but what the chart's pods run.

pub mod images;
pub mod join;
pub mod stages;
pub mod story;

use anyhow::{Context, Result};

use crate::{
    cache::Cache,
    control_plane::{ControlPlane, Controllers, Options, binaries::NodeBinaries},
    fleet::{
        Fleet, RELEASE,
        example::{Example, HOST, TOPOLOGY},
    },
    host::{Host, HostSpec, QemuHost, scratch::Scratch},
    image::Suite,
    registry::Registry,
};
use images::Release;
use stages::Stages;

/// How long pods may take on an emulated machine that others keep busy.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(300);

/// A cluster of one node.
pub struct Node {
    /// The control plane and the host, and the questions that tests ask the running example.
    pub example: Example,
    /// Where its images come from.
    pub registry: Registry,
    /// What took how long.
    pub stages: Stages,
}

impl Node {
    /// From nothing to a node that is Ready, which the running example's topology selects. No Lamina yet.
    pub async fn up() -> Result<Self> {
        let cache = Cache::open()?;
        let scratch = Scratch::new(&cache, "node")?;
        // Before there is a machine that wants the same processors.
        NodeBinaries::find().await?;
        images::prepare().await?;
        let mut stages = Stages::begin();
        let registry = Registry::start(&cache, scratch.path()).await?;
        let options = Options { controllers: Controllers::All, ..Options::default() };
        let control_plane = ControlPlane::start(&scratch.path().join("control-plane"), options).await?;
        stages.reached("registry and control plane answer");
        let folder = scratch.path().join("hosts").join(HOST);
        create(&folder)?;
        let spec = HostSpec::node(HOST, Suite::Bookworm, registry.port()).with_api_server(control_plane.port());
        let host = QemuHost::restore(&cache, spec, &folder).await?;
        stages.reached("the machine is restored");
        let mut fleet = Fleet::bare(control_plane, scratch.path()).await?;
        join::join(&host, &fleet.control_plane, &join::Settings::default()).await?;
        fleet.hosts.insert(HOST.to_owned(), host);
        join::wait_ready(&fleet, HOST).await?;
        fleet.kubectl(&["label", "node", HOST, "lamina.dev/role=orchestrator"]).await?;
        stages.reached("its kubelet has joined, the node is Ready");
        Ok(Self { example: Example::on(fleet, scratch), registry, stages })
    }

    /// Builds the images of this checkout and sends them to the registry, as `version`.
    pub async fn publish(&self, version: &str) -> Result<Release> {
        Release::publish(&self.registry, version).await
    }

    /// Helm brings `chart` with the images of `release` into `namespace`.
    pub async fn bring(&self, verb: &[&str], chart: &str, namespace: &str, release: &Release) -> Result<String> {
        let values = release.values();
        let mut arguments = [verb, &[RELEASE, chart, "--namespace", namespace]].concat();
        arguments.extend(values.iter().map(String::as_str));
        self.helm(&arguments).await
    }

    /// Helm with these arguments, which must succeed.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let said = self.example.fleet.control_plane.helm(arguments).await?;
        said.success().with_context(|| format!("helm {}", arguments.join(" ")))
    }

    /// Waits until all of Lamina's pods in `namespace` are what was asked for last, and ready.
    pub async fn rolled_out(&self, namespace: &str) -> Result<()> {
        for object in ["deployment/lamina-operator", "daemonset/lamina-agent"] {
            let timeout = format!("--timeout={}s", PATIENCE.as_secs());
            let arguments = ["rollout", "status", object, "--namespace", namespace, &timeout];
            if let Err(error) = self.example.fleet.kubectl(&arguments).await {
                return Err(error.context(self.example.fleet.dump().await));
            }
        }
        Ok(())
    }

    /// Waits until Lamina works in `namespace` again: its pods are ready, and the agent keeps a Lease there.
    pub async fn works(&self, namespace: &str) -> Result<()> {
        self.rolled_out(namespace).await?;
        let fleet = &self.example.fleet;
        let arguments = ["get", "lease", HOST, "--namespace", namespace, "-o", "name"];
        let keeps = async || Ok(fleet.control_plane.kubectl(&arguments).await?.code == 0);
        fleet.wait("the agent keeps its Lease", PATIENCE, keeps).await?;
        fleet.wait_ready(TOPOLOGY, PATIENCE).await
    }

    /// Waits until no pod of Lamina is left, as after an uninstallation.
    pub async fn pods_gone(&self) -> Result<()> {
        let gone = async || Ok(self.pods().await? == 0);
        self.example.fleet.wait("no pod of Lamina is left", PATIENCE, gone).await
    }

    /// How many pods of Lamina there are.
    pub async fn pods(&self) -> Result<usize> {
        let arguments = ["get", "pods", "-A", "-l", "app.kubernetes.io/part-of=lamina", "-o", "name"];
        Ok(self.example.fleet.kubectl(&arguments).await?.lines().count())
    }

    /// Output of a script on the node, as root there.
    pub async fn run(&self, script: &str) -> Result<String> {
        self.example.host()?.run(script).await
    }
}

#[expect(clippy::disallowed_methods, reason = "a host has a folder")]
fn create(folder: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))
}
