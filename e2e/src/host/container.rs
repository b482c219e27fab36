//! A container with a real systemd as a host: native speed, no cgroup controllers, this machine's kernel.

#![expect(clippy::disallowed_methods, reason = "containers are found in /proc and waited for")]

use std::{
    fs,
    io::{Read, Seek},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    cache::Cache,
    host::{Host, Lifetime, Output, process::Process, process::ProcessId, quoted, scratch::Scratch, tail},
    image::{Purpose, Suite, disk, root},
    program::stripped,
};

/// A container boots in less than a second, and takes much longer on a busy machine.
const BOOT: Duration = Duration::from_secs(60);

/// What the container's first process says, in its folder.
const LOG: &str = "nspawn.log";

/// A running container.
#[derive(Debug)]
pub struct NspawnHost {
    name: String,
    process: Process,
    leader: ProcessId,
    scratch: Scratch,
}

impl NspawnHost {
    /// Boots `suite` over a throw-away layer; it has booted when this returns, and ends when dropped.
    ///
    /// It has no network, so that nothing in it can reach anything.
    pub async fn boot(cache: &Cache, name: &str, suite: Suite) -> Result<Self> {
        let root = root::root(cache, suite, Purpose::Plain).await?;
        let scratch = Scratch::new(cache, name)?;
        let programs = scratch.path().join("bin");
        fs::create_dir(&programs).with_context(|| format!("creating {}", programs.display()))?;
        disk::install_workloads(&programs, &stripped("lamina-workload").await?)?;
        let machine = format!("lab-{}-{name}", std::process::id());
        let arguments = arguments(&root, &machine, &programs);
        let system = Path::new("/usr/bin/env");
        let process = Process::start(system, &arguments, scratch.path(), LOG, Lifetime::Tethered)?;
        let (process, leader) = wait_leader(process, scratch.path()).await?;
        let host = Self { name: name.to_owned(), process, leader, scratch };
        host.wait_running().await?;
        host.run(&format!("hostname {}", quoted(name))).await?;
        Ok(host)
    }

    /// The process number, on this machine, of the container's PID 1.
    pub fn leader(&self) -> i32 {
        self.leader.pid
    }

    /// What the container says on its console ends here.
    pub fn console(&self) -> std::path::PathBuf {
        self.scratch.path().join(LOG)
    }

    /// Ends the container at once, as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.leader.kill()?;
        self.process.kill()
    }

    async fn wait_running(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let state = self.wait_booted().await?;
            match state.as_str() {
                "running" => return Ok(()),
                "degraded" => {
                    let failed = self.run("systemctl --failed --plain --no-legend").await?;
                    bail!("container {} has booted with failures: {failed}", self.name);
                }
                _ if begin.elapsed() > BOOT => bail!("container {} does not boot: {state}", self.name),
                // The bus does not answer yet.
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// A command inside all of the container's namespaces.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader.pid.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--"]).args(words);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .kill_on_drop(true);
        command
    }
}

impl Drop for NspawnHost {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

impl Host for NspawnHost {
    fn name(&self) -> &str {
        &self.name
    }

    async fn exec(&self, script: &str, limit: Duration) -> Result<Output> {
        let described = format!("commanding host {}", self.name);
        let seconds = limit.as_secs().to_string();
        let mut command = self.inside(&["timeout", "--kill-after=5", &seconds, "/bin/bash", "-c", script]);
        // Files, not pipes: what a script leaves running would keep a pipe open, and the end waiting.
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let status = command.status().await.context(described)?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).map_or(0, |signal| -i64::from(signal));
        let code = status.code().map_or(signal, i64::from);
        Ok(Output { stdout: content(stdout)?, stderr: content(stderr)?, code })
    }

    async fn put(&self, path: &str, mode: u32, content: Vec<u8>) -> Result<()> {
        let path = quoted(path);
        let script = format!(
            "set -e; mkdir -p \"$(dirname {path})\"; cat > {path}.lamina-put; chmod {mode:o} {path}.lamina-put
             mv -f {path}.lamina-put {path}"
        );
        let mut child =
            self.inside(&["/bin/bash", "-c", &script]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("the command has a standard input")?;
        stdin.write_all(&content).await.with_context(|| format!("sending {path} to host {}", self.name))?;
        drop(stdin);
        let output = child.wait_with_output().await.with_context(|| format!("writing {path} on host {}", self.name))?;
        if !output.status.success() {
            bail!("writing {path} on host {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.inside(&["cat", "--", path]).output().await;
        let output = output.with_context(|| format!("reading {path} on host {}", self.name))?;
        if !output.status.success() {
            bail!("reading {path} on host {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }
}

fn content(mut file: fs::File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context("reading what a command wrote")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn arguments(root: &Path, machine: &str, programs: &Path) -> Vec<String> {
    let programs = format!("--bind-ro={}:/{}", programs.display(), disk::WORKLOAD_FOLDER);
    let root = root.display().to_string();
    [
        // Without it the container gets a mixture of both cgroup versions where this machine has one.
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--console=pipe",
        "--volatile=overlay",
        "--private-network",
        "--directory",
        &root,
        "--machine",
        machine,
        &programs,
        // What follows is a container's kernel command line. Kernel variables are this machine's, and not ours to set.
        "systemd.mask=systemd-sysctl.service",
    ]
    .map(ToOwned::to_owned)
    .to_vec()
}

/// The container's PID 1 is the child of nspawn that lives in another process namespace.
async fn wait_leader(mut process: Process, folder: &Path) -> Result<(Process, ProcessId)> {
    let begin = Instant::now();
    loop {
        if let Some(leader) = leader_of(process.id().pid) {
            return Ok((process, ProcessId::of(leader)?));
        }
        if !process.is_alive() || begin.elapsed() > BOOT {
            bail!("the container does not start: {}", tail(&folder.join(LOG)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn leader_of(parent: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child| is_init(*child))
}

/// Systemd has taken over once the first process of the namespace offers its socket.
fn is_init(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let is_first = numbers.split_whitespace().nth(1) == Some("1");
    is_first && Path::new(&format!("/proc/{pid}/root/run/systemd/private")).exists()
}
