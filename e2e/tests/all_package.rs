//! The whole path of a host that is no Kubernetes node: run without a cluster, then joined as the documentation says, by
//! the Debian package; rebooted, upgraded, removed and installed again. Nothing it runs is ever restarted for any of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamina_e2e::cache::Cache;
use lamina_e2e::control_plane::kubeconfig;
use lamina_e2e::deb::Package;
use lamina_e2e::fleet::{Fleet, example, waiting};
use lamina_e2e::guide::{self, agrees_in_shape, blocks, steps};
use lamina_e2e::host::machine::API_SERVER;
use lamina_e2e::host::scratch::Scratch;
use lamina_e2e::host::{Host, HostSpec, Lifetime, Output, QemuHost};
use lamina_e2e::image::Suite;
use lamina_e2e::program;
use serde_json::Value;
use tokio::process::Command;

/// What strangers read.
const GUIDE: &str = include_str!("../../docs/hosts-without-kubelet.md");
/// The host, as the guide calls it.
const HOST: &str = "host-12";
/// How long a command that starts eight services may take in an emulated machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// The unit that the package brings.
const AGENT: &str = "lamina-node-agent.service";
/// A topology that needs little.
const SMALL: &str = "apiVersion: lamina.dev/v1alpha1
kind: SliceTopology
metadata: { name: small }
spec:
  hostSelector: { matchLabels: { a: b } }
  files: [{ name: small.env, content: 'PORT=9000' }]
  slices: [{ name: one, cpu: { cores: 1 } }]
  services: [{ name: worker, slice: one, user: orchestrator, command: [/usr/bin/sleep, infinity] }]
";

/// A cluster with Lamina, and a host that it does not know.
struct World {
    fleet: Fleet,
    host: QemuHost,
    folder: PathBuf,
    _scratch: Scratch,
}

impl World {
    async fn new(suite: Suite) -> Result<Self> {
        let cache = Cache::open()?;
        let scratch = Scratch::new(&cache, "package")?;
        let folder = scratch.path().to_owned();
        let mut fleet = Fleet::install(&folder, Lifetime::Tethered).await?;
        // The operator runs somewhere; no topology selects that node.
        fleet.identities().register("elsewhere", &Default::default()).await?;
        fleet.start_operator(Lifetime::Tethered).await?;
        let guest = folder.join("guest");
        tokio::fs::create_dir_all(&guest).await.context("making a folder for the guest")?;
        let spec = HostSpec::twenty(HOST, suite).with_api_server(fleet.control_plane.port());
        let host = QemuHost::restore(&cache, spec, &guest).await?;
        Ok(Self { fleet, host, folder, _scratch: scratch })
    }

    /// Brings a package to the host, where the guide expects it.
    async fn deliver(&self, package: Package, revision: u32) -> Result<()> {
        let folder = self.folder.join("packages");
        let path = match package.find(revision, &folder) {
            Ok(path) => path,
            Err(_) => package.build(&program::built(package.name())?, revision, &folder).await?,
        };
        let content = read(&path).await?;
        let name = path.file_name().and_then(|name| name.to_str()).context("a package has a name")?;
        self.host.put(&format!("/root/{name}"), 0o644, content).await
    }

    /// The same program gives the same package.
    async fn build_again(&self, package: Package) -> Result<()> {
        let program = program::built(package.name())?;
        let again = package.build(&program, 1, &self.folder.join("again")).await?;
        let first = package.find(1, &self.folder.join("packages"))?;
        ensure!(read(&first).await? == read(&again).await?, "{} is not the same twice", package.name());
        Ok(())
    }

    async fn install_again(&self, revision: u32) -> Result<()> {
        self.deliver(Package::NodeAgent, revision).await?;
        self.host.run(&format!("dpkg -i /root/lamina-node-agent_*-{revision}_amd64.deb")).await.map(drop)
    }

