//! What `kubectl lamina verify` and `top` say of a real host is what the host's own tools say in the same second:
//! systemctl, taskset, numastat. On the host itself, and of its agent by way of the API server.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use lamina_e2e::fleet::example::{self, Example, HOST, PATIENCE, SERVICES, TOPOLOGY};
use lamina_e2e::fleet::{NAMESPACE, waiting};
use lamina_e2e::host::machine::AGENT_PORT;
use lamina_e2e::host::{Host, HostSpec};
use lamina_e2e::identity::Identity;
use lamina_e2e::image::Suite;
use lamina_e2e::port::free_port;
use lamina_e2e::program::built;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const PLUGIN: &str = "/usr/local/bin/kubectl-lamina";
/// What an idle service allocates or frees between two looks, and pages that it maps and somebody else was charged for.
const MEMORY_TOLERANCE: u64 = 16 << 20;
/// Two windows of two seconds on an emulated machine do not begin and end together.
const CPU_TOLERANCE: f64 = 0.3;

#[tokio::test]
async fn verify_and_top_agree_with_the_tools_of_a_host_of_systemd_252() -> Result<()> {
    agree_with_tools(Suite::Bookworm).await
}

#[tokio::test]
async fn verify_and_top_agree_with_the_tools_of_a_host_of_systemd_257() -> Result<()> {
    agree_with_tools(Suite::Trixie).await
}

async fn agree_with_tools(suite: Suite) -> Result<()> {
    let example = Example::ready(suite).await?;
    example.host()?.install("kubectl-lamina", PLUGIN).await?;
    let verified = here(&example, "verify", 0).await?;
    places_are_those_of_systemctl(&example, &verified).await?;
    threads_are_those_of_taskset(&example, &verified).await?;
    memory_is_where_numastat_finds_it(&example).await?;
    use_is_what_systemctl_counts(&example).await?;
    a_hand_on_the_host_is_told(&example).await
}

/// The answer of a verb on the host itself, and how it ended.
async fn here(example: &Example, verb: &str, code: i64) -> Result<Value> {
    let said = example.host()?.exec(&format!("{PLUGIN} {verb} -o json"), PATIENCE).await?;
    ensure!(said.code == code, "{verb} ended with {} and not {code}: {}{}", said.code, said.stderr, said.stdout);
    serde_json::from_str(&said.stdout).with_context(|| format!("{verb} answers {}", said.stdout))
}

fn measured(answer: &Value) -> Result<&Value> {
    answer["measured"].get(0).with_context(|| format!("nothing is measured: {answer}"))
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    value[name].as_array().with_context(|| format!("there is no {name} in {value}"))
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("there is no {name} in {value}"))
}

async fn places_are_those_of_systemctl(example: &Example, answer: &Value) -> Result<()> {
    ensure!(answer["verdict"] == "AsAsked" && answer["source"] == "Here", "{answer}");
    let slices = list(measured(answer)?, "slices")?;
    ensure!(slices.len() == 3, "three slices are asked for: {answer}");
    for slice in slices {
        let unit = text(slice, "unit")?;
        for (layer, place) in [("AllowedCPUs", &slice["cpus"]), ("AllowedMemoryNodes", &slice["memoryNodes"])] {
            let shown = example.on_host(&format!("systemctl show -p {layer} --value {unit}")).await?;
            // systemctl parts numbers by blanks, the kernel by commas.
            ensure!(place["property"] == shown.trim().replace(' ', ","), "{unit} {layer}: {shown}, not {place}");
            ensure!(place["kernel"] == place["asked"], "{place}");
        }
    }
    Ok(())
}

/// Every thread of every service is where taskset finds it.
async fn threads_are_those_of_taskset(example: &Example, answer: &Value) -> Result<()> {
    let services = list(measured(answer)?, "services")?;
    ensure!(services.len() == SERVICES.len(), "{answer}");
    for service in services {
        let unit = text(service, "unit")?;
        let script = format!("taskset --all-tasks --cpu-list --pid $(systemctl show -p MainPID --value {unit})");
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for line in example.on_host(&script).await?.lines() {
            let (_, place) = line.rsplit_once(": ").with_context(|| format!("taskset says {line}"))?;
            *found.entry(place.trim().to_owned()).or_default() += 1;
        }
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        for group in list(service, "groups")? {
            *told.entry(text(group, "cpus")?.to_owned()).or_default() += group["count"].as_u64().context("a count")?;
        }
        ensure!(told == found, "{unit}: taskset finds {found:?}, told is {told:?}");
        ensure!(service["threads"].as_u64() == Some(found.values().sum()), "{service}");
    }
    Ok(())
}

