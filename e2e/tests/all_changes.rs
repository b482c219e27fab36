//! The whole path on real components: what each change does to running services, and what it leaves alone; what users are
//! told meanwhile; deletion, release and taking over again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamina_e2e::fleet::example::{self, Example, HOST, Life, PATIENCE, SERVICES, TOPOLOGY};
use lamina_e2e::fleet::waiting;
use lamina_e2e::image::Suite;
use serde_json::json;

/// The services that have another life than before.
fn restarted(before: &BTreeMap<String, Life>, after: &BTreeMap<String, Life>) -> BTreeSet<String> {
    before.iter().filter(|(name, life)| after.get(*name) != Some(life)).map(|(name, _)| name.clone()).collect()
}

async fn expect_restarted(example: &Example, before: &BTreeMap<String, Life>, names: &[&str]) -> Result<()> {
    let found = restarted(before, &example.lives().await?);
    let expected: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    ensure!(found == expected, "restarted: {found:?}, expected: {expected:?}");
    Ok(())
}

#[tokio::test]
async fn each_change_touches_what_it_concerns_on_systemd_252() -> Result<()> {
    each_change_touches_what_it_concerns(Suite::Bookworm).await
}

#[tokio::test]
async fn each_change_touches_what_it_concerns_on_systemd_257() -> Result<()> {
    each_change_touches_what_it_concerns(Suite::Trixie).await
}

async fn each_change_touches_what_it_concerns(suite: Suite) -> Result<()> {
    let example = Example::ready(suite).await?;
    a_limit_changes_live(&example).await?;
    a_command_restarts_its_service(&example).await?;
    an_environment_file_restarts_its_readers(&example).await?;
    a_derived_value_restarts_nobody(&example).await?;
    services_come_move_and_go(&example).await?;
    Ok(())
}

async fn a_limit_changes_live(example: &Example) -> Result<()> {
    let before = example.lives().await?;
    example.edit("slices", "control", |slice| slice["memory"]["max"] = json!("500Mi")).await?;
    let took = example.wait_cgroup("control", "memory.max", &(500u64 << 20).to_string()).await?;
    println!("a changed limit is in the cgroup after {} ms", took.as_millis());
    example.settle().await?;
    expect_restarted(example, &before, &[]).await?;
    let left = example.on_host("ls /run/systemd/system.control 2>/dev/null | wc -l").await?;
    ensure!(left.trim() == "0", "the change left {left} folders in system.control");
    Ok(())
}

async fn a_command_restarts_its_service(example: &Example) -> Result<()> {
    let before = example.lives().await?;
    let command = json!(["/opt/orchestrator/bin/parser", "--mode", "100% $HOME \"quoted\" ;"]);
    example.edit("services", "parser", |service| service["command"] = command).await?;
    example.settle().await?;
    expect_restarted(example, &before, &["parser"]).await?;
    let pid = &example.lives().await?["parser"].pid;
    let line = example.on_host(&format!("tr '\\0' '|' < /proc/{pid}/cmdline")).await?;
    ensure!(line == "/opt/orchestrator/bin/parser|--mode|100% $HOME \"quoted\" ;|", "the kernel shows {line}");
    Ok(())
}

async fn an_environment_file_restarts_its_readers(example: &Example) -> Result<()> {
    example.edit("services", "fanout", |service| service["envFiles"] = json!([])).await?;
    example.settle().await?;
    let before = example.lives().await?;
    let content = "POSTGRES_HOST=db\nPOSTGRES_PORT=5432\nPOSTGRES_DB=orchestrator\nPORT=8080\n";
    example.edit("files", "orchestrator.env", |file| file["content"] = json!(content)).await?;
    example.settle().await?;
    let readers: Vec<&str> = SERVICES.into_iter().filter(|service| *service != "fanout").collect();
    expect_restarted(example, &before, &readers).await?;
    let value = example.ask("router", "env POSTGRES_HOST").await?;
    ensure!(value["value"] == "db", "router sees {value}");
    Ok(())
}

