//! `kubectl lamina` as Krew installs it and kubectl runs it: the program out of its archive, a cluster that it asks.

#![expect(clippy::disallowed_methods, reason = "it writes what Krew is given")]

use std::path::Path;

use lamina_e2e::cache::Cache;
use lamina_e2e::control_plane::ControlPlane;
use lamina_e2e::host::scratch::Scratch;
use lamina_e2e::krew::{archive, krew, manifest};
use lamina_e2e::program::stripped;
use tokio::process::Command;

mod api;

/// Lamina's two kinds, served.
async fn served(plane: &ControlPlane) {
    let kinds = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina-crds/templates");
    plane
        .kubectl(&["apply", "--server-side", "-f", kinds])
        .await
        .expect("kubectl")
        .success()
        .expect("the kinds are made");
    let wait = ["wait", "--for=condition=Established", "-f", kinds, "--timeout=30s"];
    plane.kubectl(&wait).await.expect("kubectl").success().expect("the kinds are served");
}

/// A program with Krew's folder and kubectl on its PATH, and this cluster.
async fn run(plane: &ControlPlane, root: &Path, program: &Path, words: &[&str]) -> (i32, String) {
    let kubectl = plane.kubectl_path().parent().expect("kubectl lies in a folder").display();
    let path = format!("{}:{kubectl}:/usr/bin:/bin", root.join("bin").display());
    let mut command = Command::new(program);
    command.args(words).env("PATH", path).env("KREW_ROOT", root).env("KREW_NO_UPGRADE_CHECK", "1").env("HOME", root);
    let output = command.env("KUBECONFIG", plane.kubeconfig_admin()).output().await.expect("it runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap_or(-1), said)
}

#[tokio::test]
async fn krew_installs_the_plugin_and_kubectl_finds_it() {
    let plane = api::shared("api-plugin").await;
    served(plane).await;
    let cache = Cache::open().expect("a cache");
    let scratch = Scratch::new(&cache, "krew").expect("a folder");
    let root = scratch.path().join("root");
    std::fs::create_dir_all(&root).expect("a folder");
    let program = stripped("kubectl-lamina").await.expect("the program is built");
    let archive = archive("linux/amd64".parse().expect("a platform"), program).expect("an archive");
    let manifest =
        manifest("0.1.0", "https://files.example/v0.1.0", std::slice::from_ref(&archive)).expect("a manifest");
    let file = |name: &str, bytes: &[u8]| {
        let path = scratch.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path.to_str().expect("a path of text").to_owned()
    };
    let (archive, manifest) = (file(&archive.name, &archive.bytes), file("lamina.yaml", manifest.as_bytes()));
    let krew = krew(cache).await.expect("Krew is built");
    let install = ["install", &format!("--manifest={manifest}"), &format!("--archive={archive}")];
    let (code, said) = run(plane, &root, &krew, &install).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("roles.measure=true"), "its caveats are told: {said}");

    let kubectl = plane.kubectl_path().to_owned();
    let (code, said) = run(plane, &root, &kubectl, &["lamina", "--version"]).await;
    assert_eq!((code, said.trim()), (0, "kubectl-lamina 0.1.0"));
    let (code, said) = run(plane, &root, &kubectl, &["lamina", "status"]).await;
    assert_eq!((code, said.as_str()), (0, "there is no topology and no host\n"));
    let (code, said) = run(plane, &root, &kubectl, &["lamina", "verify", "nobody"]).await;
    assert!(code == 1 && said.contains("\"nobody\" not found"), "{code}: {said}");
}

#[tokio::test]
async fn status_follows_what_becomes_of_a_cluster() {
    use std::io::{BufRead, BufReader};
    let plane = api::fresh("api-plugin-watch").await.expect("a control plane");
    served(&plane).await;
    let program = lamina_e2e::program::built("kubectl-lamina").expect("the program is built");
    let kubectl = plane.kubectl_path().parent().expect("a folder").display();
    let mut child = std::process::Command::new(program)
        .args(["status", "--watch"])
        .env("PATH", format!("{kubectl}:/usr/bin:/bin"))
        .env("KUBECONFIG", plane.kubeconfig_admin())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut until = |words: &str| {
        let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(words)));
        assert!(found.is_some(), "it ended without `{words}`");
    };
    until("there is no topology and no host");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/smallest.yaml");
    plane.kubectl(&["apply", "-f", example]).await.expect("kubectl").success().expect("it is applied");
    until("smallest");
    plane.kubectl(&["delete", "-f", example]).await.expect("kubectl").success().expect("it is deleted");
    until("there is no topology and no host");
    child.kill().expect("it is ended");
    child.wait().expect("it ends");
}
