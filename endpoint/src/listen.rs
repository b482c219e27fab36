//! Decides what an address to listen at means, as it is given to a program.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Where to listen, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Nowhere,
    /// At this address.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    /// An address of IPv6 may stand without brackets, as Kubernetes tells it to pods.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Nowhere);
        }
        let parsed = text.rsplit_once(':').and_then(|(address, port)| {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, port.parse().ok()?))
        });
        parsed.map(Self::At).ok_or_else(|| "write ADDRESS:PORT, or none".to_owned())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => formatter.write_str("none"),
            Self::At(address) => address.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_none_is_read() {
        let read = |text: &str| text.parse::<Listen>().map(|listen| listen.to_string());
        assert_eq!(read("none").as_deref(), Ok("none"));
        assert_eq!(read("127.0.0.1:9641").as_deref(), Ok("127.0.0.1:9641"));
        assert_eq!(read("fd00::7:9641").as_deref(), Ok("[fd00::7]:9641"));
        assert_eq!(read("[::1]:9641").as_deref(), Ok("[::1]:9641"));
        for wrong in ["9641", ":9641", "localhost:9641", "127.0.0.1", "127.0.0.1:none"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
