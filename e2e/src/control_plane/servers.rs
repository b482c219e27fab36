//! Starts the servers of a control plane with the flags they need here.

use std::path::Path;

use anyhow::{Context, Result};

use super::binaries::Binaries;
use super::{Controllers, Ports};
use crate::host::process::{Lifetime, Process};

/// etcd, without waiting for disks: nothing here outlives a power cut.
pub(super) fn etcd(binaries: &Binaries, folder: &Path, ports: Ports, lifetime: Lifetime) -> Result<Process> {
    let client = format!("http://127.0.0.1:{}", ports.etcd);
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    let arguments = [
        "--name=lab".to_owned(),
        "--data-dir=etcd".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        // Ports change from start to start; the member keeps its data.
        "--force-new-cluster".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=lab={peer}"),
    ];
    Process::start(&binaries.etcd, &arguments, folder, "etcd.log", lifetime).context("starting etcd")
}

/// The API server, with the authorisation and admission of a real cluster.
pub(super) fn api_server(binaries: &Binaries, folder: &Path, ports: Ports, lifetime: Lifetime) -> Result<Process> {
    let arguments = [
        format!("--etcd-servers=http://127.0.0.1:{}", ports.etcd),
        format!("--secure-port={}", ports.api),
        "--bind-address=127.0.0.1".to_owned(),
        // Endpoints must not name loopback; nobody uses them here.
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--tls-cert-file=server.crt".to_owned(),
        "--tls-private-key-file=server.key".to_owned(),
        "--client-ca-file=ca.crt".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-account-key-file=service-accounts.pub".to_owned(),
        "--service-account-signing-key-file=service-accounts.key".to_owned(),
    ];
    Process::start(&binaries.kube_apiserver, &arguments, folder, "kube-apiserver.log", lifetime)
        .context("starting the API server")
}

/// Controllers and scheduler. The controller that judges heartbeats would taint every Node without a kubelet.
pub(super) fn controllers(
    binaries: &Binaries,
    folder: &Path,
    which: Controllers,
    lifetime: Lifetime,
) -> Result<Vec<Process>> {
    let chosen = match which {
        Controllers::WithoutHeartbeats => "*,-node-lifecycle-controller",
        Controllers::All => "*",
    };
    let manager = [
        "--kubeconfig=controller-manager.kubeconfig".to_owned(),
        format!("--controllers={chosen}"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--service-account-private-key-file=service-accounts.key".to_owned(),
        "--root-ca-file=ca.crt".to_owned(),
        "--use-service-account-credentials".to_owned(),
    ];
    let scheduler = [
        "--kubeconfig=scheduler.kubeconfig".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    let start = |program: &Path, arguments: &[String], log: &str| {
        Process::start(program, arguments, folder, log, lifetime).with_context(|| format!("starting {log}"))
    };
    Ok(vec![
        start(&binaries.kube_controller_manager, &manager, "kube-controller-manager.log")?,
        start(&binaries.kube_scheduler, &scheduler, "kube-scheduler.log")?,
    ])
}
