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
    Lifetime,
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
        let mut emulator = Process::start(&system, &arguments, folder, snapshot::LOG, Lifetime::Tethered)?;
        write(&folder.join(EMULATOR), emulator.id())?;
        let ending = open(folder, &mut emulator)?.wait_ending();
        emulator.id().wait_gone(Duration::from_secs(60)).or_else(|_| emulator.kill())?;
        match ending {
            Ending::Reboot => start = Start::Boot,
            Ending::PowerOff => return Ok(()),
            Ending::Other => bail!("the emulator in {} has died", folder.display()),
        }
    }
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
