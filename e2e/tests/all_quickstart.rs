//! The quickstart as a stranger goes through it: every command on a real host, and every answer as the page shows it. Then
//! what the pages about limits and about uninstalling do to the same topology.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamina_e2e::cache::Cache;
use lamina_e2e::control_plane::{ControlPlane, Options};
use lamina_e2e::fleet::Fleet;
use lamina_e2e::guide::{Step, agrees, agrees_in_shape, steps};
use lamina_e2e::host::scratch::Scratch;
use lamina_e2e::host::{Host, HostSpec, Lifetime, Output};
use lamina_e2e::image::Suite;
use lamina_e2e::reader::Reader;

/// What strangers read first.
const QUICKSTART: &str = include_str!("../../docs/quickstart.md");
const MEASURING: &str = include_str!("../../docs/kubectl-lamina-cluster.md");
const TUNING: &str = include_str!("../../docs/tuning-limits.md");
const UNINSTALLING: &str = include_str!("../../docs/uninstalling.md");
/// The host, as the page calls it.
const HOST: &str = "host-1";
/// How long a command on the host may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_command_of_the_quickstart_answers_as_it_is_written() -> Result<()> {
    let cache = Cache::open()?;
    let scratch = Scratch::new(&cache, "quickstart")?;
    let options = Options { lifetime: Lifetime::Tethered, ..Options::default() };
    let plane = ControlPlane::start(&scratch.path().join("control-plane"), options).await?;
    let reader = Reader::of(&plane, &scratch.path().join("reader"))?;
    reader.follows(QUICKSTART, "helm", &[]).await?;
    let mut fleet = Fleet::bare(plane, scratch.path()).await?;
    fleet.wait_served().await?;
    fleet.add_host(&cache, HostSpec::twenty(HOST, Suite::Bookworm), &[]).await?;
    fleet.start_operator(Lifetime::Tethered).await?;
    let steps = steps(QUICKSTART, "quickstart");
    ensure!(steps.len() > 10, "the quickstart has only {} steps", steps.len());
    let mut wrong = Vec::new();
    for step in &steps {
        let found = answer(&fleet, &reader, step).await?;
        println!("{}$ {}\n{found}", step.host.as_deref().unwrap_or_default(), step.line);
        if !agrees(&step.answer, &found) {
            wrong.push(told(step, &found));
        }
        if step.line.contains("--for=condition=Degraded") {
            wrong.extend(unlike(&fleet, &reader, "mistake").await?);
        }
    }
    ensure!(wrong.is_empty(), "the quickstart says otherwise:\n{}\n{}", wrong.join("\n"), fleet.dump().await);
    limits_are_tuned(&fleet, &reader).await?;
    fleet.host(HOST)?.install("kubectl-lamina", "/usr/local/bin/kubectl-lamina").await?;
    let unlike = unlike(&fleet, &reader, "measured").await?;
    ensure!(unlike.is_empty(), "the page about measuring says otherwise:\n{}", unlike.join("\n"));
    one_topology_is_taken_away(&fleet, &reader).await?;
    reader.follows(QUICKSTART, "helm-uninstall", &[]).await.map(drop)
}

fn told(step: &Step, found: &str) -> String {
    format!("$ {}\nanswers\n{found}\nand not\n{}", step.line, step.answer.join("\n"))
}

/// What a session of the page about measuring answers otherwise, apart from numbers and ages.
async fn unlike(fleet: &Fleet, reader: &Reader, word: &str) -> Result<Vec<String>> {
    let steps = steps(MEASURING, word);
    ensure!(!steps.is_empty(), "the page about measuring has no session `{word}`");
    let mut unlike = Vec::new();
    for step in &steps {
        let found = answer(fleet, reader, step).await?;
        println!("{}$ {}\n{found}", step.host.as_deref().unwrap_or_default(), step.line);
        if !step.answer.is_empty() && !agrees_in_shape(&step.answer, &found) {
            unlike.push(told(step, &found));
        }
    }
    Ok(unlike)
}

/// The first topology once more, and what the page about limits changes of it.
async fn limits_are_tuned(fleet: &Fleet, reader: &Reader) -> Result<()> {
    reader.types("kubectl apply -f examples/first.yaml").await?.success()?;
    reader.follows(TUNING, "tuning", &[]).await?;
    let wait = "kubectl wait --for=condition=Ready slicetopology/first --timeout=2m";
    reader.types(wait).await?.success().context("after the change of a limit")?;
    let limit = fleet.host(HOST)?.run("cat /sys/fs/cgroup/first.slice/first-front.slice/memory.max").await?;
    ensure!(limit.trim() == "536870912", "the limit is {limit}");
    Ok(())
}

/// What the page about uninstalling says of one topology: nothing of it is left.
async fn one_topology_is_taken_away(fleet: &Fleet, reader: &Reader) -> Result<()> {
    reader.follows(UNINSTALLING, "topology", &[]).await?;
    let left = fleet.host(HOST)?.run("ls -d /etc/systemd/system/first* /sys/fs/cgroup/first.slice || true").await?;
    ensure!(left.trim().is_empty(), "of the topology is left on its host: {left}");
    Ok(())
}

/// What a reader sees; a command that is meant to fail says why.
async fn answer(fleet: &Fleet, reader: &Reader, step: &Step) -> Result<String> {
    match &step.host {
        Some(host) => {
            let Output { stdout, stderr, code: _ } = fleet.host(host)?.exec(&step.line, PATIENCE).await?;
            Ok(format!("{stdout}{stderr}"))
        }
        None => {
            let said = reader.types(&step.line).await?;
            Ok(format!("{}{}", said.stdout, said.stderr))
        }
    }
}
