//! Runs what a page of the documentation says, as its reader would: in a folder with Lamina's source, kubectl, its plugin and Helm.

#![expect(clippy::disallowed_methods, reason = "it makes the reader's folder")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::control_plane::{ControlPlane, Said};
use crate::guide::blocks;
use crate::program;

/// What of the source a reader uses.
const SOURCE: [&str; 3] = ["charts", "examples", "gitops"];

/// Somebody who reads a page and types what stands there.
pub struct Reader {
    source: PathBuf,
    folder: PathBuf,
    tools: String,
    kubeconfig: PathBuf,
}

impl Reader {
    /// A reader with rights of an administrator, who works in this folder.
    pub fn of(plane: &ControlPlane, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).context("making the reader's folder")?;
        for name in SOURCE {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
            symlink(source, folder.join(name)).with_context(|| format!("linking {name}"))?;
        }
        let plugin = program::built("kubectl-lamina")?;
        let programs = [plane.kubectl_path(), plane.helm_path(), &plugin];
        let folders = programs.iter().filter_map(|program| program.parent());
        let tools: Vec<String> = folders.map(|folder| folder.display().to_string()).collect();
        let tools = format!("{}:/usr/local/bin:/usr/bin:/bin", tools.join(":"));
        let source = folder.to_owned();
        Ok(Self { folder: source.clone(), source, tools, kubeconfig: plane.kubeconfig_admin() })
    }

    /// The same reader, now in another folder.
    pub fn within(self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..self }
    }

    /// Where Lamina's source lies for this reader.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Types every block of a page that bears this word, as in "```sh helm", with these settings (see [`blocks`]).
    ///
    /// # Errors
    /// Fails where the page has no such block, and with the first block that fails.
    pub async fn follows(&self, page: &str, word: &str, settings: &[(&str, &str)]) -> Result<Vec<Said>> {
        let blocks = blocks(page, word, settings);
        ensure!(!blocks.is_empty(), "the page has no block `sh {word}`");
        let mut all = Vec::new();
        for block in blocks {
            let said = self.types(&block).await?;
            ensure!(said.code == 0, "this block failed: {}\n{block}", said.stderr);
            all.push(said);
        }
        Ok(all)
    }

    /// Types some lines, of which the first that fails ends it.
    pub async fn types(&self, lines: &str) -> Result<Said> {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", lines]).current_dir(&self.folder).env("PATH", &self.tools);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.source).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("running `{lines}`"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code().unwrap_or(-1) })
    }
}
