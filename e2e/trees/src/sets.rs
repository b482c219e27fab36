//! Sets of numbers in the kernel's two forms, written apart from the code that reads them.

use std::collections::BTreeSet;

/// Numbers of CPUs or nodes.
pub type Ids = BTreeSet<u32>;

/// The list form, such as `0-3,8`.
pub fn list(ids: &Ids) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *id => *last = *id,
            Some(_) | None => ranges.push((*id, *id)),
        }
    }
    let text = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The bitmap form, such as `00000001,0000000f`: words of 32 bits, as many as numbers below `end` need.
pub fn mask(ids: &Ids, end: u32) -> String {
    let word =
        |index: u32| (0..32).filter(|bit| ids.contains(&(index * 32 + bit))).map(|bit| 1_u32 << bit).sum::<u32>();
    (0..end.div_ceil(32).max(1)).rev().map(|index| format!("{:08x}", word(index))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_the_kernels() {
        let ids = Ids::from([0, 1, 2, 3, 33]);
        assert_eq!(list(&ids), "0-3,33");
        assert_eq!(mask(&ids, 40), "00000002,0000000f");
        assert_eq!((list(&Ids::new()), mask(&Ids::new(), 4)), (String::new(), "00000000".to_owned()));
    }
}
