//! A Git repository and a working copy of it: files in, commits out.

#![expect(clippy::disallowed_methods, reason = "a working copy is files, and a commit has a time")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::program::output_of;

/// A repository that others fetch from, seen by somebody who commits to its branch `main`.
#[derive(Debug)]
pub struct Repository {
    copy: PathBuf,
}

/// A published commit.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its forty digits.
    pub id: String,
    /// When others could fetch it.
    pub published: Instant,
}

impl Repository {
    /// Makes an empty repository at `bare`, and a working copy of it at `copy`.
    pub async fn create(bare: &Path, copy: &Path) -> Result<Self> {
        fs::create_dir_all(copy).with_context(|| format!("creating {}", copy.display()))?;
        let mut init = Command::new("git");
        output_of(init.args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(bare)).await?;
        let this = Self { copy: copy.to_owned() };
        this.git(&["init", "--quiet", "--initial-branch=main"]).await?;
        this.git(&["remote", "add", "origin", bare.to_str().context("a path is text")?]).await?;
        Ok(this)
    }

    /// Writes a file of the working copy.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        let path = self.copy.join(path);
        let folder = path.parent().context("a file lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    }

    /// Removes a file of the working copy.
    pub fn remove(&self, path: &str) -> Result<()> {
        let path = self.copy.join(path);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// Copies a folder into the working copy, links as links.
    pub async fn bring(&self, folder: &Path) -> Result<()> {
        output_of(Command::new("cp").arg("--archive").arg(folder).arg(&self.copy)).await.map(drop)
    }

    /// Commits everything and publishes it.
    pub async fn commit(&self, message: &str) -> Result<Commit> {
        self.git(&["add", "--all"]).await?;
        self.git(&["commit", "--quiet", "--message", message]).await?;
        self.git(&["push", "--quiet", "origin", "main"]).await?;
        self.just_published().await
    }

    /// The last commit, which was published a moment ago.
    pub async fn just_published(&self) -> Result<Commit> {
        let published = Instant::now();
        let id = self.git(&["rev-parse", "HEAD"]).await?.trim().to_owned();
        Ok(Commit { id, published })
    }

    /// The working copy.
    pub fn folder(&self) -> &Path {
        &self.copy
    }

    /// Publishes the last commit as a tag.
    pub async fn tag(&self, name: &str) -> Result<()> {
        self.git(&["tag", name]).await?;
        self.git(&["push", "--quiet", "origin", name]).await.map(drop)
    }

    /// Git in the working copy, untouched by what this machine's user has set.
    async fn git(&self, arguments: &[&str]) -> Result<String> {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.copy).args(["-c", "user.name=fleet", "-c", "user.email=fleet@localhost"]);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        output_of(git.args(arguments)).await
    }
}
