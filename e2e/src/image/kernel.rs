//! Takes the kernel out of a root and makes the smallest initramfs that finds its disk and closes its network.

#![expect(clippy::disallowed_methods, reason = "kernels are files")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::program::output_of;

/// What the disk, the command channel and the network need, in the order the kernel wants them.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_blk", "virtio_console", "overlay", "virtio_net", "dummy"];

/// The address of a guest in the network that QEMU makes for it alone.
const ADDRESS: &str = "10.0.2.15";

/// Copies the newest kernel of `root` to `vmlinuz` and writes `initrd`, both in `folder`.
pub async fn extract(root: &Path, folder: &Path) -> Result<()> {
    let version = version(root)?;
    let image = root.join("boot").join(format!("vmlinuz-{version}"));
    fs::copy(&image, folder.join("vmlinuz")).with_context(|| format!("copying the kernel {}", image.display()))?;
    let tree = folder.join("initrd.d");
    create_tree(&tree, root)?;
    for (number, module) in modules(root, &version).await?.iter().enumerate() {
        unpack(module, &tree.join("m").join(format!("{number:02}.ko"))).await?;
    }
    let mut pack = Command::new("sh");
    pack.args(["-ec", "find . | cpio --quiet -o -H newc -R 0:0 > ../initrd"]).current_dir(&tree);
    output_of(&mut pack).await?;
    fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))
}

fn version(root: &Path) -> Result<String> {
    let folder = root.join("lib/modules");
    let entries = fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
    let versions = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    versions.max().with_context(|| format!("{} holds no kernel's modules", folder.display()))
}

fn create_tree(tree: &Path, root: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for name in ["bin", "dev", "proc", "sys", "new", "m"] {
        let folder = tree.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::copy(root.join("bin/busybox"), tree.join("bin/busybox")).context("copying busybox into the initramfs")?;
    let init = tree.join("init");
    fs::write(&init, init_script()).with_context(|| format!("writing {}", init.display()))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).context("making the initramfs's /init executable")
}

/// The default route leads into a dummy: packets to addresses nobody has must not even reach the emulated network.
fn init_script() -> String {
    format!(
        "#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc; $b mount -t sysfs s /sys; $b mount -t devtmpfs d /dev
for m in /m/*; do $b insmod $m; done
$b ip link set lo up
$b ip link set eth0 up; $b ip addr add {ADDRESS}/24 dev eth0
$b ip link set dummy0 up; $b ip route add default dev dummy0 src {ADDRESS}
$b mount -t ext4 -o rw,noatime /dev/vda /new
$b umount /proc /sys; $b mount -o move /dev /new/dev
exec $b switch_root /new /sbin/init
"
    )
}

/// The modules' files with all they depend on, first things first; what is built into the kernel has none.
async fn modules(root: &Path, version: &str) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let mut command = Command::new("modprobe");
        command.args(["-S", version, "--show-depends", module]).arg("-d").arg(root);
        for file in output_of(&mut command).await?.lines().filter_map(module_file) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

fn module_file(line: &str) -> Option<PathBuf> {
    let mut words = line.split_whitespace();
    (words.next()? == "insmod").then(|| words.next().map(PathBuf::from))?
}

/// Newer kernels ship their modules compressed, which busybox does not read.
async fn unpack(module: &Path, target: &Path) -> Result<()> {
    let is_packed = module.extension().is_some_and(|extension| extension == "xz");
    if !is_packed {
        return fs::copy(module, target).map(drop).with_context(|| format!("copying {}", module.display()));
    }
    let mut command = Command::new("sh");
    command.args(["-ec", "xz -dc -- \"$1\" > \"$2\"", "sh"]).args([module, target]);
    output_of(&mut command).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_part_of_the_kernel_has_a_file() {
        assert_eq!(module_file("builtin ext4"), None);
        assert_eq!(module_file("insmod /r/lib/dummy.ko.xz numdummies=0"), Some(PathBuf::from("/r/lib/dummy.ko.xz")));
    }
}
