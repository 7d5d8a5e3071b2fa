//! Salvage: every entry of a damaged file that can be read goes to a new database.
//!
//! Floor: db. First a walk from the roots of the newest meta page (`rescue`): what it finds is the
//! newest state. Then, only if something was lost, two more sources (`scan`): the roots that older
//! meta pages and catalog pages name, and leaves that nothing leads to, known by what they say of
//! themselves. They are taken in the order of their transactions, the newest first, and add only
//! keys that lie in ranges which are lost and that no newer source speaks for. What they add may be
//! stale: an older value, or an entry that was deleted since.
//!
//! The damaged file is opened read-only and read with plain reads. Memory: one bit per page that is
//! met, some 24 bytes per leaf found by the scan, the list of what was lost, and the longest value.
//!
//! Failure: what cannot be read is part of the report. Errors are those of opening the file and of
//! writing the new one, and `NotADatabase` or `Corrupt` when there is nothing at all to copy.

mod ranges;
mod rescue;
mod scan;

use std::ops::ControlFlow;
use std::path::Path;

use crate::db::copy::Copy;
use crate::db::{Db, Finding, Options};
use crate::error::{Error, Result};
use crate::mapping::file;
use crate::page::meta;
use crate::sys::rights::FileRights;
use crate::txn::open::{self, survey};

use rescue::Rescue;

/// What [`Db::salvage`] copied, and what it could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Bytes per page, of both files.
    pub page_size: u32,
    /// Transaction of the newest meta page; `None` when no meta page could be read.
    pub txn: Option<u64>,
    /// Bytes that the damaged file has.
    pub file_bytes: u64,
    /// Bytes that its newest state needs; 0 when no meta page could be read.
    pub needed_bytes: u64,
    /// Everything that could not be read, with page, table and key range as far as they are known.
    /// Of a range, part may have been found elsewhere: see [`SalvagedTable::maybe_stale`].
    pub lost: Vec<Finding>,
    /// The tables of the new database, by name.
    pub tables: Vec<SalvagedTable>,
}

/// A table of the new database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvagedTable {
    /// The table. A name such as `lost-16` stands for a table whose record was lost, and which has
    /// no types then.
    pub name: String,
    /// Entries of the newest state, as far as it is known.
    pub entries: u64,
    /// Entries that were found in lost key ranges, on pages that may be older than the newest
    /// state: the value may be an earlier one, and the entry may have been deleted since.
    pub maybe_stale: u64,
    /// Entries that the table has in the newest state, where its record could be read.
    pub expected: Option<u64>,
    /// Whether the catalog of the newest state has the table.
    pub is_certain: bool,
}

impl SalvageReport {
    /// Whether anything could not be read.
    pub fn is_loss(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Entries that were copied, those that may be stale among them.
    pub fn entries(&self) -> u64 {
        self.tables.iter().map(|table| table.entries + table.maybe_stale).sum()
    }

    /// Entries that may be stale.
    pub fn maybe_stale(&self) -> u64 {
        self.tables.iter().map(|table| table.maybe_stale).sum()
    }

    /// Bytes that the newest state needs and the file does not have.
    pub fn bytes_missing(&self) -> u64 {
        self.needed_bytes.saturating_sub(self.file_bytes)
    }
}

impl Db {
    /// Copies every entry of a damaged file that can be read to a new database `out`, which appears
    /// whole or not at all. The damaged file is never written. Tables keep their names and codecs.
    /// The new file gets the mode of the damaged one, and owner and group where the kernel permits;
    /// it never has more rights.
    ///
    /// Entries come from the newest state as far as its pages can be reached. Key ranges that are
    /// lost are filled from older states and from pages that nothing leads to any more; such
    /// entries may be stale, and the report counts them by table. Also works when both meta pages
    /// are lost, and when only a part of the file is there.
    ///
    /// # Errors
    /// `NotADatabase` for a file without a single page of a database, `Corrupt` when there is
    /// nothing to copy, `Usage` if `out` exists, `Locked` while another process has the file open,
    /// `DiskFull`, `Io`, `Permission` or `NotFound` from the kernel.
    pub fn salvage(path: impl AsRef<Path>, out: impl AsRef<Path>) -> Result<SalvageReport> {
        Db::salvage_with(path, out, |_, _| ControlFlow::Continue(()))
    }

    /// Like [`salvage`](Db::salvage), and tells `progress` from time to time how many pages are
    /// done, and of how many. When that answers `Break`, salvage stops and leaves no file.
    ///
    /// # Errors
    /// As [`salvage`](Db::salvage); `Io` with a source of the kind `Interrupted` when it was
    /// stopped.
    pub fn salvage_with(
        path: impl AsRef<Path>,
        out: impl AsRef<Path>,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<SalvageReport> {
        salvage(path.as_ref(), out.as_ref(), &mut progress)
    }
}

/// Is told how many pages are done, and of how many; says whether to go on.
type Progress<'p> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'p;

fn salvage(path: &Path, out: &Path, progress: &mut Progress<'_>) -> Result<SalvageReport> {
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
    // Damage of the file that is read is no error: these are of what is written, under a name that
    // nobody knows.
    let of_out = |e: Error| e.of_file(out);
    let rights = FileRights::of(&file).map_err(|e| Error::io("reading the mode", path, e))?;
    let copy = Copy::begin(out, Options::new().page_size(page_size as u32), Some(rights)).map_err(of_out)?;
    let mut rescue = Rescue::new(&file, page_size, len, copy, progress);
    rescue.run(&metas, &lost_slots).map_err(of_out)?;
    let (copy, mut report) = rescue.end();
    if let Some(what) = meta::contradiction(&probe.slots) {
        report.lost.insert(0, Finding::of_slots(format!("{what}, so the newest commit may be gone")));
    }
    report.file_bytes = len;
    report.txn = metas.first().map(|newest| newest.meta.txn.0);
    report.needed_bytes = metas.first().map_or(0, |newest| newest.needed());
    if report.entries() == 0 && report.is_loss() {
        let what = "there is not a single entry left that can be read; nothing was salvaged".to_string();
        return Err(Error::Corrupt { path: Some(path.to_path_buf()), page: None, table: None, what });
    }
    copy.finish().map_err(of_out)?;
    Ok(report)
}
