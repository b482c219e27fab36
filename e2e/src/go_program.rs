//! Builds programs from Go modules whose versions this repository pins, once per content, into the cache.

#![expect(clippy::disallowed_methods, reason = "it reads module files")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::process::Command;

use crate::cache::{Cache, Key};
use crate::program::output_of;

/// A Go module of its own for each set of programs: mixed, one would move the other's dependencies.
#[derive(Clone, Copy, Debug)]
pub struct GoModule {
    /// The folder with `go.mod` and `go.sum`.
    pub folder: &'static str,
    /// Build tags, separated by commas.
    pub tags: &'static str,
    /// The files of the folder that are compiled; empty where the programs come from modules only.
    pub sources: &'static [&'static str],
}

/// Builds programs into a cache.
#[derive(Debug)]
pub struct GoBuilder {
    cache: Cache,
    /// The folder of the cache that the compiler keeps its own things in.
    compiler_cache: String,
}

impl GoBuilder {
    /// A builder that keeps what it makes in `cache`.
    pub fn new(cache: Cache) -> Self {
        Self { cache, compiler_cache: "go-build".to_owned() }
    }

    /// The same for programs that share little with others: nobody who is done with his drops what the compiler keeps of
    /// these, and nobody waits for them who builds others.
    pub fn apart(cache: Cache, name: &str) -> Self {
        Self { cache, compiler_cache: format!("go-build-{name}") }
    }

    /// The program `name`, compiled from `package` as seen from `module`, unless the cache has it.
    ///
    /// # Errors
    /// Fails without Go 1.26, or when the compiler does.
    pub async fn program(&self, name: &str, module: GoModule, package: &str) -> Result<PathBuf> {
        let flags = flags(module)?;
        let folder = Path::new(module.folder);
        let mut key = Key::new()
            .with_file("go.mod", &folder.join("go.mod"))?
            .with_file("go.sum", &folder.join("go.sum"))?
            .with("package", package)
            .with("flags", flags.join("\n"))
            .with("go", go_version().await?);
        for source in module.sources {
            key = key.with_file(source, &folder.join(source))?;
        }
        let what = format!("building {name} from its Go module");
        let compile = async |target: &Path| self.compile(folder, &flags, package, &target.join(name)).await;
        let entry = self.cache.entry(name, &key, &what, compile).await?;
        Ok(entry.join(name))
    }

    /// Where the files of `path`, a module that `module` requires, lie on this machine.
    ///
    /// # Errors
    /// Fails when the module cannot be had.
    pub async fn files_of(module: GoModule, path: &str) -> Result<PathBuf> {
        let mut go = Command::new("go");
        go.current_dir(module.folder).args(["mod", "download", "-json", path]);
        go.env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local");
        let told = output_of(&mut go).await.with_context(|| format!("looking for the files of {path}"))?;
        let told: Downloaded = serde_json::from_str(&told).with_context(|| format!("understanding `{told}`"))?;
        Ok(told.dir)
    }

    /// The lock keeps what the compiler has made from being dropped by somebody else who is done.
    async fn compile(&self, folder: &Path, flags: &[String], package: &str, target: &Path) -> Result<()> {
        let _lock = self.cache.lock(&self.compiler_cache).await?;
        let mut go = Command::new("go");
        go.current_dir(folder).arg("build").args(flags).arg("-o").arg(target).arg(package);
        go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local");
        go.env("GOCACHE", self.compiler_folder());
        output_of(&mut go).await.map(drop).with_context(|| format!("compiling {package}"))
    }

    /// Whether the compiler keeps something that was not dropped yet.
    pub fn has_compiled(&self) -> bool {
        self.compiler_folder().exists()
    }

    fn compiler_folder(&self) -> PathBuf {
        self.cache.root().join(&self.compiler_cache)
    }

    /// What the compiler keeps is several times larger than what it made, and is not needed again. Who compiles into it now
    /// keeps it, and nobody waits for that.
    ///
    /// # Errors
    /// Fails when the lock of that folder cannot be asked for.
    pub fn drop_compiler_cache(&self) -> Result<()> {
        let folder = self.compiler_folder();
        if folder.exists()
            && let Some(_lock) = self.cache.try_lock(&self.compiler_cache)?
        {
            // Another program may have removed it first.
            let _ = fs::remove_dir_all(&folder);
        }
        Ok(())
    }
}

/// What Go tells of a module that it has.
#[derive(Deserialize)]
struct Downloaded {
    #[serde(rename = "Dir")]
    dir: PathBuf,
}

fn flags(module: GoModule) -> Result<Vec<String>> {
    let mut linker = "-s -w".to_owned();
    if let Some(version) = kubernetes_version(module)? {
        // Without the stamp the server calls itself v0.0.0, and Helm refuses every chart that names a version.
        let mut parts = version.trim_start_matches('v').split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let stamp = "k8s.io/component-base/version";
        linker.push_str(&format!(
            " -X {stamp}.gitVersion={version} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
        ));
    }
    let mut flags = vec!["-trimpath".to_owned(), "-ldflags".to_owned(), linker];
    if !module.tags.is_empty() {
        flags.extend(["-tags".to_owned(), module.tags.to_owned()]);
    }
    Ok(flags)
}

/// The version of Kubernetes that the module asks for.
fn kubernetes_version(module: GoModule) -> Result<Option<String>> {
    let path = Path::new(module.folder).join("go.mod");
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

    const fn module(folder: &'static str) -> GoModule {
        GoModule { folder, tags: "", sources: &[] }
    }

    #[test]
    fn the_stamp_is_the_version_of_the_module() {
        let kubernetes = module(concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/kubernetes"));
        let flags = flags(kubernetes).expect("go.mod is there").join(" ");
        assert!(flags.contains(".gitVersion=v1.37.2 ") && flags.contains(".gitMinor=37"), "{flags}");
        let helm = module(concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/helm"));
        assert!(!super::flags(helm).expect("go.mod is there").join(" ").contains("gitVersion"));
    }
}
