//! Free text from users that ends in unit files: a closed alphabet, so that no renderer can be tricked by it.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// Printable text of at most `LONGEST` bytes: no control characters, no invisible or direction-changing characters, no
/// backslash at the end (systemd.syntax(7): it would join the next line).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<const LONGEST: usize>(String);

/// One argument of a command.
pub type Argument = Text<1024>;
/// The value of an environment variable.
pub type EnvValue = Text<4096>;

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A character that a unit file must not hold.
    #[error("character U+{code:04X} at position {position} is not allowed: {why}; remove it")]
    Character {
        /// The character's code point.
        code: u32,
        /// Its place, counted in characters from 1.
        position: usize,
        /// What kind of character it is.
        why: &'static str,
    },
    /// The last character is a backslash.
    #[error("a backslash at the end would join the next line of the unit file; remove it")]
    TrailingBackslash,
    /// Too many bytes.
    #[error("length {length}, limit {limit} bytes; shorten it")]
    TooLong {
        /// Bytes found.
        length: usize,
        /// Bytes accepted.
        limit: usize,
    },
    /// Not an absolute path in canonical form.
    #[error(
        "`{0}` is not an absolute path in canonical form (no `..`, `.`, `//`, trailing slash or special characters); write it like /opt/app/bin/server"
    )]
    Path(String),
    /// Not a variable name.
    #[error(
        "`{0}` is not a valid variable name; use letters, digits and underscores, not starting with a digit, at most 256"
    )]
    VariableName(String),
}

impl<const LONGEST: usize> Text<LONGEST> {
    /// Accepts the text or says what is wrong with it.
    pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
        let text = text.into();
        if text.len() > LONGEST {
            return Err(TextError::TooLong { length: text.len(), limit: LONGEST });
        }
        for (index, character) in text.chars().enumerate() {
            if let Some(why) = forbidden(character) {
                return Err(TextError::Character { code: character.into(), position: index + 1, why });
            }
        }
        if text.ends_with('\\') {
            return Err(TextError::TrailingBackslash);
        }
        Ok(Self(text))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn forbidden(character: char) -> Option<&'static str> {
    match character {
        '\n' | '\r' => Some("a line break"),
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => Some("a control character"),
        '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => Some("an invisible character"),
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Some("a direction-changing character"),
        _ => None,
    }
}

/// The pattern of [`Text`] for schemas (RE2 syntax).
const TEXT_PATTERN: &str = r"^([^\x00-\x1f\x7f-\x{9f}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2066}-\x{2069}\x{feff}]*[^\\\x00-\x1f\x7f-\x{9f}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2066}-\x{2069}\x{feff}])?$";

impl<const LONGEST: usize> Deref for Text<LONGEST> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const LONGEST: usize> fmt::Display for Text<LONGEST> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<const LONGEST: usize> FromStr for Text<LONGEST> {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::new(text)
    }
}

impl<'de, const LONGEST: usize> Deserialize<'de> for Text<LONGEST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl<const LONGEST: usize> JsonSchema for Text<LONGEST> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Text{LONGEST}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": LONGEST, "pattern": TEXT_PATTERN })
    }
}

/// A type around one checked string: parsing, printing, JSON and schema.
macro_rules! checked_string {
    ($(#[$meta:meta])* $name:ident, $longest:expr, $pattern:expr, $check:expr, $error:ty) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What the whole text matches, in RE2 syntax.
            pub const PATTERN: &'static str = $pattern;

            /// Accepts the text or says what is wrong with it.
            pub fn new(text: impl Into<String>) -> Result<Self, $error> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::new(text)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(<String as serde::Deserialize>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": $longest, "pattern": $pattern })
            }
        }
    };
}
pub(crate) use checked_string;

/// The pattern of [`AbsolutePath`]: no component starts with two dots or is a single dot.
pub const PATH_PATTERN: &str = r"^(/(\.[A-Za-z0-9_+=:,@~-]|[A-Za-z0-9_+=:,@~-])[A-Za-z0-9_+=:,@~.-]*)+$";

checked_string! {
    /// An absolute path in canonical form, of letters, digits and `_ + = : , @ ~ . -`, at most 1024 bytes.
    AbsolutePath, 1024, PATH_PATTERN, check_path, TextError
}

fn check_path(text: &str) -> Result<(), TextError> {
    if text.len() > 1024 {
        return Err(TextError::TooLong { length: text.len(), limit: 1024 });
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=:,@~-".contains(&byte);
    let component = |part: &str| {
        let bytes = part.as_bytes();
        let head = match bytes {
            [b'.', second, ..] => plain(*second),
            [first, ..] => plain(*first),
            [] => false,
        };
        head && bytes.iter().all(|byte| plain(*byte) || *byte == b'.')
    };
    match text.strip_prefix('/') {
        Some(rest) if rest.split('/').all(component) => Ok(()),
        _ => Err(TextError::Path(text.chars().take(128).collect())),
    }
}

checked_string! {
    /// The name of an environment variable.
    EnvName, 256, "^[A-Za-z_][A-Za-z0-9_]*$", check_variable, TextError
}

fn check_variable(text: &str) -> Result<(), TextError> {
    let head = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let legal = head && text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if legal { Ok(()) } else { Err(TextError::VariableName(text.chars().take(64).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_change_a_unit_is_refused() {
        for wrong in
            ["a\nb", "a\rb", "\0", "\u{b}", "\u{1b}", "\u{7f}", "\u{85}", "\u{2028}", "\u{feff}", "\u{202e}", "x\\"]
        {
            assert!(Argument::new(wrong).is_err(), "{wrong:?}");
        }
        for right in ["", "%h", "$HOME", "a;b", "\"", "'", "#x", "\\n", "ä€"] {
            assert!(Argument::new(right).is_ok(), "{right:?}");
        }
        assert!(Argument::new("x".repeat(1025)).is_err());
        let error = Argument::new("ab\ncd").expect_err("a line break").to_string();
        assert_eq!(error, "character U+000A at position 3 is not allowed: a line break; remove it");
    }

    #[test]
    fn only_canonical_absolute_paths_pass() {
        for right in ["/opt/orchestrator/bin/router", "/bin/a.out", "/srv/.hidden/x", "/a"] {
            assert!(AbsolutePath::new(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "/",
            "sh",
            "//bin//sh",
            "/opt/app/./x",
            "/opt/../bin/sh",
            "/x/",
            "+/bin/x",
            "/a b",
            "/a%h",
            "/$x",
            "/a\\",
        ] {
            assert!(AbsolutePath::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variable_names_are_those_of_posix() {
        assert!(EnvName::new("GOMAXPROCS").is_ok());
        for wrong in ["", "A=B", "1A", "A-B", "A B"] {
            assert!(EnvName::new(wrong).is_err(), "{wrong}");
        }
    }
}
