//! Makes the one layer of an image out of its files: always the same bytes for the same files.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::blob::{self, Blob};

/// A gzipped tar archive.
const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A file of an image, owned by root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path from the root, without a slash in front.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What it holds.
    pub content: Vec<u8>,
}

/// Files as an image carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The layer as it is stored and sent.
    pub blob: Blob,
    /// The digest of the archive before it was compressed, which the image's configuration names.
    pub archive_digest: String,
}

/// The layer of `files`, which stand in the order given.
///
/// # Errors
/// Fails when a path does not fit an archive.
pub fn layer(files: &[File]) -> io::Result<Layer> {
    let archive = archive(files)?;
    let archive_digest = blob::digest(&archive);
    // No time and no name: gzip would carry both.
    let mut compressor = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    compressor.write_all(&archive)?;
    Ok(Layer { blob: Blob::new(MEDIA_TYPE, compressor.finish()?), archive_digest })
}

/// A tar archive of `files`, with the folders they stand in.
///
/// # Errors
/// Fails when a path does not fit an archive.
pub fn archive(files: &[File]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut known: Vec<&str> = Vec::new();
    for File { path, mode, content } in files {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..=end];
            if !known.contains(&folder) {
                known.push(folder);
                append(&mut archive, EntryType::Directory, folder, 0o755, &[])?;
            }
        }
        append(&mut archive, EntryType::Regular, path, *mode, content)?;
    }
    archive.into_inner()
}

fn append(archive: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(content.len()).map_err(io::Error::other)?);
    archive.append_data(&mut header, path, content)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn file(path: &str, mode: u32, content: &str) -> File {
        File { path: path.to_owned(), mode, content: content.as_bytes().to_vec() }
    }

    #[test]
    fn the_same_files_are_the_same_bytes() {
        let files = [file("lamina", 0o755, "program"), file("usr/share/doc/lamina/LICENSE", 0o644, "words")];
        assert_eq!(layer(&files).expect("a layer"), layer(&files).expect("a layer"));
        assert_ne!(layer(&files).expect("a layer"), layer(&files[..1]).expect("a layer"));
    }

    #[test]
    fn an_archive_holds_files_and_folders_of_root_without_times() {
        let files = [file("bin/one", 0o755, "1"), file("bin/two", 0o644, "22")];
        let archive = archive(&files).expect("an archive");
        let mut told = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            let path = entry.path().expect("a path").display().to_string();
            let header = entry.header();
            let numbers = [header.uid(), header.gid(), header.mtime()].map(|number| number.expect("a number"));
            assert_eq!(numbers, [0, 0, 0]);
            told.push((path, header.mode().expect("a mode"), text));
        }
        let entry = |path: &str, mode, text: &str| (path.to_owned(), mode, text.to_owned());
        assert_eq!(
            told,
            [entry("bin/", 0o755, ""), entry("bin/one", 0o755, "1"), entry("bin/two", 0o644, "22")],
            "each folder once, before what is in it"
        );
    }
}
