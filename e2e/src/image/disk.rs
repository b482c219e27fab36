//! Makes a guest's disk: a suite's root, what only guests need, and the programs that never change while one develops.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{
    cache::{Cache, Key},
    image::{Purpose, Suite, kernel, node, root},
    program::{output_of, stripped},
};

/// The running example's programs; one file with many names.
pub const WORKLOADS: [&str; 8] =
    ["orchestrator", "router", "parser", "hitl", "api", "runner", "agent-runner", "fanout"];

/// Where the running example's programs are in every host.
pub const WORKLOAD_FOLDER: &str = "opt/orchestrator/bin";

/// Units that cost an emulated machine much time and a test host nothing.
const MASKED: [&str; 29] = [
    "systemd-udevd.service",
    "systemd-udevd-kernel.socket",
    "systemd-udevd-control.socket",
    "systemd-udev-trigger.service",
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-random-seed.service",
    "systemd-sysusers.service",
    "systemd-binfmt.service",
    "systemd-modules-load.service",
    "modprobe@.service",
    "systemd-sysctl.service",
    "systemd-remount-fs.service",
    "systemd-user-sessions.service",
    "systemd-journal-flush.service",
    "systemd-journal-catalog-update.service",
    "systemd-pstore.service",
    "kmod-static-nodes.service",
    "systemd-fsck-root.service",
    "timers.target",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
];

/// The service that answers the harness; commands started through it outlive a restart of it.
const CHANNEL: &str = "[Unit]
Description=Command channel of the lab
DefaultDependencies=no

[Service]
ExecStart=/usr/local/lib/lamina-lab-guest
Restart=always
RestartSec=1
KillMode=process
OOMScoreAdjust=-1000

[Install]
WantedBy=sysinit.target
";

/// What a guest boots from. The three files never change and never move: snapshots refer to them.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The root file system, raw.
    pub image: PathBuf,
    /// The kernel.
    pub vmlinuz: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// What all three were made of.
    pub key: Key,
}

/// The disk and kernel of `suite`, built if need be.
pub async fn disk(cache: &Cache, suite: Suite, purpose: Purpose) -> Result<Disk> {
    let root = root::root(cache, suite, purpose).await?;
    let fittings = match purpose {
        Purpose::Plain => None,
        Purpose::Node => Some(node::Fittings::find().await?),
    };
    let key = Key::new()
        .with("recipe", include_str!("disk.rs"))
        .with("kernel", include_str!("kernel.rs"))
        .with("root", root.as_os_str().as_encoded_bytes())
        // Their text, and not what the compiler made of it, which differs from checkout to checkout.
        .with("frame", include_str!("../host/frame.rs"))
        .with("channel", include_str!("../bin/lamina-lab-guest.rs"))
        .with("workload", include_str!("../bin/lamina-workload.rs"));
    let key = fittings.iter().fold(key, |key, fittings| fittings.add_to(key));
    let label = purpose.label(suite);
    let what = format!("building the guest image of {label}");
    let entry = cache
        .entry(&format!("image-{label}"), &key, &what, async |folder| {
            kernel::extract(&root, folder).await?;
            let tree = folder.join("tree");
            clone(&root, &tree).await?;
            furnish(&tree, &stripped("lamina-lab-guest").await?, &stripped("lamina-workload").await?)?;
            if let Some(fittings) = &fittings {
                fittings.furnish(&tree).await?;
            }
            pack(&tree, &folder.join("disk.raw")).await?;
            fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))
        })
        .await?;
    Ok(Disk { image: entry.join("disk.raw"), vmlinuz: entry.join("vmlinuz"), initrd: entry.join("initrd"), key })
}

/// A copy whose files are shared with the original: it may add and replace, but not change.
async fn clone(root: &Path, tree: &Path) -> Result<()> {
    output_of(Command::new("cp").arg("-al").arg(root).arg(tree)).await.map(drop)
}

fn furnish(tree: &Path, channel: &[u8], workload: &[u8]) -> Result<()> {
    for unit in MASKED {
        root::mask(tree, unit)?;
    }
    // It starts when somebody calls it, as `systemctl reboot` does.
    root::remove(tree, "usr/lib/systemd/system/multi-user.target.wants/systemd-logind.service")?;
    root::write(tree, "etc/systemd/system/lamina-lab-guest.service", CHANNEL)?;
    root::create(tree, "etc/systemd/system/sysinit.target.wants")?;
    symlink(
        "/etc/systemd/system/lamina-lab-guest.service",
        tree.join("etc/systemd/system/sysinit.target.wants/lamina-lab-guest.service"),
    )
    .context("enabling the command channel")?;
    program(tree, "usr/local/lib/lamina-lab-guest", channel)?;
    install_workloads(&tree.join(WORKLOAD_FOLDER), workload)
}

/// Puts the workload into `folder` under each of its names.
pub fn install_workloads(folder: &Path, workload: &[u8]) -> Result<()> {
    let (first, others) = WORKLOADS.split_first().context("the running example has programs")?;
    program(folder, first, workload)?;
    for name in others {
        fs::hard_link(folder.join(first), folder.join(name)).with_context(|| format!("naming a workload {name}"))?;
    }
    Ok(())
}

/// Puts a program below `tree`.
pub fn program(tree: &Path, path: &str, content: &[u8]) -> Result<()> {
    root::write(tree, path, content)?;
    fs::set_permissions(tree.join(path), fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {path} executable"))
}

/// A journal on the disk, as real hosts have: tests cut the power.
async fn pack(tree: &Path, image: &Path) -> Result<()> {
    output_of(Command::new("truncate").args(["-s", "3G"]).arg(image)).await?;
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-t", "ext4", "-J", "size=16", "-E", "lazy_itable_init=0", "-d"]).arg(tree).arg(image);
    output_of(&mut make).await.map(drop)
}
