//! A fleet that Flux keeps: Lamina by HelmRelease, topologies by a Kustomization that waits. Whoever commits is told within
//! seconds whether every host is as asked, or why not.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamina_e2e::fleet::example::{HOST, PATIENCE};
use lamina_e2e::fleet::waiting::MINUTE;
use lamina_e2e::gitops::GitFleet;
use lamina_e2e::gitops::flux::{Flux, Kept, Kind, NAMESPACE, Outcome, Verdict};
use lamina_e2e::gitops::repository::Commit;
use lamina_e2e::gitops::subject::{Times, config_map, topology, with};
use lamina_e2e::host::Host;
use lamina_e2e::reader::Reader;
use serde_json::{Value, json};

/// How long Flux may take to say that a commit is no good. The Kustomization would give up by itself after ten minutes.
const SOON: Duration = Duration::from_secs(30);
/// Longer than Flux takes to look twice at what a commit has brought.
const A_WHILE: Duration = Duration::from_secs(11);

const FLEET: Kept = Kept { kind: Kind::GitRepository, namespace: NAMESPACE, name: "fleet" };
const LAMINA: Kept = Kept { kind: Kind::Kustomization, namespace: NAMESPACE, name: "lamina" };
const TOPOLOGIES: Kept = Kept { kind: Kind::Kustomization, namespace: NAMESPACE, name: "topologies" };
const SETTINGS: Kept = Kept { kind: Kind::Kustomization, namespace: NAMESPACE, name: "settings" };
const RELEASE: Kept = Kept { kind: Kind::HelmRelease, namespace: "lamina-system", name: "lamina" };

const STEADY: &str = "topologies/steady.yaml";
const CONFIG: &str = "settings/settings.yaml";

#[tokio::test]
async fn what_is_committed_is_so_on_the_hosts_or_refused_at_once() -> Result<()> {
    let git = GitFleet::begin().await?;
    let flux = Flux::start(&git.fleet.control_plane, git.folder()).await?;
    let mut this = FluxFleet { git, flux, times: Times::default() };
    match this.story().await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(this.dump().await)),
    }
}

/// Does what the quickstart says of Git, and gives the commit that this published.
async fn follow_the_quickstart(git: &GitFleet) -> Result<Commit> {
    let reader = Reader::of(&git.fleet.control_plane, &git.folder().join("reader"))?;
    let reader = reader.within(git.repository.folder());
    reader
        .types("git config --global user.name reader && git config --global user.email reader@localhost")
        .await?
        .success()?;
    let (source, lamina, fleet) = (reader.source().display().to_string(), git.lamina_url(), git.fleet_url());
    let settings = [("LAMINA", source.as_str()), ("LAMINA_URL", &lamina), ("FLEET_URL", &fleet)];
    reader.follows(include_str!("../../docs/quickstart.md"), "git", &settings).await?;
    git.repository.just_published().await
}

/// A fleet, and Flux which keeps it. Flux ends first.
struct FluxFleet {
    flux: Flux,
    git: GitFleet,
    times: Times,
}

impl FluxFleet {
    async fn story(&mut self) -> Result<()> {
        self.an_empty_cluster_becomes_ready().await?;
        self.a_good_commit_is_ready().await?;
        self.a_bad_commit_fails_and_a_better_one_recovers().await?;
        println!("\nfrom commit to verdict:\n{}", self.times.told());
        self.what_waits_is_in_progress_and_keeps_no_commit_waiting().await?;
        self.nothing_is_written_without_a_reason().await?;
        self.drift_is_put_back().await?;
        self.pruning_obeys_the_deletion_policy().await
    }

