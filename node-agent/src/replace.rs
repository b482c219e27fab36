//! Touches files in the only way that survives a power cut: new content is durable under another name before it takes
//! the place of the old.

use crate::host::{Host, HostError};
use crate::host_path::HostPath;

/// Replaces a file, or makes it. Its content is durable afterwards, its name only when the directory is synced, too.
pub async fn replace(host: &mut impl Host, path: &HostPath, content: &[u8]) -> Result<(), HostError> {
    let staging = path.staging();
    host.make_directory(&path.directory()).await?;
    host.write(&staging, content).await?;
    host.sync(&staging).await?;
    host.rename(&staging, path).await
}

/// Replaces a file, durable with its name.
pub async fn replace_durably(host: &mut impl Host, path: &HostPath, content: &[u8]) -> Result<(), HostError> {
    replace(host, path, content).await?;
    host.sync(&path.directory()).await
}
