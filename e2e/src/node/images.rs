//! Builds this checkout's images for tests, and those of the commit that packed the first chart; brings them to a node: by
//! way of a registry, or straight into its runtime.

#![expect(clippy::disallowed_methods, reason = "it unpacks an older checkout")]

use std::{fs, path::Path};

use anyhow::{Context, Result};
use lamina_images::{
    image::Image,
    layout,
    programs::{Checkout, Profile},
    recipe::Component,
};

use tokio::process::Command;

use crate::{
    cache::{Cache, Key},
    host::{Host, QemuHost, machine::REGISTRY},
    program::output_of,
    registry::Registry,
};

/// The commit whose chart is kept beside the test of upgrades.
const FIRST: &str = "27582597239a47f9cb075f8bc1f1805f6f33edb4";

/// Images under one version, known by their digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    operator: String,
    agent: String,
}

impl Release {
    /// Sends the images of this checkout, as `version`. Another version is another digest around the same programs.
    pub async fn publish(registry: &Registry, version: &str) -> Result<Self> {
        Self::send(registry, version, images(version).await?).await
    }

    /// Sends images of the programs that the first chart was made for, as `version`.
    pub async fn publish_first(registry: &Registry, version: &str) -> Result<Self> {
        let programs = first_programs().await?;
        Self::send(registry, version, packed(&Checkout::own(), version, programs)?).await
    }

    async fn send(registry: &Registry, version: &str, images: Vec<(Component, Image)>) -> Result<Self> {
        let client = registry.client();
        let [mut operator, mut agent] = [String::new(), String::new()];
        for (component, image) in images {
            let digest = client.push(&image, component.name(), version).await?;
            match component {
                Component::Operator => operator = digest,
                Component::Agent => agent = digest,
            }
        }
        Ok(Self { operator, agent })
    }

    /// What tells the chart to use these images, as arguments of Helm.
    pub fn values(&self) -> Vec<String> {
        let of = |part: &str, component: Component, digest: &str| {
            [
                format!("--set={part}.image.repository={REGISTRY}/{}", component.name()),
                format!("--set={part}.image.digest={digest}"),
            ]
        };
        let operator = of("operator", Component::Operator, &self.operator);
        operator.into_iter().chain(of("agent", Component::Agent, &self.agent)).collect()
    }

    /// The digest of the agent's image.
    pub fn agent(&self) -> &str {
        &self.agent
    }
}

/// Loads the images of this checkout into the container runtime of `host`, under the names that the chart gives them.
pub async fn load(host: &QemuHost, version: &str) -> Result<()> {
    for (component, image) in images(version).await? {
        let reference = format!("docker.io/library/{}:{version}", component.name());
        let archive = layout::archived(&image, &reference).context("packing an image")?;
        let path = format!("/run/{}.tar", component.name());
        host.put(&path, 0o600, archive).await?;
        host.run(&format!("ctr --namespace k8s.io images import {path} && rm {path}")).await?;
    }
    Ok(())
}

/// Builds the programs of this checkout, so that its images are a matter of seconds.
pub async fn prepare() -> Result<()> {
    own_programs().await.map(drop)
}

async fn images(version: &str) -> Result<Vec<(Component, Image)>> {
    packed(&Checkout::own(), version, own_programs().await?)
}

fn packed(checkout: &Checkout, version: &str, programs: Vec<(Component, Vec<u8>)>) -> Result<Vec<(Component, Image)>> {
    let source = checkout.source(Some(version))?;
    let image = |(component, program): (Component, Vec<u8>)| {
        let image = Image::new(&component.contents(program, &source)).context("packing a program")?;
        Ok((component, image))
    };
    programs.into_iter().map(image).collect()
}

/// The programs of this checkout, built once per content of what they are made of.
async fn own_programs() -> Result<Vec<(Component, Vec<u8>)>> {
    let checkout = Checkout::own();
    let mut key = Key::new().with("rustc", compiler().await?);
    for path in checkout.sources()? {
        key = key.with_file(&path.to_string_lossy(), &checkout.folder.join(&path))?;
    }
    let build = async |entry: &Path| build_into(entry, checkout).await;
    let entry = Cache::open()?.entry("own-programs", &key, "building Lamina's programs for images", build).await?;
    read_programs(&entry)
}

/// The programs of the first chart, built once from the history of this repository.
///
/// # Errors
/// Fails when the history does not reach that far, as in a shallow clone.
pub async fn first_programs() -> Result<Vec<(Component, Vec<u8>)>> {
    let key = Key::new().with("commit", FIRST).with("rustc", compiler().await?);
    let what = "building the programs that the first chart was made for";
    read_programs(&Cache::open()?.entry("first-programs", &key, what, build_first).await?)
}

async fn compiler() -> Result<String> {
    output_of(Command::new("rustc").arg("-vV")).await
}

fn read_programs(entry: &Path) -> Result<Vec<(Component, Vec<u8>)>> {
    let program = |component: Component| {
        let path = entry.join(component.name());
        let read = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok((component, read))
    };
    Component::ALL.into_iter().map(program).collect()
}

async fn build_first(entry: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("creating a folder for an older checkout")?;
    let (archive, folder) = (scratch.path().join("first.tar"), scratch.path().join("lamina"));
    let mut git = Command::new("git");
    git.current_dir(Checkout::own().folder).args(["archive", "--output"]).arg(&archive).arg(FIRST);
    let remedy = format!("reading the commit {FIRST}; `git fetch --unshallow` brings a shortened history whole");
    output_of(&mut git).await.context(remedy)?;
    fs::create_dir(&folder)?;
    output_of(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&folder)).await?;
    build_into(entry, Checkout { target: scratch.path().join("target"), folder }).await
}

async fn build_into(entry: &Path, checkout: Checkout) -> Result<()> {
    let built = tokio::task::spawn_blocking(move || checkout.programs(Profile::Trial)).await??;
    for (component, program) in built {
        fs::write(entry.join(component.name()), program)?;
    }
    Ok(())
}
