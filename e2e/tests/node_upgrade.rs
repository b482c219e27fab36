//! A release of the first chart ever made, with the programs it was made for, on a real node: upgraded to this checkout,
//! rolled back, upgraded again, with no service restarted. The packed chart is kept beside this test as Helm takes it.

use anyhow::{Context, Result};
use lamina_e2e::fleet::RELEASE;
use lamina_e2e::fleet::example::{self, TOPOLOGY};
use lamina_e2e::node::images::{self, Release};
use lamina_e2e::node::story::Story;
use lamina_e2e::node::{Node, PATIENCE};
use serde_json::Value;

const NAMESPACE: &str = "lamina-system";
const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart/first.tgz");

#[tokio::test]
async fn an_upgrade_from_the_first_chart_restarts_no_service() -> Result<()> {
    images::first_programs().await?;
    let node = Node::up().await?;
    let first = Release::publish_first(&node.registry, "0.0.1").await?;
    let release = node.publish("0.1.0").await?;
    node.bring(&["install", "--create-namespace"], FIRST, NAMESPACE, &first).await?;
    node.example.fleet.wait_served().await?;
    node.rolled_out(NAMESPACE).await?;
    node.example.fleet.apply(&first_example()?).await?;
    node.example.fleet.wait_ready(TOPOLOGY, PATIENCE).await?;

    let chart = lamina_e2e::fleet::chart();
    let chart = chart.to_str().context("a path is text")?;
    let mut story = Story::begin(&node).await?;
    node.bring(&["upgrade"], chart, NAMESPACE, &release).await?;
    node.works(NAMESPACE).await?;
    story.after("the first chart is upgraded to this one").await?;
    node.helm(&["rollback", RELEASE, "--namespace", NAMESPACE]).await?;
    node.works(NAMESPACE).await?;
    story.after("the release is rolled back to the first chart").await?;
    node.bring(&["upgrade"], chart, NAMESPACE, &release).await?;
    node.works(NAMESPACE).await?;
    story.after("it is upgraded again").await?;
    node.example.fleet.apply(&example::text()?).await?;
    node.example.settle().await?;
    story.after("the example uses what came since").await?;
    println!("\nfrom the first chart to this one:\n{}", story.told());
    Ok(())
}

/// The running example in the words that the first chart's definitions knew.
fn first_example() -> Result<String> {
    let mut example: Value = serde_json::from_str(&example::text()?).context("reading the example")?;
    let spec = example["spec"].as_object_mut().context("the example has a spec")?;
    spec.remove("housekeeping");
    for slice in spec["slices"].as_array_mut().into_iter().flatten() {
        let slice = slice.as_object_mut().context("a slice is an object")?;
        slice.remove("priority");
        slice["cpu"].as_object_mut().context("a slice asks for CPUs")?.retain(|word, _| word == "cores");
    }
    Ok(example.to_string())
}
