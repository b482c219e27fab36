//! A fleet that Argo CD keeps: what it shows of topologies and hosts is so, nothing stays out of sync, canaries go first,
//! and nothing is deleted before somebody has confirmed it.

#![expect(clippy::disallowed_methods, reason = "it tells Argo CD when somebody has confirmed, and waits with a limit")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lamina_e2e::cache::Cache;
use lamina_e2e::examples;
use lamina_e2e::fleet::example::{HOST, PATIENCE};
use lamina_e2e::fleet::waiting::MINUTE;
use lamina_e2e::gitops::GitFleet;
use lamina_e2e::gitops::argo::{Argo, Shown};
use lamina_e2e::gitops::repository::Commit;
use lamina_e2e::gitops::subject::{Times, config_map, topology, with};
use lamina_e2e::host::{Host, HostSpec};
use lamina_e2e::image::Suite;
use serde_json::{Value, json};

/// How long Argo CD may take to say that a commit is no good.
const SOON: Duration = Duration::from_secs(30);
/// Longer than Argo CD takes to do what it has decided to do.
const A_WHILE: Duration = Duration::from_secs(10);

const LAMINA: &str = "lamina";
const TOPOLOGIES: &str = "topologies";
const SETTINGS: &str = "settings";

const STEADY: &str = "topologies/steady.yaml";
const CONFIG: &str = "settings/settings.yaml";
const CANARY: &str = "topologies/canary.yaml";
const OTHERS: &str = "topologies/others.yaml";

#[tokio::test]
async fn what_argo_shows_is_so_and_nothing_stays_out_of_sync() -> Result<()> {
    let git = GitFleet::begin().await?;
    let argo = Argo::start(&git.fleet.control_plane, git.folder()).await?;
    let mut this = ArgoFleet { argo, git, times: Times::default() };
    match this.story().await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(this.dump().await)),
    }
}

/// A fleet, and Argo CD which keeps it. Argo CD ends first.
struct ArgoFleet {
    argo: Argo,
    git: GitFleet,
    times: Times,
}

impl ArgoFleet {
    async fn story(&mut self) -> Result<()> {
        self.an_empty_cluster_becomes_healthy().await?;
        self.a_good_commit_is_healthy().await?;
        self.a_bad_commit_is_degraded_and_a_better_one_recovers().await?;
        println!("\nfrom commit to what Argo CD shows:\n{}", self.times.told());
        self.every_health_is_shown().await?;
        self.hosts_are_judged_too().await?;
        self.nothing_differs_and_nothing_is_written().await?;
        self.drift_is_put_back().await?;
        self.canaries_go_first().await?;
        self.nothing_is_deleted_unconfirmed().await
    }

    /// Lamina and the first topology out of an empty cluster, from the manifests that users copy.
    async fn an_empty_cluster_becomes_healthy(&mut self) -> Result<()> {
        let git = &self.git;
        git.fleet
            .kubectl(&[
                "patch",
                "configmap",
                "argocd-cm",
                "-n",
                "argocd",
                "--patch-file",
                &GitFleet::path("argocd/health.yaml")?,
            ])
            .await?;
        git.write(STEADY, &topology("steady", 2))?;
        let commit = git.commit(CONFIG, &config_map(&json!("first"))).await?;
        git.fleet.apply(&git.manifest("argocd/lamina.yaml")?).await?;
        let installed =
            self.argo.shows(LAMINA, "Healthy", PATIENCE, |shown| shown.sync == "Synced" && shown.health == "Healthy");
        git.with_pods(installed).await?;
        println!("from an empty cluster to an installed chart: {:.1} s", commit.published.elapsed().as_secs_f64());
        git.fleet.wait_served().await?;
        git.fleet.apply(&git.manifest("argocd/topologies.yaml")?).await?;
        git.fleet.apply(&self.settings_application()?).await?;
        let early = self.argo.shows(TOPOLOGIES, "Progressing", MINUTE, |shown| shown.sync == "Synced").await?;
        let steady = early.object("SliceTopology/steady");
        ensure!(steady.health == "Progressing" && steady.message.contains("not looked"), "no operator yet: {steady:?}");
        self.git.populate().await?;
        self.argo.shows(TOPOLOGIES, "Healthy", PATIENCE, |shown| is_healthy(shown, &commit)).await?;
        ensure!(self.git.is_active("steady").await?, "its service runs");
        Ok(())
    }

