//! Decides what an event of the agent looks like as an object of the API.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Resource;
use lamina_crds::HostState;

use crate::cluster::{EventKind, HostEvent};

/// Where events about cluster-scoped objects live.
pub const NAMESPACE: &str = "default";
/// Who reports them.
const REPORTER: &str = "lamina.dev/node-agent";
/// The longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// The event as an object, about the HostState of `host`.
pub fn about(host: &str, uid: Option<String>, event: &HostEvent, now: Timestamp) -> Event {
    let HostEvent { kind, reason, action, note } = event;
    let kind = match kind {
        EventKind::Normal => "Normal",
        EventKind::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            // As client-go names them: the object and the time, in hexadecimal.
            name: Some(format!("{host}.{:x}", now.as_nanosecond())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(kind.to_owned()),
        reason: Some((*reason).to_owned()),
        action: Some((*action).to_owned()),
        note: Some(shortened(note)),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(host.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(HostState::api_version(&()).into_owned()),
            kind: Some(HostState::kind(&()).into_owned()),
            name: Some(host.to_owned()),
            uid,
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

fn shortened(note: &str) -> String {
    let end = (0..=note.len().min(LONGEST_NOTE)).rev().find(|end| note.is_char_boundary(*end));
    note[..end.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_about_the_hosts_own_object_and_short_enough() {
        let told = HostEvent { kind: EventKind::Warning, reason: "Healed", action: "Heal", note: "ä".repeat(600) };
        let event = about("host-7", Some("u".to_owned()), &told, Timestamp::UNIX_EPOCH);
        let regarding = event.regarding.expect("an object");
        assert_eq!((regarding.kind.as_deref(), regarding.name.as_deref()), (Some("HostState"), Some("host-7")));
        assert_eq!(event.note.map(|note| note.len()), Some(1024));
    }
}
