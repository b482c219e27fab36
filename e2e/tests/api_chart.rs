//! The chart with the real Helm on a real API server, and the control plane's own outages.

#![expect(clippy::disallowed_methods, reason = "it reads the chart's files, writes a token and waits with a limit")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::Client;
use kube::client::Body;
use lamina_e2e::chart;
use lamina_e2e::control_plane::kubeconfig::Credential;
use lamina_e2e::control_plane::{ControlPlane, Said};
use lamina_e2e::identity::Identities;
use lamina_e2e::monitoring_kinds::monitoring_kinds;
use serde_json::Value;
use tokio::sync::OnceCell;

mod api;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina");
const EVERYTHING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/lamina/ci/everything-values.yaml");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/");
const NAMESPACE: [&str; 2] = ["--namespace", "lamina-system"];
const INSTALL: [&str; 4] = ["install", "lamina", CHART, "--create-namespace"];

async fn helm(plane: &ControlPlane, arguments: &[&str]) -> Said {
    plane.helm(&[arguments, &NAMESPACE].concat()).await.expect("helm")
}

async fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> String {
    plane.kubectl(arguments).await.expect("kubectl").success().expect("kubectl succeeds")
}

/// What Helm makes of the chart, without the kinds.
async fn render(plane: &ControlPlane, arguments: &[&str]) -> String {
    let template = ["template", "lamina", CHART, "--set", "crds.enabled=false"];
    helm(plane, &[&template, arguments].concat()).await.success().expect("the chart renders")
}

/// The objects of a rendered chart.
fn objects(rendered: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(rendered).map(<Value as serde::Deserialize>::deserialize);
    documents.map(|object| object.expect("YAML")).collect()
}

/// The shared control plane with the chart installed, a host with a bound agent, and the kinds served.
async fn installed() -> (&'static ControlPlane, Identities) {
    static ONCE: OnceCell<()> = OnceCell::const_new();
    let plane = api::shared("api-chart-shared").await;
    let identities = Identities::new(&plane.kubeconfig_admin(), "lamina-system", "lamina");
    let install = async || {
        helm(plane, &INSTALL).await.success().expect("the chart installs");
        identities.register("host-a", &BTreeMap::new()).await.expect("a node");
        identities.agent_token("host-a").await.expect("the agent's pod is bound");
        for kind in ["slicetopologies", "hoststates"] {
            served(plane, kind).await;
        }
    };
    ONCE.get_or_init(install).await;
    (plane, identities)
}

