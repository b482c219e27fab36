//! Names of topologies, slices, services and users, and the systemd units they become.

use crate::text::checked_string;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Wrong alphabet or length.
    #[error("`{name}` is no {what}: {rule}")]
    Alphabet {
        /// The name as given, cut at 64 characters.
        name: String,
        /// What kind of name.
        what: &'static str,
        /// The rule and the remedy.
        rule: &'static str,
    },
    /// A unit that Lamina never manages.
    #[error("{unit} is a protected unit and never managed; choose another name")]
    Protected {
        /// The unit's name.
        unit: String,
    },
    /// A topology whose units would be parts of systemd's own slices.
    #[error("`{name}` is a reserved slice and never managed; choose another name")]
    Reserved {
        /// The topology's name.
        name: String,
    },
    /// The root user.
    #[error("`{name}` may not run services: root and numeric users are refused; name an unprivileged user of the host")]
    User {
        /// The user's name.
        name: String,
    },
}

fn alphabet(name: &str, what: &'static str, rule: &'static str) -> NameError {
    NameError::Alphabet { name: name.chars().take(64).collect(), what, rule }
}

/// Pattern of a topology's name.
pub const TOPOLOGY_PATTERN: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";
/// Longest name of a topology.
pub const LONGEST_TOPOLOGY: usize = 63;

checked_string! {
    /// The name of a `SliceTopology`: lower-case letters, digits and dashes, at most 63, and no slice of systemd's own.
    TopologyName, LONGEST_TOPOLOGY, TOPOLOGY_PATTERN, check_topology, NameError
}

/// Topology names whose slice belongs to systemd, the kubelet or Lamina itself.
pub const RESERVED_TOPOLOGIES: [&str; 7] = ["system", "user", "init", "machine", "kubepods", "kubelet", "lamina"];

fn check_topology(name: &str) -> Result<(), NameError> {
    if RESERVED_TOPOLOGIES.contains(&name) {
        return Err(NameError::Reserved { name: name.to_owned() });
    }
    if dashed(name) && name.len() <= LONGEST_TOPOLOGY {
        return Ok(());
    }
    Err(alphabet(
        name,
        "topology name",
        "use a to z, 0 to 9 and inner dashes, starting with a letter, at most 63 characters",
    ))
}

checked_string! {
    /// The name of a slice within its topology: letters and digits only, because a dash nests slices.
    SliceName, 32, "^[a-z][a-z0-9]*$", check_slice, NameError
}

fn check_slice(name: &str) -> Result<(), NameError> {
    let legal = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if legal && name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Ok(());
    }
    Err(alphabet(
        name,
        "slice name",
        "use a to z and 0 to 9 only, starting with a letter, at most 32 characters (a dash would nest slices)",
    ))
}

checked_string! {
    /// The name of a service within its topology.
    ServiceName, 64, TOPOLOGY_PATTERN, check_service, NameError
}

fn check_service(name: &str) -> Result<(), NameError> {
    if dashed(name) && name.len() <= 64 {
        return Ok(());
    }
    Err(alphabet(
        name,
        "service name",
        "use a to z, 0 to 9 and inner dashes, starting with a letter, at most 64 characters, without a suffix",
    ))
}

fn dashed(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

checked_string! {
    /// A device of the host: its address on the PCI bus, or the kernel's name of a network or block device.
    DeviceName, 64, "^[A-Za-z0-9][A-Za-z0-9_.:@!-]*$", check_device, NameError
}

fn check_device(name: &str) -> Result<(), NameError> {
    let head = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@!-".contains(&byte);
    if head && name.len() <= 64 && name.bytes().all(legal) {
        return Ok(());
    }
    let rule = "write a PCI address or the name of a network or block device, such as 0000:3b:00.0, eth0 or nvme0n1";
    Err(alphabet(name, "device", rule))
}

checked_string! {
    /// A user of the host by name; never root, never a number.
    UserName, 32, "^[a-z_][a-z0-9_-]*$", check_user, NameError
}

fn check_user(name: &str) -> Result<(), NameError> {
    if name == "root" || name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'+') {
        return Err(NameError::User { name: name.chars().take(64).collect() });
    }
    let head = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if head && name.len() <= 32 && name.bytes().all(legal) {
        return Ok(());
    }
    Err(alphabet(
        name,
        "user name",
        "use a to z, 0 to 9, underscore and dash, starting with a letter, at most 32 characters",
    ))
}

checked_string! {
    /// The name of a file that Lamina delivers.
    FileName, 64, "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", check_file, NameError
}

fn check_file(name: &str) -> Result<(), NameError> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let ends = name.starts_with(|end: char| end.is_ascii_alphanumeric())
        && name.ends_with(|end: char| end.is_ascii_alphanumeric());
    if ends && name.len() <= 64 && name.bytes().all(inner) {
        return Ok(());
    }
    Err(alphabet(
        name,
        "file name",
        "use letters, digits and inner dots, dashes and underscores, at most 64 characters",
    ))
}

/// What kind of unit a name denotes; its suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitKind {
    /// `*.slice`
    Slice,
    /// `*.service`
    Service,
}

checked_string! {
    /// The full name of a unit that Lamina may manage: `orchestrator-control.slice`, `orchestrator-agent-runner.service`.
    UnitName, 255, r"^[a-z][a-z0-9_]*(-[a-z0-9]+)*\.(slice|service)$", check_unit, NameError
}

