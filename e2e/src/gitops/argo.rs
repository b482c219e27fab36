//! Argo CD as processes of this machine, and the questions tests ask about what it keeps.

#![expect(
    clippy::disallowed_methods,
    reason = "it makes folders, links and files, and measures how long Argo CD takes"
)]

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::process::Command;

use super::redis::Redis;
use super::server::answers;
use super::{binaries, make_known};
use crate::{
    cache::Cache,
    control_plane::ControlPlane,
    fleet::waiting,
    host::process::{Lifetime, Process, Surroundings},
    port::free_port,
    program::output_of,
};

/// The namespace that Argo CD works in.
pub const NAMESPACE: &str = "argocd";

/// Argo CD on a control plane; it ends when dropped.
pub struct Argo {
    client: Client,
    cli: PathBuf,
    kubeconfig: PathBuf,
    _processes: [Process; 2],
    _redis: Redis,
}

/// What Argo CD shows of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Whether the cluster is as the commit asks: Synced or `OutOfSync`.
    pub sync: String,
    /// The commit that this was compared with.
    pub revision: String,
    /// The worst health of its objects.
    pub health: String,
    /// What it last did, or does.
    pub operation: Operation,
    /// What keeps it from comparing the cluster with the commit.
    pub faults: Vec<String>,
    /// Its objects, as in `SliceTopology/orchestrator`.
    pub objects: BTreeMap<String, Object>,
}

/// What Argo CD last did, or does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Running, Succeeded, Failed or Error.
    pub phase: String,
    /// The commit that it brings.
    pub revision: String,
    /// How it went.
    pub message: String,
    /// When it began.
    pub started: String,
    /// Objects that were not brought, and why.
    pub refused: BTreeMap<String, String>,
}

/// What Argo CD shows of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Synced or `OutOfSync`.
    pub sync: String,
    /// Its health by our script.
    pub health: String,
    /// The sentence beside it.
    pub message: String,
}

impl Argo {
    /// Makes Argo CD's kinds and settings known and starts what applies: no API server, no pages.
    pub async fn start(control_plane: &ControlPlane, folder: &Path) -> Result<Self> {
        let argo = binaries::Argo::find().await?;
        control_plane.kubectl(&["create", "namespace", NAMESPACE]).await?.success()?;
        let kinds = ["application", "applicationset", "appproject"];
        make_known(control_plane, &kinds.map(|kind| argo.files.join(format!("manifests/crds/{kind}-crd.yaml"))))
            .await?;
        let settings = settings(control_plane)?.to_string();
        control_plane.kubectl_with(&["apply", "-f", "-"], &settings).await?.success().context("writing settings")?;

        let folder = folder.join("argo");
        let programs = programs(&argo, control_plane, &folder)?;
        let redis = Redis::start(&Cache::open()?, &folder).await?;
        let (repositories, port) = start_repositories(&programs, &folder, &redis)?;
        answers("Argo CD's repository server", port).await?;
        let kubeconfig = control_plane.kubeconfig_admin();
        let controller = start_controller(&programs, &folder, &redis, port, &kubeconfig)?;
        let client = control_plane.client().await?;
        let cli = programs.join("argocd");
        Ok(Self { client, cli, kubeconfig, _processes: [repositories, controller], _redis: redis })
    }

    /// Has Argo CD look at an application's repository now, as when a forge tells of a push.
    pub async fn notify(&self, application: &str) -> Result<()> {
        self.annotate(application, "argocd.argoproj.io/refresh", "normal").await
    }

    /// Has Argo CD forget what it knows of an application and look anew, and waits until it has.
    pub async fn look_anew(&self, application: &str) -> Result<()> {
        const REQUEST: &str = "argocd.argoproj.io/refresh";
        self.annotate(application, REQUEST, "hard").await?;
        // The controller takes the annotation away when it is done.
        let done = async || Ok(self.read(application).await?["metadata"]["annotations"][REQUEST].is_null());
        waiting::until("Argo CD has looked anew", waiting::MINUTE, done).await.map(drop)
    }

    /// Sets an annotation of an application.
    pub async fn annotate(&self, application: &str, key: &str, value: &str) -> Result<()> {
        self.patch(application, &json!({ "metadata": { "annotations": { key: value } } })).await
    }

    /// Changes an application by a JSON merge patch.
    pub async fn patch(&self, application: &str, patch: &Value) -> Result<()> {
        let told = self.applications().patch(application, &PatchParams::default(), &Patch::Merge(patch)).await;
        told.map(drop).with_context(|| format!("changing Application {application}"))
    }

