//! Decides what is meant by the names on the command line: a topology, a host, a slice or a service.

use std::collections::BTreeSet;
use std::fmt;

use lamina_crds::{TopologyName, UnitName};

use crate::cluster::Objects;
use crate::plan::own_name;

/// What is meant; everything, if nothing is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeSet<Name>);

/// One name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    kind: Option<Kind>,
    name: String,
}

/// What can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Topology,
    Host,
    Slice,
    Service,
}

impl Kind {
    /// Also in the words in which kubectl knows the two kinds of objects.
    fn of(word: &str) -> Option<Self> {
        match word {
            "topology" | "topologies" | "slicetopology" | "slicetopologies" => Some(Self::Topology),
            "host" | "hosts" | "hoststate" | "hoststates" | "node" => Some(Self::Host),
            "slice" | "slices" => Some(Self::Slice),
            "service" | "services" => Some(Self::Service),
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Some(Kind::Topology) => "topology/",
            Some(Kind::Host) => "host/",
            Some(Kind::Slice) => "slice/",
            Some(Kind::Service) => "service/",
            None => "",
        };
        write!(formatter, "{kind}{}", self.name)
    }
}

impl Names {
    /// Reads words such as `host host-7`, `host/host-7`, `orchestrator` or `orchestrator-api.service`.
    ///
    /// # Errors
    /// Names the word before a slash that is no kind.
    pub fn read(words: &[String]) -> Result<Self, String> {
        // As for kubectl, a kind may stand before the names of its objects.
        let (all, words) = match words {
            [kind, names @ ..] if !names.is_empty() && Kind::of(kind).is_some() => (Kind::of(kind), names),
            words => (None, words),
        };
        let read = |word: &String| match word.split_once('/') {
            None => Ok(Name { kind: all, name: word.clone() }),
            Some((kind, name)) => match Kind::of(kind) {
                Some(kind) => Ok(Name { kind: Some(kind), name: name.to_owned() }),
                None => {
                    Err(format!("{word}: `{kind}` is no kind; write topology, host, slice or service before the slash"))
                }
            },
        };
        words.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing is named, so that everything is meant.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this topology as a whole is meant.
    pub fn mean_topology(&self, topology: &str) -> bool {
        self.is_empty() || self.any(Kind::Topology, |name| name == topology)
    }

    /// Whether this host as a whole is meant.
    pub fn mean_host(&self, host: &str) -> bool {
        self.is_empty() || self.any(Kind::Host, |name| name == host)
    }

    /// Whether this slice or service is meant by itself: by its unit, or by its own name where its kind is said.
    pub fn mean_unit(&self, unit: &str, topology: &str) -> bool {
        let kind = if unit.ends_with(".slice") { Kind::Slice } else { Kind::Service };
        let own = own(unit, topology);
        self.0.iter().any(|Name { kind: said, name }| match said {
            None => name == unit,
            Some(said) => *said == kind && (name == unit || own.as_deref() == Some(name)),
        })
    }

    /// The names that mean nothing in this cluster.
    pub fn missing(&self, objects: &Objects) -> Vec<String> {
        let hosts = || objects.hosts.iter();
        let is_known = |name: &&Name| {
            let this = Self(BTreeSet::from([(*name).clone()]));
            let entries = || hosts().flat_map(|host| &host.entries);
            let units = entries().flat_map(|entry| {
                let slices = entry.slices.iter().map(|slice| &slice.unit);
                slices.chain(entry.services.iter().map(|service| &service.unit)).map(move |unit| (unit, &entry.name))
            });
            objects.topologies.iter().any(|topology| this.mean_topology(&topology.name))
                || hosts().any(|host| this.mean_host(&host.name))
                || hosts().flat_map(|host| &host.status.topologies).any(|entry| this.mean_topology(&entry.name))
                || units.into_iter().any(|(unit, topology)| this.mean_unit(unit.as_str(), topology.as_str()))
        };
        self.0.iter().filter(|name| !is_known(name)).map(ToString::to_string).collect()
    }

    fn any(&self, kind: Kind, is_meant: impl Fn(&str) -> bool) -> bool {
        self.0.iter().any(|name| name.kind.is_none_or(|said| said == kind) && is_meant(&name.name))
    }
}

/// A unit's name within its topology.
fn own(unit: &str, topology: &str) -> Option<String> {
    Some(own_name(&UnitName::new(unit).ok()?, &TopologyName::new(topology).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Names {
        Names::read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).expect("legal")
    }

    #[test]
    fn a_kind_stands_before_its_names_or_before_a_slash() {
        for words in [names(&["host", "shop"]), names(&["host/shop"])] {
            assert!(words.mean_host("shop") && !words.mean_topology("shop"));
        }
        let plain = names(&["shop"]);
        assert!(plain.mean_host("shop") && plain.mean_topology("shop"));
        assert!(names(&["host"]).mean_host("host"), "a kind alone is a name");
        let error = Names::read(&["pod/shop".to_owned()]).expect_err("no kind of Lamina's");
        assert!(error.contains("`pod` is no kind"), "{error}");
    }

    #[test]
    fn a_unit_is_meant_by_its_file_or_by_its_own_name_and_kind() {
        assert!(names(&["shop-web.slice"]).mean_unit("shop-web.slice", "shop"));
        assert!(names(&["slice", "web"]).mean_unit("shop-web.slice", "shop"));
        assert!(!names(&["service", "web"]).mean_unit("shop-web.slice", "shop"));
        assert!(!names(&["web"]).mean_unit("shop-web.slice", "shop"));
        assert!(!names(&[]).mean_unit("shop-web.slice", "shop"), "everything is no single unit");
    }
}
