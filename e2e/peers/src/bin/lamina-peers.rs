//! Prints how Lamina places compared with the kubelet, and keeps the page in `docs/` up to date.
#![expect(clippy::disallowed_methods, reason = "it writes the page and tells how long it took")]

use std::fs;
use std::time::Instant;

use anyhow::{Context, Error, Result, ensure};
use clap::{Parser, Subcommand};
use lamina_peers::comparison::{Compared, compare};
use lamina_peers::instance::instances;
use lamina_peers::kubelet::Kubelet;
use lamina_peers::score::Fault;
use lamina_peers::shrink::shrink;
use lamina_peers::table::{Series, page};
use lamina_peers::{PAGE, SERIES};

/// Compares Lamina's placement with the kubelet's own code.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
    /// The seed of the instances.
    #[arg(long, global = true, default_value_t = SERIES.seed)]
    seed: u64,
    /// How many instances.
    #[arg(long, global = true, default_value_t = SERIES.count)]
    count: u32,
}

/// What to do.
#[derive(Clone, Copy, Subcommand)]
enum Verb {
    /// Print the page.
    Print,
    /// Print the page and write it to docs/placement-comparison.md.
    Write,
    /// Print the smallest form of an instance that Lamina loses.
    Shrink {
        /// Its number.
        id: u32,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Arguments { verb, seed, count } = Arguments::parse();
    let series = Series { seed, count };
    let kubelet = Kubelet::find().await?;
    match verb {
        Verb::Print => compare_all(&kubelet, series, None).await?,
        Verb::Write => compare_all(&kubelet, series, Some(PAGE)).await?,
        Verb::Shrink { id } => {
            let instance = instances(seed, id + 1).pop().context("the series is empty")?;
            let (smallest, outcome) = shrink(&kubelet, instance).await?.context("Lamina does not lose it")?;
            println!("{}", serde_json::to_string(&smallest).context("writing the instance")?);
            println!("{outcome:#?}");
        }
    }
    Ok(())
}

/// Prints the page, and writes it to `path` if there is one; fails when Lamina loses anything.
async fn compare_all(kubelet: &Kubelet, series: Series, path: Option<&str>) -> Result<()> {
    let instances = instances(series.seed, series.count);
    let start = Instant::now();
    let answers = kubelet.answers(&instances).await?;
    eprintln!("the kubelet's answers after {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let compared = compare(&instances, &answers).map_err(Error::msg)?;
    eprintln!("{} instances compared in {:.1} s", compared.len(), start.elapsed().as_secs_f64());
    let page = page(series, &compared);
    print!("{page}");
    if let Some(path) = path {
        fs::write(path, &page).with_context(|| format!("writing {path}"))?;
    }
    for Compared { id, modes, .. } in &compared {
        let faults = modes.iter().filter_map(|(mode, score)| Some((mode, score.as_ref().err()?)));
        // That kinds are mixed is no news on a machine that has two, and is counted on the page.
        for (mode, fault) in faults.filter(|(_, fault)| !matches!(fault, Fault::MixedKinds(_))) {
            eprintln!("instance {id}: the kubelet's answer in mode {mode} is none: {fault}");
        }
    }
    let losses: Vec<String> = compared.iter().filter_map(|compared| compared.loss()).collect();
    losses.iter().for_each(|loss| eprintln!("{loss}"));
    ensure!(losses.is_empty(), "Lamina loses {} of {} instances", losses.len(), compared.len());
    Ok(())
}
