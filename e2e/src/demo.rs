//! The first five minutes: tells the story of one machine, each step with what it does, how long it took, and proof.

#![expect(clippy::disallowed_methods, reason = "it tells how long things take")]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lamina_cli::drawing::{self, Colour, DrawnSlice, Subject};
use lamina_crds::{Bytes, CpuSet, HostState};
use serde_json::json;

use crate::fleet::example::{self, HOST, PATIENCE, TOPOLOGY};
use crate::fleet::{Fleet, waiting};
use crate::host::Host;
use crate::lab::Lab;

/// The widest picture of a machine, in characters.
const PICTURE_WIDTH: usize = 100;

/// Runs the story on the lab's fleet of one host; every step that is not true ends it with an error.
pub async fn tell(fleet: &mut Fleet, lab: &Lab) -> Result<()> {
    let mut story = Story::begin();
    story.title("One kubectl apply");
    one_apply(fleet, &mut story).await?;
    story.title("A limit changes live");
    a_live_limit(fleet, &mut story).await?;
    story.title("Somebody breaks the pinning by hand");
    a_broken_pinning(fleet, &mut story).await?;
    story.title("The machine reboots while there is no API server");
    a_reboot(fleet, &mut story).await?;
    story.title("Try it yourself, in another terminal");
    let folder = lab.name();
    println!("  target/debug/lamina-lab --name {folder} kubectl get slicetopologies,hoststates");
    println!("  target/debug/lamina-lab --name {folder} kubectl edit slicetopology orchestrator");
    println!(
        "  target/debug/lamina-lab --name {folder} exec {HOST} -- systemctl set-property orchestrator-runner.slice AllowedCPUs=0"
    );
    Ok(())
}

/// Prints steps with the time since the one before.
pub struct Story {
    since: Instant,
    colour: bool,
}

impl Story {
    /// A story that begins now.
    pub fn begin() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { since: Instant::now(), colour }
    }

    /// A new chapter.
    pub fn title(&mut self, text: &str) {
        if self.colour {
            println!("\n\x1b[1m{text}\x1b[0m");
        } else {
            println!("\n{text}");
        }
        self.since = Instant::now();
    }

    /// Something that is done and true.
    pub fn step(&mut self, text: &str) {
        println!("  {text} ({})", lasted(self.since.elapsed()));
        self.since = Instant::now();
    }

    /// The machine with its slices, as `kubectl lamina map` draws it.
    fn picture(&self, host: &HostState) -> Result<()> {
        let status = host.status.as_ref().context("the host has a status")?;
        let hardware = status.hardware.as_ref().context("the agent has reported the hardware")?;
        let slices = status.topologies.iter().flat_map(|topology| &topology.slices);
        let slices = slices.map(|slice| DrawnSlice {
            name: slice.unit.trim_end_matches(".slice").to_owned(),
            cpus: slice.cpus.clone(),
            memory_nodes: Some(slice.memory_nodes.clone()),
        });
        let (slices, name, housekeeping) = (slices.collect(), String::new(), CpuSet::new());
        let subject = Subject { name, hardware, slices, housekeeping };
        let colour = if self.colour { Colour::Codes } else { Colour::None };
        for line in drawing::text(&subject, PICTURE_WIDTH, colour).lines() {
            println!("{:4}{line}", "");
        }
        Ok(())
    }
}

