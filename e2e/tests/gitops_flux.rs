//! A fleet that Flux keeps: Lamina by HelmRelease, topologies by a Kustomization that waits. Whoever commits is told within
//! seconds whether every host is as asked, or why not.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lamina_e2e::control_plane::ControlPlane;
use lamina_e2e::fleet::example::{HOST, PATIENCE};
use lamina_e2e::fleet::waiting::MINUTE;
use lamina_e2e::gitops::GitFleet;
use lamina_e2e::gitops::flux::{self, Flux, Outcome, Verdict};
use lamina_e2e::host::Host;
use serde_json::{Value, json};

/// How long Flux may take to say that a commit is no good. The Kustomization would give up by itself after ten minutes.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_is_committed_is_so_on_the_hosts_or_refused_at_once() -> Result<()> {
    let mut this = GitFleet::begin().await?;
    let _flux = Flux::start(&this.fleet.control_plane, this.folder()).await?;
    let told = story(&mut this).await;
    match told {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(dump(&this).await)),
    }
}

async fn story(this: &mut GitFleet) -> Result<()> {
    from_git_to_ready(this).await?;
    let mut times = Times::default();
    a_good_commit_is_ready(this, &mut times).await?;
    a_bad_commit_fails_and_a_better_one_recovers(this, &mut times).await?;
    println!("\nfrom commit to verdict:\n{}", times.told());
    nothing_is_written_without_a_reason(this).await?;
    drift_is_put_back(this).await?;
    pruning_obeys_the_deletion_policy(this).await
}

/// Lamina and the first topology out of an empty cluster, from the manifests that users copy.
async fn from_git_to_ready(this: &mut GitFleet) -> Result<()> {
    this.repository.write("lamina/release.yaml", &this.manifest("flux/lamina/release.yaml")?)?;
    this.repository.write("topologies/steady.yaml", &topology("steady", "Retain", 2))?;
    this.repository.write("config/settings.yaml", &config_map(&json!("first")))?;
    let commit = this.repository.commit("a fleet").await?;
    this.fleet.apply(&this.manifest("flux/fleet.yaml")?).await?;
    this.fleet.apply(&config_kustomization()).await?;
    let installed = flux::judged(plane(this), "lamina", &commit, PATIENCE);
    let (verdict, took) = this.with_pods(installed).await?;
    ensure!(verdict.outcome == Outcome::Ready, "Lamina is installed: {verdict:?}");
    println!("from an empty cluster to an installed chart: {:.1} s", took.as_secs_f64());
    this.fleet.wait_served().await?;
    this.populate().await?;
    let (verdict, took) = flux::judged(plane(this), "topologies", &commit, PATIENCE).await?;
    ensure!(verdict.outcome == Outcome::Ready, "the topology is Ready: {verdict:?}");
    println!("with host and operator, the topology is Ready after {:.1} s", took.as_secs_f64());
    ensure!(active(this, "steady").await?, "its service runs");
    Ok(())
}

async fn a_good_commit_is_ready(this: &GitFleet, times: &mut Times) -> Result<()> {
    let cores = commit(this, "topologies/steady.yaml", &topology("steady", "Retain", 3)).await?;
    let (verdict, took) = judged(this, "topologies", &cores).await?;
    ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
    times.add("topology, a slice grows on the host: Ready", took);
    let cpus = this.fleet.host(HOST)?.run("cat /sys/fs/cgroup/steady.slice/steady-only.slice/cpuset.cpus.effective");
    ensure!(cpus.await?.trim() == "0-2", "Ready is said when it is so on the host");

    let value = commit(this, "config/settings.yaml", &config_map(&json!("second"))).await?;
    let (verdict, took) = judged(this, "config", &value).await?;
    ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
    times.add("ConfigMap, a value changes: Ready", took);
    Ok(())
}

