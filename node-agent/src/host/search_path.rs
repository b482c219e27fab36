//! Decides which files of the unit directories concern a topology. Directories in systemd's order, systemd.unit(5).

use lamina_crds::{TopologyName, UnitName};

use crate::host_path::{PERSISTENT_CONTROL, RUNTIME_CONTROL, UNIT_DIRECTORY};

/// Every directory from which systemd loads units and drop-ins, first wins.
pub const UNIT_DIRECTORIES: [&str; 10] = [
    PERSISTENT_CONTROL,
    RUNTIME_CONTROL,
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    UNIT_DIRECTORY,
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// The directory of links that start services at boot.
pub const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// What an entry of a unit directory is to a topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// A unit of that topology, or content on its way there.
    Unit,
    /// A directory of drop-ins that reach units of that topology.
    DropIns,
    /// Nothing.
    None,
}

/// What the entry `name` is to `topology`. Drop-ins reach a unit through `UNIT.d`, through every prefix of its name that
/// ends in a dash (`orchestrator-.slice.d`), and through its type (`slice.d`).
pub fn concern(name: &str, topology: &TopologyName) -> Concern {
    let belongs = |unit: &str| UnitName::new(unit).is_ok_and(|unit| unit.belongs_to(topology));
    match name.strip_suffix(".d") {
        Some("slice" | "service") => Concern::DropIns,
        Some(unit) if belongs(unit) || is_prefix(unit, topology) => Concern::DropIns,
        Some(_) => Concern::None,
        None if belongs(staged(name).unwrap_or(name)) => Concern::Unit,
        None => Concern::None,
    }
}

/// The name of a unit whose new content is on its way under this name.
fn staged(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(".lamina-new")
}

/// Whether this is a prefix name such as `orchestrator-.slice`, which stands for every unit that continues it.
fn is_prefix(unit: &str, topology: &TopologyName) -> bool {
    let Some((stem, kind)) = unit.rsplit_once('.') else { return false };
    // A name that continues the prefix belongs to the topology exactly if the prefix does.
    stem.ends_with('-') && UnitName::new(format!("{stem}x.{kind}")).is_ok_and(|unit| unit.belongs_to(topology))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_reach_a_unit_by_name_prefix_and_type() {
        let topology = TopologyName::new("my-app").expect("legal");
        for (name, expected) in [
            ("my_app.slice", Concern::Unit),
            ("my_app-control.slice", Concern::Unit),
            (".my_app-control.slice.lamina-new", Concern::Unit),
            ("my_app-control.slice.d", Concern::DropIns),
            ("my_app-.slice.d", Concern::DropIns),
            ("my_app-agent-.service.d", Concern::DropIns),
            ("slice.d", Concern::DropIns),
            ("service.d", Concern::DropIns),
            ("my_app2.slice", Concern::None),
            ("other-control.slice.d", Concern::None),
            ("my_app-control.timer", Concern::None),
            ("multi-user.target.wants", Concern::None),
        ] {
            assert_eq!(concern(name, &topology), expected, "{name}");
        }
    }
}
