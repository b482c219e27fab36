//! Flux's controllers as processes of this machine, and the questions tests ask about what they keep.

#![expect(clippy::disallowed_methods, reason = "it measures how long Flux takes")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::binaries::{self, Controller};
use super::server::free_port;
use crate::{
    control_plane::ControlPlane,
    fleet::waiting,
    host::process::{Lifetime, Process},
};

/// The namespace that Flux works in.
pub const NAMESPACE: &str = "flux-system";

/// Flux on a control plane; it ends when dropped.
#[derive(Debug)]
pub struct Flux {
    _controllers: Vec<Process>,
}

/// How Flux judges a Kustomization, at the commit that it last tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What Flux has settled on.
    pub outcome: Outcome,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// What Flux has settled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that the commit asks for is there and healthy.
    Ready,
    /// It gave up on the commit until the next interval.
    Failed,
}

impl Flux {
    /// Makes Flux's kinds and namespace known and starts its controllers, with the rights that Flux has by default.
    pub async fn start(control_plane: &ControlPlane, folder: &Path) -> Result<Self> {
        let binaries::Flux { source, kustomize, helm } = binaries::Flux::find().await?;
        control_plane.kubectl(&["create", "namespace", NAMESPACE]).await?.success()?;
        for Controller { program: _, kinds } in [&source, &kustomize, &helm] {
            let kinds = kinds.to_str().context("a path is text")?;
            let apply = ["apply", "--server-side", "-f", kinds];
            control_plane.kubectl(&apply).await?.success().context("making Flux's kinds known")?;
        }
        let every = ["crd", "--all", "--timeout=60s", "--for=condition=Established"];
        control_plane.kubectl(&[&["wait"], &every[..]].concat()).await?.success()?;
        let storage = format!("127.0.0.1:{}", free_port()?);
        let stores = [
            format!("--storage-path={}", folder.join("artifacts").display()),
            format!("--storage-addr={storage}"),
            format!("--storage-adv-addr={storage}"),
        ];
        let waits = ["--requeue-dependency=2s".to_owned()];
        create(&folder.join("artifacts"))?;
        let start = |controller, more: &[String]| start(control_plane, folder, controller, more);
        let controllers = vec![start(&source, &stores)?, start(&kustomize, &waits)?, start(&helm, &waits)?];
        Ok(Self { _controllers: controllers })
    }
}

fn start(control_plane: &ControlPlane, folder: &Path, controller: &Controller, more: &[String]) -> Result<Process> {
    let kubeconfig = control_plane.kubeconfig_admin();
    let kubeconfig = kubeconfig.to_str().context("a path is text")?;
    let environment = [("KUBECONFIG", kubeconfig), ("RUNTIME_NAMESPACE", NAMESPACE)];
    let mut arguments =
        vec![format!("--metrics-addr=127.0.0.1:{}", free_port()?), format!("--health-addr=127.0.0.1:{}", free_port()?)];
    arguments.extend_from_slice(more);
    let name = controller.program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
    let log = format!("{name}.log");
    Process::start_in(&environment, &controller.program, &arguments, folder, &log, Lifetime::Tethered)
}

/// Has Flux fetch the repository of this name now, as its receiver does when a forge tells it of a push.
pub async fn notify(control_plane: &ControlPlane, repository: &str) -> Result<()> {
    request(control_plane, "gitrepository", repository).await
}

/// Has Flux go once through a Kustomization now, and waits until it has.
pub async fn reconcile(control_plane: &ControlPlane, kustomization: &str) -> Result<Verdict> {
    request(control_plane, "kustomization", kustomization).await?;
    let asked = read(control_plane, "kustomization", kustomization).await?;
    let asked = asked["metadata"]["annotations"][REQUEST].clone();
    let handled = async || {
        let now = read(control_plane, "kustomization", kustomization).await?;
        Ok(now["status"]["lastHandledReconcileAt"] == asked && verdict(&now).is_some())
    };
    waiting::until("Flux has gone through the Kustomization", waiting::MINUTE, handled).await?;
    verdict(&read(control_plane, "kustomization", kustomization).await?).context("Flux has judged")
}

