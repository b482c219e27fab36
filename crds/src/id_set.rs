//! Sets of CPU and NUMA node numbers: parsed once from the kernel's list form, compared as sets, printed canonically.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest number a set may hold: the kernel's `NR_CPUS` limit and systemd's parser both end at 8191.
pub const LARGEST_ID: u32 = 8191;

/// The longest text accepted for a list, in bytes.
pub const LONGEST_LIST: usize = 4096;

/// What the text of a list matches, in RE2 syntax.
pub const PATTERN: &str = "^([0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$";

/// What the numbers of a set stand for; keeps CPUs and nodes apart at compile time.
pub trait Kind: Clone + Copy + fmt::Debug + PartialEq + Eq + PartialOrd + Ord + std::hash::Hash {
    /// The word for one member in messages: "CPU", "NUMA node".
    const WORD: &'static str;
    /// The name of the type in generated schemas.
    const SCHEMA: &'static str;
    /// The description of the type in generated schemas.
    const DESCRIPTION: &'static str;
}

/// Logical CPUs (hardware threads), numbered as the kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu;

/// NUMA nodes, numbered as the kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node;

impl Kind for Cpu {
    const WORD: &'static str = "CPU";
    const SCHEMA: &'static str = "CpuSet";
    const DESCRIPTION: &'static str = "A list of CPUs in the kernel's form, such as \"0-7,16\".";
}

impl Kind for Node {
    const WORD: &'static str = "NUMA node";
    const SCHEMA: &'static str = "NodeSet";
    const DESCRIPTION: &'static str = "A list of NUMA nodes in the kernel's form, such as \"0-1\".";
}

/// A set of CPUs. Kernel list form, see cpuset(7) "List format".
pub type CpuSet = IdSet<Cpu>;
/// A set of NUMA nodes. Kernel list form, see cpuset(7) "List format".
pub type NodeSet = IdSet<Node>;

/// A set of small numbers of one kind, as a bitmap of 64-bit words without trailing zero words.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdSet<K: Kind> {
    words: Vec<u64>,
    kind: PhantomData<K>,
}

/// Why a text is no list of numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A part is neither a number nor a range of two numbers.
    #[error("{kind} list `{list}`: `{part}` is not a number or a range; write it like 0-7,16")]
    NotANumber {
        /// What is listed.
        kind: &'static str,
        /// The whole text.
        list: String,
        /// The offending part.
        part: String,
    },
    /// The last number of a range is below its first.
    #[error("{kind} list `{list}`: range {first}-{last} is backwards; write {last}-{first}")]
    Backwards {
        /// What is listed.
        kind: &'static str,
        /// The whole text.
        list: String,
        /// First number of the range.
        first: u32,
        /// Last number of the range.
        last: u32,
    },
    /// A number is above [`LARGEST_ID`].
    #[error("{kind} list `{list}`: {id} is above the largest number, 8191")]
    TooLarge {
        /// What is listed.
        kind: &'static str,
        /// The whole text.
        list: String,
        /// The offending number, as written.
        id: String,
    },
    /// The text is longer than [`LONGEST_LIST`].
    #[error("{kind} list of {length} characters: at most 4096 are accepted")]
    TooLong {
        /// What is listed.
        kind: &'static str,
        /// Length of the text in bytes.
        length: usize,
    },
}

impl<K: Kind> IdSet<K> {
    /// The set without members.
    pub const fn new() -> Self {
        Self { words: Vec::new(), kind: PhantomData }
    }

    /// Adds one number, which must not exceed [`LARGEST_ID`]; larger ones are not representable and are left out.
    pub fn insert(&mut self, id: u32) {
        if id > LARGEST_ID {
            return;
        }
        let word = (id / 64) as usize;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (id % 64);
    }

    /// Takes one number out.
    pub fn remove(&mut self, id: u32) {
        if let Some(word) = self.words.get_mut((id / 64) as usize) {
            *word &= !(1 << (id % 64));
        }
        self.trim();
    }

    /// Whether the number is a member.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get((id / 64) as usize).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let clear_lowest = |rest: &u64| Some(rest & (rest - 1)).filter(|rest| *rest != 0);
            let rests = std::iter::successors(Some(*word).filter(|word| *word != 0), clear_lowest);
            rests.map(move |rest| index as u32 * 64 + rest.trailing_zeros())
        })
    }

    /// The smallest member.
    pub fn first(&self) -> Option<u32> {
        self.iter().next()
    }

    /// Members of either set.
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// Members of both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// Members of this set that are not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// Whether every member is also in the other set.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// Whether the sets share no member.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.intersection(other).is_empty()
    }

    /// The set as systemd wants it on D-Bus (`ay`): bit n of byte n/8 is number n, first byte first, no trailing
    /// zero bytes. Source: systemd, `bus-unit-util.c` and `cpu-set-util.c`; `3-6,10` is `78 04`.
    pub fn to_bus_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    }

    /// Reads the D-Bus form; systemd pads it with zero bytes. Bits above [`LARGEST_ID`] are ignored.
    pub fn from_bus_bytes(bytes: &[u8]) -> Self {
        let bits = bytes.iter().enumerate().flat_map(|(index, byte)| {
            (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| index as u32 * 8 + bit)
        });
        bits.collect()
    }

    fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let length = self.words.len().max(other.words.len());
        let word = |set: &Self, index: usize| set.words.get(index).copied().unwrap_or(0);
        let words = (0..length).map(|index| combine(word(self, index), word(other, index))).collect();
        let mut set = Self { words, kind: PhantomData };
        set.trim();
        set
    }

    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    fn ranges(&self) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for id in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == id => *last = id,
                _ => ranges.push((id, id)),
            }
        }
        ranges
    }
}

