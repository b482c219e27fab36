//! Tells what every event did to the running example's services, and fails when one of them got another process.

#![expect(clippy::disallowed_methods, reason = "it measures by the clock")]

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, bail, ensure};
use lamina_cli::table::{row, table};

use super::Node;
use crate::fleet::example::{Example, Life, SERVICES};

/// The running example's slices.
const SLICES: [&str; 3] = ["control", "runner", "fanout"];

/// How the services are doing, from event to event.
pub struct Story<'node> {
    node: &'node Node,
    lives: BTreeMap<String, Life>,
    cpus: BTreeMap<&'static str, String>,
    rows: Vec<Vec<String>>,
    last: Instant,
}

impl<'node> Story<'node> {
    /// The services run, and are measured.
    pub async fn begin(node: &'node Node) -> Result<Self> {
        let lives = node.example.lives().await?;
        ensure!(lives.len() == SERVICES.len(), "not all services run: {lives:?}");
        let cpus = cpus(&node.example).await?;
        let rows = vec![row(["SECONDS", "WHAT HAPPENED", "PODS", "SAME PROCESS", "SAME CPUS", "READY"])];
        Ok(Self { node, lives, cpus, rows, last: Instant::now() })
    }

    /// Looks at everything after an event, and fails if a service has another process or a slice other CPUs.
    pub async fn after(&mut self, what: &str) -> Result<()> {
        let example = &self.node.example;
        let (lives, cpus) = (example.lives().await?, cpus(example).await?);
        let same = self.lives.iter().filter(|(name, life)| lives.get(*name) == Some(life)).count();
        let pinned = self.cpus.iter().filter(|(slice, cpus_before)| cpus.get(*slice) == Some(cpus_before)).count();
        let pods = self.node.pods().await?;
        let ready = example.condition("Ready").await.map_or("-".to_owned(), |(status, _, _)| status);
        let seconds = format!("{:>7.1}", self.last.elapsed().as_secs_f64());
        let of = |count: usize, all: usize| format!("{count} of {all}");
        let (all, slices) = (self.lives.len(), self.cpus.len());
        let cells = [seconds, what.to_owned(), pods.to_string(), of(same, all), of(pinned, slices), ready];
        eprintln!("{}", cells.join("  "));
        self.rows.push(cells.to_vec());
        self.last = Instant::now();
        if same != all || pinned != slices {
            let dump = example.fleet.dump().await;
            println!("{}", self.told());
            bail!("after this: {what}: {:?} was {:?}, {cpus:?} was {:?}\n{dump}", lives, self.lives, self.cpus);
        }
        Ok(())
    }

    /// The table of all that happened.
    pub fn told(&self) -> String {
        table(&self.rows)
    }
}

/// The CPUs that the kernel gives each slice.
async fn cpus(example: &Example) -> Result<BTreeMap<&'static str, String>> {
    let mut all = BTreeMap::new();
    for slice in SLICES {
        all.insert(slice, example.cgroup(slice, "cpuset.cpus.effective").await?);
    }
    Ok(all)
}
