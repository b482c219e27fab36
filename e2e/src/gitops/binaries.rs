//! Builds what keeps a cluster from Git, once, from Go modules whose versions this repository pins.

use std::path::PathBuf;

use anyhow::Result;

use crate::cache::Cache;
use crate::go_program::{GoBuilder, GoModule};

/// The server of Git repositories.
pub async fn git_server() -> Result<PathBuf> {
    program("git-server", GIT_SERVER, ".").await
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
    /// Finds or builds them, which takes many minutes once.
    pub async fn find() -> Result<Self> {
        Ok(Self {
            source: controller("source-controller", SOURCE).await?,
            kustomize: controller("kustomize-controller", KUSTOMIZE).await?,
            helm: controller("helm-controller", HELM).await?,
        })
    }
}

/// Argo CD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argo {
    /// The program: what it is called by says which part of Argo CD it is.
    pub program: PathBuf,
    /// The folder with the files of its release.
    pub files: PathBuf,
}

impl Argo {
    /// Finds or builds it, which takes many minutes once.
    pub async fn find() -> Result<Self> {
        let path = "github.com/argoproj/argo-cd/v3";
        let program = program("argocd", ARGO, &format!("{path}/cmd")).await?;
        Ok(Self { program, files: GoBuilder::files_of(ARGO, path).await? })
    }
}

async fn controller(name: &str, module: GoModule) -> Result<Controller> {
    let path = format!("github.com/fluxcd/{name}");
    let program = program(name, module, &path).await?;
    let kinds = GoBuilder::files_of(module, &path).await?.join("config/crd/bases");
    Ok(Controller { program, kinds })
}

/// What the compiler keeps is dropped after each: the next one stands on other versions of nearly everything.
async fn program(name: &str, module: GoModule, package: &str) -> Result<PathBuf> {
    let builder = GoBuilder::apart(Cache::open()?, name);
    let program = builder.program(name, module, package).await?;
    builder.drop_compiler_cache()?;
    Ok(program)
}

const fn module(folder: &'static str) -> GoModule {
    GoModule { folder, tags: "", sources: &[] }
}

const GIT_SERVER: GoModule =
    GoModule { sources: &["main.go"], ..module(concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/git-server")) };
const SOURCE: GoModule = module(concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/source-controller"));
const KUSTOMIZE: GoModule = module(concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/kustomize-controller"));
const HELM: GoModule = module(concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/helm-controller"));
const ARGO: GoModule = module(concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/argo-cd"));