    async fn a_good_commit_is_healthy(&mut self) -> Result<()> {
        let took = self.becomes_healthy(TOPOLOGIES, STEADY, &topology("steady", 3)).await?;
        self.times.add("topology, a slice grows on the host: Healthy", took);
        ensure!(self.git.cpus("steady").await? == 3, "Healthy is shown when it is so on the host");
        let took = self.becomes_healthy(SETTINGS, CONFIG, &config_map(&json!("second"))).await?;
        self.times.add("ConfigMap, a value changes: Healthy", took);
        Ok(())
    }

    async fn a_bad_commit_is_degraded_and_a_better_one_recovers(&mut self) -> Result<()> {
        // Legal, but no host has so many cores.
        let commit = self.commit(TOPOLOGIES, STEADY, &topology("steady", 64)).await?;
        let is_seen = |shown: &Shown| shown.revision == commit.id && shown.health == "Degraded";
        let shown = self.argo.shows(TOPOLOGIES, "Degraded", PATIENCE, is_seen).await?;
        self.soon("topology, no host can hold it: Degraded", &commit)?;
        let steady = shown.object("SliceTopology/steady");
        ensure!(steady.health == "Degraded" && steady.message.contains("only"), "it says why: {steady:?}");
        ensure!(self.git.is_active("steady").await? && self.git.cpus("steady").await? == 3, "what ran runs on");

        // Against a rule that the API server knows.
        let illegal = with(topology("steady", 2), "deletionPolicy", &json!("Forget"));
        let commit = self.commit(TOPOLOGIES, STEADY, &illegal).await?;
        let shown = self.argo.shows(TOPOLOGIES, "refused", PATIENCE, |shown| is_refused(shown, &commit)).await?;
        self.soon("topology, against the schema: sync failed", &commit)?;
        let why = shown.operation.refused.get("SliceTopology/steady").cloned().unwrap_or_default();
        ensure!(why.contains("deletionPolicy"), "it says why: {shown:?}");

        // Argo CD knows the kind itself, and refuses before the API server is asked.
        let commit = self.commit(SETTINGS, CONFIG, &config_map(&json!({ "no": "text" }))).await?;
        let is_seen = |shown: &Shown| shown.faults.iter().any(|fault| fault.contains(".data.value"));
        self.argo.shows(SETTINGS, "refused", PATIENCE, is_seen).await?;
        self.soon("ConfigMap, against the schema: comparison failed", &commit)?;
        let took = self.becomes_healthy(SETTINGS, CONFIG, &config_map(&json!("third"))).await?;
        self.times.add("ConfigMap, the commit that mends it: Healthy", took);
        let took = self.becomes_healthy(TOPOLOGIES, STEADY, &topology("steady", 2)).await?;
        self.times.add("topology, the commit that mends it: Healthy", took);
        Ok(())
    }

    /// One commit, a topology in each state.
    async fn every_health_is_shown(&self) -> Result<()> {
        let nobody = json!({ "matchLabels": { "lamina.dev/role": "nobody" } });
        self.git.write("topologies/nowhere.yaml", &with(topology("nowhere", 1), "hostSelector", &nobody))?;
        self.git.write("topologies/huge.yaml", &topology("huge", 64))?;
        self.git.write("topologies/fine.yaml", &topology("fine", 1))?;
        let commit = self.commit(TOPOLOGIES, STEADY, &with(topology("steady", 4), "paused", &json!(true))).await?;
        let expected = [
            ("fine", "Healthy", "1 of 1 host"),
            ("nowhere", "Progressing", "no host"),
            ("huge", "Degraded", "64 whole cores"),
            ("steady", "Suspended", "1 host waits"),
        ];
        let are_as_expected = |shown: &Shown| {
            shown.revision == commit.id
                && expected.iter().all(|(name, health, words)| {
                    let object = shown.object(&format!("SliceTopology/{name}"));
                    object.health == *health && object.message.contains(words) && object.sync == "Synced"
                })
        };
        let shown = self.argo.shows(TOPOLOGIES, "with every health", PATIENCE, are_as_expected).await?;
        ensure!(shown.health == "Degraded", "the worst of them: {shown:?}");
        for (name, _, _) in expected {
            let object = shown.object(&format!("SliceTopology/{name}"));
            println!("{name}: {}: {}", object.health, object.message);
        }
        ensure!(self.git.cpus("steady").await? == 2, "Suspended: the change is kept from the host");
        for name in ["nowhere", "huge", "fine"] {
            self.git.repository.remove(&format!("topologies/{name}.yaml"))?;
        }
        self.becomes_healthy(TOPOLOGIES, STEADY, &topology("steady", 2)).await.map(drop)
    }

