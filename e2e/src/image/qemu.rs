//! Finds an emulator that runs current kernels: this machine's own, or a newer one unpacked beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::{
    cache::{Cache, Key},
    packages,
    program::output_of,
    unpacked,
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
    if major(&installed.version) >= OLDEST { Ok(installed) } else { newer(cache).await }
}

async fn newer(cache: &Cache) -> Result<Qemu> {
    let key = Key::new().with("recipe", include_str!("qemu.rs"));
    let entry = cache
        .entry("qemu", &key, &format!("unpacking QEMU from {BACKPORTS}"), async |folder| {
            let wanted = PACKAGES.map(|package| format!("{package}/{BACKPORTS}"));
            unpacked::unpack(&["bookworm", BACKPORTS], &wanted, folder).await
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

async fn version(system: &Path) -> Result<String> {
    let said = output_of(Command::new(system).arg("--version")).await?;
    let version = said.split_whitespace().skip_while(|word| *word != "version").nth(1);
    version.map(ToOwned::to_owned).with_context(|| format!("{} does not tell its version", system.display()))
}

fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
