//! Builds what keeps a cluster from Git, once, from Go modules whose versions this repository pins.

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::go_program::{GoBuilder, GoModule};

/// The server of Git repositories.
pub async fn git_server() -> Result<PathBuf> {
    let builder = GoBuilder::new(Cache::open()?);
    builder.program("git-server", GIT_SERVER, ".").await
}

/// One of Flux's controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// The program.
    pub program: PathBuf,
    /// The folder with the definitions of its kinds.
    pub kinds: PathBuf,
}

/// Flux's controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flux {
    /// Fetches repositories and packs charts.
    pub source: Controller,
    /// Applies manifests and waits for what they bring.
    pub kustomize: Controller,
    /// Installs charts.
    pub helm: Controller,
}

impl Flux {
    /// Finds or builds them, which takes many minutes once. Each controller drops what the compiler keeps: the next one
    /// stands on other versions of nearly everything.
    pub async fn find() -> Result<Self> {
        Ok(Self {
            source: controller("source-controller", SOURCE).await?,
            kustomize: controller("kustomize-controller", KUSTOMIZE).await?,
            helm: controller("helm-controller", HELM).await?,
        })
    }
}

async fn controller(name: &str, module: GoModule) -> Result<Controller> {
    let builder = GoBuilder::new(Cache::open()?);
    let path = format!("github.com/fluxcd/{name}");
    let program = builder.program(name, module, &path).await?;
    builder.drop_compiler_cache().await?;
    let kinds = GoBuilder::files_of(module, &path).await?.join("config/crd/bases");
    Ok(Controller { program, kinds })
}

const GIT_SERVER: GoModule =
    GoModule { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/git-server"), tags: "", sources: &["main.go"] };
const SOURCE: GoModule =
    GoModule { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/source-controller"), tags: "", sources: &[] };
const KUSTOMIZE: GoModule =
    GoModule { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/kustomize-controller"), tags: "", sources: &[] };
const HELM: GoModule =
    GoModule { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/helm-controller"), tags: "", sources: &[] };
