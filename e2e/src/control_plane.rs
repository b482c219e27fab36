//! A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with kubectl and
//! Helm beside it.

#![expect(clippy::disallowed_methods, reason = "it keeps its files in a folder and waits with a limit")]

pub mod binaries;
pub mod certificates;
pub mod kubeconfig;
mod servers;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::host::process::{Lifetime, Process, ProcessId};
use binaries::Binaries;
use certificates::Certificates;
use kubeconfig::{Credential, Kubeconfig};

/// The address under which a guest reaches the API server; it leads nowhere else.
pub const GUEST_ADDRESS: &str = "10.0.2.100";

/// The address of the API server's Service: the first one of the range that [`servers`] names.
pub const SERVICE_ADDRESS: &str = "10.0.0.1";

/// How long a server may take to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The file that says what runs, for programs that come later.
const RECORD: &str = "control-plane.json";

/// What a control plane is made of, and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether it ends with this process.
    pub lifetime: Lifetime,
    /// Which controllers run.
    pub controllers: Controllers,
}

/// Controllers and scheduler, without which nothing makes pods or default service accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controllers {
    /// For hosts that are plain Node objects: nobody judges the heartbeats that they do not have.
    WithoutHeartbeats,
    /// For nodes with a kubelet.
    All,
}

impl Default for Options {
    fn default() -> Self {
        Self { lifetime: Lifetime::Tethered, controllers: Controllers::WithoutHeartbeats }
    }
}

/// A running control plane whose files live in one folder.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    ports: Ports,
    lifetime: Lifetime,
    binaries: Binaries,
    etcd: Process,
    api_server: Option<Process>,
    controllers: Vec<Process>,
}

/// The ports on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) api: u16,
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
}

/// What a later program needs to find the same control plane.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    ports: Ports,
    etcd: ProcessId,
    api_server: Option<ProcessId>,
    controllers: Vec<ProcessId>,
}

/// What kubectl or helm left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Standard output.
    pub stdout: String,
    /// Standard error: warnings of the server arrive here.
    pub stderr: String,
    /// The exit code.
    pub code: i32,
}

impl ControlPlane {
    /// Starts everything with its files in `folder`, and returns when the API server is ready. etcd keeps its data
    /// there: a second start in the same folder finds the objects of the first.
    pub async fn start(folder: &Path, options: Options) -> Result<Self> {
        Self::start_on(folder, options, None).await
    }

    /// The same, with the API server on a port that somebody already told its hosts.
    pub async fn start_on(folder: &Path, options: Options, port: Option<u16>) -> Result<Self> {
        let binaries = Binaries::find().await?;
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let folder = folder.canonicalize().with_context(|| format!("resolving {}", folder.display()))?;
        Certificates::create(&folder)?;
        let free = free_ports()?;
        let ports = Ports { api: port.unwrap_or(free.api), ..free };
        let Options { lifetime, controllers } = options;
        let etcd = servers::etcd(&binaries, &folder, ports, lifetime)?;
        let mut this = Self { folder, ports, lifetime, binaries, etcd, api_server: None, controllers: Vec::new() };
        this.write_kubeconfigs()?;
        this.start_api_server().await?;
        this.controllers = servers::controllers(&this.binaries, &this.folder, controllers, this.lifetime)?;
        this.wait_for_service_accounts().await?;
        this.record()?;
        Ok(this)
    }