    /// Lamina and the first topology out of an empty cluster, as the quickstart is written.
    async fn an_empty_cluster_becomes_ready(&mut self) -> Result<()> {
        let git = &self.git;
        let commit = follow_the_quickstart(git).await?;
        let installed = self.flux.judged(LAMINA, &commit, PATIENCE);
        let (verdict, took) = git.with_pods(installed).await?;
        ensure!(verdict.outcome == Outcome::Ready, "Lamina is installed: {verdict:?}");
        println!("from an empty cluster to an installed chart: {:.1} s", took.as_secs_f64());
        git.fleet.wait_served().await?;

        git.repository.remove("topologies/first.yaml")?;
        git.write(STEADY, &topology("steady", 2))?;
        let commit = git.commit(CONFIG, &config_map(&json!("first"))).await?;
        git.fleet.apply(&settings_kustomization()?).await?;
        self.flux.waits(TOPOLOGIES, &commit).await?;
        tokio::time::sleep(A_WHILE).await;
        let early = self.flux.told(TOPOLOGIES, &commit).await?;
        ensure!(early.is_none(), "nobody has looked at the topology yet: {early:?}");
        self.git.populate().await?;
        let (verdict, took) = self.flux.judged(TOPOLOGIES, &commit, PATIENCE).await?;
        ensure!(verdict.outcome == Outcome::Ready, "the topology is Ready: {verdict:?}");
        println!("with host and operator, the topology is Ready after {:.1} s", took.as_secs_f64());
        ensure!(self.git.is_active("steady").await?, "its service runs");
        Ok(())
    }

    async fn a_good_commit_is_ready(&mut self) -> Result<()> {
        let took = self.becomes_ready(TOPOLOGIES, STEADY, &topology("steady", 3)).await?;
        self.times.add("topology, a slice grows on the host: Ready", took);
        ensure!(self.git.cpus("steady").await? == 3, "Ready is said when it is so on the host");
        let took = self.becomes_ready(SETTINGS, CONFIG, &config_map(&json!("second"))).await?;
        self.times.add("ConfigMap, a value changes: Ready", took);
        Ok(())
    }

    async fn a_bad_commit_fails_and_a_better_one_recovers(&mut self) -> Result<()> {
        // Legal, but no host has so many cores.
        let (verdict, took) = self.fails(TOPOLOGIES, STEADY, &topology("steady", 64)).await?;
        ensure!(verdict.reason == "HealthCheckFailed", "{verdict:?}");
        ensure!(verdict.message.contains("SliceTopology/steady"), "it says what failed: {verdict:?}");
        self.times.add("topology, no host can hold it: failed", took);
        ensure!(self.git.is_active("steady").await? && self.git.cpus("steady").await? == 3, "what ran runs on");

        // Against a rule that the API server knows.
        let illegal = with(topology("steady", 2), "deletionPolicy", &json!("Forget"));
        let (verdict, took) = self.fails(TOPOLOGIES, STEADY, &illegal).await?;
        ensure!(verdict.message.contains("deletionPolicy"), "{verdict:?}");
        self.times.add("topology, against the schema: failed", took);

        let (_, took) = self.fails(SETTINGS, CONFIG, &config_map(&json!({ "no": "text" }))).await?;
        self.times.add("ConfigMap, against the schema: failed", took);
        self.becomes_ready(SETTINGS, CONFIG, &config_map(&json!("third"))).await?;

        let took = self.becomes_ready(TOPOLOGIES, STEADY, &topology("steady", 2)).await?;
        self.times.add("topology, the commit that mends it: Ready", took);
        Ok(())
    }

    /// A pause that holds a change back, and a topology without a host: neither is there yet, and neither has failed.
    async fn what_waits_is_in_progress_and_keeps_no_commit_waiting(&self) -> Result<()> {
        let nowhere = json!({ "matchLabels": { "lamina.dev/role": "nobody" } });
        self.git.write("topologies/nowhere.yaml", &with(topology("nowhere", 1), "hostSelector", &nowhere))?;
        let paused = with(topology("steady", 4), "paused", &json!(true));
        self.stays_open(&self.commit(STEADY, &paused).await?).await?;
        ensure!(self.git.cpus("steady").await? == 2, "a pause keeps the change from the host");

        let resumed = self.commit(STEADY, &topology("steady", 4)).await?;
        self.stays_open(&resumed).await?;
        ensure!(self.git.cpus("steady").await? == 4, "the next commit did not wait for the first one's timeout");

        self.git.repository.remove("topologies/nowhere.yaml")?;
        self.becomes_ready(TOPOLOGIES, STEADY, &topology("steady", 2)).await.map(drop)
    }

