//! Decides which settings of one unit are in force: those after the last reset of their key.

use lamina_crds::{UnitKind, UnitName};

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
    /// A unit of whose files nothing was read yet.
    pub(super) fn new(name: UnitName, file: String) -> Self {
        Self { name, file, settings: Vec::new() }
    }

    /// Takes what stands in one of its files, after what came before.
    pub(super) fn extend(&mut self, settings: impl IntoIterator<Item = Placed>) {
        self.settings.extend(settings);
    }

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
