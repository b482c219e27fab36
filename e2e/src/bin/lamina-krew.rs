//! Packs programs for Krew, and writes the manifest that names them.

#![expect(clippy::disallowed_methods, reason = "it reads programs and writes archives")]

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use lamina_e2e::krew::{Platform, archive, manifest};

/// Packs `kubectl-lamina` for Krew: an archive for each platform, and lamina.yaml, which names them.
#[derive(Debug, Parser)]
struct Options {
    /// A program and the platform that it runs on, such as linux/amd64=target/release/kubectl-lamina.
    #[arg(required = true, value_name = "PLATFORM=PROGRAM", value_parser = program)]
    programs: Vec<(Platform, PathBuf)>,
    /// Where the archives are uploaded to.
    #[arg(long, value_name = "URL")]
    address: String,
    /// Where to write.
    #[arg(long, value_name = "FOLDER", default_value = "target/krew")]
    folder: PathBuf,
}

fn program(text: &str) -> Result<(Platform, PathBuf), String> {
    let (platform, path) = text.split_once('=').ok_or("write PLATFORM=PROGRAM")?;
    Ok((platform.parse()?, path.into()))
}

fn main() -> Result<()> {
    let Options { programs, address, folder } = Options::parse();
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut archives = Vec::new();
    for (platform, path) in programs {
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        archives.push(archive(platform, bytes)?);
    }
    let mut files: Vec<(String, &[u8])> =
        archives.iter().map(|archive| (archive.name.clone(), archive.bytes.as_slice())).collect();
    let manifest = manifest(env!("CARGO_PKG_VERSION"), &address, &archives)?;
    files.push(("lamina.yaml".to_owned(), manifest.as_bytes()));
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