    /// What Argo CD shows of an application now.
    pub async fn shown(&self, application: &str) -> Result<Shown> {
        Ok(Shown::of(&self.read(application).await?))
    }

    /// Waits until Argo CD shows this of an application.
    pub async fn shows(
        &self,
        application: &str,
        what: &str,
        limit: Duration,
        fact: impl Fn(&Shown) -> bool,
    ) -> Result<Shown> {
        let is_so = async || Ok(fact(&self.shown(application).await?));
        let told = waiting::until(&format!("Argo CD shows {application} {what}"), limit, is_so).await;
        match told {
            Ok(_) => self.shown(application).await,
            Err(error) => Err(error.context(self.read(application).await?["status"].to_string())),
        }
    }

    /// The health that Argo CD's own command line finds in an object's text: status and message.
    pub async fn health_of(&self, object: &str) -> Result<(String, String)> {
        let file = tempfile::NamedTempFile::new().context("creating a file for an object")?;
        fs::write(file.path(), object).context("writing an object")?;
        let mut cli = Command::new(&self.cli);
        cli.args(["admin", "settings", "resource-overrides", "health"]).arg(file.path());
        cli.args(["--load-cluster-settings", "--namespace", NAMESPACE]).env("KUBECONFIG", &self.kubeconfig);
        let said = output_of(&mut cli).await?;
        let field =
            |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).map(|found| found.trim().to_owned());
        field("STATUS:").zip(field("MESSAGE:")).with_context(|| format!("argocd says `{said}`"))
    }

    async fn read(&self, application: &str) -> Result<Value> {
        let object = self.applications().get(application).await;
        let object = object.with_context(|| format!("reading Application {application}"))?;
        serde_json::to_value(object).context("writing down an Application")
    }

    fn applications(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application");
        Api::namespaced_with(self.client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind))
    }
}

impl Shown {
    fn of(application: &Value) -> Self {
        let status = &application["status"];
        let operation = &status["operationState"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |object: &Value| format!("{}/{}", word(&object["kind"]), word(&object["name"]));
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let object = |object: &Value| Object {
            sync: word(&object["status"]),
            health: word(&object["health"]["status"]),
            message: word(&object["health"]["message"]),
        };
        let results = list(&operation["syncResult"]["resources"]);
        let refused = results.iter().filter(|result| result["status"] == "SyncFailed");
        Self {
            sync: word(&status["sync"]["status"]),
            revision: word(&status["sync"]["revision"]),
            health: word(&status["health"]["status"]),
            operation: Operation {
                phase: word(&operation["phase"]),
                revision: word(&operation["syncResult"]["revision"]),
                message: word(&operation["message"]),
                started: word(&operation["startedAt"]),
                refused: refused.map(|result| (name(result), word(&result["message"]))).collect(),
            },
            faults: list(&status["conditions"]).iter().map(|fault| word(&fault["message"])).collect(),
            objects: list(&status["resources"]).iter().map(|found| (name(found), object(found))).collect(),
        }
    }

    /// An object, or an empty one.
    pub fn object(&self, name: &str) -> Object {
        self.objects.get(name).cloned().unwrap_or_default()
    }
}

/// What an installation of Argo CD brings along, and the cluster at the address that the manifests name.
fn settings(control_plane: &ControlPlane) -> Result<Value> {
    let path = control_plane.kubeconfig_admin();
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let kubeconfig: Value = serde_json::from_str(&text).context("understanding a kubeconfig of our own")?;
    let user = &kubeconfig["users"][0]["user"];
    let config = json!({ "tlsClientConfig": {
        "caData": kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"],
        "certData": user["client-certificate-data"],
        "keyData": user["client-key-data"],
    } });
    let object = |kind: &str, name: &str, label: (&str, &str), data: Value| {
        let data_field = if kind == "Secret" { "stringData" } else { "data" };
        json!({
            "apiVersion": "v1", "kind": kind,
            "metadata": { "name": name, "namespace": NAMESPACE, "labels": { label.0: label.1 } },
            data_field: data,
        })
    };
    let part = ("app.kubernetes.io/part-of", "argocd");
    let cluster = json!({ "name": "lab", "server": server(control_plane), "config": config.to_string() });
    let project = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject",
        "metadata": { "name": "default", "namespace": NAMESPACE },
        "spec": {
            "sourceRepos": ["*"],
            "destinations": [{ "namespace": "*", "server": "*" }],
            "clusterResourceWhitelist": [{ "group": "*", "kind": "*" }],
        },
    });
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": [
        object("ConfigMap", "argocd-cm", part, json!({})),
        object("ConfigMap", "argocd-rbac-cm", part, json!({})),
        object("ConfigMap", "argocd-cmd-params-cm", part, json!({})),
        object("Secret", "argocd-secret", part, json!({ "server.secretkey": "lab" })),
        object("Secret", "lab", ("argocd.argoproj.io/secret-type", "cluster"), cluster),
        project,
    ] }))
}

