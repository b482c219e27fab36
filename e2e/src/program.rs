//! Runs other programs and finds the ones that this workspace builds.

#![expect(clippy::disallowed_methods, reason = "programs are files")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// The standard output of a program that must succeed; an error names the command and ends with what it said.
pub async fn output_of(command: &mut Command) -> Result<String> {
    let described = format!("{:?}", command.as_std());
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("running {described}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{described} ended with {}: {}", output.status, last_lines(&said, 20));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program of this workspace, as cargo placed it beside the running one.
///
/// Test programs run from a `deps` folder one level below.
pub fn built(name: &str) -> Result<PathBuf> {
    let running = std::env::current_exe().context("finding the running program")?;
    let beside = |folder: &Path| Some(folder.join(name)).filter(|path| path.is_file());
    running.ancestors().skip(1).take(2).find_map(beside).with_context(|| {
        format!("{name} is not beside {}: build it with `cargo build --bin {name}`", running.display())
    })
}

/// The content of a program of this workspace without symbols: small, and the same for every checkout.
pub async fn stripped(name: &str) -> Result<Vec<u8>> {
    let program = built(name)?;
    let target = tempfile::NamedTempFile::new().context("creating a file for a stripped program")?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-all").arg("-o").arg(target.path()).arg(&program);
    output_of(&mut strip).await?;
    std::fs::read(target.path()).with_context(|| format!("reading the stripped {name}"))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