    /// Every process of the example and the invocation it belongs to.
    async fn lives(&self) -> Result<String> {
        let show = "systemctl show -p Id,MainPID,InvocationID 'orchestrator-*.service'";
        let lives = self.host.run(show).await?;
        ensure!(
            lives.matches("MainPID=").count() == 8 && !lives.contains("MainPID=0\n"),
            "not all services run: {lives}"
        );
        Ok(lives)
    }

    /// The same lives, and the CPUs as the kernel has them.
    async fn expect_untouched(&self, lives: &str, after: &str) -> Result<()> {
        let now = self.lives().await?;
        ensure!(now == lives, "{after} restarted a service:\n{lives}\n{now}");
        self.expect_pinned(after).await
    }

    async fn expect_pinned(&self, after: &str) -> Result<()> {
        for (slice, cpus) in [("control", "0-7"), ("runner", "8-15"), ("fanout", "16-19")] {
            let seen = self.host.run(&format!("cat {}/cpuset.cpus.effective", cgroup(slice))).await?;
            ensure!(seen == cpus, "{slice} has CPUs {seen} after {after}");
        }
        Ok(())
    }

    /// `kubectl lamina local`, which must end with this exit code.
    async fn local(&self, arguments: &str, code: i64) -> Result<String> {
        let line = format!("kubectl-lamina local {arguments}");
        let Output { stdout, stderr, code: found } = self.host.exec(&line, PATIENCE).await?;
        ensure!(found == code, "`{line}` ended with {found} instead of {code}: {stderr}{stdout}");
        Ok(format!("{stdout}{stderr}"))
    }

    /// Runs a block of the guide as its reader at the cluster would.
    async fn as_admin(&self, block: &str) -> Result<()> {
        let tools = self.fleet.control_plane.kubectl_path().parent().context("kubectl lies in a folder")?;
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", block]).current_dir(&self.folder).env("PATH", path);
        command.env("KUBECONFIG", self.fleet.control_plane.kubeconfig_admin());
        let output = command.output().await.context("running a block of the guide")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "this block of the guide failed:\n{block}\n{said}");
        Ok(())
    }

    async fn host_state(&self) -> Result<Value> {
        serde_json::to_value(self.fleet.host_state(HOST).await?).context("reading the HostState")
    }

    /// What somebody would ask for who must find out why.
    async fn dump(&self) -> String {
        let script = format!("journalctl --no-pager -n 60 -u {AGENT}; systemctl status {AGENT}");
        let said = self.host.exec(&script, PATIENCE).await;
        let said = said.map(|said| said.stdout).unwrap_or_else(|error| format!("{error:#}"));
        format!("{}\n--- {HOST}\n{said}", self.fleet.dump().await)
    }

    /// What came of something, and on failure everything that explains it.
    async fn told(&self, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.dump().await)),
        }
    }

    async fn wait(&self, what: &str, fact: impl AsyncFn() -> Result<bool>) -> Result<()> {
        self.told(waiting::until(what, PATIENCE, fact).await.map(drop)).await
    }
}

fn cgroup(slice: &str) -> String {
    format!("/sys/fs/cgroup/orchestrator.slice/orchestrator-{slice}.slice")
}

async fn read(path: &Path) -> Result<Vec<u8>> {
    tokio::fs::read(path).await.with_context(|| format!("reading {}", path.display()))
}

#[tokio::test]
async fn a_host_runs_alone_joins_by_the_guide_and_keeps_its_processes_on_systemd_252() -> Result<()> {
    a_host_runs_alone_joins_by_the_guide_and_keeps_its_processes(Suite::Bookworm).await
}

#[tokio::test]
async fn a_host_runs_alone_joins_by_the_guide_and_keeps_its_processes_on_systemd_257() -> Result<()> {
    a_host_runs_alone_joins_by_the_guide_and_keeps_its_processes(Suite::Trixie).await
}

