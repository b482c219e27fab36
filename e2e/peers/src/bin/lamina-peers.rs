//! Prints how Lamina places compared with the kubelet, and keeps the page in `docs/` up to date.
#![expect(clippy::disallowed_methods, reason = "it writes the page and tells how long it took")]

use std::fs;
use std::time::Instant;

use anyhow::{Context, Error, Result, ensure};
use clap::{Parser, Subcommand};
use lamina_peers::comparison::compare;
use lamina_peers::instance::instances;
use lamina_peers::kubelet::Kubelet;
use lamina_peers::shrink::shrink;
use lamina_peers::table::page;
use lamina_peers::{PAGE, SERIES};

/// Compares Lamina's placement with the kubelet's own code.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
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
    let Arguments { verb } = Arguments::parse();
    let kubelet = Kubelet::find().await?;
    match verb {
        Verb::Print => print!("{}", compared(&kubelet).await?),
        Verb::Write => {
            let page = compared(&kubelet).await?;
            fs::write(PAGE, &page).with_context(|| format!("writing {PAGE}"))?;
            print!("{page}");
        }
        Verb::Shrink { id } => {
            let instance = instances(SERIES.seed, id + 1).pop().context("the series is empty")?;
            let (smallest, outcome) = shrink(&kubelet, instance).await?.context("Lamina does not lose it")?;
            println!("{}", serde_json::to_string(&smallest).context("writing the instance")?);
            println!("{outcome:#?}");
        }
    }
    Ok(())
}

async fn compared(kubelet: &Kubelet) -> Result<String> {
    let instances = instances(SERIES.seed, SERIES.count);
    let answers = kubelet.answers(&instances).await?;
    let start = Instant::now();
    let compared = compare(&instances, &answers).map_err(Error::msg)?;
    eprintln!("{} instances compared in {:.1} s", compared.len(), start.elapsed().as_secs_f64());
    let losses: Vec<String> = compared.iter().filter_map(|compared| compared.loss()).collect();
    losses.iter().for_each(|loss| eprintln!("{loss}"));
    ensure!(losses.is_empty(), "Lamina loses {} of {} instances", losses.len(), compared.len());
    Ok(page(SERIES, &compared))
}
