//! Opening and creating databases: which file, which lock, which state.
//!
//! Floor: txn. The same file opened twice in one process is the same environment (found by device
//! and inode), because two mappings with two writers would destroy it. Among processes a byte-range
//! lock on the data file decides: one writer alone, or any number of read-only opens. Recovery
//! after any crash is to take the newest valid meta page: it was written only when everything it
//! reaches was durable (rule R7). It may be in the page cache alone, so opening for writing flushes
//! the file, and then reads the meta pages past the cache: after a flush that failed the cache may
//! show what the disk never got (rule R10). A file that was closed in order is only mapped: what a
//! writer needs besides, a flush among it, waits for the first write transaction
//! (`Env::make_writer`), and an opening that only reads changes nothing of the file.
//!
//! Invariants:
//!   OPEN-1  a file that is refused is not changed, not even by a byte.
//!   OPEN-2  a new file appears under its name only when it is complete and durable (rule R11).
//!   OPEN-3  an environment leaves the registry after its lock was released.
//!   OPEN-4  after a failed flush nothing of the file is believed that is not read from the disk.
//!   OPEN-5  behind the pages of the state that is opened for writing, the file has nothing: what a
//!       crash left there, extents whose first writing failed among it, goes back to the file
//!       system.
//!
//! Failure: every refusal names the file and the remedy; see the variants of [`Error`].

pub(crate) mod cache_validation;
pub(crate) mod file_lock;
pub(crate) mod rollback;
pub(crate) mod survey;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::hooks::FlushKind;
use crate::ids::{TreeId, TxnId};
use crate::limits;
use crate::mapping::file::{self, Created};
use crate::mapping::{MapOptions, Mapping, ReadAhead};
use crate::page::layout::meta::{MAGIC_BYTES, RECORD_BYTES};
use crate::page::meta::{self, LogDescriptor, MetaPage, MetaPageError, Probe, RunPtr, Slot, TreeRoot};
use crate::sys::fork::PerProcess;
use crate::txn::env::{Env, EnvParts};
use file_lock::{file_id, lock_file, name_holder, FileId, FileLock};

/// How to open; what [`Options`](crate::Options) collects.
#[derive(Clone, Debug)]
pub(crate) struct OpenSpec {
    /// Page size of a new database, in bytes.
    pub(crate) page_size: usize,
    pub(crate) read_only: bool,
    /// Make the file if there is none.
    pub(crate) create: bool,
    /// Take an existing file of zero bytes for a new database.
    pub(crate) init_empty: bool,
    /// Mode of a new file, of which the umask is taken off.
    pub(crate) mode: u32,
    pub(crate) window_bytes: Option<u64>,
    /// Turn accesses that the system cannot serve into errors.
    /// `None`: not said, which is `true`.
    pub(crate) fault_guard: Option<bool>,
    /// Go back to the newest state that is whole.
    pub(crate) recover: bool,
    /// `None`: not said, which is the default.
    pub(crate) read_ahead: Option<ReadAhead>,
}

/// How far a file without meta pages is searched for pages, to tell a damaged database from
/// something else.
const LOOK_FOR_PAGES_BYTES: u64 = 1 << 20;

/// Databases that are open in this process. A child after `fork` has a registry of its own, so that
/// it opens afresh what its parent has open.
static REGISTRY: PerProcess<Mutex<HashMap<FileId, Weak<Env>>>> = PerProcess::new();

fn registry() -> MutexGuard<'static, HashMap<FileId, Weak<Env>>> {
    REGISTRY.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileLock {
    /// Unlocks, then leaves the registry (OPEN-3).
    pub(crate) fn release(self) {
        let mut registry = registry();
        let id = self.id();
        drop(self);
        registry.remove(&id);
    }
}

/// Opens the database at a path, or makes it.
pub(crate) fn open(path: &Path, spec: &OpenSpec) -> Result<Arc<Env>> {
    check_page_size(spec)?;
    check_mode(spec)?;
    if spec.recover && spec.read_only {
        return Err(Error::usage(format!(
            "{}: recovery writes to the file; open it for writing, or without recovery",
            path.display()
        )));
    }
    loop {
        let file = match file::open(path, !spec.read_only) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && spec.create && !spec.read_only => {
                create(&target_of_link(path), spec)?;
                continue;
            }
            opened => opened.map_err(|e| open_error(path, e))?,
        };
        check_type(path, &file)?;
        let id = file_id(path, &file)?;
        let mut registry = registry();
        match registry.get(&id).map(Weak::upgrade) {
            Some(Some(env)) => {
                // If this refuses, `env` may be the last handle by now, whose end needs the
                // registry.
                drop(registry);
                return share(env, spec);
            }
            Some(None) => {
                // The last handle is closing it just now.
                drop(registry);
                // `sleep` would panic where the kernel refuses its call.
                std::thread::park_timeout(Duration::from_millis(1));
            }
            None => {
                let opened = open_file(path, file, id, spec).map(Arc::new);
                if let Ok(env) = &opened {
                    registry.insert(id, Arc::downgrade(env));
                }
                drop(registry);
                return opened.map_err(|e| name_holder(say_what_is_whole(e, id), id));
            }
        }
    }
}

