//! Salvage: copies every readable entry of a damaged file to a new database.
//!
//! Floor: db. The first pass walks the trees of the newest meta page (`rescue`): the entries that
//! it finds are those of the newest state. Only if something was lost, a second pass (`scan`) uses
//! two more sources: roots in older meta pages and catalog pages, and leaves that no pointer leads
//! to, identified by their headers. It takes them in the order of their transactions, the newest
//! first, and adds only keys in lost ranges that no newer source covers. These entries may be
//! stale: an older value, or an entry that was deleted later.
//!
//! The damaged file is opened read-only and read with `pread`. Memory: one bit per page visited,
//! some 24 bytes per leaf found by the scan, the list of losses, and the longest value.
//!
//! Failure: losses are part of the report. Errors are those of opening the file and of writing the
//! new one, and `NotADatabase` or `Corrupt` if there is nothing to copy.

mod ranges;
mod rescue;
mod scan;
mod shapes;

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use crate::catalog::orders::KeyOrders;
use crate::db::copy::Copy;
use crate::db::{Db, Finding, Options};
use crate::error::{Error, Result};
use crate::mapping::file;
use crate::page::meta::{self, MetaPage};
use crate::sys::rights::FileRights;
use crate::txn::log::replay;
use crate::txn::open::{self, survey};

use rescue::Rescue;

/// The result of [`Db::salvage`]: what was copied, and what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Bytes per page, of both files.
    pub page_size: u32,
    /// Transaction of the newest meta page; `None` if no meta page could be read.
    pub txn: Option<u64>,
    /// Length of the damaged file, in bytes.
    pub file_bytes: u64,
    /// Bytes that its newest state needs; 0 if no meta page could be read.
    pub needed_bytes: u64,
    /// Everything that could not be read, with page, table and key range as far as known. Part of a
    /// key range may have been found elsewhere: see [`SalvagedTable::maybe_stale`].
    pub lost: Vec<Finding>,
    /// Transactions of the commit log that were applied to the copy afterwards.
    pub log_txns: u64,
    /// The tables of the new database, sorted by name. Their counts do not include what
    /// transactions of the commit log changed.
    pub tables: Vec<SalvagedTable>,
}

/// A table of the new database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvagedTable {
    /// The name. A name such as `lost-16` means that the record of the table was lost; the table
    /// then has no types. Whether it is a multimap, and the size of its values, is told from its
    /// pages.
    pub name: String,
    /// Entries copied from the newest state.
    pub entries: u64,
    /// Entries found for lost key ranges on pages that may be older than the newest state: the
    /// value may be outdated, or the entry may have been deleted later.
    pub maybe_stale: u64,
    /// Entries that the table has in the newest state, if its record could be read.
    pub expected: Option<u64>,
    /// Whether the catalog of the newest state has the table.
    pub is_certain: bool,
}

impl SalvageReport {
    /// Whether anything was lost.
    pub fn is_loss(&self) -> bool {
        !self.lost.is_empty()
    }

    /// All copied entries, including those that may be stale.
    pub fn entries(&self) -> u64 {
        self.tables.iter().map(|table| table.entries + table.maybe_stale).sum()
    }

    /// Entries that may be stale.
    pub fn maybe_stale(&self) -> u64 {
        self.tables.iter().map(|table| table.maybe_stale).sum()
    }

    /// Bytes that the newest state needs but the file does not have.
    pub fn bytes_missing(&self) -> u64 {
        self.needed_bytes.saturating_sub(self.file_bytes)
    }
}

impl Db {
    /// Copies every readable entry of a damaged file to a new database `out`, which appears
    /// complete or not at all. The damaged file is never written. Tables keep their names and
    /// codecs. The new file gets the mode of the damaged one, and owner and group too if the kernel
    /// permits it; it never has more rights.
    ///
    /// Entries come from the newest state as far as its pages can be reached. Lost key ranges are
    /// filled from older states and from pages that no pointer leads to; such entries may be stale,
    /// and the report counts them by table. Salvage also works if both meta pages are lost or only
    /// part of the file exists. Named snapshots are not copied.
    ///
    /// # Errors
    /// `NotADatabase` for a file without a single page of a database, `Corrupt` if there is nothing
    /// to copy, `Usage` if `out` exists, `Locked` while another process has the file open,
    /// `DiskFull`, `Io`, `Permission` or `NotFound` from the kernel.
    pub fn salvage(path: impl AsRef<Path>, out: impl AsRef<Path>) -> Result<SalvageReport> {
        Db::salvage_with(path, out, |_, _| ControlFlow::Continue(()))
    }

