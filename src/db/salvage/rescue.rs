//! The passes of salvage that follow pointers, and the tables found so far.
//!
//! Floor: db. Tables are identified by their tree id, which every page has in its header. For each
//! table the lost keys of the newest state are recorded; older sources add entries only for these
//! keys.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::catalog::orders::KeyOrders;
use crate::catalog::{self, flags, TableRecord};
use crate::db::copy::{Copy, Target};
use crate::db::{Finding, SalvageReport, SalvagedTable};
use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId};
use crate::limits::max_inline_value_bytes;
use crate::page::order::Order;
use crate::pager::read::file_pages::FilePages;
use crate::pager::read::page_map::PageMap;
use crate::tree::{self, TreeRoot, Values, Visitor};
use crate::txn::open::survey::Candidate;

use super::ranges::KeySet;
use super::Progress;

/// Pages between two calls of the progress callback.
const PROGRESS_PAGES: u64 = 256;

/// An entry of a catalog: the name of a table and its record.
pub(super) type Row = (String, TableRecord);

/// A table of the new database.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) target: Target,
    /// Keys that were not found yet.
    pub(super) missing: KeySet,
    /// Keys that leaves of the scan cover: older leaves add nothing there.
    pub(super) covered: KeySet,
    /// Whether a root of the table was walked.
    walked: bool,
    counts: SalvagedTable,
}

/// A running salvage.
pub(super) struct Rescue<'r> {
    pub(super) pages: FilePages<'r>,
    pub(super) copy: Copy,
    pub(super) orders: &'r KeyOrders,
    progress: &'r mut Progress<'r>,
    done: u64,
    /// Pages that a walk has visited, of the newest or an older state: the scan skips them.
    pub(super) walked: PageMap,
    pub(super) known: BTreeMap<TreeId, Known>,
    names: HashSet<String>,
    /// Table names whose records are lost in the newest state.
    missing_names: KeySet,
    lost: Vec<Finding>,
}

impl<'r> Rescue<'r> {
    pub(super) fn new(
        file: &'r File,
        page_size: usize,
        len: u64,
        copy: Copy,
        (orders, progress): (&'r KeyOrders, &'r mut Progress<'r>),
    ) -> Rescue<'r> {
        let pages = FilePages::new(file, page_size, len);
        let walked = PageMap::new(pages.page_count());
        let mut rescue = Rescue {
            pages,
            copy,
            orders,
            progress,
            done: 0,
            walked,
            known: BTreeMap::new(),
            names: HashSet::new(),
            missing_names: KeySet::default(),
            lost: Vec::new(),
        };
        rescue.walked.take(PageId(0), 2);
        rescue
    }

    /// Runs all passes. `metas` are the intact meta pages, the newest first.
    pub(super) fn run(&mut self, metas: &[Candidate], lost_slots: &[u64]) -> Result<()> {
        for &slot in lost_slots {
            let what = "a meta page cannot be read; if it was the newer one, its commit is lost".to_string();
            self.lost.push(Finding { page: Some(PageId(slot)), what, ..Finding::default() });
        }
        match metas.first() {
            Some(newest) => self.newest(newest)?,
            None => self.missing_names = KeySet::all(),
        }
        let complete = self.missing_names.is_empty() && self.known.values().all(|known| known.missing.is_empty());
        if complete {
            return Ok(());
        }
        // If the newest meta page is surely the newest, pages with later transactions were never
        // committed.
        let bound = metas.first().filter(|_| lost_slots.is_empty()).map(|newest| newest.meta);
        self.scan(metas.get(1..).unwrap_or(&[]), bound.map(|meta| (meta.txn, meta.next_tree)))
    }

    /// Returns the new database and the report.
    pub(super) fn end(self) -> (Copy, SalvageReport) {
        let mut tables: Vec<SalvagedTable> = self.known.into_values().map(|known| known.counts).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let page_size = self.pages.page_size() as u32;
        (self.copy, SalvageReport { page_size, lost: self.lost, tables, ..SalvageReport::default() })
    }

    /// Copies everything that the newest state reaches.
    fn newest(&mut self, newest: &Candidate) -> Result<()> {
        let (records, lost) = self.records(&newest.meta.catalog)?;
        for finding in lost {
            self.missing_names.add(finding.low.clone().unwrap_or_default(), finding.high.clone());
            let what = format!("the catalog: {}", finding.what);
            let range = (finding.low.unwrap_or_default(), finding.high.unwrap_or_default());
            let page = Some(finding.page).filter(|page| !page.is_none());
            self.lost.push(Finding { page, key_range: Some(range), what, ..Finding::default() });
        }
        for (name, record) in records {
            let record = record.with_order(self.orders);
            if let Err(e) = record.known_flags(&name).and_then(|()| record.check_order(&name)) {
                self.lost.push(Finding { table: Some(name), what: e.to_string(), ..Finding::default() });
                continue;
            }
            let tree = record.root.tree;
            if !self.adopt(tree, self.target_of(&name, &record), Some(&record), true)? {
                let what = format!("tree {tree} belongs to two tables");
                self.lost.push(Finding { table: Some(name), what, ..Finding::default() });
                continue;
            }
            self.walk(&record.root, Pass::Newest)?;
        }
        Ok(())
    }

