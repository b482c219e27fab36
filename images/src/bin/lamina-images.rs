//! Makes the images of operator and node-agent, compares two makings, and sends images to a registry on loopback.

#![expect(clippy::disallowed_methods, reason = "it writes images")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use lamina_images::image::Image;
use lamina_images::layout;
use lamina_images::programs::{Checkout, Profile};
use lamina_images::recipe::Component;
use lamina_images::registry::Registry;
use lamina_images::sbom::sbom;

/// Lamina's images.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Writes each image as an OCI layout and as an archive, with its list of parts (CycloneDX) beside it.
    Build {
        #[command(flatten)]
        making: Making,
        /// The folder to write to.
        #[arg(long, default_value = "target/images")]
        output: PathBuf,
    },
    /// Builds everything a second time, from a copy of the source in another folder, and compares the digests.
    Verify {
        #[command(flatten)]
        making: Making,
    },
    /// Sends the images to a registry that speaks plain HTTP, and prints by which names to ask for them.
    Push {
        #[command(flatten)]
        making: Making,
        /// Host and port of the registry.
        registry: String,
    },
}

#[derive(Args)]
struct Making {
    /// How the programs are compiled.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// The version that the images bear; that of the source, if none is given.
    #[arg(long)]
    version: Option<String>,
    /// What comes before the image's name.
    #[arg(long, default_value = "docker.io/library")]
    repository: String,
}

/// An image and what goes with it.
struct Made {
    component: Component,
    image: Image,
    version: String,
    parts: String,
}

fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Build { making, output } => build(&making, &output),
        Verb::Verify { making } => verify(&making),
        Verb::Push { making, registry } => push(&making, &registry),
    }
}

fn build(making: &Making, output: &Path) -> Result<()> {
    for Made { component, image, version, parts } in make(&Checkout::own(), making)? {
        let reference = format!("{}/{}:{version}", making.repository, component.name());
        let folder = output.join(component.name());
        for (path, content) in layout::files(&image, &reference) {
            write(&folder.join(path), &content)?;
        }
        let archive = layout::archived(&image, &reference).context("packing an image")?;
        write(&output.join(format!("{}.tar", component.name())), &archive)?;
        write(&output.join(format!("{}.cdx.json", component.name())), parts.as_bytes())?;
        println!("{reference}@{}", image.digest());
    }
    Ok(())
}

fn verify(making: &Making) -> Result<()> {
    let own = Checkout::own();
    let scratch = tempfile::tempdir().context("making a folder for a second checkout")?;
    let folder = scratch.path().join("elsewhere");
    let cloned = Command::new("git").args(["clone", "--quiet", "--no-local"]).arg(&own.folder).arg(&folder).status();
    ensure!(cloned.context("running git clone")?.success(), "the source cannot be copied: git clone failed");
    let other = Checkout { target: folder.join("target"), folder };
    let (first, second) = (make(&own, making)?, make(&other, making)?);
    for (first, second) in first.iter().zip(&second) {
        let (name, digest) = (first.component.name(), first.image.digest());
        ensure!(
            digest == second.image.digest(),
            "{name} is {digest} here and {} in another folder; commit what differs, or find what building left in it",
            second.image.digest()
        );
        println!("{name} is {digest} wherever it is built");
    }
    Ok(())
}

fn push(making: &Making, registry: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let registry_client = Registry::new(registry);
    for Made { component, image, version, parts: _ } in make(&Checkout::own(), making)? {
        let digest = runtime.block_on(registry_client.push(&image, component.name(), &version))?;
        println!("{registry}/{}@{digest}", component.name());
    }
    Ok(())
}

fn make(checkout: &Checkout, making: &Making) -> Result<Vec<Made>> {
    let source = checkout.source(making.version.as_deref())?;
    let (metadata, libraries) = (checkout.metadata()?, checkout.libraries()?);
    let made = |(component, program): (Component, Vec<u8>)| {
        let parts = sbom(&metadata, component.name(), &program, &libraries)?;
        let parts = serde_json::to_string_pretty(&parts).context("writing a list of parts")? + "\n";
        let image = Image::new(&component.contents(program, &source)).context("packing a program")?;
        Ok(Made { component, image, version: source.version.clone(), parts })
    };
    checkout.programs(making.profile)?.into_iter().map(made).collect()
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
