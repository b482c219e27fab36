//! What an agent remembers between passes. Losing it is always safe.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lamina_crds::TopologyName;
use lamina_crds::host_state::HostStateStatus;

use crate::accept::{Accepted, AcceptedEntry};
use crate::cluster::HostEvent;
use crate::desired::DesiredHost;
use crate::drift::Ledger;
use crate::health::Health;
use crate::preflight::Refusal;

/// Everything remembered between passes. Losing it is always safe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// What is enforced, as it stands on disk; `None` before the first look there.
    pub accepted: Option<Accepted>,
    /// The object that was last judged and followed, by uid and generation, with what was refused of it.
    pub judged: Option<(String, i64, BTreeMap<String, Refusal>)>,
    /// What was last rendered, and from what.
    pub rendered: Option<(BTreeMap<TopologyName, AcceptedEntry>, DesiredHost)>,
    /// How many passes there were.
    pub passes: u64,
    /// What was seen of services.
    pub health: Health,
    /// What was healed.
    pub drift: Ledger,
    /// Since when an entry of this revision is not as asked.
    pub unready: BTreeMap<TopologyName, (String, Timestamp)>,
    /// When systemd is asked again to load what it did not load last time.
    pub reload_due: Option<Timestamp>,
    /// The status last written.
    pub written: Option<WrittenStatus>,
    /// Events that the API server has not taken yet, oldest first.
    pub events: Vec<HostEvent>,
    /// When the API server is tried again after a call that failed.
    pub api_due: Option<Timestamp>,
}

/// A status that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenStatus {
    /// The object's uid.
    pub uid: String,
    /// What was written.
    pub status: HostStateStatus,
    /// When.
    pub at: Timestamp,
}
