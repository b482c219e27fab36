//! The whole path on real components: what `kubectl apply` says is what the kernel does, on both systemd versions, from
//! counts and from literal sets, and after a reboot without an API server.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lamina_e2e::fleet::example::{self, Example, HOST, PATIENCE, SERVICES, TOPOLOGY};
use lamina_e2e::fleet::waiting;
use lamina_e2e::image::Suite;
use serde_json::Value;

const PLACES: [(&str, &str, &str); 3] = [("control", "0-7", "0"), ("runner", "8-15", "1"), ("fanout", "16-19", "0")];

#[tokio::test]
async fn the_example_is_true_in_the_kernel_of_systemd_252() -> Result<()> {
    the_example_is_true(Suite::Bookworm).await
}

#[tokio::test]
async fn the_example_is_true_in_the_kernel_of_systemd_257() -> Result<()> {
    the_example_is_true(Suite::Trixie).await
}

async fn the_example_is_true(suite: Suite) -> Result<()> {
    let example = Example::ready(suite).await?;
    places_are_as_asked(&example).await?;
    limits_are_as_asked(&example).await?;
    services_are_as_asked(&example).await?;
    the_start_order_was_held(&example).await?;
    let listed = example.on_host("systemctl status --no-pager 'orchestrator-*' | grep -c '^[●*]'").await?;
    ensure!(listed.trim() == "11", "systemctl status lists {listed} units, 3 slices and 8 services are asked");
    literal_sets_come_out_the_same(&example).await
}

async fn places_are_as_asked(example: &Example) -> Result<()> {
    for (slice, cpus, nodes) in PLACES {
        let (effective, memory) = (
            example.cgroup(slice, "cpuset.cpus.effective").await?,
            example.cgroup(slice, "cpuset.mems.effective").await?,
        );
        ensure!((effective.as_str(), memory.as_str()) == (cpus, nodes), "{slice} has CPUs {effective}, nodes {memory}");
    }
    let status = example.fleet.host_state(HOST).await?.status.context("the host has a status")?;
    let topology = status.topologies.first().context("the topology is in the status")?;
    for (slice, (name, cpus, nodes)) in topology.slices.iter().zip(PLACES) {
        ensure!(slice.unit == format!("{TOPOLOGY}-{name}.slice"), "{slice:?}");
        ensure!((slice.cpus.to_string(), slice.memory_nodes.to_string()) == (cpus.into(), nodes.into()), "{slice:?}");
        ensure!(slice.services == slice.services_ready, "{slice:?}");
    }
    Ok(())
}

async fn limits_are_as_asked(example: &Example) -> Result<()> {
    let spec = serde_json::to_value(example.fleet.topology(TOPOLOGY).await?.spec)?;
    let slices = spec["slices"].as_array().context("slices are a list")?;
    let mut protected = 0u64;
    for slice in slices {
        let name = slice["name"].as_str().context("a slice has a name")?;
        for (field, file) in [("min", "memory.min"), ("high", "memory.high"), ("max", "memory.max")] {
            let asked: lamina_crds::Bytes = slice["memory"][field].as_str().context("a quantity")?.parse()?;
            let found = example.cgroup(name, file).await?;
            ensure!(found == asked.get().to_string(), "{name}: {file} is {found}, asked {}", asked.get());
            protected += if field == "min" { asked.get() } else { 0 };
        }
    }
    let whole = example.on_host("cat /sys/fs/cgroup/orchestrator.slice/memory.min").await?;
    ensure!(whole.trim() == protected.to_string(), "the ancestor grants {whole}, its slices need {protected}");
    ensure!(example.cgroup("control", "io.weight").await? == "default 500", "io.weight");
    ensure!(example.cgroup("control", "pids.max").await? == "4096", "pids.max");
    Ok(())
}

async fn services_are_as_asked(example: &Example) -> Result<()> {
    let mut slice_of = BTreeMap::new();
    for service in SERVICES {
        let slice = match service {
            "runner" | "agent-runner" => PLACES[1],
            "fanout" => PLACES[2],
            _ => PLACES[0],
        };
        slice_of.insert(service, slice);
    }
    for (service, (_, cpus, nodes)) in slice_of {
        let unit = format!("orchestrator-{service}.service");
        let threads = example
            .on_host(&format!(
                "for p in $(cat /sys/fs/cgroup$(systemctl show -p ControlGroup --value {unit})/cgroup.procs); do \
                 cat /proc/$p/task/*/status; done | grep -E '^(Cpus|Mems)_allowed_list' | sort | uniq -c"
            ))
            .await?;
        let found: Vec<(&str, &str)> = threads
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace().skip(1);
                Some((words.next()?, words.next()?))
            })
            .collect();
        ensure!(found == [("Cpus_allowed_list:", cpus), ("Mems_allowed_list:", nodes)], "{service}: {threads}");
        let user = example.on_host(&format!("ps -o user:20= -p $(systemctl show -p MainPID --value {unit})")).await?;
        ensure!(user.trim() == "orchestrator", "{service} runs as {user}");
        let count = if service == "fanout" { "4" } else { "8" };
        let gomaxprocs = example.ask(service, "env GOMAXPROCS").await?;
        ensure!(gomaxprocs.to_string().contains(count), "{service}: GOMAXPROCS is {gomaxprocs}");
        let delivered = example.ask(service, "env POSTGRES_DB").await?;
        ensure!(delivered.to_string().contains("orchestrator"), "{service}: POSTGRES_DB is {delivered}");
        let host = example.ask(service, "env NODE").await?;
        ensure!(host.to_string().contains(HOST), "{service}: NODE is {host}");
        pages_are_on(example, service, nodes).await?;
    }
    Ok(())
}

