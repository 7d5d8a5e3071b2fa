//! Proof of the page cache, for a process that joined while a flush had not ended (P18).
//!
//! Floor: txn. A mark is odd while its holder flushes. If that process dies, it may have seen an
//! error that the kernel reports only once, to descriptors that were open then. A process that
//! opened the file before sees the error too when it flushes again (`Core::flush_records`). One
//! that opened it later does not. It acknowledges nothing until another process has flushed, or
//! until it has read what should be durable from the disk.
//!
//! Failure: pages that the disk does not have poison the database.

use std::ops::Range;
use std::sync::atomic::{fence, AtomicU64, Ordering};

use crate::catalog::TableRecord;
use crate::error::{Error, Result};
use crate::hooks::{self, FlushKind, Mutant};
use crate::ids::{PageId, TxnId};
use crate::pager::read::file_pages::FilePages;
use crate::sys::direct_io::PastCache;
use crate::sys::file_calls;
use crate::tree::{NewerPages, TreeRoot};
use crate::txn::core::Core;
use crate::txn::live::{FlushMark, Live};
use crate::txn::read::snapshot::table_records;
use crate::txn::state::State;

/// Marks that were odd when this process joined. 0: the mark was even, or is proved.
#[derive(Debug, Default)]
pub(crate) struct JoinedMarks {
    flush: AtomicU64,
    checkpoint: AtomicU64,
}

impl JoinedMarks {
    /// Notes the marks as a process finds them that joins.
    pub(crate) fn note(&self, live: &Live) {
        for (mark, joined) in [(FlushMark::Flush, &self.flush), (FlushMark::Checkpoint, &self.checkpoint)] {
            let count = live.mark(mark);
            joined.store(if count.is_multiple_of(2) { 0 } else { count }, Ordering::Relaxed);
        }
    }

    /// Whether a mark is odd as it was when this process joined.
    fn stand(&self, live: &Live) -> bool {
        [(FlushMark::Flush, &self.flush), (FlushMark::Checkpoint, &self.checkpoint)].into_iter().any(
            |(mark, joined)| {
                let seen = joined.load(Ordering::Relaxed);
                let stands = seen != 0 && live.mark(mark) == seen;
                if seen != 0 && !stands {
                    joined.store(0, Ordering::Relaxed);
                }
                stands
            },
        )
    }

    fn clear(&self) {
        self.flush.store(0, Ordering::Relaxed);
        self.checkpoint.store(0, Ordering::Relaxed);
    }

    #[inline]
    fn are_clear(&self) -> bool {
        self.flush.load(Ordering::Relaxed) | self.checkpoint.load(Ordering::Relaxed) == 0
    }
}

impl Core {
    /// Sees that this process may flush and acknowledge. The caller holds the writer lock.
    #[inline]
    pub(crate) fn prove_cache(&self) -> Result<()> {
        match self.joined_marks.are_clear() || !self.joined_marks.stand(&self.live) {
            true => Ok(()),
            false => self.prove_joined(),
        }
    }

    /// Like [`Core::prove_cache`], for a caller without the writer lock or another lock.
    pub(crate) fn prove_cache_unlocked(&self) -> Result<()> {
        if self.joined_marks.are_clear() {
            return Ok(());
        }
        self.writer_lock.acquire(None);
        let proved = self.prove_cache();
        self.release_writer();
        proved
    }

    #[cold]
    fn prove_joined(&self) -> Result<()> {
        if self.live.appending() != TxnId(0) {
            // A leader with the flush lock may wait for a writer that has died.
            self.live.set_broken(self.live.latest().log.epoch);
            self.live.set_appending(TxnId(0));
        }
        let _checkpoint = self.lock_checkpoint();
        let _flush = self.flush_lock.lock();
        if !self.joined_marks.stand(&self.live) {
            return Ok(());
        }
        self.check_poison()?;
        // As a leader: so every record up to the latest state is compared, and counts as durable
        // then. Older states that a checkpoint could pin are not compared.
        let state = self.live.latest();
        let closed = state.log.start.next_multiple_of(self.page_size as u64);
        self.live.raise_closed(closed);
        fence(Ordering::SeqCst);
        let proved = self.mapping.follow().and_then(|()| self.mapping.flush_all(FlushKind::Tree));
        let proved = proved
            .map_err(|e| self.flush_error("flushing the file", e))
            .and_then(|()| self.compare_with_disk(&state, closed).map_err(|e| e.with_path(self.path())))
            .and_then(|()| self.finish_flush(&state, closed));
        match &proved {
            Ok(()) => {
                self.live.publish(state.txn);
                self.live.set_even(FlushMark::Flush);
                self.live.set_even(FlushMark::Checkpoint);
                self.joined_marks.clear();
            }
            Err(e) => self.poison_by(e, true),
        }
        proved
    }

    /// Compares with the disk what is newer than the durable meta page.
    fn compare_with_disk(&self, state: &State, closed: u64) -> Result<()> {
        let durable = self.live.durable_meta();
        let file = self.mapping.file();
        if file_calls::lives_in_memory(file) || hooks::is(Mutant::ProofSkipped) {
            return Ok(());
        }
        let Some(disk) = PastCache::open(file) else {
            return Err(Error::corrupt(
                PageId::NONE,
                "a process died in a flush, and the disk cannot be read to see its result",
            ));
        };
        let from_disk = |offset: u64, into: &mut [u8]| disk.read_at(offset, into);
        let cached = FilePages::new(file, self.page_size, state.page_count * self.page_size as u64);
        let mut newer = NewerPages { cached: &cached, disk: &from_disk, after: durable.txn };
        for root in self.roots_of(state)? {
            newer.tree(&root)?;
        }
        if state.free_list.pages > 0 {
            newer.extent(state.free_list.ptr, state.free_list.pages)?;
        }
        self.compare_log(state, durable.log_start..closed, &from_disk)
    }

    /// The roots of all trees of a state.
    fn roots_of(&self, state: &State) -> Result<Vec<TreeRoot>> {
        let pages = crate::pager::read::snapshot_pages::SnapshotPages::new(
            self.mapping.read_map(),
            self.page_size,
            state.page_count,
        );
        let tables = table_records(&pages, &state.catalog)?;
        let tables = tables.into_iter().map(|(_, TableRecord { root, .. })| root);
        Ok(tables.chain([state.catalog, state.free_space, state.snapshots]).collect())
    }

    fn compare_log(
        &self,
        state: &State,
        positions: Range<u64>,
        from_disk: &dyn Fn(u64, &mut [u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let page_size = self.page_size as u64;
        let log_bytes = state.log.pages * page_size;
        if log_bytes == 0 {
            return Ok(());
        }
        let (mut cached, mut found) = (vec![0; self.page_size], vec![0; self.page_size]);
        for position in (positions.start / page_size * page_size..positions.end).step_by(self.page_size) {
            let at = state.log.first.0 * page_size + position % log_bytes;
            let read = self.mapping.read_at(at, &mut cached).and_then(|()| from_disk(at, &mut found));
            if read.is_err() || cached != found {
                let what = "a page of the commit log is not on the disk as the page cache shows it";
                return Err(Error::corrupt(PageId(at / page_size), what));
            }
        }
        Ok(())
    }
}