async fn memory_is_where_numastat_finds_it(example: &Example) -> Result<()> {
    for (service, node) in [("api", 0usize), ("runner", 1)] {
        example.ask(service, "allocate 64").await?;
        let unit = format!("{TOPOLOGY}-{service}.service");
        let answer = here(example, "verify", 0).await?;
        let told = list(measured(&answer)?, "services")?.iter().find(|told| told["unit"] == unit.as_str());
        let pages = &told.with_context(|| format!("{unit} is not told of"))?["pages"];
        let shown = example.on_host(&format!("numastat -p $(systemctl show -p MainPID --value {unit})")).await?;
        let total =
            shown.lines().rfind(|line| line.starts_with("Total")).with_context(|| format!("numastat: {shown}"))?;
        let numbers: Vec<f64> = total.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        for other in 0..2usize {
            let found = (numbers.get(other).with_context(|| format!("numastat: {shown}"))? * f64::from(1 << 20)) as u64;
            let told = pages[other.to_string()].as_u64().unwrap_or_default();
            ensure!(told.abs_diff(found) <= MEMORY_TOLERANCE, "{unit}, node {other}: {told} is told, {shown}");
        }
        let own = pages[node.to_string()].as_u64().unwrap_or_default();
        ensure!(own >= 64 << 20, "{unit}: 64 MiB were allocated, {pages}");
    }
    Ok(())
}

/// CPUs that are kept busy, memory and tasks: as systemd counts them over the same time.
async fn use_is_what_systemctl_counts(example: &Example) -> Result<()> {
    let unit = format!("{TOPOLOGY}-api.service");
    let count = format!("systemctl show -p CPUUsageNSec --value {unit}");
    let script = format!(
        "for t in 1 2; do /opt/{TOPOLOGY}/bin/api ask spin 8 >/dev/null & done; sleep 1\n\
         before=$({count}); begin=$(date +%s%N)\n\
         answer=$({PLUGIN} top -o json)\n\
         after=$({count}); end=$(date +%s%N)\n\
         echo $before $after $begin $end $(systemctl show -p MemoryCurrent -p TasksCurrent --value {unit})\n\
         echo \"$answer\"; wait"
    );
    let said = example.on_host(&script).await?;
    let (numbers, answer) = said.split_once('\n').context("numbers and an answer")?;
    let numbers: Vec<u64> =
        numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(numbers.to_owned())?;
    let [before, after, begin, end, memory, tasks] = numbers[..] else { bail!("systemctl says {numbers:?}") };
    let answer: Value = serde_json::from_str(answer).with_context(|| answer.to_owned())?;
    let units = list(&answer, "units")?;
    ensure!(units.len() == 11, "three slices and eight services: {answer}");
    let told = units.iter().find(|told| told["unit"] == unit.as_str()).context("the service is told of")?;
    let busy = told["busyCpus"].as_f64().with_context(|| format!("{told}"))?;
    let counted = (after - before) as f64 / (end - begin) as f64;
    ensure!((busy - counted).abs() <= CPU_TOLERANCE && busy > 0.5, "systemd counts {counted} CPUs, told is {busy}");
    let bytes = told["memory"].as_u64().context("memory")?;
    ensure!(bytes.abs_diff(memory) <= MEMORY_TOLERANCE, "systemd counts {memory} bytes, told is {bytes}");
    ensure!(told["tasks"].as_u64().is_some_and(|told| told.abs_diff(tasks) <= 2), "systemd counts {tasks}: {told}");
    ensure!(told["cpus"] == "0-7", "{told}");
    Ok(())
}

/// With nobody there to put it right, what somebody changed is told, and the exit code says so.
async fn a_hand_on_the_host_is_told(example: &Example) -> Result<()> {
    example.fleet.stop_agent(HOST).await?;
    example.on_host(&format!("echo 0-9 > {}/cpuset.cpus", Example::cgroup_of("control"))).await?;
    let answer = here(example, "verify", 2).await?;
    let slices = list(&answer, "slices")?;
    ensure!(answer["verdict"] == "Differs" && slices[0]["cpus"]["kernel"] == "0-9", "{answer}");
    ensure!(slices[0]["threads"]["outside"].as_u64().is_some_and(|outside| outside > 0), "{answer}");
    let said = example.host()?.exec(&format!("{PLUGIN} verify"), PATIENCE).await?;
    ensure!(said.code == 2 && said.stdout.contains("0-7       0-9"), "{}", said.stdout);
    example.fleet.start_agent(HOST).await?;
    let healed = async || Ok(example.host()?.exec(&format!("{PLUGIN} verify"), PATIENCE).await?.code == 0);
    waiting::until("the host is as asked again", waiting::MINUTE, healed).await.map(drop)
}

