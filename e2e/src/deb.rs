//! Builds Lamina's own Debian packages out of programs that are built already; the same programs give the same bytes.

#![expect(clippy::disallowed_methods, reason = "packages are files")]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::cargo_tool::CARGO_DEB;
use crate::program::output_of;

/// Lamina's Debian packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// The agent with its unit.
    NodeAgent,
    /// `kubectl lamina`.
    Kubectl,
}

impl Package {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NodeAgent, Self::Kubectl];

    /// The package's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeAgent => "lamina-node-agent",
            Self::Kubectl => "kubectl-lamina",
        }
    }

    /// The crate that describes it.
    fn crate_name(self) -> &'static str {
        match self {
            Self::NodeAgent => "lamina-node-agent",
            Self::Kubectl => "lamina-cli",
        }
    }

    /// Packages `program` into `folder`, with this revision of the packaging, and tells where the package lies.
    pub async fn build(self, program: &Path, revision: u32, folder: &Path) -> Result<PathBuf> {
        // cargo-deb packages what a release build left in its target folder: here this program, whoever built it.
        let target = folder.join("target");
        let placed = target.join("release").join(self.name());
        fs::create_dir_all(target.join("release")).with_context(|| format!("creating {}", target.display()))?;
        fs::copy(program, &placed).with_context(|| format!("copying {}", program.display()))?;
        let tool = tokio::task::spawn_blocking(|| CARGO_DEB.program()).await??;
        let mut command = Command::new(tool);
        command.current_dir(workspace()).env("SOURCE_DATE_EPOCH", date().await?).env("CARGO_TARGET_DIR", &target);
        command.args(["--no-build", "--strip", "--no-dbgsym", "--fast", "--package", self.crate_name()]);
        command.arg(format!("--deb-revision={revision}")).arg("--output").arg(folder);
        output_of(&mut command).await.with_context(|| format!("packaging {}", self.name()))?;
        self.find(revision, folder)
    }

    /// The package of this revision in `folder`, if it was built there.
    pub fn find(self, revision: u32, folder: &Path) -> Result<PathBuf> {
        let begin = format!("{}_", self.name());
        let middle = format!("-{revision}_");
        for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with(&begin) && name.contains(&middle) && name.ends_with(".deb") {
                return Ok(path);
            }
        }
        bail!("cargo-deb left no {} in {}", self.name(), folder.display())
    }
}

/// The date of the newest entry of the packages' changelog: when their files are said to be of.
async fn date() -> Result<String> {
    let changelog = workspace().join("node-agent/debian/changelog");
    let mut command = Command::new("dpkg-parsechangelog");
    command.args(["--show-field", "Timestamp", "--file"]).arg(changelog);
    Ok(output_of(&mut command).await.context("reading the packages' changelog")?.trim().to_owned())
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
