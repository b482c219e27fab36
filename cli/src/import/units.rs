//! Decides which settings of each unit are in force: its file, then its drop-ins by name, with resets.

use std::collections::BTreeMap;

use lamina_crds::{UnitKind, UnitName};
use lamina_node_agent::unit_settings::UnitSettings;

use super::notes::{Kind, Notes};

/// One unit with everything that its files say.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) name: UnitName,
    /// Its first file.
    pub(super) file: String,
    settings: Vec<Placed>,
}

/// A setting and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
}

impl Unit {
    /// Settings of the unit's own section that come after the last reset of the key.
    pub(super) fn all(&self, key: &str) -> Vec<&Placed> {
        self.within(self.section(), key)
    }

    /// Settings of a section that come after the last reset of the key.
    pub(super) fn within(&self, section: &str, key: &str) -> Vec<&Placed> {
        let named: Vec<&Placed> =
            self.settings.iter().filter(|setting| setting.section == section && setting.key == key).collect();
        let reset = named.iter().rposition(|setting| setting.value.is_empty());
        named[reset.map_or(0, |reset| reset + 1)..].to_vec()
    }

    /// The one that counts of a setting that holds one value.
    pub(super) fn last(&self, key: &str) -> Option<&Placed> {
        self.all(key).pop()
    }

    /// The section that speaks of this kind of unit.
    pub(super) fn section(&self) -> &'static str {
        match self.name.kind() {
            UnitKind::Slice => "Slice",
            UnitKind::Service => "Service",
        }
    }

    /// Every setting, in order.
    pub(super) fn settings(&self) -> &[Placed] {
        &self.settings
    }
}

/// The units of a directory. Other files are told and left alone.
pub(super) fn units(files: &BTreeMap<String, String>, notes: &mut Notes) -> BTreeMap<UnitName, Unit> {
    let mut units: BTreeMap<UnitName, Unit> = BTreeMap::new();
    let (drop_ins, fragments): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| path.contains('/'));
    for (path, text) in fragments {
        match UnitName::new(path.as_str()) {
            Ok(name) => {
                let unit = Unit { name: name.clone(), file: path.clone(), settings: Vec::new() };
                units.entry(name).or_insert(unit).read(path, text, notes);
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
                units.entry(owner).and_modify(|unit| unit.read(path, text, notes));
            }
            None => notes.add(path, 0, path.clone(), Kind::NoPlace, ORPHAN, "keep it beside the topology"),
        }
    }
    units
}

const OTHER: &str = "a topology holds slices and services only";
const ORPHAN: &str = "it belongs to no unit of the directory";

impl Unit {
    fn read(&mut self, file: &str, text: &str, notes: &mut Notes) {
        let UnitSettings { settings, ignored } = UnitSettings::read(text);
        for line in ignored {
            notes.add(file, line.line, line.text, Kind::NeverHadAnEffect, line.why, "left out");
        }
        self.settings.extend(settings.into_iter().map(|setting| Placed {
            file: file.to_owned(),
            line: setting.line,
            section: setting.section,
            key: setting.key,
            value: setting.value,
        }));
    }
}
