//! Uninstalling with `teardown.enabled`, with Helm 3 and with Helm 4 on a real API server: topologies go first, and the
//! release stays if they do not. The test does a kubelet's part for the Job's pod: it runs what the pod says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lamina_e2e::control_plane::kubeconfig::Credential;
use lamina_e2e::control_plane::{ControlPlane, Said, binaries};
use lamina_e2e::fleet::{Fleet, waiting};
use lamina_e2e::host::process::Lifetime;
use lamina_e2e::program;
use serde_json::{Value, json};
use tokio::process::Command;

mod api;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina");
const TOPOLOGY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/smallest.yaml");
const NAMESPACE: &str = "lamina-system";
const ACCOUNT: &str = "lamina-teardown";
/// Somebody else's hold on a topology.
const FOREIGN: &str = "example.com/not-yet";

#[tokio::test]
async fn nothing_is_left_but_what_somebody_holds_with_helm_3() -> Result<()> {
    let plane = api::fresh("api-teardown-3").await?;
    let helm = binaries::helm3().await?;
    uninstalled(plane, helm).await
}

#[tokio::test]
async fn nothing_is_left_but_what_somebody_holds_with_helm_4() -> Result<()> {
    let plane = api::fresh("api-teardown-4").await?;
    let helm = plane.helm_path().to_owned();
    uninstalled(plane, helm).await
}

async fn uninstalled(plane: ControlPlane, helm: PathBuf) -> Result<()> {
    let folder = plane.folder().join("fleet");
    let mut fleet = Fleet::bare(plane, &folder).await?;
    let values = ["--set=teardown.enabled=true", "--set=teardown.deadlineSeconds=15"];
    let install = ["install", "lamina", CHART, "--namespace", NAMESPACE, "--create-namespace"];
    fleet.control_plane.helm_at(&helm, &[&install[..], &values].concat()).await?.success()?;
    fleet.wait_served().await?;
    ensure!(!is_there(&fleet, "serviceaccount").await?, "the account is there before anything is uninstalled");
    fleet.identities().register("host-a", &Default::default()).await?;
    fleet.start_operator(Lifetime::Tethered).await?;
    fleet.kubectl(&["apply", "-f", TOPOLOGY]).await?;
    fleet
        .kubectl(&["patch", "slicetopology", "smallest", "--type=merge", "--patch", &held_by(json!([FOREIGN]))])
        .await?;

    let (said, ended) = uninstall(&fleet, &helm).await?;
    ensure!(said.code != 0, "what is still held does not keep the release: {said:?}");
    ensure!(!ended.success && ended.log.contains("still there after 15 s: SliceTopology smallest"), "{}", ended.log);
    let held: Value = serde_json::from_str(&fleet.kubectl(&["get", "slicetopology", "smallest", "-o", "json"]).await?)?;
    ensure!(held["spec"]["deletionPolicy"] == "Remove", "{held}");
    ensure!(held["metadata"]["finalizers"] == json!([FOREIGN]), "the operator has let it go: {held}");
    fleet.kubectl(&["get", "deployment/lamina-operator", "daemonset/lamina-agent", "--namespace", NAMESPACE]).await?;
    ensure!(is_there(&fleet, "job").await?, "the Job that failed has gone with its log");
    ensure!(!is_there(&fleet, "serviceaccount").await?, "the account stays when nothing is uninstalled");

    fleet.kubectl(&["patch", "slicetopology", "smallest", "--type=merge", "--patch", &held_by(json!(null))]).await?;
    let (said, ended) = uninstall(&fleet, &helm).await?;
    said.success().with_context(|| ended.log.clone())?;
    ensure!(ended.success && ended.log.contains("nothing that Lamina ran is left"), "{}", ended.log);
    let left =
        fleet.kubectl(&["get", "slicetopologies,clusterroles,deployments,daemonsets,jobs", "-A", "-o", "name"]).await?;
    ensure!(!left.contains("lamina") && !left.contains("smallest"), "{left}");
    Ok(())
}