fn check_page_size(spec: &OpenSpec) -> Result<()> {
    if limits::page_size_ok(spec.page_size) {
        return Ok(());
    }
    let what = format!("a page size of {} bytes is not possible; choose 4096, 8192, 16384 or 32768", spec.page_size);
    Err(Error::usage(what))
}

/// Refuses modes with which the file could not be opened again.
fn check_mode(spec: &OpenSpec) -> Result<()> {
    if spec.mode & !0o777 == 0 && spec.mode & 0o600 == 0o600 {
        return Ok(());
    }
    let what =
        "is not possible: the owner has to read and write, and only permission bits count; choose one such as 0o600";
    Err(Error::usage(format!("mode {:#o} {what}", spec.mode)))
}

/// A database in memory, which behaves like one in a file and is gone at the end.
pub(crate) fn in_memory(spec: &OpenSpec) -> Result<Arc<Env>> {
    check_page_size(spec)?;
    let path = PathBuf::from("(memory)");
    let io = |op| {
        let path = path.clone();
        move |e| Error::io(op, &path, e)
    };
    let options =
        MapOptions { page_size: spec.page_size, window_bytes: spec.window_bytes, fault_guard: false, used_bytes: None };
    let mapping = Mapping::anonymous(options).map_err(io("mapping memory"))?;
    let first = first_meta(spec.page_size)?;
    if let Some(mut write_map) = mapping.write_map() {
        mapping.grow(&mut write_map, 2 * spec.page_size as u64).map_err(io("growing memory"))?;
    }
    let mut page = vec![0; spec.page_size];
    first.encode_slot(&mut page);
    mapping.store_meta_page(0, &page);
    MetaPage { txn: TxnId(0), ..first }.encode_slot(&mut page);
    mapping.store_meta_page(1, &page);
    Ok(Arc::new(Env::new(EnvParts {
        path,
        meta: first,
        slot: 0,
        read_only: false,
        opened: spec.clone(),
        mapping,
        lock: None,
    })))
}

/// Another handle to a database that this process has open.
fn share(env: Arc<Env>, spec: &OpenSpec) -> Result<Arc<Env>> {
    if env.read_only && !spec.read_only {
        return Err(Error::Locked {
            path: env.path().to_path_buf(),
            by: "this process has it open read-only; close that handle, or open read-only here too".into(),
        });
    }
    if spec.recover {
        let what = "recovery goes back before a database is opened, and this process has it open already";
        let remedy = "end all its handles and transactions first, or open it without recovery";
        return Err(Error::usage(format!("{}: {what}; {remedy}", env.path().display())));
    }
    agree(&env, "fault_guard", spec.fault_guard, env.opened.fault_guard.unwrap_or(true))?;
    agree(&env, "read_ahead", spec.read_ahead, env.opened.read_ahead.unwrap_or_default())?;
    env.check_poison()?;
    Ok(env)
}

/// Refuses an option that was given and cannot hold, because the database is open with another
/// value.
fn agree<T: PartialEq + std::fmt::Debug>(env: &Env, option: &str, asked: Option<T>, is: T) -> Result<()> {
    match asked {
        Some(asked) if asked != is => Err(Error::usage(format!(
            "{}: this process has it open with {option} {is:?}, so it cannot be opened with {asked:?}; leave the option \
             out, or close every handle first",
            env.path().display()
        ))),
        _ => Ok(()),
    }
}

/// Opens a file to be read with plain reads alone, locked against writers; whatever is wrong with
/// it.
pub(crate) fn to_salvage(path: &Path) -> Result<(File, FileLock)> {
    let file = file::open(path, false).map_err(|e| open_error(path, e))?;
    check_type(path, &file)?;
    let id = file_id(path, &file)?;
    let lock = lock_file(path, id, true).map_err(|e| name_holder(e, id))?;
    file::can_be_read(&file).map_err(|e| Error::io("reading", path, e))?;
    Ok((file, lock))
}

