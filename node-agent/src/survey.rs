//! Conducts a look at this host for somebody who asks: what it holds, by the agent's accepted state, beside how it is, or
//! what that uses. Changes nothing, and needs neither an API server nor a running agent.

#![expect(clippy::disallowed_methods, reason = "says when it looked")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use lamina_crds::measured::{API_VERSION, HostUsage, HostVerification, USAGE_PATH, VERIFY_PATH};
use lamina_crds::{Hardware, UnitName};
use lamina_endpoint::{Look, Looks};

use crate::comparison::{Probe, compare};
use crate::converge::look;
use crate::foresight::{RecallError, recalled};
use crate::host::consumption;
use crate::host::real::RealHost;
use crate::host::{Host, HostError, cgroups};
use crate::instruction::desired;
use crate::observed::ObservedHost;
use crate::usage::consumers;

/// Compares everything that is asked of this host with systemd, the cgroups and every thread.
///
/// # Errors
/// Fails when the accepted state cannot be read or the host cannot be looked at.
pub async fn verification(host: &mut RealHost, name: &str) -> Result<HostVerification, SurveyError> {
    let accepted = recalled(host).await?;
    let desired = desired(&accepted);
    if desired.entries.is_empty() {
        // Nothing is asked for: not even a systemd has to be there.
        let (seen, machine) = (ObservedHost::default(), Hardware::default());
        return Ok(compare(name, &desired, &seen, &machine, &BTreeMap::new(), Timestamp::now()));
    }
    let hardware = host.hardware().await?;
    let work = look(host, &desired, &hardware).await;
    let Some(observed) = work.observed else { return Err(SurveyError::Unseen(work.problems.join("; "))) };
    let probes = probes(host, &observed).map_err(SurveyError::Kernel)?;
    Ok(compare(name, &desired, &observed, &hardware, &probes, Timestamp::now()))
}

fn probes(host: &RealHost, observed: &ObservedHost) -> io::Result<BTreeMap<UnitName, Probe>> {
    let Some(mount) = cgroups::mount(host.root())? else { return Ok(BTreeMap::new()) };
    let running = observed.units.iter().filter(|(_, unit)| !unit.control_group.is_empty());
    running.map(|(name, unit)| Ok((name.clone(), consumption::probe(host.root(), &mount, name, unit)?))).collect()
}

/// What the slices and services of this host use.
///
/// # Errors
/// Fails when the accepted state or the kernel's files cannot be read.
pub async fn usage(host: &mut RealHost, name: &str) -> Result<HostUsage, SurveyError> {
    let accepted = recalled(host).await?;
    let consumers = consumers(accepted.entries.values().map(|kept| &kept.entry));
    let mount = cgroups::mount(host.root()).map_err(SurveyError::Kernel)?;
    let used = |mount: &String| {
        consumers
            .iter()
            .map(|consumer| consumption::usage(host.root(), mount, consumer))
            .collect::<io::Result<Vec<_>>>()
    };
    let units = mount.as_ref().map(used).transpose().map_err(SurveyError::Kernel)?.unwrap_or_default();
    Ok(HostUsage {
        api_version: API_VERSION.to_owned(),
        kind: "HostUsage".to_owned(),
        host: name.to_owned(),
        measured_at: Timestamp::now(),
        uptime_microseconds: consumption::uptime_microseconds(),
        units,
    })
}

/// What the agent's endpoint looks at for those who ask: by itself each time, with a bus connection of its own, so that the
/// agent's loop neither waits for it nor knows of it.
pub fn looks(root: &Path, bus_address: Option<String>, name: &str) -> Looks {
    let on_host = |what: Survey| -> Look {
        let (root, bus_address, name) = (root.to_owned(), bus_address.clone(), name.to_owned());
        Box::new(move || what.json(RealHost::new(&root, bus_address.clone()), &name).map_err(|error| error.to_string()))
    };
    Looks::of([(VERIFY_PATH, on_host(Survey::Verification)), (USAGE_PATH, on_host(Survey::Usage))].into())
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Survey {
    Verification,
    Usage,
}

impl Survey {
    fn json(self, mut host: RealHost, name: &str) -> Result<String, SurveyError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SurveyError::Kernel)?;
        let text = match self {
            Self::Verification => serde_json::to_string(&runtime.block_on(verification(&mut host, name))?),
            Self::Usage => serde_json::to_string(&runtime.block_on(usage(&mut host, name))?),
        };
        text.map_err(|error| SurveyError::Unseen(error.to_string()))
    }
}

/// Why a host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// What it holds is not known.
    #[error(transparent)]
    Recall(#[from] RecallError),
    /// The machine is not known.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its units could not be looked at.
    #[error("{0}")]
    Unseen(String),
    /// The kernel's files could not be read.
    #[error(transparent)]
    Kernel(io::Error),
}
