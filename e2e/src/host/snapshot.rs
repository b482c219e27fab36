//! Boots a machine once and keeps its running state, so that every later host of the same kind answers in seconds.

#![expect(clippy::disallowed_methods, reason = "snapshots are files, and boots are waited for")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::{
    cache::Cache,
    host::{
        Lifetime,
        channel::Channel,
        machine::{self, Machine, Reach},
        monitor::Monitor,
        process::Process,
        tail,
    },
    image::{Purpose, Suite, disk, node, qemu},
    program::output_of,
};

/// The name of the state inside the disk.
pub const STATE: &str = "base";

/// What the emulator itself says, relative to the guest's folder.
pub const LOG: &str = "qemu.log";

/// A boot of an emulated machine of twenty CPUs on a busy host.
pub const BOOT: Duration = Duration::from_secs(300);

/// How often a machine is booted until it comes up. Nothing is under test yet, and now and then an emulated CPU gets no
/// time for so long that the kernel or systemd gives up.
const BOOTS: u32 = 3;

/// Brings what every host's first commands need into the guest's page cache, and looks whether all of it works.
const WARM_UP: &str = "set -e
systemctl is-system-running --wait
systemctl daemon-reload
systemd-run --quiet --wait true
busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.DBus.Peer Ping
perl -e 'use strict'
numastat > /dev/null
/opt/orchestrator/bin/router ask nothing 2> /dev/null || true
sync";

/// A machine that has booted.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The disk with the state inside; copied for each host, because a host writes to it.
    pub disk: PathBuf,
    /// The emulator.
    pub system: PathBuf,
    /// The emulator's arguments, without network and state.
    pub arguments: Vec<String>,
}

/// The snapshot of `machine` with `suite`, made if need be.
pub async fn snapshot(cache: &Cache, suite: Suite, purpose: Purpose, machine: &Machine) -> Result<Snapshot> {
    let qemu = qemu::qemu(cache).await?;
    let disk = disk::disk(cache, suite, purpose).await?;
    let warm_up = match purpose {
        Purpose::Plain => WARM_UP.to_owned(),
        Purpose::Node => format!("{WARM_UP}\n{}", node::WARM_UP),
    };
    let arguments = machine.arguments(&qemu, &disk)?;
    let key = disk
        .key
        .clone()
        .with("recipe", include_str!("snapshot.rs"))
        .with("warm-up", &warm_up)
        .with("qemu", &qemu.version)
        .with("arguments", arguments.join("\n"));
    let label = purpose.label(suite);
    let what = format!("booting a machine with {label} and CPUs {}", machine.layout);
    let entry = cache
        .entry(&format!("snapshot-{label}"), &key, &what, async |folder| {
            let mut boots = 1;
            loop {
                let mut create = Command::new(&qemu.image);
                create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&disk.image);
                output_of(create.arg(folder.join(machine::DISK))).await?;
                match boot_and_save(&qemu.system, &arguments, &warm_up, folder).await {
                    Err(error) if boots < BOOTS => eprintln!("{what}: boot {boots} failed, once more: {error:#}"),
                    other => return other,
                }
                boots += 1;
                empty(folder)?;
            }
        })
        .await?;
    Ok(Snapshot { disk: entry.join(machine::DISK), system: qemu.system, arguments })
}

fn empty(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder)?;
    fs::create_dir(folder).with_context(|| format!("emptying {}", folder.display()))
}

async fn boot_and_save(system: &Path, arguments: &[String], warm_up: &str, folder: &Path) -> Result<()> {
    let arguments = [arguments, &machine::network(Reach::default())?].concat();
    let mut process = Process::start(system, &arguments, folder, LOG, Lifetime::Tethered)?;
    let channel = Channel::new(folder);
    wait_answering(&channel, &mut process, folder, BOOT).await?;
    let warm = channel.exec(warm_up, BOOT).await?;
    if warm.code != 0 {
        bail!("the machine has booted but does not work: {}{}", warm.stdout, warm.stderr);
    }
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || save(&folder)).await??;
    process.kill()
}

/// Waits until the guest answers; a machine that ends instead says why.
pub async fn wait_answering(channel: &Channel, process: &mut Process, folder: &Path, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        // A question that a restarting machine swallows is asked again.
        let Err(error) = channel.answers(Duration::from_secs(5)).await else { return Ok(()) };
        let log = |name: &str| tail(&folder.join(name));
        if !process.is_alive() {
            bail!("the machine has ended: {}\n{}", log(LOG), log(machine::CONSOLE));
        }
        if begin.elapsed() > limit {
            let seconds = limit.as_secs();
            return Err(error.context(format!(
                "no answer from the guest in {seconds} s; its console ends with\n{}",
                log(machine::CONSOLE)
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn save(folder: &Path) -> Result<()> {
    let mut monitor = Monitor::open(folder)?;
    monitor.save(STATE)?;
    monitor.quit()?;
    for name in [LOG, machine::CONSOLE] {
        fs::remove_file(folder.join(name)).with_context(|| format!("removing {name}"))?;
    }
    Ok(())
}
