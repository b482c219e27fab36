//! What one client knows: the state as of some version per kind. It may lag behind, and go back in time when the client
//! reconnects to another replica.

use std::collections::BTreeMap;

use super::{Kind, Store};
use lamina_trees::Random;

/// What one client's watches have shown, by kind. Empty before the first answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View(BTreeMap<Kind, u64>);

const KINDS: [Kind; 4] = [Kind::SliceTopology, Kind::HostState, Kind::Node, Kind::Lease];

impl View {
    /// Up to which version the client has seen this kind; `None` before the first answer.
    pub fn of(&self, kind: Kind) -> Option<u64> {
        self.0.get(&kind).copied()
    }

    /// Whether every kind was answered once.
    pub fn is_complete(&self) -> bool {
        self.0.len() == KINDS.len()
    }

    /// Whether the client has seen everything that there is.
    pub fn is_current(&self, store: &Store) -> bool {
        self.0.values().all(|version| *version == store.version)
    }

    /// The watches catch up, unless the server is away.
    pub fn catch_up(&mut self, store: &Store) {
        if !store.is_away {
            self.0 = KINDS.into_iter().map(|kind| (kind, store.version)).collect();
        }
    }

    /// The watch of the leases catches up.
    pub fn catch_up_leases(&mut self, store: &Store) {
        if !store.is_away {
            self.0.insert(Kind::Lease, store.version);
        }
    }

    /// The watches catch up somewhat, each for itself.
    pub fn drift_forward(&mut self, store: &Store, random: &mut Random) {
        if store.is_away {
            return;
        }
        for kind in KINDS {
            let known = self.0.get(&kind).copied().unwrap_or(0);
            let behind = store.version.saturating_sub(known) as u32;
            self.0.insert(kind, known + u64::from(random.below(behind + 1)));
        }
    }

    /// The client reconnects to a replica that is behind: every kind goes back, by at most so many versions.
    pub fn go_back(&mut self, store: &Store, random: &mut Random, most: u32) {
        if !store.is_away {
            let back = u64::from(random.below(most + 1));
            self.0 = KINDS.into_iter().map(|kind| (kind, store.version.saturating_sub(back))).collect();
        }
    }
}
