//! Cache validation when a file is opened: does the page cache show what the disk has?
//!
//! Floor: txn. After a failed flush it may not (rules R9, R10): then the page cache of the file is
//! dropped, and the file is read from the disk again. A failed flush is remembered in this process,
//! in an attribute of the file if the file system has attributes, and in the lock file. If the file
//! was not closed cleanly, its meta pages in the cache are also compared with those on the disk,
//! because all other pages follow from them.
//!
//! Failure: [`Error::Busy`] if the cache cannot be dropped because another program has the file
//! mapped; errors of the kernel.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::limits;
use crate::mapping::file as files;
use crate::page::meta;
use crate::sys::fork::PerProcess;
use crate::sys::{direct_io, refused};
use crate::txn::open::survey;
use crate::txn::processes::lock_file;
use crate::txn::processes::presence::FileId;

/// Files whose flush has failed in this process, for file systems without attributes.
static FLUSH_FAILED: PerProcess<Mutex<Vec<FileId>>> = PerProcess::new();

fn flush_failed() -> MutexGuard<'static, Vec<FileId>> {
    FLUSH_FAILED.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers that a flush of a file has failed, until the file is opened for writing again.
pub(crate) fn remember_failed_flush(file: &File, id: FileId) {
    // The attribute tells other processes. On a file system without attributes only the list of
    // this process remembers the failure.
    direct_io::mark_flush_failed(file);
    let mut failed = flush_failed();
    if !failed.contains(&id) {
        failed.push(id);
    }
}

/// Forgets a failed flush: the page cache and the disk agree again.
pub(crate) fn forget_failed_flush(path: &Path, file: &File, id: FileId) {
    direct_io::clear_flush_failed(file);
    lock_file::forget_failed_flush(path, id);
    flush_failed().retain(|&failed| failed != id);
}

/// Whether a flush of the file has failed, as far as known, since it was last opened for writing.
pub(crate) fn has_failed_flush(path: &Path, file: &File, id: FileId) -> bool {
    flush_failed().contains(&id) || direct_io::is_flush_failed(file) || lock_file::has_failed_flush(path, id)
}

/// Ensures that reads of the file return the bytes of the disk. Returns whether the cache had to be
/// dropped: a flush has failed, or the meta pages in the page cache differed from those on the
/// disk. For writing, first flushes the pages that a killed process left in the page cache.
pub(crate) fn validate(path: &Path, file: &File, id: FileId, read_only: bool) -> Result<bool> {
    let mut suspect = has_failed_flush(path, file, id);
    let reading = |e| Error::io("reading the meta pages", path, e);
    if read_only {
        // Everything that a durable meta page reaches was flushed before it. So if the cached meta
        // pages are those of the disk, all other pages can be trusted too, and the cache of other
        // readers stays.
        suspect = suspect && !meta_pages_are_on_disk(file, true).map_err(reading)?;
    } else {
        // A killed process may have stored a meta page without flushing it. This open will treat
        // that meta page as durable, so flush it before pages of the older state are reused (R5,
        // R10). The flush also returns a write-back error that no process has seen yet; the kernel
        // reports it only once.
        match files::sync(file) {
            Ok(()) => {}
            // A call that the kernel refused says nothing about the pages.
            Err(e) if refused::is(&e) => return Err(Error::io("flushing the file", path, e)),
            Err(_) => {
                remember_failed_flush(file, id);
                suspect = true;
            }
        }
        suspect = suspect || !meta_pages_are_on_disk(file, false).map_err(reading)?;
    }
    if !suspect {
        return Ok(false);
    }
    if !read_only {
        files::sync(file).map_err(|e| Error::io("flushing the file", path, e))?;
    }
    match direct_io::forget_cache(file) {
        Ok(true) => Ok(true),
        Ok(false) => Err(Error::Busy {
            path: path.to_path_buf(),
            why: "a flush failed, and pages that are not on the disk stay in memory; close other programs that have the file \
                  mapped, and let its owner open it for writing once"
                .into(),
        }),
        Err(e) => Err(Error::io("dropping the cached pages", path, e)),
    }
}

/// Whether the meta pages in the page cache are those on the disk. Unless `suspect`, also true for
/// a file with exactly the length of its newest state, which was closed cleanly, and for a file
/// that cannot be read past the cache.
fn meta_pages_are_on_disk(file: &File, suspect: bool) -> io::Result<bool> {
    let cached = survey::probe(file);
    let page_size = cached.page_size.unwrap_or(limits::PAGE_SIZE_MAX) as u64;
    let newest = cached.slots.iter().filter_map(|slot| slot.meta().ok()).max_by_key(|meta| meta.txn);
    let needed = newest.map(|newest| newest.page_count * page_size);
    if !suspect && needed.is_some() && files::length(file).ok() == needed {
        return Ok(true);
    }
    let Some(on_disk) = direct_io::read_start_past_cache(file, 2 * page_size)? else {
        return Ok(!suspect);
    };
    let found = meta::probe(|offset, len| {
        let start = usize::try_from(offset).ok()?;
        on_disk.get(start..start.checked_add(len)?).map(<[u8]>::to_vec)
    });
    Ok(cached == found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_flush_is_forgotten_for_the_file_that_was_recovered_and_for_no_other() {
        let file = || tempfile::tempfile().expect("a file");
        let (one, other, unmarked) = (file(), file(), file());
        // Device numbers that no file has.
        let (one_id, other_id) = ((u64::MAX, 1), (u64::MAX, 2));
        let path = Path::new("/no/such/file");
        let has = |file: &File, id| has_failed_flush(path, file, id);
        for _ in 0..2 {
            remember_failed_flush(&one, one_id);
            remember_failed_flush(&other, other_id);
        }
        assert!(has(&unmarked, one_id) && has(&unmarked, other_id));
        assert!(!has(&unmarked, (u64::MAX, 3)));
        forget_failed_flush(path, &one, one_id);
        assert!(!has(&one, one_id), "forgotten after one call");
        assert!(has(&other, other_id) && has(&unmarked, other_id));
        forget_failed_flush(path, &other, other_id);
        assert!(!has(&other, other_id));
    }
}
