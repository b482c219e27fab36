//! Flux's controllers as processes of this machine, and the questions tests ask about what they keep.

#![expect(clippy::disallowed_methods, reason = "it measures how long Flux takes")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::binaries::{self, Controller};
use super::make_known;
use super::repository::Commit;
use crate::{
    control_plane::ControlPlane,
    fleet::waiting,
    host::process::{Lifetime, Process, Surroundings},
    port::free_port,
};

/// The namespace that Flux works in.
pub const NAMESPACE: &str = "flux-system";

/// Something that Flux keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub namespace: &'static str,
    /// What it is called.
    pub name: &'static str,
}

/// What Flux keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A copy of a repository.
    GitRepository,
    /// What a folder of it asks for.
    Kustomization,
    /// A release of a chart.
    HelmRelease,
}

/// How Flux judges something, at the commit that it last tried.
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

/// Flux on a control plane; it ends when dropped.
pub struct Flux {
    client: Client,
    _controllers: Vec<Process>,
}

impl Flux {
    /// Makes Flux's kinds and namespace known and starts its controllers, with the rights that Flux has by default.
    pub async fn start(control_plane: &ControlPlane, folder: &Path) -> Result<Self> {
        let binaries::Flux { source, kustomize, helm } = binaries::Flux::find().await?;
        control_plane.kubectl(&["create", "namespace", NAMESPACE]).await?.success()?;
        make_known(control_plane, &[&source, &kustomize, &helm].map(|controller| controller.kinds.clone())).await?;
        let storage = format!("127.0.0.1:{}", free_port()?);
        let stores = [
            format!("--storage-path={}", folder.join("artifacts").display()),
            format!("--storage-addr={storage}"),
            format!("--storage-adv-addr={storage}"),
        ];
        create(&folder.join("artifacts"))?;
        let waits = "--requeue-dependency=2s".to_owned();
        // As docs/flux.md advises: a commit that mends something is not kept waiting by the one that it mends.
        let heeds = "--feature-gates=CancelHealthCheckOnNewRevision=true".to_owned();
        let start = |controller, more: &[String]| start(control_plane, folder, controller, more);
        let controllers =
            vec![start(&source, &stores)?, start(&kustomize, &[waits.clone(), heeds])?, start(&helm, &[waits])?];
        Ok(Self { client: control_plane.client().await?, _controllers: controllers })
    }

    /// Has Flux go once through something now: a repository is fetched, as when a forge tells of a push.
    pub async fn notify(&self, kept: Kept) -> Result<String> {
        let now = jiff::Timestamp::now().to_string();
        let annotation = json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": now } } });
        let told = self.api(kept).patch(kept.name, &PatchParams::default(), &Patch::Merge(annotation)).await;
        told.with_context(|| format!("telling Flux of {kept:?}"))?;
        Ok(now)
    }

    /// Has Flux go once through something now, and waits until it has.
    pub async fn reconcile(&self, kept: Kept) -> Result<Verdict> {
        let asked = self.notify(kept).await?;
        let handled = async || {
            let now = self.read(kept).await?;
            Ok(now["status"]["lastHandledReconcileAt"] == asked && verdict(&now).is_some())
        };
        waiting::until(&format!("Flux has gone through {kept:?}"), waiting::MINUTE, handled).await?;
        verdict(&self.read(kept).await?).context("Flux has judged")
    }

