//! Speaks with an emulator over its control socket: gives commands, hears why a machine ends.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::host::{channel, machine};

/// Why an emulator ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest wants to be restarted.
    Reboot,
    /// The guest has switched itself off.
    PowerOff,
    /// Nobody in the guest asked for it.
    Other,
}

/// The one client of an emulator's control socket.
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects to the emulator whose files are in `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        let stream = channel::connect(folder, machine::MONITOR)?;
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.tell(&json!({ "execute": "qmp_capabilities" }))?;
        Ok(monitor)
    }

    /// Saves the machine's running state inside its disk.
    pub fn save(&mut self, name: &str) -> Result<()> {
        let arguments = json!({ "command-line": format!("savevm {name}") });
        let said = self.tell(&json!({ "execute": "human-monitor-command", "arguments": arguments }))?;
        // The command reports its errors as text and is silent when all went well.
        if said.as_str().is_some_and(|text| !text.trim().is_empty()) {
            bail!("saving the machine's state: {said}");
        }
        Ok(())
    }

    /// Ends the emulator in good order.
    pub fn quit(&mut self) -> Result<()> {
        self.tell(&json!({ "execute": "quit" })).map(drop)
    }

    /// Waits until the emulator ends.
    pub fn wait_ending(&mut self) -> Ending {
        let mut ending = Ending::Other;
        while let Ok(Some(message)) = self.message() {
            if message["event"] == "SHUTDOWN" {
                ending = match message["data"]["reason"].as_str() {
                    Some("guest-reset") => Ending::Reboot,
                    Some("guest-shutdown") => Ending::PowerOff,
                    _ => Ending::Other,
                };
            }
        }
        ending
    }

    /// Sends a command and gives its answer; greetings and events in between are of no interest.
    fn tell(&mut self, command: &Value) -> Result<Value> {
        let sent = writeln!(self.stream.get_mut(), "{command}");
        sent.with_context(|| format!("telling the emulator {command}"))?;
        while let Some(mut message) = self.message()? {
            if let Some(error) = message.get("error") {
                bail!("the emulator refuses {command}: {error}");
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
        }
        bail!("the emulator ended before it answered {command}")
    }

    fn message(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("listening to the emulator")? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).with_context(|| format!("reading {line:?}"))
    }
}
