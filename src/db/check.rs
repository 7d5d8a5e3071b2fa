//! The check: every page is in use or free, and every page in use matches the pointer to it.
//!
//! Floor: db. Works on a snapshot, so writers are not blocked. Walks the catalog, every table, the
//! free-space tree and the free list, records each page in a bitmap, and compares: reachable + free
//! = all, and no page twice. Then walks the parts of each named snapshot that the newest state does
//! not have: their pages must be pending, and from the time of the snapshot.
//!
//! Failure: damage is a [`Finding`], not an error; the check goes on as far as pages can be read.

use std::collections::HashSet;

use crate::catalog::snapshots::SnapshotRecord;
use crate::catalog::{self, TableRecord};
use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId, TxnId};
use crate::page::free_list::FreeItem;
use crate::page::meta::{self, Slot, TreeRoot};
use crate::pager::read::page_map::PageMap;
use crate::tree::{self, Cursor, Tree, Visit};
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::read::snapshot::ReadTxn;

/// The result of [`Db::check`](crate::Db::check).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// All damage; empty for an intact database.
    pub findings: Vec<Finding>,
    /// Remarks that are not damage of the state: damaged or half-written meta pages, and tables
    /// whose order of keys this program has not registered, so that it was not checked.
    pub remarks: Vec<Finding>,
    /// Pages of the state.
    pub pages_checked: u64,
    /// Pages in use by tables, catalog, free space and meta pages.
    pub reachable_pages: u64,
    /// Pages that are free, or pending because an older state may need them.
    pub free_pages: u64,
    /// Tables.
    pub tables: u64,
    /// Entries of all tables.
    pub entries: u64,
    /// Named snapshots.
    pub snapshots: u64,
}

impl CheckReport {
    /// Whether nothing is wrong. Remarks do not count.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One piece of damage, or one remark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The page, if one is affected.
    pub page: Option<PageId>,
    /// The named snapshot, if the damage is in one.
    pub snapshot: Option<String>,
    /// The table, if the damage is in a table.
    pub table: Option<String>,
    /// The range of affected keys, as bytes: first key (included) and end (excluded). Empty bytes
    /// mean the start and the end of the table.
    pub key_range: Option<(Vec<u8>, Vec<u8>)>,
    /// The damage, in words.
    pub what: String,
}

impl Finding {
    /// A finding of a walk over a tree.
    pub(crate) fn of_tree(finding: tree::Finding) -> Finding {
        let range = (finding.low.unwrap_or_default(), finding.high.unwrap_or_default());
        Finding {
            page: Some(finding.page).filter(|page| !page.is_none()),
            key_range: finding.table.is_some().then_some(range),
            table: finding.table,
            what: finding.what,
            snapshot: None,
        }
    }

    /// A finding about both meta pages.
    pub(crate) fn of_slots(what: String) -> Finding {
        Finding { what, ..Finding::default() }
    }

    /// A remark for each slot with a damaged copy.
    pub(crate) fn of_flaws(slots: &[Slot; 2]) -> Vec<Finding> {
        let of_flaw = |(slot, flaw): (u64, String)| {
            let what = "a commit was interrupted there, or it is damaged, and a newer state may be lost with it";
            let what = format!("the meta page is not whole ({flaw}): {what}; the next commits write it anew");
            Finding { page: Some(PageId(slot)), what, ..Finding::default() }
        };
        (0..).zip(slots).filter_map(|(slot, found)| Some((slot, found.flaw()?))).map(of_flaw).collect()
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(page) = self.page {
            write!(f, "page {page}: ")?;
        }
        if let Some(snapshot) = &self.snapshot {
            write!(f, "snapshot '{snapshot}': ")?;
        }
        if let Some(table) = &self.table {
            write!(f, "table '{table}': ")?;
        }
        write!(f, "{}", self.what)?;
        if let Some((from, to)) = &self.key_range {
            let (first, end) = (from.escape_ascii(), to.escape_ascii());
            match (from.is_empty(), to.is_empty()) {
                (true, true) => write!(f, " (all keys)")?,
                (true, false) => write!(f, " (keys before \"{end}\")")?,
                (false, true) => write!(f, " (keys from \"{first}\" on)")?,
                (false, false) => write!(f, " (keys from \"{first}\" up to \"{end}\")")?,
            }
        }
        Ok(())
    }
}

/// Maximum number of extents to list one by one that are neither in use nor free.
const LOST_LISTED: usize = 100;

