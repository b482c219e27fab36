//! Decides what is told about settings of unit files that do not simply come over: what they are and why.

use serde::Serialize;

use super::unit::{Placed, Unit};
use super::values::Unfit;

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// The file, as it was given.
    pub file: String,
    /// The line, from 1; 0 for the whole file.
    pub line: usize,
    /// What stands there.
    pub setting: String,
    /// What it is.
    pub kind: Kind,
    /// Why.
    pub why: String,
    /// What the topology says instead, or what to do.
    pub now: String,
}

/// What a noted setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// systemd ignored it, silently or with a warning in the journal.
    NeverHadAnEffect,
    /// It had an effect that no topology can ask for.
    NoPlace,
    /// The topology says it in another way.
    Changed,
}

/// Notes while they are made.
#[derive(Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    pub(super) fn setting(&mut self, setting: &Placed, kind: Kind, why: &str, now: &str) {
        let Placed { file, line, section: _, key, value } = setting;
        self.add(file, *line, format!("{key}={value}"), kind, why, now);
    }

    pub(super) fn unit(&mut self, unit: &Unit, kind: Kind, why: &str, now: &str) {
        self.add(&unit.file, 0, unit.name.to_string(), kind, why, now);
    }

    pub(super) fn add(&mut self, file: &str, line: usize, setting: String, kind: Kind, why: &str, now: &str) {
        let (file, why, now) = (file.to_owned(), why.to_owned(), now.to_owned());
        self.0.push(Note { file, line, setting, kind, why, now });
    }

    /// The value of a setting; where systemd could not read it, what was meant, if that can be told.
    pub(super) fn value<T>(&mut self, setting: &Placed, read: impl Fn(&str) -> Result<T, Unfit>) -> Option<T> {
        match read(&setting.value) {
            Ok(value) => Some(value),
            Err(Unfit::NoPlace(why, remedy)) => {
                self.setting(setting, Kind::NoPlace, why, remedy);
                None
            }
            Err(Unfit::Invalid(why)) => {
                let meant = setting.value.split_once(['#', ';']).map(|(before, _)| before.trim());
                let meant = meant.and_then(|meant| Some((meant, read(meant).ok()?)));
                let (now, value) = match meant {
                    Some((meant, value)) => {
                        (format!("taken as {meant}: it takes effect for the first time"), Some(value))
                    }
                    None => ("left out".to_owned(), None),
                };
                self.setting(setting, Kind::NeverHadAnEffect, why, &now);
                value
            }
        }
    }

    pub(super) fn in_order(mut self) -> Vec<Note> {
        self.0.sort();
        self.0
    }
}