    /// Like [`salvage`](Db::salvage), and from time to time calls `progress` with the number of
    /// pages done and of all pages. If it returns `Break`, salvage stops and leaves no file.
    ///
    /// # Errors
    /// As [`salvage`](Db::salvage); `Io` with a source of kind `Interrupted` if `progress` stopped
    /// it.
    pub fn salvage_with(
        path: impl AsRef<Path>,
        out: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<SalvageReport> {
        salvage(path.as_ref(), out.as_ref(), &KeyOrders::default(), &mut progress)
    }
}

impl Options {
    /// Like [`Db::salvage_with`], for a file with tables whose keys are in an order that this
    /// program has registered: [`key_order`](Options::key_order). Other options have no effect.
    /// Without the comparison such a table is reported as lost.
    ///
    /// # Errors
    /// As there.
    pub fn salvage(
        &self,
        path: impl AsRef<Path>,
        out: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<SalvageReport> {
        salvage(path.as_ref(), out.as_ref(), &self.spec().key_orders, &mut progress)
    }
}

/// Applies the valid part of the commit log to the copy, and reports what is missing.
fn apply_log(file: &File, meta: &MetaPage, copy: &mut Copy, report: &mut SalvageReport) {
    let log = replay::read_log(file, meta);
    let mut missing = log.damage.as_ref().map(|damage| damage.what.clone());
    for record in &log.records {
        if let Err(e) = copy.apply(log.body(record)) {
            missing = Some(format!("transaction {} of the commit log cannot be applied: {e}", record.header.txn));
            break;
        }
        report.log_txns += 1;
    }
    report.lost.extend(missing.map(Finding::of_slots));
}

/// Callback with the number of pages done and of all pages; decides whether to go on.
type Progress<'p> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'p;

fn salvage(path: &Path, out: &Path, orders: &KeyOrders, progress: &mut Progress<'_>) -> Result<SalvageReport> {
    Copy::refuse_existing(Some(path), out)?;
    let (file, _lock) = open::to_salvage(path)?;
    let len = file::length(&file).map_err(|e| Error::io("reading the length", path, e))?;
    if len == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    let probe = survey::probe(&file);
    open::readable_version(path, &probe)?;
    let Some(page_size) = probe.page_size.or_else(|| survey::find_page_size(&file, len)) else {
        let reason = "neither a meta page nor a page of a database was found in it".to_string();
        return Err(Error::NotADatabase { path: path.to_path_buf(), reason });
    };
    let metas = survey::candidates(&probe);
    let lost_slots: Vec<u64> = (0..2).filter(|slot| probe.slots[*slot as usize].meta().is_err()).collect();
    // Errors from here on are about the new file (damage of the source is not an error). They name
    // its temporary path, so replace that by `out`.
    let of_out = |e: Error| e.of_file(out);
    let rights = FileRights::of(&file).map_err(|e| Error::io("reading the mode", path, e))?;
    let copy = Copy::begin(out, Options::new().page_size(page_size as u32).key_orders(orders), Some(rights))
        .map_err(of_out)?;
    let mut rescue = Rescue::new(&file, page_size, len, copy, (orders, progress));
    rescue.run(&metas, &lost_slots).map_err(of_out)?;
    let (mut copy, mut report) = rescue.end();
    if let Some(newest) = metas.first() {
        apply_log(&file, &newest.meta, &mut copy, &mut report);
    }
    if let Some(what) = meta::contradiction(&probe.slots) {
        report.lost.insert(0, Finding::of_slots(format!("{what}, so the newest commit may be gone")));
    }
    report.file_bytes = len;
    report.txn = metas.first().map(|newest| newest.meta.txn.0);
    report.needed_bytes = metas.first().map_or(0, |newest| newest.needed());
    if report.entries() == 0 && report.is_loss() {
        let what = "no entry can be read; nothing was salvaged".to_string();
        return Err(Error::Corrupt { path: Some(path.to_path_buf()), page: None, table: None, what });
    }
    copy.finish().map_err(of_out)?;
    Ok(report)
}
