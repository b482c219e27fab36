//! The node-agent as a service of a guest, with the arguments, rights and token of its DaemonSet pod.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    control_plane::{ControlPlane, kubeconfig::Credential},
    host::{Host, QemuHost},
};

/// Where the token lies in the guest.
const TOKEN: &str = "/run/lamina-lab/token";
/// Where a token lies that outlives a reboot.
const KEPT_TOKEN: &str = "/var/lib/lamina-lab/token";
const KUBECONFIG: &str = "/var/lib/lamina-lab/kubeconfig";
const PROGRAM: &str = "/opt/lamina/lamina-node-agent";

/// How the agent of one host is started.
pub struct AgentService {
    arguments: Vec<String>,
    log: String,
}

impl AgentService {
    /// As the pod's container would be; only the root differs, because the guest's own files are not mounted anywhere.
    pub fn of(pod: &Pod, host: &str) -> Result<Self> {
        let container =
            pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("the agent's pod has a container")?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let expand = |argument: &String| {
            let argument = argument.replace("$(NODE_NAME)", host).replace("$(POD_NAMESPACE)", namespace);
            argument.replace("$(POD_IP)", "0.0.0.0")
        };
        let given = container.args.iter().flatten().map(expand).filter(|argument| !argument.starts_with("--host-root"));
        let own = ["--host-root=/".to_owned(), format!("--kubeconfig={KUBECONFIG}")];
        let variables = container.env.iter().flatten();
        let log = variables.filter(|variable| variable.name == "RUST_LOG").find_map(|variable| variable.value.clone());
        Ok(Self { arguments: given.chain(own).collect(), log: log.unwrap_or_else(|| "info".to_owned()) })
    }

    /// Puts program, unit, kubeconfig and token on the host.
    pub async fn install(&self, host: &QemuHost, control_plane: &ControlPlane, token: &str) -> Result<()> {
        let kubeconfig = control_plane.guest_kubeconfig(Credential::TokenFile(TOKEN.to_owned()))?;
        host.install("lamina-node-agent", PROGRAM).await?;
        host.put(KUBECONFIG, 0o600, kubeconfig.text().into_bytes()).await?;
        renew(host, token).await?;
        host.put("/etc/systemd/system/lamina-agent.service", 0o644, self.unit().into_bytes()).await
    }

    /// The rights of the pod, in systemd's words: root without capabilities that writes only where it must.
    fn unit(&self) -> String {
        let Self { arguments, log } = self;
        let arguments = arguments.join(" ");
        format!(
            "[Unit]\n\
             Description=Lamina node-agent\n\
             After=dbus.service\n\
             StartLimitIntervalSec=0\n\n\
             [Service]\n\
             ExecStartPre=/bin/sh -c 'cp {KEPT_TOKEN} {TOKEN}'\n\
             ExecStart={PROGRAM} {arguments}\n\
             Environment=RUST_LOG={log}\n\
             Restart=always\n\
             RestartSec=200ms\n\
             CapabilityBoundingSet=\n\
             NoNewPrivileges=yes\n\
             ProtectSystem=strict\n\
             ConfigurationDirectory=lamina\n\
             StateDirectory=lamina lamina-lab\n\
             RuntimeDirectory=lamina lamina-lab systemd/system.control\n\
             RuntimeDirectoryPreserve=yes\n\
             ReadWritePaths=/etc/systemd/system\n\
             MemoryMax=128M\n\n\
             [Install]\n\
             WantedBy=multi-user.target\n"
        )
    }
}

/// Gives the host's agent a fresh token.
pub async fn renew(host: &QemuHost, token: &str) -> Result<()> {
    host.put(KEPT_TOKEN, 0o600, token.as_bytes().to_vec()).await?;
    host.put(TOKEN, 0o600, token.as_bytes().to_vec()).await
}