/// Pages between two calls of the progress callback.
const PROGRESS_PAGES: u64 = 256;

pub(crate) fn check(txn: &ReadTxn, progress: &mut dyn FnMut(u64, u64)) -> CheckReport {
    let state = txn.state();
    let page_size = txn.env().page_size as u64;
    let map = PageMap::new(state.page_count);
    let mut audit = Audit { map, report: CheckReport::default(), progress, page_size, told: 0, within: None };
    audit.report.pages_checked = state.page_count;
    audit.take(PageId(0), 2, "meta pages");
    audit.metas(txn);
    let mut damaged_to = audit.tree(txn, &state.catalog, None);
    damaged_to.sort_unstable();
    audit.tables(txn, (&state.catalog, state.next_tree), &damaged_to);
    audit.tree(txn, &state.free_space, None);
    audit.tree(txn, &state.snapshots, None);
    if state.free_list.pages > 0 {
        audit.take(state.free_list.ptr.id, state.free_list.pages, "the free list");
    }
    if state.log.pages > 0 {
        audit.take(state.log.first, state.log.pages, "the commit log");
    }
    audit.report.reachable_pages = audit.map.taken;
    let reachable = (state.snapshots.height > 0).then(|| audit.map.clone());
    let pending = audit.free_space(txn);
    audit.report.free_pages = audit.map.taken - audit.report.reachable_pages;
    audit.lost_pages();
    if let Some(reachable) = reachable {
        audit.snapshots(txn, reachable, pending);
    }
    audit.report
}

struct Audit<'p> {
    map: PageMap,
    report: CheckReport,
    progress: &'p mut dyn FnMut(u64, u64),
    page_size: u64,
    /// Pages that were done at the last call of the progress callback.
    told: u64,
    /// The named snapshot that is being checked; `None` for the newest state.
    within: Option<Within>,
}

/// Calls the progress callback from time to time. A free function, so that other fields of the
/// audit can be borrowed.
fn tell(map: &PageMap, told: &mut u64, progress: &mut dyn FnMut(u64, u64)) {
    if map.taken >= *told + PROGRESS_PAGES {
        *told = map.taken;
        progress(map.taken, map.pages);
    }
}