async fn a_host_runs_alone_joins_by_the_guide_and_keeps_its_processes(suite: Suite) -> Result<()> {
    let mut world = World::new(suite).await?;
    world.deliver(Package::Kubectl, 1).await?;
    world.host.run("dpkg -i /root/kubectl-lamina_*.deb").await?;
    world.build_again(Package::Kubectl).await?;
    comes_and_goes(&world).await?;
    runs_alone(&world).await?;
    heals_while_watched(&world).await?;
    is_released_and_taken_again(&world).await?;
    joins_by_the_guide(&world).await?;
    follows_the_cluster(&world).await?;
    boots_without_an_api_server(&mut world).await?;
    is_upgraded_removed_and_installed_again(&mut world).await
}

/// One command brings the example up, measured, and tells what the guide shows; the second one does nothing.
async fn runs_alone(world: &World) -> Result<()> {
    world.host.put("/root/orchestrator.yaml", 0o644, example::text()?.into_bytes()).await?;
    let ahead = world.local("-f /root/orchestrator.yaml --dry-run", 2).await?;
    println!("{ahead}");
    ensure!(ahead.contains("recreate  orchestrator-control.slice") && ahead.contains("reload"), "{ahead}");
    ensure!(world.host.run("ls /etc/systemd/system | grep -c orchestrator; true").await? == "0", "a look ahead wrote");
    let told = world.local("-f /root/orchestrator.yaml", 0).await?;
    println!("{told}");
    ensure!(told.contains("control  8 cores, NUMA node #0") && told.contains("16-19"), "{told}");
    for (step, found) in steps(GUIDE, "local").iter().zip([&ahead, &told]) {
        ensure!(agrees_in_shape(&step.answer, found), "`{}` answers\n{found}\nand not {:#?}", step.line, step.answer);
    }
    ensure!(steps(GUIDE, "local").len() == 2, "the guide shows a look ahead and a run");
    world.expect_pinned("a run without a cluster").await?;
    let lives = world.lives().await?;
    let again = world.local("-f /root/orchestrator.yaml", 0).await?;
    ensure!(again.starts_with("nothing had to be done"), "the second run: {again}");
    world.local("-f /root/orchestrator.yaml --dry-run", 0).await?;
    let other = world.local("-f /root/orchestrator.yaml --label lamina.dev/role=other", 0).await?;
    ensure!(other.contains("orchestrator: its hostSelector does not mean these labels"), "{other}");
    world.expect_untouched(&lives, "running again").await
}

/// `--watch` heals at once, holds the lock, and lets go of it when it ends.
async fn heals_while_watched(world: &World) -> Result<()> {
    let lives = world.lives().await?;
    world.host.run("systemd-run --quiet --unit=watching kubectl-lamina local --keep --watch").await?;
    world
        .wait("the watching command has measured", async || {
            Ok(world.host.run("journalctl --no-pager -u watching").await?.contains("as it was asked to be"))
        })
        .await?;
    world.host.run(&format!("echo 0-3 > {}/cpuset.cpus", cgroup("control"))).await?;
    let healed = async || Ok(world.host.run(&format!("cat {}/cpuset.cpus", cgroup("control"))).await? == "0-7");
    world.wait("a write into the cgroup is healed", healed).await?;
    let told =
        async || Ok(world.host.run("journalctl --no-pager -u watching").await?.contains("orchestrator-control.slice"));
    world.wait("the heal is told", told).await?;
    let second = world.local("--keep", 1).await?;
    ensure!(second.contains("another agent works on this host") && second.contains("process "), "{second}");
    world.host.run("systemctl stop watching").await?;
    world.expect_untouched(&lives, "watching").await
}

