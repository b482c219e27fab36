//! Builds Lamina's Debian packages of the release build into target/debian, and looks at them with lintian if it is there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lamina_e2e::deb::Package;
use lamina_e2e::{cache::Cache, packages};

/// The revision of the packaging, for one version of Lamina.
const REVISION: u32 = 1;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    packages::install_missing(&Cache::open()?).await?;
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let folder = target.join("debian");
    let mut built = Vec::new();
    for package in Package::ALL {
        built.push(package.build(&target.join("release").join(package.name()), REVISION, &folder).await?);
    }
    for path in &built {
        println!("{}", path.display());
    }
    judge(&built)
}

fn judge(packages: &[PathBuf]) -> Result<()> {
    if Command::new("lintian").arg("--version").output().is_err() {
        println!("lintian is not installed; nobody looked at the packages");
        return Ok(());
    }
    let lintian =
        Command::new("lintian").args(["--fail-on", "error", "--tag-display-limit", "0"]).args(packages).status();
    if !lintian.context("running lintian")?.success() {
        bail!("lintian found errors");
    }
    Ok(())
}