async fn a_bad_commit_fails_and_a_better_one_recovers(this: &GitFleet, times: &mut Times) -> Result<()> {
    // Legal, but no host has so many cores.
    let too_many = commit(this, "topologies/steady.yaml", &topology("steady", "Retain", 64)).await?;
    let (verdict, took) = judged(this, "topologies", &too_many).await?;
    ensure!(verdict.outcome == Outcome::Failed && verdict.reason == "HealthCheckFailed", "{verdict:?}");
    ensure!(verdict.message.contains("SliceTopology/steady"), "it says what failed: {verdict:?}");
    ensure!(took < SOON, "not after {} s", took.as_secs());
    times.add("topology, no host can hold it: failed", took);
    ensure!(active(this, "steady").await?, "what ran runs on");

    // Against a rule that the API server knows.
    let illegal = topology("steady", "Retain", 2).replace("Retain", "Forget");
    let illegal = commit(this, "topologies/steady.yaml", &illegal).await?;
    let (verdict, took) = judged(this, "topologies", &illegal).await?;
    ensure!(verdict.outcome == Outcome::Failed && verdict.message.contains("deletionPolicy"), "{verdict:?}");
    ensure!(took < SOON, "not after {} s", took.as_secs());
    times.add("topology, against the schema: failed", took);

    let wrong = commit(this, "config/settings.yaml", &config_map(&json!({ "no": "text" }))).await?;
    let (verdict, took) = judged(this, "config", &wrong).await?;
    ensure!(verdict.outcome == Outcome::Failed, "{verdict:?}");
    times.add("ConfigMap, against the schema: failed", took);
    commit(this, "config/settings.yaml", &config_map(&json!("third"))).await?;

    let better = commit(this, "topologies/steady.yaml", &topology("steady", "Retain", 2)).await?;
    let (verdict, took) = judged(this, "topologies", &better).await?;
    ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
    times.add("topology, the commit that mends it: Ready", took);
    Ok(())
}

/// Passes of Flux over what is as asked leave every object as it was, to the last version.
async fn nothing_is_written_without_a_reason(this: &GitFleet) -> Result<()> {
    let before = versions(this).await?;
    for _ in 0..3 {
        let verdict = flux::reconcile(plane(this), "topologies").await?;
        ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
        flux::reconcile(plane(this), "lamina").await?;
    }
    let after = versions(this).await?;
    ensure!(before == after, "nothing was to be done: {before:?}, then {after:?}");
    let writers = this.fleet.topology("steady").await?.metadata.managed_fields.unwrap_or_default();
    let of_spec =
        writers.iter().filter(|writer| writer.subresource.is_none()).filter_map(|writer| writer.manager.clone());
    let of_spec: Vec<String> = of_spec.collect();
    ensure!(of_spec == ["kustomize-controller"], "nobody else writes spec and metadata: {of_spec:?}");
    let history = this.fleet.kubectl(&["get", "helmrelease", "lamina", "-n", "lamina-system", "-o", "json"]).await?;
    let release: Value = serde_json::from_str(&history).context("reading a HelmRelease")?;
    let history = release["status"]["history"].as_array().map_or(0, Vec::len);
    ensure!(history == 1, "the chart was installed once and never again: {}", release["status"]);
    Ok(())
}

async fn drift_is_put_back(this: &GitFleet) -> Result<()> {
    let patch = json!({ "spec": { "slices": [{ "name": "only", "cpu": { "cores": 5 } }] } }).to_string();
    this.fleet.kubectl(&["patch", "slicetopology", "steady", "--type=merge", "-p", &patch]).await?;
    let verdict = flux::reconcile(plane(this), "topologies").await?;
    ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
    let cores = this.fleet.kubectl(&["get", "slicetopology", "steady", "-o", "jsonpath={.spec.slices[0].cpu.cores}"]);
    ensure!(cores.await? == "2", "Flux has put back what kubectl changed");
    Ok(())
}

async fn pruning_obeys_the_deletion_policy(this: &GitFleet) -> Result<()> {
    let both = commit(this, "topologies/passing.yaml", &topology("passing", "Remove", 2)).await?;
    let (verdict, _) = judged(this, "topologies", &both).await?;
    ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
    ensure!(active(this, "passing").await?, "its service runs");
    let life = life(this, "steady").await?;

    this.repository.remove("topologies/passing.yaml")?;
    this.repository.remove("topologies/steady.yaml")?;
    this.repository.write("topologies/kept.yaml", &topology("kept", "Retain", 1))?;
    let neither = this.repository.commit("two topologies go").await?;
    flux::notify(plane(this), "fleet").await?;
    let (verdict, _) = judged(this, "topologies", &neither).await?;
    ensure!(verdict.outcome == Outcome::Ready, "{verdict:?}");
    let left = async || {
        let names = this.fleet.kubectl(&["get", "slicetopologies", "-o", "name"]).await?;
        Ok(names.trim() == "slicetopology.lamina.dev/kept")
    };
    this.fleet.wait("both topologies are gone", MINUTE, left).await?;
    ensure!(!active(this, "passing").await?, "Remove: it is stopped");
    let units = this.fleet.host(HOST)?.run("ls /etc/systemd/system").await?;
    ensure!(!units.contains("passing"), "Remove: nothing of it is left: {units}");
    ensure!(life == self::life(this, "steady").await?, "Retain: it runs on, and was not touched");
    Ok(())
}

