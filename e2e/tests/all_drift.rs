//! The whole path on real components: foreign hands are seen and healed, accidents converge, and what cannot be done is
//! said with field, value and remedy.

#![expect(clippy::disallowed_methods, reason = "it tells how long healing takes")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lamina_e2e::fleet::example::{self, Example, HOST, PATIENCE, TOPOLOGY};
use lamina_e2e::host::Lifetime;
use lamina_e2e::image::Suite;
use serde_json::{Value, json};

#[tokio::test]
async fn every_foreign_hand_is_seen_and_healed_on_systemd_252() -> Result<()> {
    every_foreign_hand_is_seen_and_healed(Suite::Bookworm).await
}

#[tokio::test]
async fn every_foreign_hand_is_seen_and_healed_on_systemd_257() -> Result<()> {
    every_foreign_hand_is_seen_and_healed(Suite::Trixie).await
}

async fn every_foreign_hand_is_seen_and_healed(suite: Suite) -> Result<()> {
    let example = Example::ready(suite).await?;
    let before = example.lives().await?;
    a_cgroup_write(&example).await?;
    a_set_property(&example).await?;
    an_edited_unit_file(&example).await?;
    a_foreign_drop_in(&example).await?;
    ensure!(before == example.lives().await?, "healing restarted a service");
    a_stopped_service(&example).await?;
    example.settle().await
}

fn told(what: &str, begin: Instant) {
    println!("{what} healed after {} ms", begin.elapsed().as_millis());
}

async fn a_cgroup_write(example: &Example) -> Result<()> {
    let group = Example::cgroup_of("control");
    let begin = Instant::now();
    example.on_host(&format!("echo 0-3 > {group}/cpuset.cpus")).await?;
    example.wait_cgroup("control", "cpuset.cpus.effective", "0-7").await?;
    told("a write into cpuset.cpus", begin);
    example.wait_event(&["orchestrator-control.slice", "0-3"]).await
}

async fn a_set_property(example: &Example) -> Result<()> {
    let begin = Instant::now();
    example.on_host("systemctl set-property orchestrator-runner.slice MemoryMax=100M").await?;
    let asked = memory_max(example, "runner").await?;
    example.wait_cgroup("runner", "memory.max", &asked).await?;
    told("systemctl set-property", begin);
    example.wait_event(&["orchestrator-runner.slice"]).await?;
    let shown = async || {
        let (status, reason, message) = example.host_condition("Drifted").await?;
        Ok(status == "True" && reason == "ForeignDropIn" && message.contains("50-MemoryMax.conf"))
    };
    example.fleet.wait("the drop-in that set-property left is reported", PATIENCE, shown).await?;
    ensure!(example.host_condition("Ready").await?.0 == "True", "an outranked drop-in leaves the host Ready");
    let kept = example.on_host("cat /etc/systemd/system.control/orchestrator-runner.slice.d/50-MemoryMax.conf").await?;
    ensure!(kept.contains("MemoryMax="), "a foreign drop-in is never deleted");
    example.on_host("rm -r /etc/systemd/system.control/orchestrator-runner.slice.d; systemctl daemon-reload").await?;
    let gone = async || Ok(example.host_condition("Drifted").await?.0 == "False");
    example.fleet.wait("a drop-in that is gone is reported no more", PATIENCE, gone).await?;
    example.wait_cgroup("runner", "memory.max", &asked).await.map(drop)
}

async fn memory_max(example: &Example, slice: &str) -> Result<String> {
    let spec = serde_json::to_value(example.fleet.topology(TOPOLOGY).await?.spec)?;
    let slices = spec["slices"].as_array().cloned().unwrap_or_default();
    let found = slices.into_iter().find(|item| item["name"] == slice).context("the slice is in the spec")?;
    let asked: lamina_crds::Bytes = found["memory"]["max"].as_str().context("a quantity")?.parse()?;
    Ok(asked.get().to_string())
}

