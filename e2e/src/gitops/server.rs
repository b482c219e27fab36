//! Serves Git repositories over HTTP on loopback, as a forge would.

#![expect(clippy::disallowed_methods, reason = "repositories are folders")]

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{binaries, repository::Repository};
use crate::{
    fleet::waiting,
    host::process::{Lifetime, Process},
    port::free_port,
};

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct GitServer {
    folder: PathBuf,
    port: u16,
    _process: Process,
}

impl GitServer {
    /// Starts one for repositories below `folder`; it answers when this returns.
    pub async fn start(folder: &Path) -> Result<Self> {
        let program = binaries::git_server().await?;
        let served = folder.join("served");
        fs::create_dir_all(&served).with_context(|| format!("creating {}", served.display()))?;
        let port = free_port()?;
        let arguments = [format!("127.0.0.1:{port}"), served.display().to_string()];
        let process = Process::start(&program, &arguments, folder, "git-server.log", Lifetime::Tethered)?;
        answers("the Git server", port).await?;
        Ok(Self { folder: folder.to_owned(), port, _process: process })
    }

    /// A new repository of this name, with a working copy to commit from.
    pub async fn repository(&self, name: &str) -> Result<Repository> {
        let bare = self.folder.join("served").join(format!("{name}.git"));
        Repository::create(&bare, &self.folder.join("copies").join(name)).await
    }

    /// Where a client finds the repository of this name.
    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}.git", self.port)
    }
}

/// Waits until somebody listens on a port.
pub async fn answers(who: &str, port: u16) -> Result<()> {
    let answers = async || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    waiting::until(&format!("{who} answers"), waiting::MINUTE, answers).await.map(drop)
}
