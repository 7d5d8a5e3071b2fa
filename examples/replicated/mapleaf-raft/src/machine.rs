//! The state machine: openraft's `RaftStateMachine` on the file of a [`State`].
//!
//! One transaction holds a batch of entries and the position after them (RAFT-3). It is committed
//! at the level `Eventual`: nothing waits for the disk, since the log has the entries durably.
//!
//! A snapshot is a read transaction. The one that openraft asks for is always of the newest state:
//! a transaction is pinned only while it is sent, and the file does not grow for one that nobody
//! wants.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use mapleaf::{Durability, WriteTxn};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership,
};

use crate::error::{Error, Result};
use crate::snapshot::{Pinned, SnapshotData};
use crate::state::{put_applied, Applied, State};
#[cfg(feature = "testing")]
use crate::testing::Mutant;
use crate::Config;

type Stored<T> = std::result::Result<T, StorageError<u64>>;

/// What the requests of an application do to its tables.
///
/// Every node applies the same requests in the same order and must come to the same tables: use
/// nothing else, such as a clock or a random number. The table `raft` is not the application's.
pub trait Apply<C: Config>: Send + Sync + 'static {
    /// Applies requests in their order, each with its position in the log, and returns as many
    /// responses. The transaction holds the whole batch, and is aborted after an error.
    ///
    /// # Errors
    /// Those of the database. A request that does not fit is no error but a response: an error
    /// stops the node.
    fn apply(&self, txn: &WriteTxn, requests: Vec<(LogId<u64>, C::D)>) -> mapleaf::Result<Vec<C::R>>;
}

/// The state machine of a node.
#[derive(Debug)]
pub struct StateMachine<A> {
    state: State,
    application: A,
    /// Whether openraft knows of a snapshot.
    has_snapshot: Arc<AtomicBool>,
    #[cfg(feature = "testing")]
    mutant: Option<Mutant>,
}

/// Builds snapshots beside the state machine.
#[derive(Debug)]
pub struct SnapshotBuilder {
    state: State,
    has_snapshot: Arc<AtomicBool>,
}

/// A batch of entries, taken apart.
struct Batch<C: Config> {
    /// Which of the entries have requests.
    positions: Vec<usize>,
    requests: Vec<(LogId<u64>, C::D)>,
    membership: Option<StoredMembership<u64, BasicNode>>,
    last: Option<LogId<u64>>,
    count: usize,
}

impl<A> StateMachine<A> {
    /// A state machine on a state.
    pub fn new(state: State, application: A) -> StateMachine<A> {
        StateMachine {
            state,
            application,
            has_snapshot: Arc::default(),
            #[cfg(feature = "testing")]
            mutant: None,
        }
    }

    /// Like [`new`](StateMachine::new), with a step done wrong.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn with_mutant(state: State, application: A, mutant: Option<Mutant>) -> StateMachine<A> {
        StateMachine { mutant, ..StateMachine::new(state, application) }
    }

    fn apply_batch<C: Config>(&self, batch: Batch<C>) -> Result<Vec<C::R>>
    where
        A: Apply<C>,
    {
        let Some(last) = batch.last else { return Ok(Vec::new()) };
        let db = self.state.db();
        let mut txn = db.begin_write()?;
        txn.set_durability(Durability::Eventual);
        let (expected, count) = (batch.requests.len(), batch.count);
        let answers = self.application.apply(&txn, batch.requests)?;
        if answers.len() != expected {
            let got = answers.len();
            return Err(Error::Refused(format!("the application gave {got} responses to {expected} requests")));
        }
        #[cfg(feature = "testing")]
        if self.mutant == Some(Mutant::AppliedWithoutLastApplied) {
            txn.commit()?;
            txn = db.begin_write()?;
            txn.set_durability(Durability::Eventual);
        }
        put_applied(&txn, last, batch.membership.as_ref())?;
        txn.commit()?;
        let mut responses: Vec<C::R> = std::iter::repeat_with(C::R::default).take(count).collect();
        for (position, answer) in batch.positions.into_iter().zip(answers) {
            responses[position] = answer;
        }
        Ok(responses)
    }

    fn install(&self, meta: &SnapshotMeta<u64, BasicNode>, data: SnapshotData) -> Result<()> {
        let incoming = match data {
            SnapshotData::Received(incoming) => incoming,
            SnapshotData::Pinned(pinned) => pinned.copy_to(&self.state)?,
            SnapshotData::Awaited => return Err(Error::Snapshot("it has no data".to_string())),
        };
        incoming.install(&self.state, &(meta.last_log_id, meta.last_membership.clone()))?;
        self.has_snapshot.store(true, Ordering::Release);
        Ok(())
    }
}

