//! What a client asks the cluster to do, as it stands in the log, and the answer.

use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// openraft with the types of kvnode.
    pub(crate) Types:
        D = Batch,
        R = Vec<Response>,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = mapleaf_raft::SnapshotData,
);

/// A node's openraft.
pub(crate) type Raft = openraft::Raft<Types>;

/// The changes of one entry, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Vec<Request>);

/// A change, and who asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) origin: Option<Origin>,
    pub(crate) command: Command,
}

/// Names a request, so that it is applied once however often it is sent. A client counts its
/// requests and sends one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) client: u64,
    pub(crate) number: u64,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Command {
    Put {
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
    },
    Delete {
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
    },
    Cas {
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        #[serde(with = "serde_bytes")]
        expect: Option<Vec<u8>>,
        #[serde(with = "serde_bytes")]
        value: Option<Vec<u8>>,
    },
}

impl Command {
    /// Bytes of its key and values.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Command::Put { key, value } => key.len() + value.len(),
            Command::Delete { key } => key.len(),
            Command::Cas { key, expect, value } => {
                key.len() + expect.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len)
            }
        }
    }
}

/// The answer, and the index of the entry that made the change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) index: u64,
    pub(crate) outcome: Outcome,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Put,
    Deleted {
        existed: bool,
    },
    Cas {
        swapped: bool,
        /// The value that the key has now.
        #[serde(with = "serde_bytes")]
        current: Option<Vec<u8>>,
    },
    /// Nothing: its client has sent a later request already, this number.
    Superseded(u64),
    /// Nothing: the database does not take this key or value.
    Refused(String),
}
