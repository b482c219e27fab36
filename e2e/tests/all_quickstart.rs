//! The quickstart as a stranger goes through it: every command on a real host, and every answer as the page shows it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamina_e2e::cache::Cache;
use lamina_e2e::control_plane::{ControlPlane, Options};
use lamina_e2e::fleet::Fleet;
use lamina_e2e::guide::{Step, agrees, blocks, steps};
use lamina_e2e::host::scratch::Scratch;
use lamina_e2e::host::{Host, HostSpec, Lifetime, Output};
use lamina_e2e::image::Suite;
use lamina_e2e::reader::Reader;

/// What strangers read first.
const QUICKSTART: &str = include_str!("../../docs/quickstart.md");
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
    for block in blocks(QUICKSTART, "helm", &[]) {
        reader.types(&block).await?.success().with_context(|| format!("this block failed:\n{block}"))?;
    }
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
            wrong.push(format!("$ {}\nanswers\n{found}\nand not\n{}", step.line, step.answer.join("\n")));
        }
    }
    ensure!(wrong.is_empty(), "the quickstart says otherwise:\n{}\n{}", wrong.join("\n"), fleet.dump().await);
    for block in blocks(QUICKSTART, "helm-uninstall", &[]) {
        reader.types(&block).await?.success().with_context(|| format!("this block failed:\n{block}"))?;
    }
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
