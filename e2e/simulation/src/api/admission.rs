//! Who may write what: Lamina's admission policy and roles as one plain function. The real ones are tested against the
//! real API server.

use std::fmt;

use lamina_crds::Term;
use lamina_crds::rules::term_fault;

use super::Kind;

/// Whoever sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The operator in this seat.
    Operator(usize),
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

/// The operators' own Lease, among those of the agents.
pub const OPERATORS_LEASE: &str = "operators";

/// Whether a HostState's term may change like this; if not, why.
pub fn admit_term(former: Term, new: Term) -> Result<(), String> {
    term_fault(former, new).map_or(Ok(()), |fault| Err(fault.to_string()))
}

/// Whether the author may write this; if not, why.
pub fn admit(author: &Author, kind: Kind, name: &str, part: Part) -> Result<(), String> {
    let is_allowed = match (author, kind, part) {
        (Author::Admin, _, _) => true,
        (Author::Operator(_), Kind::SliceTopology, _) | (Author::Operator(_), Kind::HostState, Part::Whole) => true,
        (Author::Operator(_), Kind::Lease, _) => name == OPERATORS_LEASE,
        (Author::Operator(_), Kind::HostState, Part::Status) | (Author::Operator(_), Kind::Node, _) => false,
        (Author::Agent(_), Kind::Lease, _) if name == OPERATORS_LEASE => false,
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
            Self::Operator(seat) => formatter.pad(&format!("operator-{seat}")),
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
    fn the_operators_lease_is_no_hosts() {
        let agent = Author::Agent(OPERATORS_LEASE.to_owned());
        assert!(admit(&agent, Kind::Lease, OPERATORS_LEASE, Part::Whole).is_err());
        assert!(admit(&Author::Operator(1), Kind::Lease, OPERATORS_LEASE, Part::Whole).is_ok());
        assert!(admit(&Author::Operator(1), Kind::Lease, "h1", Part::Whole).is_err());
    }

    #[test]
    fn the_operator_never_writes_what_an_agent_measures() {
        assert!(admit(&Author::Operator(0), Kind::HostState, "h1", Part::Status).is_err());
        assert!(admit(&Author::Operator(0), Kind::HostState, "h1", Part::Whole).is_ok());
    }
}
