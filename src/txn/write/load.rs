//! Loading many entries into a table of a write transaction.
//!
//! Floor: txn. As long as entries come in order, after the last one of the table, the load builds
//! full leaves of them and collects nothing. From the first entry on that is out of order, the load
//! collects entries in memory. When memory is full, it sorts them and puts them into the tree leaf
//! by leaf. (If the table is not in bytewise order, it puts each entry at once.) A thread writes
//! finished pages by `pwrite` while others are built, and starts their write-back early.
//!
//! Invariants:
//!   LOAD-1  while a load runs its table counts as unfinished. So if a load stops without
//!           [`RunningTxn::end_load`], by a panic or an early return, the transaction cannot be
//!           committed. Other tables can change meanwhile.
//!   LOAD-2  a load that has failed accepts no entry and never ends with success: the entries that
//!           it held may be lost.
//!
//! Failure: an entry over its limits is refused and changes nothing. Any other error breaks the
//! transaction.

use crate::error::Result;
use crate::ids::PageId;
use crate::limits;
use crate::page::leaf::LeafValue;
use crate::tree::{self, Bulk, SortedRun, Tree, TreeMut};
use crate::txn::env::Writer;
use crate::txn::write::txn::{writer_of, RunningTxn};

/// The error of the table while a load runs, and of the transaction after a load without an end.
const UNFINISHED: &str = "a load was not finished";

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    at: usize,
    /// Maximum memory of `run`.
    memory_bytes: usize,
    way: Way,
    run: SortedRun,
    count: u64,
    failed: bool,
}

#[derive(Debug)]
enum Way {
    /// All entries were in order. They go into the last leaf of the table, which has room.
    Filling,
    /// All entries were in order. New leaves are built of them.
    Building(Box<Bulk>),
    /// An entry was out of order. Entries are collected and sorted.
    Collecting,
}

impl Load {
    /// Number of entries loaded.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether all entries came in order, after the last one of the table.
    pub(crate) fn is_in_order(&self) -> bool {
        !matches!(self.way, Way::Collecting)
    }

    pub(crate) fn set_memory(&mut self, bytes: usize) {
        self.memory_bytes = bytes;
    }
}

impl RunningTxn {
    /// Begins a load into an open table. Sorting takes at most `memory_bytes` of memory, or the
    /// minimum that a few entries need.
    pub(crate) fn begin_load(&mut self, at: usize, memory_bytes: usize) -> Result<Load> {
        self.check_table(at)?;
        self.end_filling()?;
        let way = match self.root(at).height {
            0 => Way::Building(Box::default()),
            _ => Way::Filling,
        };
        self.tables.begin(at, UNFINISHED);
        writer_of(&mut self.writer).pages.begin_writing(true);
        Ok(Load { at, memory_bytes, way, run: SortedRun::default(), count: 0, failed: false })
    }

    /// Adds one entry to a load.
    #[inline]
    pub(crate) fn load(&mut self, load: &mut Load, key: &[u8], value: &[u8]) -> Result<()> {
        if load.failed || self.broken.is_some() || self.env.is_inherited() {
            return self.check_usable();
        }
        tree::check_sizes(key, value.len())?;
        tree::check_inline_key(self.pages(), self.root(load.at), key)?;
        let taken = self.take_entry(load, key, value);
        if taken.is_ok() {
            load.count += 1;
            self.record_put(load.at, key, value);
            return Ok(());
        }
        self.note_load(load, taken)
    }

    fn take_entry(&mut self, load: &mut Load, key: &[u8], value: &[u8]) -> Result<()> {
        self.ensure(value.len().max(key.len()))?;
        if let Way::Filling = load.way {
            if self.fill_last_leaf(load.at, key, value)? {
                return Ok(());
            }
            let bulk = Bulk::begin(Tree::new(self.pages(), self.root(load.at)))?;
            load.way = Way::Building(Box::new(bulk));
        }
        let root = &mut self.tables[load.at].record.root;
        let pages = &mut writer_of(&mut self.writer).pages;
        let value = match value.len() <= limits::max_inline_value_bytes(self.env.page_size) {
            true => LeafValue::Inline(value),
            false => tree::store(pages, root.tree, value)?,
        };
        if let Way::Building(bulk) = &mut load.way {
            if bulk.is_after_all(Tree::new(pages, root), key)? {
                return bulk.push(TreeMut::new(pages, root), key, value);
            }
            bulk.finish(TreeMut::new(pages, root))?;
            load.way = Way::Collecting;
            // Entries in an order of the caller's are put one by one, into pages that were written.
            if !root.order.is_bytewise() {
                pages.end_writing()?;
            }
        }
        if !root.order.is_bytewise() {
            return TreeMut::new(pages, root).put_value(key, value).map(drop);
        }
        load.run.push(key, value)?;
        if load.run.memory_bytes() >= load.memory_bytes {
            self.put_collected(load, false)?;
        }
        Ok(())
    }