    /// The objects of hosts are not kept in Git, so Argo CD's command line is asked.
    async fn hosts_are_judged_too(&self) -> Result<()> {
        self.host_becomes(HOST, "Healthy").await?;
        let expected = json!({
            "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState", "metadata": { "name": "host-9" }, "spec": {},
        });
        self.git.fleet.apply(&expected.to_string()).await?;
        self.host_becomes("host-9", "Progressing").await?;
        self.git.fleet.kubectl(&["delete", "hoststate", "host-9"]).await?;

        // Somebody else's unit of the name that a topology wants.
        let foreign = "/etc/systemd/system/taken-sleeper.service";
        let unit = b"[Service]\nExecStart=/usr/bin/sleep infinity\n".to_vec();
        self.git.fleet.host(HOST)?.put(foreign, 0o644, unit).await?;
        let commit = self.commit(TOPOLOGIES, "topologies/taken.yaml", &topology("taken", 1)).await?;
        let is_seen =
            |shown: &Shown| shown.revision == commit.id && shown.object("SliceTopology/taken").health == "Degraded";
        self.argo.shows(TOPOLOGIES, "Degraded", PATIENCE, is_seen).await?;
        self.host_becomes(HOST, "Degraded").await?;
        self.git.fleet.host(HOST)?.run(&format!("rm {foreign}")).await?;
        self.git.repository.remove("topologies/taken.yaml")?;
        self.becomes_healthy(TOPOLOGIES, STEADY, &topology("steady", 2)).await?;
        self.host_becomes(HOST, "Healthy").await
    }

    async fn host_becomes(&self, name: &str, health: &str) -> Result<()> {
        let begin = Instant::now();
        loop {
            let object = self.git.fleet.kubectl(&["get", "hoststate", name, "-o", "json"]).await?;
            let (shown, message) = self.argo.health_of(&object).await?;
            if shown == health {
                println!("HostState {name}: {shown}: {message}");
                return Ok(());
            }
            ensure!(begin.elapsed() < MINUTE, "HostState {name} is {shown} ({message}), not {health}");
        }
    }

    /// However Argo CD compares and applies, what is as asked is Synced, stays so, and is left alone to the last version.
    async fn nothing_differs_and_nothing_is_written(&self) -> Result<()> {
        self.git.repository.write("topologies/every-field.yaml", &examples::read("every-field.yaml")?)?;
        let mut cores = 2;
        for (compares, applies) in [("true", "true"), ("true", "false"), ("false", "true"), ("false", "false")] {
            self.argo
                .annotate(TOPOLOGIES, "argocd.argoproj.io/compare-options", &format!("ServerSideDiff={compares}"))
                .await?;
            let options = json!([format!("ServerSideApply={applies}"), "SkipDryRunOnMissingResource=true"]);
            self.argo.patch(TOPOLOGIES, &json!({ "spec": { "syncPolicy": { "syncOptions": options } } })).await?;
            cores = 5 - cores;
            let commit = self.commit(TOPOLOGIES, STEADY, &topology("steady", cores)).await?;
            let is_done = |shown: &Shown| {
                let steady = shown.object("SliceTopology/steady");
                is_synced(shown, &commit) && steady.health == "Healthy" && shown.operation.phase == "Succeeded"
            };
            let way = format!("Synced with ServerSideDiff={compares}, ServerSideApply={applies}");
            let shown = self.argo.shows(TOPOLOGIES, &way, PATIENCE, is_done).await?;
            let before = self.versions().await?;
            for _ in 0..3 {
                self.argo.look_anew(TOPOLOGIES).await?;
                let now = self.argo.shown(TOPOLOGIES).await?;
                ensure!(is_synced(&now, &commit), "{way}: {now:?}");
                ensure!(now.operation == shown.operation, "{way}: nothing was to be done: {now:?}");
            }
            let after = self.versions().await?;
            ensure!(before == after, "{way}: nothing was to be written: {before:?}, then {after:?}");
        }
        self.argo.look_anew(LAMINA).await?;
        let lamina = self.argo.shown(LAMINA).await?;
        ensure!(lamina.sync == "Synced", "the chart's objects, too: {lamina:?}");
        self.git.repository.remove("topologies/every-field.yaml")?;
        self.git.fleet.apply(&self.git.manifest("argocd/topologies.yaml")?).await?;
        self.becomes_healthy(TOPOLOGIES, STEADY, &topology("steady", 2)).await.map(drop)
    }

