//! Unpacks Debian packages into a folder: nothing is installed, nothing is started, apt's own state stays as it is.

#![expect(clippy::disallowed_methods, reason = "packages are files")]

use std::{fs, path::Path};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{packages, program::output_of};

/// Downloads the newest `packages` of `releases` from this machine's mirror and unpacks them into `folder`.
///
/// A package may say the release it comes from, as in `qemu-utils/bookworm-backports`.
pub async fn unpack(releases: &[&str], packages: &[String], folder: &Path) -> Result<()> {
    let mirror = packages::mirror().await?;
    download(&mirror.archive, releases, packages, folder).await?;
    let debs = folder.join("debs");
    for entry in fs::read_dir(&debs).with_context(|| format!("listing {}", debs.display()))? {
        let package = entry.with_context(|| format!("listing {}", debs.display()))?.path();
        output_of(Command::new("dpkg").arg("-x").arg(package).arg(folder)).await?;
    }
    for scratch in ["debs", "lists", "archives"] {
        fs::remove_dir_all(folder.join(scratch)).with_context(|| format!("removing {scratch} of the download"))?;
    }
    Ok(())
}

async fn download(archive: &str, releases: &[&str], packages: &[String], folder: &Path) -> Result<()> {
    for path in ["lists/partial", "archives/partial", "debs"] {
        fs::create_dir_all(folder.join(path)).with_context(|| format!("creating {path} in {}", folder.display()))?;
    }
    let list = folder.join("sources.list");
    let keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let sources: String = releases.iter().map(|release| format!("deb {keyring} {archive} {release} main\n")).collect();
    fs::write(&list, sources).with_context(|| format!("writing {}", list.display()))?;
    output_of(apt_get(folder, &list).arg("update")).await?;
    let mut download = apt_get(folder, &list);
    output_of(download.arg("download").args(packages).current_dir(folder.join("debs"))).await.map(drop)
}

/// apt drops its rights to a user who may not read below root's home.
fn apt_get(folder: &Path, list: &Path) -> Command {
    let mut command = Command::new("apt-get");
    for option in [
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State::lists={}", folder.join("lists").display()),
        format!("Dir::Cache={}", folder.display()),
        "APT::Get::List-Cleanup=0".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ] {
        command.arg("-o").arg(option);
    }
    command
}
