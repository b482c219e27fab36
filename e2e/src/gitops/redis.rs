//! A redis on loopback, in which Argo CD keeps what it has read: Debian's own, unpacked beside the machine and never
//! installed.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::server::answers;
use crate::{
    cache::{Cache, Key},
    host::process::{Lifetime, Process, Surroundings},
    port::free_port,
    unpacked,
};

/// The server and the libraries that it brings along; the C library is the machine's own.
const PACKAGES: [&str; 5] = ["redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1"];

/// A running redis; it ends when dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    _process: Process,
}

impl Redis {
    /// Starts one that writes nothing to disk; it answers when this returns.
    pub async fn start(cache: &Cache, folder: &Path) -> Result<Self> {
        let root = root(cache).await?;
        let port = free_port()?;
        let arguments = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""].map(str::to_owned);
        let libraries = root.join("usr/lib/x86_64-linux-gnu").display().to_string();
        let variables = [("LD_LIBRARY_PATH", libraries)];
        let surroundings = Surroundings { folder, log: "redis.log", variables: &variables };
        let process =
            Process::start_in(&surroundings, &root.join("usr/bin/redis-server"), &arguments, Lifetime::Tethered)?;
        answers("redis", port).await?;
        Ok(Self { port, _process: process })
    }

    /// Where it answers.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

async fn root(cache: &Cache) -> Result<PathBuf> {
    let packages = PACKAGES.map(str::to_owned);
    let key = Key::new().with("packages", packages.join(" "));
    cache
        .entry("redis", &key, "unpacking redis", async |folder| {
            unpacked::unpack(&["bookworm"], &packages, folder).await
        })
        .await
}
