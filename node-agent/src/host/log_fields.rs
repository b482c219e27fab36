//! Reads the digests that a unit's text carries in `LogExtraFields=`: those loaded, and those of the running process.
//!
//! systemd writes `/run/systemd/units/log-extra-fields:UNIT` when it starts a process and renews it at each start, by
//! hand or automatic; a reload leaves it alone (seen on 252 and 257). After a stop it stays behind, also when another text
//! without such fields is started then. So it counts only while there is a process, and only if it is no older than the
//! link `invocation:UNIT` beside it, which systemd makes just before it at every start. Format: per field its length as
//! 64-bit little-endian number, then `NAME=value`.

use crate::desired::TextDigests;

/// The field with the digest over the whole text.
pub const TEXT: &str = "LAMINA_TEXT";
/// The field with the digest over what takes effect at a start.
pub const START: &str = "LAMINA_START";
/// The field with the digest over derived values.
pub const DERIVED: &str = "LAMINA_DERIVED";

/// The file that holds the fields of a unit's running process.
pub fn file_of(unit: &str) -> String {
    format!("/run/systemd/units/log-extra-fields:{unit}")
}

/// The link whose target is the invocation of a unit's running process.
pub fn invocation_of(unit: &str) -> String {
    format!("/run/systemd/units/invocation:{unit}")
}

/// The digests among `NAME=value` fields; `None` unless all three are there.
pub fn digests<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Option<TextDigests> {
    let (mut text, mut start, mut derived) = (None, None, None);
    for field in fields {
        match std::str::from_utf8(field).ok().and_then(|field| field.split_once('=')) {
            Some((TEXT, value)) => text = Some(value.to_owned()),
            Some((START, value)) => start = Some(value.to_owned()),
            Some((DERIVED, value)) => derived = Some(value.to_owned()),
            Some(_) | None => {}
        }
    }
    Some(TextDigests { text: text?, start: start?, derived: derived? })
}

/// The digests in the content of [`file_of`]; `None` if it is cut short or holds none.
pub fn parse(content: &[u8]) -> Option<TextDigests> {
    digests(split(content)?)
}

fn split(mut content: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !content.is_empty() {
        let (length, rest) = content.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        fields.push(field);
        content = rest;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(fields: &[&str]) -> Vec<u8> {
        fields.iter().flat_map(|field| [&(field.len() as u64).to_le_bytes(), field.as_bytes()].concat()).collect()
    }

    #[test]
    fn the_three_digests_are_found_among_other_fields() {
        let content = file(&["OTHER=1", "LAMINA_TEXT=aa", "LAMINA_START=bb", "LAMINA_DERIVED=cc"]);
        let expected = TextDigests { text: "aa".to_owned(), start: "bb".to_owned(), derived: "cc".to_owned() };
        assert_eq!(parse(&content), Some(expected));
    }

    #[test]
    fn a_missing_field_or_a_cut_file_is_no_answer() {
        assert_eq!(parse(&file(&["LAMINA_TEXT=aa", "LAMINA_START=bb"])), None);
        let whole = file(&["LAMINA_TEXT=aa", "LAMINA_START=bb", "LAMINA_DERIVED=cc"]);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
        assert_eq!(parse(&[0xff; 16]), None);
    }
}
