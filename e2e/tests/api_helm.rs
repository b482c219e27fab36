//! A release's whole life with Helm 3 and with Helm 4 on a real API server: what each step leaves of what users made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lamina_cli::table::{row, table};
use lamina_e2e::control_plane::{ControlPlane, Said, binaries};
use serde_json::{Value, json};

mod api;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina");
const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart/first.tgz");
const TOPOLOGY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/smallest.yaml");
const HERE: &str = "lamina-system";
const ELSEWHERE: &str = "pinning";
/// What is made by the release alone and goes with it.
const OWNED: &str = "deployments,daemonsets,serviceaccounts,clusterroles,clusterrolebindings,validatingadmissionpolicies,\
                     flowschemas,prioritylevelconfigurations";

/// One Helm at one control plane, and what its steps came to.
struct Release {
    plane: ControlPlane,
    helm: PathBuf,
    kept: BTreeMap<String, String>,
    rows: Vec<Vec<String>>,
}

#[tokio::test]
async fn what_users_made_outlives_every_step_with_helm_3() -> Result<()> {
    let plane = api::fresh("api-helm-3").await?;
    let helm = binaries::helm3().await?;
    whole_life(plane, helm, "v3.").await
}

#[tokio::test]
async fn what_users_made_outlives_every_step_with_helm_4() -> Result<()> {
    let plane = api::fresh("api-helm-4").await?;
    let helm = plane.helm_path().to_owned();
    whole_life(plane, helm, "v4.").await
}

async fn whole_life(plane: ControlPlane, helm: PathBuf, version: &str) -> Result<()> {
    let mut release = Release { plane, helm, kept: BTreeMap::new(), rows: Vec::new() };
    let told = release.helm(&["version", "--short"]).await?.success()?;
    ensure!(told.starts_with(version), "this is Helm {told}");
    release.rows.push(row(["STEP", "SAME OBJECTS OF USERS", "OBJECTS OF THE RELEASE", "OPERATORS"]));
    from_the_first_chart_and_back(&mut release).await?;
    gone_and_back(&mut release).await?;
    into_another_namespace(&mut release).await?;
    println!("\nHelm {}:\n{}", told.trim(), table(&release.rows));
    Ok(())
}

/// The operator's replicas tell which chart's objects are there: the first chart had one, this one has two.
async fn from_the_first_chart_and_back(release: &mut Release) -> Result<()> {
    release.helm(&["install", "lamina", FIRST, "--create-namespace", "--namespace", HERE]).await?.success()?;
    release.users_make_something().await?;
    release.after("the first chart is installed", Some((HERE, 1))).await?;
    let upgrade = ["upgrade", "lamina", CHART, "--namespace", HERE];
    release.helm(&upgrade).await?.success()?;
    release.after("upgraded to this chart", Some((HERE, 2))).await?;
    release.knows("housekeeping", true).await?;
    release.helm(&["rollback", "lamina", "--namespace", HERE]).await?.success()?;
    release.after("rolled back", Some((HERE, 1))).await?;
    release.knows("housekeeping", false).await?;
    release.helm(&upgrade).await?.success()?;
    release.after("upgraded again", Some((HERE, 2))).await?;
    release.knows("housekeeping", true).await
}

async fn gone_and_back(release: &mut Release) -> Result<()> {
    release.uninstall(HERE).await?;
    release.after("uninstalled", None).await?;
    release.helm(&["install", "lamina", CHART, "--namespace", HERE]).await?.success()?;
    release.after("installed again", Some((HERE, 2))).await
}

/// The definitions that stayed say whose they were: they are taken only by who says so.
async fn into_another_namespace(release: &mut Release) -> Result<()> {
    release.uninstall(HERE).await?;
    let install = ["install", "lamina", CHART, "--create-namespace", "--namespace", ELSEWHERE];
    let refused = release.helm(&install).await?;
    ensure!(refused.code != 0 && refused.stderr.contains("invalid ownership metadata"), "{refused:?}");
    release.after("installed into another namespace: refused", None).await?;
    release.helm(&[&install[..], &["--take-ownership"]].concat()).await?.success()?;
    release.after("the same with --take-ownership", Some((ELSEWHERE, 2))).await?;
    release.uninstall(ELSEWHERE).await?;
    release.after("uninstalled there", None).await
}