/// What was started is stopped and gone, and one topology never touches another.
async fn comes_and_goes(world: &World) -> Result<()> {
    world.host.put("/root/small.yaml", 0o644, SMALL.as_bytes().to_vec()).await?;
    world.local("-f /root/small.yaml", 0).await?;
    ensure!(world.host.run("systemctl is-active small-worker.service").await? == "active", "it does not run");
    let told = world.local("--remove small", 0).await?;
    ensure!(told.contains("small-worker.service") && told.contains("stopped"), "{told}");
    let left = world.host.run("ls /etc/systemd/system /etc/lamina/files | grep -c small; true").await?;
    ensure!(left == "0", "a removed topology left {left} files");
    let unknown = world.local("--remove small", 1).await?;
    ensure!(unknown.contains("topology small is not held here; this host holds nothing"), "{unknown}");
    Ok(())
}

/// Released and taken again without a restart; what does not fit beside it changes nothing.
async fn is_released_and_taken_again(world: &World) -> Result<()> {
    let lives = world.lives().await?;
    world.local("--release orchestrator", 0).await?;
    world.local("-f /root/orchestrator.yaml", 0).await?;
    world.expect_untouched(&lives, "releasing and taking again").await?;
    let refused = world.local("-f /root/small.yaml", 1).await?;
    ensure!(refused.contains("nothing is changed: small:"), "{refused}");
    world.expect_untouched(&lives, "what was refused").await
}

/// The guide, word for word: its blocks, with this cluster's address.
async fn joins_by_the_guide(world: &World) -> Result<()> {
    let lives = world.lives().await?;
    let server = format!("https://{API_SERVER}");
    let settings = [("HOST", HOST), ("SERVER", server.as_str())];
    let admin = blocks(GUIDE, guide::ADMIN, &settings);
    let [tell, fetch, see] = admin.as_slice() else { anyhow::bail!("the guide has {} blocks for admins", admin.len()) };
    world.as_admin(tell).await?;
    world.as_admin(fetch).await?;
    for name in ["token", "ca.crt", "kubeconfig"] {
        world.host.put(&format!("/root/{name}"), 0o600, read(&world.folder.join(name)).await?).await?;
    }
    world.deliver(Package::NodeAgent, 1).await?;
    let installing = blocks(GUIDE, guide::HOST, &[]);
    ensure!(installing.len() == 1, "the guide has {} blocks for hosts", installing.len());
    let script = format!("set -e; cd /root\n{}", installing[0]);
    world.told(world.host.run(&script).await.map(drop)).await?;
    world.told(world.as_admin(see).await).await?;
    world.expect_untouched(&lives, "joining").await?;
    is_confined(world).await?;
    let refused = world.local("--keep", 1).await?;
    ensure!(refused.contains("another agent works on this host"), "{refused}");
    Ok(())
}

/// What the kernel says of the agent's rights.
async fn is_confined(world: &World) -> Result<()> {
    let pid = world.host.run(&format!("systemctl show -p MainPID --value {AGENT}")).await?;
    let status = world.host.run(&format!("cat /proc/{pid}/status")).await?;
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t0\t"]
    {
        ensure!(status.contains(line), "the agent's status lacks `{line}`: {status}");
    }
    let mounts = world.host.run(&format!("cat /proc/{pid}/mountinfo")).await?;
    let writable = |path: &str| {
        let line = mounts.lines().rev().find(|line| line.split(' ').nth(4) == Some(path));
        line.map(|line| line.split(' ').nth(5).is_some_and(|options| options.starts_with("rw")))
    };
    for path in ["/etc/systemd/system", "/etc/lamina", "/var/lib/lamina", "/run/systemd/system.control"] {
        ensure!(writable(path) == Some(true), "{path} is not writable for the agent: {mounts}");
    }
    ensure!(writable("/") == Some(false), "the agent can write the host's root: {mounts}");
    Ok(())
}

