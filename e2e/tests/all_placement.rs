//! The whole path on real components: a topology on fewer cores than it asks for, and CPUs that go away and come back.

use anyhow::{Context, Result, ensure};
use lamina_e2e::fleet::example::{self, Example, HOST, PATIENCE, TOPOLOGY};
use lamina_e2e::host::{HostSpec, Layout};
use lamina_e2e::image::Suite;
use serde_json::{Value, json};

#[tokio::test]
async fn eight_cores_run_the_example_by_consent() -> Result<()> {
    let layout: Layout = "0-7".parse().map_err(anyhow::Error::msg)?;
    let spec = HostSpec { layout, node_mebibytes: 3072, ..HostSpec::twenty(HOST, Suite::Bookworm) };
    let example = Example::up_on(spec).await?;
    example.fleet.apply(&example::text()?).await?;
    example.settle().await?;
    for (slice, cpus) in [("control", "0-3"), ("runner", "4-7"), ("fanout", "0-3")] {
        let effective = example.cgroup(slice, "cpuset.cpus.effective").await?;
        ensure!(effective == cpus, "{slice} has CPUs {effective}");
    }
    let (status, reason, message) = example.condition("Degraded").await?;
    ensure!(status == "True", "less than asked is no news: {reason}: {message}");
    ensure!(message.contains(HOST) && message.contains("fanout"), "{reason}: {message}");
    let status = serde_json::to_value(example.fleet.topology(TOPOLOGY).await?.status)?;
    ensure!(status["hosts"]["degraded"] == 1 && status["hosts"]["ready"] == 1, "{status}");
    let threads = example.ask("fanout", "env GOMAXPROCS").await?;
    ensure!(threads.to_string().contains('4'), "fanout's GOMAXPROCS is {threads}, its slice has 4 CPUs");
    nothing_is_chosen_on_a_single_node(&example).await
}

/// On a host of one node there is nothing to choose, so no memory nodes are set.
async fn nothing_is_chosen_on_a_single_node(example: &Example) -> Result<()> {
    let state = serde_json::to_value(example.fleet.host_state(HOST).await?.spec)?;
    let slices = state["topologies"][0]["slices"].as_array().cloned().unwrap_or_default();
    ensure!(slices.len() == 3, "{state}");
    ensure!(slices.iter().all(|slice| slice.get("memoryNodes").is_none_or(Value::is_null)), "{state}");
    let property = "systemctl show -p AllowedMemoryNodes --value orchestrator-control.slice";
    ensure!(example.on_host(property).await?.trim().is_empty(), "AllowedMemoryNodes is set");
    Ok(())
}

#[tokio::test]
async fn a_slice_stays_on_the_cpus_that_are_left_and_is_whole_again_when_they_return_on_systemd_252() -> Result<()> {
    a_cpu_comes_and_goes(Suite::Bookworm).await
}

#[tokio::test]
async fn a_slice_stays_on_the_cpus_that_are_left_and_is_whole_again_when_they_return_on_systemd_257() -> Result<()> {
    a_cpu_comes_and_goes(Suite::Trixie).await
}

async fn a_cpu_comes_and_goes(suite: Suite) -> Result<()> {
    let example = Example::ready(suite).await?;
    let before = example.lives().await?;
    switch(&example, &[10], "0").await?;
    example.wait_cgroup("runner", "cpuset.cpus.effective", "8-9,11-15").await?;
    let told = async || {
        let (status, reason, message) = example.condition("Degraded").await?;
        let named = message.contains("7 of 8") && message.contains("10");
        Ok(status == "True" && reason == "CPUOffline" && named)
    };
    example.fleet.wait("the status says that runner has 7 of 8 CPUs and why", PATIENCE, told).await?;
    example.settle().await?;
    ensure!(asked_cpus(&example, "runner").await? == "8-15", "a slice was moved though its min remains");
    ensure!(example.condition("Stalled").await?.0 == "False", "a CPU less stalls nothing");

    switch(&example, &[10], "1").await?;
    example.wait_cgroup("runner", "cpuset.cpus.effective", "8-15").await?;
    let forgotten = async || Ok(example.condition("Degraded").await?.0 == "False");
    example.fleet.wait("nothing is less than asked", PATIENCE, forgotten).await?;
    whole_again(&example).await?;
    ensure!(before == example.lives().await?, "a CPU that went and came restarted a service");

    a_slice_below_its_minimum_is_placed_anew(&example).await?;
    ensure!(before == example.lives().await?, "a slice that moved restarted a service");
    Ok(())
}

async fn a_slice_below_its_minimum_is_placed_anew(example: &Example) -> Result<()> {
    example.edit("slices", "runner", |slice| slice["cpu"]["min"] = json!(7)).await?;
    example.settle().await?;
    switch(example, &[10, 11], "0").await?;
    let moved = async || {
        let cpus: lamina_crds::CpuSet = asked_cpus(example, "runner").await?.parse()?;
        Ok(cpus.len() >= 7 && !cpus.contains(10) && !cpus.contains(11))
    };
    example.fleet.wait("runner is placed anew on CPUs that are online", PATIENCE, moved).await?;
    example.settle().await?;
    let effective: lamina_crds::CpuSet = example.cgroup("runner", "cpuset.cpus.effective").await?.parse()?;
    ensure!(effective.len() >= 7, "runner runs on {effective}");
    ensure!(example.condition("Degraded").await?.0 == "True", "18 CPUs for 20 asked is no news");
    switch(example, &[10, 11], "1").await?;
    whole_again(example).await?;
    // Nobody moves back for a mere preference: that runner is not apart from control any more is told.
    let (status, reason, message) = example.condition("Degraded").await?;
    ensure!((status.as_str(), reason.as_str()) == ("True", "Relaxed"), "{status} {reason}: {message}");
    Ok(())
}

/// Waits until everybody has all the CPUs asked for, and nobody shares any.
async fn whole_again(example: &Example) -> Result<()> {
    let whole = async || {
        let mut all = lamina_crds::CpuSet::new();
        for (slice, count) in [("control", 8), ("runner", 8), ("fanout", 4)] {
            let cpus: lamina_crds::CpuSet = example.cgroup(slice, "cpuset.cpus.effective").await?.parse()?;
            if cpus.len() != count || !cpus.is_disjoint(&all) {
                return Ok(false);
            }
            all = all.union(&cpus);
        }
        Ok(true)
    };
    example.fleet.wait("every slice has all its CPUs for itself", PATIENCE, whole).await?;
    example.settle().await
}

async fn switch(example: &Example, cpus: &[u32], state: &str) -> Result<()> {
    for cpu in cpus {
        example.on_host(&format!("echo {state} > /sys/devices/system/cpu/cpu{cpu}/online")).await?;
    }
    Ok(())
}

/// The CPUs that the operator wrote for a slice.
async fn asked_cpus(example: &Example, slice: &str) -> Result<String> {
    let state = serde_json::to_value(example.fleet.host_state(HOST).await?.spec)?;
    let slices = state["topologies"][0]["slices"].as_array().cloned().unwrap_or_default();
    let unit = format!("{TOPOLOGY}-{slice}.slice");
    let found =
        slices.into_iter().find(|item| item["unit"] == unit.as_str()).context("the slice is in the HostState")?;
    Ok(found["cpus"].as_str().unwrap_or_default().to_owned())
}
