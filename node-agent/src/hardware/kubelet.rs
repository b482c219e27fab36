//! Reads what a kubelet on the host does with CPUs: from the command line of the running one, its configuration, and the
//! state that its CPU manager keeps.

use lamina_crds::CpuSet;
use lamina_crds::hardware::Kubelet;
use serde::Deserialize;

use super::sysfs::Tree;

/// Where kubeadm and most distributions have it.
const CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";
/// How many files a directory of configuration may have.
const MOST_FILES: usize = 64;
/// The cgroup of all pods, under either driver.
const PODS: [&str; 2] = ["sys/fs/cgroup/kubepods.slice", "sys/fs/cgroup/kubepods"];
/// How many cgroups of pods are looked into for a container with CPUs of its own.
const MOST_PODS: usize = 64;

/// The kubelet of the host; `None` where there is neither a running one nor what one leaves. Processes are looked up in
/// the machine's `proc`.
pub fn read(host: &Tree, machine: &Tree) -> Option<Kubelet> {
    let command = command(host, machine);
    let command = command.as_deref();
    let path = flag(command, "config").unwrap_or_else(|| CONFIGURATION.to_owned());
    let state =
        format!("{}/cpu_manager_state", flag(command, "root-dir").unwrap_or_else(|| "/var/lib/kubelet".to_owned()));
    let configuration = configuration(host, &path);
    let state = host.text(state.trim_start_matches('/')).and_then(|text| serde_json::from_str::<State>(&text).ok());
    let pods = PODS.iter().find(|pods| host.has_directory(pods));
    if command.is_none() && configuration.is_none() && state.is_none() && pods.is_none() {
        return None;
    }
    let seen = pods.filter(|pods| pins_containers(host, pods)).map(|_| "static".to_owned());
    let mut settings = Configuration { cpu_manager_policy: seen, ..Configuration::default() };
    settings = settings.overridden_by(configuration.unwrap_or_default());
    for file in flag(command, "config-dir").map(|directory| drop_ins(host, &directory)).unwrap_or_default() {
        settings = settings.overridden_by(file);
    }
    settings = settings.overridden_by(Configuration {
        cpu_manager_policy: flag(command, "cpu-manager-policy"),
        reserved_cpus: flag(command, "reserved-cpus"),
        cgroup_driver: flag(command, "cgroup-driver"),
    });
    Some(settings.kubelet(state))
}

/// Whether containers have CPUs of their own, which only a CPU manager gives: that tells its policy where its files are
/// out of sight, as they are in a pod.
fn pins_containers(host: &Tree, pods: &str) -> bool {
    let mut open = vec![pods.to_owned()];
    for _ in 0..MOST_PODS {
        let Some(group) = open.pop() else { return false };
        let below: Vec<String> = host.names(&group).into_iter().map(|name| format!("{group}/{name}")).collect();
        let below: Vec<String> = below.into_iter().filter(|path| host.has_directory(path)).collect();
        if below.is_empty() && host.text(&format!("{group}/cpuset.cpus")).is_some_and(|cpus| !cpus.is_empty()) {
            return true;
        }
        open.extend(below);
    }
    false
}

/// The part of the kubelet's configuration that matters here, `kubelet.config.k8s.io/v1beta1`.
#[derive(Clone, Debug, Default, Deserialize)]
struct Configuration {
    #[serde(rename = "cpuManagerPolicy")]
    cpu_manager_policy: Option<String>,
    #[serde(rename = "reservedSystemCPUs")]
    reserved_cpus: Option<String>,
    #[serde(rename = "cgroupDriver")]
    cgroup_driver: Option<String>,
}

/// What the CPU manager wrote when it started; a kubelet refuses to start under another policy than this.
#[derive(Debug, Deserialize)]
struct State {
    #[serde(rename = "policyName")]
    policy: String,
}

impl Configuration {
    fn overridden_by(self, other: Self) -> Self {
        Self {
            cpu_manager_policy: other.cpu_manager_policy.or(self.cpu_manager_policy),
            reserved_cpus: other.reserved_cpus.or(self.reserved_cpus),
            cgroup_driver: other.cgroup_driver.or(self.cgroup_driver),
        }
    }

    fn kubelet(self, state: Option<State>) -> Kubelet {
        let Self { cpu_manager_policy, reserved_cpus, cgroup_driver } = self;
        let policy = state.map(|state| state.policy).filter(|policy| !policy.is_empty()).or(cpu_manager_policy);
        Kubelet {
            cpu_manager_policy: bounded(policy, "none"),
            reserved_cpus: reserved_cpus.and_then(|list| list.parse().ok()).unwrap_or_else(CpuSet::new),
            cgroup_driver: bounded(cgroup_driver, "cgroupfs"),
        }
    }
}

/// The word, or the kubelet's own default; no longer than the schema takes.
fn bounded(word: Option<String>, default: &str) -> String {
    word.filter(|word| !word.is_empty()).unwrap_or_else(|| default.to_owned()).chars().take(32).collect()
}

fn configuration(host: &Tree, path: &str) -> Option<Configuration> {
    serde_yaml::from_str(&host.text(path.trim_start_matches('/'))?).ok()
}

/// Files named `*.conf`, which override each other in order of name.
fn drop_ins(host: &Tree, directory: &str) -> Vec<Configuration> {
    let directory = directory.trim_matches('/');
    let names = host.names(directory).into_iter().filter(|name| name.ends_with(".conf")).take(MOST_FILES);
    names.filter_map(|name| configuration(host, &format!("{directory}/{name}"))).collect()
}

/// The command line of the kubelet that runs as systemd's `kubelet.service`.
fn command(host: &Tree, machine: &Tree) -> Option<Vec<String>> {
    let processes = host.text("sys/fs/cgroup/system.slice/kubelet.service/cgroup.procs")?;
    let command = |process: &str| {
        let process: u32 = process.parse().ok()?;
        let line = machine.text(&format!("proc/{process}/cmdline"))?;
        let words: Vec<String> = line.split('\0').map(str::to_owned).collect();
        let program = words.first()?.rsplit('/').next()?;
        program.starts_with("kubelet").then_some(words)
    };
    processes.lines().take(MOST_FILES).find_map(command)
}

/// The value of a flag, as `--name=value` or `--name value`.
fn flag(command: Option<&[String]>, name: &str) -> Option<String> {
    let words = command?;
    words.iter().enumerate().find_map(|(index, word)| {
        let rest = word.trim_start_matches('-').strip_prefix(name).filter(|_| word.starts_with('-'))?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => words.get(index + 1).cloned(),
            None => None,
        }
    })
}
