//! Lamina as users have it, on one machine: a control plane with the chart installed, the operator, and hosts with agents,
//! each under the identity that the chart gave it.

#![expect(clippy::disallowed_methods, reason = "it makes and lists the folders of hosts")]

pub mod agent;
pub mod example;
pub mod operator;
pub mod waiting;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use lamina_crds::{HostState, SliceTopology};

use crate::{
    cache::Cache,
    control_plane::{ControlPlane, Options},
    host::{Host, HostSpec, Lifetime, QemuHost},
    identity::{Identities, Identity},
};
use agent::AgentService;
use operator::Operator;

/// The namespace that the chart is installed into.
pub const NAMESPACE: &str = "lamina-system";
/// The name of the release.
pub const RELEASE: &str = "lamina";
/// The operators' Lease.
pub const LEASE: &str = "lamina-operator";

/// A control plane with Lamina on it and hosts that it manages.
pub struct Fleet {
    folder: PathBuf,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// The hosts by name.
    pub hosts: BTreeMap<String, QemuHost>,
    operators: Vec<Operator>,
    identities: Identities,
    client: Client,
}

impl Fleet {
    /// Starts a control plane in `folder` and installs the chart; no operator, no host yet.
    pub async fn install(folder: &Path, lifetime: Lifetime) -> Result<Self> {
        let control_plane =
            ControlPlane::start(&folder.join("control-plane"), Options { lifetime, ..Options::default() }).await?;
        Self::install_on(control_plane, folder).await
    }

    /// Installs the chart on a control plane that is there.
    pub async fn install_on(control_plane: ControlPlane, folder: &Path) -> Result<Self> {
        let chart = chart();
        let chart = chart.to_str().context("the chart's path is text")?;
        let create = ["install", RELEASE, chart, "--namespace", NAMESPACE, "--create-namespace"];
        control_plane.helm(&create).await?.success().context("helm install")?;
        let fleet = Self::bare(control_plane, folder).await?;
        fleet.wait_served().await?;
        Ok(fleet)
    }

    /// A control plane without chart, operator and hosts.
    pub async fn bare(control_plane: ControlPlane, folder: &Path) -> Result<Self> {
        let client = control_plane.client().await?;
        let identities = Identities::new(&control_plane.kubeconfig_admin(), NAMESPACE, RELEASE);
        let (folder, hosts) = (folder.to_owned(), BTreeMap::new());
        Ok(Self { folder, control_plane, hosts, operators: Vec::new(), identities, client })
    }

    /// Waits until the API server serves the custom resources.
    pub async fn wait_served(&self) -> Result<()> {
        waiting::until("the custom resource definitions are served", waiting::MINUTE, async || {
            let topologies = Api::<SliceTopology>::all(self.client()).list(&Default::default()).await;
            let hosts = Api::<HostState>::all(self.client()).list(&Default::default()).await;
            Ok(topologies.is_ok() && hosts.is_ok())
        })
        .await
        .map(drop)
    }

    /// A fleet that another program left running in `folder`.
    pub async fn attach(folder: &Path) -> Result<Self> {
        let control_plane = ControlPlane::attach(&folder.join("control-plane")).await?;
        let client = control_plane.client().await?;
        let identities = Identities::new(&control_plane.kubeconfig_admin(), NAMESPACE, RELEASE);
        let hosts = attached_hosts(folder)?.into_iter().map(|host| (host.name().to_owned(), host)).collect();
        Ok(Self {
            folder: folder.to_owned(),
            control_plane,
            hosts,
            operators: Operator::attach(folder),
            identities,
            client,
        })
    }

    /// Ends every process that a fleet left running in `folder`; one that never came up is fine.
    pub async fn take_down(folder: &Path) -> Result<()> {
        for mut host in attached_hosts(folder)? {
            host.cut_power()?;
        }
        for mut operator in Operator::attach(folder) {
            operator.kill()?;
        }
        match ControlPlane::attach(&folder.join("control-plane")).await {
            Ok(mut control_plane) => control_plane.stop(),
            // Without a record nothing was started that outlives its program.
            Err(_) => Ok(()),
        }
    }

