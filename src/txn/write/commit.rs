//! Commit and abort: how a write transaction ends.
//!
//! Floor: txn. A commit seals the trees of changed tables, puts their table records into the
//! catalog, saves the free space and seals it, and makes the next state. Then the writer either
//! appends the record of the transaction to the commit log (`log/append.rs`) and shares a flush
//! with others (`log/lead.rs`), or does both by one write (`log/sole_commit.rs`), or commits the
//! state by checkpoint (`write/checkpoint.rs`). An abort drops the claimed pages and the writer's
//! cache of the free space.
//!
//! A transaction commits by checkpoint if there is no log, if its record is too large, if the log
//! has no space after a checkpoint, if an append failed, and if it makes the log.
//!
//! Invariants: WRITE-2 and WRITE-3, see `write/txn.rs`.
//!
//! Failure: an error before the state is stored aborts the transaction; after a failed flush, the
//! database is poisoned.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::catalog::flags;
use crate::error::{Error, Result};
use crate::hooks::{self, Moment, Mutant};
use crate::ids::TxnId;
use crate::page::meta::features;
use crate::pager::PageRead as _;
use crate::tree::{self, PutHint, TreeMut};
use crate::txn::env::{Env, Writer};
use crate::txn::state::State;
use crate::txn::write::txn::{writer_of, RunningTxn};

/// What a commit survives, and when.
///
/// | level | `commit` returns when | process crash | power loss | visible to readers |
/// |---|---|---|---|---|
/// | `Immediate` | it is durable | survives | survives | when it is durable |
/// | `Eventual` | it is made | survives | may be lost, with all commits after it | at once |
///
/// The state after a power loss is always that of some commit, and no older than the last
/// `Immediate` one that was acknowledged. [`Db::sync`](crate::Db::sync) makes all commits durable
/// that have returned; [`Options::sync_interval`](crate::Options::sync_interval) sets how soon that
/// happens without a call. If `Immediate` commits before an `Eventual` one are not durable yet, the
/// `Eventual` one becomes visible and returns only with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Survives a power loss when `commit` has returned.
    #[default]
    Immediate,
    /// Survives a crash of the process when `commit` has returned, and a power loss soon after.
    Eventual,
}

/// A commit whose durability can be waited for.
/// [`WriteTxn::commit_async`](crate::WriteTxn::commit_async) returns it.
///
/// [`wait`](PendingCommit::wait) blocks; as a [`Future`] it needs no particular runtime. Dropping
/// it does not undo the commit: the environment's thread makes it durable.
#[must_use = "the commit is durable only when `wait` has returned or the future is ready"]
pub struct PendingCommit {
    env: Arc<Env>,
    txn: TxnId,
    /// The txn that has to be durable.
    target: TxnId,
}

impl PendingCommit {
    /// The number of the transaction.
    pub fn txn_id(&self) -> u64 {
        self.txn.0
    }

    /// Whether [`wait`](PendingCommit::wait) would return at once.
    pub fn is_done(&self) -> bool {
        self.env.is_acknowledged(self.target)
    }

    /// Returns when the commit has what its level promises: an `Immediate` one is durable and
    /// visible, an `Eventual` one visible.
    ///
    /// # Errors
    /// `Poisoned` or `Io` when a flush has failed: whether the transaction survives is not known
    /// until the database is opened again.
    pub fn wait(self) -> Result<()> {
        self.env.wait_durable(self.target)
    }
}

impl Future for PendingCommit {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.is_done() {
            return Poll::Ready(Ok(()));
        }
        self.env.check_process()?;
        self.env.check_poison()?;
        if !self.env.signal.has_thread() {
            // The environment has no thread (creating it failed), so perhaps no other thread
            // flushes.
            return Poll::Ready(self.env.wait_durable(self.target));
        }
        self.env.waiters.add(context.waker());
        // The commit may have become durable before the waker was added.
        match (self.is_done(), self.env.check_poison()) {
            (true, _) => Poll::Ready(Ok(())),
            (false, Err(e)) => Poll::Ready(Err(e)),
            (false, Ok(())) => Poll::Pending,
        }
    }
}

impl fmt::Debug for PendingCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PendingCommit");
        shown.field("path", &self.env.path).field("txn", &self.txn.0).field("done", &self.is_done()).finish()
    }
}

impl RunningTxn {
    /// Commits, and waits until the transaction has what its level promises.
    pub(crate) fn commit(mut self) -> Result<()> {
        let (txn, target) = self.complete(true)?;
        let env = Arc::clone(&self.env);
        drop(self);
        hooks::reach(Moment::WriterReleased);
        env.note_commit(txn);
        env.wait_durable(target)
    }

