//! The chart with the real Helm on a real API server, and the control plane's own outages.

#![expect(clippy::disallowed_methods, reason = "it writes a token and waits with a limit")]

use std::collections::BTreeMap;

use lamina_e2e::control_plane::kubeconfig::Credential;
use lamina_e2e::control_plane::{ControlPlane, Said};
use lamina_e2e::identity::Identities;
use serde_json::Value;

mod api;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina");
const NAMESPACE: [&str; 2] = ["--namespace", "lamina-system"];

async fn helm(plane: &ControlPlane, arguments: &[&str]) -> Said {
    plane.helm(&[arguments, &NAMESPACE].concat()).await.expect("helm")
}

async fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> String {
    plane.kubectl(arguments).await.expect("kubectl").success().expect("kubectl succeeds")
}

#[tokio::test]
async fn the_kinds_and_their_objects_survive_the_chart() {
    let plane = api::fresh("api-chart").await.expect("a control plane");
    let install = ["install", "lamina", CHART, "--create-namespace"];
    let installed = helm(&plane, &install).await;
    assert!(!installed.stderr.contains("arning"), "{}", installed.stderr);
    let told = installed.success().expect("the chart installs");
    assert!(told.contains("kubectl apply -f examples/orchestrator.yaml"), "{told}");
    kubectl(&plane, &["wait", "--for=condition=Established", "crd/slicetopologies.lamina.dev", "--timeout=30s"]).await;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/smallest.yaml");
    kubectl(&plane, &["apply", "-f", example]).await;

    let louder = ["upgrade", "lamina", CHART, "--set", "operator.logLevel=debug"];
    helm(&plane, &louder).await.success().expect("the chart upgrades");
    let deployment = kubectl(&plane, &["get", "deployment", "-n", "lamina-system", "-o", "yaml"]).await;
    assert!(deployment.contains("value: debug"), "{deployment}");

    helm(&plane, &["uninstall", "lamina"]).await.success().expect("the chart goes");
    let left = kubectl(&plane, &["get", "slicetopologies", "-o", "name"]).await;
    assert_eq!(left.trim(), "slicetopology.lamina.dev/smallest");
    let gone = kubectl(&plane, &["get", "validatingadmissionpolicies,clusterroles", "-o", "name"]).await;
    assert!(!gone.contains("lamina"), "{gone}");

    helm(&plane, &install).await.success().expect("it installs again over the kinds that stayed");
}

#[tokio::test]
async fn an_unknown_or_wrong_value_is_refused_before_anything_is_made() {
    let plane = api::shared("api-chart-shared").await;
    for wrong in ["opertor.replicas=1", "operator.replicas=two", "agent.image.tagg=x"] {
        let said = helm(plane, &["template", "lamina", CHART, "--set", wrong]).await;
        assert_ne!(said.code, 0, "{wrong} is let through");
    }
    helm(plane, &["lint", CHART]).await.success().expect("helm lint");
}

#[tokio::test]
async fn the_kinds_can_come_from_elsewhere() {
    let plane = api::shared("api-chart-shared").await;
    let render = ["template", "lamina", CHART, "--set", "crds.enabled=false"];
    let rendered = helm(plane, &render).await.success().expect("the chart renders");
    assert!(!rendered.contains("CustomResourceDefinition"));
    let rendered = helm(plane, &render[..3]).await.success().expect("the chart renders");
    assert_eq!(rendered.matches("kind: CustomResourceDefinition").count(), 2);
    assert_eq!(rendered.matches("helm.sh/resource-policy: keep").count(), 2);
}

#[tokio::test]
async fn pods_ask_for_no_more_than_they_need() {
    let plane = api::shared("api-chart-shared").await;
    let rendered = helm(plane, &["template", "lamina", CHART]).await.success().expect("the chart renders");
    let documents = serde_yaml::Deserializer::from_str(&rendered).map(<Value as serde::Deserialize>::deserialize);
    let objects: Vec<Value> = documents.map(|object| object.expect("YAML")).collect();
    let pod = |kind: &str| {
        let object = objects.iter().find(|object| object["kind"] == kind).expect(kind);
        object["spec"]["template"]["spec"].clone()
    };
    for spec in [pod("Deployment"), pod("DaemonSet")] {
        let container = &spec["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    }
    let agent = pod("DaemonSet");
    assert_eq!(agent["tolerations"], serde_json::json!([{ "operator": "Exists" }]));
    assert_eq!([&agent["hostNetwork"], &agent["hostPID"]], [true, true]);
    let arguments = agent["containers"][0]["args"].to_string();
    for argument in
        ["--host-root=/host", "--form=pod", "--node-name=$(NODE_NAME)", "--lease-namespace=$(POD_NAMESPACE)"]
    {
        assert!(arguments.contains(argument), "{arguments}");
    }
    for mount in agent["containers"][0]["volumeMounts"].as_array().expect("mounts") {
        let path = mount["mountPath"].as_str().expect("a path");
        assert!(path.starts_with("/host/"), "{path} would open the whole host");
    }
}

#[tokio::test]
async fn an_outage_of_the_api_server_loses_nothing() {
    let mut plane = api::fresh("api-outage").await.expect("a control plane");
    let port = plane.port();
    kubectl(&plane, &["create", "namespace", "before"]).await;
    plane.stop_api_server().expect("it stops");
    assert_ne!(plane.kubectl(&["get", "namespaces"]).await.expect("kubectl").code, 0, "nobody answers");
    plane.start_api_server().await.expect("it starts again");
    assert_eq!(plane.port(), port);
    let found_again = ControlPlane::attach(plane.folder()).await.expect("a later program finds it");
    assert!(kubectl(&found_again, &["get", "namespaces"]).await.contains("before"));
}

#[tokio::test]
async fn an_agent_reads_its_token_from_a_file() {
    let plane = api::shared("api-chart-shared").await;
    helm(plane, &["install", "lamina", CHART, "--create-namespace"]).await.success().expect("the chart installs");
    let identities = Identities::new(&plane.kubeconfig_admin(), "lamina-system", "lamina");
    identities.register("host-a", &BTreeMap::new()).await.expect("a node");
    let file = plane.folder().join("agent.token");
    let token = identities.agent_token("host-a").await.expect("a token");
    std::fs::write(&file, token).expect("the token is written");
    let path = file.to_str().expect("a text").to_owned();
    let kubeconfig = plane.kubeconfig(Credential::TokenFile(path)).expect("a kubeconfig");
    let client = kubeconfig.client().await.expect("a client");
    let hosts = kube::Api::<lamina_crds::HostState>::all(client);
    let begin = std::time::Instant::now();
    // A kind that was made a moment ago is first unknown, then not ready to be listed.
    while let Err(error) = hosts.list(&kube::api::ListParams::default()).await {
        assert!(begin.elapsed().as_secs() < 30, "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let guest = plane.guest_kubeconfig(Credential::Token("x".to_owned())).expect("a kubeconfig").text();
    assert!(guest.contains("\"https://10.0.2.100:6443\""), "{guest}");
}