    async fn drift_is_put_back(&self) -> Result<()> {
        let fleet = &self.git.fleet;
        let patch = json!({ "spec": { "slices": [{ "name": "only", "cpu": { "cores": 5 } }] } }).to_string();
        fleet.kubectl(&["patch", "slicetopology", "steady", "--type=merge", "-p", &patch]).await?;
        let is_back = async || {
            let path = "jsonpath={.spec.slices[0].cpu.cores}";
            let cores = fleet.kubectl(&["get", "slicetopology", "steady", "-o", path]).await?;
            Ok(cores == "2" && self.git.cpus("steady").await? == 2)
        };
        fleet.wait("Argo CD puts back what kubectl changed", MINUTE, is_back).await
    }

    /// The example with waves, word for word, on two hosts; then a change that is too large for any host.
    async fn canaries_go_first(&mut self) -> Result<()> {
        let spec = HostSpec::twenty("host-2", Suite::Bookworm);
        self.git.fleet.add_host(&Cache::open()?, spec, &[("lamina.dev/role", "orchestrator")]).await?;
        self.git.fleet.kubectl(&["label", "node", HOST, "lamina.dev/canary=true"]).await?;
        self.git.repository.remove(STEADY)?;
        let (canary, others) =
            (self.git.manifest("argocd/topologies/canary.yaml")?, self.git.manifest("argocd/topologies/others.yaml")?);
        self.waves_become_healthy(&canary, &others).await?;
        self.wave_has(HOST, "router_canary", 4).await?;
        self.wave_has("host-2", "router", 4).await?;

        let grown = |text: &str, cores: &str| text.replace("cores: 4", cores);
        let commit = self.commit_waves(&grown(&canary, "cores: 64"), &grown(&others, "cores: 6")).await?;
        let has_failed = |shown: &Shown| {
            shown.operation.revision == commit.id && shown.object("SliceTopology/router-canary").health == "Degraded"
        };
        let shown = self.argo.shows(TOPOLOGIES, "stopped at the canary", PATIENCE, has_failed).await?;
        tokio::time::sleep(A_WHILE).await;
        let cores = self.cores("router").await?;
        ensure!(cores == "4", "the others stay as they are: {cores} cores, {shown:?}");
        self.wave_has(HOST, "router_canary", 4).await?;

        self.waves_become_healthy(&grown(&canary, "cores: 6"), &grown(&others, "cores: 6")).await?;
        self.wave_has(HOST, "router_canary", 6).await?;
        self.wave_has("host-2", "router", 6).await
    }

    async fn commit_waves(&self, canary: &str, others: &str) -> Result<Commit> {
        self.git.repository.write(CANARY, canary)?;
        self.git.repository.write(OTHERS, others)?;
        let commit = self.git.repository.commit("routers").await?;
        self.argo.notify(TOPOLOGIES).await?;
        Ok(commit)
    }

    async fn waves_become_healthy(&self, canary: &str, others: &str) -> Result<()> {
        let commit = self.commit_waves(canary, others).await?;
        self.argo.shows(TOPOLOGIES, "Healthy", PATIENCE, |shown| is_healthy(shown, &commit)).await.map(drop)
    }

    async fn wave_has(&self, host: &str, stem: &str, cpus: usize) -> Result<()> {
        let file = format!("/sys/fs/cgroup/{stem}.slice/{stem}-control.slice/cpuset.cpus.effective");
        let told = self.git.fleet.host(host)?.run(&format!("cat {file}")).await?;
        let set: lamina_crds::CpuSet = told.trim().parse().with_context(|| format!("understanding `{told}`"))?;
        ensure!(set.len() == cpus, "{host}: {file} is `{told}`");
        Ok(())
    }