    /// Waits until Flux has judged this commit, and tells how long after the commit that was.
    pub async fn judged(&self, kept: Kept, commit: &Commit, limit: Duration) -> Result<(Verdict, Duration)> {
        let begin = Instant::now();
        loop {
            if let Some(verdict) = self.told(kept, commit).await? {
                return Ok((verdict, commit.published.elapsed()));
            }
            if begin.elapsed() > limit {
                let object = self.read(kept).await?;
                bail!("after {} s Flux has not judged {commit:?}: {}", limit.as_secs(), object["status"]);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What Flux says now of this commit, if it has judged it.
    pub async fn told(&self, kept: Kept, commit: &Commit) -> Result<Option<Verdict>> {
        let object = self.read(kept).await?;
        let tried = object["status"]["lastAttemptedRevision"].as_str().unwrap_or_default();
        Ok(verdict(&object).filter(|_| tried.ends_with(&commit.id)))
    }

    /// Waits until Flux has applied this commit and waits for what it brings.
    pub async fn waits(&self, kept: Kept, commit: &Commit) -> Result<()> {
        let waits = async || {
            let object = self.read(kept).await?;
            let tried = object["status"]["lastAttemptedRevision"].as_str().unwrap_or_default();
            let healthy = condition(&object, "Healthy");
            let is_open = healthy.is_some_and(|healthy| healthy["status"] == "Unknown");
            Ok(tried.ends_with(&commit.id) && is_open)
        };
        let told = waiting::until(&format!("Flux waits for what {commit:?} brings"), waiting::MINUTE, waits).await;
        match told {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.read(kept).await?.to_string())),
        }
    }

    /// The object as it is now.
    pub async fn read(&self, kept: Kept) -> Result<Value> {
        let object = self.api(kept).get(kept.name).await.with_context(|| format!("reading {kept:?}"))?;
        serde_json::to_value(object).with_context(|| format!("writing down {kept:?}"))
    }

    fn api(&self, kept: Kept) -> Api<DynamicObject> {
        let (group, version) = match kept.kind {
            Kind::GitRepository => ("source.toolkit.fluxcd.io", "v1"),
            Kind::Kustomization => ("kustomize.toolkit.fluxcd.io", "v1"),
            Kind::HelmRelease => ("helm.toolkit.fluxcd.io", "v2"),
        };
        let kind = GroupVersionKind::gvk(group, version, &format!("{:?}", kept.kind));
        Api::namespaced_with(self.client.clone(), kept.namespace, &ApiResource::from_gvk(&kind))
    }
}

fn start(control_plane: &ControlPlane, folder: &Path, controller: &Controller, more: &[String]) -> Result<Process> {
    let kubeconfig = control_plane.kubeconfig_admin().display().to_string();
    let variables = [("KUBECONFIG", kubeconfig), ("RUNTIME_NAMESPACE", NAMESPACE.to_owned())];
    let mut arguments =
        vec![format!("--metrics-addr=127.0.0.1:{}", free_port()?), format!("--health-addr=127.0.0.1:{}", free_port()?)];
    arguments.extend_from_slice(more);
    let name = controller.program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
    let surroundings = Surroundings { folder, log: &format!("{name}.log"), variables: &variables };
    Process::start_in(&surroundings, &controller.program, &arguments, Lifetime::Tethered)
}

/// What Flux says of an object, unless it still works on it.
fn verdict(object: &Value) -> Option<Verdict> {
    let working = condition(object, "Reconciling").filter(|working| working["status"] == "True");
    // After a failure Flux says that it will try again later: that is a verdict.
    if working.is_some_and(|working| working["reason"] != "ProgressingWithRetry") {
        return None;
    }
    let ready = condition(object, "Ready")?;
    let outcome = match ready["status"].as_str() {
        Some("True") => Outcome::Ready,
        Some("False") => Outcome::Failed,
        Some(_) | None => return None,
    };
    let current = ready["observedGeneration"] == object["metadata"]["generation"];
    let word = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    current.then(|| Verdict { outcome, reason: word("reason"), message: word("message") })
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kustomization(conditions: Value) -> Value {
        json!({ "metadata": { "generation": 2 }, "status": { "conditions": conditions } })
    }

    #[test]
    fn what_flux_still_works_on_is_not_judged() {
        let ready = |status: &str, generation: i64| json!({ "type": "Ready", "status": status, "observedGeneration": generation });
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
