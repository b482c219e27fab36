//! Decides what values in unit files mean, as systemd reads them: sizes, lists of CPUs, spans of time, command lines.

use lamina_crds::id_set::{IdSet, Kind};

/// Why a value does not come over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// systemd cannot read it either and drops the setting.
    Invalid(&'static str),
    /// It means something that no topology can ask for; what to do instead.
    NoPlace(&'static str, &'static str),
}

const PERCENT: Unfit =
    Unfit::NoPlace("a share of the machine's memory differs from host to host", "write an amount in memory");

const UNITS: [(&str, u32); 4] = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];

/// Bytes, with systemd's units of base 1024; `None` for no limit.
pub(super) fn size(text: &str) -> Result<Option<u64>, Unfit> {
    const INVALID: Unfit = Unfit::Invalid("it is no size: a number with K, M, G or T, and nothing behind it");
    if text == "infinity" {
        return Ok(None);
    }
    if text.ends_with('%') {
        return Err(PERCENT);
    }
    let with_unit = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, 1_u64 << shift)));
    let (number, factor) = with_unit.unwrap_or((text, 1));
    let is_number =
        !number.is_empty() && number.chars().all(|character| character.is_ascii_digit() || character == '.');
    let amount: f64 = number.parse().ok().filter(|_| is_number).ok_or(INVALID)?;
    Ok(Some((amount * factor as f64) as u64))
}

/// A number of tasks; `None` for no limit.
pub(super) fn count(text: &str) -> Result<Option<u64>, Unfit> {
    match text {
        "infinity" => Ok(None),
        text if text.ends_with('%') => Err(Unfit::NoPlace(
            "a share of the system's limit differs from host to host",
            "write a number in tasks.max",
        )),
        text => text.parse().map(Some).map_err(|_| Unfit::Invalid("it is no number of tasks")),
    }
}

/// A weight of input and output.
pub(super) fn weight(text: &str) -> Result<u32, Unfit> {
    let weight = text.parse().ok().filter(|weight| (1..=10000).contains(weight));
    weight.ok_or(Unfit::Invalid("it is no weight from 1 to 10000"))
}

/// A list of CPUs or nodes: numbers and ranges, apart by commas or blanks.
pub(super) fn list<K: Kind>(text: &str) -> Result<IdSet<K>, Unfit> {
    let parts: Vec<&str> = text.split([',', ' ', '\t']).filter(|part| !part.is_empty()).collect();
    let set: IdSet<K> = parts.join(",").parse().map_err(|_| Unfit::Invalid("it is no list of numbers and ranges"))?;
    if set.is_empty() { Err(Unfit::Invalid("it is an empty list")) } else { Ok(set) }
}

/// A span of time in whole seconds, at least one.
pub(super) fn seconds(text: &str) -> Result<u32, Unfit> {
    const INVALID: Unfit = Unfit::Invalid("it is no span of time");
    let mut milliseconds = 0.0;
    for part in text.split_whitespace() {
        let end = part.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(part.len());
        let number: f64 = part[..end].parse().map_err(|_| INVALID)?;
        milliseconds += number
            * match &part[end..] {
                "ms" | "msec" => 1.0,
                "" | "s" | "sec" | "second" | "seconds" => 1000.0,
                "m" | "min" | "minute" | "minutes" => 60_000.0,
                "h" | "hr" | "hour" | "hours" => 3_600_000.0,
                _ => return Err(INVALID),
            };
    }
    Ok(((milliseconds / 1000.0_f64).ceil() as u32).max(1))
}

/// The words of a command line or of assignments, systemd.syntax(7) "Quoting".
pub(super) fn words(text: &str) -> Result<Vec<String>, Unfit> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => {
                let next = characters.next().ok_or(Unfit::Invalid("it ends in a backslash"))?;
                word.get_or_insert_default().push(match next {
                    'n' => '\n',
                    't' => '\t',
                    's' => ' ',
                    other => other,
                });
            }
            (mark, Some(open)) if mark == open => quote = None,
            (mark @ ('"' | '\''), None) => {
                quote = Some(mark);
                word.get_or_insert_default();
            }
            (blank, None) if blank.is_whitespace() => words.extend(word.take()),
            ('%', _) => match characters.next() {
                Some('%') => word.get_or_insert_default().push('%'),
                _ => return Err(SPECIFIER),
            },
            (plain, _) => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    if quote.is_some() { Err(Unfit::Invalid("a quote is not closed")) } else { Ok(words) }
}

const SPECIFIER: Unfit =
    Unfit::NoPlace("specifiers such as %i are expanded by systemd, a topology is taken literally", "write it out");
