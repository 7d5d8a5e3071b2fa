//! Creating databases: in a new file, in an existing empty file, in memory of this process.
//!
//! Floor: txn. A new file is written under a temporary name, flushed and renamed (OPEN-2). All
//! three start with two meta pages of an empty state: no tables, no free space.
//!
//! Failure: `Io` or `DiskFull` of writing the file. A file that another process created first is
//! kept.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::{TreeId, TxnId};
use crate::mapping::file::{self, Created};
use crate::mapping::{MapOptions, Mapping};
use crate::page::meta::{ExtentPtr, LogDescriptor, MetaPage, TreeRoot};
use crate::sys::random;
use crate::txn::env::{Env, EnvParts};
use crate::txn::live::Live;
use crate::txn::open::{check_page_size, memory, OpenSpec};
use crate::txn::processes::memory::NAME;
use crate::txn::state::State;

/// Creates a new database file (OPEN-2). If another process was first, its file is kept.
pub(super) fn create(path: &Path, spec: &OpenSpec) -> Result<()> {
    let first = first_meta(spec.page_size)?;
    let created = file::create_atomic(path, spec.page_size, spec.mode, |out| {
        let mut page = vec![0; spec.page_size];
        for (slot, txn) in [(0u64, first.txn), (1, first.txn.next())] {
            MetaPage { txn, ..first }.encode_slot(&mut page);
            out.write_at(slot * spec.page_size as u64, &page)?;
        }
        Ok(())
    });
    match created {
        Ok(Created::New | Created::Existed) => Ok(()),
        Err(e) => Err(Error::io("creating the file", path, e).with_wanted(2 * spec.page_size as u64)),
    }
}

/// The path of the file to create: follows symbolic links, which may end at a file that does not
/// exist. Follows at most 40 links, like the kernel.
pub(super) fn target_of_link(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = path.parent().map(|parent| parent.join(&target)).unwrap_or(target);
    }
    path
}

/// Makes an existing empty file a database. Writes the second slot first: the file has its full
/// length then, and an interruption leaves either one valid meta page or none.
pub(super) fn initialise(path: &Path, file: &File, spec: &OpenSpec) -> Result<()> {
    let first = first_meta(spec.page_size)?;
    file::prepare_empty(file);
    let mut page = vec![0; spec.page_size];
    let mut write = |slot: u64, txn: TxnId| {
        MetaPage { txn, ..first }.encode_slot(&mut page);
        file::write_at(file, &page, slot * spec.page_size as u64)
    };
    write(1, first.txn.next())
        .and_then(|()| write(0, first.txn))
        .and_then(|()| file::sync(file))
        .map_err(|e| Error::io("initialising the file", path, e))
}

/// Whether all `len` bytes of a file are readable and zero.
pub(super) fn is_blank(file: &File, len: u64) -> bool {
    let mut bytes = vec![0; len as usize];
    file::read_at(file, &mut bytes, 0).is_ok() && bytes.iter().all(|&byte| byte == 0)
}

/// The state of an empty database.
pub(super) fn first_meta(page_size: usize) -> Result<MetaPage> {
    Ok(MetaPage {
        page_size: page_size as u32,
        required: 0,
        optional: 0,
        uuid: random_uuid().map_err(|e| Error::io("reading random numbers", Path::new("/dev/urandom"), e))?,
        txn: TxnId(1),
        page_count: 2,
        catalog: TreeRoot::empty(TreeId::CATALOG),
        free_space: TreeRoot::empty(TreeId::FREE_SPACE),
        free_list: ExtentPtr::default(),
        next_tree: TreeId::FIRST_TABLE,
        log: LogDescriptor::default(),
        snapshots: TreeRoot::empty(TreeId::SNAPSHOTS),
    })
}

/// A random uuid (version 4, RFC 9562).
fn random_uuid() -> io::Result<[u8; 16]> {
    let mut bytes: [u8; 16] = random::bytes()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}

/// Creates a database in memory. It behaves like one in a file, and is lost with its last handle.
pub(crate) fn in_memory(spec: &OpenSpec) -> Result<Arc<Env>> {
    check_page_size(spec)?;
    if spec.shared_memory {
        return memory::make(spec);
    }
    let path = PathBuf::from(NAME);
    let io = |op| {
        let path = path.clone();
        move |e| Error::io(op, &path, e)
    };
    let options =
        MapOptions { page_size: spec.page_size, window_bytes: spec.window_bytes, fault_guard: false, used_bytes: None };
    let mapping = Mapping::anonymous(options).map_err(io("mapping memory"))?;
    let first = first_meta(spec.page_size)?;
    store_first_pages(&mapping, &first).map_err(io("growing memory"))?;
    Ok(Arc::new(Env::new(
        EnvParts {
            path,
            meta: first,
            live: Live::new(State::from_meta(&first), 0),
            read_only: false,
            opened: spec.clone(),
            lock: None,
        },
        mapping,
    )))
}

/// Makes new memory long enough for the two meta pages, and stores them.
pub(super) fn store_first_pages(mapping: &Mapping, first: &MetaPage) -> io::Result<()> {
    let mut page = vec![0; first.page_size as usize];
    if let Some(mut write_map) = mapping.write_map() {
        mapping.grow(&mut write_map, 2 * page.len() as u64)?;
    }
    first.encode_slot(&mut page);
    mapping.store_meta_page(0, &page);
    MetaPage { txn: TxnId(0), ..*first }.encode_slot(&mut page);
    mapping.store_meta_page(1, &page);
    Ok(())
}
