//! Makes a guest a node of a control plane: who it is, how its kubelet is set, where its pods find the API server.

use anyhow::Result;
use serde_json::{Value, json};

use super::PATIENCE;
use crate::{
    control_plane::{ControlPlane, GUEST_ADDRESS, certificates, kubeconfig::Credential},
    fleet::Fleet,
    host::{Host, QemuHost},
};

/// Where the kubelet's settings lie, as kubeadm has it.
pub const CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";

/// What differs between kubelets here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The CPUs that a static CPU manager leaves to the rest of the system; without them there is no CPU manager.
    pub reserved_cpus: Option<&'static str>,
}

impl Settings {
    fn text(&self) -> String {
        let mut settings = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": "/etc/kubernetes/ca.crt" },
            },
            "authorization": { "mode": "Webhook" },
            "cgroupDriver": "systemd",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "failSwapOn": false,
            "resolvConf": "",
            // A lab is over long before the usual pauses are.
            "nodeStatusReportFrequency": "10s",
        });
        if let Some(reserved) = self.reserved_cpus {
            settings["cpuManagerPolicy"] = json!("static");
            settings["reservedSystemCPUs"] = json!(reserved);
        }
        format!("{settings:#}\n")
    }
}

/// Gives `host` its certificates and starts kubelet and kube-proxy.
pub async fn join(host: &QemuHost, control_plane: &ControlPlane, settings: &Settings) -> Result<()> {
    let name = host.name();
    let node = format!("system:node:{name}");
    for (file, user, group) in
        [("kubelet", node.as_str(), Some("system:nodes")), ("kube-proxy", "system:kube-proxy", None)]
    {
        let (certificate, key) =
            certificates::add_client(control_plane.folder(), &format!("{name}-{file}"), user, group)?;
        let kubeconfig = control_plane.guest_kubeconfig(Credential::Certificate { certificate, key })?;
        host.put(&format!("/etc/kubernetes/{file}.kubeconfig"), 0o600, kubeconfig.text().into_bytes()).await?;
    }
    let authority = certificates::read(control_plane.folder(), "ca.crt")?;
    host.put("/etc/kubernetes/ca.crt", 0o644, authority.into_bytes()).await?;
    host.put("/etc/kubernetes/node.env", 0o644, format!("NODE={name}\n").into_bytes()).await?;
    host.put(CONFIGURATION, 0o644, settings.text().into_bytes()).await?;
    let endpoints = endpoints().to_string();
    control_plane.kubectl_with(&["apply", "-f", "-"], &endpoints).await?.success()?;
    host.run("systemctl daemon-reload; systemctl enable --quiet --now kubelet kube-proxy").await.map(drop)
}

/// Starts the kubelet anew with other settings. What its CPU manager remembered belongs to the former ones.
pub async fn reconfigure(host: &QemuHost, settings: &Settings) -> Result<()> {
    host.run("systemctl stop kubelet; rm -f /var/lib/kubelet/cpu_manager_state").await?;
    host.put(CONFIGURATION, 0o644, settings.text().into_bytes()).await?;
    host.run("systemctl start kubelet").await.map(drop)
}

/// Waits until the kubelet says that it takes pods.
pub async fn wait_ready(fleet: &Fleet, node: &str) -> Result<()> {
    let object = format!("node/{node}");
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    let there = async || Ok(fleet.control_plane.kubectl(&["get", &object]).await?.code == 0);
    fleet.wait("the kubelet has registered its node", PATIENCE, there).await?;
    match fleet.kubectl(&["wait", "--for=condition=Ready", &object, &timeout]).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.context(fleet.dump().await)),
    }
}

/// Where the Service `kubernetes` leads: the API server itself knows only its loopback, which no pod could use.
fn endpoints() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [GUEST_ADDRESS], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": 6443, "protocol": "TCP" }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kubelet_with_reserved_cpus_manages_cpus() {
        let read = |settings: Settings| serde_json::from_str::<Value>(&settings.text()).unwrap();
        assert_eq!(read(Settings::default()).get("cpuManagerPolicy"), None);
        let managed = read(Settings { reserved_cpus: Some("0-11") });
        assert_eq!((&managed["cpuManagerPolicy"], &managed["reservedSystemCPUs"]), (&json!("static"), &json!("0-11")));
    }
}
