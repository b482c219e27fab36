//! Makes what Krew installs `kubectl lamina` from: an archive for each platform, and the manifest that names them. The same
//! program gives the same bytes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use lamina_images::layer::{File, layer};
use serde_json::json;

use crate::cache::Cache;
use crate::go_program::{GoBuilder, GoModule};

/// The program, as it lies in an archive.
const PROGRAM: &str = "kubectl-lamina";
/// The license, which Krew wants in every archive.
const LICENSE: &str = include_str!("../../LICENSE");

/// A platform in Krew's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((os @ ("linux" | "darwin" | "windows"), architecture @ ("amd64" | "arm64"))) => {
                Ok(Self { os: os.to_owned(), architecture: architecture.to_owned() })
            }
            Some(_) | None => Err(format!("{text} is no platform that Krew knows; write one such as linux/amd64")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.os, self.architecture)
    }
}

/// What is uploaded for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// For whom.
    pub platform: Platform,
    /// Its file name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The archive of a program for a platform.
///
/// # Errors
/// Fails when the program does not fit an archive.
pub fn archive(platform: Platform, program: Vec<u8>) -> Result<Archive> {
    let file = |path: &str, mode, content| File { path: path.to_owned(), mode, content };
    let files = [file(PROGRAM, 0o755, program), file("LICENSE", 0o644, LICENSE.as_bytes().to_vec())];
    let blob = layer(&files).context("packing the program")?.blob;
    let sha256 = blob.digest.trim_start_matches("sha256:").to_owned();
    Ok(Archive { name: format!("{PROGRAM}-{platform}.tar.gz"), platform, bytes: blob.bytes, sha256 })
}

/// The manifest that names these archives, uploaded below `address`.
///
/// # Errors
/// Fails when Krew would refuse it: without archives, or with an address that is not of HTTPS.
pub fn manifest(version: &str, address: &str, archives: &[Archive]) -> Result<String> {
    ensure!(!archives.is_empty(), "a manifest without a platform installs nothing; give a program");
    ensure!(
        address.starts_with("https://"),
        "the address is {address}: Krew loads archives by HTTPS only; give such one"
    );
    let address = address.trim_end_matches('/');
    let platform = |archive: &Archive| {
        let Archive { platform: Platform { os, architecture }, name, bytes: _, sha256 } = archive;
        json!({
            "selector": { "matchLabels": { "os": os, "arch": architecture } },
            "uri": format!("{address}/{name}"),
            "sha256": sha256,
            "bin": PROGRAM,
            "files": [{ "from": PROGRAM, "to": "." }, { "from": "LICENSE", "to": "." }],
        })
    };
    let manifest = json!({
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": { "name": "lamina" },
        "spec": {
            "version": format!("v{version}"),
            "shortDescription": "See how hosts hold their CPUs, memory nodes and limits",
            "description": "Lamina pins systemd slices and services of hosts to CPUs and memory nodes.\n\
                `status` tells what is not as asked, since when, and what to do. `verify` shows\n\
                asked, systemd and kernel side by side, measured now. `top` shows what slices and\n\
                services use. `plan`, `map`, `place`, `hardware` and `import` need no cluster.\n",
            "caveats": "status needs the ClusterRole lamina-view; verify and top of a cluster's hosts need\n\
                the Role lamina-measure, which the chart makes with roles.measure=true.\n",
            "platforms": archives.iter().map(platform).collect::<Vec<_>>(),
        },
    });
    serde_yaml::to_string(&manifest).context("writing the manifest")
}

/// Krew itself, to try a manifest with.
///
/// # Errors
/// Fails when it cannot be built.
pub async fn krew(cache: Cache) -> Result<PathBuf> {
    const MODULE: GoModule = GoModule { folder: concat!(env!("CARGO_MANIFEST_DIR"), "/krew"), tags: "", sources: &[] };
    GoBuilder::new(cache).program("krew", MODULE, "sigs.k8s.io/krew/cmd/krew").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_each_archive_by_its_digest() {
        let platform = |text: &str| text.parse::<Platform>().expect("a platform");
        let amd64 = archive(platform("linux/amd64"), b"program".to_vec()).expect("an archive");
        assert_eq!(archive(platform("linux/amd64"), b"program".to_vec()).expect("an archive"), amd64);
        let arm64 = archive(platform("linux/arm64"), b"another".to_vec()).expect("an archive");
        let text = manifest("0.1.0", "https://files.example/v0.1.0/", &[amd64.clone(), arm64]).expect("a manifest");
        assert!(text.contains("uri: https://files.example/v0.1.0/kubectl-lamina-linux-amd64.tar.gz"), "{text}");
        assert!(text.contains(&amd64.sha256) && amd64.sha256.len() == 64, "{text}");
    }

    #[test]
    fn what_krew_would_refuse_is_refused() {
        let one = archive("linux/amd64".parse().expect("a platform"), Vec::new()).expect("an archive");
        assert!(manifest("0.1.0", "http://files.example", &[one]).is_err());
        assert!(manifest("0.1.0", "https://files.example", &[]).is_err());
        assert!("plan9/amd64".parse::<Platform>().is_err());
    }
}
