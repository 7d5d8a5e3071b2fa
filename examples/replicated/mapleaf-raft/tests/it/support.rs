//! What the tests share: a small application, entries, and directories.

use mapleaf::{Table, WriteTxn};
use mapleaf_raft::{Apply, LogStore, SnapshotData, State, StateMachine};
use openraft::storage::RaftLogStorageExt;
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId};
use tokio::runtime::Runtime;

openraft::declare_raft_types!(
    pub(crate) Types:
        D = String,
        R = u64,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = SnapshotData,
);

/// Every request that was applied, by its index, and how often.
pub(crate) const APPLIED: Table<u64, &str> = Table::new("applied");
pub(crate) const TIMES: Table<&str, u64> = Table::new("times");

/// Counts requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count;

impl Apply<Types> for Count {
    fn apply(&self, txn: &WriteTxn, requests: Vec<(LogId<u64>, String)>) -> mapleaf::Result<Vec<u64>> {
        let (mut applied, mut times) = (txn.table(APPLIED)?, txn.table(TIMES)?);
        let mut answers = Vec::new();
        for (id, request) in requests {
            applied.insert(id.index, &request)?;
            let before = times.get(&request)?.unwrap_or(0);
            times.insert(&request, before + 1)?;
            answers.push(before + 1);
        }
        Ok(answers)
    }
}

pub(crate) fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

pub(crate) fn id(term: u64, index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(term, 0), index)
}

pub(crate) fn entry(term: u64, index: u64, request: &str) -> Entry<Types> {
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(request.to_string()) }
}

/// Entries with their index as request.
pub(crate) fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<Entry<Types>> {
    range.map(|index| entry(term, index, &format!("request {index}"))).collect()
}

/// Appends, and waits until the entries are durable.
pub(crate) fn append(runtime: &Runtime, log: &mut LogStore<Types>, entries: Vec<Entry<Types>>) {
    runtime.block_on(log.blocking_append(entries)).expect("to append");
}

pub(crate) fn machine(dir: &std::path::Path) -> StateMachine<Count> {
    StateMachine::new(State::open(dir).expect("a state"), Count)
}
