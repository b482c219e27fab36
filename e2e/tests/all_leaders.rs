//! Two operators on real components: the leader killed, stopped and let go on, drained. Reconciling goes on, one writes at
//! a time, and the host follows no older term after a newer one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamina_e2e::fleet::Fleet;
use lamina_e2e::fleet::example::{Example, HOST, PATIENCE};
use lamina_e2e::fleet::waiting::{self, MINUTE};
use lamina_e2e::host::Lifetime;
use lamina_e2e::image::Suite;
use rustix::process::Signal;
use serde_json::{Value, json};

/// After so long a Lease that nobody renews is free.
const LEASE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_leader_that_is_lost_is_followed_by_another_and_by_nobody_older() -> Result<()> {
    let mut example = Example::ready(Suite::Bookworm).await?;
    let before = example.lives().await?;
    let (first, term) = leads(&example.fleet, "").await?;
    example.fleet.start_operator(Lifetime::Tethered).await?;

    let mut killed = example.fleet.take_operator(&first).context("the leader runs")?;
    killed.kill()?;
    let (second, taken) = followed(&example, &first, term, 400).await?;
    println!("killed: {second} leads after {} s", taken.as_secs());
    ensure!(taken > LEASE / 2, "nobody may lead before the Lease is free");

    example.fleet.start_operator(Lifetime::Tethered).await?;
    signal(&example.fleet, &second, Signal::STOP)?;
    let (third, taken) = followed(&example, &second, term + 1, 401).await?;
    println!("stopped: {third} leads after {} s", taken.as_secs());
    signal(&example.fleet, &second, Signal::CONT)?;
    goes_on(&example, 402).await?;
    ensure!(leads(&example.fleet, "").await? == (third.clone(), term + 2), "who was stopped leads no more");

    signal(&example.fleet, &third, Signal::TERM)?;
    let (_, taken) = followed(&example, &third, term + 2, 403).await?;
    println!("drained: another one leads after {} ms", taken.as_millis());
    ensure!(taken < LEASE / 3, "what is handed back is taken at once, not after {} s", taken.as_secs());

    ensure!(example.lives().await? == before, "no hand-over touches a service");
    let text = [killed.log(), logs(&example.fleet)].concat();
    let terms = written_terms(&text)?;
    ensure!(terms.is_sorted() && terms.first() < terms.last(), "terms in the order in which they wrote: {terms:?}");
    Ok(())
}

/// An object that is made again, by whomever, is followed only from the highest term on that the host has accepted.
#[tokio::test]
async fn an_object_made_again_in_an_older_term_is_not_followed_and_soon_written_anew() -> Result<()> {
    let mut example = Example::ready(Suite::Bookworm).await?;
    let before = example.lives().await?;
    // Somebody leads in a later term.
    let (first, term) = leads(&example.fleet, "").await?;
    example.fleet.take_operator(&first).context("the leader runs")?.kill()?;
    example.fleet.start_operator(Lifetime::Tethered).await?;
    followed(&example, "nobody", term, 400).await?;
    let state = serde_json::to_value(example.fleet.host_state(HOST).await?).context("a HostState as JSON")?;
    ensure!(state["status"]["term"] == term + 1, "the host knows the term: {}", state["status"]);
    let accepted = example.on_host("cat /var/lib/lamina/accepted.*").await?;
    ensure!(accepted.contains(&format!("\"term\":{}", term + 1)), "the term is stored on the host");

    example.fleet.kill_operators()?;
    // What a deposed operator would make: the object again, in its own term, asking for something else.
    let mut again = json!({ "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState",
        "metadata": { "name": HOST, "labels": { "lamina.dev/origin": "Node" } }, "spec": state["spec"] });
    again["spec"]["term"] = json!(term);
    again["spec"]["topologies"][0]["state"] = json!("Absent");
    example.fleet.kubectl(&["delete", "hoststate", HOST, "--wait=true"]).await?;
    example.fleet.apply(&again.to_string()).await?;
    let told = async || Ok(example.host_condition("Ready").await?.1 == "OlderTerm");
    example.fleet.wait("the host says that it does not follow", MINUTE, told).await?;
    example.wait_event(&["OlderTerm", "it was"]).await?;
    ensure!(example.lives().await? == before, "nothing was stopped");

    example.fleet.start_operator(Lifetime::Tethered).await?;
    goes_on(&example, 401).await?;
    let state = serde_json::to_value(example.fleet.host_state(HOST).await?).context("a HostState as JSON")?;
    ensure!(state["spec"]["term"] == term + 2, "whoever leads has written it anew: {}", state["spec"]["term"]);
    ensure!(example.lives().await? == before, "no service was touched");
    Ok(())
}

/// Waits until somebody else than this one leads, and tells who, and in which term.
async fn leads(fleet: &Fleet, but: &str) -> Result<(String, i32)> {
    let other = async || Ok(fleet.leader().await?.is_some_and(|(name, _)| name != but));
    fleet.wait("another operator leads", MINUTE, other).await?;
    fleet.leader().await?.context("somebody leads")
}

/// Asks for something new as soon as this leader is lost: another one leads in the next term, and does it.
async fn followed(example: &Example, lost: &str, term: i32, limit: u32) -> Result<(String, Duration)> {
    let other = async || Ok(example.fleet.leader().await?.is_some_and(|(name, now)| name != lost && now > term));
    let taken = waiting::until("another operator leads", MINUTE, other).await;
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => return Err(error.context(example.fleet.dump().await)),
    };
    let (name, now) = example.fleet.leader().await?.context("somebody leads")?;
    ensure!(now == term + 1, "term {now} follows {term}");
    goes_on(example, limit).await?;
    let written = serde_json::to_value(example.fleet.host_state(HOST).await?.spec).context("a spec as JSON")?;
    ensure!(written["term"] == now, "the spec bears term {}, and {now} wrote it", written["term"]);
    Ok((name, taken))
}

/// A change reaches the host.
async fn goes_on(example: &Example, mebibytes: u32) -> Result<()> {
    example.edit("slices", "control", |slice| slice["memory"]["max"] = json!(format!("{mebibytes}Mi"))).await?;
    example.wait_cgroup("control", "memory.max", &(u64::from(mebibytes) << 20).to_string()).await?;
    example.fleet.wait_ready(lamina_e2e::fleet::example::TOPOLOGY, PATIENCE).await
}

fn signal(fleet: &Fleet, name: &str, signal: Signal) -> Result<()> {
    let operator = fleet.operators().iter().find(|operator| operator.name() == name);
    operator.with_context(|| format!("{name} runs"))?.process().signal(signal)
}

fn logs(fleet: &Fleet) -> String {
    fleet.operators().iter().map(|operator| operator.log()).collect()
}

/// The terms of all writes in all logs, in the order of their times.
fn written_terms(logs: &str) -> Result<Vec<i64>> {
    let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let writes = lines.filter(|line| line["fields"]["message"] == "writing");
    let moment = |line: &Value| {
        let term = line["fields"]["term"].as_str().and_then(|term| term.parse().ok());
        Some((line["timestamp"].as_str()?.to_owned(), term?))
    };
    let mut moments: Vec<(String, i64)> = writes.filter_map(|line| moment(&line)).collect();
    moments.sort();
    ensure!(!moments.is_empty(), "the logs tell of writes: {logs}");
    Ok(moments.into_iter().map(|(_, term)| term).collect())
}
