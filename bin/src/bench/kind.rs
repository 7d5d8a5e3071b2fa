//! The kinds of operations that a benchmark counts separately.

/// A kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Commit,
    Get,
    MultiGet,
    Scan,
    Update,
    Insert,
    Modify,
}

/// Number of kinds.
pub(crate) const KINDS: usize = Kind::ALL.len();

impl Kind {
    pub(crate) const ALL: [Kind; 7] =
        [Kind::Commit, Kind::Get, Kind::MultiGet, Kind::Scan, Kind::Update, Kind::Insert, Kind::Modify];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::Get => "get",
            Kind::MultiGet => "multi_get",
            Kind::Scan => "scan",
            Kind::Update => "update",
            Kind::Insert => "insert",
            Kind::Modify => "read-update",
        }
    }
}
