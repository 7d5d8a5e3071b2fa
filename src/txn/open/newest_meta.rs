//! Finding the newest valid meta page of a file, or the reason why there is none.
//!
//! Floor: txn. Reads both meta pages with `pread`. The state with the greater transaction number is
//! the newest one (rule R7). A slot that cannot be read is never ignored: it may hold the newest
//! state, whose transaction reused pages of the older one.
//!
//! Failure: `NotADatabase`, `NewerVersion`, `Truncated`, `Corrupt`, `Io`; each names the file.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::limits;
use crate::mapping::file;
use crate::page::layout::meta::{MAGIC_BYTES, RECORD_BYTES};
use crate::page::meta::{self, MetaPage, MetaPageError, Probe, Slot};
use crate::txn::open::survey;

/// How many bytes of a file without meta pages are searched for pages, to tell a damaged database
/// from another file.
const LOOK_FOR_PAGES_BYTES: u64 = 1 << 20;

/// The bytes up to the end of the last record of a file with the smallest pages.
const START_BYTES: usize = limits::PAGE_SIZE_MIN + limits::PAGE_SIZE_MIN / 2 + RECORD_BYTES;

/// The newest valid meta page and its slot. An error if the slots contradict each other.
pub(super) fn newest_meta(path: &Path, file: &File) -> Result<(MetaPage, usize)> {
    let (newest, slots) = metas(path, file)?;
    match meta::contradiction(&slots) {
        None => Ok(newest),
        Some(what) => {
            let what = format!("{what}, so the newest commit may be gone; {GO_ON}");
            Err(Error::Corrupt { path: Some(path.to_path_buf()), page: None, table: None, what })
        }
    }
}

/// The remedy for slots that contradict each other.
const GO_ON: &str =
    "'kvctl recover FILE' or Options::recover goes on from the newest state that is left and whole, and \
                     'kvctl salvage FILE OUT' copies what can be read";

/// The newest valid meta page with its slot, and both slots.
pub(super) fn metas(path: &Path, file: &File) -> Result<((MetaPage, usize), [Slot; 2])> {
    let mut unreadable = None;
    // All records of a file with small pages by one call. Files that are shorter, or cannot be
    // read there, and other page sizes are read record by record.
    let mut start = [0; START_BYTES];
    let has_start = file::read_at(file, &mut start, 0).is_ok();
    let probe = meta::probe(|offset, len| {
        let end = offset.saturating_add(len as u64);
        if has_start && end <= START_BYTES as u64 {
            return Some(start[offset as usize..end as usize].to_vec());
        }
        let mut bytes = vec![0; len];
        let read = file::read_at(file, &mut bytes, offset);
        match read {
            Ok(()) => Some(bytes),
            Err(e) => {
                if e.kind() != io::ErrorKind::UnexpectedEof {
                    unreadable = Some(e);
                }
                None
            }
        }
    });
    readable_version(path, &probe)?;
    let slots = [probe.slots[0].meta(), probe.slots[1].meta()];
    if let Some(e) = unreadable.filter(|_| slots.iter().any(Result::is_err)) {
        // The unreadable slot may hold the newest state, and pages of the older one were reused.
        return Err(Error::io("reading the meta pages", path, e));
    }
    let newest = match slots {
        [Ok(a), Ok(b)] if b.txn > a.txn => (b, 1),
        [Ok(a), _] => (a, 0),
        [_, Ok(b)] => (b, 1),
        [Err(a), Err(b)] => return Err(cut_short(path, file).unwrap_or_else(|| no_meta(path, file, &probe, a, b))),
    };
    Ok((newest, probe.slots))
}

/// Refuses files that need a newer release.
pub(crate) fn readable_version(path: &Path, probe: &Probe) -> Result<()> {
    for slot in &probe.slots {
        if let Err(e @ (MetaPageError::Version(_) | MetaPageError::RequiredFeature(_))) = slot.meta() {
            return Err(meta_error(path, e));
        }
    }
    Ok(())
}

/// The error for a file that begins like a database but ends within its first record. Every state
/// needs at least the two slots.
fn cut_short(path: &Path, file: &File) -> Option<Error> {
    let found = file::length(file).ok()?;
    let mut begin = vec![0; (found as usize).min(MAGIC_BYTES.len())];
    file::read_at(file, &mut begin, 0).ok()?;
    let cut = (4..RECORD_BYTES as u64).contains(&found) && MAGIC_BYTES.starts_with(&begin);
    let needed = 2 * limits::PAGE_SIZE_MIN as u64;
    cut.then(|| Error::Truncated { path: path.to_path_buf(), needed, found, whole: None })
}

/// Why there is no usable meta page: the file is not a database, or it is damaged.
fn no_meta(path: &Path, file: &File, probe: &Probe, a: MetaPageError, b: MetaPageError) -> Error {
    match (a, b) {
        (MetaPageError::NoMagic, MetaPageError::NoMagic)
            if survey::find_page_size(file, LOOK_FOR_PAGES_BYTES).is_some() =>
        {
            meta_error(path, MetaPageError::NoMagic)
        }
        (MetaPageError::NoMagic, MetaPageError::NoMagic) if probe.page_size.is_none() => {
            Error::NotADatabase { path: path.to_path_buf(), reason: "its first bytes are not those of one".into() }
        }
        (MetaPageError::NoMagic, e) | (e, _) => meta_error(path, e),
    }
}

fn meta_error(path: &Path, e: MetaPageError) -> Error {
    let path = path.to_path_buf();
    let damaged = |what: String| Error::Corrupt { path: Some(path.clone()), page: None, table: None, what };
    match e {
        MetaPageError::Version(version) => Error::NewerVersion {
            path,
            found: format!("format version {version}"),
            supported: format!("version {}", meta::VERSION),
        },
        MetaPageError::RequiredFeature(bits) => Error::NewerVersion {
            path,
            found: format!("required features {bits:#x}"),
            supported: format!("features {:#x}", meta::KNOWN_REQUIRED),
        },
        MetaPageError::Field(field) => damaged(format!("no meta page is usable: the {field} has an impossible value")),
        MetaPageError::Checksum | MetaPageError::NoMagic => {
            damaged("both meta pages are damaged; Db::salvage copies what can be read".into())
        }
    }
}