    /// Whether keys of a table are still missing.
    pub(super) fn is_missing(&self, tree: TreeId) -> bool {
        self.known.get(&tree).is_some_and(|known| !known.missing.is_empty())
    }

    /// Whether a record found elsewhere may be that of a table lost in the newest state.
    pub(super) fn may_adopt(&self, name: &str) -> bool {
        self.missing_names.holds(name.as_bytes()) && !self.names.contains(name)
    }

    /// Adds missing entries of a table from an older root.
    pub(super) fn older_root(&mut self, root: &TreeRoot) -> Result<()> {
        if self.is_missing(root.tree) {
            self.walk(root, Pass::Older)?;
        }
        Ok(())
    }

    /// A table with the codecs and flags of a record. Leaves out codec names that are too long for
    /// a record: a damaged record may have them.
    pub(super) fn target_of(&self, name: &str, record: &TableRecord) -> Target {
        match record.encode().len() <= max_inline_value_bytes(self.pages.page_size()) {
            true => Target::of(name, record),
            false => Target::without_record(name, flags::shape(record.flags)),
        }
    }

    /// Creates a table for a tree. `false` if the tree has one already, or is no table.
    pub(super) fn adopt(
        &mut self,
        tree: TreeId,
        target: Target,
        record: Option<&TableRecord>,
        is_certain: bool,
    ) -> Result<bool> {
        if tree < TreeId::FIRST_TABLE || self.known.contains_key(&tree) {
            return Ok(false);
        }
        self.copy.make_table(&target)?;
        self.names.insert(target.name.clone());
        let counts = SalvagedTable {
            name: target.name.clone(),
            expected: record.filter(|_| is_certain).map(|record| record.entries()),
            is_certain,
            ..SalvagedTable::default()
        };
        // A table that is not in the newest catalog has no entries yet, so all its keys are
        // missing.
        let missing = if is_certain { KeySet::default() } else { KeySet::all() };
        self.known.insert(tree, Known { target, missing, covered: KeySet::default(), walked: false, counts });
        Ok(true)
    }

    /// Whether the newest state may have had tables that were not found.
    pub(super) fn names_are_missing(&self) -> bool {
        !self.missing_names.is_empty()
    }

    /// An unused name for a table whose record is lost.
    pub(super) fn free_name(&self, tree: TreeId) -> String {
        let name = format!("lost-{tree}");
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        std::iter::once(name.clone()).chain(numbered).find(|name| !self.names.contains(name)).unwrap_or(name)
    }

    /// The readable table records of a catalog, and the damage found.
    pub(super) fn records(&self, catalog: &TreeRoot) -> Result<(Vec<Row>, Vec<tree::Finding>)> {
        let mut map = PageMap::new(self.pages.page_count());
        let mut reading = Reading { map: &mut map, records: Vec::new(), lost: Vec::new() };
        tree::walk(&self.pages, catalog, Values::Read, &mut reading)?;
        let Reading { records, lost, .. } = reading;
        Ok((records, lost))
    }

    fn walk(&mut self, root: &TreeRoot, pass: Pass) -> Result<()> {
        let Some(known) = self.known.get_mut(&root.tree) else { return Ok(()) };
        let order = root.order;
        // A page map per walk, because states share pages.
        let mut own = PageMap::new(self.pages.page_count());
        let mut walking = Walking {
            pass,
            order,
            own: &mut own,
            walked: &mut self.walked,
            known,
            copy: &mut self.copy,
            lost: Vec::new(),
            done: &mut self.done,
            progress: self.progress,
            stopped: false,
        };
        tree::walk(&self.pages, root, Values::Read, &mut walking)?;
        let lost = walking.lost;
        let mut missing = KeySet::default();
        for it in &lost {
            let (low, high) = bytewise(order, it.low.as_deref(), it.high.as_deref());
            missing.add(low, high);
        }
        // Report the damage of the newest walk, or of the first walk of a table that the newest
        // state lacks.
        let first = pass == Pass::Newest || (!known.counts.is_certain && !std::mem::replace(&mut known.walked, true));
        match pass {
            Pass::Newest => known.missing = missing,
            Pass::Older => known.missing.narrow(&missing),
        }
        if first {
            self.lost.extend(lost.into_iter().map(Finding::of_tree));
        }
        Ok(())
    }

