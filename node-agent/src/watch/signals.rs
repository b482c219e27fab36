//! Hears systemd's signals on a connection of its own: jobs that ended, services that changed, reloads, its own restarts.
//! A lost connection is made anew for as long as it takes, and its return is a reason to look again.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::SelectAll;
use lamina_crds::{TopologyName, UnitName};
use tokio::sync::mpsc;
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream, OwnedObjectPath};

use super::Wake;
use crate::host::bus::{Bus, MANAGER, SYSTEMD, body, unit_path};

/// How long to wait before a new connection is tried.
const RETRY: Duration = Duration::from_secs(1);

/// The signals, as a task hears them.
pub struct Signals {
    heard: mpsc::Receiver<Heard>,
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    /// Something about the unit of this name.
    Unit(String),
    /// Something about the unit with this object path.
    Path(String),
    /// Something about systemd itself.
    Systemd(&'static str),
}

impl Signals {
    /// Begins to listen on the bus at this address.
    pub fn new(bus_address: String) -> Self {
        let (sender, heard) = mpsc::channel(256);
        tokio::spawn(listen_for_ever(bus_address, sender));
        Self { heard }
    }

    /// Waits for a signal that concerns one of these topologies.
    pub async fn next(&mut self, topologies: &BTreeSet<TopologyName>) -> Wake {
        loop {
            match self.heard.recv().await {
                Some(heard) => {
                    if let Some(wake) = heard.counts(topologies) {
                        return wake;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }
}

impl Heard {
    fn counts(self, topologies: &BTreeSet<TopologyName>) -> Option<Wake> {
        let is_ours = |topology: &TopologyName, path: &str| {
            let prefix = unit_path(&topology.as_str().replace('-', "_"));
            path.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with("_2d") || rest.starts_with("_2e"))
        };
        match self {
            Self::Systemd(what) => Some(Wake::Systemd(what.to_owned())),
            Self::Unit(unit) => {
                let name = UnitName::new(&unit).ok()?;
                topologies
                    .iter()
                    .any(|topology| name.belongs_to(topology))
                    .then(|| Wake::Systemd(format!("job of {unit}")))
            }
            Self::Path(path) => {
                let name = path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name).to_owned();
                topologies
                    .iter()
                    .any(|topology| is_ours(topology, &path))
                    .then(|| Wake::Systemd(format!("state of {name}")))
            }
        }
    }
}

async fn listen_for_ever(bus_address: String, sender: mpsc::Sender<Heard>) {
    let mut bus = Bus::new(bus_address);
    while !sender.is_closed() {
        if let Ok(mut signals) = subscribe(&mut bus).await {
            say(&sender, Heard::Systemd("connected"));
            while let Some(Ok(message)) = signals.next().await {
                if let Some(heard) = meaning(&message) {
                    say(&sender, heard);
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// If the queue is full, there is reason enough to look again already.
fn say(sender: &mpsc::Sender<Heard>, heard: Heard) {
    let _ = sender.try_send(heard);
}

async fn subscribe(bus: &mut Bus) -> Result<SelectAll<MessageStream>, zbus::Error> {
    let connection = bus.connection().await.map_err(|error| zbus::Error::Failure(error.to_string()))?;
    let signal = || MatchRule::builder().msg_type(Type::Signal);
    let manager = |member: &'static str| signal().interface(MANAGER).member(member).build();
    let changes = signal().interface("org.freedesktop.DBus.Properties").member("PropertiesChanged");
    let owners = signal().interface("org.freedesktop.DBus").member("NameOwnerChanged");
    let rules = [
        manager("JobRemoved")?,
        manager("UnitFilesChanged")?,
        manager("Reloading")?,
        changes.arg(0, "org.freedesktop.systemd1.Service").build()?,
        owners.arg(0, SYSTEMD).build()?,
    ];
    let mut signals = SelectAll::new();
    for rule in rules {
        signals.push(MessageStream::for_match_rule(rule, &connection, NonZeroUsize::new(1024)).await?);
    }
    Ok(signals)
}

fn meaning(message: &Message) -> Option<Heard> {
    let header = message.header();
    match header.member()?.as_str() {
        "JobRemoved" => {
            let (_, _, unit, _) = body::<(u32, OwnedObjectPath, String, String)>(message).ok()?;
            Some(Heard::Unit(unit))
        }
        // What matters is how things are after the reload.
        "Reloading" => (!body::<bool>(message).ok()?).then_some(Heard::Systemd("unit files were loaded again")),
        "UnitFilesChanged" => Some(Heard::Systemd("units were enabled or disabled")),
        "NameOwnerChanged" => Some(Heard::Systemd("it was executed anew")),
        "PropertiesChanged" => Some(Heard::Path(header.path()?.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_other_units_do_not_count() {
        let topologies = BTreeSet::from([TopologyName::new("my-app").expect("legal")]);
        let counts = |heard: Heard| heard.counts(&topologies).is_some();
        assert!(counts(Heard::Unit("my_app-x.service".to_owned())));
        assert!(!counts(Heard::Unit("my_app2-x.service".to_owned())));
        assert!(!counts(Heard::Unit("dbus.service".to_owned())));
        assert!(counts(Heard::Path(unit_path("my_app-x.service"))));
        assert!(counts(Heard::Path(unit_path("my_app.slice"))));
        assert!(!counts(Heard::Path(unit_path("my_app2-x.service"))));
        assert!(counts(Heard::Systemd("connected")));
    }
}
