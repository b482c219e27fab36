//! Decides what an image consists of: one layer, a configuration that says how it runs and what it is, a manifest.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};

use crate::blob::Blob;
use crate::layer::{File, Layer, layer};

/// The kind of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The processor that its programs are for, in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Every file in it.
    pub files: Vec<File>,
    /// The program that starts.
    pub entrypoint: String,
    /// The numbers of user and group it starts as, `UID:GID`.
    pub user: String,
    /// What it says about itself.
    pub labels: BTreeMap<String, String>,
    /// The time that counts as the time of its making, RFC 3339.
    pub created: String,
}

/// An image, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Names configuration and layer; its digest is the image's.
    pub manifest: Blob,
    /// How it runs.
    pub config: Blob,
    /// Its files.
    pub layer: Blob,
}

impl Image {
    /// The image of `contents`.
    ///
    /// # Errors
    /// Fails when a path does not fit an archive.
    pub fn new(contents: &Contents) -> io::Result<Self> {
        let Layer { blob: layer, archive_digest } = layer(&contents.files)?;
        let config = Blob::json(CONFIG, &config(contents, &archive_digest));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "annotations": contents.labels,
        });
        Ok(Self { manifest: Blob::json(MANIFEST, &manifest), config, layer })
    }

    /// What the image is known by everywhere.
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// Every part, those that others refer to first.
    pub fn blobs(&self) -> [&Blob; 3] {
        [&self.layer, &self.config, &self.manifest]
    }
}

fn config(contents: &Contents, archive_digest: &str) -> Value {
    let Contents { architecture, files: _, entrypoint, user, labels, created } = contents;
    json!({
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": { "User": user, "Entrypoint": [entrypoint], "WorkingDir": "/", "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [archive_digest] },
        "history": [{ "created": created, "created_by": "lamina-images", "comment": "one static program" }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let file = File { path: "lamina-operator".to_owned(), mode: 0o755, content: b"program".to_vec() };
        Contents {
            architecture: "amd64".to_owned(),
            files: vec![file],
            entrypoint: "/lamina-operator".to_owned(),
            user: "65532:65532".to_owned(),
            labels: [("org.opencontainers.image.version".to_owned(), "0.1.0".to_owned())].into(),
            created: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[test]
    fn the_same_contents_have_the_same_digest_and_others_another() {
        let image = Image::new(&contents()).expect("an image");
        assert_eq!(image, Image::new(&contents()).expect("an image"));
        let mut newer = contents();
        newer.labels.insert("org.opencontainers.image.version".to_owned(), "0.2.0".to_owned());
        let newer = Image::new(&newer).expect("an image");
        assert_ne!(newer.digest(), image.digest());
        assert_eq!(newer.layer, image.layer, "the same files are stored once");
    }

    #[test]
    fn the_parts_name_each_other_by_digest() {
        let Image { manifest, config, layer } = Image::new(&contents()).expect("an image");
        let read = |blob: &Blob| serde_json::from_slice::<Value>(&blob.bytes).expect("JSON");
        let (manifest, settings) = (read(&manifest), read(&config));
        assert_eq!(manifest["config"]["digest"], config.digest);
        assert_eq!(manifest["layers"][0]["digest"], layer.digest);
        assert_ne!(settings["rootfs"]["diff_ids"][0], layer.digest, "named before compression");
        assert_eq!(settings["config"]["User"], "65532:65532");
    }
}
