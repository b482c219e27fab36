//! An emulated machine as a host: restored from a snapshot, given an identity of its own, rebooted, cut from power.

#![expect(clippy::disallowed_methods, reason = "a host's record is a file, and its clock is set")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::{
    cache::Cache,
    host::{
        Host, Layout, Lifetime, Output, PATIENCE,
        channel::{Channel, Listener},
        keeper::{self, Order, Start},
        machine::{self, Machine, Reach},
        process::{Process, ProcessId},
        quoted, snapshot,
    },
    image::{Purpose, Suite},
    program::{self, output_of},
};

/// What is known about a guest, in its folder, for programs that come later.
const RECORD: &str = "host.json";

/// What a host should be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// Its name in the cluster, and its host name.
    pub name: String,
    /// What it runs.
    pub suite: Suite,
    /// Its CPUs and nodes.
    pub layout: Layout,
    /// The memory of each node, in MiB.
    pub node_mebibytes: u32,
    /// The loopback port of this machine where its API server listens, or will.
    pub api_port: Option<u16>,
    /// Whether it ends with the program that starts it.
    pub lifetime: Lifetime,
    /// What it has beside the distribution.
    #[serde(default)]
    pub purpose: Purpose,
    /// The loopback port of this machine where its registry of images listens, or will.
    #[serde(default)]
    pub registry_port: Option<u16>,
    /// The loopback port of this machine where its agent is asked how it is.
    #[serde(default)]
    pub agent_port: Option<u16>,
}

impl HostSpec {
    /// The running example's host: twenty CPUs on two nodes of 1.5 GiB, gone with this program.
    pub fn twenty(name: &str, suite: Suite) -> Self {
        Self {
            name: name.to_owned(),
            suite,
            layout: Layout::twenty(),
            node_mebibytes: 1536,
            api_port: None,
            lifetime: Lifetime::Tethered,
            purpose: Purpose::Plain,
            registry_port: None,
            agent_port: None,
        }
    }

    /// The same hardware as a Kubernetes node, which pulls images from the registry at `registry_port`.
    pub fn node(name: &str, suite: Suite, registry_port: u16) -> Self {
        Self { purpose: Purpose::Node, registry_port: Some(registry_port), ..Self::twenty(name, suite) }
    }

    /// The same host, which can reach the API server at `port` under [`machine::API_SERVER`].
    pub fn with_api_server(self, port: u16) -> Self {
        Self { api_port: Some(port), ..self }
    }

    fn reach(&self) -> Reach {
        Reach { api_server: self.api_port, registry: self.registry_port, agent: self.agent_port }
    }

    fn machine(&self) -> Machine {
        Machine { layout: self.layout.clone(), node_mebibytes: self.node_mebibytes }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    spec: HostSpec,
    keeper: ProcessId,
}

/// A running emulated machine.
#[derive(Debug)]
pub struct QemuHost {
    folder: PathBuf,
    record: Record,
    process: Process,
    channel: Channel,
}

impl QemuHost {
    /// Makes a host in the empty `folder`; it answers when this returns.
    pub async fn restore(cache: &Cache, spec: HostSpec, folder: &Path) -> Result<Self> {
        let snapshot = snapshot::snapshot(cache, spec.suite, spec.purpose, &spec.machine()).await?;
        let disk = folder.join(machine::DISK);
        output_of(Command::new("cp").arg("--sparse=always").arg(&snapshot.disk).arg(&disk)).await?;
        let arguments = [snapshot.arguments, machine::network(spec.reach())?].concat();
        Order { system: snapshot.system, arguments }.save(folder)?;
        let process = start_keeper(folder, Start::Restore, spec.lifetime)?;
        let record = Record { spec, keeper: process.id().clone() };
        let mut host = Self { folder: folder.to_owned(), channel: Channel::new(folder), record, process };
        host.save_record()?;
        host.wait_answering().await?;
        host.personalize().await?;
        Ok(host)
    }

    /// A host that another program left running in `folder`.
    pub fn attach(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let record: Record = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let process = Process::attach(record.keeper.clone());
        Ok(Self { folder: folder.to_owned(), channel: Channel::new(folder), record, process })
    }

    /// What the host was asked to be.
    pub fn spec(&self) -> &HostSpec {
        &self.record.spec
    }

    /// The process that keeps the machine running; the emulator ends with it.
    pub fn process(&self) -> &ProcessId {
        self.process.id()
    }

    /// The log of its kernel and boot.
    pub fn console(&self) -> PathBuf {
        self.folder.join(machine::CONSOLE)
    }

    /// Whether the machine runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_alive()
    }