    /// A control plane that an earlier program started detached in `folder`.
    pub async fn attach(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD);
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let Record { ports, etcd, api_server, controllers } =
            serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            ports,
            lifetime: Lifetime::Detached,
            binaries: Binaries::find().await?,
            etcd: Process::attach(etcd),
            api_server: api_server.map(Process::attach),
            controllers: controllers.into_iter().map(Process::attach).collect(),
        })
    }

    /// The port of the API server on 127.0.0.1; the same after every restart of the server.
    pub fn port(&self) -> u16 {
        self.ports.api
    }

    /// Where its files, logs and kubeconfigs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig_admin(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A client with an administrator's rights.
    pub async fn client(&self) -> Result<Client> {
        kubeconfig::client(&self.kubeconfig_admin()).await
    }

    /// A kubeconfig for somebody on this machine.
    pub fn kubeconfig(&self, credential: Credential) -> Result<Kubeconfig> {
        let server = format!("https://127.0.0.1:{}", self.ports.api);
        Ok(Kubeconfig { server, authority: self.authority()?, credential })
    }

    /// A kubeconfig for somebody inside a guest.
    pub fn guest_kubeconfig(&self, credential: Credential) -> Result<Kubeconfig> {
        let server = format!("https://{}", crate::host::machine::API_SERVER);
        Ok(Kubeconfig { server, authority: self.authority()?, credential })
    }

    /// Ends the API server at once, as a power cut would; etcd and the objects stay.
    pub fn stop_api_server(&mut self) -> Result<()> {
        if let Some(mut server) = self.api_server.take() {
            server.kill().context("ending the API server")?;
        }
        self.record()
    }

    /// Starts the API server on its port and waits until it is ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_none() {
            self.api_server = Some(servers::api_server(&self.binaries, &self.folder, self.ports, self.lifetime)?);
        }
        self.wait_ready().await?;
        self.record()
    }

    /// Ends every process of this control plane.
    pub fn stop(&mut self) -> Result<()> {
        for mut controller in self.controllers.drain(..) {
            controller.kill().context("ending a controller")?;
        }
        self.stop_api_server()?;
        self.etcd.kill().context("ending etcd")
    }

    /// Runs kubectl as an administrator; a failure of kubectl is in the answer, not an error.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Said> {
        self.run(&self.binaries.kubectl, arguments, None).await
    }

    /// Runs kubectl with a text on its standard input.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<Said> {
        self.run(&self.binaries.kubectl, arguments, Some(input)).await
    }

    /// Runs Helm as an administrator.
    pub async fn helm(&self, arguments: &[&str]) -> Result<Said> {
        self.helm_at(&self.binaries.helm, arguments).await
    }

    /// Runs another Helm than this control plane's own.
    pub async fn helm_at(&self, program: &Path, arguments: &[&str]) -> Result<Said> {
        self.run(program, arguments, None).await
    }

    /// kubectl's path, for programs that hand over to it.
    pub fn kubectl_path(&self) -> &Path {
        &self.binaries.kubectl
    }

    /// Helm's path, for programs that hand over to it.
    pub fn helm_path(&self) -> &Path {
        &self.binaries.helm
    }

    async fn run(&self, program: &Path, arguments: &[&str], input: Option<&str>) -> Result<Said> {
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig_admin()).kill_on_drop(true);
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.folder.join("helm").join(folder));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        if let Some(mut pipe) = child.stdin.take() {
            use tokio::io::AsyncWriteExt;
            // A program that ends before it has read everything says why itself.
            let _ = pipe.write_all(input.unwrap_or_default().as_bytes()).await;
        }
        let output = child.wait_with_output().await.with_context(|| format!("waiting for {}", program.display()))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Ok(Said { stdout: text(output.stdout), stderr: text(output.stderr), code })
    }

    fn authority(&self) -> Result<String> {
        certificates::read(&self.folder, "ca.crt")
    }

    fn write_kubeconfigs(&self) -> Result<()> {
        for name in certificates::CLIENTS {
            let certificate = certificates::read(&self.folder, &format!("{name}.crt"))?;
            let key = certificates::read(&self.folder, &format!("{name}.key"))?;
            let path = self.folder.join(format!("{name}.kubeconfig"));
            self.kubeconfig(Credential::Certificate { certificate, key })?.write(&path)?;
        }
        Ok(())
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let client = self.client().await?;
        let begin = Instant::now();
        loop {
            let request = http_get("/readyz")?;
            let answer = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
            if matches!(&answer, Ok(Ok(text)) if text == "ok") {
                return Ok(());
            }
            let is_alive = self.api_server.as_mut().is_some_and(Process::is_alive);
            if !is_alive || begin.elapsed() > PATIENCE {
                let log = crate::host::tail(&self.folder.join("kube-apiserver.log"));
                bail!("the API server does not get ready ({answer:?}); its log ends with:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Pods are refused until the controllers have made the default service account.
    async fn wait_for_service_accounts(&self) -> Result<()> {
        let accounts: kube::Api<k8s_openapi::api::core::v1::ServiceAccount> =
            kube::Api::namespaced(self.client().await?, "default");
        let begin = Instant::now();
        while accounts.get_opt("default").await.context("looking for the default service account")?.is_none() {
            if begin.elapsed() > PATIENCE {
                let log = crate::host::tail(&self.folder.join("kube-controller-manager.log"));
                bail!("the controllers make no service account; their log ends with:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn record(&self) -> Result<()> {
        let record = Record {
            ports: self.ports,
            etcd: self.etcd.id().clone(),
            api_server: self.api_server.as_ref().map(|server| server.id().clone()),
            controllers: self.controllers.iter().map(|controller| controller.id().clone()).collect(),
        };
        let path = self.folder.join(RECORD);
        let text = serde_json::to_vec_pretty(&record).context("writing down what runs")?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

impl Said {
    /// The standard output of a program that must have succeeded.
    pub fn success(self) -> Result<String> {
        match self.code {
            0 => Ok(self.stdout),
            code => bail!("ended with {code}: {}{}", self.stderr, self.stdout),
        }
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    http::Request::get(path).body(Vec::new()).with_context(|| format!("asking for {path}"))
}

/// Ports nobody listens on now. All are held at once, so that they differ.
fn free_ports() -> Result<Ports> {
    let listeners: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<std::io::Result<_>>()
        .context("looking for free ports on 127.0.0.1")?;
    let port = |index: usize| listeners[index].local_addr().map(|address| address.port());
    Ok(Ports { api: port(0)?, etcd: port(1)?, etcd_peer: port(2)? })
}
