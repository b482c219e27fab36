//! Finds an emulator that runs current kernels: this machine's own, or a newer one unpacked beside it.

#![expect(clippy::disallowed_methods, reason = "emulators are files")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::{
    cache::{Cache, Key},
    packages,
    program::output_of,
};

/// Linux 6.12 crashes at random under the emulation of QEMU 7.2; from this version on it runs.
const OLDEST: u32 = 10;

/// The release whose newer packages run on this machine's libraries.
const BACKPORTS: &str = "bookworm-backports";

/// What the emulator is made of, in Debian's packages.
const PACKAGES: [&str; 5] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils", "seabios"];

/// An emulator and the folders of its firmware.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// `qemu-system-x86_64`.
    pub system: PathBuf,
    /// `qemu-img`.
    pub image: PathBuf,
    /// Where firmware is; empty where the emulator knows by itself.
    pub firmware: Vec<PathBuf>,
    /// What it calls itself.
    pub version: String,
}

/// The emulator every guest of this machine runs on.
pub async fn qemu(cache: &Cache) -> Result<Qemu> {
    packages::install_missing(cache).await?;
    let installed = Qemu {
        system: "/usr/bin/qemu-system-x86_64".into(),
        image: "/usr/bin/qemu-img".into(),
        firmware: Vec::new(),
        version: version(Path::new("/usr/bin/qemu-system-x86_64")).await?,
    };
    if major(&installed.version) >= OLDEST { Ok(installed) } else { unpacked(cache).await }
}

async fn unpacked(cache: &Cache) -> Result<Qemu> {
    let key = Key::new().with("recipe", include_str!("qemu.rs"));
    let entry = cache
        .entry("qemu", &key, &format!("unpacking QEMU from {BACKPORTS}"), async |folder| {
            let mirror = packages::mirror().await?;
            download(&mirror.archive, folder).await?;
            unpack(folder).await
        })
        .await?;
    let system = entry.join("usr/bin/qemu-system-x86_64");
    let version = version(&system).await?;
    if major(&version) < OLDEST {
        bail!("{BACKPORTS} holds QEMU {version}, and guests need {OLDEST} or newer");
    }
    // Built for /usr: without being told, it would take the older emulator's firmware.
    let firmware = ["usr/share/qemu", "usr/share/seabios"].map(|path| entry.join(path)).to_vec();
    Ok(Qemu { system, image: entry.join("usr/bin/qemu-img"), firmware, version })
}

/// Downloads with package lists of its own, so that nothing of this machine's package state changes.
async fn download(archive: &str, folder: &Path) -> Result<()> {
    for path in ["lists/partial", "archives/partial", "debs"] {
        fs::create_dir_all(folder.join(path)).with_context(|| format!("creating {path} in {}", folder.display()))?;
    }
    let list = folder.join("sources.list");
    let keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let sources: String =
        ["bookworm", BACKPORTS].iter().map(|suite| format!("deb {keyring} {archive} {suite} main\n")).collect();
    fs::write(&list, sources).with_context(|| format!("writing {}", list.display()))?;
    apt_get(folder, &list).arg("update").output_or_error().await?;
    let wanted = PACKAGES.map(|package| format!("{package}/{BACKPORTS}"));
    apt_get(folder, &list).arg("download").args(wanted).current_dir(folder.join("debs")).output_or_error().await
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

async fn unpack(folder: &Path) -> Result<()> {
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

async fn version(system: &Path) -> Result<String> {
    let said = output_of(Command::new(system).arg("--version")).await?;
    let version = said.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version.map(ToOwned::to_owned).with_context(|| format!("{} does not tell its version", system.display()))
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Reads better at the end of a command than around it.
trait OutputOrError {
    async fn output_or_error(&mut self) -> Result<()>;
}

impl OutputOrError for Command {
    async fn output_or_error(&mut self) -> Result<()> {
        output_of(self).await.map(drop)
    }
}
