//! The chart as helm-unittest and kubeconform see it: its own suites, and the kinds that a real API server publishes.

#![expect(clippy::disallowed_methods, reason = "it keeps schemas in files, feeds a program and waits with a limit")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lamina_e2e::cache::Cache;
use lamina_e2e::chart_tools;
use lamina_e2e::control_plane::ControlPlane;
use lamina_e2e::kubeconform::{LOCATION, schemas};
use lamina_e2e::monitoring_kinds::monitoring_kinds;
use serde_json::Value;

mod api;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina");
const EVERYTHING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina/ci/everything-values.yaml");

#[tokio::test]
async fn the_suites_of_the_chart_hold() {
    let program = chart_tools::helm_unittest(Cache::open().expect("a cache")).await.expect("helm-unittest");
    let before = snapshots();
    let output = Command::new(program).args(["--strict", CHART]).output().expect("helm-unittest runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("5 passed, 5 total"), "{said}");
    // It writes what it does not find.
    assert!(
        snapshots() == before,
        "charts/lamina/tests/__snapshot__ lacks something; look at what was added, and commit it"
    );
}

/// The snapshots of the chart's suites, by file.
fn snapshots() -> BTreeMap<PathBuf, String> {
    let files = std::fs::read_dir(format!("{CHART}/tests/__snapshot__")).into_iter().flatten();
    let files = files.map(|file| file.expect("a file").path());
    files.map(|file| (file.clone(), std::fs::read_to_string(&file).expect("a snapshot"))).collect()
}

#[tokio::test]
async fn every_object_of_the_chart_is_of_a_kind_that_the_server_publishes() {
    let program = chart_tools::kubeconform(Cache::open().expect("a cache")).await.expect("kubeconform");
    let plane = api::fresh("api-conformance").await.expect("a control plane");
    for kind in monitoring_kinds().await.expect("the Prometheus operator's kinds") {
        let kind = kind.to_str().expect("a path of text");
        plane.kubectl(&["apply", "--server-side", "-f", kind]).await.expect("kubectl").success().expect("a kind");
    }
    let folder = plane.folder().join("schemas");
    std::fs::create_dir(&folder).expect("a folder");
    wait_published(&plane, "apis/monitoring.coreos.com/v1").await;
    publish(&plane, &folder).await;

    for values in [&[][..], &["--values", EVERYTHING]] {
        let template = [&["template", "lamina", CHART, "--namespace", "lamina-system"], values].concat();
        let rendered = plane.helm(&template).await.expect("helm").success().expect("the chart renders");
        let output = check(&program, &folder, &rendered);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let objects = rendered.lines().filter(|line| line.starts_with("kind: ")).count();
        assert!(said.contains(&format!("Valid: {objects}, Invalid: 0, Errors: 0, Skipped: 0")), "{said}");

        let wrong = rendered.replacen("hostNetwork: true", "hostNetwrk: true", 1);
        let output = check(&program, &folder, &wrong);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && said.contains("hostNetwrk"), "{said}");
    }
}

/// Keeps the schemas of everything that the server publishes in `folder`.
async fn publish(plane: &ControlPlane, folder: &Path) {
    let index = raw(plane, "/openapi/v3").await;
    for (_, place) in index["paths"].as_object().expect("paths") {
        let document = raw(plane, place["serverRelativeURL"].as_str().expect("an address")).await;
        for (name, schema) in schemas(&document) {
            std::fs::write(folder.join(name), schema.to_string()).expect("a schema is written");
        }
    }
}

async fn wait_published(plane: &ControlPlane, group: &str) {
    let begin = Instant::now();
    while raw(plane, "/openapi/v3").await["paths"].get(group).is_none() {
        assert!(begin.elapsed().as_secs() < 60, "{group} is not published");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn raw(plane: &ControlPlane, path: &str) -> Value {
    let text = plane.kubectl(&["get", "--raw", path]).await.expect("kubectl").success().expect(path);
    serde_json::from_str(&text).expect("JSON")
}

fn check(program: &PathBuf, folder: &Path, objects: &str) -> Output {
    let location = folder.join(LOCATION);
    let mut child = Command::new(program)
        .args(["-strict", "-summary", "-schema-location"])
        .args([location.as_os_str(), "-".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubeconform runs");
    child.stdin.take().expect("its input").write_all(objects.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}
