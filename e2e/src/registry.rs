//! A registry of images on loopback: Debian's own, unpacked beside the machine and never installed.

use std::path::Path;

use anyhow::{Context, Result};
use lamina_images::registry::Registry as Client;

use crate::{
    cache::{Cache, Key},
    fleet::waiting,
    host::process::{Lifetime, Process},
    port::free_port,
    unpacked,
};

const LOG: &str = "registry.log";
const SETTINGS: &str = "registry.yml";

/// A running registry; it ends when dropped.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    _process: Process,
}

impl Registry {
    /// Starts one that keeps what it is given below `folder`; it answers when this returns.
    pub async fn start(cache: &Cache, folder: &Path) -> Result<Self> {
        let key = Key::new().with("recipe", include_str!("registry.rs"));
        let entry = cache
            .entry("docker-registry", &key, "unpacking docker-registry", async |folder| {
                unpacked::unpack(&["bookworm"], &["docker-registry".to_owned()], folder).await
            })
            .await?;
        let port = free_port()?;
        write(&folder.join(SETTINGS), &settings(folder, port))?;
        let arguments = ["serve", SETTINGS].map(str::to_owned);
        let program = entry.join("usr/bin/docker-registry");
        let process = Process::start(&program, &arguments, folder, LOG, Lifetime::Tethered)?;
        let this = Self { port, _process: process };
        let client = this.client();
        let answers = async || Ok(client.answers().await.is_ok());
        waiting::until("the registry answers", waiting::MINUTE, answers).await?;
        Ok(this)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address on this machine.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Who sends images to it.
    pub fn client(&self) -> Client {
        Client::new(&self.address())
    }
}

/// JSON is YAML.
fn settings(folder: &Path, port: u16) -> String {
    let storage = folder.join("registry");
    serde_json::json!({
        "version": 0.1,
        "log": { "level": "warn", "accesslog": { "disabled": true } },
        "storage": { "filesystem": { "rootdirectory": storage } },
        "http": { "addr": format!("127.0.0.1:{port}") },
    })
    .to_string()
}

#[expect(clippy::disallowed_methods, reason = "a registry has a file with its settings")]
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