/// Finds out what going back to a whole state would do, and does it if asked to.
pub(crate) fn recover(path: &Path, carry_out: bool) -> Result<rollback::Plan> {
    let file = file::open(path, carry_out).map_err(|e| open_error(path, e))?;
    check_type(path, &file)?;
    let id = file_id(path, &file)?;
    let _lock = lock_file(path, id, !carry_out).map_err(|e| name_holder(e, id))?;
    let len = file::length(&file).map_err(|e| Error::io("reading the length", path, e))?;
    if len == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    cache_validation::sees_medium(path, &file, id, !carry_out)?;
    metas(path, &file)?;
    let plan = rollback::plan(path, &file)?;
    if carry_out {
        rollback::carry_out(path, &file, &plan)?;
    }
    Ok(plan)
}

fn open_file(path: &Path, file: File, id: FileId, spec: &OpenSpec) -> Result<Env> {
    let lock = lock_file(path, id, spec.read_only)?;
    let len = file::length(&file).map_err(|e| Error::io("reading the length", path, e))?;
    if len == 0 {
        if !spec.init_empty || spec.read_only {
            return Err(Error::EmptyFile { path: path.to_path_buf() });
        }
        initialise(path, &file, spec)?;
    } else if spec.init_empty && !spec.read_only && len <= 2 * limits::PAGE_SIZE_MAX as u64 && is_blank(&file, len) {
        // A power cut while an empty file was initialised can leave its new length and none of its
        // bytes.
        initialise(path, &file, spec)?;
    }
    let Found { meta, slot, in_order, doubted } = find_state(path, &file, id, spec, len)?;
    let page_size = u64::from(meta.page_size);
    let len = file::length(&file).map_err(|e| Error::io("reading the length", path, e))?;
    let needed = meta.page_count.saturating_mul(page_size);
    if needed > len {
        return Err(Error::Truncated { path: path.to_path_buf(), needed, found: len, whole: None });
    }
    if !spec.read_only && len > needed {
        file::set_length(&file, needed).map_err(|e| Error::io("cutting off unused space", path, e))?;
    }
    let options = MapOptions {
        page_size: meta.page_size as usize,
        window_bytes: spec.window_bytes,
        fault_guard: spec.fault_guard.unwrap_or(true),
        used_bytes: spec.read_only.then_some(needed),
    };
    let mapping =
        Mapping::of_file(file, !spec.read_only, options).map_err(|e| Error::io("mapping the file", path, e))?;
    mapping.set_read_ahead(spec.read_ahead.unwrap_or_default());
    if !spec.read_only && !in_order {
        // A process that was killed may have left its newest meta page in the page cache alone.
        // What is shown of it, and what this one builds on, is durable first (R7, R10), or a power
        // loss could bring the older state back after its pages were reused.
        mapping.flush(FlushKind::Tree, 0, needed).map_err(|e| Error::io("flushing the file", path, e))?;
        mapping.ready_to_write().map_err(|e| Error::io("mapping the file for writing", path, e))?;
        if doubted {
            cache_validation::forget_failed_flush(lock.file(), id);
        }
    }
    let (path, read_only, lock) = (path.to_path_buf(), spec.read_only, Some(lock));
    Ok(Env::new(EnvParts { path, meta, slot, read_only, opened: spec.clone(), mapping, lock }))
}

/// The state that is opened, and how it was found.
struct Found {
    meta: MetaPage,
    slot: usize,
    /// The file was closed in order: what only a writer needs can wait for one.
    in_order: bool,
    /// What the page cache showed was in doubt.
    doubted: bool,
}

/// Finds the newest state of a file of `len` bytes, or the one that recovery goes back to.
fn find_state(path: &Path, file: &File, id: FileId, spec: &OpenSpec, len: u64) -> Result<Found> {
    if !spec.read_only && !spec.recover && !cache_validation::is_doubted(file, id) {
        // While a file is written to it is longer than its newest state (MAP-5), so what has just
        // that length was closed in order, or opened and never written to.
        match newest_meta(path, file) {
            Ok((meta, slot)) if meta.page_count.saturating_mul(meta.page_size.into()) == len => {
                return Ok(Found { meta, slot, in_order: true, doubted: false });
            }
            _ => {}
        }
    }
    let doubted = cache_validation::sees_medium(path, file, id, spec.read_only)?;
    if spec.recover {
        metas(path, file)?;
        rollback::carry_out(path, file, &rollback::plan(path, file)?)?;
    }
    let (meta, slot) = newest_meta(path, file)?;
    Ok(Found { meta, slot, in_order: false, doubted })
}

