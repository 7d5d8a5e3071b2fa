//! Which states a file has, and which of them are whole.
//!
//! Floor: txn. For files that may be cut or damaged: pages are read with `pread`, and nothing is
//! mapped. A state is whole if every page that its meta page reaches is inside the file, matches
//! its pointer, and is well-formed. That includes the catalog, all tables with their overflow
//! extents, the free-space tree and the free list.
//!
//! Costs one read of every page in use; in memory, one bit per page in use and the table records of
//! all tables.
//!
//! Failure: none; damage is part of the [`Survey`].

use std::fs::File;

use crate::catalog::{self, TableRecord};
use crate::error::{best_effort, Error, Result};
use crate::ids::{PageId, TreeId};
use crate::limits::{PAGE_SIZE_MAX, PAGE_SIZE_MIN};
use crate::mapping::file as files;
use crate::page::checksum;
use crate::page::free_list;
use crate::page::header::Header;
use crate::page::meta::{self, MetaPage, Probe};
use crate::pager::read::file_pages::FilePages;
use crate::pager::read::page_map::PageMap;
use crate::tree::{self, text_of, Finding, TreeRoot, Values, Visitor};
use crate::txn::free::free_extents;

/// A meta page and the slot that holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) meta: MetaPage,
    pub(crate) slot: usize,
}

impl Candidate {
    /// Bytes that a file needs for this state.
    pub(crate) fn needed(&self) -> u64 {
        self.meta.page_count.saturating_mul(self.meta.page_size.into())
    }
}

/// Reads all copies of both slots.
pub(crate) fn probe(file: &File) -> Probe {
    meta::probe(|offset, len| {
        let mut bytes = vec![0; len];
        files::read_at(file, &mut bytes, offset).ok().map(|()| bytes)
    })
}

/// Finds the page size of a file without meta pages: a size for which one of the first `len` bytes'
/// pages has a valid header and checksum.
pub(crate) fn find_page_size(file: &File, len: u64) -> Option<usize> {
    let sizes =
        || std::iter::successors(Some(PAGE_SIZE_MIN), |size| Some(size * 2)).take_while(|s| *s <= PAGE_SIZE_MAX);
    let mut page = vec![0; PAGE_SIZE_MAX];
    let smallest = PAGE_SIZE_MIN as u64;
    // Try every size at each offset, so that a file with only its meta pages damaged is recognised
    // at its first page. Skip holes, which have no pages.
    let mut at = 2;
    loop {
        at = at.max(files::next_data(file, at * smallest)? / smallest);
        if at >= len / smallest {
            return None;
        }
        let offset = at * smallest;
        let proved = sizes().find(|&size| {
            let (size, page) = (size as u64, &mut page[..size]);
            let id = offset / size;
            offset.is_multiple_of(size)
                && id >= 2
                && files::read_at(file, page, offset).is_ok()
                && Header::read(page, PageId(id)).is_ok()
                && checksum::compute(page) == checksum::stored(page)
        });
        if proved.is_some() {
            return proved;
        }
        at += 1;
    }
}

/// Every intact meta page, the newest first. A slot whose copies differ gives two.
pub(crate) fn candidates(probe: &Probe) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for (slot, both) in probe.slots.iter().enumerate() {
        for meta in both.copies.iter().flatten() {
            let candidate = Candidate { meta: *meta, slot };
            if !found.contains(&candidate) {
                found.push(candidate);
            }
        }
    }
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.meta.txn));
    found
}

/// Callback for each entry of a tree.
type OnEntry<'e> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'e;

/// The result of the survey of one state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// The first damage; `None` for a whole state.
    pub(crate) damage: Option<Finding>,
    /// Tables whose table records could be read, with their entry counts.
    pub(crate) tables: Vec<(String, u64)>,
}

/// Verifies a state, up to the first damage.
pub(crate) fn survey(file: &File, len: u64, meta: &MetaPage) -> Survey {
    let pages = FilePages::new(file, meta.page_size as usize, len);
    let count = meta.page_count.min(pages.page_count());
    let mut surveyor = Surveyor { pages: &pages, meta, map: PageMap::new(count), survey: Survey::default() };
    surveyor.map.take(PageId(0), 2);
    // An error means damage, which `survey.damage` records.
    best_effort(surveyor.look());
    surveyor.survey
}

/// Table names with their entry counts.
fn table_counts(records: &[(String, TableRecord)]) -> Vec<(String, u64)> {
    records.iter().map(|(name, record)| (name.clone(), record.entries())).collect()
}

