//! A real node, from empty to the running example through the chart's pods alone; then everything that happens to an
//! installation, while the services keep their processes and their CPUs.

use anyhow::{Context, Result, ensure};
use lamina_e2e::fleet::RELEASE;
use lamina_e2e::fleet::example::{self, HOST, TOPOLOGY};
use lamina_e2e::node::images::Release;
use lamina_e2e::node::story::Story;
use lamina_e2e::node::{Node, PATIENCE};
use serde_json::json;

const NAMESPACE: &str = "lamina-system";
const OTHER_NAMESPACE: &str = "pinning";
const INSTALL: [&str; 3] = ["install", "--create-namespace", "--plain-http"];

#[tokio::test]
async fn services_outlive_everything_that_happens_to_lamina_on_a_real_node() -> Result<()> {
    let mut node = Node::up().await?;
    let release = node.publish("0.1.0").await?;
    let chart = publish_chart(&node).await?;
    node.stages.reached("images and chart are built and in the registry");
    from_empty_to_ready(&mut node, &chart, &release).await?;
    println!("\nfrom empty to Ready, by DaemonSet and Deployment only:\n{}", node.stages.told());
    nothing_is_asked_for_that_a_pod_may_not_have(&node).await?;

    let mut story = Story::begin(&node).await?;
    pods_come_and_go(&node, &mut story).await?;
    let newer = node.publish("0.1.1").await?;
    images_and_chart_change(&node, &mut story, &chart, &newer).await?;
    the_release_goes_and_comes_back(&node, &mut story, &chart, &release).await?;
    println!("\nwhat keeps running:\n{}", story.told());
    everything_goes_on_request(&node, &chart, &release).await
}

/// The chart of this checkout as Helm packs it, in the registry; tells where.
async fn publish_chart(node: &Node) -> Result<String> {
    let folder = node.example.fleet.control_plane.folder().join("charts");
    let folder = folder.to_str().context("a path is text")?;
    let source = lamina_e2e::fleet::chart();
    let packed = node.helm(&["package", source.to_str().context("a path is text")?, "--destination", folder]).await?;
    let file = packed.trim().rsplit(' ').next().context("helm tells the file")?.to_owned();
    let place = format!("oci://{}/charts", node.registry.address());
    node.helm(&["push", &file, &place, "--plain-http"]).await?;
    Ok(format!("{place}/lamina"))
}

async fn from_empty_to_ready(node: &mut Node, chart: &str, release: &Release) -> Result<()> {
    node.bring(&INSTALL, chart, NAMESPACE, release).await?;
    node.example.fleet.wait_served().await?;
    node.stages.reached("helm install from the registry has returned");
    node.rolled_out(NAMESPACE).await?;
    node.stages.reached("operator and agent are pulled and ready");
    node.example.fleet.apply(&example::text()?).await?;
    node.example.fleet.wait_ready(TOPOLOGY, PATIENCE).await?;
    node.stages.reached("slicetopology/orchestrator is Ready");
    let cpus = [("control", "0-7"), ("runner", "8-15"), ("fanout", "16-19")];
    for (slice, wanted) in cpus {
        let effective = node.example.cgroup(slice, "cpuset.cpus.effective").await?;
        ensure!(effective == wanted, "{slice} has CPUs {effective}");
    }
    Ok(())
}

/// The kernel's word on what the agent runs with.
async fn nothing_is_asked_for_that_a_pod_may_not_have(node: &Node) -> Result<()> {
    let script = "grep -E '^(Uid|Cap(Eff|Prm|Bnd)|NoNewPrivs|Seccomp):' /proc/$(pgrep -f -o lamina-node-agent)/status";
    let status = node.run(script).await?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
    };
    ensure!(field("Uid").starts_with("0\t0"), "{status}");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        ensure!(field(set).trim_start_matches('0').is_empty(), "the agent has capabilities: {status}");
    }
    ensure!(field("NoNewPrivs") == "1" && field("Seccomp") == "2", "{status}");
    let user = node.run("stat -c %u /proc/$(pgrep -f -o lamina-operator)").await?;
    ensure!(user == "65532", "the operator runs as {user}");
    Ok(())
}

