//! How a verb can end, and which exit code says so.

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked: exit code 0.
    Done,
    /// Something would change, or is not as asked yet: exit code 2.
    Changes,
    /// Something is infeasible, or a line was bad: exit code 1.
    Incomplete,
}

/// The exit code of an error, which no outcome is: a mistake on the command line, a file that cannot be read.
pub const ERROR: u8 = 1;

impl Outcome {
    /// The program's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Changes => 2,
            Self::Incomplete => ERROR,
        }
    }
}