/// Takes entries apart; each has to follow the ones applied before.
fn take_apart<C: Config>(entries: impl Iterator<Item = Entry<C>>, applied: Option<LogId<u64>>) -> Result<Batch<C>> {
    let mut batch = Batch { positions: Vec::new(), requests: Vec::new(), membership: None, last: applied, count: 0 };
    for entry in entries {
        let id = entry.log_id;
        if batch.last.is_some_and(|last| id.index <= last.index) {
            let last = batch.last.map_or(0, |last| last.index);
            return Err(Error::Refused(format!("entry {} is applied already; the last one is {last}", id.index)));
        }
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(request) => {
                batch.positions.push(batch.count);
                batch.requests.push((id, request));
            }
            EntryPayload::Membership(members) => batch.membership = Some(StoredMembership::new(Some(id), members)),
        }
        batch.last = Some(id);
        batch.count += 1;
    }
    Ok(batch)
}

impl<C: Config, A: Apply<C>> RaftStateMachine<C> for StateMachine<A> {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Stored<Applied> {
        Ok(self.state.applied().map_err(|e| StorageIOError::read_state_machine(&e))?)
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<C::R>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let applied = self.state.applied().and_then(|(last, _)| {
            let batch = take_apart(entries.into_iter(), last)?;
            self.apply_batch(batch)
        });
        Ok(applied.map_err(|e| StorageIOError::write_state_machine(&e))?)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { state: self.state.clone(), has_snapshot: Arc::clone(&self.has_snapshot) }
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<SnapshotData>> {
        Ok(Box::new(SnapshotData::Awaited))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<SnapshotData>,
    ) -> Stored<()> {
        let installed = tokio::task::block_in_place(|| self.install(meta, *snapshot));
        Ok(installed.map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), &e))?)
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<C>>> {
        if !self.has_snapshot.load(Ordering::Acquire) {
            return Ok(None);
        }
        Ok(Some(pin(&self.state).map_err(|e| StorageIOError::read_snapshot(None, &e))?))
    }
}

impl<C: Config> RaftSnapshotBuilder<C> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<C>> {
        let state = self.state.clone();
        let built = tokio::task::spawn_blocking(move || {
            let snapshot = pin(&state)?;
            // openraft purges the log up to this snapshot (RAFT-4).
            state.db().sync()?;
            Ok::<_, Error>(snapshot)
        });
        let built = built.await.map_err(|e| StorageIOError::write_snapshot(None, &e))?;
        let snapshot = built.map_err(|e| StorageIOError::write_snapshot(None, &e))?;
        self.has_snapshot.store(true, Ordering::Release);
        Ok(snapshot)
    }
}

/// A snapshot of the newest state.
fn pin<C: Config>(state: &State) -> Result<Snapshot<C>> {
    let pinned = Pinned::new(state)?;
    let (last_log_id, last_membership) = pinned.applied()?;
    let snapshot_id = match last_log_id {
        Some(id) => format!("{}-{}-{}", id.leader_id.term, id.leader_id.node_id, id.index),
        None => "empty".to_string(),
    };
    let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id };
    Ok(Snapshot { meta, snapshot: Box::new(SnapshotData::Pinned(pinned)) })
}