impl Audit<'_> {
    fn add(&mut self, page: Option<PageId>, what: String) {
        self.report.findings.push(Finding { page, what, ..Finding::default() });
    }

    fn add_error(&mut self, e: Error, table: Option<&str>, place: &str) {
        let (page, what) = match e {
            Error::Corrupt { page, what, .. } => (page.filter(|page| !page.is_none()), what),
            Error::Fault { offset, .. } => (Some(PageId(offset / self.page_size)), e.to_string()),
            other => (None, other.to_string()),
        };
        let what = format!("{place}{what}");
        self.report.findings.push(Finding { page, table: table.map(str::to_string), what, ..Finding::default() });
    }

    /// Checks the slots. An interrupted commit may leave one half-written, which is a remark, not
    /// damage.
    fn metas(&mut self, txn: &ReadTxn) {
        let slots = txn.env().meta_slots();
        if let Some(what) = meta::contradiction(&slots) {
            self.report.findings.push(Finding::of_slots(what));
        }
        self.report.remarks.extend(Finding::of_flaws(&slots));
    }

    /// Records that `whose` uses an extent.
    fn take(&mut self, id: PageId, pages: u64, whose: &str) {
        if let Some(at) = self.map.take(id, pages) {
            self.add(Some(at), used_twice(whose));
        }
        tell(&self.map, &mut self.told, self.progress);
    }

    /// Checks a tree. Returns the ends of the damaged key ranges.
    fn tree(&mut self, txn: &ReadTxn, root: &TreeRoot, table: Option<&str>) -> Vec<Vec<u8>> {
        let whose = match table {
            Some(name) => format!("table '{name}'"),
            None if root.tree == TreeId::CATALOG => "the catalog".to_string(),
            None if root.tree == TreeId::SNAPSHOTS => "the tree of named snapshots".to_string(),
            None => "the free-space tree".to_string(),
        };
        let mut twice = Vec::new();
        let mut found = Vec::new();
        let (map, told, progress) = (&mut self.map, &mut self.told, &mut *self.progress);
        let mut within = self.within.as_mut();
        let mut visit = |id, pages| {
            if let Some(within) = &mut within {
                return within.visit(id, pages);
            }
            let wrong = map.take(id, pages);
            tell(map, told, progress);
            twice.extend(wrong);
            if wrong.is_none() {
                Visit::First
            } else {
                Visit::Again
            }
        };
        let stats = tree::check(txn.pages(), root, &mut visit, &mut |finding| found.push(finding));
        for at in twice {
            let (table, what) = (table.map(str::to_string), used_twice(&whose));
            self.report.findings.push(Finding { page: Some(at), table, what, ..Finding::default() });
        }
        if table.is_some() && self.within.is_none() {
            self.report.entries += if root.shape.is_multi() { stats.pairs } else { stats.entries };
        }
        let ends = found.iter().filter_map(|finding| finding.high.clone()).collect();
        for finding in found {
            self.report.findings.push(Finding {
                page: Some(finding.page).filter(|page| !page.is_none()),
                table: table.map(str::to_string),
                key_range: Some((finding.low.unwrap_or_default(), finding.high.unwrap_or_default())),
                what: if table.is_some() { finding.what } else { format!("{whose}: {}", finding.what) },
                snapshot: None,
            });
        }
        ends
    }

    /// Checks the tables of a catalog, whose tree ids are below `next_tree`. `damaged_to`: ends of
    /// the damaged key ranges of the catalog, ascending.
    fn tables(&mut self, txn: &ReadTxn, (catalog, next_tree): (&TreeRoot, TreeId), damaged_to: &[Vec<u8>]) {
        let mut seen = Seen { trees: HashSet::new(), next_tree };
        let mut cursor = Cursor::new(Tree::new(txn.pages(), catalog));
        let mut next = cursor.seek_first();
        let mut ends = damaged_to.iter();
        let mut done_to = Vec::new();
        loop {
            match next {
                Ok(None) => break,
                Ok(Some((key, value))) => {
                    done_to = [key, &[0]].concat();
                    self.named_table(txn, key, value, &mut seen);
                    next = cursor.next();
                }
                // The walk over the catalog's tree has reported this damage. Go on after it.
                Err(_) => match ends.find(|end| **end > done_to) {
                    Some(end) => {
                        cursor = Cursor::new(Tree::new(txn.pages(), catalog));
                        next = cursor.seek(end);
                    }
                    None => break,
                },
            }
        }
    }

    fn named_table(&mut self, txn: &ReadTxn, key: &[u8], value: &[u8], seen: &mut Seen) {
        match named_record(key, value) {
            Ok((name, record)) => {
                let record = record.with_order(&txn.env().opened.key_orders);
                self.table(txn, &name, &record, seen);
            }
            Err(e) => {
                self.add_error(e, catalog::name_of(key).ok().as_deref(), "the catalog: ");
                if let Some(finding) = self.report.findings.last_mut() {
                    finding.key_range = Some((key.to_vec(), [key, &[0]].concat()));
                }
            }
        }
    }

    fn table(&mut self, txn: &ReadTxn, name: &str, record: &TableRecord, seen: &mut Seen) {
        if self.within.is_none() {
            self.report.tables += 1;
        }
        let tree = record.root.tree;
        if tree < TreeId::FIRST_TABLE || tree >= seen.next_tree || !seen.trees.insert(tree) {
            let (table, what) = (
                Some(name.to_string()),
                format!("has tree id {tree}, which is reserved, unassigned or used by another table"),
            );
            self.report.findings.push(Finding { page: Some(record.root.ptr.id), table, what, ..Finding::default() });
        }
        if let Err(e) = record.known_flags(name) {
            return self.add_error(e, Some(name), "");
        }
        if let Err(e) = record.check_order(name) {
            let what = format!("the order of its keys was not checked: {}", tree::text_of(e));
            self.report.remarks.push(Finding { table: Some(name.to_string()), what, ..Finding::default() });
        }
        self.tree(txn, &record.root, Some(name));
    }

    /// Checks the free space. Returns the pending extents.
    fn free_space(&mut self, txn: &ReadTxn) -> Vec<FreeItem> {
        let state = txn.state();
        let mut pending = Vec::new();
        let walked = free_extents::walk(txn.pages(), state, &mut |record| {
            match record {
                FreeRecord::Usable { start, pages } => self.take(start, pages, "a free extent"),
                FreeRecord::Pending(item) => {
                    if item.freed > state.txn || item.born >= item.freed {
                        self.add(
                            Some(item.start),
                            format!(
                                "pending since transaction {}, but written by transaction {}",
                                item.freed, item.born
                            ),
                        );
                    }
                    self.take(item.start, item.pages, "a pending extent");
                    if state.snapshots.height > 0 {
                        pending.push(item);
                    }
                }
            }
            Ok(())
        });
        if let Err(e) = walked {
            self.add_error(e, None, "the free space: ");
        }
        pending
    }

    fn lost_pages(&mut self) {
        let runs: Vec<(PageId, u64)> = self.map.untaken().take(LOST_LISTED).collect();
        let listed: u64 = runs.iter().map(|(_, pages)| pages).sum();
        let more = self.map.pages - self.map.taken - listed;
        for (first, pages) in runs {
            let what = match pages {
                1 => "neither in use nor free".to_string(),
                _ => format!("{pages} pages from this one on are neither in use nor free"),
            };
            self.add(Some(first), what);
        }
        if more > 0 {
            self.add(None, format!("{more} more pages are neither in use nor free"));
        }
    }
}