    /// Adds an entry that may be stale, if its key is missing and no newer leaf covers it.
    pub(super) fn add_stale(&mut self, tree: TreeId, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(known) = self.known.get_mut(&tree) else { return Ok(()) };
        if known.missing.holds(key) && !known.covered.holds(key) && self.copy.add(&known.target, key, value)? {
            known.counts.maybe_stale += 1;
        }
        Ok(())
    }

    /// A root of a table, for what its entries store.
    pub(super) fn multimap(&self, tree: TreeId) -> TreeRoot {
        let shape = self.known.get(&tree).map_or_else(Default::default, |known| flags::shape(known.target.flags));
        TreeRoot { shape, ..TreeRoot::empty(tree) }
    }

    pub(super) fn page_done(&mut self) -> Result<()> {
        match tell(&mut self.done, self.progress, self.walked.pages) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(stopped()),
        }
    }
}

/// Calls the progress callback from time to time, and returns its decision.
fn tell(done: &mut u64, progress: &mut Progress<'_>, all: u64) -> ControlFlow<()> {
    *done += 1;
    match *done % PROGRESS_PAGES {
        0 => progress((*done).min(all), all),
        _ => ControlFlow::Continue(()),
    }
}

/// The error after the progress callback returned `Break`.
#[cold]
fn stopped() -> Error {
    let source = io::Error::new(io::ErrorKind::Interrupted, "stopped by the caller");
    Error::Io { op: "salvage", path: PathBuf::new(), source }
}

/// A range of keys of a tree as one of bytewise order that holds the same keys, or more.
fn bytewise(order: Order, low: Option<&[u8]>, high: Option<&[u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
    let is_of_one_key = low.zip(high).is_some_and(|(low, high)| low < high);
    let after = |key: &[u8]| [key, &[0]].concat();
    match order {
        Order::Descending if !is_of_one_key => (high.map(after).unwrap_or_default(), low.map(after)),
        Order::Bytewise | Order::Descending => (low.unwrap_or_default().to_vec(), high.map(<[u8]>::to_vec)),
        Order::Named(_) | Order::Unknown => (Vec::new(), None),
    }
}

/// The pass that walks a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    /// The newest state: every entry found is current.
    Newest,
    /// An older state: adds only missing entries.
    Older,
}

/// Decodes an entry of a catalog.
pub(super) fn record_of(key: &[u8], value: &[u8]) -> Result<Row> {
    Ok((catalog::name_of(key)?, TableRecord::decode(value)?))
}

struct Reading<'w> {
    map: &'w mut PageMap,
    records: Vec<Row>,
    lost: Vec<tree::Finding>,
}

impl Visitor for Reading<'_> {
    fn enter(&mut self, id: PageId, pages: u64) -> bool {
        self.map.take(id, pages).is_none_or(|at| at.0 >= self.map.pages)
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match record_of(key, value) {
            Ok(record) => self.records.push(record),
            Err(e) => {
                self.lost.push(tree::Finding::of_key(key, tree::text_of(e)));
            }
        }
        Ok(())
    }

    fn lost(&mut self, finding: tree::Finding) -> Result<()> {
        self.lost.push(finding);
        Ok(())
    }
}

struct Walking<'w> {
    pass: Pass,
    order: Order,
    own: &'w mut PageMap,
    walked: &'w mut PageMap,
    known: &'w mut Known,
    copy: &'w mut Copy,
    lost: Vec<tree::Finding>,
    done: &'w mut u64,
    progress: &'w mut Progress<'w>,
    /// The progress callback returned `Break`. The walk ends at its next call of `lost`.
    stopped: bool,
}

impl Visitor for Walking<'_> {
    fn wants(&mut self, low: Option<&[u8]>, high: Option<&[u8]>) -> bool {
        let (low, high) = bytewise(self.order, low, high);
        self.pass == Pass::Newest || self.known.missing.meets(Some(&low), high.as_deref())
    }

    fn enter(&mut self, id: PageId, pages: u64) -> bool {
        self.stopped |= tell(self.done, self.progress, self.walked.pages).is_break();
        if self.stopped {
            return false;
        }
        self.walked.take(id, pages);
        self.own.take(id, pages).is_none_or(|at| at.0 >= self.own.pages)
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let (target, counts) = (&self.known.target, &mut self.known.counts);
        if self.pass == Pass::Newest {
            if self.copy.append(target, key, value)? {
                counts.entries += 1;
                return Ok(());
            }
            return self.lost(tree::Finding::of_key(key, "the key is longer than the limit".to_string()));
        }
        let open = self.known.missing.holds(key) && !self.known.covered.holds(key);
        if open && self.copy.add(target, key, value)? {
            counts.maybe_stale += 1;
        }
        Ok(())
    }

    fn lost(&mut self, finding: tree::Finding) -> Result<()> {
        if self.stopped {
            return Err(stopped());
        }
        self.lost.push(tree::Finding { table: Some(self.known.target.name.clone()), ..finding });
        Ok(())
    }
}