impl Release {
    async fn helm(&self, arguments: &[&str]) -> Result<Said> {
        self.plane.helm_at(&self.helm, arguments).await
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.plane.kubectl(arguments).await?.success()
    }

    async fn uninstall(&self, namespace: &str) -> Result<()> {
        self.helm(&["uninstall", "lamina", "--namespace", namespace, "--wait"]).await?.success().map(drop)
    }

    /// A topology, and a host that is no node.
    async fn users_make_something(&mut self) -> Result<()> {
        for kind in ["crd/slicetopologies.lamina.dev", "crd/hoststates.lamina.dev"] {
            self.kubectl(&["wait", "--for=condition=Established", kind, "--timeout=30s"]).await?;
        }
        self.kubectl(&["apply", "-f", TOPOLOGY]).await?;
        let host = json!({
            "apiVersion": "lamina.dev/v1alpha1",
            "kind": "HostState",
            "metadata": { "name": "host-a" },
            "spec": {},
        });
        self.plane.kubectl_with(&["apply", "-f", "-"], &host.to_string()).await?.success()?;
        self.kept = self.made_by_users().await?;
        ensure!(self.kept.len() == 2, "{:?}", self.kept);
        Ok(())
    }

    /// Everything of our kinds, by its UID: what was made anew has another one.
    async fn made_by_users(&self) -> Result<BTreeMap<String, String>> {
        let listed = self.list("slicetopologies,hoststates").await?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(listed.iter().map(|object| (word(&object["metadata"]["name"]), word(&object["metadata"]["uid"]))).collect())
    }

    async fn list(&self, kinds: &str) -> Result<Vec<Value>> {
        let text = self.kubectl(&["get", kinds, "--all-namespaces", "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&text).context("reading a list")?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Looks at what is there after a step: what users made, and the release's own objects where they should be.
    async fn after(&mut self, step: &str, installed: Option<(&str, u64)>) -> Result<()> {
        let kept = self.made_by_users().await?;
        let same = self.kept.iter().filter(|(name, uid)| kept.get(*name) == Some(uid)).count();
        ensure!(same == self.kept.len(), "after this: {step}: {kept:?}, which was {:?}", self.kept);
        let mut owned = self.list(OWNED).await?;
        owned.retain(|object| object["metadata"]["labels"]["app.kubernetes.io/part-of"] == "lamina");
        let operator = owned.iter().find(|object| object["kind"] == "Deployment");
        let found = operator.map(|operator| {
            let namespace = operator["metadata"]["namespace"].as_str().unwrap_or_default();
            (namespace, operator["spec"]["replicas"].as_u64().unwrap_or_default())
        });
        ensure!(found == installed, "after this: {step}: the operator is {found:?}");
        ensure!(installed.is_some() || owned.is_empty(), "after this: {step}: {owned:?} are left");
        let replicas = found.map_or("-".to_owned(), |(_, replicas)| replicas.to_string());
        let of = format!("{same} of {}", self.kept.len());
        self.rows.push(vec![step.to_owned(), of, owned.len().to_string(), replicas]);
        Ok(())
    }

    /// Whether the definition that is there has a field of a topology that the first chart's did not have.
    async fn knows(&self, field: &str, is_known: bool) -> Result<()> {
        let text = self.kubectl(&["get", "crd", "slicetopologies.lamina.dev", "-o", "json"]).await?;
        let definition: Value = serde_json::from_str(&text).context("reading a definition")?;
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        ensure!(spec["slices"].is_object(), "{definition}");
        ensure!(spec[field].is_object() == is_known, "the definition's spec.{field} is {}", spec[field]);
        Ok(())
    }
}
