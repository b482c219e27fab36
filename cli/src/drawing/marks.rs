//! Decides which letter stands for which slice: its own first letter if it is free, so that a drawing can be read
//! without colours.

use std::collections::BTreeSet;

/// One mark for each name, in order; all of the same length, all different. At most 1,000 names.
pub fn marks(names: &[&str]) -> Vec<String> {
    let alphabet = ('A'..='Z').chain('0'..='9');
    if names.len() > alphabet.clone().count() {
        let digits = (names.len() - 1).to_string().len();
        return (0..names.len()).map(|index| format!("{index:0digits$}")).collect();
    }
    let mut taken = BTreeSet::new();
    let mut mark = |name: &&str| {
        let own = name.rsplit('-').next().unwrap_or(name).chars().filter(char::is_ascii_alphanumeric);
        let wished = own.map(|letter| letter.to_ascii_uppercase()).chain(alphabet.clone());
        let free = wished.into_iter().find(|letter| taken.insert(*letter));
        free.map_or_else(|| "?".to_owned(), String::from)
    };
    names.iter().map(&mut mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_bears_a_letter_of_its_own_name_if_it_can() {
        assert_eq!(marks(&["control", "runner", "fanout"]), ["C", "R", "F"]);
        assert_eq!(marks(&["a", "aa", "aab", "orchestrator-api"]), ["A", "B", "C", "P"]);
    }

    #[test]
    fn every_slice_has_a_mark_of_its_own_however_many_there_are() {
        for count in [1, 26, 36, 37, 64, 150] {
            let names: Vec<String> = (0..count).map(|index| format!("slice{index}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let marks = marks(&names);
            assert_eq!(marks.iter().collect::<BTreeSet<_>>().len(), count);
            assert!(marks.iter().all(|mark| mark.len() == marks[0].len()));
        }
    }
}
