//! Each way in which the documentation installs Lamina, upgrades it and takes it away, as it is written, on a real API
//! server.

use anyhow::{Context, Result, ensure};
use lamina_e2e::control_plane::ControlPlane;
use lamina_e2e::reader::Reader;

mod api;

/// What strangers read first.
const QUICKSTART: &str = include_str!("../../docs/quickstart.md");
const UPGRADING: &str = include_str!("../../docs/upgrading.md");
const UNINSTALLING: &str = include_str!("../../docs/uninstalling.md");
/// What the release brings, and what a reader sees of it.
const BROUGHT: [&str; 4] = [
    "deployment.apps/lamina-operator",
    "daemonset.apps/lamina-agent",
    "validatingadmissionpolicy.admissionregistration.k8s.io/lamina-writers",
    "clusterrole.rbac.authorization.k8s.io/lamina-edit",
];

#[tokio::test]
async fn helm_installs_it_and_takes_it_away() -> Result<()> {
    there_and_back("helm").await
}

#[tokio::test]
async fn kubectl_installs_it_and_takes_it_away() -> Result<()> {
    there_and_back("kubectl").await
}

async fn there_and_back(way: &str) -> Result<()> {
    let plane = api::fresh(&format!("api-quickstart-{way}")).await?;
    let reader = Reader::of(&plane, &plane.folder().join("reader"))?;
    run(&reader, QUICKSTART, way).await?;
    let there = brought(&plane).await?;
    ensure!(BROUGHT.iter().all(|object| there.contains(object)), "{way} brought only:\n{there}");
    let established = ["wait", "--for=condition=Established", "crd/slicetopologies.lamina.dev", "--timeout=30s"];
    plane.kubectl(&established).await?.success()?;
    reader.types("kubectl apply -f examples/first.yaml").await?.success().context("the first topology")?;

    if way == "kubectl" {
        run(&reader, UPGRADING, "kubectl-upgrade").await?;
    }
    run(&reader, QUICKSTART, &format!("{way}-uninstall")).await?;
    let there = brought(&plane).await?;
    ensure!(BROUGHT.iter().all(|object| !there.contains(object)), "taking it away left:\n{there}");
    let left = plane.kubectl(&["get", "slicetopologies", "-o", "name"]).await?.success()?;
    ensure!(left.trim() == "slicetopology.lamina.dev/first", "of the topologies is left: {left}");
    run(&reader, UNINSTALLING, "definitions").await?;
    let kinds = plane.kubectl(&["get", "crds", "-o", "name"]).await?.success()?;
    ensure!(!kinds.contains("lamina.dev"), "of the kinds is left: {kinds}");
    Ok(())
}

async fn run(reader: &Reader, page: &str, word: &str) -> Result<()> {
    let all = reader.follows(page, word, &[]).await?;
    let warning = all.iter().find(|said| said.stderr.contains("arning"));
    ensure!(warning.is_none(), "{warning:?}");
    Ok(())
}

async fn brought(plane: &ControlPlane) -> Result<String> {
    let kinds = "deployments,daemonsets,validatingadmissionpolicies,clusterroles";
    plane.kubectl(&["get", kinds, "--namespace", "lamina-system", "-o", "name"]).await?.success()
}