    /// Commits, and does not wait.
    pub(crate) fn commit_async(mut self) -> Result<PendingCommit> {
        let (txn, target) = self.complete(false)?;
        let env = Arc::clone(&self.env);
        drop(self);
        hooks::reach(Moment::WriterReleased);
        env.note_commit(txn);
        if !env.is_acknowledged(target) {
            // Perhaps no thread waits for the handle.
            env.signal.want_sync(Duration::ZERO);
        }
        Ok(PendingCommit { env, txn, target })
    }

    /// Makes the next state and stores it. Returns its txn, and the txn that has to be durable
    /// before the commit is acknowledged. `awaited`: the caller waits for that.
    fn complete(&mut self, awaited: bool) -> Result<(TxnId, TxnId)> {
        self.check_finished()?;
        self.end_savepoints()?;
        let env = Arc::clone(&self.env);
        let made = self.make_state();
        // A store that the kernel could not serve is lost without an error: `check_fault` finds it.
        let made = self.pages().check_fault(made).map_err(|e| e.with_path(env.path()))?;
        let Some(state) = made else {
            // The transaction changed nothing. At the level `Immediate`, the `Immediate` commits
            // that it saw have to be durable.
            let target = match self.durability {
                Durability::Immediate => self.basis.latest.last_immediate,
                Durability::Eventual => TxnId(0),
            };
            return Ok((self.basis.latest.txn, target));
        };
        let state = self.store_state(state, awaited)?;
        env.commits.fetch_add(1, Ordering::Relaxed);
        let target = match self.durability {
            Durability::Immediate => state.txn,
            // An `Eventual` state may be published only if every `Immediate` commit before it is
            // durable (P12).
            Durability::Eventual if env.may_publish(&state) => {
                env.live.publish(state.txn);
                TxnId(0)
            }
            Durability::Eventual => state.txn,
        };
        self.finish(Some(state));
        Ok((state.txn, target))
    }

    /// Ends a replay in the file: commits by checkpoint, with a number and an epoch of its own. The
    /// usual end of a replay is `write_out` in `log/replay.rs`.
    pub(crate) fn commit_replayed(mut self) -> Result<()> {
        self.catalog_changed = true;
        let env = Arc::clone(&self.env);
        let made = self.make_state();
        let made = self.pages().check_fault(made).map_err(|e| e.with_path(env.path()))?;
        if let Some(mut state) = made {
            env.begin_epoch(&mut state);
            env.commit_by_checkpoint(&state, env.checkpoint_lock.lock())?;
            self.finish(Some(state));
        }
        Ok(())
    }

    /// Ends a replay in memory, or the making of a scratch environment: publishes the state and
    /// writes nothing to the file.
    pub(crate) fn keep_state(mut self) -> Result<()> {
        self.catalog_changed = true;
        let env = Arc::clone(&self.env);
        let made = self.make_state();
        let made = self.pages().check_fault(made).map_err(|e| e.with_path(env.path()))?;
        if let Some(state) = made {
            env.keep(&state);
            self.finish(Some(state));
        }
        Ok(())
    }

    /// Makes the transaction allocate pages only at the end of the file.
    pub(crate) fn use_new_pages(&mut self) {
        let Writer { pages, cache, .. } = writer_of(&mut self.writer);
        cache.release_reserve(pages);
        pages.free.hand_out_nothing();
    }

    /// Stores a state: by its record in the log, or by checkpoint. `awaited`: the caller waits
    /// until it is durable.
    fn store_state(&mut self, mut state: State, awaited: bool) -> Result<State> {
        let env = Arc::clone(&self.env);
        if let Some(base) = env.base() {
            base.check_fault(Ok(()))?;
            env.check_poison()?;
            env.keep(&state);
            return Ok(state);
        }
        let record = &mut writer_of(&mut self.writer).record;
        let makes_log = self.makes_log && !hooks::is(Mutant::LogChangedBesideWriters);
        if makes_log || !record.is_active() || !env.can_append(&state.log) {
            return env.store_by_checkpoint(state, env.lock_checkpoint());
        }
        env.check_poison()?;
        env.keep_unflushed(&state)?;
        let Some(record) = record.whole().filter(|record| record.len() <= env.record_limit(&state.log)) else {
            return env.store_by_checkpoint(state, env.lock_checkpoint());
        };
        let must_wait = |len: usize| !env.has_log_space(&state.log, len) || env.holds_too_many(&state);
        if must_wait(record.len()) {
            let begin = Instant::now();
            let checkpoint = env.lock_checkpoint();
            env.waited_nanos.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
            if must_wait(record.len()) {
                return env.store_by_checkpoint(state, checkpoint);
            }
        }
        env.write_zeros_for(&state.log, record.len());
        if awaited && self.durability == Durability::Immediate {
            if let Some(locks) = env.try_sole(&state, record.len()) {
                return match env.append_durably(&mut state, record, locks)? {
                    true => Ok(state),
                    false => env.store_by_checkpoint(state, env.lock_checkpoint()),
                };
            }
        }
        let bytes = record.len();
        match env.append(&mut state, record) {
            true => Ok(state),
            false if hooks::is(Mutant::OrphanAborted) => {
                Err(Error::io("appending to the commit log", env.path(), std::io::ErrorKind::Other.into()))
            }
            false if hooks::is(Mutant::EpochByRecord) => {
                record.truncate(bytes);
                env.begin_epoch(&mut state);
                env.append(&mut state, record);
                Ok(state)
            }
            false => env.store_by_checkpoint(state, env.lock_checkpoint()),
        }
    }