async fn pods_come_and_go(node: &Node, story: &mut Story<'_>) -> Result<()> {
    let fleet = &node.example.fleet;
    for component in ["agent", "operator"] {
        let selector = format!("app.kubernetes.io/component={component}");
        fleet.kubectl(&["delete", "pod", "--namespace", NAMESPACE, "--selector", &selector]).await?;
        node.works(NAMESPACE).await?;
        story.after(&format!("the {component}'s pod is deleted")).await?;
    }
    fleet.kubectl(&["delete", "lease", HOST, "--namespace", NAMESPACE]).await?;
    node.works(NAMESPACE).await?;
    story.after("the agent's Lease is deleted").await
}

async fn images_and_chart_change(node: &Node, story: &mut Story<'_>, chart: &str, newer: &Release) -> Result<()> {
    node.bring(&["upgrade", "--plain-http"], chart, NAMESPACE, newer).await?;
    node.works(NAMESPACE).await?;
    let image = "-o=jsonpath={.items[*].status.containerStatuses[*].imageID}";
    let selector = "app.kubernetes.io/component=agent";
    let runs = node.example.fleet.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", selector, image]).await?;
    ensure!(runs.contains(newer.agent()), "the agent's pod runs {runs}, not {}", newer.agent());
    story.after("images are upgraded, by digest").await?;
    node.helm(&["rollback", RELEASE, "--namespace", NAMESPACE]).await?;
    node.works(NAMESPACE).await?;
    story.after("the release is rolled back").await
}

async fn the_release_goes_and_comes_back(
    node: &Node,
    story: &mut Story<'_>,
    chart: &str,
    release: &Release,
) -> Result<()> {
    let uninstall = async |namespace: &str| {
        node.helm(&["uninstall", RELEASE, "--namespace", namespace]).await?;
        node.pods_gone().await
    };
    uninstall(NAMESPACE).await?;
    story.after("the chart is uninstalled").await?;
    node.bring(&INSTALL, chart, NAMESPACE, release).await?;
    node.works(NAMESPACE).await?;
    story.after("the chart is installed again").await?;
    uninstall(NAMESPACE).await?;
    node.example.fleet.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=120s"]).await?;
    story.after("the chart is uninstalled and its namespace is deleted").await?;
    // The definitions that stayed still say that they are another release's.
    let taking_over = [&INSTALL[..], &["--take-ownership"]].concat();
    node.bring(&taking_over, chart, OTHER_NAMESPACE, release).await?;
    node.works(OTHER_NAMESPACE).await?;
    story.after("the chart is installed into another namespace").await?;
    node.example.edit("slices", "control", |slice| slice["memory"]["max"] = json!("500Mi")).await?;
    node.example.wait_cgroup("control", "memory.max", &(500u64 << 20).to_string()).await?;
    node.example.settle().await?;
    story.after("a limit is changed, and is in the kernel").await
}

/// The one uninstallation that stops services, because it was told to.
async fn everything_goes_on_request(node: &Node, chart: &str, release: &Release) -> Result<()> {
    let upgrade = ["upgrade", "--plain-http", "--set=teardown.enabled=true"];
    node.bring(&upgrade, chart, OTHER_NAMESPACE, release).await?;
    node.works(OTHER_NAMESPACE).await?;
    node.helm(&["uninstall", RELEASE, "--namespace", OTHER_NAMESPACE]).await?;
    let left = "ls -d /etc/systemd/system/orchestrator* /etc/lamina/files/orchestrator /sys/fs/cgroup/orchestrator.slice \
                2> /dev/null; pgrep -a -f ^/opt/orchestrator/bin/; true";
    let left = node.run(left).await?;
    ensure!(left.trim().is_empty(), "this is left on the host: {left}");
    let objects = ["get", "slicetopologies,jobs,deployments,daemonsets", "-A", "-o", "name"];
    let left = node.example.fleet.kubectl(&objects).await?;
    ensure!(left.trim().is_empty(), "this is left in the cluster: {left}");
    println!("uninstalled with teardown.enabled: no service, no unit file, no topology is left");
    Ok(())
}
