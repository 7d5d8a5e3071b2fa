//! Decoded meta pages and page headers, for tools.
//!
//! Floor: db. Read-only; nothing here is needed to use a database.

use crate::db::Db;
use crate::error::{Error, Result};
use crate::ids::PageId;
use crate::page::header::{Header, PageKind};
use crate::page::log_record::{stored_checksum, RecordHeader};
use crate::page::meta::MetaPage;

/// The contents of one copy of a meta page.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetaInfo {
    /// Slot, 0 or 1.
    pub slot: u32,
    /// Copy inside the slot, 0 or 1.
    pub copy: u32,
    /// Transaction whose state the meta page describes.
    pub txn: u64,
    /// Pages of that state.
    pub page_count: u64,
    /// Root page of the catalog; 0 if there are no tables.
    pub catalog_root: u64,
    /// Root page of the free-space tree; 0 if it is empty.
    pub free_space_root: u64,
    /// First page of the commit log; 0 if there is none.
    pub log_first: u64,
    /// Pages of the commit log.
    pub log_pages: u64,
    /// Epoch of the commit log.
    pub log_epoch: u64,
    /// Position in the commit log of the first record after this state, in bytes.
    pub log_start: u64,
    /// Root page of the tree of named snapshots; 0 if there are none.
    pub snapshots_root: u64,
}

/// The header of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PageInfo {
    /// The page.
    pub id: PageId,
    /// `leaf`, `branch`, `overflow`, `free list` or `commit log`.
    pub kind: &'static str,
    /// Levels above the leaves.
    pub level: u8,
    /// Entries of a leaf, children of a branch, records that begin at the start of a page of the
    /// commit log.
    pub count: u16,
    /// Transaction that wrote the page; the first one of which a record begins in a page of the
    /// commit log, 0 if none does.
    pub txn: u64,
    /// Tree that the page belongs to.
    pub tree_id: u32,
    /// Checksum in the header, or of the first record; 0 if there is none.
    pub checksum: u32,
}

/// The readable copies of the meta pages, at most four.
///
/// # Errors
/// None for damage: a copy that cannot be read is left out. `Poisoned` or `Fault` if the kernel
/// could not serve the file.
pub fn metas(db: &Db) -> Result<Vec<MetaInfo>> {
    let txn = db.begin_read()?;
    let env = db.env();
    let mut found = Vec::new();
    for at in 0..4u32 {
        let mut bytes = vec![0; 256];
        let offset = u64::from(at) * env.page_size as u64 / 2;
        if !env.mapping.read_copy(offset, &mut bytes) {
            continue;
        }
        if let Ok(meta) = MetaPage::decode_copy(&bytes) {
            found.push(MetaInfo {
                slot: at / 2,
                copy: at % 2,
                txn: meta.txn.0,
                page_count: meta.page_count,
                catalog_root: meta.catalog.ptr.id.0,
                free_space_root: meta.free_space.ptr.id.0,
                log_first: meta.log.first.0,
                log_pages: meta.log.pages,
                log_epoch: meta.log.epoch,
                log_start: meta.log.start,
                snapshots_root: meta.snapshots.ptr.id.0,
            });
        }
    }
    txn.check_fault(Ok(found))
}

/// The header of a page of the newest state.
///
/// # Errors
/// `Usage` for a meta page or a page outside the state, `Corrupt` if the header is invalid.
pub fn page(db: &Db, id: PageId) -> Result<PageInfo> {
    let txn = db.begin_read()?;
    if id.0 < 2 || id.0 >= txn.state().page_count {
        let remedy = match txn.state().page_count {
            0..=2 => "the database has only meta pages".to_string(),
            count => format!("give a page from 2 to {}", count - 1),
        };
        return Err(Error::usage(format!("page {id} has no header or does not exist; {remedy}")));
    }
    let env = db.env();
    let mut bytes = vec![0; env.page_size];
    let read = env.mapping.read_at(id.0 * env.page_size as u64, &mut bytes);
    read.map_err(|e| Error::io("reading a page", env.path(), e))?;
    let log = txn.state().log;
    if (log.first.0..log.first.0 + log.pages).contains(&id.0) {
        return Ok(log_page(id, &bytes));
    }
    let header = Header::read(&bytes, id).map_err(|e| Error::from(e).with_path(env.path()))?;
    Ok(PageInfo {
        id,
        kind: match header.kind {
            PageKind::Leaf => "leaf",
            PageKind::Branch => "branch",
            PageKind::Overflow => "overflow",
            PageKind::FreeList => "free list",
            PageKind::Packed => "packed leaf",
        },
        level: header.level,
        count: header.count,
        txn: header.txn.0,
        tree_id: header.tree.0,
        checksum: header.checksum,
    })
}

/// A page of the commit log: the records that begin at its start, one after the other. The first
/// page of a longer record shows it; the pages after it show none.
fn log_page(id: PageId, bytes: &[u8]) -> PageInfo {
    let (mut first, mut count, mut rest) = (None, 0u16, bytes);
    while let Some(header) = RecordHeader::decode(rest) {
        first.get_or_insert((header.txn.0, stored_checksum(rest)));
        count += 1;
        rest = usize::try_from(header.record_bytes()).ok().and_then(|len| rest.get(len..)).unwrap_or(&[]);
    }
    let (txn, checksum) = first.unwrap_or_default();
    PageInfo { id, kind: "commit log", level: 0, count, txn, tree_id: 0, checksum }
}