/// Waits until Flux has judged this commit of a Kustomization, and tells how long that took.
pub async fn judged(
    control_plane: &ControlPlane,
    kustomization: &str,
    commit: &str,
    limit: Duration,
) -> Result<(Verdict, Duration)> {
    let begin = Instant::now();
    loop {
        let object = read(control_plane, "kustomization", kustomization).await?;
        let tried = object["status"]["lastAttemptedRevision"].as_str().unwrap_or_default();
        if let Some(verdict) = verdict(&object).filter(|_| tried.ends_with(commit)) {
            return Ok((verdict, begin.elapsed()));
        }
        if begin.elapsed() > limit {
            bail!("after {} s Flux has not judged {commit}: {}", limit.as_secs(), object["status"]);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What Flux says of a Kustomization or HelmRelease, unless it still works on it.
pub fn verdict(object: &Value) -> Option<Verdict> {
    let conditions = object["status"]["conditions"].as_array()?;
    let condition = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_);
    if condition("Reconciling").is_some_and(|working| working["status"] == "True") {
        // After a failure it says so and tries again later.
        condition("Reconciling").filter(|working| working["reason"] == "ProgressingWithRetry")?;
    }
    let ready = condition("Ready")?;
    let outcome = match ready["status"].as_str() {
        Some("True") => Outcome::Ready,
        Some("False") => Outcome::Failed,
        Some(_) | None => return None,
    };
    let current = ready["observedGeneration"] == object["metadata"]["generation"];
    let word = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    current.then(|| Verdict { outcome, reason: word("reason"), message: word("message") })
}

/// What asks a controller of Flux for one more pass.
const REQUEST: &str = "reconcile.fluxcd.io/requestedAt";

async fn request(control_plane: &ControlPlane, kind: &str, name: &str) -> Result<()> {
    let now = jiff::Timestamp::now();
    let annotation = format!("{REQUEST}={now}");
    let annotate = ["annotate", "--overwrite", kind, name, &annotation, "--namespace", NAMESPACE];
    control_plane.kubectl(&annotate).await?.success().map(drop).with_context(|| format!("telling Flux of {name}"))
}

async fn read(control_plane: &ControlPlane, kind: &str, name: &str) -> Result<Value> {
    let get = ["get", kind, name, "--namespace", NAMESPACE, "-o", "json"];
    let text = control_plane.kubectl(&get).await?.success().with_context(|| format!("reading {kind} {name}"))?;
    serde_json::from_str(&text).with_context(|| format!("understanding {kind} {name}"))
}

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kustomization(conditions: Value) -> Value {
        json!({ "metadata": { "generation": 2 }, "status": { "conditions": conditions } })
    }

    #[test]
    fn what_flux_still_works_on_is_not_judged() {
        let ready = |status: &str, generation: i64| json!({ "type": "Ready", "status": status, "reason": "Why", "message": "so", "observedGeneration": generation });
        let working = |reason: &str| json!({ "type": "Reconciling", "status": "True", "reason": reason });
        let outcome = |conditions| verdict(&kustomization(conditions)).map(|verdict| verdict.outcome);
        assert_eq!(outcome(json!([ready("True", 2)])), Some(Outcome::Ready));
        assert_eq!(outcome(json!([ready("True", 1)])), None);
        assert_eq!(outcome(json!([working("Progressing"), ready("Unknown", 2)])), None);
        assert_eq!(outcome(json!([working("Progressing"), ready("False", 2)])), None);
        assert_eq!(outcome(json!([working("ProgressingWithRetry"), ready("False", 2)])), Some(Outcome::Failed));
        assert_eq!(outcome(json!([])), None);
    }
}
