//! An operator as a process of this machine, with the arguments and token of its Deployment's pod.

#![expect(clippy::disallowed_methods, reason = "it writes the operator's token and record")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;

use crate::{
    control_plane::{ControlPlane, kubeconfig::Credential},
    host::process::{Lifetime, Process},
    program,
};

const LOG: &str = "operator.log";
/// Which process it is, for programs that come later.
const RECORD: &str = "operator.json";

/// A running operator, which has a folder of its own.
pub struct Operator {
    folder: PathBuf,
    process: Process,
}

/// The most that one fleet has.
const MOST: usize = 2;

impl Operator {
    /// Starts it as the pod's container would be started, in the first folder that no other one has, which is its name.
    pub fn start(
        pod: &Pod,
        control_plane: &ControlPlane,
        token: &str,
        folder: &Path,
        lifetime: Lifetime,
    ) -> Result<Self> {
        let container =
            pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("the operator's pod has a container")?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let is_free = |folder: &PathBuf| Self::in_folder(folder).is_none_or(|mut other| !other.process.is_alive());
        let folder = folders(folder).find(is_free).with_context(|| format!("at most {MOST} operators run at once"))?;
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let name = folder.file_name().and_then(|name| name.to_str()).context("the folder's name is text")?;
        let expand = |argument: &String| argument.replace("$(POD_NAMESPACE)", namespace).replace("$(POD_NAME)", name);
        write_token(&folder, token)?;
        let path = token_path(&folder).to_str().context("the folder's path is text")?.to_owned();
        let kubeconfig = folder.join("operator.kubeconfig");
        control_plane.kubeconfig(Credential::TokenFile(path))?.write(&kubeconfig)?;
        // Operators of one machine share its address, so each one answers at whatever port is free.
        let own = [format!("--kubeconfig={}", kubeconfig.display()), "--listen=127.0.0.1:0".to_owned()];
        let given = container.args.iter().flatten().filter(|argument| !argument.starts_with("--listen="));
        let arguments: Vec<String> = given.map(expand).chain(own).collect();
        let process = Process::start(&program::built("lamina-operator")?, &arguments, &folder, LOG, lifetime)?;
        let record = serde_json::to_vec(process.id()).context("describing the operator")?;
        fs::write(folder.join(RECORD), record).with_context(|| format!("writing {RECORD}"))?;
        Ok(Self { folder: folder.clone(), process })
    }

    /// The operators that another program left running in `folder`.
    pub fn attach(folder: &Path) -> Vec<Self> {
        folders(folder).filter_map(|folder| Self::in_folder(&folder)).collect()
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let record = fs::read(folder.join(RECORD)).ok()?;
        let id = serde_json::from_slice(&record).ok()?;
        Some(Self { folder: folder.to_owned(), process: Process::attach(id) })
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().context("ending the operator")
    }

    /// What it is called in the operators' Lease.
    pub fn name(&self) -> &str {
        self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Gives it a fresh token.
    pub fn renew(&self, token: &str) -> Result<()> {
        write_token(&self.folder, token)
    }

    /// Its process.
    pub fn process(&self) -> &crate::host::process::ProcessId {
        self.process.id()
    }

    /// Where it answers those who watch it, once it has said so.
    pub fn address(&self) -> Option<String> {
        let log = self.log();
        let said = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
        log.lines().filter_map(said).find_map(|line| Some(line["fields"]["address"].as_str()?.to_owned()))
    }

    /// Everything it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join(LOG)).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

fn folders(fleet: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=MOST).map(|number| fleet.join(format!("operator-{number}")))
}

fn token_path(folder: &Path) -> PathBuf {
    folder.join("operator.token")
}

fn write_token(folder: &Path, token: &str) -> Result<()> {
    let path = token_path(folder);
    fs::write(&path, token).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", path.display()))
}
