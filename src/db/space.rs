//! The pages of a state by table and kind, how full they are, and how much of the file is in
//! memory.
//!
//! Floor: db. [`Space`] needs a walk over all trees of a snapshot; writers go on meanwhile. Every
//! page of the state is counted exactly once: in a tree, as a meta page, in the free list, in the
//! commit log, free or pending.
//!
//! Failure: the first damage is the error of the call.

use crate::db::pins::PinCount;
use crate::error::{Error, Result};
use crate::page::layout::{BRANCH_HEADS, LEAF_HEADS, OVERFLOW_VALUE};
use crate::page::meta::TreeRoot;
use crate::pager::read::page_map::PageMap;
use crate::tree::{self, TreeStats};
use crate::txn::env::Env;
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::read::snapshot::ReadTxn;

/// The pages of the newest committed state, from [`Db::space`](crate::Db::space). Their sum is
/// `page_count`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// Bytes per page.
    pub page_size: u32,
    /// Pages of the state.
    pub page_count: u64,
    /// Number of the transaction that made this state.
    pub txn: u64,
    /// The tables, in the order of their names.
    pub tables: Vec<TreeSpace>,
    /// The catalog: the tree with the names and types of the tables.
    pub catalog: TreeSpace,
    /// The free-space tree.
    pub free_space: TreeSpace,
    /// The tree of named snapshots: their names, and where their states are.
    pub snapshots: TreeSpace,
    /// Meta pages.
    pub meta_pages: u64,
    /// Pages of the free list.
    pub free_list_pages: u64,
    /// Pages of the commit log.
    pub log_pages: u64,
    /// Pages that the next transaction may use.
    pub free_pages: u64,
    /// Pages that were freed, but that an older state may still need.
    pub pending_pages: u64,
    /// Those of the pending pages that named snapshots reach.
    pub snapshot_pages: u64,
}

/// The pages of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeSpace {
    /// The name of the table; that of the catalog and of the other trees is empty.
    pub name: String,
    /// Entries.
    pub entries: u64,
    /// Levels from the root to the leaves; 0 for a tree without entries.
    pub depth: u8,
    /// Interior pages.
    pub branch_pages: u64,
    /// Bottom pages, which hold the entries.
    pub leaf_pages: u64,
    /// Pages of large values.
    pub overflow_pages: u64,
    /// Bytes in use in the branches, with their headers.
    pub branch_bytes: u64,
    /// Bytes in use in the leaves, with their headers.
    pub leaf_bytes: u64,
    /// Bytes in use in the pages of large values, with their headers.
    pub overflow_bytes: u64,
}

impl TreeSpace {
    /// Pages of the tree.
    pub fn pages(&self) -> u64 {
        self.branch_pages + self.leaf_pages + self.overflow_pages
    }

    /// Bytes in use in the pages of the tree.
    pub fn used_bytes(&self) -> u64 {
        self.branch_bytes + self.leaf_bytes + self.overflow_bytes
    }

    /// The part of its pages that is in use, from 0 to 1; 0 for a tree without pages.
    pub fn fill(&self, page_size: u32) -> f64 {
        let size = self.pages() * u64::from(page_size);
        self.used_bytes() as f64 / size.max(1) as f64
    }

    fn of(name: &str, entries: u64, found: &TreeStats, extents: u64) -> TreeSpace {
        TreeSpace {
            name: name.to_string(),
            entries,
            depth: found.depth,
            branch_pages: found.branch_pages,
            leaf_pages: found.leaf_pages,
            overflow_pages: found.overflow_pages,
            branch_bytes: found.branch_bytes + found.branch_pages * BRANCH_HEADS as u64,
            leaf_bytes: found.leaf_bytes + found.leaf_pages * LEAF_HEADS as u64,
            overflow_bytes: found.overflow_bytes + extents * OVERFLOW_VALUE as u64,
        }
    }
}

/// How much of a file the kernel has in memory, from [`Db::page_cache`](crate::Db::page_cache).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageCache {
    /// Bytes of the file in memory, brought there by any process.
    pub resident_bytes: u64,
    /// Those of them that are changed and not yet written to the disk. 0 on file systems in memory.
    /// `None` if the kernel cannot tell: it is older than 6.5, or refuses the call.
    pub dirty_bytes: Option<u64>,
}

pub(crate) fn of(txn: &ReadTxn) -> Result<Space> {
    txn.check_process()?;
    let (state, page_size) = (txn.state(), txn.env().page_size);
    let mut map = PageMap::new(state.page_count);
    let mut measured = |name: &str, root: &TreeRoot| {
        measure(txn, root, &mut map).map(|(found, extents)| {
            TreeSpace::of(name, if root.shape.is_multi() { root.pairs } else { root.entries }, &found, extents)
        })
    };
    let catalog = txn.check_fault(measured("", &state.catalog))?;
    let free_space = txn.check_fault(measured("", &state.free_space))?;
    let snapshots = txn.check_fault(measured("", &state.snapshots))?;
    let mut tables = Vec::new();
    for (name, record) in txn.table_records()? {
        record.known_flags(&name)?;
        tables.push(txn.check_fault(measured(&name, &record.root).map_err(|e| e.with_table(&name)))?);
    }
    let (mut free_pages, mut pending_pages) = (0, 0);
    let records = txn.snapshot_records()?;
    let mut pins = PinCount::new(records.iter().flat_map(|(_, record)| record).map(|record| record.txn).collect());
    let walked = free_extents::walk(txn.pages(), state, &mut |record| {
        match record {
            FreeRecord::Usable { pages, .. } => free_pages += pages,
            FreeRecord::Pending(item) => {
                pending_pages += item.pages;
                pins.add(&item);
            }
        }
        Ok(())
    });
    txn.check_fault(walked)?;
    Ok(Space {
        page_size: page_size as u32,
        page_count: state.page_count,
        txn: state.txn.0,
        tables,
        catalog,
        free_space,
        snapshots,
        meta_pages: 2,
        free_list_pages: state.free_list.pages,
        log_pages: state.log.pages,
        free_pages,
        pending_pages,
        snapshot_pages: pending_pages - pins.finish().unpinned,
    })
}

/// Counts the pages of a tree, and its overflow extents.
fn measure(txn: &ReadTxn, root: &TreeRoot, map: &mut PageMap) -> Result<(TreeStats, u64)> {
    // Each page of the tree is visited once, and each extent.
    let mut visits = 0;
    let found = tree::measure(txn.pages(), root, &mut |id, pages| {
        visits += 1;
        map.take(id, pages).is_none()
    })?;
    Ok((found, visits - found.branch_pages - found.leaf_pages))
}

pub(crate) fn page_cache(env: &Env) -> Result<PageCache> {
    env.check_process()?;
    env.check_poison()?;
    let failed = |e| Error::io("counting the pages in memory", env.path(), e);
    let (resident_bytes, dirty_bytes) = env.mapping.cached_and_dirty().map_err(failed)?;
    Ok(PageCache { resident_bytes, dirty_bytes })
}
