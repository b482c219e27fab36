//! Connects to the API server and watches the agent's own object, again and again, for as long as the agent runs.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config};
use lamina_crds::Term;
use tokio::sync::watch;

use super::host_states;
use crate::cluster::{RawHostState, Seen};

/// A watch ends after this many seconds and is begun anew, so that a link that died silently shows.
const WATCH_SECONDS: u32 = 90;
/// Without an answer for this long the connection counts as dead; longer than any watch may be silent.
const SILENCE: Duration = Duration::from_secs(120);
/// The shortest and the longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Through the file of this name.
    Kubeconfig(PathBuf),
    /// With what a pod finds in itself.
    InCluster,
}

/// Keeps a client and what the watch shows up to date; never ends.
pub async fn watch_for_ever(
    access: Access,
    host: String,
    client_sender: watch::Sender<Option<Client>>,
    seen_sender: watch::Sender<Seen>,
) {
    let mut pause = PAUSE.0;
    let mut told = String::new();
    loop {
        let (progress, trouble) = match client(&access).await {
            Ok(client) => {
                client_sender.send_replace(Some(client.clone()));
                watch_until_broken(client, &host, &seen_sender).await
            }
            Err(error) => (Progress::None, error.to_string()),
        };
        if progress == Progress::Some {
            pause = PAUSE.0;
        }
        // A server that stays away is told once, not at every attempt.
        if trouble != told {
            tracing::warn!(error = %trouble, "the API server cannot be watched");
            told = trouble;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn client(access: &Access) -> Result<Client, anyhow::Error> {
    let mut config = match access {
        Access::InCluster => Config::incluster()?,
        Access::Kubeconfig(path) => {
            let file = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
    };
    // The agent tries again by itself, and must know at once that a call did not work.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

/// Whether a watch showed anything before it broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    None,
    Some,
}

/// Watches until the first error; the caller makes a new client, which reads a changed kubeconfig, too.
async fn watch_until_broken(client: Client, host: &str, seen: &watch::Sender<Seen>) -> (Progress, String) {
    let api: Api<DynamicObject> = Api::all_with(client, &host_states());
    let config = watcher::Config::default().fields(&format!("metadata.name={host}")).timeout(WATCH_SECONDS);
    let mut events = std::pin::pin!(watcher(api, config));
    let mut listed = Seen::Nothing;
    let mut progress = Progress::None;
    while let Some(event) = events.next().await {
        match event {
            // Said before the server is asked.
            Ok(Event::Init) => {
                listed = Seen::Nothing;
                continue;
            }
            Ok(Event::InitApply(object)) => listed = seen_as(object),
            Ok(Event::InitDone) => show(seen, std::mem::replace(&mut listed, Seen::Nothing)),
            Ok(Event::Apply(object)) => show(seen, seen_as(object)),
            Ok(Event::Delete(_)) => show(seen, Seen::Nothing),
            Err(error) => return (progress, error.to_string()),
        }
        progress = Progress::Some;
    }
    (progress, "the watch ended".to_owned())
}

/// Wakes the agent only if something is new to it: an object whose status alone it wrote itself is not.
fn show(seen: &watch::Sender<Seen>, now: Seen) {
    seen.send_if_modified(|before| {
        let is_news = !same_instruction(before, &now);
        *before = now;
        is_news
    });
}

fn same_instruction(before: &Seen, now: &Seen) -> bool {
    match (before, now) {
        (Seen::Object(before), Seen::Object(now)) => {
            before.uid == now.uid && before.generation == now.generation && before.annotations == now.annotations
        }
        (before, now) => before == now,
    }
}

fn seen_as(object: DynamicObject) -> Seen {
    let DynamicObject { types: _, metadata, data } = object;
    let entries = data.pointer("/spec/topologies").and_then(|entries| entries.as_array()).cloned();
    let term = data.pointer("/spec/term").and_then(serde_json::Value::as_i64).and_then(Term::new);
    let status = data.get("status").and_then(|status| serde_json::from_value(status.clone()).ok());
    Seen::Object(Box::new(RawHostState {
        uid: metadata.uid.unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        term: term.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
        entries: entries.unwrap_or_default(),
        status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(generation: i64, observed: i64) -> Seen {
        let value = serde_json::json!({
            "apiVersion": "lamina.dev/v1alpha1", "kind": "HostState",
            "metadata": { "name": "host-7", "uid": "u", "generation": generation },
            "spec": { "term": 4, "topologies": [{ "name": "orchestrator", "colour": "blue" }] },
            "status": { "observedGeneration": observed },
        });
        seen_as(serde_json::from_value(value).expect("an object"))
    }

    #[test]
    fn an_entry_with_an_unknown_field_reaches_the_agent_as_it_is() {
        let Seen::Object(seen) = object(3, 2) else { panic!("an object") };
        assert_eq!(seen.entries[0]["colour"], "blue");
        assert_eq!(seen.term.get(), 4);
        assert_eq!((seen.generation, seen.status.map(|status| status.observed_generation)), (3, Some(2)));
    }

    #[test]
    fn a_status_of_ones_own_is_no_news() {
        let (sender, mut receiver) = watch::channel(Seen::NotYet);
        show(&sender, object(1, -1));
        assert!(receiver.has_changed().expect("open"));
        receiver.mark_unchanged();
        show(&sender, object(1, 1));
        assert!(!receiver.has_changed().expect("open"));
        assert_eq!(*receiver.borrow(), object(1, 1));
        show(&sender, object(2, 1));
        assert!(receiver.has_changed().expect("open"));
        receiver.mark_unchanged();
        show(&sender, Seen::Nothing);
        assert!(receiver.has_changed().expect("open"));
    }
}
