//! The thread that builds large flat indexes beside the readers of an open database.
//!
//! Floor: txn. To read all branches of a large table takes milliseconds, and no lookup is to wait
//! so long. So a reader asks for the flat index of a table, and goes on without it. The thread
//! begins to read the published state like any reader, in a reader slot, so the writer keeps the
//! pages (R5). It renews or builds the flat index, gives it to `flat_indexes`, and ends when
//! nothing more is asked for. It holds the core of the environment and the reader slots, but not
//! the environment: the environment ends the thread before it closes.
//!
//! Invariants:
//!   BUILD-1  the thread does not run after `end`. After that, no thread is started.
//!
//! Failure: if no thread can be started, or its transaction cannot begin, `ask` returns false, and
//! readers build by themselves. The thread ignores damage: a lookup that meets it reports it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use crate::catalog::TableRecord;
use crate::error::{Error, Result};
use crate::hooks;
use crate::ids::{PageId, PagePtr};
use crate::mapping::owned_cell::CellOwner;
use crate::pager::read::residency::Residency;
use crate::pager::read::snapshot_pages::SnapshotPages;
use crate::pager::PageRead;
use crate::sys::fork;
use crate::tree::{FlatIndex, Tree};
use crate::txn::core::Core;
use crate::txn::read::flat_indexes::FlatIndexes;
use crate::txn::read::open_table::{file_bytes, LARGE_PAGES_MAX};
use crate::txn::read::readers::{ReaderSlot, Readers, SlotCache};

/// Tables that can be asked for at the same time.
const ASKED_MAX: usize = 8;

/// What readers have asked for.
#[derive(Debug, Default)]
struct Queue {
    /// The names of tables.
    asked: Vec<Box<str>>,
    /// Whether the thread takes from `asked`.
    runs: bool,
    /// The last thread that was started.
    thread: Option<JoinHandle<()>>,
    /// What a thread reads. `None` after the end: then only the environment refers to these.
    source: Option<(Weak<Core>, Weak<Readers>)>,
}

/// The thread, and what readers ask it for.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    queue: Mutex<Queue>,
    /// Set when the environment ends, or no thread could build.
    is_over: AtomicBool,
    process: u32,
}

impl Default for IndexBuilder {
    fn default() -> IndexBuilder {
        IndexBuilder { queue: Mutex::default(), is_over: AtomicBool::new(false), process: fork::id() }
    }
}

impl IndexBuilder {
    /// Lets the thread read an environment of this core and these reader slots.
    pub(crate) fn serve(&self, core: &Arc<Core>, readers: &Arc<Readers>) {
        self.lock().source = Some((Arc::downgrade(core), Arc::downgrade(readers)));
    }

    /// Ends the thread, and waits for its end.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut queue = self.lock();
        queue.source = None;
        let thread = queue.thread.take();
        // The thread may take from the queue once more.
        drop(queue);
        if let Some(thread) = thread {
            // A panic of the thread would be a bug, and has poisoned nothing.
            drop(thread.join());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// What was asked for first. `None` ends the thread.
    fn next(&self) -> Option<Box<str>> {
        let mut queue = self.lock();
        let next = (!queue.asked.is_empty() && !self.is_over()).then(|| queue.asked.remove(0));
        queue.runs = next.is_some();
        next
    }
}

impl FlatIndexes {
    /// Asks for the flat index of the leaves of a table in the published state. False if no thread
    /// can build it.
    pub(crate) fn ask(self: &Arc<FlatIndexes>, table: &str) -> bool {
        let builder = &self.builder;
        if builder.is_over() || builder.process != fork::id() || hooks::is_scheduled() {
            return false;
        }
        let mut queue = builder.lock();
        if queue.asked.len() < ASKED_MAX && !queue.asked.iter().any(|asked| **asked == *table) {
            queue.asked.push(table.into());
        }
        if queue.runs {
            return true;
        }
        // The thread before has nothing left to do but to return. It must not hold the core later.
        if let Some(before) = queue.thread.take() {
            drop(before.join());
        }
        let Some(thread) = self.start(&queue) else {
            builder.is_over.store(true, Ordering::Relaxed);
            return false;
        };
        queue.thread = Some(thread);
        queue.runs = true;
        true
    }

