//! Finds the programs of a control plane: in `KUBEBUILDER_ASSETS` if they are there, else built once from their Go
//! modules into the cache.

#![expect(clippy::disallowed_methods, reason = "it reads module files")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::cache::{Cache, Key};
use crate::program::output_of;

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
        let builder = Builder { cache: Cache::open()? };
        // In the order in which they share most of what the compiler keeps.
        let binaries = Self {
            etcd: builder.find("etcd", KUBERNETES, "go.etcd.io/etcd/server/v3").await?,
            kube_apiserver: builder.kubernetes("kube-apiserver").await?,
            kube_controller_manager: builder.kubernetes("kube-controller-manager").await?,
            kubectl: builder.kubernetes("kubectl").await?,
            kube_scheduler: builder.kubernetes("kube-scheduler").await?,
            helm: builder.find("helm", HELM, "helm.sh/helm/v4/cmd/helm").await?,
        };
        builder.drop_compiler_cache().await?;
        Ok(binaries)
    }
}

/// A Go module of its own for each set of tools: mixed, one would move the other's dependencies.
#[derive(Clone, Copy)]
struct Family {
    folder: &'static str,
    tags: &'static str,
}

const KUBERNETES: Family = Family {
    folder: concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/kubernetes"),
    tags: "selinux,notest,grpcnotrace",
};
const HELM: Family = Family { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/helm"), tags: "" };

struct Builder {
    cache: Cache,
}

impl Builder {
    async fn kubernetes(&self, name: &str) -> Result<PathBuf> {
        self.find(name, KUBERNETES, &format!("k8s.io/kubernetes/cmd/{name}")).await
    }

    async fn find(&self, name: &str, family: Family, package: &str) -> Result<PathBuf> {
        if let Some(brought) = brought(name) {
            return Ok(brought);
        }
        let flags = flags(family)?;
        let folder = Path::new(family.folder);
        let key = Key::new()
            .with_file("go.mod", &folder.join("go.mod"))?
            .with_file("go.sum", &folder.join("go.sum"))?
            .with("package", package)
            .with("flags", flags.join("\n"))
            .with("go", go_version().await?);
        let what = format!("building {name} from its Go module");
        let compile = async |target: &Path| self.compile(&folder, &flags, package, &target.join(name)).await;
        let entry = self.cache.entry(name, &key, &what, compile).await?;
        Ok(entry.join(name))
    }

    async fn compile(&self, folder: &&Path, flags: &[String], package: &str, target: &Path) -> Result<()> {
        let mut go = Command::new("go");
        go.current_dir(folder).arg("build").args(flags).arg("-o").arg(target).arg(package);
        go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local");
        go.env("GOCACHE", self.compiler_cache());
        output_of(&mut go).await.map(drop).with_context(|| format!("compiling {package}"))
    }

    fn compiler_cache(&self) -> PathBuf {
        self.cache.root().join("go-build")
    }

    /// What the compiler keeps is several times larger than what it made, and is not needed again.
    async fn drop_compiler_cache(&self) -> Result<()> {
        let folder = self.compiler_cache();
        if folder.exists() {
            let _lock = self.cache.lock("go-build").await?;
            // Another program may have removed it first.
            let _ = fs::remove_dir_all(&folder);
        }
        Ok(())
    }
}

/// The program of this name in `KUBEBUILDER_ASSETS`.
fn brought(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty())?;
    Some(PathBuf::from(folder).join(name)).filter(|path| path.is_file())
}

fn flags(family: Family) -> Result<Vec<String>> {
    let mut linker = "-s -w".to_owned();
    if let Some(version) = kubernetes_version(family)? {
        // Without the stamp the server calls itself v0.0.0, and Helm refuses every chart that names a version.
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let stamp = "k8s.io/component-base/version";
        linker.push_str(&format!(
            " -X {stamp}.gitVersion={version} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
        ));
    }
    let mut flags = vec!["-trimpath".to_owned(), "-ldflags".to_owned(), linker];
    if !family.tags.is_empty() {
        flags.extend(["-tags".to_owned(), family.tags.to_owned()]);
    }
    Ok(flags)
}

/// The version of Kubernetes that the module asks for.
fn kubernetes_version(family: Family) -> Result<Option<String>> {
    let path = Path::new(family.folder).join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let required = |line: &str| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some("k8s.io/kubernetes")).then(|| words.next().map(str::to_owned)).flatten()
    };
    Ok(text.lines().find_map(required))
}

async fn go_version() -> Result<String> {
    let mut go = Command::new("go");
    go.arg("version").env("GOTOOLCHAIN", "local");
    output_of(&mut go).await.context("asking for Go's version; install Go 1.26 or later")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_the_version_of_the_module() {
        let flags = flags(KUBERNETES).expect("go.mod is there").join(" ");
        assert!(flags.contains(".gitVersion=v1.37.2 ") && flags.contains(".gitMinor=37"), "{flags}");
        assert!(!super::flags(HELM).expect("go.mod is there").join(" ").contains("gitVersion"));
    }
}
