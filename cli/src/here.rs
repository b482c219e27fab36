//! Touches this host: measures it with the agent's own code, with or without an agent that runs.

use std::path::Path;

use anyhow::{Context, Result};
use lamina_crds::measured::{HostUsage, HostVerification};

use crate::source;

#[cfg(all(feature = "local", target_os = "linux"))]
mod measuring {
    use lamina_node_agent::host::real::RealHost;
    use lamina_node_agent::survey;

    use super::{Context, HostUsage, HostVerification, Result};

    const REMEDY: &str = "look at this host; sudo may be needed, or the name of a host of a cluster";

    pub(super) fn verification(name: &str) -> Result<HostVerification> {
        let mut host = RealHost::new("/", None);
        runtime()?.block_on(survey::verification(&mut host, name)).context(REMEDY)
    }

    pub(super) fn usage(name: &str) -> Result<HostUsage> {
        let mut host = RealHost::new("/", None);
        runtime()?.block_on(survey::usage(&mut host, name)).context(REMEDY)
    }

    fn runtime() -> Result<tokio::runtime::Runtime> {
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
    }
}

#[cfg(not(all(feature = "local", target_os = "linux")))]
mod measuring {
    use super::{HostUsage, HostVerification, Result};

    const REMEDY: &str = "this program cannot measure the machine it runs on; give the name of a host of a cluster";

    pub(super) fn verification(_name: &str) -> Result<HostVerification> {
        anyhow::bail!(REMEDY)
    }

    pub(super) fn usage(_name: &str) -> Result<HostUsage> {
        anyhow::bail!(REMEDY)
    }
}

/// This host, as it is asked and as it is.
///
/// # Errors
/// Fails when the host cannot be looked at.
pub fn verification() -> Result<HostVerification> {
    measuring::verification(&name())
}

/// What the slices and services of this host use.
///
/// # Errors
/// Fails when the host cannot be looked at.
pub fn usage() -> Result<HostUsage> {
    measuring::usage(&name())
}

fn name() -> String {
    source::host_name(Path::new("/"))
}