/// Memory that a service touches now lies on its slice's node: `memory.numa_stat` of its cgroup.
async fn pages_are_on(example: &Example, service: &str, node: &str) -> Result<()> {
    example.ask(service, "allocate 8").await?;
    let unit = format!("orchestrator-{service}.service");
    let line = example
        .on_host(&format!(
            "grep '^anon ' /sys/fs/cgroup$(systemctl show -p ControlGroup --value {unit})/memory.numa_stat"
        ))
        .await?;
    for part in line.split_whitespace().skip(1) {
        let (name, bytes) = part.split_once('=').context("node=bytes")?;
        let bytes: u64 = bytes.parse()?;
        let own = name == format!("N{node}");
        ensure!(
            if own { bytes >= 8 << 20 } else { bytes == 0 },
            "{service}: anonymous pages are {line}, asked node {node}"
        );
    }
    Ok(())
}

async fn the_start_order_was_held(example: &Example) -> Result<()> {
    let mut started = Vec::new();
    for service in SERVICES {
        let script =
            format!("systemctl show -p ExecMainStartTimestampMonotonic --value orchestrator-{service}.service");
        started.push(example.on_host(&script).await?.trim().parse::<u64>()?);
    }
    let (control, rest) = started.split_at(5);
    let (runner, fanout) = rest.split_at(2);
    let last = |group: &[u64]| group.iter().copied().max().unwrap_or_default();
    let first = |group: &[u64]| group.iter().copied().min().unwrap_or_default();
    ensure!(last(control) < first(runner) && last(runner) < first(fanout), "services started at {started:?}");
    Ok(())
}

/// Asking for the same CPUs by number changes nothing: not a process, not a place.
async fn literal_sets_come_out_the_same(example: &Example) -> Result<()> {
    let before = example.lives().await?;
    example
        .edit_list("slices", |slices| {
            for slice in slices {
                let place = PLACES.iter().find(|(name, _, _)| slice["name"] == *name);
                slice["cpu"] = serde_json::json!({ "set": place.map(|(_, cpus, _)| *cpus) });
                if let Some(object) = slice.as_object_mut() {
                    object.remove("numa");
                }
            }
        })
        .await?;
    example.settle().await?;
    places_are_as_asked(example).await?;
    ensure!(before == example.lives().await?, "literal sets restarted a service");
    Ok(())
}

#[tokio::test]
async fn literal_sets_place_a_fresh_host_alike() -> Result<()> {
    let example = Example::up(Suite::Bookworm).await?;
    let mut topology: Value = serde_json::from_str(&example::text()?)?;
    for slice in topology["spec"]["slices"].as_array_mut().context("slices are a list")? {
        let place = PLACES.iter().find(|(name, _, _)| slice["name"] == *name);
        slice["cpu"] = serde_json::json!({ "set": place.map(|(_, cpus, _)| *cpus) });
        slice.as_object_mut().context("a slice is an object")?.remove("numa");
    }
    example.fleet.apply(&topology.to_string()).await?;
    example.settle().await?;
    places_are_as_asked(&example).await
}

#[tokio::test]
async fn a_reboot_without_an_api_server_comes_up_pinned() -> Result<()> {
    for suite in [Suite::Bookworm, Suite::Trixie] {
        let mut example = Example::ready(suite).await?;
        example.fleet.control_plane.stop_api_server()?;
        example.fleet.host_mut(HOST)?.reboot().await?;
        for (slice, cpus, _) in PLACES {
            example.wait_cgroup(slice, "cpuset.cpus.effective", cpus).await?;
        }
        let up = async || {
            let active = example.on_host("systemctl is-active 'orchestrator-*.service' | sort | uniq -c").await?;
            Ok(active.split_whitespace().collect::<Vec<_>>() == ["8", "active"])
        };
        waiting::until("all eight services are active after the reboot", PATIENCE, up).await?;
        drift_is_healed_without_an_api_server(&example).await?;
        example.fleet.control_plane.start_api_server().await?;
        example.settle().await?;
        places_are_as_asked(&example).await?;
    }
    Ok(())
}

async fn drift_is_healed_without_an_api_server(example: &Example) -> Result<()> {
    let file = format!("{}/cpuset.cpus", Example::cgroup_of("control"));
    let agent_is_up = async || Ok(example.on_host("systemctl is-active lamina-agent").await?.trim() == "active");
    waiting::until("the agent is active after the reboot", PATIENCE, agent_is_up).await?;
    example.on_host(&format!("echo 0-3 > {file}")).await?;
    example.wait_cgroup("control", "cpuset.cpus.effective", "0-7").await.map(drop)
}
