//! Drives systemd over the bus: reloads, jobs and their outcome, properties of running units.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lamina_crds::{TopologyName, UnitName};
use tokio::sync::broadcast;
use zbus::{Message, OwnedObjectPath, Variant};

use crate::host::bus::{Bus, Call, EndedJob, ListedUnit, MANAGER, MANAGER_PATH, PropertyMap, body, unit_path};
use crate::host::{HostError, JobResult, start_properties, unit_properties};
use crate::observed::ObservedUnit;
use crate::property::Properties;
use crate::start_settings::Limits;

/// How long a job may take: systemd's own limits for starting and stopping (90 s each by default) end it before.
const JOB: Duration = Duration::from_secs(300);

/// systemd, as one caller sees it.
pub struct Systemd {
    bus: Bus,
}

/// What the Manager says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagerState {
    /// The leading digits of its version, 0 if there are none.
    pub version: u32,
    /// `SystemState`.
    pub system_state: String,
    /// Resource limits of services that ask for none.
    pub default_limits: Limits,
}

impl Systemd {
    /// systemd behind the bus at this address.
    pub fn new(bus_address: String) -> Self {
        Self { bus: Bus::new(bus_address) }
    }

    /// How many calls were made on the bus since the start.
    pub fn calls(&self) -> u64 {
        self.bus.calls()
    }

    /// Version and state.
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn state(&mut self) -> Result<ManagerState, HostError> {
        let objects = [("systemd".to_owned(), MANAGER_PATH.to_owned())];
        let replies = self.bus.properties(&objects).await?;
        let mut state = ManagerState::default();
        for reply in &replies {
            let body = reply.body();
            let properties = understood(&body)?;
            let version = unit_properties::text(&properties, "Version");
            let digits: String = version.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
            state.version = digits.parse().unwrap_or_default();
            state.system_state = unit_properties::text(&properties, "SystemState");
            state.default_limits = start_properties::limits(&properties, "Default");
        }
        Ok(state)
    }

    /// Loaded units that bear a name of one of these topologies.
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn loaded(&mut self, topologies: &BTreeSet<TopologyName>) -> Result<BTreeSet<UnitName>, HostError> {
        if topologies.is_empty() {
            return Ok(BTreeSet::new());
        }
        let prefixes = topologies.iter().map(|topology| topology.as_str().replace('-', "_"));
        let patterns: Vec<String> =
            prefixes.flat_map(|prefix| [format!("{prefix}.*"), format!("{prefix}-*")]).collect();
        let states: [&str; 0] = [];
        let reply =
            self.manager("list the units of", "systemd", "ListUnitsByPatterns", (states.as_slice(), patterns)).await?;
        let units: Vec<ListedUnit> = body(&reply)?;
        let names = units.into_iter().filter_map(|unit| UnitName::new(unit.0).ok());
        Ok(names.filter(|name| topologies.iter().any(|topology| name.belongs_to(topology))).collect())
    }

    /// What systemd says about these units; it loads those that are not.
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn units(&mut self, units: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, ObservedUnit>, HostError> {
        let objects: Vec<(String, String)> =
            units.iter().map(|unit| (unit.to_string(), unit_path(unit.as_str()))).collect();
        let replies = self.bus.properties(&objects).await?;
        let mut observed = BTreeMap::new();
        for (unit, reply) in units.iter().zip(&replies) {
            let body = reply.body();
            observed.insert(unit.clone(), unit_properties::read(&understood(&body)?));
        }
        Ok(observed)
    }

    /// Loads all unit files again.
    ///
    /// # Errors
    /// Those of the bus; systemd refuses when `/run` is nearly full or the administrator limits the rate.
    pub async fn reload(&mut self) -> Result<(), HostError> {
        self.manager("reload", "systemd", "Reload", ()).await.map(drop)
    }

    /// Starts, stops or restarts a unit (`StartUnit`, ...) and waits until the job is over.
    ///
    /// # Errors
    /// Those of the bus; what came of the job is then unknown.
    pub async fn job(
        &mut self,
        attempt: &'static str,
        method: &'static str,
        unit: &UnitName,
    ) -> Result<JobResult, HostError> {
        let ended = self.bus.ended_jobs().await?;
        let reply = self.manager(attempt, unit.as_str(), method, (unit.as_str(), "replace")).await?;
        let job: OwnedObjectPath = body(&reply)?;
        match tokio::time::timeout(JOB, outcome(ended, &job)).await {
            Ok(Some(result)) => Ok(result),
            Ok(None) => Err(HostError::Gone(format!("{attempt} {unit}: the connection ended before the job"))),
            Err(_) => Ok(JobResult::Other(format!("no end within {} s", JOB.as_secs()))),
        }
    }

    /// Clears a unit's failed state and its start limit. A unit that is not loaded has none.
    ///
    /// # Errors
    /// Those of the bus.
    pub async fn reset_failed(&mut self, unit: &UnitName) -> Result<(), HostError> {
        match self.manager("reset the failed state of", unit.as_str(), "ResetFailedUnit", (unit.as_str(),)).await {
            Err(HostError::Systemd { message, .. }) if message.contains("NoSuchUnit") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Sets properties until the next boot.
    ///
    /// # Errors
    /// Those of the bus; then none of them is set.
    pub async fn set_properties(&mut self, unit: &UnitName, properties: &Properties) -> Result<(), HostError> {
        let values: Vec<(&str, Variant<'_>)> =
            properties.iter().map(|(property, value)| unit_properties::to_bus(*property, value)).collect();
        let arguments = (unit.as_str(), true, values);
        self.manager("set properties of", unit.as_str(), "SetUnitProperties", arguments).await.map(drop)
    }

    async fn manager<B: serde::Serialize + zbus::DynamicType>(
        &mut self,
        attempt: &'static str,
        object: &str,
        method: &str,
        body: B,
    ) -> Result<Message, HostError> {
        self.bus.call(Call { attempt, object, path: MANAGER_PATH, interface: MANAGER, method, body }).await
    }
}

fn understood(body: &zbus::message::Body) -> Result<PropertyMap<'_>, HostError> {
    body.deserialize::<PropertyMap<'_>>().map_err(|error| HostError::Systemd {
        attempt: "understand",
        object: "systemd".to_owned(),
        message: error.to_string(),
    })
}

/// The result of a job from the signals; `None` when they end before, or came too fast to be read.
async fn outcome(mut ended: broadcast::Receiver<EndedJob>, job: &OwnedObjectPath) -> Option<JobResult> {
    loop {
        match ended.recv().await {
            Ok(EndedJob { path, result }) if path == *job => {
                return Some(if result == "done" { JobResult::Done } else { JobResult::Other(result) });
            }
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}
