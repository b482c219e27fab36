//! Builds this checkout's images for tests, and brings them to a node: by way of a registry, or straight into its runtime.

use anyhow::{Context, Result};
use lamina_images::{
    image::Image,
    layout,
    programs::{Checkout, Profile},
    recipe::Component,
};

use crate::{
    host::{Host, QemuHost, machine::REGISTRY},
    progress,
    registry::Registry,
};

/// Images under one version, known by their digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    operator: String,
    agent: String,
}

impl Release {
    /// Sends the images of this checkout, as `version`. Another version is another digest around the same programs.
    pub async fn publish(registry: &Registry, version: &str) -> Result<Self> {
        let client = registry.client();
        let [mut operator, mut agent] = [String::new(), String::new()];
        for (component, image) in images(version).await? {
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
    images(env!("CARGO_PKG_VERSION")).await.map(drop)
}

async fn images(version: &str) -> Result<Vec<(Component, Image)>> {
    let wanted = version.to_owned();
    let making = tokio::task::spawn_blocking(move || make(&wanted));
    progress::during(&format!("building the images {version}"), async { making.await? }).await
}

fn make(version: &str) -> Result<Vec<(Component, Image)>> {
    let checkout = Checkout::own();
    let source = checkout.source(Some(version))?;
    let image = |(component, program): (Component, Vec<u8>)| {
        let image = Image::new(&component.contents(program, &source)).context("packing a program")?;
        Ok((component, image))
    };
    checkout.programs(Profile::Trial)?.into_iter().map(image).collect()
}
