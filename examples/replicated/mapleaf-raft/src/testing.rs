//! Steps that tests do wrong on purpose, to prove that a test fails then.

/// A step done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The writer of the log acknowledges changes before it commits them (RAFT-1, RAFT-2).
    AcknowledgedBeforeFlush,
    /// Entries are applied by a transaction, and `last_applied` is kept by the next one (RAFT-3).
    AppliedWithoutLastApplied,
}
