//! A host with a past: the units of a topology as somebody wrote them by hand before Lamina, installed and running.

use lamina_crds::UnitName;
use lamina_node_agent::host_path::UNIT_DIRECTORY;

use crate::host::SimulatedHost;
use crate::wish::program;

/// Where the hand-written units have their variables.
const ENVIRONMENT: &str = "/etc/default/app";

/// Installs and starts what runs the same as the plain topology `app` asks for, without its pinning, as a script would.
/// A drop-in repeats the user of one service, so that it contradicts whatever comes after it.
pub fn install(host: &mut SimulatedHost) {
    host.disk.put(ENVIRONMENT, b"VERSION=1\n");
    let fragments = [
        ("app-control.slice", slice()),
        ("app-runner.slice", slice()),
        ("app-api.service", service("api", "control", "EnvironmentFile=/etc/default/app\nEnvironment=GOMAXPROCS=2\n")),
        ("app-router.service", service("router", "control", "")),
        ("app-worker.service", service("worker", "runner", "EnvironmentFile=/etc/default/app\n")),
    ];
    for (name, text) in &fragments {
        write(host, format!("{UNIT_DIRECTORY}/{name}"), text);
    }
    write(host, format!("{UNIT_DIRECTORY}/app-api.service.d/local.conf"), "[Service]\nUser=app\n");
    host.with_systemd(|systemd, grounds| systemd.reload(grounds));
    let services = fragments.iter().filter_map(|(name, _)| UnitName::new(*name).ok());
    for unit in services.filter(|unit| unit.as_str().ends_with(".service")) {
        // What cannot start does not run.
        let _ = host.with_systemd(|systemd, grounds| systemd.start(grounds, &unit));
    }
}

fn write(host: &mut SimulatedHost, path: String, text: &str) {
    host.disk.put(&path, text.as_bytes());
    host.foreign.insert(path, text.as_bytes().to_vec());
}

/// What never had an effect, and a limit that has one.
fn slice() -> String {
    "[Slice]\nCPUAffinity=0-3\nNUMAPolicy=bind\nMemoryMax=1G\n".to_owned()
}

fn service(name: &str, slice: &str, more: &str) -> String {
    let command = format!("{} --shard=1", program(name));
    format!(
        "[Service]\nType=simple\nUser=app\nSlice=app-{slice}.slice\nEnvironment=\"VALUE=1 %% of \\\"it\\\"\"\nExecStart={command}\n{more}[Install]\nWantedBy=multi-user.target\n"
    )
}