impl Audit<'_> {
    /// Checks the named snapshots, after the newest state, which reaches the pages `reachable`.
    fn snapshots(&mut self, txn: &ReadTxn, reachable: PageMap, mut pending: Vec<FreeItem>) {
        // The walk over their tree has reported an error of it.
        let Ok(records) = txn.snapshot_records() else { return };
        pending.sort_unstable_by_key(|item| item.start);
        let mut within = Within { txn: TxnId(0), own: PageMap::new(0), reachable, pending, missing: Vec::new() };
        for (name, record) in records {
            self.report.snapshots += 1;
            match record {
                Ok(record) => within = self.snapshot(txn, within, &name, &record),
                Err(e) => self.add_error(e, None, ""),
            }
        }
    }

    fn snapshot(&mut self, txn: &ReadTxn, mut within: Within, name: &str, record: &SnapshotRecord) -> Within {
        let first_finding = self.report.findings.len();
        (within.txn, within.own) = (record.txn, PageMap::new(self.map.pages));
        let within = self.within.insert(within);
        within.missing.clear();
        let mut damaged_to = self.tree(txn, &record.catalog, None);
        damaged_to.sort_unstable();
        self.tables(txn, (&record.catalog, record.next_tree), &damaged_to);
        let within = self.within.take().unwrap_or_else(|| unreachable!("set above"));
        for &(page, pages) in &within.missing {
            self.add(Some(page), format!("{pages} pages from this one on were not kept for the snapshot"));
        }
        for finding in &mut self.report.findings[first_finding..] {
            finding.snapshot = Some(name.to_string());
        }
        within
    }
}

/// Trees of one catalog.
struct Seen {
    trees: HashSet<TreeId>,
    next_tree: TreeId,
}

/// A named snapshot that is being checked.
struct Within {
    /// The transaction that made its state.
    txn: TxnId,
    /// Its pages that were visited.
    own: PageMap,
    /// Pages that the newest state reaches: they were checked, with all below them.
    reachable: PageMap,
    /// The pending extents of the newest state, by first page.
    pending: Vec<FreeItem>,
    /// Extents that are neither in use nor pending from the time of the snapshot.
    missing: Vec<(PageId, u64)>,
}

impl Within {
    fn visit(&mut self, id: PageId, pages: u64) -> Visit {
        if self.own.take(id, pages).is_some() {
            return Visit::Again;
        }
        if self.reachable.is_taken(id) {
            return Visit::Covered;
        }
        if !self.is_pending(id, pages) && self.missing.len() < LOST_LISTED {
            self.missing.push((id, pages));
        }
        Visit::First
    }

    /// Whether all pages of an extent are pending, and the snapshot keeps them (R5).
    fn is_pending(&self, id: PageId, pages: u64) -> bool {
        let (mut at, end) = (id.0, id.0.saturating_add(pages));
        while at < end {
            let after = self.pending.partition_point(|item| item.start.0 <= at);
            let Some(item) = after.checked_sub(1).map(|before| &self.pending[before]) else { return false };
            if item.start.0 + item.pages <= at || !(item.born <= self.txn && self.txn < item.freed) {
                return false;
            }
            at = item.start.0 + item.pages;
        }
        true
    }
}

fn used_twice(whose: &str) -> String {
    format!("used twice, or outside the state; one user is {whose}")
}

fn named_record(key: &[u8], value: &[u8]) -> Result<(String, TableRecord)> {
    Ok((catalog::name_of(key)?, TableRecord::decode(value)?))
}
