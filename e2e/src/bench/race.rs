//! Brings the example to a fresh host, by the agent or by a script, and measures on the host how long that took.

use std::fmt;

use anyhow::{Context, Result, ensure};

use super::script::{Style, What, Written, script, units};
use crate::cache::Cache;
use crate::fleet::example::{Example, SERVICES, TOPOLOGY};
use crate::host::scratch::Scratch;
use crate::host::{Host, HostSpec, PATIENCE, QemuHost, quoted};
use crate::image::Suite;

/// The unit that does the work.
const UNIT: &str = "lamina-bench.service";
const AGENT: &str = "/opt/lamina/lamina-node-agent";
const SCRIPT: &str = "/opt/lamina/bench-script";

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// The agent, which has accepted the instruction and reaches no API server.
    Agent,
    /// A script that writes the same files and starts the same units.
    Script(Style),
}

impl fmt::Display for Contestant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Agent => "the agent",
            Self::Script(Style::Plain) => "the script",
            Self::Script(Style::Lean) => "the lean script",
        })
    }
}

/// What either of them needs, taken from a host on which the agent has brought up the example.
pub struct Recipe {
    files: Vec<Written>,
    /// The agent's record of what it has accepted: path and content.
    accepted: (String, Vec<u8>),
}

impl Recipe {
    /// Copies everything that the agent wrote, and its instruction.
    pub async fn of(example: &Example) -> Result<Self> {
        let listed = example
            .on_host(
                "find /etc/systemd/system/orchestrator* /etc/systemd/system/*.wants/orchestrator* /etc/lamina/files \
                 \\( -type f -printf '%p\\n' \\) -o \\( -type l -printf '%p %l\\n' \\)",
            )
            .await?;
        let mut files = Vec::new();
        for line in listed.lines() {
            files.push(match line.split_once(' ') {
                Some((path, target)) => Written { path: path.to_owned(), what: What::Link(target.to_owned()) },
                None => Written { path: line.to_owned(), what: What::Text(text(example, line).await?) },
            });
        }
        // A file that is there twice or not at all would make the script another one.
        let expected = 2 * units().count() + SERVICES.len();
        ensure!(files.len() > expected, "the agent wrote {} files and links, not more than {expected}", files.len());
        Ok(Self { files, accepted: accepted(example).await? })
    }
}

async fn text(example: &Example, path: &str) -> Result<String> {
    String::from_utf8(example.host()?.get(path).await?).with_context(|| format!("reading {path}"))
}

/// The copy that was written before the work was done; if it is gone, the one that says that it was done once.
async fn accepted(example: &Example) -> Result<(String, Vec<u8>)> {
    let mut copies = Vec::new();
    for path in ["/var/lib/lamina/accepted.0", "/var/lib/lamina/accepted.1"] {
        copies.push((path.to_owned(), text(example, path).await?));
    }
    copies.retain(|(_, text)| text.contains(TOPOLOGY));
    let copy = copies.into_iter().max_by_key(|(_, text)| text.contains("\"reachedBy\":\"\""));
    copy.map(|(path, text)| (path, text.into_bytes())).context("the agent keeps what it has accepted")
}

/// Seconds on a fresh host from the start of the contestant's program until the last unit is active.
pub async fn run(suite: Suite, contestant: Contestant, recipe: &Recipe) -> Result<f64> {
    let cache = Cache::open()?;
    let scratch = Scratch::new(&cache, "bench")?;
    let host = QemuHost::restore(&cache, HostSpec::twenty("bench", suite), scratch.path()).await?;
    let program = match contestant {
        Contestant::Agent => {
            host.install("lamina-node-agent", AGENT).await?;
            let (path, content) = recipe.accepted.clone();
            host.put(&path, 0o600, content).await?;
            format!("{AGENT} --node-name=bench --kubeconfig=/etc/lamina/no-kubeconfig")
        }
        Contestant::Script(style) => {
            host.put(SCRIPT, 0o755, script(&recipe.files, style).into_bytes()).await?;
            SCRIPT.to_owned()
        }
    };
    host.put(&format!("/run/systemd/system/{UNIT}"), 0o644, unit(&program).into_bytes()).await?;
    host.run("mkdir -p /etc/lamina; systemctl daemon-reload; sync; sleep 3").await?;
    host.run(&format!("systemctl start {UNIT}")).await?;
    let waited = host.exec(&wait(), PATIENCE).await?;
    ensure!(waited.code == 0, "{contestant} did not bring up the example: {}", log(&host).await?);
    let pinned = host.run("cd /sys/fs/cgroup/orchestrator.slice; cat */cpuset.cpus.effective | sort").await?;
    ensure!(pinned == "0-7\n16-19\n8-15", "{contestant} gave the slices the CPUs {pinned}: {}", log(&host).await?);
    elapsed(&host).await
}

/// Both run under the same restrictions, so that setting those up costs both the same.
fn unit(program: &str) -> String {
    format!(
        "[Service]\n\
         Type=exec\n\
         ExecStart={program}\n\
         RemainAfterExit=yes\n\
         CapabilityBoundingSet=\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         ConfigurationDirectory=lamina\n\
         StateDirectory=lamina\n\
         RuntimeDirectory=lamina systemd/system.control\n\
         RuntimeDirectoryPreserve=yes\n\
         ReadWritePaths=/etc/systemd/system\n"
    )
}

/// Looks for the services' cgroups, which costs next to nothing, before anybody is asked.
fn wait() -> String {
    let cgroups = SERVICES.map(|service| format!("/sys/fs/cgroup/{TOPOLOGY}.slice/*/{TOPOLOGY}-{service}.service"));
    format!(
        "for group in {}; do until [ -d $group ]; do sleep 0.5; done; done
        for service in {}; do until systemctl is-active --quiet $service; do sleep 0.5; done; done",
        cgroups.map(|group| quoted(&group)).join(" "),
        SERVICES.map(|service| format!("{TOPOLOGY}-{service}")).join(" ")
    )
}

/// By systemd's own clock.
async fn elapsed(host: &QemuHost) -> Result<f64> {
    let begin = format!("systemctl show -p ExecMainStartTimestampMonotonic --value {UNIT}");
    let begin = microseconds(&host.run(&begin).await?)?;
    let ends = units().collect::<Vec<_>>().join(" ");
    let ends = host.run(&format!("systemctl show -p ActiveEnterTimestampMonotonic --value {ends}")).await?;
    let ends = ends.lines().filter(|line| !line.is_empty()).map(microseconds).collect::<Result<Vec<_>>>()?;
    ensure!(ends.len() == units().count() && !ends.contains(&0), "every unit has become active: {ends:?}");
    let last = ends.into_iter().max().unwrap_or_default();
    let took = last.checked_sub(begin).context("units were active before anything was done")?;
    Ok(std::time::Duration::from_micros(took).as_secs_f64())
}

fn microseconds(text: &str) -> Result<u64> {
    text.trim().parse().with_context(|| format!("reading the time `{text}`"))
}

async fn log(host: &QemuHost) -> Result<String> {
    let script = format!("journalctl -u {UNIT} -n 40 --no-pager; systemctl --failed --no-pager");
    Ok(host.exec(&script, PATIENCE).await?.stdout)
}