/// Adds to the refusal of a cut file which state is whole, if one is. That reads every page in use,
/// so it is found out without the registry: other databases are opened and closed meanwhile.
fn say_what_is_whole(e: Error, id: FileId) -> Error {
    let Error::Truncated { path, needed, found, whole: None } = e else { return e };
    // Whoever has the file now changes it: what is whole is for them to say.
    let whole = lock_file(&path, id, true).ok().and_then(|lock| rollback::whole_of(&path, lock.file(), found));
    Error::Truncated { path, needed, found, whole }
}

/// The newest valid meta page and its slot, in a file whose slots do not contradict each other.
fn newest_meta(path: &Path, file: &File) -> Result<(MetaPage, usize)> {
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
fn metas(path: &Path, file: &File) -> Result<((MetaPage, usize), [Slot; 2])> {
    let mut unreadable = None;
    let probe = meta::probe(|offset, len| {
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
        // The newest state may be the one that the disk does not give, and pages of the older one
        // were used again.
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

/// Refuses files of newer releases.
pub(crate) fn readable_version(path: &Path, probe: &Probe) -> Result<()> {
    for slot in &probe.slots {
        if let Err(e @ (MetaPageError::Version(_) | MetaPageError::RequiredFeature(_))) = slot.meta() {
            return Err(meta_error(path, e));
        }
    }
    Ok(())
}

/// A file that begins like a database and ends within its first record. No state needs less than
/// the two slots.
fn cut_short(path: &Path, file: &File) -> Option<Error> {
    let found = file::length(file).ok()?;
    let mut begin = vec![0; (found as usize).min(MAGIC_BYTES.len())];
    file::read_at(file, &mut begin, 0).ok()?;
    let cut = (4..RECORD_BYTES as u64).contains(&found) && MAGIC_BYTES.starts_with(&begin);
    let needed = 2 * limits::PAGE_SIZE_MIN as u64;
    cut.then(|| Error::Truncated { path: path.to_path_buf(), needed, found, whole: None })
}

/// Why there is no usable meta page at all: something else than a database, or a damaged one.
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

/// Makes a new database file (OPEN-2). If somebody else was first, theirs stands.
fn create(path: &Path, spec: &OpenSpec) -> Result<()> {
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

/// The file that a path leads to which does not exist: a link may name it. As many links as the
/// kernel follows.
fn target_of_link(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        let Ok(target) = std::fs::read_link(&path) else { break };
        path = path.parent().map(|parent| parent.join(&target)).unwrap_or(target);
    }
    path
}

/// Makes a database of an existing empty file. The second slot first: a cut in between leaves a
/// whole meta page or none.
fn initialise(path: &Path, file: &File, spec: &OpenSpec) -> Result<()> {
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

/// Whether all bytes of a short file can be read and are zeros.
fn is_blank(file: &File, len: u64) -> bool {
    let mut bytes = vec![0; len as usize];
    file::read_at(file, &mut bytes, 0).is_ok() && bytes.iter().all(|&byte| byte == 0)
}

/// The state of an empty database.
fn first_meta(page_size: usize) -> Result<MetaPage> {
    Ok(MetaPage {
        page_size: page_size as u32,
        required: 0,
        optional: 0,
        uuid: random_uuid().map_err(|e| Error::io("reading random numbers", Path::new("/dev/urandom"), e))?,
        txn: TxnId(1),
        page_count: 2,
        catalog: TreeRoot::empty(TreeId::CATALOG),
        free_space: TreeRoot::empty(TreeId::FREE_SPACE),
        spill: RunPtr::default(),
        next_tree: TreeId::FIRST_TABLE,
        log: LogDescriptor::default(),
    })
}

/// A random uuid (version 4, RFC 9562).
fn random_uuid() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    file::random(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(bytes)
}

/// What cannot even be opened may be no file at all (a directory, a socket).
pub(crate) fn open_error(path: &Path, e: io::Error) -> Error {
    let found = std::fs::metadata(path).ok().and_then(|metadata| file::other_kind(metadata.mode()));
    match found {
        Some(kind) if e.kind() != io::ErrorKind::PermissionDenied => not_a_file(path, kind),
        _ => Error::io("opening the file", path, e),
    }
}

fn not_a_file(path: &Path, kind: &str) -> Error {
    Error::NotADatabase { path: path.to_path_buf(), reason: format!("it is {kind}, not a file") }
}

fn check_type(path: &Path, file: &File) -> Result<()> {
    let found = file::status(file).map_err(|e| Error::io("reading the type of the file", path, e))?;
    match file::other_kind(found.mode) {
        None => Ok(()),
        Some(kind) => Err(not_a_file(path, kind)),
    }
}