    /// Starts the thread. It waits for the queue, which the caller has locked.
    fn start(self: &Arc<FlatIndexes>, queue: &Queue) -> Option<JoinHandle<()>> {
        let (core, readers) = queue.source.as_ref()?;
        let (core, readers) = (core.upgrade()?, readers.upgrade()?);
        let (flat_indexes, inherited) = (Arc::clone(self), hooks::inheritance());
        let run = move || {
            hooks::inherit(inherited);
            let ended = Ended(&flat_indexes.builder);
            while let Some(table) = flat_indexes.builder.next() {
                if flat_indexes.make(&core, &readers, &table).is_none() {
                    return;
                }
            }
            std::mem::forget(ended);
        };
        std::thread::Builder::new().name("mapleaf-index".into()).spawn(run).ok()
    }

    /// Makes the flat index of a table in the published state. `None` if the database cannot be
    /// read.
    fn make(&self, core: &Core, readers: &Readers, table: &str) -> Option<()> {
        let mut slot = begin(core, readers)?;
        let pages = slot.pages();
        let record = Tree::new(pages, &slot.state().catalog).get(table.as_bytes()).ok().flatten();
        let record = record.and_then(|record| TableRecord::decode(record).ok());
        // A flat index compares bytes, so a tree in another order has none.
        if let Some(record) = record.filter(|record| record.root.order.is_bytewise()) {
            let (txn, root) = (slot.state().txn, record.root);
            let unless_over = UnlessOver { pages, builder: &self.builder };
            let tree = Tree::new(&unless_over, &root);
            let mut built = self.lock();
            let old = built.newest(root.tree).map(|(_, old)| old);
            let left = self.pages_left(file_bytes(pages), old.as_ref().map_or(0, |old| old.bytes()));
            let pages_max = left.min(LARGE_PAGES_MAX);
            self.get_locked(&mut built, (txn, root, LARGE_PAGES_MAX), || {
                let renewed = old.and_then(|old| old.renew(tree, pages_max).unwrap_or(None));
                Some(renewed.or_else(|| FlatIndex::build(tree, pages_max).unwrap_or(None)))
            });
        }
        // Frees the slot first, because unmapping an old window takes time.
        let old = slot.get_mut().take_if_outgrown(core.mapping.window_id());
        drop(slot);
        drop(old);
        Some(())
    }
}

/// Begins to read the published state.
fn begin(core: &Core, readers: &Readers) -> Option<CellOwner<ReaderSlot, SlotCache>> {
    core.check_process().ok()?;
    core.check_poison().ok()?;
    core.heed_cache_drops();
    let txn = core.live.published_txn();
    let mut slot = readers.take(|index| CellOwner::take(readers.slot(index), |slot| slot, txn.0))?;
    core.show_published(&mut slot, txn).ok()?;
    Some(slot)
}

/// The thread has ended without a look at the queue: no other one is started.
struct Ended<'b>(&'b IndexBuilder);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// The pages of a state, none of which can be read any more once the environment ends.
struct UnlessOver<'a> {
    pages: &'a SnapshotPages,
    builder: &'a IndexBuilder,
}

impl Residency for UnlessOver<'_> {}

impl PageRead for UnlessOver<'_> {
    fn page_size(&self) -> usize {
        self.pages.page_size()
    }

    fn page(&self, ptr: PagePtr) -> Result<&[u8]> {
        self.unless_over(ptr.id)?;
        self.pages.page(ptr)
    }

    fn extent(&self, ptr: PagePtr, pages: u64) -> Result<&[u8]> {
        self.unless_over(ptr.id)?;
        self.pages.extent(ptr, pages)
    }

    fn all_served(&self) -> bool {
        self.pages.all_served()
    }

    fn fault(&self) -> Error {
        self.pages.fault()
    }
}

impl UnlessOver<'_> {
    fn unless_over(&self, id: PageId) -> Result<()> {
        match self.builder.is_over() {
            false => Ok(()),
            true => Err(Error::corrupt(id, "nobody waits for this page any more")),
        }
    }
}
