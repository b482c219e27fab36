//! Decides what a before-image holds: the foreign files that a topology took the place of, as they were, and how they are
//! written down. One file per topology, whole or not there; nothing that was saved is ever dropped from it.

use std::collections::BTreeMap;

use lamina_crds::TopologyName;
use serde::{Deserialize, Serialize};

use crate::checksummed::{unwrap, wrap};
use crate::host_path::{HostPath, STATE};

/// The kind that the first line of the file names.
const KIND: &str = "lamina-before-image";
/// The version of the format.
const SCHEMA: u64 = 1;
/// No larger file is written, because none would be read back.
pub const LARGEST: usize = 1 << 20;

/// The foreign files that a topology took the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BeforeImage {
    schema: u64,
    /// Whose place was taken.
    pub topology: TopologyName,
    /// Every content that was found at a path, oldest first.
    pub files: BTreeMap<String, Vec<SavedFile>>,
    /// Links that started services at boot, with their targets.
    pub links: BTreeMap<String, String>,
}

/// One file as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedFile {
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    pub content: String,
}

/// What the file of a before-image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// There is none yet.
    Nothing,
    /// The image.
    Image(BeforeImage),
    /// Something is there that is no whole image of this topology, or one of a newer agent.
    Unreadable,
}

/// Where a topology's before-image stands.
pub fn path_of(topology: &TopologyName) -> HostPath {
    HostPath::new(format!("{STATE}/before/{topology}"))
}

/// Reads the content of [`path_of`].
pub fn recall(topology: &TopologyName, content: Option<&[u8]>) -> Recalled {
    let Some(content) = content else { return Recalled::Nothing };
    let image = unwrap(KIND, content).and_then(|body| serde_json::from_str::<BeforeImage>(body).ok());
    match image.filter(|image| image.schema == SCHEMA && image.topology == *topology) {
        Some(image) => Recalled::Image(image),
        None => Recalled::Unreadable,
    }
}

impl BeforeImage {
    /// An image that holds nothing yet.
    pub fn new(topology: TopologyName) -> Self {
        Self { schema: SCHEMA, topology, files: BTreeMap::new(), links: BTreeMap::new() }
    }

    /// Adds a file; the newest version of a path stands last.
    pub fn add_file(&mut self, path: &HostPath, file: SavedFile) {
        let versions = self.files.entry(path.to_string()).or_default();
        versions.retain(|version| *version != file);
        versions.push(file);
    }

    /// Adds a link.
    pub fn add_link(&mut self, path: &HostPath, target: &str) {
        self.links.insert(path.to_string(), target.to_owned());
    }

    /// What is written at [`path_of`].
    pub fn stored(&self) -> String {
        wrap(KIND, &serde_json::to_string_pretty(self).expect("plain data with string keys always serialises"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> BeforeImage {
        let mut image = BeforeImage::new(TopologyName::new("shop").expect("legal"));
        let file = |content: &str| SavedFile { mode: 0o640, content: content.to_owned() };
        for content in ["one", "two", "one"] {
            image.add_file(&HostPath::new("/etc/systemd/system/shop-web.service"), file(content));
        }
        image.add_link(&HostPath::new("/etc/x"), "../x");
        image
    }

    #[test]
    fn an_image_is_read_back_as_it_was_stored() {
        let image = image();
        assert_eq!(recall(&image.topology, Some(image.stored().as_bytes())), Recalled::Image(image.clone()));
        assert_eq!(recall(&image.topology, None), Recalled::Nothing);
    }

    #[test]
    fn what_is_torn_or_somebody_elses_is_never_taken_for_an_image() {
        let (image, other) = (image(), TopologyName::new("other").expect("legal"));
        let stored = image.stored();
        assert_eq!(recall(&other, Some(stored.as_bytes())), Recalled::Unreadable);
        assert_eq!(recall(&image.topology, Some(&stored.as_bytes()[1..])), Recalled::Unreadable);
        assert_eq!(recall(&image.topology, Some(b"")), Recalled::Unreadable);
    }

    #[test]
    fn every_content_of_a_path_is_kept_and_the_newest_stands_last() {
        let versions: Vec<String> = image().files.into_values().flatten().map(|file| file.content).collect();
        assert_eq!(versions, ["two", "one"]);
    }
}
