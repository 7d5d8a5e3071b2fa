//! The pass of salvage that fills lost key ranges: from older roots, and from leaves that no
//! pointer leads to.
//!
//! Floor: db. A page counts if its header has its own page id and its checksum is right. Leaves and
//! older roots are taken in the order of the transactions that wrote them, the newest first. A leaf
//! covers all keys from its first to its last, so an older leaf adds nothing in that range: an
//! entry that is missing in the newer leaf was deleted before that leaf was written.
//!
//! Pages inside an overflow extent are user data and are skipped, if the extent can be verified.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::catalog::{flags, TableRecord};
use crate::db::copy::Target;
use crate::error::Result;
use crate::ids::{PageId, PagePtr, TreeId, TxnId};
use crate::limits::max_inline_key_bytes;
use crate::page::checksum;
use crate::page::header::{Header, PageKind};
use crate::page::key::PageKey;
use crate::page::leaf::{Leaf, LeafValue};
use crate::page::order::Order;
use crate::page::value_set::Shape;
use crate::tree::{self, TreeRoot};
use crate::txn::open::survey::Candidate;

use super::rescue::{record_of, Rescue, Row};
use super::shapes::{is_of_multimap, Sets, Shapes};

/// Limit on pages read to verify overflow extents that no pointer leads to: this many times the
/// allocated pages of the file, plus a constant for extents with holes. Without a limit,
/// overlapping false headers could make the scan quadratic.
const RUN_READS: u64 = 4;
const RUN_READS_MORE: u64 = 1 << 18;

/// Maximum number of roots of one tree to try.
const ROOTS_OF_A_TREE: usize = 3;

/// A leaf that the scan found.
#[derive(Clone, Copy, Debug)]
struct FoundLeaf {
    txn: TxnId,
    id: PageId,
    tree: TreeId,
}

/// A source of entries.
enum Source {
    /// The root of a table, from a catalog page.
    Root(TreeRoot),
    /// A leaf of a table.
    Leaf(FoundLeaf),
}

/// Table records from the catalogs of older states and from single catalog pages.
#[derive(Default)]
struct Records {
    /// For each tree, the newest record first.
    by_tree: BTreeMap<TreeId, Vec<(TxnId, String, TableRecord)>>,
}

impl Records {
    /// Adds a record. The caller adds those of one tree in order, the newest first.
    fn add(&mut self, txn: TxnId, (name, record): Row) {
        if record.root.tree < TreeId::FIRST_TABLE || record.known_flags(&name).is_err() || !record.root.order.is_known()
        {
            return;
        }
        let of_tree = self.by_tree.entry(record.root.tree).or_default();
        let seen = of_tree.iter().any(|(_, _, other)| other.root.ptr == record.root.ptr);
        if !seen && of_tree.len() < ROOTS_OF_A_TREE {
            of_tree.push((txn, name, record));
        }
    }
}

