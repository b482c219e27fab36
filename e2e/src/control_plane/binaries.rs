//! Finds the programs of a control plane: in `KUBEBUILDER_ASSETS` if they are there, else built once from their Go
//! modules into the cache.

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::go_program::{GoBuilder, GoModule};

/// Where each program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager.
    pub kube_controller_manager: PathBuf,
    /// kube-scheduler.
    pub kube_scheduler: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
    /// Helm.
    pub helm: PathBuf,
}

impl Binaries {
    /// Finds or builds all of them. The first build takes several minutes and says so on standard error.
    pub async fn find() -> Result<Self> {
        let finder = Finder { builder: GoBuilder::new(Cache::open()?) };
        // In the order in which they share most of what the compiler keeps.
        let binaries = Self {
            etcd: finder.find("etcd", KUBERNETES, "go.etcd.io/etcd/server/v3").await?,
            kube_apiserver: finder.kubernetes("kube-apiserver").await?,
            kube_controller_manager: finder.kubernetes("kube-controller-manager").await?,
            kubectl: finder.kubernetes("kubectl").await?,
            kube_scheduler: finder.kubernetes("kube-scheduler").await?,
            helm: finder.find("helm", HELM, "helm.sh/helm/v4/cmd/helm").await?,
        };
        if finder.builder.has_compiled() {
            // A minute now: later, without what the compiler keeps, it would be five.
            finder.node().await?;
        }
        finder.builder.drop_compiler_cache()?;
        Ok(binaries)
    }
}

/// Finds or builds the Helm 3 that people use who have not moved to Helm 4. What the compiler keeps of it is left for a
/// control plane, which drops it.
pub async fn helm3() -> Result<PathBuf> {
    let finder = Finder { builder: GoBuilder::new(Cache::open()?) };
    finder.find("helm3", HELM3, "helm.sh/helm/v3/cmd/helm").await
}

/// What a Kubernetes node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeBinaries {
    /// kubelet.
    pub kubelet: PathBuf,
    /// kube-proxy.
    pub kube_proxy: PathBuf,
}

impl NodeBinaries {
    /// Finds or builds both. What the compiler keeps of them is left for a control plane, which needs most of it.
    pub async fn find() -> Result<Self> {
        Finder { builder: GoBuilder::new(Cache::open()?) }.node().await
    }
}

const KUBERNETES: GoModule = GoModule {
    folder: concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/kubernetes"),
    tags: "selinux,notest,grpcnotrace",
    sources: &[],
};
/// A module of its own: what nodes need must not move what the control plane is built from.
const NODE: GoModule = GoModule {
    folder: concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/node"),
    tags: "selinux,notest,grpcnotrace",
    sources: &[],
};
const HELM: GoModule =
    GoModule { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/helm"), tags: "", sources: &[] };
const HELM3: GoModule =
    GoModule { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/helm3"), tags: "", sources: &[] };

struct Finder {
    builder: GoBuilder,
}

impl Finder {
    async fn kubernetes(&self, name: &str) -> Result<PathBuf> {
        self.find(name, KUBERNETES, &format!("k8s.io/kubernetes/cmd/{name}")).await
    }

    async fn node(&self) -> Result<NodeBinaries> {
        Ok(NodeBinaries {
            kubelet: self.find("kubelet", NODE, "k8s.io/kubernetes/cmd/kubelet").await?,
            kube_proxy: self.find("kube-proxy", NODE, "k8s.io/kubernetes/cmd/kube-proxy").await?,
        })
    }

    async fn find(&self, name: &str, module: GoModule, package: &str) -> Result<PathBuf> {
        match brought(name) {
            Some(brought) => Ok(brought),
            None => self.builder.program(name, module, package).await,
        }
    }
}

/// The program of this name in `KUBEBUILDER_ASSETS`.
fn brought(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty())?;
    Some(PathBuf::from(folder).join(name)).filter(|path| path.is_file())
}