/// The topology of the cluster finds what runs, moves nothing and restarts nothing; the other host's objects are closed.
async fn follows_the_cluster(world: &World) -> Result<()> {
    let lives = world.lives().await?;
    world.fleet.apply(&example::text()?).await?;
    world.told(world.fleet.wait_ready(example::TOPOLOGY, PATIENCE).await).await?;
    world.expect_untouched(&lives, "the cluster's topology").await?;
    let state = world.host_state().await?;
    ensure!(state["status"]["agent"]["form"] == "Host", "{}", state["status"]["agent"]);
    let lease = world.fleet.kubectl(&["get", "lease", HOST, "-n", "lamina-system", "-o", "name"]).await?;
    ensure!(lease.contains(HOST), "{lease}");
    let token = String::from_utf8(read(&world.folder.join("token")).await?).context("a token is text")?;
    let credential = kubeconfig::Credential::Token(token);
    let path = world.folder.join("stolen.kubeconfig");
    world.fleet.control_plane.kubeconfig(credential)?.write(&path)?;
    let stolen = path.to_str().context("the path is text")?;
    let said = world.fleet.control_plane.kubectl(&["--kubeconfig", stolen, "get", "secrets", "-A"]).await?;
    ensure!(said.code != 0 && said.stderr.contains("orbidden"), "a host reads secrets: {}{}", said.stdout, said.stderr);
    let alone = world.host.exec(&format!("systemctl stop {AGENT}; kubectl-lamina local --keep"), PATIENCE).await?;
    ensure!(alone.code == 1 && alone.stderr.contains("follows the HostState of a cluster"), "{alone:?}");
    world.host.run(&format!("systemctl start {AGENT}")).await.map(drop)
}

/// A file that was lost while nobody looked is back after a boot without an API server.
async fn boots_without_an_api_server(world: &mut World) -> Result<()> {
    world.fleet.control_plane.stop_api_server()?;
    let lost = "/etc/systemd/system/orchestrator-control.slice.d/zzzz-lamina.conf";
    world.host.run(&format!("systemctl stop {AGENT}; rm {lost}; sync /etc/systemd/system")).await?;
    world.host.reboot().await?;
    let world = &*world;
    let healed = async || {
        let cpus = world.host.run(&format!("cat {}/cpuset.cpus.effective; true", cgroup("control"))).await?;
        Ok(cpus == "0-7" && world.lives().await.is_ok())
    };
    world.wait("the package has healed the host without an API server", healed).await?;
    world.expect_pinned("a boot without an API server").await?;
    world.host.run(&format!("set -e; test -e {lost}; systemctl is-active {AGENT}")).await.map(drop)
}

/// Whatever dpkg does to the agent, services keep their processes and their CPUs.
async fn is_upgraded_removed_and_installed_again(world: &mut World) -> Result<()> {
    world.fleet.control_plane.start_api_server().await?;
    let world = &*world;
    let lives = world.lives().await?;
    let agent = async || world.host.run(&format!("systemctl show -p MainPID --value {AGENT}")).await;
    let before = agent().await?;
    world.install_again(2).await?;
    ensure!(before != agent().await?, "an upgrade starts the new agent");
    world.expect_untouched(&lives, "an upgrade").await?;
    world.install_again(2).await?;
    world.expect_untouched(&lives, "a reinstallation").await?;
    world.host.run("dpkg --remove lamina-node-agent").await?;
    ensure!(agent().await? == "0", "a removed agent runs");
    world.expect_untouched(&lives, "the removal").await?;
    world
        .host
        .run("set -e; dpkg --purge lamina-node-agent; test ! -e /var/lib/lamina; test ! -e /etc/lamina/agent.env")
        .await?;
    world.host.run("set -e; test -e /etc/lamina/token; ls /etc/lamina/files/orchestrator").await?;
    world.expect_untouched(&lives, "the purge").await?;
    world.install_again(2).await?;
    let ready = async || {
        let state = world.host_state().await?;
        let parts = state["status"]["topologies"][0]["conditions"].as_array().cloned().unwrap_or_default();
        let is_ready = parts.iter().any(|part| part["type"] == "Ready" && part["status"] == "True");
        Ok(is_ready && world.host.run("test -e /var/lib/lamina/accepted.1; echo $?").await? == "0")
    };
    world.wait("a new installation has taken over what runs", ready).await?;
    world.expect_untouched(&lives, "installing it again").await
}