    /// Puts an entry after the last one of the table. Returns false if the last leaf has no room,
    /// or the entry belongs elsewhere.
    fn fill_last_leaf(&mut self, at: usize, key: &[u8], value: &[u8]) -> Result<bool> {
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        TreeMut::new(pages, &mut table.record.root).append_in_place(key, value)
    }

    /// Sorts the collected entries and puts them into the tree.
    fn put_collected(&mut self, load: &mut Load, is_last: bool) -> Result<()> {
        let root = &mut self.tables[load.at].record.root;
        let (env, basis) = (&self.env, &mut self.basis);
        let Writer { pages, cache, .. } = writer_of(&mut self.writer);
        // The merge reads pages of the write queue again, so they must be written first.
        pages.end_writing()?;
        pages.begin_writing(is_last);
        for superseded in load.run.sort() {
            tree::free_extent(pages, superseded)?;
        }
        if root.height > 0 {
            TreeMut::new(pages, root).merge(&mut load.run, &mut |pages| env.ensure(pages, cache, basis, 1))?;
        }
        let mut bulk = Bulk::default();
        while let Some((key, value)) = load.run.peek() {
            env.ensure(pages, cache, basis, tree::extent_for(env.page_size, key.len()))?;
            bulk.push(TreeMut::new(pages, root), key, value)?;
            load.run.step();
        }
        bulk.finish(TreeMut::new(pages, root))?;
        load.run.clear();
        Ok(())
    }

    /// Ends a load: puts all entries that are still collected into the tree. Afterwards the
    /// transaction is usable again.
    pub(crate) fn end_load(&mut self, load: &mut Load) -> Result<()> {
        if load.failed || self.broken.is_some() || self.env.is_inherited() {
            return self.check_usable();
        }
        let ended = self.finish_load(load);
        if ended.is_ok() {
            self.tables.finish(load.at);
        }
        self.note_load(load, ended)
    }

    fn finish_load(&mut self, load: &mut Load) -> Result<()> {
        if let Way::Building(bulk) = &mut load.way {
            let root = &mut self.tables[load.at].record.root;
            bulk.finish(TreeMut::new(&mut writer_of(&mut self.writer).pages, root))?;
        }
        if !load.run.is_empty() {
            self.put_collected(load, true)?;
        }
        writer_of(&mut self.writer).pages.end_writing()?;
        if load.count > 0 {
            self.tables[load.at].note_change();
        }
        Ok(())
    }

    /// Begins the write-back of the pages from `begun` on, if they have `batch_bytes` or more, and
    /// moves `begun` past them. Values of few pages are stored through the mapping and not written
    /// by `pwrite`, so no other function begins their write-back.
    #[inline]
    pub(crate) fn begin_write_back(&self, begun: &mut u64, batch_bytes: u64) -> Result<()> {
        let (pages, end) = (self.pages(), self.pages().page_count());
        let bytes = end.saturating_sub(*begun) * self.env.page_size as u64;
        if bytes < batch_bytes {
            return Ok(());
        }
        pages.start_write_back(PageId(*begun), bytes)?;
        *begun = end;
        Ok(())
    }

    /// Leaves a load, ended or not: waits for the write queue, so that the entries in the table can
    /// be read.
    pub(crate) fn leave_load(&mut self, load: &Load) {
        if self.env.is_inherited() {
            // In a child after `fork`, the pages and the thread that writes them belong to the
            // parent (P22).
            return;
        }
        if let Some(unfinished) = self.tables[load.at].unfinished() {
            self.break_off(unfinished);
        }
        let written = writer_of(&mut self.writer).pages.end_writing();
        // If writing failed, `note` has broken the transaction, which reports the error later.
        drop(self.note(None, written));
    }

    /// Returns the result of a step. If the step failed, the transaction is broken, and later calls
    /// name this error as the cause instead of the unfinished load.
    #[cold]
    fn note_load(&mut self, load: &mut Load, done: Result<()>) -> Result<()> {
        if let Err(e) = &done {
            load.failed = true;
            self.break_off(&e.to_string());
        }
        self.note(Some(load.at), done)
    }
}