/// The cluster's address as Argo CD knows it.
pub fn server(control_plane: &ControlPlane) -> String {
    format!("https://127.0.0.1:{}", control_plane.port())
}

/// A folder with Argo CD under each of its names, and with what it calls.
fn programs(argo: &binaries::Argo, control_plane: &ControlPlane, folder: &Path) -> Result<PathBuf> {
    let programs = folder.join("programs");
    for name in ["programs", "temporary", "gpg", "tls", "ssh"] {
        fs::create_dir_all(folder.join(name)).with_context(|| format!("creating {name} in {}", folder.display()))?;
    }
    let wrapper = argo.files.join("hack/git-verify-wrapper.sh");
    let text = fs::read(&wrapper).with_context(|| format!("reading {}", wrapper.display()))?;
    let own = programs.join("git-verify-wrapper.sh");
    fs::write(&own, text).with_context(|| format!("writing {}", own.display()))?;
    // The module's own copy may not be run.
    fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o755)).context("making it a program")?;
    let names = ["argocd", "argocd-application-controller", "argocd-repo-server", "argocd-git-ask-pass"];
    let links = names.map(|name| (name, argo.program.as_path()));
    for (name, target) in links.into_iter().chain([("helm", control_plane.helm_path())]) {
        symlink(target, programs.join(name)).with_context(|| format!("linking {name}"))?;
    }
    Ok(programs)
}

/// Starts what fetches repositories and makes manifests of them, and tells its port.
fn start_repositories(programs: &Path, folder: &Path, redis: &Redis) -> Result<(Process, u16)> {
    let (port, metrics) = (free_port()?, free_port()?);
    let path = env::var("PATH").unwrap_or_default();
    let within = |name: &str| folder.join(name).display().to_string();
    let variables = [
        ("PATH", format!("{}:{path}", programs.display())),
        ("HOME", within("temporary")),
        ("TMPDIR", within("temporary")),
        ("ARGOCD_GPG_ENABLED", "false".to_owned()),
        ("ARGOCD_GNUPGHOME", within("gpg")),
        ("ARGOCD_TLS_DATA_PATH", within("tls")),
        ("ARGOCD_SSH_DATA_PATH", within("ssh")),
    ];
    let arguments = [
        format!("--redis={}", redis.address()),
        "--address=127.0.0.1".to_owned(),
        format!("--port={port}"),
        "--metrics-address=127.0.0.1".to_owned(),
        format!("--metrics-port={metrics}"),
    ];
    let surroundings = Surroundings { folder, log: "argocd-repo-server.log", variables: &variables };
    let program = programs.join("argocd-repo-server");
    Ok((Process::start_in(&surroundings, &program, &arguments, Lifetime::Tethered)?, port))
}

/// Starts what compares, applies and judges.
fn start_controller(
    programs: &Path,
    folder: &Path,
    redis: &Redis,
    repositories: u16,
    kubeconfig: &Path,
) -> Result<Process> {
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--namespace={NAMESPACE}"),
        format!("--redis={}", redis.address()),
        format!("--repo-server=127.0.0.1:{repositories}"),
        format!("--metrics-port={}", free_port()?),
        // So that the health of each object can be read from the application, too.
        "--persist-resource-health".to_owned(),
    ];
    let within = |name: &str| folder.join(name).display().to_string();
    let variables = [
        ("HOME", within("temporary")),
        ("TMPDIR", within("temporary")),
        ("ARGOCD_TLS_DATA_PATH", within("tls")),
        ("ARGOCD_SSH_DATA_PATH", within("ssh")),
    ];
    let surroundings = Surroundings { folder, log: "argocd-application-controller.log", variables: &variables };
    Process::start_in(&surroundings, &programs.join("argocd-application-controller"), &arguments, Lifetime::Tethered)
}