async fn a_derived_value_restarts_nobody(example: &Example) -> Result<()> {
    let before = example.lives().await?;
    example.edit("slices", "fanout", |slice| slice["cpu"] = json!({ "cores": 3 })).await?;
    example.wait_cgroup("fanout", "cpuset.cpus.effective", "16-18").await?;
    example.settle().await?;
    expect_restarted(example, &before, &[]).await?;
    let (_, reason, message) = example.host_condition("Ready").await?;
    ensure!(reason == "PendingRestart" && message.contains("fanout"), "Ready says {reason}: {message}");
    example.edit("slices", "fanout", |slice| slice["cpu"] = json!({ "cores": 4 })).await?;
    example.wait_cgroup("fanout", "cpuset.cpus.effective", "16-19").await?;
    example.settle().await
}

async fn services_come_move_and_go(example: &Example) -> Result<()> {
    let before = example.lives().await?;
    let added = json!({ "name": "extra", "slice": "fanout", "command": ["/opt/orchestrator/bin/fanout", "--extra"] });
    example.edit_list("services", |services| services.push(added)).await?;
    example.settle().await?;
    expect_restarted(example, &before, &[]).await?;
    ensure!(example.lives().await?.contains_key("extra"), "the added service does not run");

    example.edit("services", "extra", |service| service["slice"] = json!("runner")).await?;
    example.settle().await?;
    expect_restarted(example, &before, &[]).await?;
    let group = example.on_host("systemctl show -p ControlGroup --value orchestrator-extra.service").await?;
    ensure!(group.contains("orchestrator-runner.slice"), "the moved service runs in {group}");

    example.edit_list("services", |services| services.retain(|service| service["name"] != "extra")).await?;
    example.settle().await?;
    expect_restarted(example, &before, &[]).await?;
    let left = example
        .on_host(
            "ls /etc/systemd/system | grep -c extra; systemctl list-units --all --plain --no-legend '*extra*'; true",
        )
        .await?;
    ensure!(left.trim() == "0", "the removed service left: {left}");
    Ok(())
}

#[tokio::test]
async fn retained_is_taken_over_and_removed_is_gone() -> Result<()> {
    let example = Example::ready(Suite::Bookworm).await?;
    let before = example.lives().await?;
    retain_keeps_everything(&example, &before).await?;
    the_same_name_takes_over(&example, &before).await?;
    deleted_by_force_stops_nothing(&example, &before).await?;
    remove_leaves_nothing(&example).await
}

async fn retain_keeps_everything(example: &Example, before: &BTreeMap<String, Life>) -> Result<()> {
    example.fleet.kubectl(&["delete", "slicetopology", TOPOLOGY, "--timeout=60s"]).await?;
    let released = async || {
        let spec = example.fleet.host_state(HOST).await?.spec;
        Ok(spec.topologies.is_empty())
    };
    example.fleet.wait("the released entry has left the host's object", PATIENCE, released).await?;
    expect_restarted(example, before, &[]).await?;
    ensure!(example.cgroup("control", "cpuset.cpus.effective").await? == "0-7", "a released slice is pinned as it was");
    Ok(())
}

async fn the_same_name_takes_over(example: &Example, before: &BTreeMap<String, Life>) -> Result<()> {
    example.fleet.apply(&example::text()?).await?;
    example.settle().await?;
    expect_restarted(example, before, &[]).await
}