fn check_unit(name: &str) -> Result<(), NameError> {
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let stem = name.strip_suffix(".slice").or_else(|| name.strip_suffix(".service"));
    let legal = stem.is_some_and(|stem| {
        let mut parts = stem.split('-');
        let prefix = parts.next().unwrap_or_default().replace('_', "");
        part(&prefix) && stem.starts_with(|first: char| first.is_ascii_lowercase()) && parts.all(part)
    });
    if !legal || name.len() > 255 {
        return Err(alphabet(
            name,
            "unit name",
            "only NAME.slice and NAME.service of a to z, 0 to 9 and inner dashes are managed, at most 255 characters",
        ));
    }
    if is_protected(name) {
        return Err(NameError::Protected { unit: name.to_owned() });
    }
    Ok(())
}

impl UnitName {
    /// The slice that holds all slices of a topology: `orchestrator.slice`.
    pub fn of_topology(topology: &TopologyName) -> Result<Self, NameError> {
        Self::new(format!("{}.slice", prefix(topology)))
    }

    /// The unit of one slice: `orchestrator-control.slice`.
    pub fn of_slice(topology: &TopologyName, slice: &SliceName) -> Result<Self, NameError> {
        Self::new(format!("{}-{slice}.slice", prefix(topology)))
    }

    /// The unit of one service: `orchestrator-router.service`.
    pub fn of_service(topology: &TopologyName, service: &ServiceName) -> Result<Self, NameError> {
        Self::new(format!("{}-{service}.service", prefix(topology)))
    }

    /// Whether this unit's name is one that the topology's units bear.
    pub fn belongs_to(&self, topology: &TopologyName) -> bool {
        let stem = self.stem();
        let prefix = prefix(topology);
        stem == prefix || stem.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('-'))
    }

    /// Slice or service.
    pub fn kind(&self) -> UnitKind {
        if self.0.ends_with(".slice") { UnitKind::Slice } else { UnitKind::Service }
    }

    /// The name without its suffix.
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(stem, _)| stem)
    }
}

/// The first part of all unit names of a topology: dashes nest slices in systemd, so they become underscores.
fn prefix(topology: &TopologyName) -> String {
    topology.as_str().replace('-', "_")
}

/// Units that Lamina never touches, whatever anybody asks: PID 1's own, the bus, logging, devices, logins, network,
/// remote access, container runtimes, the kubelet and Lamina itself. Exact names without suffix.
pub const PROTECTED: [&str; 30] = [
    "init",
    "system",
    "user",
    "machine",
    "kubepods",
    "dbus",
    "dbus-broker",
    "polkit",
    "sshd",
    "ssh",
    "kubelet",
    "containerd",
    "crio",
    "docker",
    "podman",
    "networking",
    "network",
    "emergency",
    "rescue",
    "getty",
    "cron",
    "chronyd",
    "chrony",
    "ntp",
    "rsyslog",
    "auditd",
    "firewalld",
    "nftables",
    "iscsid",
    "multipathd",
];

/// Prefixes of such units: `systemd-journald`, `systemd-networkd`, `lamina-agent`.
pub const PROTECTED_PREFIXES: [&str; 9] =
    ["systemd", "lamina", "getty", "user", "dbus", "network", "networkmanager", "kubelet", "containerd"];

/// Whether a unit of this name belongs to the host's foundation and is never managed.
pub fn is_protected(unit: &str) -> bool {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem).to_ascii_lowercase();
    PROTECTED.contains(&stem.as_str())
        || PROTECTED_PREFIXES.iter().any(|prefix| stem.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(name: &str) -> TopologyName {
        TopologyName::new(name).expect("a legal name")
    }

    #[test]
    fn units_are_named_after_their_topology() {
        let plain = topology("orchestrator");
        let dashed = topology("night-shift");
        let slice = SliceName::new("control").expect("legal");
        let service = ServiceName::new("agent-runner").expect("legal");
        assert_eq!(UnitName::of_topology(&plain).expect("legal").as_str(), "orchestrator.slice");
        assert_eq!(UnitName::of_slice(&dashed, &slice).expect("legal").as_str(), "night_shift-control.slice");
        assert_eq!(
            UnitName::of_service(&plain, &service).expect("legal").as_str(),
            "orchestrator-agent-runner.service"
        );
        let unit = UnitName::new("orchestrator-control.slice").expect("legal");
        assert!(unit.belongs_to(&plain) && !unit.belongs_to(&dashed) && !unit.belongs_to(&topology("orchestr")));
    }

    #[test]
    fn names_that_nest_escape_or_shadow_are_refused() {
        for wrong in ["", "a-b", "A", "a.b", "ä", "../x", "a b", "1a", "a%n", "\u{430}"] {
            assert!(SliceName::new(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "-a", "a-", "x@", "x@1", "a.service", "a/b", "A", "a\n"] {
            assert!(ServiceName::new(wrong).is_err(), "{wrong}");
        }
        for wrong in ["system", "user", "init", "machine", "kubepods", "lamina", "-", "a.b", "a_b"] {
            assert!(TopologyName::new(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "sshd.service",
            "dbus.service",
            "systemd-networkd.service",
            "lamina-agent.service",
            "kubelet.service",
            "x.mount",
            "x.timer",
            "a--b.slice",
            "-.slice",
            "x@.service",
            "../a.slice",
        ] {
            assert!(UnitName::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn services_never_run_as_root_or_a_number() {
        for wrong in ["root", "0", "+0", "00", "4294967295", "nobody;id", "a\nb", "a:b", ""] {
            assert!(UserName::new(wrong).is_err(), "{wrong}");
        }
        assert!(UserName::new("orchestrator").is_ok());
    }
}
