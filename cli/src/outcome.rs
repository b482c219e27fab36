//! How a verb can end, which the program turns into an exit code.

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