impl<K: Kind> Default for IdSet<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Kind> FromIterator<u32> for IdSet<K> {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = Self::new();
        for id in ids {
            set.insert(id);
        }
        set
    }
}

impl<K: Kind> fmt::Display for IdSet<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(formatter, "{comma}{first}")?;
            } else {
                write!(formatter, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl<K: Kind> fmt::Debug for IdSet<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{self}}}")
    }
}

impl<K: Kind> FromStr for IdSet<K> {
    type Err = ListError;

    /// Parses the kernel's list form; surrounding white space and a final newline are the kernel's own and accepted.
    fn from_str(text: &str) -> Result<Self, ListError> {
        if text.len() > LONGEST_LIST {
            return Err(ListError::TooLong { kind: K::WORD, length: text.len() });
        }
        let list = text.trim();
        let mut set = Self::new();
        if list.is_empty() {
            return Ok(set);
        }
        for part in list.split(',') {
            let (first, last) = parse_range::<K>(list, part)?;
            (first..=last).for_each(|id| set.insert(id));
        }
        Ok(set)
    }
}

fn parse_range<K: Kind>(list: &str, part: &str) -> Result<(u32, u32), ListError> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let first = parse_id::<K>(list, part, first)?;
    let last = parse_id::<K>(list, part, last)?;
    if last < first {
        return Err(ListError::Backwards { kind: K::WORD, list: list.to_owned(), first, last });
    }
    Ok((first, last))
}

fn parse_id<K: Kind>(list: &str, part: &str, digits: &str) -> Result<u32, ListError> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ListError::NotANumber { kind: K::WORD, list: list.to_owned(), part: part.to_owned() });
    }
    match digits.parse::<u32>() {
        Ok(id) if id <= LARGEST_ID => Ok(id),
        _ => Err(ListError::TooLarge { kind: K::WORD, list: list.to_owned(), id: digits.to_owned() }),
    }
}

impl<K: Kind> Serialize for IdSet<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: Kind> Deserialize<'de> for IdSet<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<K: Kind> JsonSchema for IdSet<K> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        K::SCHEMA.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": K::DESCRIPTION,
            "maxLength": LONGEST_LIST,
            "pattern": PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cpus(list: &str) -> CpuSet {
        list.parse().expect("a legal list")
    }

    #[test]
    fn the_kernel_form_is_read_and_printed_canonically() {
        assert_eq!(cpus("16-19,0-7\n").to_string(), "0-7,16-19");
        assert_eq!(cpus("3,2,1").to_string(), "1-3");
        assert_eq!(cpus("").to_string(), "");
    }

    #[test]
    fn known_bus_vectors_hold() {
        assert_eq!(cpus("3-6,10").to_bus_bytes(), [0x78, 0x04]);
        assert_eq!(cpus("8-11").to_bus_bytes(), [0x00, 0x0f]);
        assert_eq!("1".parse::<NodeSet>().expect("a legal list").to_bus_bytes(), [0x02]);
        assert_eq!(CpuSet::from_bus_bytes(&[0x78, 0x04, 0, 0, 0, 0, 0, 0]), cpus("3-6,10"));
        assert!(CpuSet::from_bus_bytes(&[0; 8]).is_empty());
    }

    #[test]
    fn wrong_lists_say_what_is_wrong() {
        let message = |list: &str| list.parse::<CpuSet>().expect_err("must be refused").to_string();
        assert_eq!(message("8-4"), "CPU list `8-4`: range 8-4 is backwards; write 4-8");
        assert!(message("0-7,x").contains("`x` is not a number"));
        assert!(message("-1").contains("`-1` is not a number"));
        assert!(message("0,,2").contains("not a number"));
        assert!(message("8192").contains("above the largest number, 8191"));
        assert!(message("4294967296").contains("above the largest number"));
        assert!(message(&"1,".repeat(3000)).contains("at most 4096"));
    }

    proptest! {
        #[test]
        fn printing_and_reading_agree(ids in proptest::collection::btree_set(0u32..=LARGEST_ID, 0..60)) {
            let set: CpuSet = ids.iter().copied().collect();
            prop_assert_eq!(&set.to_string().parse::<CpuSet>().expect("own output"), &set);
            prop_assert_eq!(&CpuSet::from_bus_bytes(&set.to_bus_bytes()), &set);
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), ids.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn the_algebra_is_that_of_sets(
            a in proptest::collection::btree_set(0u32..200, 0..40),
            b in proptest::collection::btree_set(0u32..200, 0..40),
        ) {
            let (x, y): (CpuSet, CpuSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(x.union(&y), a.union(&b).copied().collect());
            prop_assert_eq!(x.intersection(&y), a.intersection(&b).copied().collect());
            prop_assert_eq!(x.difference(&y), a.difference(&b).copied().collect());
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.len(), a.len());
        }
    }
}
