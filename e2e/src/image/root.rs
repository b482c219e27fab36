//! Makes a suite's root file system from Debian packages: what disks are made of and what containers run.

#![expect(clippy::disallowed_methods, reason = "roots are files")]

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{
    cache::{Cache, Key},
    image::{Purpose, Suite, node},
    packages::{self, Mirror},
    program::output_of,
};

/// `tiny-initramfs` only satisfies the kernel's dependency, at a third of the time of the usual one.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-bin,udev,kmod,procps,numactl,util-linux,iproute2,\
                        linux-image-cloud-amd64,tiny-initramfs,busybox-static";

/// The user that the running example's services run as, and its number.
const USER: (&str, u32) = ("orchestrator", 1500);

/// The root directory of `suite`, built if need be. Nobody changes it: disks copy it, containers lay an overlay over it.
pub async fn root(cache: &Cache, suite: Suite, purpose: Purpose) -> Result<PathBuf> {
    let packages = match purpose {
        Purpose::Plain => PACKAGES.to_owned(),
        Purpose::Node => format!("{PACKAGES},{}", node::PACKAGES),
    };
    let label = purpose.label(suite);
    let key =
        Key::new().with("recipe", include_str!("root.rs")).with("suite", suite.name()).with("packages", &packages);
    let what = format!("building the root file system of {label}");
    let entry = cache
        .entry(&format!("root-{label}"), &key, &what, async |folder| {
            packages::install_missing(cache).await?;
            let root = folder.join("root");
            bootstrap(suite, &packages, &packages::mirror().await?, folder, &root).await?;
            settle(&root)
        })
        .await?;
    Ok(entry.join("root"))
}

async fn bootstrap(suite: Suite, packages: &str, mirror: &Mirror, folder: &Path, root: &Path) -> Result<()> {
    let options = folder.join("apt.conf");
    fs::write(&options, &mirror.options).with_context(|| format!("writing {}", options.display()))?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=minbase", "--mode=root"])
        .arg(format!("--aptopt={}", options.display()))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*"])
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg(format!("--include={packages}"))
        .arg(suite.name())
        .arg(root)
        .arg(&mirror.archive);
    output_of(&mut command).await.map(drop)
}

/// What every host of the suite has, whatever it runs on.
fn settle(root: &Path) -> Result<()> {
    let (user, number) = USER;
    append(root, "etc/passwd", &format!("{user}:x:{number}:{number}::/opt/{user}:/usr/sbin/nologin\n"))?;
    append(root, "etc/group", &format!("{user}:x:{number}:\n"))?;
    append(root, "etc/shadow", &format!("{user}:!:19000:0:99999:7:::\n"))?;
    for folder in ["bin", "etc"] {
        create(root, &format!("opt/{user}/{folder}"))?;
    }
    write(root, "etc/fstab", "")?;
    write(root, "etc/hostname", "lab\n")?;
    // A fixed identity until the host gets its own: otherwise PID 1 would make one at each first boot.
    write(root, "etc/machine-id", "0123456789abcdef0123456789abcdef\n")?;
    // Nothing in a host may fetch anything by itself, and nobody logs in.
    for unit in ["apt-daily.timer", "apt-daily-upgrade.timer", "systemd-firstboot.service", "getty.target"] {
        mask(root, unit)?;
    }
    Ok(())
}

/// Masks a unit of the host below `root`, as `systemctl mask` does.
pub fn mask(root: &Path, unit: &str) -> Result<()> {
    let path = format!("etc/systemd/system/{unit}");
    remove(root, &path)?;
    let link = root.join(path);
    std::os::unix::fs::symlink("/dev/null", &link).with_context(|| format!("masking {unit} in {}", root.display()))
}

/// Writes a file of the host below `root`. An older file is replaced, not changed: its content may be shared.
pub fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
    remove(root, path)?;
    let target = root.join(path);
    fs::write(&target, content).with_context(|| format!("writing {}", target.display()))
}

/// Removes a file of the host below `root`, if it is there.
pub fn remove(root: &Path, path: &str) -> Result<()> {
    match fs::remove_file(root.join(path)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("removing {path}")),
        _ => Ok(()),
    }
}

/// Creates a folder of the host below `root`, with its parents.
pub fn create(root: &Path, path: &str) -> Result<()> {
    let target = root.join(path);
    fs::create_dir_all(&target).with_context(|| format!("creating {}", target.display()))
}

fn append(root: &Path, path: &str, line: &str) -> Result<()> {
    let target = root.join(path);
    OpenOptions::new()
        .append(true)
        .open(&target)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .with_context(|| format!("adding to {}", target.display()))
}
