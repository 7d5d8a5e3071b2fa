//! How far the page cache can be believed when a file is opened.
//!
//! Floor: txn. Nearly always it shows what the disk has. After a flush that failed it may not
//! (rules R9, R10): then the whole cache of the file is dropped, and what is read comes from the
//! disk. That a flush failed is remembered in this process and, where the file system can, with the
//! file; and the meta pages, from which everything follows, are compared with those of the disk if
//! the file was not closed in order.
//!
//! Failure: [`Error::Busy`] when the cache cannot be dropped because another program has the file
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
use crate::txn::open::file_lock::FileId;
use crate::txn::open::survey;

/// Files whose flush has failed in this process, for file systems that cannot remember it
/// themselves.
static FLUSH_FAILED: PerProcess<Mutex<Vec<FileId>>> = PerProcess::new();

fn flush_failed() -> MutexGuard<'static, Vec<FileId>> {
    FLUSH_FAILED.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers that a flush of a file has failed, until the file has been opened for writing again.
pub(crate) fn remember_failed_flush(file: &File, id: FileId) {
    // Other processes learn of it if the file system can keep it.
    // Where the file system has no attributes, the list of this process remembers it.
    let _has_attribute = direct_io::mark_flush_failed(file);
    let mut failed = flush_failed();
    if !failed.contains(&id) {
        failed.push(id);
    }
}

/// The file was recovered: cache and disk are one again.
pub(crate) fn forget_failed_flush(file: &File, id: FileId) {
    direct_io::clear_flush_failed(file);
    flush_failed().retain(|&failed| failed != id);
}

/// Whether a flush of the file is known to have failed since its last recovery.
pub(crate) fn is_doubted(file: &File, id: FileId) -> bool {
    flush_failed().contains(&id) || direct_io::is_flush_failed(file)
}

/// Sees that what is read of the file from now on is what the disk has. Whether that was in doubt:
/// a flush has failed, or the meta pages in the page cache were not those of the disk. For writing,
/// what a killed process left is flushed first.
pub(crate) fn validate(path: &Path, file: &File, id: FileId, read_only: bool) -> Result<bool> {
    let mut doubted = is_doubted(file, id);
    let reading = |e| Error::io("reading the meta pages", path, e);
    if read_only {
        // Whatever a durable meta page reaches was flushed before it: if the meta pages are those
        // of the disk, so is all that is read. The cache of other readers stays.
        doubted = doubted && !meta_pages_are_on_disk(file, true).map_err(reading)?;
    } else {
        // What a process left that was killed between storing a meta page and flushing it: that
        // meta page will count as durable, so it must be, before pages that only the older one
        // reaches are used again (R5, R10). An error of a flush that nobody has seen yet is told
        // now, and once.
        match files::sync(file) {
            Ok(()) => {}
            // Refused before it began, it says nothing of the pages.
            Err(e) if refused::is(&e) => return Err(Error::io("flushing the file", path, e)),
            Err(_) => {
                remember_failed_flush(file, id);
                doubted = true;
            }
        }
        doubted = doubted || !meta_pages_are_on_disk(file, false).map_err(reading)?;
    }
    if !doubted {
        return Ok(false);
    }
    if !read_only {
        files::sync(file).map_err(|e| Error::io("flushing the file", path, e))?;
    }
    match direct_io::forget_cache(file) {
        Ok(true) => Ok(true),
        Ok(false) => Err(Error::Busy {
            path: path.to_path_buf(),
            why: "after a failed flush, pages of it stay in memory; close other programs that have it mapped, and let its \
                  owner open it for writing once"
                .into(),
        }),
        Err(e) => Err(Error::io("dropping the cached pages", path, e)),
    }
}

/// Whether the meta pages that the page cache shows are those that the disk has. Without a doubt, a
/// file of just the length that its newest meta page asks for is believed, as it was closed in
/// order, and so is one whose disk cannot be asked.
fn meta_pages_are_on_disk(file: &File, doubted: bool) -> io::Result<bool> {
    let cached = survey::probe(file);
    let page_size = cached.page_size.unwrap_or(limits::PAGE_SIZE_MAX) as u64;
    let newest = cached.slots.iter().filter_map(|slot| slot.meta().ok()).max_by_key(|meta| meta.txn);
    let needed = newest.map(|newest| newest.page_count * page_size);
    if !doubted && needed.is_some() && files::length(file).ok() == needed {
        return Ok(true);
    }
    let Some(on_disk) = direct_io::read_start_past_cache(file, 2 * page_size)? else {
        return Ok(!doubted);
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
        // Devices that no file has.
        let (one_id, other_id) = ((u64::MAX, 1), (u64::MAX, 2));
        for _ in 0..2 {
            remember_failed_flush(&one, one_id);
            remember_failed_flush(&other, other_id);
        }
        assert!(is_doubted(&unmarked, one_id) && is_doubted(&unmarked, other_id));
        assert!(!is_doubted(&unmarked, (u64::MAX, 3)));
        forget_failed_flush(&one, one_id);
        assert!(!is_doubted(&one, one_id), "once is enough");
        assert!(is_doubted(&other, other_id) && is_doubted(&unmarked, other_id));
        forget_failed_flush(&other, other_id);
        assert!(!is_doubted(&other, other_id));
    }
}
