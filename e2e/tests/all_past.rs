//! A host on which the units of a hand-written script run: refused, taken over, given back, with processes, CPUs, memory
//! nodes and limits side by side.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lamina_cli::import::{Wishes, import};
use lamina_cli::source::unit_files;
use lamina_e2e::fleet::example::{Example, HOST, PATIENCE, SERVICES, TOPOLOGY};
use lamina_e2e::host::Host;
use lamina_e2e::image::Suite;

#[tokio::test]
async fn a_host_with_a_past_is_refused_taken_over_and_given_back_on_systemd_252() -> Result<()> {
    a_host_with_a_past_is_refused_taken_over_and_given_back(Suite::Bookworm).await
}

#[tokio::test]
async fn a_host_with_a_past_is_refused_taken_over_and_given_back_on_systemd_257() -> Result<()> {
    a_host_with_a_past_is_refused_taken_over_and_given_back(Suite::Trixie).await
}

/// Where the units of the script stand, with memory for a machine of a thirty-second of the size.
type Files = BTreeMap<String, String>;

async fn a_host_with_a_past_is_refused_taken_over_and_given_back(suite: Suite) -> Result<()> {
    let example = Example::up(suite).await?;
    let files = scaled()?;
    install(&example, &files).await?;
    let before = Seen::of(&example).await?;
    refused(&example, &files, &before).await?;
    let after = taken_over(&example, &files, &before).await?;
    a_new_agent_restarts_nobody(&example, &after).await?;
    let back = given_back(&example, &before).await?;
    println!("{}", side_by_side(&[("before", &before), ("Replace", &after), ("back", &back)]));
    Ok(())
}

/// The unit files of the examples, with amounts of memory divided by 32.
fn scaled() -> Result<Files> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/unit-files");
    let scale = |line: &str| match line.split_once('=') {
        Some((key, value)) if key.starts_with("Memory") => {
            let digits = value.find(|character: char| !character.is_ascii_digit()).unwrap_or(value.len());
            let gibibytes: u64 = value[..digits].parse().unwrap_or_default();
            format!("{key}={}M{}", gibibytes * 32, value[digits..].trim_start_matches('G'))
        }
        Some(_) | None => line.to_owned(),
    };
    let scaled = |text: String| text.lines().map(|line| scale(line) + "\n").collect::<String>();
    Ok(unit_files(&folder)?.into_iter().map(|(name, text)| (name, scaled(text))).collect())
}

/// What the script does: files, variables, reload, start in order, start at boot.
async fn install(example: &Example, files: &Files) -> Result<()> {
    let host = example.host()?;
    for (name, text) in files {
        host.put(&format!("/etc/systemd/system/{name}"), 0o644, text.clone().into_bytes()).await?;
    }
    let variables = "POSTGRES_HOST=localhost\nPOSTGRES_PORT=5432\nPOSTGRES_DB=orchestrator\nPORT=8080\nGOMAXPROCS=8\n";
    host.put("/opt/orchestrator/etc/orchestrator.env", 0o644, variables.as_bytes().to_vec()).await?;
    let units: Vec<String> = SERVICES.iter().map(|name| format!("{TOPOLOGY}-{name}.service")).collect();
    let start: String = units.iter().map(|unit| format!("systemctl start {unit}\n")).collect();
    example.on_host(&format!("set -e\nsystemctl daemon-reload\n{start}systemctl enable --quiet {}", units[0])).await?;
    Ok(())
}

fn topology(files: &Files, replace: bool) -> Result<String> {
    let import = import(files, &Wishes { replace, ..Wishes::default() }).map_err(anyhow::Error::msg)?;
    ensure!(import.faults.is_empty(), "the import is whole: {:?}", import.faults);
    serde_json::to_string(&import.topology).context("writing down the topology")
}

async fn refused(example: &Example, files: &Files, before: &Seen) -> Result<()> {
    example.fleet.apply(&topology(files, false)?).await?;
    let told = async || {
        let (status, reason, message) = example.host_condition("Ready").await?;
        let names_all = files.keys().all(|name| message.contains(&format!("/etc/systemd/system/{name}")));
        let is_told = names_all && message.contains("spec.adoption: Replace");
        Ok(status == "False" && reason == "ForeignFile" && is_told)
    };
    example.fleet.wait("the host is refused with the names of the files and the remedy", PATIENCE, told).await?;
    let now = Seen::of(example).await?;
    ensure!(now == *before, "nothing is touched: {before:?} became {now:?}");
    let written = example.on_host("ls -d /etc/lamina/files/orchestrator /var/lib/lamina/before 2>&1; true").await?;
    ensure!(!written.lines().any(|line| line.starts_with('/')), "nothing is written: {written}");
    Ok(())
}

async fn taken_over(example: &Example, files: &Files, before: &Seen) -> Result<Seen> {
    example.fleet.apply(&topology(files, true)?).await?;
    example.settle().await?;
    let after = Seen::of(example).await?;
    ensure!(after.lives() == before.lives(), "services keep their processes: {before:?} became {after:?}");
    let expected = [("control", "0-7", "0"), ("runner", "8-15", "1"), ("fanout", "16-19", "0")];
    for (slice, cpus, nodes) in expected {
        let unit = &after.units[&format!("orchestrator-{slice}.slice")];
        ensure!(unit.cpus == cpus, "{slice} has CPUs {}", unit.cpus);
        // The runners' file says which node, and so does the one of control; the CPUs of fanout lie on node 0.
        ensure!(unit.nodes == nodes, "{slice} has memory nodes {}", unit.nodes);
    }
    let limit = &after.units["orchestrator-control.slice"].memory_max;
    ensure!(limit == &(384_u64 << 20).to_string(), "the limit that a comment had undone is in force: {limit}");
    let image = example.on_host("cat /var/lib/lamina/before/orchestrator").await?;
    for (name, text) in files {
        let written = serde_json::to_string(text).context("writing down a file")?;
        ensure!(image.contains(&format!("/etc/systemd/system/{name}")) && image.contains(&written), "{name} is saved");
    }
    Ok(after)
}