    /// Passes of Flux over what is as asked leave every object as it was, to the last version.
    async fn nothing_is_written_without_a_reason(&self) -> Result<()> {
        let before = self.versions().await?;
        for _ in 0..3 {
            for kept in [TOPOLOGIES, LAMINA, RELEASE] {
                let verdict = self.flux.reconcile(kept).await?;
                ensure!(verdict.outcome == Outcome::Ready, "{kept:?}: {verdict:?}");
            }
        }
        let after = self.versions().await?;
        ensure!(before == after, "nothing was to be done: {before:?}, then {after:?}");
        let writers = self.git.fleet.topology("steady").await?.metadata.managed_fields.unwrap_or_default();
        let of_spec = writers.into_iter().filter(|writer| writer.subresource.is_none());
        let of_spec: Vec<String> = of_spec.filter_map(|writer| writer.manager).collect();
        ensure!(of_spec == ["kustomize-controller"], "nobody else writes spec and metadata: {of_spec:?}");
        let release = self.flux.read(RELEASE).await?;
        let history = release["status"]["history"].as_array().map_or(0, Vec::len);
        ensure!(history == 1, "the chart was installed once and never again: {}", release["status"]);
        Ok(())
    }

    async fn drift_is_put_back(&self) -> Result<()> {
        let fleet = &self.git.fleet;
        let patch = json!({ "spec": { "slices": [{ "name": "only", "cpu": { "cores": 5 } }] } }).to_string();
        fleet.kubectl(&["patch", "slicetopology", "steady", "--type=merge", "-p", &patch]).await?;
        self.is_put_back("what kubectl changed").await?;
        let life = self.git.life("steady").await?;
        fleet.kubectl(&["delete", "slicetopology", "steady"]).await?;
        self.is_put_back("what kubectl deleted").await?;
        ensure!(life == self.git.life("steady").await?, "nothing was restarted for that");
        Ok(())
    }

    async fn is_put_back(&self, what: &str) -> Result<()> {
        let verdict = self.flux.reconcile(TOPOLOGIES).await?;
        ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
        let path = "jsonpath={.spec.slices[0].cpu.cores}";
        let cores = self.git.fleet.kubectl(&["get", "slicetopology", "steady", "-o", path]).await?;
        ensure!(cores == "2" && self.git.cpus("steady").await? == 2, "Flux puts back {what}: {cores} cores");
        Ok(())
    }

    async fn pruning_obeys_the_deletion_policy(&self) -> Result<()> {
        let passing = with(topology("passing", 2), "deletionPolicy", &json!("Remove"));
        self.becomes_ready(TOPOLOGIES, "topologies/passing.yaml", &passing).await?;
        ensure!(self.git.is_active("passing").await?, "its service runs");
        self.only_a_finalizer_is_ours("passing").await?;
        let life = self.git.life("steady").await?;

        self.git.repository.remove("topologies/passing.yaml")?;
        self.git.repository.remove(STEADY)?;
        self.becomes_ready(TOPOLOGIES, "topologies/kept.yaml", &topology("kept", 1)).await?;
        let left = async || {
            let names = self.git.fleet.kubectl(&["get", "slicetopologies", "-o", "name"]).await?;
            Ok(names.trim() == "slicetopology.lamina.dev/kept")
        };
        self.git.fleet.wait("both topologies are gone", MINUTE, left).await?;
        ensure!(!self.git.is_active("passing").await?, "Remove: it is stopped");
        let units = self.git.fleet.host(HOST)?.run("ls /etc/systemd/system").await?;
        ensure!(!units.contains("passing"), "Remove: nothing of it is left: {units}");
        ensure!(life == self.git.life("steady").await?, "Retain: it runs on, and was not touched");
        Ok(())
    }

