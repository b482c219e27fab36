//! Beside a kubelet: what its CPU manager does is in the inventory, and two managers never own one CPU.

use anyhow::{Context, Result, ensure};
use lamina_crds::CpuSet;
use lamina_e2e::fleet::RELEASE;
use lamina_e2e::fleet::example::HOST;
use lamina_e2e::node::{Node, PATIENCE, images, join};
use serde_json::Value;

const NAMESPACE: &str = "lamina-system";
const RESERVED: &str = "0-11";

/// One slice that the static policy's reservation does not cover.
const EXCLUSIVE: &str = "apiVersion: lamina.dev/v1alpha1
kind: SliceTopology
metadata: { name: pinned }
spec:
  hostSelector: { matchLabels: { lamina.dev/role: orchestrator } }
  slices: [{ name: only, cpu: CPUS }]
  services: [{ name: router, slice: only, user: orchestrator, command: [/opt/orchestrator/bin/router] }]
";

/// A pod that the kubelet gives CPUs of its own.
const GUARANTEED: &str = "apiVersion: v1
kind: Pod
metadata: { name: guaranteed, namespace: default }
spec:
  containers:
    - name: only
      image: localhost/pause:3.10
      imagePullPolicy: Never
      resources:
        requests: { cpu: 4, memory: 32Mi }
        limits: { cpu: 4, memory: 32Mi }
";

#[tokio::test]
async fn a_guaranteed_pod_and_an_exclusive_slice_never_share_a_cpu() -> Result<()> {
    let node = Node::up().await?;
    images::load(node.example.host()?, env!("CARGO_PKG_VERSION")).await?;
    let chart = lamina_e2e::fleet::chart();
    let file = format!("--set=agent.kubeletConfigFile={}", join::CONFIGURATION);
    let install = ["install", RELEASE, chart.to_str().context("a path is text")?, "--create-namespace", &file];
    node.helm(&[&install[..], &["--namespace", NAMESPACE]].concat()).await?;
    node.example.fleet.wait_served().await?;
    node.rolled_out(NAMESPACE).await?;
    without_a_policy_the_status_says_what_exclusive_does_not_cover(&node).await?;
    with_the_static_policy_two_managers_share_no_cpu(&node).await
}

async fn without_a_policy_the_status_says_what_exclusive_does_not_cover(node: &Node) -> Result<()> {
    let fleet = &node.example.fleet;
    fleet.apply(&EXCLUSIVE.replace("CPUS", "{ set: 12-15 }")).await?;
    fleet.wait_ready("pinned", PATIENCE).await?;
    let kubelet = kubelet(node).await?;
    ensure!(kubelet["cpuManagerPolicy"] == "none" && kubelet["cgroupDriver"] == "systemd", "{kubelet}");
    let (status, reason, message) = supported(node).await?;
    ensure!((status.as_str(), reason.as_str()) == ("True", "SharedWithPods"), "{status} {reason}: {message}");
    ensure!(message.contains("exclusive slices are so among managed slices only"), "{message}");
    println!("policy none: {reason}: {message}");
    Ok(())
}

async fn with_the_static_policy_two_managers_share_no_cpu(node: &Node) -> Result<()> {
    let fleet = &node.example.fleet;
    join::reconfigure(node.example.host()?, &join::Settings { reserved_cpus: Some(RESERVED) }).await?;
    // The mount keeps the file that was there when the pod started.
    fleet.kubectl(&["rollout", "restart", "daemonset/lamina-agent", "--namespace", NAMESPACE]).await?;
    node.rolled_out(NAMESPACE).await?;
    let known = async || {
        let kubelet = kubelet(node).await?;
        Ok(kubelet["cpuManagerPolicy"] == "static" && kubelet["reservedCPUs"] == RESERVED)
    };
    fleet.wait("the inventory tells policy and reservation", PATIENCE, known).await?;
    let (status, reason, message) = supported(node).await?;
    ensure!((status.as_str(), reason.as_str()) == ("True", "Supported"), "{status} {reason}: {message}");
    what_pods_may_get_is_refused(node).await?;

    fleet.apply(&EXCLUSIVE.replace("CPUS", "{ cores: 4 }")).await?;
    fleet.wait_ready("pinned", PATIENCE).await?;
    fleet.apply(GUARANTEED).await?;
    fleet.kubectl(&["wait", "--for=condition=Ready", "pod/guaranteed", "--timeout=180s"]).await?;
    let slice: CpuSet = node
        .run("cat /sys/fs/cgroup/pinned.slice/pinned-only.slice/cpuset.cpus.effective")
        .await?
        .parse()
        .context("the slice's CPUs")?;
    let pod = cpus_of_the_container(node).await?;
    println!("policy static, reserved {RESERVED}: the slice has {slice}, the Guaranteed pod has {pod}");
    let reserved: CpuSet = RESERVED.parse().context("the reservation")?;
    ensure!(slice.len() == 4 && slice.difference(&reserved).is_empty(), "the slice has {slice}");
    ensure!(pod.len() == 4 && pod.intersection(&reserved).is_empty(), "the pod has {pod}");
    Ok(())
}

/// CPUs 12-15 were given before; now pods may get them, and the sentence says so.
async fn what_pods_may_get_is_refused(node: &Node) -> Result<()> {
    let fleet = &node.example.fleet;
    let refused = async || {
        let topology = serde_json::to_value(fleet.topology("pinned").await?)?;
        let text = topology["status"]["conditions"].to_string();
        Ok(text.contains("static CPU manager") || text.contains("reservedSystemCPUs"))
    };
    fleet.wait("the topology is told that the kubelet may give its CPUs to pods", PATIENCE, refused).await
}

/// What the kernel gives the Guaranteed pod's only container; the pod's sandbox beside it has what is left to all.
async fn cpus_of_the_container(node: &Node) -> Result<CpuSet> {
    let path = "-o=jsonpath={.status.containerStatuses[0].containerID}";
    let id = node.example.fleet.kubectl(&["get", "pod", "guaranteed", path]).await?;
    let id = id.trim().strip_prefix("containerd://").with_context(|| format!("containerd has no container {id}"))?;
    let cgroup = format!("/sys/fs/cgroup/kubepods.slice/kubepods-pod*.slice/cri-containerd-{id}.scope");
    node.run(&format!("cat {cgroup}/cpuset.cpus.effective")).await?.parse().context("the pod's CPUs")
}

async fn kubelet(node: &Node) -> Result<Value> {
    let state = serde_json::to_value(node.example.fleet.host_state(HOST).await?)?;
    Ok(state["status"]["hardware"]["kubelet"].clone())
}

async fn supported(node: &Node) -> Result<(String, String, String)> {
    let state = serde_json::to_value(node.example.fleet.host_state(HOST).await?)?;
    let conditions = state["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == "Supported");
    let found = found.context("there is a condition Supported")?;
    let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok((word("status"), word("reason"), word("message")))
}