fn lasted(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

async fn one_apply(fleet: &Fleet, story: &mut Story) -> Result<()> {
    println!("  kubectl apply -f examples/orchestrator.yaml   (its memory scaled to this small machine)");
    fleet.apply(&example::text()?).await?;
    fleet.wait_ready(TOPOLOGY, PATIENCE).await?;
    story.step("three slices and eight services run, and every thread was looked at");
    let host = fleet.host_state(HOST).await?;
    story.picture(&host)?;
    let summary = host.status.as_ref().and_then(|status| status.summary).context("the host has a summary")?;
    ensure!(summary.services == 8 && summary.services_ready == 8, "eight services are ready, not {summary:?}");
    for (slice, cpus, nodes) in [("control", "0-7", "0"), ("runner", "8-15", "1"), ("fanout", "16-19", "0")] {
        let group = example::Example::cgroup_of(slice);
        let found =
            fleet.host(HOST)?.run(&format!("cd {group}; cat cpuset.cpus.effective cpuset.mems.effective")).await?;
        ensure!(found == format!("{cpus}\n{nodes}"), "the kernel of {HOST} gives {slice} `{found}`");
        println!("    the kernel says: {slice:8} CPUs {cpus:6} memory node {nodes}");
    }
    Ok(())
}

async fn a_live_limit(fleet: &Fleet, story: &mut Story) -> Result<()> {
    let pids = "systemctl show -p MainPID --value 'orchestrator-*.service'";
    let before = fleet.host(HOST)?.run(pids).await?;
    let topology = fleet.topology(TOPOLOGY).await?;
    let mut slices = serde_json::to_value(&topology.spec.slices).context("writing down the slices")?;
    slices[0]["memory"]["max"] = json!("500Mi");
    let patch = json!({ "spec": { "slices": slices } }).to_string();
    println!("  kubectl patch slicetopology {TOPOLOGY}: memory.max of slice control becomes 500Mi");
    story.since = Instant::now();
    fleet.kubectl(&["patch", "slicetopology", TOPOLOGY, "--type=merge", "-p", &patch]).await?;
    let file = format!("{}/memory.max", example::Example::cgroup_of("control"));
    let asked = Bytes::mebi(500).get().to_string();
    let live = async || Ok(fleet.host(HOST)?.run(&format!("cat {file}")).await? == asked);
    fleet.wait("the new limit is in the cgroup", PATIENCE, live).await?;
    story.step("the limit is in the cgroup");
    fleet.wait_ready(TOPOLOGY, PATIENCE).await?;
    ensure!(before == fleet.host(HOST)?.run(pids).await?, "a changed limit restarted a service");
    story.step("no process was restarted, and the topology is Ready at its new generation");
    Ok(())
}

async fn a_broken_pinning(fleet: &Fleet, story: &mut Story) -> Result<()> {
    let file = format!("{}/cpuset.cpus", example::Example::cgroup_of("control"));
    println!("  {HOST}# echo 0-3 > {file}");
    // Measured on the host itself: from the write to the moment the kernel has the right CPUs again.
    let script = format!(
        "begin=$(date +%s%N); echo 0-3 > {file}; until [ \"$(cat {file})\" = 0-7 ]; do sleep 0.005; done; \
         echo $(( ($(date +%s%N) - begin) / 1000000 ))"
    );
    let output = fleet.host(HOST)?.exec(&script, waiting::MINUTE).await?;
    ensure!(output.code == 0, "the pinning was not healed within a minute: {}", fleet.dump().await);
    println!("  it is back {} ms later", output.stdout.trim());
    let told = async || {
        let events = fleet
            .kubectl(&["get", "events", "-n", "default", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"])
            .await?;
        Ok(events.contains("orchestrator-control.slice") && events.contains("0-3"))
    };
    fleet.wait("an event tells who and what", waiting::MINUTE, told).await?;
    let events = fleet
        .kubectl(&["get", "events", "-n", "default", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"])
        .await?;
    let event = events.lines().find(|line| line.contains("0-3")).unwrap_or_default();
    story.step(&format!("the event says: {event}"));
    Ok(())
}

async fn a_reboot(fleet: &mut Fleet, story: &mut Story) -> Result<()> {
    fleet.control_plane.stop_api_server()?;
    fleet.host_mut(HOST)?.reboot().await?;
    story.step("it has booted");
    let script = "for slice in control runner fanout; do \
        cat /sys/fs/cgroup/orchestrator.slice/orchestrator-$slice.slice/cpuset.cpus.effective; done; \
        systemctl is-active 'orchestrator-*.service' | sort | uniq -c | xargs";
    let right = async || Ok(fleet.host(HOST)?.run(script).await? == "0-7\n8-15\n16-19\n8 active");
    waiting::until("everything runs and is pinned after the reboot", PATIENCE, right).await?;
    story.step("eight services run on CPUs 0-7, 8-15 and 16-19, and nobody could ask the cluster");
    fleet.control_plane.start_api_server().await?;
    fleet.wait_ready(TOPOLOGY, PATIENCE).await?;
    story.step("the API server is back, and the topology is Ready");
    Ok(())
}