struct Surveyor<'s, 'f> {
    pages: &'s FilePages<'f>,
    meta: &'s MetaPage,
    map: PageMap,
    survey: Survey,
}

impl Surveyor<'_, '_> {
    fn look(&mut self) -> Result<()> {
        let (page_count, next_tree) = (self.meta.page_count, self.meta.next_tree);
        let mut tables = Vec::new();
        let listed = self.tree(&self.meta.catalog, None, &mut |key, value| {
            tables.push((catalog::name_of(key)?, TableRecord::decode(value)?));
            Ok(())
        });
        self.survey.tables = table_counts(&tables);
        listed?;
        for (name, record) in &tables {
            // Skip a table of a kind that this build cannot read: the other tables are usable.
            if record.known_flags(name).is_ok() {
                if record.root.tree >= next_tree {
                    let what = format!("tree id {} of table '{name}' was never assigned", record.root.tree);
                    return self.damaged(PageId::NONE, Some(name), what);
                }
                self.tree(&record.root, Some(name), &mut |_, _| Ok(()))?;
            }
        }
        self.tree(&self.meta.free_space, None, &mut |key, value| {
            free_extents::records_in(key, value, page_count, &mut |_| Ok(()))
        })?;
        self.free_list()
    }

    fn free_list(&mut self) -> Result<()> {
        let list = self.meta.free_list;
        if list.pages == 0 {
            return Ok(());
        }
        if self.map.take(list.ptr.id, list.pages).is_some_and(|at| at.0 < self.map.pages) {
            return self.damaged(list.ptr.id, None, "the free list is used twice".into());
        }
        let mut extent = Vec::new();
        let read = self.pages.extent(list.ptr, list.pages, &mut extent);
        match read.and_then(|()| Ok(free_list::read(&extent, list.ptr.id)?)) {
            Ok(_) => Ok(()),
            Err(e) => self.damaged(list.ptr.id, None, format!("the free list: {}", text_of(e))),
        }
    }

    /// Walks one tree. If the visitor recorded damage, the error of the walk is [`stop`] and is
    /// ignored.
    fn tree(&mut self, root: &TreeRoot, table: Option<&str>, entry: &mut OnEntry<'_>) -> Result<()> {
        let mut visitor = Looking { map: &mut self.map, entry, damage: None };
        let walked = tree::walk(self.pages, root, Values::Verify, &mut visitor);
        let mut damage = visitor.damage;
        match walked {
            Ok(found) if (found.entries, found.pairs) != (root.entries, root.pairs) && damage.is_none() => {
                let what = match found.entries == root.entries {
                    true => format!("number of values of the table is {}, found {}", root.pairs, found.pairs),
                    false => format!("entry count of the tree is {}, found {}", root.entries, found.entries),
                };
                return self.damaged(root.ptr.id, table, format!("{}{what}", place(root, table)));
            }
            Ok(_) => {}
            Err(e) if damage.is_none() => {
                return self.damaged(root.ptr.id, table, format!("{}{}", place(root, table), text_of(e)));
            }
            Err(_) => {}
        }
        let Some(finding) = damage.take() else { return Ok(()) };
        let what = format!("{}{}", place(root, table), finding.what);
        self.survey.damage = Some(Finding { table: table.map(str::to_string), what, ..finding });
        Err(stop())
    }

    fn damaged(&mut self, page: PageId, table: Option<&str>, what: String) -> Result<()> {
        self.survey.damage = Some(Finding { page, table: table.map(str::to_string), low: None, high: None, what });
        Err(stop())
    }
}

/// Names the tree in a message, if it is not a table.
fn place(root: &TreeRoot, table: Option<&str>) -> &'static str {
    match table {
        Some(_) => "",
        None if root.tree == TreeId::CATALOG => "the catalog: ",
        None => "the free-space tree: ",
    }
}

/// Ends a walk at the first damage, which is recorded elsewhere.
#[cold]
fn stop() -> Error {
    Error::corrupt(PageId::NONE, "the state is not whole")
}

struct Looking<'l> {
    map: &'l mut PageMap,
    entry: &'l mut OnEntry<'l>,
    damage: Option<Finding>,
}

impl Visitor for Looking<'_> {
    fn enter(&mut self, id: PageId, pages: u64) -> bool {
        // For a page past the end, the read that follows gives a better message.
        self.map.take(id, pages).is_none_or(|at| at.0 >= self.map.pages)
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        (self.entry)(key, value)
    }

    fn lost(&mut self, finding: Finding) -> Result<()> {
        self.damage = Some(finding);
        Err(stop())
    }
}
