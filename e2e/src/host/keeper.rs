//! Keeps one emulated machine running, in a process of its own: a guest that reboots gets a new emulator.
//!
//! The emulator could reset the machine by itself, but one that runs its processors in parallel now and then dies of it.

#![expect(clippy::disallowed_methods, reason = "what a keeper runs is a file")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::host::{
    Lifetime, machine,
    monitor::{Ending, Monitor},
    process::{Process, ProcessId},
    snapshot,
};

/// What the keeper runs, in the machine's folder.
const ORDER: &str = "machine.json";

/// The emulator it runs now, in the machine's folder.
const EMULATOR: &str = "emulator.json";

/// How the machine starts for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Start {
    /// From the state saved in its disk.
    Restore,
    /// From its disk, as after a power cut.
    Boot,
}

/// The emulator and its arguments, without what they are started from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The emulator.
    pub system: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Order {
    /// Leaves the order in `folder` for the keeper to find.
    pub fn save(&self, folder: &Path) -> Result<()> {
        write(&folder.join(ORDER), self)
    }
}

/// Runs the machine in `folder` until it is switched off or its emulator dies.
pub fn keep(folder: &Path, mut start: Start) -> Result<()> {
    let Order { system, arguments } = read(&folder.join(ORDER))?;
    loop {
        let state = match start {
            Start::Restore => vec!["-loadvm".to_owned(), snapshot::STATE.to_owned()],
            Start::Boot => Vec::new(),
        };
        let arguments = [arguments.clone(), state].concat();
        let said_before = console(folder).len();
        let mut emulator = Process::start(&system, &arguments, folder, snapshot::LOG, Lifetime::Tethered)?;
        write(&folder.join(EMULATOR), emulator.id())?;
        let ending = open(folder, &mut emulator)?.wait_ending();
        emulator.id().wait_gone(Duration::from_secs(60)).or_else(|_| emulator.kill())?;
        match confirmed(ending, console(folder).get(said_before..).unwrap_or_default()) {
            Ending::Reboot => start = Start::Boot,
            Ending::PowerOff => return Ok(()),
            Ending::Other => bail!("the emulator in {} has died", folder.display()),
        }
    }
}

/// How a machine ended whose emulator gave the reason `heard` and whose kernel said `said` on the console meanwhile.
///
/// An emulator that runs its processors in parallel now and then dies of a reset that it should only have reported
/// (an assertion of `iotlb_to_section` in QEMU 10). The kernel's last line tells that its disks were in order by then.
fn confirmed(heard: Ending, said: &[u8]) -> Ending {
    let said = String::from_utf8_lossy(said);
    let last = said.trim_end().rsplit('\n').next().unwrap_or_default();
    match heard {
        Ending::Other if last.ends_with("reboot: Restarting system") => Ending::Reboot,
        Ending::Other if last.ends_with("reboot: Power down") => Ending::PowerOff,
        heard => heard,
    }
}

/// What was said on the machine's console so far; nothing before its first start.
fn console(folder: &Path) -> Vec<u8> {
    fs::read(folder.join(machine::CONSOLE)).unwrap_or_default()
}

/// Ends the emulator that a keeper left behind in `folder`, if there is one, and waits until its disk is free.
pub fn end_emulator(folder: &Path) -> Result<()> {
    let path = folder.join(EMULATOR);
    if !path.exists() {
        return Ok(());
    }
    read::<ProcessId>(&path)?.kill()
}

fn open(folder: &Path, emulator: &mut Process) -> Result<Monitor> {
    let begin = Instant::now();
    loop {
        match Monitor::open(folder) {
            Ok(monitor) => return Ok(monitor),
            Err(error) if !emulator.is_alive() => return Err(error).context("the emulator ended at once"),
            Err(error) if begin.elapsed() > snapshot::BOOT => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).with_context(|| format!("describing {}", path.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn read<T: for<'text> Deserialize<'text>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_that_dies_of_a_reset_has_still_reset() {
        let restart = b"[   24.1] systemd-shutdown[1]: Rebooting.\n[   25.883089] reboot: Restarting system\r\n";
        assert_eq!(confirmed(Ending::Other, restart), Ending::Reboot);
        assert_eq!(confirmed(Ending::Other, b"[   25.8] reboot: Power down"), Ending::PowerOff);
    }

    #[test]
    fn an_emulator_that_dies_of_anything_else_has_died() {
        for said in [&b""[..], b"[    0.1] Linux\n", b"[   25.8] reboot: Restarting system\n[    0.1] Linux\n", b"\xff"]
        {
            assert_eq!(confirmed(Ending::Other, said), Ending::Other);
        }
    }

    #[test]
    fn what_the_emulator_reports_counts_first() {
        assert_eq!(confirmed(Ending::PowerOff, b"reboot: Restarting system"), Ending::PowerOff);
    }
}
