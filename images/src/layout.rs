//! Decides how an image lies on a disk: a folder that every tool for OCI images reads, and one archive that containerd,
//! docker and podman load.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};

use crate::blob::Blob;
use crate::image::Image;
use crate::layer::{File, archive};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The files of the layout of `image` under the full name `reference`, such as `docker.io/library/lamina-operator:0.1.0`.
pub fn files(image: &Image, reference: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> =
        image.blobs().into_iter().map(|blob| (path(blob), blob.bytes.clone())).collect();
    files.insert("oci-layout".to_owned(), json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes());
    files.insert("index.json".to_owned(), index(image, reference).to_string().into_bytes());
    files
}

/// The same as one archive, with the list that docker reads.
///
/// # Errors
/// Fails when a path does not fit an archive.
pub fn archived(image: &Image, reference: &str) -> io::Result<Vec<u8>> {
    let mut all = files(image, reference);
    let list = json!([{ "Config": path(&image.config), "RepoTags": [reference], "Layers": [path(&image.layer)] }]);
    all.insert("manifest.json".to_owned(), list.to_string().into_bytes());
    let all: Vec<File> = all.into_iter().map(|(path, content)| File { path, mode: 0o644, content }).collect();
    archive(&all)
}

fn path(blob: &Blob) -> String {
    format!("blobs/sha256/{}", blob.hex())
}

fn index(image: &Image, reference: &str) -> Value {
    let mut descriptor = image.manifest.descriptor();
    let tag = reference.rsplit(':').next().unwrap_or(reference);
    descriptor["annotations"] = json!({
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": tag,
    });
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Contents;

    const REFERENCE: &str = "docker.io/library/lamina-operator:0.1.0";

    fn image() -> Image {
        let contents = Contents {
            architecture: "amd64".to_owned(),
            files: Vec::new(),
            entrypoint: "/lamina-operator".to_owned(),
            user: "0:0".to_owned(),
            labels: BTreeMap::new(),
            created: "2026-01-01T00:00:00Z".to_owned(),
        };
        Image::new(&contents).expect("an image")
    }

    #[test]
    fn the_index_names_the_manifest_and_every_blob_is_a_file_of_its_digest() {
        let (image, files) = (image(), files(&image(), REFERENCE));
        let index: Value = serde_json::from_slice(&files["index.json"]).expect("JSON");
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], image.digest());
        assert_eq!(entry["annotations"]["io.containerd.image.name"], REFERENCE);
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "0.1.0");
        for blob in image.blobs() {
            assert_eq!(files[&path(blob)], blob.bytes);
        }
        assert_eq!(files.len(), 5);
    }

    #[test]
    fn an_archive_is_the_layout_and_the_list_that_docker_reads() {
        let archive = archived(&image(), REFERENCE).expect("an archive");
        assert_eq!(archive, archived(&image(), REFERENCE).expect("an archive"));
        let mut archive = tar::Archive::new(&archive[..]);
        let names = archive.entries().expect("entries").map(|entry| entry.expect("an entry").path_bytes().into_owned());
        let names: Vec<String> = names.map(|name| String::from_utf8(name).expect("text")).collect();
        for wanted in ["oci-layout", "index.json", "manifest.json", "blobs/sha256/"] {
            assert!(names.iter().any(|name| name == wanted), "{wanted} is not among {names:?}");
        }
    }
}
