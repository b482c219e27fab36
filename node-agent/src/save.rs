//! Conducts the saving of a before-image: foreign files as they are, durable before any of them is replaced.

use std::io;

use lamina_crds::TopologyName;

use crate::before_image::{BeforeImage, LARGEST, Recalled, SavedFile, path_of, recall};
use crate::host::{Host, HostError};
use crate::host_path::HostPath;
use crate::replace::replace_durably;
use crate::takeover::Taking;

/// Adds what is taken to the topology's before-image. What cannot be saved whole is not saved at all.
pub(crate) async fn save(host: &mut impl Host, topology: &TopologyName, taking: &Taking) -> Result<(), HostError> {
    let path = path_of(topology);
    let content = host.read(&path).await?;
    let mut image = match recall(topology, content.as_deref()) {
        Recalled::Nothing => BeforeImage::new(topology.clone()),
        Recalled::Image(image) => image,
        Recalled::Unreadable => return Err(refused(path, "it is no before-image that can be read; move it away")),
    };
    for (from, content) in &taking.files {
        let mode = host.mode(from).await?;
        image.add_file(from, SavedFile { mode, content: content.clone() });
    }
    for (from, target) in &taking.links {
        image.add_link(from, target);
    }
    let stored = image.stored();
    if stored.len() > LARGEST {
        return Err(refused(path, "it would be larger than 1 MiB; move it away"));
    }
    if content.as_deref() == Some(stored.as_bytes()) {
        return host.sync(&path.directory()).await;
    }
    replace_durably(host, &path, stored.as_bytes()).await
}

fn refused(path: HostPath, why: &'static str) -> HostError {
    HostError::File { attempt: "save foreign files to", path, source: io::Error::other(why) }
}
