//! Runs what a page of the documentation says, as its reader would: in a folder with Lamina's source, kubectl, its plugin and Helm.

#![expect(clippy::disallowed_methods, reason = "it makes the reader's folder")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::control_plane::{ControlPlane, Said};
use crate::program;

/// What of the source a reader uses.
const SOURCE: [&str; 3] = ["charts", "examples", "gitops"];

/// Somebody who reads a page and types what stands there.
pub struct Reader {
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
        Ok(Self { folder: folder.to_owned(), tools, kubeconfig: plane.kubeconfig_admin() })
    }

    /// Where Lamina's source lies for this reader.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Types some lines, of which the first that fails ends it.
    pub async fn types(&self, lines: &str) -> Result<Said> {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", lines]).current_dir(&self.folder).env("PATH", &self.tools);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.folder).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("running `{lines}`"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code().unwrap_or(-1) })
    }
}