impl Rescue<'_> {
    /// Adds entries of older states and single leaves, the newest first. `bound`: the newest
    /// transaction and the next tree id, if known; pages beyond them are ignored.
    pub(super) fn scan(&mut self, older: &[Candidate], bound: Option<(TxnId, TreeId)>) -> Result<()> {
        let (found, shapes) = self.find_leaves(bound)?;
        let mut records = self.older_records(older, &found)?;
        // If two trees have the same name, the one with the greater id gets it: the other table was
        // dropped.
        for (tree, of_tree) in records.by_tree.iter().rev() {
            let named = of_tree.iter().find(|(_, name, _)| self.may_adopt(name)).cloned();
            if let Some((_, name, record)) = named {
                self.adopt(*tree, self.target_of(&name, &record), Some(&record), false)?;
            }
        }
        let roots = std::mem::take(&mut records.by_tree).into_values().flatten();
        let mut sources: Vec<(TxnId, Source)> =
            roots.map(|(txn, _, record)| (txn, Source::Root(record.root))).collect();
        let is_of_table = |leaf: &FoundLeaf| leaf.tree >= TreeId::FIRST_TABLE;
        let leaves: Vec<FoundLeaf> = found.into_iter().filter(is_of_table).collect();
        let shapes = self.shapes_of_unknown(&leaves, &shapes);
        sources.extend(leaves.into_iter().map(|leaf| (leaf.txn, Source::Leaf(leaf))));
        // A stable sort: a root comes before leaves of the same transaction.
        sources.sort_by_key(|(txn, _)| Reverse(*txn));
        for (_, source) in &sources {
            match source {
                Source::Root(root) => self.older_root(root)?,
                // Unless a walk from a root has visited it meanwhile.
                Source::Leaf(leaf) if !self.walked.is_taken(leaf.id) => self.table_leaf(leaf, &shapes)?,
                Source::Leaf(_) => {}
            }
        }
        Ok(())
    }

    /// Collects the table records outside the newest state.
    fn older_records(&mut self, older: &[Candidate], found: &[FoundLeaf]) -> Result<Records> {
        let mut all = Vec::new();
        for candidate in older {
            let (records, _) = self.records(&candidate.meta.catalog)?;
            all.extend(records.into_iter().map(|record| (candidate.meta.txn, record)));
        }
        if self.names_are_missing() {
            for leaf in found.iter().filter(|leaf| leaf.tree == TreeId::CATALOG) {
                all.extend(self.catalog_leaf(leaf.id).into_iter().map(|record| (leaf.txn, record)));
            }
        }
        all.sort_by_key(|(txn, _)| Reverse(*txn));
        let mut records = Records::default();
        for (txn, (name, record)) in all {
            records.add(txn, (name, record.with_order(self.orders)));
        }
        Ok(records)
    }

    /// How the tables without a record store their values. Of two kinds of leaves, the newest
    /// counts.
    fn shapes_of_unknown(&self, leaves: &[FoundLeaf], shapes: &Shapes) -> BTreeMap<TreeId, Shape> {
        let mut found: BTreeMap<TreeId, (TxnId, Option<Sets>)> = BTreeMap::new();
        let mut page = Vec::new();
        for at in leaves.iter().filter(|leaf| !self.known.contains_key(&leaf.tree)) {
            let Some(leaf) = self.verified_leaf(at.id, &mut page) else { continue };
            let mut sets = is_of_multimap(&leaf).then(Sets::default);
            if let Some(sets) = &mut sets {
                sets.note(&leaf);
            }
            match found.get_mut(&at.tree) {
                Some((_, Some(known))) if sets.is_some() => known.note(&leaf),
                Some((txn, _)) if *txn >= at.txn => {}
                _ => drop(found.insert(at.tree, (at.txn, sets))),
            }
        }
        let limit = max_inline_key_bytes(self.pages.page_size());
        let shape_of = |tree, sets: Sets| shapes.of(tree, limit).unwrap_or_else(|| sets.shape(limit));
        found.into_iter().filter_map(|(tree, (_, sets))| Some((tree, shape_of(tree, sets?)))).collect()
    }

    fn find_leaves(&mut self, bound: Option<(TxnId, TreeId)>) -> Result<(Vec<FoundLeaf>, Shapes)> {
        let count = self.pages.page_count();
        let (mut found, mut shapes, mut page) = (Vec::new(), Shapes::default(), Vec::new());
        let mut reads_left = self.pages.allocated().saturating_mul(RUN_READS).saturating_add(RUN_READS_MORE);
        let mut next = 2;
        while next < count {
            let id = PageId(next);
            next += 1;
            if self.walked.is_taken(id) {
                continue;
            }
            self.page_done()?;
            if self.pages.raw_page(id, &mut page).is_err() {
                continue;
            }
            if page.iter().all(|&byte| byte == 0) {
                // This may be a hole that is too long to read page by page: skip it.
                match self.pages.next_data(PageId(next)) {
                    Some(data) => next = data.0,
                    None => break,
                }
                continue;
            }
            let Ok(header) = Header::read(&page, id) else { continue };
            if header.kind == PageKind::Overflow {
                let pages = header.extent_pages();
                if pages <= reads_left {
                    reads_left -= pages;
                    if self.pages.verify_extent(PagePtr { id, crc: header.checksum }, pages).is_ok() {
                        next = id.0 + pages;
                    }
                }
                continue;
            }
            let leaf = matches!(header.kind, PageKind::Leaf | PageKind::Packed) && header.level == 0;
            let table = header.tree.of_table();
            let known = bound.is_none_or(|(txn, next_tree)| header.txn <= txn && table < next_tree);
            if leaf && known && checksum::compute(&page) == header.checksum {
                match header.tree.is_of_values() {
                    true => shapes.note_value_leaf(&header, &page),
                    false => found.push(FoundLeaf { txn: header.txn, id, tree: header.tree }),
                }
            }
        }
        Ok((found, shapes))
    }

    /// Table records of a catalog page that no pointer leads to.
    fn catalog_leaf(&self, id: PageId) -> Vec<Row> {
        let mut page = Vec::new();
        let Some(leaf) = self.verified_leaf(id, &mut page) else { return Vec::new() };
        let record = |at| match leaf.entry(at) {
            Ok((key, LeafValue::Inline(value))) => record_of(key.bytes, value).ok(),
            _ => None,
        };
        (0..leaf.count()).filter_map(record).collect()
    }

    /// Reads and verifies a leaf that the scan found earlier.
    fn verified_leaf<'p>(&self, id: PageId, page: &'p mut Vec<u8>) -> Option<Leaf<'p>> {
        self.pages.raw_page(id, page).ok()?;
        if checksum::compute(page) != checksum::stored(page) {
            return None;
        }
        Leaf::parse(page, id).ok().filter(|leaf| leaf.verify_in(leaf.order()).is_ok())
    }

    /// The whole key, if it can be read.
    fn whole<'k>(&self, key: PageKey<'k>) -> Option<Cow<'k, [u8]>> {
        match key.long {
            None => Some(Cow::Borrowed(key.bytes)),
            Some(long) => tree::read_long(&self.pages, long).ok().map(Cow::Owned),
        }
    }

    fn table_leaf(&mut self, found: &FoundLeaf, shapes: &BTreeMap<TreeId, Shape>) -> Result<()> {
        self.page_done()?;
        let wanted = match self.known.contains_key(&found.tree) {
            true => self.is_missing(found.tree),
            false => self.names_are_missing(),
        };
        let (mut page, mut run) = (Vec::new(), Vec::new());
        let Some(leaf) = self.verified_leaf(found.id, &mut page).filter(|_| wanted) else { return Ok(()) };
        let name = self.free_name(found.tree);
        let shape = shapes.get(&found.tree).copied().unwrap_or_default();
        let mut target = Target::without_record(&name, shape);
        if let Order::Descending = leaf.order() {
            target.flags |= flags::DESCENDING;
        }
        self.adopt(found.tree, target, None, false)?;
        for at in 0..leaf.count() {
            let Ok((key, value)) = leaf.entry(at) else { continue };
            let Some(key) = self.whole(key) else { continue };
            let key = &key;
            match value {
                LeafValue::Inline(value) => self.add_stale(found.tree, key, value)?,
                LeafValue::Overflow(pointer) => {
                    if let Ok(value) = tree::read_value(&self.pages, &pointer, &mut run) {
                        self.add_stale(found.tree, key, value)?;
                    }
                }
                LeafValue::Set(_) | LeafValue::Tree(_) => {
                    let mut values = Vec::new();
                    tree::values_in_file(&self.pages, &self.multimap(found.tree), &value, &mut values);
                    values.iter().try_for_each(|value| self.add_stale(found.tree, key, value))?;
                }
            }
        }
        let first = leaf.first_key().ok().and_then(|key| self.whole(key));
        let last = leaf.last_key().ok().and_then(|key| self.whole(key));
        if let (Some(first), Some(last), Some(known)) = (first, last, self.known.get_mut(&found.tree)) {
            match leaf.order() {
                Order::Bytewise => known.covered.add_closed(&first, &last),
                Order::Descending => known.covered.add_closed(&last, &first),
                // Older leaves may bring back an entry that was deleted.
                Order::Named(_) | Order::Unknown => {}
            }
        }
        Ok(())
    }
}
