//! Decides how what is to be known of an import is told to people: by kind, one row per setting.

use crate::import::{Import, Kind, Note};
use crate::table;

/// Everything to know, in tables; a last line says what came of it.
pub fn told(import: &Import) -> String {
    let kinds = [
        (Kind::NeverHadAnEffect, "Never had an effect"),
        (Kind::NoPlace, "Has no place in a SliceTopology"),
        (Kind::Changed, "Is said in another way"),
    ];
    let mut text = String::new();
    for (kind, title) in kinds {
        let notes: Vec<&Note> = import.notes.iter().filter(|note| note.kind == kind).collect();
        if !notes.is_empty() {
            let rows =
                std::iter::once(table::row(["SETTING", "WHERE", "WHY", "NOW"])).chain(notes.into_iter().map(row));
            text += &format!("{title}:\n{}\n", table::table(&rows.collect::<Vec<_>>()));
        }
    }
    text += &import.faults.iter().map(|fault| format!("missing: {fault}\n")).collect::<String>();
    let (slices, services) = (import.topology.spec.slices.len(), import.topology.spec.services.len());
    text + &format!("{slices} slices, {services} services; see docs/coming-from-unit-files.md\n")
}

fn row(note: &Note) -> Vec<String> {
    let Note { file, line, setting, kind: _, why, now } = note;
    let place = if *line == 0 { file.clone() } else { format!("{file}:{line}") };
    vec![setting.clone(), place, why.clone(), now.clone()]
}
