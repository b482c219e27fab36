//! Terms of operators: each new leader has a higher one than every leader before, so what an older one still writes is
//! recognised.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The term of a leader, from 1 on; none of them is before every term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(u32);

/// The last term that a Lease can hold, `leaseTransitions` being a number of 32 bits with a sign.
const LAST: u32 = i32::MAX as u32;

impl Term {
    /// Before every leader: what an object without a term was written in.
    pub const NONE: Self = Self(0);

    /// The term of this number; none if it is no number of a term.
    pub fn new(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|number| *number <= LAST).map(Self)
    }

    /// The first term after this one. The last term has none after it: two thousand million hand-overs away.
    pub const fn next(self) -> Self {
        Self(if self.0 < LAST { self.0 + 1 } else { LAST })
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether it is before every leader; such a term is not written.
    pub const fn is_none(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Term {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

impl JsonSchema for Term {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Term".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": LAST })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_term_is_higher_until_there_is_none() {
        assert!(Term::NONE < Term::NONE.next());
        assert_eq!(Term::new(-1), None);
        assert_eq!(Term::new(1 << 31), None);
        let last = Term::new(i64::from(LAST)).expect("a term");
        assert_eq!(last.next(), last);
    }
}
