//! Writes kubeconfigs that need no other file, except a token's where the token is renewed.

#![expect(clippy::disallowed_methods, reason = "it writes kubeconfigs")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig as ClientKubeconfig};
use serde_json::{Value, json};

/// How somebody proves who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A client certificate and its key, PEM.
    Certificate {
        /// The certificate.
        certificate: String,
        /// Its key.
        key: String,
    },
    /// A bearer token.
    Token(String),
    /// A file whose content is a bearer token; it is read again when it changes.
    TokenFile(String),
}

/// Everything somebody needs to reach one API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    /// The server's URL.
    pub server: String,
    /// The certificate of the server's authority, PEM.
    pub authority: String,
    /// Who asks.
    pub credential: Credential,
}

impl Kubeconfig {
    /// The file's text (JSON, which is YAML).
    pub fn text(&self) -> String {
        let Self { server, authority, credential } = self;
        let user = match credential {
            Credential::Certificate { certificate, key } => json!({
                "client-certificate-data": base64(certificate),
                "client-key-data": base64(key),
            }),
            Credential::Token(token) => json!({ "token": token }),
            Credential::TokenFile(path) => json!({ "tokenFile": path }),
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "lab",
                "cluster": { "server": server, "certificate-authority-data": base64(authority) },
            }],
            "users": [{ "name": "lab", "user": user }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
            "current-context": "lab",
        });
        format!("{config:#}\n")
    }

    /// Writes the file for its owner only.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.text()).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("protecting {}", path.display()))
    }

    /// A client with these rights.
    pub async fn client(&self) -> Result<Client> {
        let config = ClientKubeconfig::from_yaml(&self.text()).context("reading a kubeconfig of our own")?;
        connect(config).await
    }
}

/// A client for the kubeconfig at `path`.
pub async fn client(path: &Path) -> Result<Client> {
    let config = ClientKubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    connect(config).await
}

async fn connect(config: ClientKubeconfig) -> Result<Client> {
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .context("understanding a kubeconfig")?;
    Client::try_from(config).context("making a client")
}

fn base64(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}
