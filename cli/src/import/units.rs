//! Decides what belongs to each unit of a directory: its file, then its drop-ins by name.

use std::collections::BTreeMap;

use lamina_crds::UnitName;
use lamina_node_agent::unit_settings::UnitSettings;

use super::notes::{Kind, Notes};
use super::unit::{Placed, Unit};

/// The units of a directory. Other files are told and left alone.
pub(super) fn units(files: &BTreeMap<String, String>, notes: &mut Notes) -> BTreeMap<UnitName, Unit> {
    let mut units: BTreeMap<UnitName, Unit> = BTreeMap::new();
    let (drop_ins, fragments): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| path.contains('/'));
    for (path, text) in fragments {
        match UnitName::new(path.as_str()) {
            Ok(name) => {
                let unit = units.entry(name.clone()).or_insert_with(|| Unit::new(name, path.clone()));
                read(unit, path, text, notes);
            }
            Err(_) if path.starts_with('.') => {}
            Err(_) => notes.add(path, 0, path.clone(), Kind::NoPlace, OTHER, "keep it beside the topology"),
        }
    }
    for (path, text) in drop_ins {
        let owner = path.split_once(".d/").filter(|(_, name)| name.ends_with(".conf"));
        let owner = owner.and_then(|(owner, _)| UnitName::new(owner).ok());
        match owner.filter(|owner| units.contains_key(owner)) {
            Some(owner) => {
                units.entry(owner).and_modify(|unit| read(unit, path, text, notes));
            }
            None => notes.add(path, 0, path.clone(), Kind::NoPlace, ORPHAN, "keep it beside the topology"),
        }
    }
    units
}

const OTHER: &str = "a topology holds slices and services only";
const ORPHAN: &str = "it belongs to no unit of the directory";

fn read(unit: &mut Unit, file: &str, text: &str, notes: &mut Notes) {
    let UnitSettings { settings, ignored } = UnitSettings::read(text);
    for line in ignored {
        notes.add(file, line.line, line.text, Kind::NeverHadAnEffect, line.why, "left out");
    }
    unit.extend(settings.into_iter().map(|setting| Placed {
        file: file.to_owned(),
        line: setting.line,
        section: setting.section,
        key: setting.key,
        value: setting.value,
    }));
}