async fn an_edited_unit_file(example: &Example) -> Result<()> {
    let path = "/etc/systemd/system/orchestrator-router.service";
    let before = example.on_host(&format!("sha256sum {path}")).await?;
    let begin = Instant::now();
    example.on_host(&format!("echo 'Nice=5' >> {path}")).await?;
    let same = async || Ok(example.on_host(&format!("sha256sum {path}")).await? == before);
    example.fleet.wait("the edited unit file is as it was", PATIENCE, same).await?;
    told("an edited unit file", begin);
    example.wait_event(&["orchestrator-router.service"]).await
}

async fn a_foreign_drop_in(example: &Example) -> Result<()> {
    let folder = "/etc/systemd/system/orchestrator-fanout.slice.d";
    example
        .on_host(&format!("printf '[Slice]\\nAllowedCPUs=0-1\\n' > {folder}/50-mine.conf; systemctl daemon-reload"))
        .await?;
    let shown = async || {
        let (status, reason, message) = example.host_condition("Drifted").await?;
        Ok(status == "True" && reason == "ForeignDropIn" && message.contains("50-mine.conf"))
    };
    example.fleet.wait("a foreign drop-in is reported", PATIENCE, shown).await?;
    example.wait_cgroup("fanout", "cpuset.cpus.effective", "16-19").await?;
    ensure!(example.condition("Ready").await?.0 == "True", "an outranked drop-in leaves the topology Ready");
    example.on_host(&format!("rm {folder}/50-mine.conf; systemctl daemon-reload")).await?;
    let gone = async || Ok(example.host_condition("Drifted").await?.0 == "False");
    example.fleet.wait("a drop-in that is gone is reported no more", PATIENCE, gone).await
}

async fn a_stopped_service(example: &Example) -> Result<()> {
    let before = example.lives().await?;
    let begin = Instant::now();
    example.on_host("systemctl stop orchestrator-api.service").await?;
    let up =
        async || Ok(example.on_host("systemctl is-active orchestrator-api.service; true").await?.trim() == "active");
    example.fleet.wait("a stopped service runs again", PATIENCE, up).await?;
    told("systemctl stop", begin);
    example.wait_event(&["orchestrator-api.service"]).await?;
    let after = example.lives().await?;
    ensure!(
        before.iter().filter(|(name, life)| after.get(*name) != Some(life)).count() == 1,
        "only api has a new life"
    );
    Ok(())
}