async fn a_new_agent_restarts_nobody(example: &Example, after: &Seen) -> Result<()> {
    example.fleet.kill_agent(HOST).await?;
    let running = async || Ok(example.on_host("systemctl is-active lamina-agent; true").await?.trim() == "active");
    example.fleet.wait("the agent is back", PATIENCE, running).await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    example.settle().await?;
    let now = Seen::of(example).await?;
    ensure!(now == *after, "{after:?} became {now:?}");
    Ok(())
}

async fn given_back(example: &Example, before: &Seen) -> Result<Seen> {
    let refused = example.on_host("/opt/lamina/lamina-node-agent restore orchestrator 2>&1; true").await?;
    ensure!(refused.contains("still enforced"), "an enforced topology is not undone: {refused}");
    example.fleet.kubectl(&["delete", "slicetopology", TOPOLOGY]).await?;
    let released = async || Ok(example.fleet.host_state(HOST).await?.spec.topologies.is_empty());
    example.fleet.wait("the host is released", PATIENCE, released).await?;
    println!("{}", example.on_host("/opt/lamina/lamina-node-agent restore orchestrator").await?);
    let back = Seen::of(example).await?;
    ensure!(back == *before, "everything is as before: {before:?} became {back:?}");
    Ok(back)
}

/// What is measured on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    units: BTreeMap<String, Unit>,
    /// Checksums of everything that bears a name of the topology in the unit directory, and where links point.
    disk: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unit {
    process: String,
    invocation: String,
    cpus: String,
    nodes: String,
    memory_max: String,
    tasks_max: String,
}

impl Seen {
    async fn of(example: &Example) -> Result<Self> {
        let text = example.on_host(MEASURE).await?;
        let (units, disk) = text.split_once("--\n").context("two parts")?;
        let units = units.lines().filter_map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let name = words.next()?;
            let mut next = || words.next().unwrap_or_default();
            let (process, invocation) = (next(), next());
            let (cpus, nodes) = (next(), next());
            Some((name, Unit { process, invocation, cpus, nodes, memory_max: next(), tasks_max: next() }))
        });
        Ok(Self { units: units.collect(), disk: disk.to_owned() })
    }

    fn lives(&self) -> BTreeMap<&String, (&String, &String)> {
        self.units.iter().map(|(name, unit)| (name, (&unit.process, &unit.invocation))).collect()
    }
}

/// One line per unit: name, main process, invocation, CPUs and memory nodes in force, limits; then the files.
const MEASURE: &str = r#"
for unit in control.slice runner.slice fanout.slice orchestrator.service router.service parser.service hitl.service \
    api.service runner.service agent-runner.service fanout.service; do
  unit=orchestrator-$unit
  group=/sys/fs/cgroup$(systemctl show -P ControlGroup $unit)
  process=$(systemctl show -P MainPID $unit)
  case $unit in
    *.service)
      cpus=$(sed -n 's/^Cpus_allowed_list:\t//p' /proc/$process/status)
      nodes=$(sed -n 's/^Mems_allowed_list:\t//p' /proc/$process/status);;
    *)
      process=-
      cpus=$(cat $group/cpuset.cpus.effective 2>/dev/null || cat /sys/fs/cgroup/cpuset.cpus.effective)
      nodes=$(cat $group/cpuset.mems.effective 2>/dev/null || cat /sys/fs/cgroup/cpuset.mems.effective);;
  esac
  invocation=$(systemctl show -P InvocationID $unit)
  [ "$process" = - ] && invocation=-
  echo $unit ${process:--} ${invocation:--} $cpus $nodes $(cat $group/memory.max) $(cat $group/pids.max)
done
echo --
cd /etc/systemd/system
find . -name '*orchestrator*' -o -path '*orchestrator*.d/*' | sort | while read path; do
  if [ -L $path ]; then echo $path $(readlink $path)
  elif [ -f $path ]; then echo $path $(stat -c %a $path) $(sha256sum < $path)
  fi
done
"#;

fn side_by_side(columns: &[(&str, &Seen)]) -> String {
    let names: Vec<&String> = columns.iter().flat_map(|(_, seen)| seen.units.keys()).collect();
    let mut rows =
        vec![["unit", "when", "main process", "CPUs", "nodes", "memory.max", "pids.max"].map(str::to_owned).to_vec()];
    for name in names.iter().take(columns.first().map_or(0, |(_, seen)| seen.units.len())) {
        for (when, seen) in columns {
            let Unit { process, invocation: _, cpus, nodes, memory_max, tasks_max } = &seen.units[*name];
            let cells = [name.as_str(), when, process, cpus, nodes, memory_max, tasks_max];
            rows.push(cells.map(str::to_owned).to_vec());
        }
    }
    lamina_cli::table::table(&rows)
}