/// A kind that was made a moment ago is first unknown, then not ready to be listed.
async fn served(plane: &ControlPlane, kind: &str) {
    let begin = Instant::now();
    while plane.kubectl(&["get", kind]).await.expect("kubectl").code != 0 {
        assert!(begin.elapsed().as_secs() < 30, "{kind} are not served");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_kinds_and_their_objects_survive_the_chart() {
    let plane = api::fresh("api-chart").await.expect("a control plane");
    let installed = helm(&plane, &INSTALL).await;
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
    let kinds = "validatingadmissionpolicies,clusterroles,flowschemas,prioritylevelconfigurations";
    let gone = kubectl(&plane, &["get", kinds, "-o", "name"]).await;
    assert!(!gone.contains("lamina"), "{gone}");

    helm(&plane, &INSTALL).await.success().expect("it installs again over the kinds that stayed");
}

#[tokio::test]
async fn with_every_value_set_a_real_server_takes_it_without_a_warning() {
    let plane = api::fresh("api-chart-everything").await.expect("a control plane");
    for kind in monitoring_kinds().await.expect("the Prometheus operator's kinds") {
        let kind = kind.to_str().expect("a path of text");
        kubectl(&plane, &["apply", "--server-side", "-f", kind]).await;
        kubectl(&plane, &["wait", "--for=condition=Established", "-f", kind, "--timeout=30s"]).await;
    }
    let done = helm(&plane, &[&INSTALL[..], &["--values", EVERYTHING]].concat()).await;
    assert!(!done.stderr.contains("arning"), "{}", done.stderr);
    done.success().expect("the chart installs with everything set");
    let rendered = render(&plane, &["--values", EVERYTHING]).await;
    let strict = ["apply", "--dry-run=server", "--validate=strict", "--server-side", "--force-conflicts", "-f", "-"];
    let said = plane.kubectl_with(&strict, &rendered).await.expect("kubectl");
    assert!(!said.stderr.contains("arning"), "{}", said.stderr);
    let taken = said.success().expect("nothing in it is unknown to the server");
    assert_eq!(taken.lines().count(), objects(&rendered).len(), "{taken}");
    let other = ["--set", "monitoring.podMonitor.enabled=false,monitoring.serviceMonitor.enabled=true"];
    let rendered = render(&plane, &[&["--values", EVERYTHING][..], &other].concat()).await;
    assert_eq!(rendered.matches("kind: ServiceMonitor").count(), 2, "{rendered}");
    let said = plane.kubectl_with(&strict, &rendered).await.expect("kubectl");
    assert!(!said.stderr.contains("arning"), "{}", said.stderr);
    said.success().expect("nothing in it is unknown to the server");

    // The view role becomes a part of Kubernetes' own roles; what writes never does.
    let may = async |verb: &str, role: &str| {
        let group = format!("holders-of-{role}");
        let bind = ["create", "clusterrolebinding", &group, "--clusterrole", role, "--group", &group];
        let _ = plane.kubectl(&bind).await.expect("kubectl");
        let ask = ["auth", "can-i", verb, "slicetopologies.lamina.dev", "--as", "somebody", "--as-group", &group];
        plane.kubectl(&ask).await.expect("kubectl").stdout.trim() == "yes"
    };
    let begin = Instant::now();
    while !may("list", "view").await {
        assert!(begin.elapsed().as_secs() < 30, "view is not extended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(may("list", "edit").await && !may("create", "edit").await && !may("create", "admin").await);
    assert!(may("create", "pinner-edit").await);
}

#[tokio::test]
async fn a_namespace_that_restricts_pods_is_refused_with_the_remedy() {
    let plane = api::shared("api-chart-shared").await;
    let namespace = "kind: Namespace\napiVersion: v1\nmetadata:\n  name: strict\n  labels:\n    \
                     pod-security.kubernetes.io/enforce: restricted\n";
    plane.kubectl_with(&["apply", "-f", "-"], namespace).await.expect("kubectl").success().expect("a namespace");
    let install = ["install", "strict", CHART, "--namespace", "strict", "--set", "crds.enabled=false"];
    let said = plane.helm(&install).await.expect("helm");
    assert_ne!(said.code, 0);
    for words in [
        "namespace strict enforces the pod security level \"restricted\"",
        "kubectl label --overwrite namespace strict pod-security.kubernetes.io/enforce=privileged",
    ] {
        assert!(said.stderr.contains(words), "{}", said.stderr);
    }
}

#[tokio::test]
async fn an_unknown_or_wrong_value_is_refused_before_anything_is_made() {
    let plane = api::shared("api-chart-shared").await;
    let refusals = [
        ("opertor.replicas=1", "additional properties 'opertor' not allowed"),
        ("agent.image.tagg=x", "at '/agent/image': additional properties 'tagg' not allowed"),
        ("operator.affinity.podAfinity.x=1", "at '/operator/affinity': additional properties 'podAfinity'"),
        ("operator.replicas=two", "at '/operator/replicas': got string, want integer"),
        ("operator.replicas=6", "at '/operator/replicas': maximum: got 6, want 5"),
        ("operator.topologySpread={x y}", "at '/operator/topologySpread/0': 'x y' does not match pattern"),
        ("agent.image.digest=sha256:abc", "at '/agent/image/digest': 'sha256:abc' does not match pattern"),
        ("agent.image.repository=null", "at '/agent/image': missing property 'repository'"),
        ("agent.resources.limits.cpu=1x", "at '/agent/resources/limits/cpu': '1x' does not match pattern"),
        ("agent.maxUnavailable=0%", "at '/agent/maxUnavailable': '0%' does not match pattern"),
        ("agent.logLevel=loud", "at '/agent/logLevel': value must be one of"),
        ("operator.podSecurityContext.runAsUser=0", "at '/operator/podSecurityContext/runAsUser': minimum: got 0"),
        ("agent.podSecurityContext.privileged=true", "additional properties 'privileged' not allowed"),
        ("agent.podSecurityContext.seccompProfile=null", "missing property 'seccompProfile'"),
        ("agent.programDirectories={opt}", "at '/agent/programDirectories/0': 'opt' does not match pattern"),
        ("agent.programDirectories={/opt,/opt}", "at '/agent/programDirectories': items at 0 and 1 are equal"),
        ("agent.programDirectories={/etc/x}", "names /etc/x, where the system itself has mounts"),
        ("agent.programDirectories={/opt/../x}", "names /opt/../x; write the path without . and .."),
        (
            "agent.podLabels.helm\\.sh/chart=x",
            "agent.podLabels sets the label helm.sh/chart, which the chart sets itself",
        ),
        (
            "monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true",
            "are both on, so that everything would be counted twice; switch one of them off: --set monitoring.",
        ),
        (
            "teardown.enabled=true,operator.replicas=0",
            "nobody would let go of what is torn down and uninstalling would run into its deadline; run an operator: --set",
        ),
        ("monitoring.interval=soon", "at '/monitoring/interval': 'soon' does not match pattern"),
        ("hostsNamespace=lamina-system", "hostsNamespace is \"lamina-system\", the release's own namespace"),
    ];
    for (wrong, words) in refusals {
        let said = helm(plane, &["template", "lamina", CHART, "--set", wrong]).await;
        assert_ne!(said.code, 0, "{wrong} is let through");
        assert!(said.stderr.contains(words), "{wrong}: {}", said.stderr);
    }
}

#[tokio::test]
async fn who_switches_the_operator_off_is_told_what_that_means() {
    let plane = api::shared("api-chart-shared").await;
    let told = helm(plane, &["install", "off", CHART, "--dry-run=client", "--set", "operator.replicas=0"]).await;
    let told = told.success().expect("it would install");
    assert!(told.contains("hosts keep what they have, and nothing new reaches them"), "{told}");
}

#[tokio::test]
async fn lint_finds_nothing() {
    let plane = api::shared("api-chart-shared").await;
    for values in [&[][..], &["--values", EVERYTHING]] {
        helm(plane, &[&["lint", "--strict", CHART], values].concat()).await.success().expect("helm lint");
    }
}

#[tokio::test]
async fn what_the_chart_makes_is_what_is_committed() {
    let plane = api::shared("api-chart-shared").await;
    for (name, values) in [("default.yaml", &[][..]), ("everything.yaml", &["--values", EVERYTHING])] {
        let rendered = render(plane, values).await;
        let golden = format!("{}/tests/chart/{name}", env!("CARGO_MANIFEST_DIR"));
        let new = plane.folder().join(name);
        std::fs::write(&new, &rendered).expect("the new text is kept");
        let same = std::fs::read_to_string(&golden).is_ok_and(|committed| committed == rendered);
        assert!(same, "the chart makes something else; look at it, then: cp {} {golden}", new.display());
    }
}

/// What has to make way for a value, because it outranks it.
fn outranking(value: &str) -> Option<&'static str> {
    match value {
        "nameOverride" => Some("fullnameOverride="),
        "operator.image.tag" => Some("operator.image.digest="),
        "agent.image.tag" => Some("agent.image.digest="),
        "monitoring.serviceMonitor.enabled" => Some("monitoring.podMonitor.enabled=false"),
        _ => None,
    }
}

#[tokio::test]
async fn every_value_has_an_effect() {
    let plane = api::shared("api-chart-shared").await;
    let schema = std::fs::read_to_string(format!("{CHART}/values.schema.json")).expect("the schema");
    let entries = chart::entries(&schema).expect("the schema has entries");
    let everything = render(plane, &["--values", EVERYTHING]).await;
    for entry in entries.iter().filter(|entry| entry.name() != "crds.enabled") {
        let (name, Some(default)) = (entry.name(), &entry.default) else { continue };
        let mut values = vec!["--values", EVERYTHING];
        values.extend(outranking(&name).iter().flat_map(|other| ["--set", other]));
        let before = if values.len() > 2 { render(plane, &values).await } else { everything.clone() };
        let default = serde_json::to_string(default).expect("JSON");
        // There, every switch is on but the one that another one forbids.
        let reset = match name.as_str() {
            "monitoring.serviceMonitor.enabled" => format!("{name}=true"),
            _ if name.ends_with(".enabled") => format!("{name}=false"),
            _ => format!("{name}={default}"),
        };
        values.extend(["--set-json", &reset]);
        assert!(render(plane, &values).await != before, "{name} changes nothing");
    }
}

#[tokio::test]
async fn the_kinds_can_come_from_elsewhere() {
    let plane = api::shared("api-chart-shared").await;
    assert!(!render(plane, &[]).await.contains("CustomResourceDefinition"));
    let rendered = helm(plane, &["template", "lamina", CHART]).await.success().expect("the chart renders");
    assert_eq!(rendered.matches("kind: CustomResourceDefinition").count(), 2);
    assert_eq!(rendered.matches("helm.sh/resource-policy: keep").count(), 2);
}

#[tokio::test]
async fn pods_ask_for_no_more_than_they_need() {
    let plane = api::shared("api-chart-shared").await;
    for values in [&[][..], &["--values", EVERYTHING]] {
        let objects = objects(&render(plane, values).await);
        let pod = |kind: &str| {
            let object = objects.iter().find(|object| object["kind"] == kind).expect(kind);
            object["spec"]["template"]["spec"].clone()
        };
        for spec in [pod("Deployment"), pod("DaemonSet")] {
            let container = &spec["containers"][0]["securityContext"];
            assert_eq!([&container["allowPrivilegeEscalation"], &container["privileged"]], [false, false]);
            assert_eq!(container["readOnlyRootFilesystem"], true);
            assert_eq!(container["capabilities"]["drop"], serde_json::json!(["ALL"]));
            assert!(spec["securityContext"]["seccompProfile"]["type"] != "Unconfined");
        }
        assert_eq!(pod("Deployment")["securityContext"]["runAsNonRoot"], true);
        let agent = pod("DaemonSet");
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
}

#[tokio::test]
async fn agents_have_a_share_of_the_api_server_and_nobody_else_does() {
    let (plane, identities) = installed().await;
    let schema = kubectl(plane, &["get", "flowschema", "lamina-agents", "-o", "json"]).await;
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let condition = &schema["status"]["conditions"][0];
    assert_eq!([&condition["type"], &condition["status"]], ["Dangling", "False"], "its level is there");
    let agent = client_of(plane, &identities.agent_token("host-a").await.expect("a token")).await;
    let operator = client_of(plane, &identities.operator_token().await.expect("a token")).await;
    let admin = plane.client().await.expect("a client");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/lamina-system/leases/host-a";
    let own = schema["metadata"]["uid"].as_str().expect("a uid");
    for (client, path, is_own) in [
        (&agent, api::HOST_STATES, true),
        (&agent, lease, true),
        (&operator, api::HOST_STATES, false),
        (&admin, api::HOST_STATES, false),
    ] {
        assert_eq!(flow_of(client, path).await == own, is_own, "{path}");
    }
    // What values.yaml says of Kubernetes' own levels.
    let shares = "jsonpath={.items[*].spec['limited','exempt'].nominalConcurrencyShares}";
    let shares = kubectl(plane, &["get", "prioritylevelconfigurations", "-o", shares]).await;
    assert_eq!(shares.split_whitespace().filter_map(|share| share.parse::<u32>().ok()).sum::<u32>(), 245 + 10);
}

async fn client_of(plane: &ControlPlane, token: &str) -> Client {
    let kubeconfig = plane.kubeconfig(Credential::Token(token.to_owned())).expect("a kubeconfig");
    kubeconfig.client().await.expect("a client")
}

/// The FlowSchema under which the server took a request.
async fn flow_of(client: &Client, path: &str) -> String {
    let request = http::Request::get(path).body(Body::from(Vec::new())).expect("a request");
    let answer = client.send(request).await.expect("an answer");
    let schema = answer.headers().get("x-kubernetes-pf-flowschema-uid").expect("flow control is on");
    schema.to_str().expect("a uid").to_owned()
}

#[tokio::test]
async fn people_may_do_what_their_role_says_and_no_more() {
    let (plane, _) = installed().await;
    for role in ["view", "edit", "admin"] {
        let (name, role) = (format!("team-{role}"), format!("--clusterrole=lamina-{role}"));
        kubectl(plane, &["create", "clusterrolebinding", &name, &role, &format!("--group={name}")]).await;
    }
    let topology = std::fs::read_to_string(format!("{EXAMPLES}smallest.yaml")).expect("the example");
    let host = "apiVersion: lamina.dev/v1alpha1\nkind: HostState\nmetadata:\n  name: guest\nspec: {}\n";
    let refused = async |team: &str, verb: &str, input: &str| {
        let said = plane.kubectl_with(&[verb, "-f", "-", "--as=ann", &format!("--as-group={team}")], input).await;
        let said = said.expect("kubectl");
        assert!(said.code == 0 || said.stderr.contains("orbidden"), "{}", said.stderr);
        said.code != 0
    };
    assert!(refused("team-view", "create", &topology).await);
    assert!(!refused("team-edit", "create", &topology).await);
    assert!(!refused("team-view", "get", &topology).await);
    assert!(refused("team-edit", "create", host).await);
    assert!(!refused("team-admin", "create", host).await);
    assert!(refused("team-edit", "delete", host).await);
    let status = ["patch", "hoststate", "guest", "--subresource=status", "--type=merge", "--patch", "{\"status\":{}}"];
    let said = plane.kubectl(&[&status[..], &["--as=ann", "--as-group=team-admin"]].concat()).await.expect("kubectl");
    assert!(said.stderr.contains("orbidden"), "a host's status is its agent's alone: {}", said.stderr);
    assert!(!refused("team-admin", "delete", host).await && !refused("team-edit", "delete", &topology).await);
}

#[tokio::test]
async fn every_command_of_the_notes_works() {
    let (plane, _) = installed().await;
    let host = "apiVersion: lamina.dev/v1alpha1\nkind: HostState\nmetadata:\n  name: host-a\nspec: {}\n";
    plane.kubectl_with(&["apply", "-f", "-"], host).await.expect("kubectl").success().expect("a host");
    let notes = helm(plane, &["get", "notes", "lamina"]).await.success().expect("the notes");
    let commands: Vec<&str> = notes.lines().filter_map(|line| line.strip_prefix("  kubectl ")).collect();
    assert!(commands.len() >= 12, "{notes}");
    for command in commands {
        let here = command.replace("NODE", "host-a").replace("GROUP", "people").replace("examples/", EXAMPLES);
        let here = here.replace("--timeout=5m", "--timeout=1s");
        let said = plane.kubectl(&here.split(' ').collect::<Vec<_>>()).await.expect("kubectl");
        // Without operator and kubelet nothing gets ready, and logs are asked for where nobody answers.
        let expected = match command.split(' ').next() {
            Some("wait") => "timed out waiting for the condition on slicetopologies/orchestrator",
            Some("logs") => "no preferred addresses found",
            _ => "",
        };
        let is_fine = if expected.is_empty() { said.code == 0 } else { said.stderr.contains(expected) };
        assert!(is_fine, "kubectl {command}: {}", said.stderr);
    }
    kubectl(plane, &["delete", "slicetopology/orchestrator", "hoststate/host-a"]).await;
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
    let (plane, identities) = installed().await;
    let file = plane.folder().join("agent.token");
    let token = identities.agent_token("host-a").await.expect("a token");
    std::fs::write(&file, token).expect("the token is written");
    let path = file.to_str().expect("a text").to_owned();
    let kubeconfig = plane.kubeconfig(Credential::TokenFile(path)).expect("a kubeconfig");
    let client = kubeconfig.client().await.expect("a client");
    let hosts = kube::Api::<lamina_crds::HostState>::all(client);
    hosts.list(&kube::api::ListParams::default()).await.expect("it may list");
    let guest = plane.guest_kubeconfig(Credential::Token("x".to_owned())).expect("a kubeconfig").text();
    assert!(guest.contains("\"https://10.0.2.100:6443\""), "{guest}");
}
