//! Who may write what: Lamina's admission policy and roles as one plain function. The real ones are tested against the
//! real API server.

use std::fmt;

use super::Kind;

/// Whoever sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The operator.
    Operator,
    /// The agent of a host.
    Agent(String),
    /// Somebody who may do everything.
    Admin,
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Metadata and spec.
    Whole,
    /// The status subresource.
    Status,
}

/// Whether the author may write this; if not, why.
pub fn admit(author: &Author, kind: Kind, name: &str, part: Part) -> Result<(), String> {
    let is_allowed = match (author, kind, part) {
        (Author::Admin, _, _) => true,
        (Author::Operator, Kind::SliceTopology, _) | (Author::Operator, Kind::HostState, Part::Whole) => true,
        (Author::Operator, Kind::HostState, Part::Status) | (Author::Operator, Kind::Node | Kind::Lease, _) => false,
        (Author::Agent(host), Kind::HostState, Part::Status) | (Author::Agent(host), Kind::Lease, _) => host == name,
        (Author::Agent(_), Kind::HostState, Part::Whole) | (Author::Agent(_), Kind::SliceTopology | Kind::Node, _) => {
            false
        }
    };
    if is_allowed { Ok(()) } else { Err(format!("{author} may not write {part:?} of {kind:?} {name}")) }
}

impl fmt::Display for Author {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => formatter.pad("operator"),
            Self::Agent(host) => formatter.pad(host),
            Self::Admin => formatter.pad("admin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_writes_its_own_status_and_lease_and_nothing_else() {
        let agent = Author::Agent("h1".to_owned());
        assert!(admit(&agent, Kind::HostState, "h1", Part::Status).is_ok());
        assert!(admit(&agent, Kind::Lease, "h1", Part::Whole).is_ok());
        for (kind, name, part) in [
            (Kind::HostState, "h1", Part::Whole),
            (Kind::HostState, "h2", Part::Status),
            (Kind::Lease, "h2", Part::Whole),
            (Kind::SliceTopology, "h1", Part::Status),
            (Kind::Node, "h1", Part::Whole),
        ] {
            assert!(admit(&agent, kind, name, part).is_err(), "{kind:?} {name} {part:?}");
        }
    }

    #[test]
    fn the_operator_never_writes_what_an_agent_measures() {
        assert!(admit(&Author::Operator, Kind::HostState, "h1", Part::Status).is_err());
        assert!(admit(&Author::Operator, Kind::HostState, "h1", Part::Whole).is_ok());
    }
}
