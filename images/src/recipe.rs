//! Decides what Lamina's own images hold, who they run as, and what they say about themselves.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::image::Contents;
use crate::layer::File;

/// One of Lamina's programs that run in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// Resolves topologies; needs nothing of the machine it runs on.
    Operator,
    /// Keeps its host; root without capabilities, because files of root are what it writes.
    Agent,
}

/// What an image is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The version it bears.
    pub version: String,
    /// The commit it was made of, if that is known.
    pub revision: Option<String>,
    /// The time of that commit, so that it is no accident of building.
    pub created: Timestamp,
    /// The processor, in Go's words.
    pub architecture: String,
    /// The text of the licence, which goes with the program.
    pub license: Vec<u8>,
}

impl Component {
    /// Every image.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Agent];

    /// The name of package, program and image.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "lamina-operator",
            Self::Agent => "lamina-node-agent",
        }
    }

    /// The same numbers as in the chart; the operator is nobody in particular.
    fn user(self) -> &'static str {
        match self {
            Self::Operator => "65532:65532",
            Self::Agent => "0:0",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Operator => "Turns each SliceTopology into one HostState per host.",
            Self::Agent => "Keeps a host as its HostState asks: systemd slices and services, pinned and measured.",
        }
    }

    /// The contents of this component's image around its static `program`.
    ///
    /// Nothing else is needed: the API server's authority comes with the pod's account, and its address is a number.
    pub fn contents(self, program: Vec<u8>, source: &Source) -> Contents {
        let Source { version: _, revision: _, created, architecture, license } = source;
        let files = vec![
            File { path: self.name().to_owned(), mode: 0o755, content: program },
            File { path: "usr/share/doc/lamina/LICENSE".to_owned(), mode: 0o644, content: license.clone() },
        ];
        Contents {
            architecture: architecture.clone(),
            files,
            entrypoint: format!("/{}", self.name()),
            user: self.user().to_owned(),
            labels: self.labels(source),
            created: created.to_string(),
        }
    }

    fn labels(self, source: &Source) -> BTreeMap<String, String> {
        let revision = source.revision.as_deref();
        let created = source.created.to_string();
        let known = [
            ("title", Some(self.name())),
            ("description", Some(self.description())),
            ("version", Some(source.version.as_str())),
            ("revision", revision),
            ("created", Some(created.as_str())),
            ("licenses", Some("Apache-2.0")),
            ("base.name", Some("scratch")),
        ];
        let label =
            |(key, value): (&str, Option<&str>)| Some((format!("org.opencontainers.image.{key}"), value?.to_owned()));
        known.into_iter().filter_map(label).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source {
            version: "0.1.0".to_owned(),
            revision: Some("abc".to_owned()),
            created: Timestamp::UNIX_EPOCH,
            architecture: "amd64".to_owned(),
            license: b"Apache".to_vec(),
        }
    }

    #[test]
    fn only_the_agent_is_root_and_both_are_one_program_with_its_licence() {
        for (component, user) in [(Component::Operator, "65532:65532"), (Component::Agent, "0:0")] {
            let contents = component.contents(b"program".to_vec(), &source());
            assert_eq!(contents.user, user);
            let paths: Vec<&str> = contents.files.iter().map(|file| file.path.as_str()).collect();
            assert_eq!(paths, [component.name(), "usr/share/doc/lamina/LICENSE"]);
            assert_eq!(contents.entrypoint, format!("/{}", component.name()));
        }
    }

    #[test]
    fn an_image_says_what_it_is() {
        let labels = Component::Operator.contents(Vec::new(), &source()).labels;
        for (key, value) in [
            ("title", "lamina-operator"),
            ("version", "0.1.0"),
            ("revision", "abc"),
            ("created", "1970-01-01T00:00:00Z"),
            ("licenses", "Apache-2.0"),
        ] {
            assert_eq!(labels[&format!("org.opencontainers.image.{key}")], value);
        }
        let unknown = Source { revision: None, ..source() };
        let labels = Component::Agent.contents(Vec::new(), &unknown).labels;
        assert!(!labels.contains_key("org.opencontainers.image.revision"), "{labels:?}");
    }
}