    /// Seals all trees and returns the next state. `None` if the transaction changed nothing.
    fn make_state(&mut self) -> Result<Option<State>> {
        if !self.catalog_changed && self.tables.iter().all(|table| !table.changed) {
            return Ok(None);
        }
        self.env.check_poison()?;
        self.end_filling()?;
        // A pass over a table that was left early may not have ended the write queue.
        let written = writer_of(&mut self.writer).pages.end_writing();
        self.note(None, written)?;
        let mut features = self.save_tables()?;
        if self.pages().has_long_keys() {
            features |= features::LONG_KEYS;
        }
        let log = self.next_log()?;
        let writer = writer_of(&mut self.writer);
        let by_checkpoint = self.makes_log || !writer.record.is_active() || log.pages == 0;
        if by_checkpoint && self.env.base().is_none() {
            self.env.prefault_meta_pages()?;
        }
        tree::seal(&mut writer.pages, &mut self.catalog)?;
        tree::seal(&mut writer.pages, &mut self.snapshots)?;
        let needed = self.env.live.checkpoint();
        let superseded = writer.pages.free.freed_pages(needed.pinned.unwrap_or(needed.durable_meta.txn));
        let (free_space, free_list) = writer.cache.save(&mut writer.pages, &self.basis)?;
        self.end_watching_folios()?;
        let writer = writer_of(&mut self.writer);
        let txn = self.basis.latest.txn.next();
        Ok(Some(State {
            txn,
            page_count: writer.pages.page_count(),
            catalog: self.catalog,
            snapshots: self.snapshots,
            free_space,
            free_list,
            next_tree: self.next_tree,
            features: self.basis.latest.features | features,
            log,
            last_immediate: match self.durability {
                Durability::Immediate => txn,
                Durability::Eventual => self.basis.latest.last_immediate,
            },
            superseded: self.basis.latest.superseded + superseded,
        }))
    }

    /// Puts the table records of changed tables into the catalog. Returns the features that these
    /// tables need.
    fn save_tables(&mut self) -> Result<u64> {
        let mut features = 0;
        // With the hint, table records that are put in the order of their names fill the leaves of
        // the catalog.
        let mut hint = PutHint::default();
        for at in 0..self.tables.len() {
            if !self.tables[at].changed {
                continue;
            }
            self.ensure(0)?;
            let table = &mut self.tables[at];
            let writer = writer_of(&mut self.writer);
            tree::seal_after_puts(&mut writer.pages, &mut table.record.root, &table.put_hint)
                .map_err(|e| e.with_table(table.name()))?;
            features |= flags::features(table.record.flags);
            let record = table.record.encode();
            TreeMut::new(&mut writer.pages, &mut self.catalog).put(
                table.name().as_bytes(),
                &record,
                &mut hint,
                None,
            )?;
        }
        Ok(features)
    }

    /// Ends the transaction: `state` is its committed state, `None` aborts. Releases the writer
    /// lock.
    pub(super) fn finish(&mut self, state: Option<State>) {
        let Some(mut writer) = self.writer.take() else { return };
        if self.env.is_inherited() {
            // A child after `fork` frees nothing, and waits for no lock that a thread of its parent
            // may hold (P22).
            std::mem::forget(writer);
            return;
        }
        if state.is_some() {
            writer.pages.committed_now();
        }
        writer.pages.end();
        let window_id = self.env.mapping.window_id();
        if window_id != self.window_id || self.env.readers.may_pin_old_windows() {
            self.env.readers.unpin_old_windows(window_id);
        }
        match state {
            Some(state) => {
                writer.based_on = state.txn;
                writer.committed += 1;
            }
            None => writer.forget(),
        }
        self.env.return_writer(writer);
        self.env.release_writer();
    }
}