async fn deleted_by_force_stops_nothing(example: &Example, before: &BTreeMap<String, Life>) -> Result<()> {
    example.fleet.kubectl(&["delete", "hoststate", HOST, "--timeout=60s"]).await?;
    example.settle().await?;
    expect_restarted(example, before, &[]).await?;
    for crd in ["hoststates.lamina.dev", "slicetopologies.lamina.dev"] {
        example.fleet.kubectl(&["delete", "crd", crd, "--timeout=90s"]).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    expect_restarted(example, before, &[]).await?;
    let chart = lamina_e2e::fleet::chart();
    let crds = chart.join("../lamina-crds/templates");
    example.fleet.kubectl(&["apply", "-f", crds.to_str().context("a path is text")?]).await?;
    let served = async || Ok(example.fleet.apply(&example::text()?).await.is_ok());
    example.fleet.wait("the definitions are served again", PATIENCE, served).await?;
    let ready = async || Ok(example.condition("Ready").await?.0 == "True");
    example.fleet.wait("the topology is Ready again", PATIENCE, ready).await?;
    expect_restarted(example, before, &[]).await
}

async fn remove_leaves_nothing(example: &Example) -> Result<()> {
    example.patch(&json!({ "spec": { "deletionPolicy": "Remove" } })).await?;
    example.settle().await?;
    let guarded =
        async || Ok(!example.fleet.topology(TOPOLOGY).await?.metadata.finalizers.unwrap_or_default().is_empty());
    example.fleet.wait("the finalizer is there", PATIENCE, guarded).await?;
    example.fleet.kubectl(&["delete", "slicetopology", TOPOLOGY, "--timeout=120s"]).await?;
    let script = "find /etc/systemd/system /run/systemd/system.control /etc/lamina/files -name '*orchestrator*'; \
        systemctl list-units --all --plain --no-legend 'orchestrator*'; ls -d /sys/fs/cgroup/orchestrator.slice 2>/dev/null; true";
    let left = example.on_host(script).await?;
    ensure!(left.trim().is_empty(), "removal left:\n{left}");
    let mut stopped = BTreeMap::new();
    for service in SERVICES {
        let script = format!(
            "journalctl -o short-monotonic --no-pager -u orchestrator-{service}.service | grep -E 'Stopped|Deactivated' | tail -1"
        );
        stopped.insert(service, example.on_host(&script).await?);
    }
    let time = |service: &str| -> Result<f64> {
        let line = stopped.get(service).context("a service")?;
        let text = line.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
        text.parse().with_context(|| format!("{service} has no stop in its journal: {line}"))
    };
    ensure!(
        time("fanout")? <= time("runner")? && time("runner")? <= time("orchestrator")?,
        "stopped in order: {stopped:?}"
    );
    Ok(())
}

#[tokio::test]
async fn conditions_say_how_things_are() -> Result<()> {
    let example = Example::up(Suite::Bookworm).await?;
    no_host_matches(&example).await?;
    a_wait_never_returns_early(&example).await?;
    a_silent_agent_shows(&example).await
}

async fn no_host_matches(example: &Example) -> Result<()> {
    let yaml = "{apiVersion: lamina.dev/v1alpha1, kind: SliceTopology, metadata: {name: nobody}, spec: {hostSelector: \
        {matchLabels: {no: host}}, slices: [{name: only, cpu: {cores: 1}}]}}";
    example.fleet.apply(yaml).await?;
    let told = async || {
        let topology = example.fleet.topology("nobody").await?;
        let conditions = topology.status.map(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition.reason == "NoHost"))
    };
    example.fleet.wait("a topology without hosts says NoHost", waiting::MINUTE, told).await?;
    example.fleet.kubectl(&["delete", "slicetopology", "nobody"]).await.map(drop)
}

/// While the agent is stopped, a change cannot be true yet; `kubectl wait` must not believe the condition from before.
async fn a_wait_never_returns_early(example: &Example) -> Result<()> {
    example.fleet.apply(&example::text()?).await?;
    example.settle().await?;
    example.fleet.stop_agent(HOST).await?;
    let generation = example.edit("slices", "control", |slice| slice["memory"]["max"] = json!("450Mi")).await?;
    let early = ["wait", "--for=condition=Ready", "slicetopology/orchestrator", "--timeout=8s"];
    let said = example.fleet.control_plane.kubectl(&early).await?;
    ensure!(said.code != 0, "kubectl wait returned on a stale generation: {}", said.stdout);
    example.fleet.start_agent(HOST).await?;
    example.settle().await?;
    ensure!(example.cgroup("control", "memory.max").await? == (450u64 << 20).to_string(), "Ready before it was true");
    let status = example.fleet.topology(TOPOLOGY).await?.status.context("there is a status")?;
    ensure!(status.conditions.iter().all(|condition| condition.observed_generation == generation), "{status:?}");
    for (type_, expected) in
        [("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False"), ("Placed", "True"), ("Degraded", "False")]
    {
        let (status, reason, message) = example.condition(type_).await?;
        ensure!(status == expected && !reason.is_empty(), "{type_} is {status}: {reason}, {message}");
    }
    Ok(())
}

async fn a_silent_agent_shows(example: &Example) -> Result<()> {
    example.fleet.stop_agent(HOST).await?;
    let shown = async || {
        let status = example.fleet.topology(TOPOLOGY).await?.status.unwrap_or_default();
        let (ready, ..) = example.condition("Ready").await?;
        Ok(status.hosts.is_some_and(|hosts| hosts.offline == 1) && ready == "Unknown")
    };
    example.fleet.wait("a silent agent shows in the counts", PATIENCE, shown).await?;
    example.fleet.start_agent(HOST).await?;
    example.settle().await
}
