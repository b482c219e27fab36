//! What the disk of a Kubernetes node has beside the distribution: a container runtime with a pod network, kubelet and
//! kube-proxy as units that nobody starts yet, and the image that every pod begins with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lamina_images::{image::Contents, image::Image, layer::File, layout};
use tokio::process::Command;

use crate::{
    cache::Key,
    control_plane::binaries::NodeBinaries,
    host::machine::REGISTRY,
    image::{disk, root},
    program::output_of,
};

/// Debian's packages for a node, separated by commas.
pub const PACKAGES: &str = "containerd,runc,containernetworking-plugins,iptables,nftables,conntrack";

/// The image that holds a pod's namespaces, and that serves as a container that does nothing.
pub const PAUSE: &str = "localhost/pause:3.10";

/// What pods have addresses from.
pub const POD_NETWORK: &str = "10.88.0.0/24";

/// Where the image archive lies in a guest.
const PAUSE_ARCHIVE: &str = "usr/local/share/lamina-lab/pause.tar";

/// Starts what a node's first minute needs, but no kubelet: that one is told which cluster it belongs to.
pub const WARM_UP: &str = "systemctl start containerd.service
ctr --namespace k8s.io images import /usr/local/share/lamina-lab/pause.tar
kubelet --version
kube-proxy --version
runc --version
iptables --version
nft list tables
sync";

/// What is put on a node's disk.
#[derive(Clone, Debug)]
pub struct Fittings {
    binaries: NodeBinaries,
}

impl Fittings {
    /// Finds or builds the programs.
    pub async fn find() -> Result<Self> {
        Ok(Self { binaries: NodeBinaries::find().await? })
    }

    /// The same key, also depending on these fittings. The cache calls a program's folder by what it was made of.
    pub fn add_to(&self, key: Key) -> Key {
        let NodeBinaries { kubelet, kube_proxy } = &self.binaries;
        key.with("node", include_str!("node.rs"))
            .with("pause", include_str!("pause.rs"))
            .with("kubelet", kubelet.as_os_str().as_encoded_bytes())
            .with("kube-proxy", kube_proxy.as_os_str().as_encoded_bytes())
    }

    /// Puts everything below `tree`.
    pub async fn furnish(&self, tree: &Path) -> Result<()> {
        for folder in ["etc/containerd", "etc/cni/net.d", "usr/local/share/lamina-lab"] {
            root::create(tree, folder)?;
        }
        let trusted = format!("etc/containerd/certs.d/{REGISTRY}");
        root::create(tree, &trusted)?;
        root::write(tree, &format!("{trusted}/hosts.toml"), registry())?;
        for (path, text) in FILES {
            root::write(tree, path, text)?;
        }
        let enabled = "etc/systemd/system/multi-user.target.wants";
        root::create(tree, enabled)?;
        link(tree, "/etc/systemd/system/lamina-lab-network.service", &format!("{enabled}/lamina-lab-network.service"))?;
        root::write(tree, PAUSE_ARCHIVE, pause().await?)?;
        let NodeBinaries { kubelet, kube_proxy } = &self.binaries;
        for (name, path) in [("kubelet", kubelet), ("kube-proxy", kube_proxy)] {
            disk::program(tree, &format!("usr/local/bin/{name}"), &read(path)?)?;
        }
        Ok(())
    }
}

/// What does not depend on anything.
const FILES: [(&str, &str); 5] = [
    ("etc/containerd/config.toml", CONTAINERD),
    ("etc/cni/net.d/10-lab.conflist", POD_NETWORK_SETTINGS),
    ("etc/systemd/system/lamina-lab-network.service", NETWORK_UNIT),
    ("etc/systemd/system/kubelet.service", KUBELET_UNIT),
    ("etc/systemd/system/kube-proxy.service", KUBE_PROXY_UNIT),
];

/// Debian's own settings, and: our pause image, cgroups by systemd, registries as folders describe them.
const CONTAINERD: &str = r#"version = 2
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "localhost/pause:3.10"
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd"
"#;

const POD_NETWORK_SETTINGS: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "lab",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{ "subnet": "10.88.0.0/24" }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
"#;

/// The lab masks the units that usually do this.
const NETWORK_UNIT: &str = "[Unit]
Description=Kernel modules and settings of a node
Before=containerd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=modprobe -a overlay br_netfilter veth bridge nf_conntrack
ExecStart=sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1

[Install]
WantedBy=multi-user.target
";

const KUBELET_UNIT: &str = "[Unit]
Description=kubelet
Wants=containerd.service
After=containerd.service

[Service]
EnvironmentFile=/etc/kubernetes/node.env
ExecStart=/usr/local/bin/kubelet --config=/var/lib/kubelet/config.yaml --kubeconfig=/etc/kubernetes/kubelet.kubeconfig \
    --hostname-override=${NODE} --node-ip=10.0.2.15
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
";

const KUBE_PROXY_UNIT: &str = "[Unit]
Description=kube-proxy

[Service]
EnvironmentFile=/etc/kubernetes/node.env
ExecStart=/usr/local/bin/kube-proxy --kubeconfig=/etc/kubernetes/kube-proxy.kubeconfig --hostname-override=${NODE} \
    --proxy-mode=nftables --cluster-cidr=10.88.0.0/24 --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 --metrics-bind-address=127.0.0.1:10249
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
";

/// The lab's registry speaks plain HTTP.
fn registry() -> String {
    format!("server = \"http://{REGISTRY}\"\n[host.\"http://{REGISTRY}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

/// The image of a program that only waits, as an archive.
async fn pause() -> Result<Vec<u8>> {
    let folder = tempfile::tempdir().context("making a folder for a small program")?;
    let program = folder.path().join("pause");
    let source: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src/image/pause.rs"].iter().collect();
    let mut compile = Command::new("rustc");
    compile.args(["--edition=2024", "-Copt-level=s", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"]);
    output_of(compile.arg(&program).arg(source)).await.context("compiling the program that waits")?;
    let contents = Contents {
        architecture: "amd64".to_owned(),
        files: vec![File { path: "pause".to_owned(), mode: 0o755, content: read(&program)? }],
        entrypoint: "/pause".to_owned(),
        user: "65535:65535".to_owned(),
        labels: [].into(),
        created: "1970-01-01T00:00:00Z".to_owned(),
    };
    let image = Image::new(&contents).context("packing the program that waits")?;
    layout::archived(&image, PAUSE).context("packing the image that waits")
}

fn link(tree: &Path, target: &str, path: &str) -> Result<()> {
    root::remove(tree, path)?;
    std::os::unix::fs::symlink(target, tree.join(path)).with_context(|| format!("linking {path} to {target}"))
}

#[expect(clippy::disallowed_methods, reason = "programs are files")]
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_said_alike() {
        assert!(CONTAINERD.contains(PAUSE));
        assert!(POD_NETWORK_SETTINGS.contains(POD_NETWORK) && KUBE_PROXY_UNIT.contains(POD_NETWORK));
        assert!(WARM_UP.contains(PAUSE_ARCHIVE));
        serde_json::from_str::<serde_json::Value>(POD_NETWORK_SETTINGS).unwrap();
    }
}