    /// A client with an administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The pods and tokens of this fleet.
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Boots a host, registers it as a node with these labels, and starts its agent.
    pub async fn add_host(&mut self, cache: &Cache, spec: HostSpec, labels: &[(&str, &str)]) -> Result<()> {
        let name = spec.name.clone();
        let folder = self.folder.join("hosts").join(&name);
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let spec = spec.with_api_server(self.control_plane.port());
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (host, node) =
            tokio::join!(QemuHost::restore(cache, spec, &folder), self.identities.register(&name, &labels));
        node?;
        self.hosts.insert(name.clone(), host?);
        self.install_agent(&name).await?;
        self.start_agent(&name).await
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Result<&QemuHost> {
        self.hosts.get(name).with_context(|| format!("there is no host {name}"))
    }

    /// The host of this name, to reboot it or cut its power.
    pub fn host_mut(&mut self, name: &str) -> Result<&mut QemuHost> {
        self.hosts.get_mut(name).with_context(|| format!("there is no host {name}"))
    }

    /// Puts the agent and its credentials on a host, as the bound pod of the DaemonSet has them.
    pub async fn install_agent(&self, name: &str) -> Result<()> {
        let identity = Identity::Agent(name.to_owned());
        let token = self.identities.token(&identity).await?;
        let pod = self.identities.pod(&self.client, &identity).await?.context("a token has a pod")?;
        AgentService::of(&pod, name)?.install(self.host(name)?, &self.control_plane, &token).await
    }

    /// Starts a host's agent, now and at every boot.
    pub async fn start_agent(&self, name: &str) -> Result<()> {
        self.host(name)?.run("systemctl daemon-reload; systemctl enable --quiet --now lamina-agent").await.map(drop)
    }

    /// Ends a host's agent as a power cut would; systemd starts it again.
    pub async fn kill_agent(&self, name: &str) -> Result<()> {
        self.host(name)?.run("systemctl kill --signal=KILL lamina-agent").await.map(drop)
    }

    /// Ends a host's agent until it is started again.
    pub async fn stop_agent(&self, name: &str) -> Result<()> {
        self.host(name)?.run("systemctl stop lamina-agent").await.map(drop)
    }

    /// Starts an operator, as the bound pod of the Deployment would run it. There must be a host to bind it to.
    pub async fn start_operator(&mut self, lifetime: Lifetime) -> Result<()> {
        let token = self.identities.operator_token().await?;
        let pod = self.identities.pod(&self.client, &Identity::Operator).await?.context("a token has a pod")?;
        self.operators.push(Operator::start(&pod, &self.control_plane, &token, &self.folder, lifetime)?);
        Ok(())
    }

    /// Ends every operator as a power cut would.
    pub fn kill_operators(&mut self) -> Result<()> {
        if self.operators.is_empty() {
            bail!("no operator runs");
        }
        self.operators.drain(..).try_for_each(|mut operator| operator.kill())
    }

    /// The operators' processes, for those who watch them.
    pub fn operators(&self) -> &[Operator] {
        &self.operators
    }

    /// The operator of this name, to be ended by the caller.
    pub fn take_operator(&mut self, name: &str) -> Option<Operator> {
        let found = self.operators.iter().position(|operator| operator.name() == name)?;
        Some(self.operators.remove(found))
    }

    /// The name of the operator that holds the Lease, and its term.
    pub async fn leader(&self) -> Result<Option<(String, i32)>> {
        let leases: Api<Lease> = Api::namespaced(self.client(), NAMESPACE);
        let lease = leases.get_opt(LEASE).await.context("reading the operators' Lease")?;
        let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        // Behind the name stands what tells this process from those before it.
        let name = holder.rsplit_once('_').map(|(name, _)| name.to_owned());
        Ok(name.map(|name| (name, spec.lease_transitions.unwrap_or_default())))
    }

    /// Gives every agent and the operator a fresh token.
    pub async fn renew_tokens(&self) -> Result<()> {
        for (name, host) in &self.hosts {
            agent::renew(host, &self.identities.agent_token(name).await?).await?;
        }
        for operator in &self.operators {
            operator.renew(&self.identities.operator_token().await?)?;
        }
        Ok(())
    }

    /// `kubectl apply` of a text.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        self.control_plane.kubectl_with(&["apply", "-f", "-"], yaml).await?.success().context("kubectl apply")
    }

    /// kubectl, which must succeed; its standard output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let said = self.control_plane.kubectl(arguments).await?;
        said.success().with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// A topology as it is now.
    pub async fn topology(&self, name: &str) -> Result<SliceTopology> {
        Api::all(self.client()).get(name).await.with_context(|| format!("reading SliceTopology {name}"))
    }

    /// A host's object as it is now.
    pub async fn host_state(&self, name: &str) -> Result<HostState> {
        Api::all(self.client()).get(name).await.with_context(|| format!("reading HostState {name}"))
    }

    /// Waits with `kubectl wait` until the topology is Ready at its present generation.
    pub async fn wait_ready(&self, topology: &str, limit: Duration) -> Result<()> {
        let object = format!("slicetopology/{topology}");
        let timeout = format!("--timeout={}s", limit.as_secs());
        let said = self.control_plane.kubectl(&["wait", "--for=condition=Ready", &object, &timeout]).await?;
        match said.success() {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.dump().await)),
        }
    }

    /// Waits until a fact is true; on failure the error holds everything relevant.
    pub async fn wait(&self, what: &str, limit: Duration, fact: impl AsyncFn() -> Result<bool>) -> Result<()> {
        match waiting::until(what, limit, fact).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.dump().await)),
        }
    }

    /// Everything somebody would ask for who must find out why something did not happen.
    pub async fn dump(&self) -> String {
        let mut text = String::from("what there is:\n");
        for arguments in [
            ["get", "slicetopologies,hoststates", "-o", "yaml"].as_slice(),
            ["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"].as_slice(),
            ["get", "nodes,pods,leases", "-A"].as_slice(),
        ] {
            let said = self.control_plane.kubectl(arguments).await;
            let said =
                said.map(|said| format!("{}{}", said.stdout, said.stderr)).unwrap_or_else(|error| format!("{error:#}"));
            text.push_str(&format!("--- kubectl {}\n{said}\n", arguments.join(" ")));
        }
        for (name, host) in &self.hosts {
            let script = "systemctl list-units --all --no-pager --plain 'orchestrator*'; systemctl --failed --no-pager; \
                journalctl --no-pager -n 60 -u lamina-agent; tail -n 40 /var/log/pods/lamina*/*/*.log; \
                journalctl --no-pager -n 30 -p warning";
            let said = host.exec(script, waiting::MINUTE).await;
            let said =
                said.map(|said| format!("{}{}", said.stdout, said.stderr)).unwrap_or_else(|error| format!("{error:#}"));
            text.push_str(&format!("--- {name}\n{said}\n"));
        }
        for operator in &self.operators {
            text.push_str(&format!("--- {}\n{}\n", operator.name(), operator.log_tail()));
        }
        text
    }
}

/// The hosts in `folder` by name; one whose start was interrupted has left no record.
fn attached_hosts(folder: &Path) -> Result<Vec<QemuHost>> {
    let folder = folder.join("hosts");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths.iter().filter_map(|path| QemuHost::attach(path).ok()).collect())
}

/// The chart of this workspace.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/lamina")
}
