//! What hosts start from: a distribution's root, a disk and a kernel made of it, and an emulator.

pub mod disk;
pub mod kernel;
pub mod node;
pub mod qemu;
pub mod root;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The releases of Debian that hosts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Debian 12: systemd 252, kernel 6.1.
    Bookworm,
    /// Debian 13: systemd 257, kernel 6.12.
    Trixie,
}

impl Suite {
    /// Every suite the lanes run.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// The release's name in the archive.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// The version of systemd the suite ships.
    pub fn systemd(self) -> u32 {
        match self {
            Self::Bookworm => 252,
            Self::Trixie => 257,
        }
    }
}

/// What a host has beside the distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// systemd alone.
    #[default]
    Plain,
    /// What a Kubernetes node needs: a container runtime, a pod network, kubelet and kube-proxy.
    Node,
}

impl Purpose {
    /// How the cache calls what is made for this purpose with `suite`.
    pub fn label(self, suite: Suite) -> String {
        match self {
            Self::Plain => suite.name().to_owned(),
            Self::Node => format!("{}-node", suite.name()),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.name() == text)
            .ok_or_else(|| format!("{text} is no suite of the lab; use {}", Self::ALL.map(Self::name).join(" or ")))
    }
}