#[tokio::test]
async fn a_cluster_tells_how_a_host_is_now_and_what_was_said_last() -> Result<()> {
    let port = free_port()?;
    let example =
        Example::up_on(HostSpec { agent_port: Some(port), ..HostSpec::twenty(HOST, Suite::Bookworm) }).await?;
    example.fleet.apply(&example::text()?).await?;
    example.fleet.wait_ready(TOPOLOGY, PATIENCE).await?;
    let seen = Seen { example };
    seen.status_says_that_all_is_well().await?;
    let _way = seen.pave(port).await?;
    seen.the_agent_measures().await?;
    seen.rights_are_needed().await?;
    seen.probes_are_answered_while_many_ask().await?;
    seen.what_was_said_last_is_told_when_nobody_answers().await
}

struct Seen {
    example: Example,
}

impl Seen {
    /// Whoever asks again and again is told the same for a second or sent away; a probe gets its answer meanwhile.
    async fn probes_are_answered_while_many_ask(&self) -> Result<()> {
        let told = self.example.on_host(MANY_ASK).await?;
        let mut lines = told.lines().filter_map(|line| line.trim().split_once(' '));
        let (took, probe) = lines.next().with_context(|| told.clone())?;
        let took: u64 = took.parse().with_context(|| told.clone())?;
        ensure!(probe == "200" && took < 5000, "the probe took {took} ms: {told}");
        let mut codes = BTreeMap::new();
        for (count, code) in lines {
            codes.insert(code.trim(), count.parse::<u32>().with_context(|| told.clone())?);
        }
        let is_known = codes.keys().all(|code| ["200", "429"].contains(code)) && codes.contains_key("200");
        ensure!(is_known && codes.values().sum::<u32>() == 24, "{told}");
        Ok(())
    }

    /// The plugin as somebody runs it beside this cluster.
    async fn plugin(&self, words: &[&str]) -> Result<(i32, String, String)> {
        let plane = &self.example.fleet.control_plane;
        let folder = plane.kubectl_path().parent().context("kubectl lies in a folder")?;
        let path = format!("{}:/usr/bin:/bin", folder.display());
        let mut command = Command::new(built("kubectl-lamina")?);
        command.args(words).arg("--kubeconfig").arg(plane.kubeconfig_admin()).env("PATH", path).kill_on_drop(true);
        let output = command.output().await.context("running the plugin")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
    }

    async fn json(&self, words: &[&str]) -> Result<(i32, Value)> {
        let (code, output, errors) = self.plugin(&[words, &["-o", "json"]].concat()).await?;
        let answer = serde_json::from_str(&output).with_context(|| format!("{words:?}: {code}: {errors}{output}"))?;
        Ok((code, answer))
    }

    async fn status_says_that_all_is_well(&self) -> Result<()> {
        let (code, output, errors) = self.plugin(&["status"]).await?;
        ensure!(code == 0 && output.ends_with("everything is as asked\n"), "{code}: {errors}{output}");
        let (code, answer) = self.json(&["status", "service", "api"]).await?;
        let line = &answer["hosts"][0];
        ensure!(code == 0 && line["services"][0]["standing"] == "Ready" && line["topology"] == TOPOLOGY, "{answer}");
        ensure!(line["heard"].is_string(), "the agent's Lease is read: {answer}");
        Ok(())
    }

    /// The API server reaches a pod by its address, and never by one of loopback: one of this machine leads to the guest.
    async fn pave(&self, port: u16) -> Result<tokio::task::JoinHandle<()>> {
        let address = own_address()?;
        let listener =
            TcpListener::bind((address, AGENT_PORT)).await.with_context(|| format!("listening at {address}"))?;
        let way = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        let fleet = &self.example.fleet;
        fleet.identities().settle_pods().await?;
        let pod = fleet.identities().pod(&fleet.client(), &Identity::Agent(HOST.to_owned())).await?;
        let name = pod.and_then(|pod| pod.metadata.name).context("the agent has a pod")?;
        let status = json!({ "status": { "podIP": address.to_string(), "podIPs": [{ "ip": address.to_string() }] } });
        let pods: Api<Pod> = Api::namespaced(fleet.client(), NAMESPACE);
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .context("giving the pod an address")?;
        Ok(way)
    }

