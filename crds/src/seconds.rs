//! Spans of time as users write them (`5s`, `2m`, `1h`), parsed once into whole seconds.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of whole seconds, at most one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u32);

/// Why a text is no span of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a span of time from 0s to 24h; write a whole number with s, m or h, such as 5s")]
pub struct SecondsError(String);

const LONGEST: u32 = 86_400;

/// What the text of a span matches, in RE2 syntax.
pub const PATTERN: &str = "^[0-9]{1,5}[smh]$";

impl Seconds {
    /// A span of so many seconds, cut at one day.
    pub const fn new(seconds: u32) -> Self {
        Self(if seconds > LONGEST { LONGEST } else { seconds })
    }

    /// The span in seconds.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds != 0 && seconds % 3600 == 0 => write!(formatter, "{}h", seconds / 3600),
            seconds if seconds != 0 && seconds % 60 == 0 => write!(formatter, "{}m", seconds / 60),
            seconds => write!(formatter, "{seconds}s"),
        }
    }
}

impl FromStr for Seconds {
    type Err = SecondsError;

    fn from_str(text: &str) -> Result<Self, SecondsError> {
        parse(text).map(Self).ok_or_else(|| SecondsError(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<u32> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let (digits, unit) = units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    let legal = (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = legal.then(|| digits.parse::<u32>().ok()).flatten()?.checked_mul(*unit)?;
    (seconds <= LONGEST).then_some(seconds)
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Seconds".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A span of time from 0s to 24h, such as \"5s\" or \"2m\".",
            "maxLength": 6,
            "pattern": PATTERN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_printed() {
        let round = |text: &str| text.parse::<Seconds>().map(|span| span.to_string()).ok();
        assert_eq!(round("5s").as_deref(), Some("5s"));
        assert_eq!(round("120s").as_deref(), Some("2m"));
        assert_eq!(round("24h").as_deref(), Some("24h"));
        for wrong in ["", "5", "s", "-1s", "1.5s", "25h", "1000000h", "NaN"] {
            assert_eq!(round(wrong), None, "{wrong}");
        }
    }
}
