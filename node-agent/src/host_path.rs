//! Paths on the host, as the host itself sees them, and the places where Lamina's files stand.

use std::fmt;

use lamina_crds::names::FileName;
use lamina_crds::{TopologyName, UnitName};

/// An absolute path on the host; the agent may see it below another root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath(String);

/// Where Lamina's unit files stand.
pub const UNIT_DIRECTORY: &str = "/etc/systemd/system";
/// Where `systemctl set-property --runtime`, and the agent's own pushes, leave their drop-ins. See systemd.unit(5).
pub const RUNTIME_CONTROL: &str = "/run/systemd/system.control";
/// Where `systemctl set-property` leaves its drop-ins.
pub const PERSISTENT_CONTROL: &str = "/etc/systemd/system.control";
/// Below which files of topologies are delivered.
pub const FILES: &str = "/etc/lamina/files";
/// Where the agent keeps what it last accepted.
pub const STATE: &str = "/var/lib/lamina";
/// The directories that outlive what is removed from them.
pub const REMOVED_FROM: [&str; 3] = [UNIT_DIRECTORY, "/etc/systemd/system/multi-user.target.wants", FILES];
/// The name of our drop-in: sorts after every other, so its settings win.
pub const DROP_IN: &str = "zzzz-lamina.conf";

impl HostPath {
    /// A path given as text; it must be absolute.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// The fragment of a unit.
    pub fn fragment(unit: &UnitName) -> Self {
        Self(format!("{UNIT_DIRECTORY}/{unit}"))
    }

    /// Our drop-in of a unit.
    pub fn drop_in(unit: &UnitName) -> Self {
        Self(format!("{UNIT_DIRECTORY}/{unit}.d/{DROP_IN}"))
    }

    /// The link that starts a service at boot.
    pub fn enablement(unit: &UnitName) -> Self {
        Self(format!("{UNIT_DIRECTORY}/multi-user.target.wants/{unit}"))
    }

    /// The drop-in that a push of one property leaves.
    pub fn runtime_push(unit: &UnitName, property: crate::property::Property) -> Self {
        Self(format!("{RUNTIME_CONTROL}/{unit}.d/50-{}.conf", property.key()))
    }

    /// A delivered file.
    pub fn delivered(topology: &TopologyName, file: &FileName) -> Self {
        Self(format!("{FILES}/{topology}/{file}"))
    }

    /// The file that carries a service's own variables where it also reads environment files: systemd lets files win over
    /// `Environment=`, so the variables that must win stand in the last file. No delivered file can bear such a name.
    pub fn own_environment(topology: &TopologyName, unit: &UnitName) -> Self {
        Self(format!("{FILES}/{topology}/.{unit}.env"))
    }

    /// The directory that holds this path.
    pub fn directory(&self) -> Self {
        match self.0.rsplit_once('/') {
            Some(("", _)) | None => Self("/".to_owned()),
            Some((directory, _)) => Self(directory.to_owned()),
        }
    }

    /// A path in the same directory that systemd does not load, for content on its way here.
    pub fn staging(&self) -> Self {
        let name = self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, name)| name);
        Self(format!("{}/.{name}.lamina-new", self.directory().0.trim_end_matches('/')))
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }

    /// Whether this is a place for content on its way, see [`HostPath::staging`].
    pub fn is_staging(&self) -> bool {
        self.name().starts_with('.') && self.name().ends_with(".lamina-new")
    }

    /// The unit whose fragment was on its way under this name.
    pub fn staged_unit(&self) -> Option<UnitName> {
        let name = self.name().strip_prefix('.')?.strip_suffix(".lamina-new")?;
        if self.directory().as_str() == UNIT_DIRECTORY { UnitName::new(name).ok() } else { None }
    }

    /// The unit that a fragment, a drop-in or an enablement link belongs to by its name.
    pub fn unit(&self) -> Option<UnitName> {
        let directory = self.directory();
        let name = directory.name().strip_suffix(".d").unwrap_or(self.name());
        UnitName::new(name).ok()
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