    async fn the_agent_measures(&self) -> Result<()> {
        let (code, answer) = self.json(&["verify", HOST]).await?;
        ensure!(code == 0 && answer["source"] == "Agent" && answer["verdict"] == "AsAsked", "{code}: {answer}");
        ensure!(answer["slices"][0]["asked"].as_str().is_some_and(|asked| asked.starts_with("8 cores")), "{answer}");
        threads_are_those_of_taskset(&self.example, &answer).await?;
        let (code, used) = self.json(&["top", HOST]).await?;
        ensure!(code == 0 && list(&used, "units")?.len() == 11, "{code}: {used}");
        ensure!(list(&used, "units")?.iter().all(|unit| unit["busyCpus"].is_number()), "{used}");
        ensure!(
            !answer.to_string().contains("POSTGRES") && !used.to_string().contains("POSTGRES"),
            "no environment is told"
        );
        Ok(())
    }

    /// Reading both kinds is not enough to have a host measured; then it is told what was said last, and why.
    async fn rights_are_needed(&self) -> Result<()> {
        let fleet = &self.example.fleet;
        let bind = ["create", "clusterrolebinding", "watchers", "--clusterrole=lamina-view", "--user=watcher"];
        fleet.kubectl(&bind).await?;
        let (_, answer) = self.json(&["verify", HOST, "--as", "watcher"]).await?;
        let why = answer["notMeasured"].as_str().unwrap_or_default();
        ensure!(answer["source"] == "HostState" && why.contains("cannot list resource \"pods\""), "{answer}");
        let chart = lamina_e2e::fleet::chart();
        let chart = chart.to_str().context("a path of text")?;
        let upgrade =
            ["upgrade", "lamina", chart, "--namespace", NAMESPACE, "--reuse-values", "--set", "roles.measure=true"];
        fleet.control_plane.helm(&upgrade).await?.success().context("helm upgrade")?;
        let bind =
            ["create", "rolebinding", "measurers", "--namespace", NAMESPACE, "--role=lamina-measure", "--user=watcher"];
        fleet.kubectl(&bind).await?;
        let measured = async || Ok(self.json(&["verify", HOST, "--as", "watcher"]).await?.1["source"] == "Agent");
        waiting::until("the watcher may have the host measured", waiting::MINUTE, measured).await.map(drop)
    }

    async fn what_was_said_last_is_told_when_nobody_answers(&self) -> Result<()> {
        self.example.fleet.stop_agent(HOST).await?;
        let (_, answer) = self.json(&["verify", HOST]).await?;
        ensure!(answer["source"] == "HostState" && answer["at"].is_string(), "{answer}");
        ensure!(answer["slices"][0]["cpus"]["kernel"] == "0-7", "{answer}");
        let (code, _, errors) = self.plugin(&["top", HOST]).await?;
        ensure!(code == 1 && errors.contains("on the host itself"), "{code}: {errors}");
        let silent = async || {
            let (code, answer) = self.json(&["verify", HOST]).await?;
            Ok(code == 2 && answer["verdict"] == "Unknown")
        };
        waiting::until("the silence is told", 3 * waiting::MINUTE, silent).await?;
        let (code, output, _) = self.plugin(&["status"]).await?;
        ensure!(code == 2 && output.contains("Silent"), "{code}: {output}");
        Ok(())
    }
}

/// Asks many times at once, and probes meanwhile; on the host itself, so that no network in between drops what it does not
/// like. Tells how long the probe took in milliseconds and what it was answered, then how often which status came.
const MANY_ASK: &str = r#"bash <<'END'
address=$(ss -Hltn 'sport = :9641' | awk '{ print $4 }')
ask() {
    exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
    printf 'GET %s HTTP/1.1\r\nHost: agent\r\n\r\n' "$1" >&3
    read -r _ code _ <&3
    echo "$code"
}
for asker in $(seq 24); do (ask /verify) & done > /run/asked
begin=$(date +%s%N)
probe=$(ask /livez)
echo "$(( ($(date +%s%N) - begin) / 1000000 )) $probe"
wait
sort /run/asked | uniq -c
END"#;

/// An address of this machine that is not of loopback.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("making a socket")?;
    // Nothing is sent: the kernel only says from where it would be.
    socket.connect("192.0.2.77:9").context("no address of this machine leads anywhere but to loopback")?;
    let address = socket.local_addr().context("reading an address")?.ip();
    ensure!(!address.is_loopback(), "this machine has no address but those of loopback");
    Ok(address)
}
