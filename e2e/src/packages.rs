//! Installs the Debian packages the harness needs, and knows the mirror that this machine itself installs from.

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::{cache::Cache, program::output_of, progress};

/// A command the harness calls and the Debian package that brings it.
const NEEDED: [(&str, &str); 12] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mmdebstrap", "mmdebstrap"),
    ("cpio", "cpio"),
    ("systemd-nspawn", "systemd-container"),
    ("xz", "xz-utils"),
    ("mke2fs", "e2fsprogs"),
    ("modprobe", "kmod"),
    ("strip", "binutils"),
    ("setpriv", "util-linux"),
    ("chroot", "coreutils"),
    ("dpkg-parsechangelog", "dpkg-dev"),
];

/// Where this machine gets Debian from.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The archive's address, without a trailing slash.
    pub archive: String,
    /// apt options of this machine (proxies, stale mirrors) that other roots need as well, in apt's own syntax.
    pub options: String,
}

/// Installs what is missing; does nothing, and asks no server, if nothing is.
pub async fn install_missing(cache: &Cache) -> Result<()> {
    if missing().is_empty() {
        return Ok(());
    }
    let _lock = cache.lock("packages").await?;
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let what = format!("installing {}", packages.join(" "));
    progress::during(&what, install(&packages)).await.with_context(|| what.clone())
}

/// The Debian archive in this machine's own apt sources.
pub async fn mirror() -> Result<Mirror> {
    let targets = output_of(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)",
        "Created-By: Packages",
    ]))
    .await?;
    let Some(archive) = archive_in(&targets) else {
        bail!("apt-get indextargets names no Debian archive with component main; add one to /etc/apt/sources.list");
    };
    let settings = output_of(Command::new("apt-config").args(["dump", "Acquire"])).await?;
    Ok(Mirror { archive, options: network_options(&settings) })
}

/// How to reach an archive and whether to accept an old one; nothing else of this machine's settings fits another root.
fn network_options(settings: &str) -> String {
    const PREFIXES: [&str; 5] =
        ["Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv"];
    let is_wanted = |line: &&str| PREFIXES.iter().any(|prefix| line.starts_with(prefix)) && !line.ends_with("\"\";");
    settings.lines().filter(is_wanted).flat_map(|line| [line, "\n"]).collect()
}

fn missing() -> Vec<&'static str> {
    NEEDED.iter().filter(|(command, _)| !is_installed(command)).map(|(_, package)| *package).collect()
}

fn is_installed(command: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|folder| std::path::Path::new(folder).join(command).is_file())
}

async fn install(packages: &[&str]) -> Result<()> {
    apt_get(&["update", "-q"]).await?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    apt_get(&arguments).await
}

async fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    output_of(&mut command).await.map(drop)
}

/// The first archive that is Debian's own main component of a release, not its updates or security.
fn archive_in(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| match *line.split(' ').collect::<Vec<_>>() {
        ["Debian", "main", release, archive] if !release.contains('-') => {
            Some(archive.trim_end_matches('/').to_owned())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_release_and_not_its_updates() {
        let targets = "Debian main bookworm-security http://one.example/debian-security/\n\
                       Other main bookworm http://two.example/other/\n\
                       Debian main bookworm http://three.example/debian/\n";
        assert_eq!(archive_in(targets).as_deref(), Some("http://three.example/debian"));
    }
}
