//! The kinds of operations, each of which a benchmark counts separately.

/// A kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OperationKind {
    Commit,
    Get,
    MultiGet,
    Scan,
    Update,
    Insert,
    Modify,
}

/// Number of kinds.
pub(crate) const KIND_COUNT: usize = OperationKind::ALL.len();

impl OperationKind {
    pub(crate) const ALL: [OperationKind; 7] = [
        OperationKind::Commit,
        OperationKind::Get,
        OperationKind::MultiGet,
        OperationKind::Scan,
        OperationKind::Update,
        OperationKind::Insert,
        OperationKind::Modify,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            OperationKind::Commit => "commit",
            OperationKind::Get => "get",
            OperationKind::MultiGet => "multi_get",
            OperationKind::Scan => "scan",
            OperationKind::Update => "update",
            OperationKind::Insert => "insert",
            OperationKind::Modify => "read-update",
        }
    }
}