    /// Waits until the host answers, as after a boot.
    pub async fn wait_answering(&mut self) -> Result<()> {
        let answered = snapshot::wait_answering(&self.channel, &mut self.process, &self.folder, snapshot::BOOT).await;
        answered.with_context(|| format!("waiting for host {}", self.record.spec.name))
    }

    /// Runs a script whose output goes to `listener` as it comes; tells its exit code.
    pub async fn exec_to(&self, script: &str, limit: Duration, listener: Listener) -> Result<i64> {
        let code = self.channel.exec_to(script, limit, listener).await;
        code.with_context(|| format!("commanding host {}", self.record.spec.name))
    }

    /// Restarts the host as `systemctl reboot` does, and waits until it has booted.
    pub async fn reboot(&mut self) -> Result<()> {
        let before = self.boot_id().await?;
        // The host may be gone before it can tell how the command ended.
        let _ = self.exec("systemctl --no-block reboot", PATIENCE).await;
        let begin = Instant::now();
        while self.boot_id().await.ok().is_none_or(|now| now == before) {
            if begin.elapsed() > snapshot::BOOT {
                bail!("host {} does not come back from its reboot", self.record.spec.name);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.wait_answering().await?;
        }
        self.wait_booted().await.map(drop)
    }

    /// Cuts the power.
    pub fn cut_power(&mut self) -> Result<()> {
        let cut = self.process.kill().and_then(|()| keeper::end_emulator(&self.folder));
        cut.with_context(|| format!("cutting the power of host {}", self.record.spec.name))
    }

    /// Starts the host from its disk, as it was when the power was cut, and waits until it has booted.
    pub async fn power_on(&mut self) -> Result<()> {
        self.process = start_keeper(&self.folder, Start::Boot, self.record.spec.lifetime)?;
        self.record.keeper = self.process.id().clone();
        self.save_record()?;
        self.wait_answering().await?;
        self.wait_booted().await.map(drop)
    }

    /// Cuts the power and starts the host again.
    pub async fn power_cycle(&mut self) -> Result<()> {
        self.cut_power()?;
        self.power_on().await
    }

    async fn boot_id(&self) -> Result<String> {
        self.channel.answers(Duration::from_secs(5)).await?;
        self.run("cat /proc/sys/kernel/random/boot_id").await
    }

    fn save_record(&self) -> Result<()> {
        let path = self.folder.join(RECORD);
        let text = serde_json::to_string_pretty(&self.record).context("describing a host")?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// All copies of a snapshot share clock, random numbers and machine id; from here on they are different machines.
    ///
    /// The journal is restarted because it files its entries under the machine id it started with.
    async fn personalize(&self) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("reading the clock")?;
        let name = quoted(&self.record.spec.name);
        let script = format!(
            "set -e
            date -s @{}.{:09} > /dev/null
            perl -e 'open(my $r, \"+<\", \"/dev/urandom\") or die $!; syswrite($r, \"{}\") or die $!; \
                     ioctl($r, 0x5207, 0) or die $!'
            tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
            echo {name} > /etc/hostname
            hostname {name}
            systemctl restart systemd-journald",
            now.as_secs(),
            now.subsec_nanos(),
            entropy()?,
        );
        self.run(&script).await.map(drop).context("giving a restored machine its identity")
    }
}

impl Host for QemuHost {
    fn name(&self) -> &str {
        &self.record.spec.name
    }

    async fn exec(&self, script: &str, limit: Duration) -> Result<Output> {
        let output = self.channel.exec(script, limit).await;
        output.with_context(|| format!("commanding host {}", self.record.spec.name))
    }

    async fn put(&self, path: &str, mode: u32, content: Vec<u8>) -> Result<()> {
        let written = tokio::time::timeout(PATIENCE, self.channel.put(path, mode, content)).await;
        written.context("the host takes no files")?.with_context(|| format!("on host {}", self.record.spec.name))
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>> {
        self.channel.get(path).await.with_context(|| format!("on host {}", self.record.spec.name))
    }
}

impl Drop for QemuHost {
    fn drop(&mut self) {
        if self.process.lifetime() == Lifetime::Tethered {
            let _ = self.cut_power();
        }
    }
}

fn start_keeper(folder: &Path, start: Start, lifetime: Lifetime) -> Result<Process> {
    let start = match start {
        Start::Restore => "restore",
        Start::Boot => "boot",
    };
    let arguments = ["keep", start].map(ToOwned::to_owned);
    Process::start(&program::built("lamina-lab")?, &arguments, folder, snapshot::LOG, lifetime)
}

/// Random bytes of this machine, as hexadecimal digits.
fn entropy() -> Result<String> {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes).context("reading random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