fn held_by(finalizers: Value) -> String {
    json!({ "metadata": { "finalizers": finalizers } }).to_string()
}

async fn is_there(fleet: &Fleet, kind: &str) -> Result<bool> {
    let get = ["get", kind, ACCOUNT, "--namespace", NAMESPACE, "--ignore-not-found", "-o", "name"];
    Ok(!fleet.kubectl(&get).await?.trim().is_empty())
}

/// How the Job's program ended.
struct Ended {
    success: bool,
    log: String,
}

async fn uninstall(fleet: &Fleet, helm: &Path) -> Result<(Said, Ended)> {
    let arguments = ["uninstall", "lamina", "--namespace", NAMESPACE, "--timeout=120s"];
    let said = fleet.control_plane.helm_at(helm, &arguments);
    let (said, ended) = tokio::join!(said, run_the_pod(fleet));
    Ok((said?, ended?))
}

/// Waits until the Job's pod is bound, runs its program as its account, and reports how it ended.
async fn run_the_pod(fleet: &Fleet) -> Result<Ended> {
    let selector = "app.kubernetes.io/component=teardown";
    let get = ["get", "pods", "--namespace", NAMESPACE, "--selector", selector, "-o", "json"];
    let pods = async || -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&fleet.kubectl(&get).await?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    };
    let is_waiting = |pod: &Value| pod["spec"]["nodeName"].is_string() && pod["status"]["phase"] == "Pending";
    waiting::until("the Job's pod is bound", waiting::MINUTE, async || Ok(pods().await?.iter().any(is_waiting)))
        .await?;
    let pod = pods().await?.into_iter().find(is_waiting).context("the pod is bound")?;
    ensure!(pod["spec"]["serviceAccountName"] == ACCOUNT, "{pod}");
    nothing_else_is_allowed(fleet).await?;
    let ended = run(fleet, &pod["spec"]["containers"][0]["args"]).await?;
    let phase = if ended.success { "Succeeded" } else { "Failed" };
    let name = pod["metadata"]["name"].as_str().context("the pod has a name")?;
    let status = json!({ "status": { "phase": phase } }).to_string();
    let patch =
        ["patch", "pod", name, "--namespace", NAMESPACE, "--subresource=status", "--type=merge", "--patch", &status];
    fleet.kubectl(&patch).await?;
    Ok(ended)
}

async fn run(fleet: &Fleet, arguments: &Value) -> Result<Ended> {
    let token = fleet.kubectl(&["create", "token", ACCOUNT, "--namespace", NAMESPACE]).await?;
    let kubeconfig = fleet.control_plane.folder().join("teardown.kubeconfig");
    fleet.control_plane.kubeconfig(Credential::Token(token.trim().to_owned()))?.write(&kubeconfig)?;
    let arguments: Vec<String> = serde_json::from_value(arguments.clone()).context("reading the pod's arguments")?;
    let mut program = Command::new(program::built("lamina-operator")?);
    program.args(arguments).arg("--kubeconfig").arg(&kubeconfig).kill_on_drop(true);
    let output = program.output().await.context("running the teardown")?;
    Ok(Ended { success: output.status.success(), log: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// What the account may do, and some of what it may not.
async fn nothing_else_is_allowed(fleet: &Fleet) -> Result<()> {
    let who = format!("--as=system:serviceaccount:{NAMESPACE}:{ACCOUNT}");
    for (verb, kind, allowed) in [
        ("list", "slicetopologies", true),
        ("patch", "slicetopologies", true),
        ("delete", "slicetopologies", true),
        ("create", "slicetopologies", false),
        ("list", "hoststates", true),
        ("patch", "hoststates", false),
        ("delete", "hoststates", false),
        ("list", "secrets", false),
        ("list", "nodes", false),
    ] {
        let answer = fleet.control_plane.kubectl(&["auth", "can-i", verb, kind, &who]).await?;
        ensure!((answer.stdout.trim() == "yes") == allowed, "may it {verb} {kind}: {answer:?}");
    }
    Ok(())
}