    /// A topology whose file is gone, and then the whole application.
    async fn nothing_is_deleted_unconfirmed(&self) -> Result<()> {
        self.git.repository.remove(OTHERS)?;
        self.git.repository.commit("the others go").await?;
        self.argo.notify(TOPOLOGIES).await?;
        let asks = |shown: &Shown| shown.operation.message.contains("pruning confirmation");
        let shown = self.argo.shows(TOPOLOGIES, "waiting for a confirmation", MINUTE, asks).await?;
        println!("Argo CD: {}", shown.operation.message);
        tokio::time::sleep(A_WHILE).await;
        ensure!(self.cores("router").await? == "6", "nobody has confirmed it");
        self.confirm().await?;
        self.is_gone("router").await?;
        // In the second of that confirmation, a deletion would count as confirmed, too.
        tokio::time::sleep(Duration::from_secs(2)).await;

        let finalizer = json!({ "metadata": { "finalizers": ["resources-finalizer.argocd.argoproj.io"] } });
        self.argo.patch(TOPOLOGIES, &finalizer).await?;
        self.git.fleet.kubectl(&["delete", "application", TOPOLOGIES, "-n", "argocd", "--wait=false"]).await?;
        tokio::time::sleep(A_WHILE).await;
        ensure!(self.cores("router-canary").await? == "6", "nobody has confirmed it");
        self.confirm().await?;
        self.is_gone("router-canary").await?;
        self.wave_has(HOST, "router_canary", 6).await.context("Retain: what a deleted topology has started runs on")
    }

    /// What the button in Argo CD's pages does.
    async fn confirm(&self) -> Result<()> {
        // It must be later than what it confirms, in whole seconds.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = jiff::Timestamp::now();
        self.argo
            .annotate(
                TOPOLOGIES,
                "argocd.argoproj.io/deletion-approved",
                &now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            )
            .await
    }

    async fn is_gone(&self, name: &str) -> Result<()> {
        let gone = async || {
            let names = self.git.fleet.kubectl(&["get", "slicetopologies", "-o", "name"]).await?;
            Ok(!names.lines().any(|line| line == format!("slicetopology.lamina.dev/{name}")))
        };
        self.git.fleet.wait(&format!("{name} is gone"), MINUTE, gone).await
    }

    async fn cores(&self, name: &str) -> Result<String> {
        self.git.fleet.kubectl(&["get", "slicetopology", name, "-o", "jsonpath={.spec.slices[0].cpu.cores}"]).await
    }

    async fn commit(&self, application: &str, path: &str, object: &Value) -> Result<Commit> {
        let commit = self.git.commit(path, object).await?;
        self.argo.notify(application).await?;
        Ok(commit)
    }

    async fn becomes_healthy(&self, application: &str, path: &str, object: &Value) -> Result<Duration> {
        let commit = self.commit(application, path, object).await?;
        self.argo.shows(application, "Healthy", PATIENCE, |shown| is_healthy(shown, &commit)).await?;
        Ok(commit.published.elapsed())
    }

    fn soon(&mut self, what: &'static str, commit: &Commit) -> Result<()> {
        let took = commit.published.elapsed();
        ensure!(took < SOON, "{what}: not after {} s", took.as_secs());
        self.times.add(what, took);
        Ok(())
    }

    /// Topologies and hosts by name, with their versions.
    async fn versions(&self) -> Result<BTreeMap<String, String>> {
        let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        let text = self.git.fleet.kubectl(&["get", "slicetopologies,hoststates", "-o", path]).await?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        let versions: BTreeMap<String, String> =
            pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
        for name in ["SliceTopology/every-field", "SliceTopology/steady", &format!("HostState/{HOST}")] {
            ensure!(versions.contains_key(name), "there is something to compare: {versions:?}");
        }
        Ok(versions)
    }

    /// The same engine with the same settings for a ConfigMap, to compare with.
    fn settings_application(&self) -> Result<String> {
        let text = self.git.manifest("argocd/topologies.yaml")?;
        Ok(text.replace("path: topologies", "path: settings").replace("name: topologies", &format!("name: {SETTINGS}")))
    }

    async fn dump(&self) -> String {
        let applications = self.git.fleet.kubectl(&["get", "applications", "-A", "-o", "yaml"]).await;
        let applications = applications.unwrap_or_else(|error| format!("{error:#}"));
        format!("{applications}\n{}", self.git.fleet.dump().await)
    }
}

fn is_synced(shown: &Shown, commit: &Commit) -> bool {
    shown.sync == "Synced" && shown.revision == commit.id
}

fn is_healthy(shown: &Shown, commit: &Commit) -> bool {
    is_synced(shown, commit) && shown.health == "Healthy"
}

fn is_refused(shown: &Shown, commit: &Commit) -> bool {
    shown.operation.revision == commit.id && !shown.operation.refused.is_empty()
}