    /// Of all fields outside of the status, those that somebody other than Flux has written.
    async fn only_a_finalizer_is_ours(&self, name: &str) -> Result<()> {
        let writers = self.git.fleet.topology(name).await?.metadata.managed_fields.unwrap_or_default();
        let others = writers.into_iter().filter(|writer| writer.subresource.is_none());
        let others = others.filter(|writer| writer.manager.as_deref() != Some("kustomize-controller"));
        let fields: Vec<Value> = others.filter_map(|writer| Some(writer.fields_v1?.0)).collect();
        let paths: Vec<Vec<&String>> = fields
            .iter()
            .flat_map(|fields| fields.as_object().into_iter().flatten())
            .map(|(above, below)| {
                [above].into_iter().chain(below.as_object().into_iter().flat_map(|map| map.keys())).collect()
            })
            .collect();
        let is_ours = |path: &Vec<&String>| matches!(path.as_slice(), [above, below] if *above == "f:metadata" && *below == "f:finalizers");
        ensure!(!paths.is_empty() && paths.iter().all(is_ours), "only the finalizer is Lamina's: {paths:?}");
        Ok(())
    }

    async fn commit(&self, path: &str, object: &Value) -> Result<Commit> {
        let commit = self.git.commit(path, object).await?;
        self.flux.notify(FLEET).await?;
        Ok(commit)
    }

    async fn becomes_ready(&self, kept: Kept, path: &str, object: &Value) -> Result<Duration> {
        let commit = self.commit(path, object).await?;
        let (verdict, took) = self.flux.judged(kept, &commit, PATIENCE).await?;
        ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
        Ok(took)
    }

    async fn fails(&self, kept: Kept, path: &str, object: &Value) -> Result<(Verdict, Duration)> {
        let commit = self.commit(path, object).await?;
        let (verdict, took) = self.flux.judged(kept, &commit, PATIENCE).await?;
        ensure!(verdict.outcome == Outcome::Failed, "{verdict:?}");
        ensure!(took < SOON, "not after {} s", took.as_secs());
        Ok((verdict, took))
    }

    /// Flux has applied the commit and does not judge it.
    async fn stays_open(&self, commit: &Commit) -> Result<()> {
        self.flux.waits(TOPOLOGIES, commit).await?;
        tokio::time::sleep(A_WHILE).await;
        let told = self.flux.told(TOPOLOGIES, commit).await?;
        ensure!(told.is_none(), "it is still in progress: {told:?}");
        Ok(())
    }

    /// Topologies, hosts and Lamina's objects by name, with their versions.
    async fn versions(&self) -> Result<BTreeMap<String, String>> {
        let kinds = "slicetopologies,hoststates,crds,clusterroles,validatingadmissionpolicies,deployments,daemonsets";
        let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        let text = self.git.fleet.kubectl(&["get", kinds, "-A", "-o", path]).await?;
        let ours = text.lines().filter(|line| !line.contains("fluxcd.io")).filter_map(|line| line.split_once(' '));
        let versions: BTreeMap<String, String> =
            ours.map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
        for name in ["SliceTopology/steady", &format!("HostState/{HOST}")] {
            ensure!(versions.contains_key(name), "there is something to compare: {versions:?}");
        }
        Ok(versions)
    }

    async fn dump(&self) -> String {
        let get = ["get", "gitrepositories,kustomizations,helmreleases,helmcharts", "-A", "-o", "yaml"];
        let flux = self.git.fleet.kubectl(&get).await.unwrap_or_else(|error| format!("{error:#}"));
        format!("{flux}\n{}", self.git.fleet.dump().await)
    }
}

/// The same engine with the same settings for a ConfigMap, to compare with.
fn settings_kustomization() -> Result<String> {
    let object = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": { "name": SETTINGS.name, "namespace": SETTINGS.namespace },
        "spec": {
            "sourceRef": { "kind": "GitRepository", "name": FLEET.name },
            "path": "./settings", "interval": "10m", "retryInterval": "1m", "timeout": "10m", "wait": true, "prune": true,
        },
    });
    serde_json::to_string(&object).context("writing down a Kustomization")
}
