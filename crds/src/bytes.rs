//! Amounts of memory: a Kubernetes quantity, parsed once into bytes, printed in the largest binary unit that is exact.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of memory in bytes, written as a Kubernetes quantity (`4Gi`, `512Mi`, `1.5Gi`, `2G`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

/// Why a text is no amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a memory quantity; write a number with one of Ki, Mi, Gi, Ti, Pi, Ei, k, M, G, T, P, E, such as 4Gi"
)]
pub struct QuantityError(String);

/// What the text of an amount matches, in RE2 syntax.
pub const PATTERN: &str = r"^[0-9]{1,19}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$";

const BINARY: [(&str, u64); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const DECIMAL: [(&str, u64); 6] = [
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

impl Bytes {
    /// An amount given in bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// An amount given in mebibytes.
    pub const fn mebi(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// The amount in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, at most `u64::MAX`.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The amount as the kernel keeps a limit: rounded down to a multiple of the page size.
    pub const fn page_aligned(self) -> Self {
        Self(self.0 & !4095)
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self(0), Self::saturating_add)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, unit): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*unit);
        match BINARY.iter().find(exact) {
            Some((suffix, unit)) => write!(formatter, "{}{suffix}", self.0 / unit),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text).map(Self).ok_or_else(|| QuantityError(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<u64> {
    let units = || BINARY.iter().chain(DECIMAL.iter());
    let (number, unit) =
        units().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).unwrap_or((text, 1));
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let whole = u128::from(digits(whole, 19)?) * u128::from(unit);
    let part = match fraction {
        Some(fraction) => {
            u128::from(digits(fraction, 9)?) * u128::from(unit) / 10u128.pow(u32::try_from(fraction.len()).ok()?)
        }
        None => 0,
    };
    u64::try_from(whole + part).ok()
}

fn digits(text: &str, longest: usize) -> Option<u64> {
    let legal = !text.is_empty() && text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_digit());
    if legal { text.parse().ok() } else { None }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An amount of memory as a Kubernetes quantity, such as \"4Gi\".",
            "maxLength": 32,
            "pattern": PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_both_bases() {
        let read = |text: &str| text.parse::<Bytes>().map(Bytes::get).ok();
        assert_eq!(read("4Gi"), Some(4 << 30));
        assert_eq!(read("1.5Gi"), Some(3 << 29));
        assert_eq!(read("2G"), Some(2_000_000_000));
        assert_eq!(read("1024"), Some(1024));
        for wrong in ["banana", "1GB", "-1", "1e30", "10%", "", "Gi", "1.Gi", "4g", "99Ei", " 4Gi"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn printing_uses_the_largest_exact_binary_unit() {
        let print = |text: &str| text.parse::<Bytes>().expect("legal").to_string();
        assert_eq!(print("4096Mi"), "4Gi");
        assert_eq!(print("1.5Gi"), "1536Mi");
        assert_eq!(print("1000"), "1000");
        assert_eq!(print("0"), "0");
    }

    #[test]
    fn the_kernel_keeps_whole_pages() {
        assert_eq!(Bytes::new(300_000_000).page_aligned().get(), 299_999_232);
    }
}
