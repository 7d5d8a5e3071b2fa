//! The check: every page is in use or free, and every page in use matches the pointer to it.
//!
//! Floor: db. Works on a snapshot, so writers are not blocked. Walks the catalog, every table, the
//! free-space tree and the free list, records each page in a bitmap, and compares: reachable + free
//! = all, and no page twice.
//!
//! Failure: damage is a [`Finding`], not an error; the check goes on as far as pages can be read.

use std::collections::HashSet;

use crate::catalog::{self, TableRecord};
use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId};
use crate::page::meta::{self, Slot, TreeRoot};
use crate::pager::read::page_map::PageMap;
use crate::tree::{self, Cursor, Tree};
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::read::snapshot::ReadTxn;

/// The result of [`Db::check`](crate::Db::check).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// All damage; empty for an intact database.
    pub findings: Vec<Finding>,
    /// Remarks that are not damage of the state: damaged or half-written meta pages.
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
}

impl CheckReport {
    /// Whether nothing is wrong. Remarks do not count.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One piece of damage, or one remark.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The page, if one is affected.
    pub page: Option<PageId>,
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
        }
    }

    /// A finding about both meta pages.
    pub(crate) fn of_slots(what: String) -> Finding {
        Finding { page: None, table: None, key_range: None, what }
    }

    /// A remark for each slot with a damaged copy.
    pub(crate) fn of_flaws(slots: &[Slot; 2]) -> Vec<Finding> {
        let of_flaw = |(slot, flaw): (u64, String)| {
            let what = "a commit was interrupted there, or it is damaged, and a newer state may be lost with it";
            let what = format!("the meta page is not whole ({flaw}): {what}; the next commits write it anew");
            Finding { page: Some(PageId(slot)), table: None, key_range: None, what }
        };
        (0..).zip(slots).filter_map(|(slot, found)| Some((slot, found.flaw()?))).map(of_flaw).collect()
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(page) = self.page {
            write!(f, "page {page}: ")?;
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
    let mut audit = Audit { map, report: CheckReport::default(), progress, page_size, told: 0 };
    audit.report.pages_checked = state.page_count;
    audit.take(PageId(0), 2, "meta pages");
    audit.metas(txn);
    let mut damaged_to = audit.tree(txn, &state.catalog, None);
    damaged_to.sort_unstable();
    audit.tables(txn, &damaged_to);
    audit.tree(txn, &state.free_space, None);
    audit.tree(txn, &state.snapshots, None);
    if state.free_list.pages > 0 {
        audit.take(state.free_list.ptr.id, state.free_list.pages, "the free list");
    }
    if state.log.pages > 0 {
        audit.take(state.log.first, state.log.pages, "the commit log");
    }
    audit.report.reachable_pages = audit.map.taken;
    audit.free_space(txn);
    audit.report.free_pages = audit.map.taken - audit.report.reachable_pages;
    audit.lost_pages();
    audit.report
}

struct Audit<'p> {
    map: PageMap,
    report: CheckReport,
    progress: &'p mut dyn FnMut(u64, u64),
    page_size: u64,
    /// Pages that were done at the last call of the progress callback.
    told: u64,
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
        self.report.findings.push(Finding { page, table: None, key_range: None, what });
    }

    fn add_error(&mut self, e: Error, table: Option<&str>, place: &str) {
        let (page, what) = match e {
            Error::Corrupt { page, what, .. } => (page.filter(|page| !page.is_none()), what),
            Error::Fault { offset, .. } => (Some(PageId(offset / self.page_size)), e.to_string()),
            other => (None, other.to_string()),
        };
        let what = format!("{place}{what}");
        self.report.findings.push(Finding { page, table: table.map(str::to_string), key_range: None, what });
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
        let mut visit = |id, pages| {
            let wrong = map.take(id, pages);
            tell(map, told, progress);
            twice.extend(wrong);
            wrong.is_none()
        };
        let stats = tree::check(txn.pages(), root, &mut visit, &mut |finding| found.push(finding));
        for at in twice {
            let (table, what) = (table.map(str::to_string), used_twice(&whose));
            self.report.findings.push(Finding { page: Some(at), table, key_range: None, what });
        }
        if table.is_some() {
            self.report.entries += stats.entries;
        }
        let ends = found.iter().filter_map(|finding| finding.high.clone()).collect();
        for finding in found {
            self.report.findings.push(Finding {
                page: Some(finding.page).filter(|page| !page.is_none()),
                table: table.map(str::to_string),
                key_range: Some((finding.low.unwrap_or_default(), finding.high.unwrap_or_default())),
                what: if table.is_some() { finding.what } else { format!("{whose}: {}", finding.what) },
            });
        }
        ends
    }

    /// Checks the tables of the catalog. `damaged_to`: ends of the damaged key ranges of the
    /// catalog, ascending.
    fn tables(&mut self, txn: &ReadTxn, damaged_to: &[Vec<u8>]) {
        let mut seen = HashSet::new();
        let mut cursor = Cursor::new(Tree::new(txn.pages(), &txn.state().catalog));
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
                        cursor = Cursor::new(Tree::new(txn.pages(), &txn.state().catalog));
                        next = cursor.seek(end);
                    }
                    None => break,
                },
            }
        }
    }

    fn named_table(&mut self, txn: &ReadTxn, key: &[u8], value: &[u8], seen: &mut HashSet<TreeId>) {
        match named_record(key, value) {
            Ok((name, record)) => self.table(txn, &name, &record, seen),
            Err(e) => {
                self.add_error(e, catalog::name_of(key).ok().as_deref(), "the catalog: ");
                if let Some(finding) = self.report.findings.last_mut() {
                    finding.key_range = Some((key.to_vec(), [key, &[0]].concat()));
                }
            }
        }
    }

    fn table(&mut self, txn: &ReadTxn, name: &str, record: &TableRecord, seen: &mut HashSet<TreeId>) {
        self.report.tables += 1;
        let tree = record.root.tree;
        if tree < TreeId::FIRST_TABLE || tree >= txn.state().next_tree || !seen.insert(tree) {
            let (table, what) = (
                Some(name.to_string()),
                format!("has tree id {tree}, which is reserved, unassigned or used by another table"),
            );
            self.report.findings.push(Finding { page: Some(record.root.ptr.id), table, key_range: None, what });
        }
        if let Err(e) = record.known_flags(name) {
            return self.add_error(e, Some(name), "");
        }
        self.tree(txn, &record.root, Some(name));
    }

    fn free_space(&mut self, txn: &ReadTxn) {
        let state = txn.state();
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
                }
            }
            Ok(())
        });
        if let Err(e) = walked {
            self.add_error(e, None, "the free space: ");
        }
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

fn used_twice(whose: &str) -> String {
    format!("used twice, or outside the state; one user is {whose}")
}

fn named_record(key: &[u8], value: &[u8]) -> Result<(String, TableRecord)> {
    Ok((catalog::name_of(key)?, TableRecord::decode(value)?))
}