/// Topologies, hosts and Lamina's objects by name, with their versions.
async fn versions(this: &GitFleet) -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    for kinds in ["slicetopologies,hoststates,crds", "clusterroles,validatingadmissionpolicies"] {
        let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        let text = this.fleet.kubectl(&["get", kinds, "-o", path]).await?;
        let ours = text.lines().filter(|line| !line.contains("fluxcd.io"));
        versions.extend(
            ours.filter_map(|line| line.split_once(' ')).map(|(name, version)| (name.to_owned(), version.to_owned())),
        );
    }
    ensure!(versions.keys().any(|name| name == "SliceTopology/steady"), "there is something to compare: {versions:?}");
    Ok(versions)
}

async fn commit(this: &GitFleet, path: &str, content: &str) -> Result<String> {
    this.repository.write(path, content)?;
    let commit = this.repository.commit(path).await?;
    flux::notify(plane(this), "fleet").await?;
    Ok(commit)
}

async fn judged(this: &GitFleet, kustomization: &str, commit: &str) -> Result<(Verdict, Duration)> {
    flux::judged(plane(this), kustomization, commit, PATIENCE).await
}

fn plane(this: &GitFleet) -> &ControlPlane {
    &this.fleet.control_plane
}

async fn active(this: &GitFleet, topology: &str) -> Result<bool> {
    let script = format!("systemctl is-active {topology}-sleeper.service || true");
    Ok(this.fleet.host(HOST)?.run(&script).await?.trim() == "active")
}

async fn life(this: &GitFleet, topology: &str) -> Result<String> {
    let script = format!("systemctl show -p MainPID,InvocationID,ActiveState {topology}-sleeper.service");
    this.fleet.host(HOST)?.run(&script).await
}

/// A topology of one slice with one service.
fn topology(name: &str, deletion_policy: &str, cores: u32) -> String {
    json!({
        "apiVersion": "lamina.dev/v1alpha1",
        "kind": "SliceTopology",
        "metadata": { "name": name },
        "spec": {
            "hostSelector": { "matchLabels": { "lamina.dev/role": "orchestrator" } },
            "deletionPolicy": deletion_policy,
            "slices": [{ "name": "only", "cpu": { "cores": cores } }],
            "services": [{
                "name": "sleeper", "slice": "only", "user": "orchestrator", "command": ["/usr/bin/sleep", "infinity"],
            }],
        },
    })
    .to_string()
}

fn config_map(value: &Value) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "settings", "namespace": "default" },
        "data": { "value": value },
    })
    .to_string()
}

/// The same engine with the same settings for a ConfigMap, to compare with.
fn config_kustomization() -> String {
    json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": { "name": "config", "namespace": "flux-system" },
        "spec": {
            "sourceRef": { "kind": "GitRepository", "name": "fleet" },
            "path": "./config", "interval": "10m", "retryInterval": "1m", "timeout": "10m", "wait": true, "prune": true,
        },
    })
    .to_string()
}

/// What took how long.
#[derive(Default)]
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    fn add(&mut self, what: &'static str, took: Duration) {
        self.0.push((what, took));
    }

    fn told(&self) -> String {
        self.0.iter().map(|(what, took)| format!("{:>6.1} s  {what}\n", took.as_secs_f64())).collect()
    }
}

async fn dump(this: &GitFleet) -> String {
    let get = ["get", "gitrepositories,kustomizations,helmreleases,helmcharts", "-A", "-o", "yaml"];
    let flux = this.fleet.kubectl(&get).await.unwrap_or_else(|error| format!("{error:#}"));
    format!("{flux}\n{}", this.fleet.dump().await)
}