/// A sequence that looks random and is the same on every run.
fn scatter(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[tokio::test]
async fn fifty_kills_during_applies_converge_without_restarts_in_vain() -> Result<()> {
    let mut example = Example::ready(Suite::Bookworm).await?;
    let before = example.lives().await?;
    for round in 0..50u64 {
        let size = format!("{}Mi", 400 + round);
        example.edit("slices", "control", |slice| slice["memory"]["max"] = json!(size)).await?;
        tokio::time::sleep(Duration::from_millis(scatter(round) % 700)).await;
        if scatter(round).is_multiple_of(2) {
            example.fleet.kill_agent(HOST).await?;
        } else {
            example.fleet.kill_operators()?;
            example.fleet.start_operator(Lifetime::Tethered).await?;
        }
    }
    example.settle().await?;
    let asked = (449u64 << 20).to_string();
    ensure!(example.cgroup("control", "memory.max").await? == asked, "Ready, and the last limit is not in the cgroup");
    ensure!(before == example.lives().await?, "a kill restarted a service");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_the_rest_goes_on() -> Result<()> {
    let example = Example::up(Suite::Bookworm).await?;
    a_vendor_unit_keeps_its_name(&example).await?;
    cpus_that_are_not_there(&example).await?;
    missing_program_and_user(&example).await
}

async fn a_vendor_unit_keeps_its_name(example: &Example) -> Result<()> {
    let unit = "/usr/lib/systemd/system/orchestrator-api.service";
    example
        .on_host(&format!("printf '[Service]\\nExecStart=/bin/sleep 1000\\n' > {unit}; systemctl daemon-reload"))
        .await?;
    example.fleet.apply(&example::text()?).await?;
    let told = async || {
        let (status, reason, message) = example.host_condition("Stalled").await?;
        Ok(status == "True"
            && reason == "NameTaken"
            && message.contains("/lib/systemd/system/orchestrator-api.service"))
    };
    example.fleet.wait("a name that a vendor's unit has is said to be taken", PATIENCE, told).await?;
    let ours = example.on_host("ls /etc/systemd/system/orchestrator-api.service 2>&1; true").await?;
    ensure!(ours.contains("No such file"), "a vendor's unit was shadowed: {ours}");
    let others = async || {
        let text = example.on_host("systemctl is-active 'orchestrator-*.service' | grep -c ^active; true").await?;
        Ok(text.trim() == "7")
    };
    example.fleet.wait("the other seven services run", PATIENCE, others).await?;
    example.on_host(&format!("rm {unit}; systemctl daemon-reload")).await?;
    example.settle().await
}

async fn cpus_that_are_not_there(example: &Example) -> Result<()> {
    let yaml = json!({
        "apiVersion": "lamina.dev/v1alpha1", "kind": "SliceTopology", "metadata": { "name": "toowide" },
        "spec": {
            "hostSelector": { "matchLabels": { "lamina.dev/role": "orchestrator" } },
            "slices": [{ "name": "wide", "cpu": { "set": "16-40" }, "isolation": "Shared" }],
            "services": [{ "name": "one", "slice": "wide", "user": "orchestrator", "command": ["/opt/orchestrator/bin/api"] }],
        },
    });
    example.fleet.apply(&yaml.to_string()).await?;
    let told = async || {
        let status = serde_json::to_value(example.fleet.topology("toowide").await?.status)?;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let stalled =
            conditions.iter().find(|condition| condition["type"] == "Stalled").cloned().unwrap_or(Value::Null);
        let message = stalled["message"].as_str().unwrap_or_default();
        Ok(stalled["status"] == "True" && ["wide", "20-40", HOST].iter().all(|word| message.contains(word)))
    };
    example.fleet.wait("CPUs that are not there are named, with slice and host", PATIENCE, told).await?;
    let units = example.on_host("ls /etc/systemd/system | grep -c toowide; true").await?;
    ensure!(units.trim() == "0", "something was written for a topology that cannot be placed");
    example.fleet.kubectl(&["delete", "slicetopology", "toowide"]).await?;
    ensure!(example.condition("Ready").await?.0 == "True", "another team's mistake concerns nobody else");
    Ok(())
}

async fn missing_program_and_user(example: &Example) -> Result<()> {
    let before = example.lives().await?;
    example
        .edit_list("services", |services| {
            services
                .push(json!({ "name": "noprogram", "slice": "control", "command": ["/opt/orchestrator/bin/nothing"] }));
            services.push(json!({ "name": "nouser", "slice": "control", "user": "nobodyhere",
                "command": ["/opt/orchestrator/bin/api"] }));
        })
        .await?;
    let told = async || {
        let (ready, _, message) = example.host_condition("Ready").await?;
        let words = ["/opt/orchestrator/bin/nothing", "nobodyhere"];
        Ok(ready == "False" && words.iter().any(|word| message.contains(word)))
    };
    example.fleet.wait("a missing program and a missing user are named", PATIENCE, told).await?;
    let written = example.on_host("ls /etc/systemd/system | grep -cE 'noprogram|nouser'; true").await?;
    ensure!(written.trim() == "0", "a service that cannot run was written");
    let after = example.lives().await?;
    ensure!(before.iter().all(|(name, life)| after.get(name) == Some(life)), "what is not concerned goes on");
    example.on_host("cp /opt/orchestrator/bin/api /opt/orchestrator/bin/nothing; useradd --system nobodyhere").await?;
    example.settle().await
}
