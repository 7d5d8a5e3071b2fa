//! Opening databases: which file, which lock, which state.
//!
//! Floor: txn. Opening a file twice in one process gives the same environment, found by device and
//! inode: two mappings with two writers would destroy the file. Other processes may have the file
//! open too (`processes`): then this process joins them, and neither flushes, compares nor cuts the
//! file.
//!
//! Recovery after a crash takes the newest valid meta page: the writer wrote it only after
//! everything that it reaches was durable (rule R7). The meta page itself may be only in the page
//! cache. So an open for writing flushes the file and then reads the meta pages past the page
//! cache: after a failed flush the cache may show bytes that the disk never got (rule R10). A file
//! that was closed cleanly is only mapped; all other work for a writer, the flush included, waits
//! for the first write transaction (`Env::make_writer`). A read-only open changes nothing in the
//! file.
//!
//! ```text
//! mod               `open`, `open_file`, `join`; opening for salvage and recovery
//! registry          which databases this process has open
//! first             opens a file that no other process has open
//! create            makes new databases, in files and in memory
//! memory            makes databases in memory that processes share, and attaches to them
//! newest_meta       reads both meta pages and chooses the newest valid one
//! cache_validation  checks that the page cache shows what the disk has
//! scratch           opens a file so that nothing reaches it
//! survey            which states a file holds, and which of them are whole
//! rollback          goes back to the newest whole state
//! ```
//!
//! Invariants:
//!   OPEN-1  a file that is refused is not changed.
//!   OPEN-2  a new file appears under its name only when it is complete and durable (rule R11).
//!   OPEN-3  an environment leaves the registry only after its lock was released.
//!   OPEN-4  after a failed flush, only bytes read from the disk count, not those of the page
//!           cache.
//!   OPEN-5  a file that was opened for writing ends with the last page of its state. Pages that a
//!       crash left after it are cut off.
//!
//! Failure: every error names the file and the remedy; see the variants of [`Error`].

pub(crate) mod cache_validation;
mod create;
mod first;
mod memory;
mod newest_meta;
mod registry;
pub(crate) mod rollback;
mod scratch;
pub(crate) mod survey;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::orders::KeyOrders;
use crate::error::{Error, Result};
use crate::limits;
use crate::mapping::file;
use crate::mapping::{MapOptions, Mapping, ReadAhead};
use crate::page::meta::{MetaPage, Slot};
use crate::sys::file_calls;
use crate::txn::env::{Env, EnvParts};
use crate::txn::live::Live;
use crate::txn::processes::descriptor::Gate;
use crate::txn::processes::presence::{enter, file_id, name_holders, Entry, FileId, FileLock, Wanted};
use crate::txn::read::snapshot::ReadPool;
pub(crate) use create::in_memory;
use create::{create, target_of_link};
use first::open_first;
pub(crate) use memory::attach;
pub(crate) use newest_meta::readable_version;
use newest_meta::{metas, newest_meta};
use registry::{look_up, share, Lookup};
use survey::Candidate;

/// How to open a database: the values of [`Options`](crate::Options).
#[derive(Clone, Debug)]
pub(crate) struct OpenSpec {
    /// Page size of a new database, in bytes.
    pub(crate) page_size: usize,
    pub(crate) read_only: bool,
    /// Keep other processes out.
    pub(crate) exclusive: bool,
    /// Open a file on a network file system.
    pub(crate) network: bool,
    /// Make a database in memory one that processes share.
    pub(crate) shared_memory: bool,
    /// Create the file if it does not exist.
    pub(crate) create: bool,
    /// Make an existing empty file a database.
    pub(crate) init_empty: bool,
    /// Mode of a new file, before the umask.
    pub(crate) mode: u32,
    pub(crate) window_bytes: Option<u64>,
    /// Turn accesses that the kernel cannot serve into errors. `None`: not given, the default is
    /// `true`.
    pub(crate) fault_guard: Option<bool>,
    /// Go back to the newest whole state before opening.
    pub(crate) recover: bool,
    /// `None`: not given, the default is [`ReadAhead::Auto`].
    pub(crate) read_ahead: Option<ReadAhead>,
    /// The longest time that an eventual commit stays not durable.
    pub(crate) sync_interval: Option<Duration>,
    /// Replay a damaged log up to the damage. Without it, opening fails.
    pub(crate) replay_to_damage: bool,
    /// The state to replay from, if the slots still are as a recovery has seen them. They may
    /// contradict each other.
    replay_from: Option<(Candidate, [Slot; 2])>,
    /// Number of held pages at which a checkpoint begins.
    pub(crate) held_pages: Option<u64>,
    /// Bytes that flat indexes may take. `None`: a part of the file.
    pub(crate) index_memory: Option<u64>,
    /// Let nothing reach the file.
    pub(crate) scratch: bool,
    /// The comparisons of tables whose keys have an order of their own.
    pub(crate) key_orders: KeyOrders,
}

impl Default for OpenSpec {
    fn default() -> OpenSpec {
        OpenSpec {
            page_size: limits::PAGE_SIZE_DEFAULT,
            read_only: false,
            exclusive: false,
            network: false,
            shared_memory: false,
            create: true,
            init_empty: false,
            mode: 0o666,
            window_bytes: None,
            fault_guard: None,
            recover: false,
            read_ahead: None,
            sync_interval: Some(SYNC_INTERVAL),
            replay_to_damage: false,
            replay_from: None,
            held_pages: None,
            index_memory: None,
            scratch: false,
            key_orders: KeyOrders::default(),
        }
    }
}

/// Default of [`OpenSpec::sync_interval`].
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the database at a path, or creates it.
pub(crate) fn open(path: &Path, spec: &OpenSpec) -> Result<Arc<Env>> {
    check_page_size(spec)?;
    check_mode(spec)?;
    if spec.scratch {
        return scratch::open_scratch(path, spec);
    }
    if spec.recover && spec.read_only {
        return Err(Error::usage(format!(
            "{}: recovery writes to the file; open it for writing, or without recovery",
            path.display()
        )));
    }
    loop {
        let file = match file::open(path, !spec.read_only) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && spec.create && !spec.read_only => {
                let target = target_of_link(path);
                check_directory(&target, spec)?;
                create(&target, spec)?;
                continue;
            }
            opened => opened.map_err(|e| open_error(path, e))?,
        };
        check_type(path, &file)?;
        let id = file_id(path, &file)?;
        match look_up(id, spec.read_only) {
            Lookup::Open(env) => return share(env, spec),
            // Not `sleep`, which panics if a sandbox refuses its system call.
            Lookup::Changing => std::thread::park_timeout(Duration::from_millis(1)),
            Lookup::Free(mark) => {
                let opened = open_file(path, file, id, spec);
                if let Ok(env) = &opened {
                    mark.opened(env);
                }
                drop(mark);
                return opened.map_err(|e| name_holders(say_what_is_whole(e, id), id));
            }
        }
    }
}

/// Opens a file as another process would, although this process may have it open: a second member,
/// for tests. It is not in the registry.
#[cfg(feature = "testing")]
pub(crate) fn open_apart(path: &Path) -> Result<Arc<Env>> {
    // No clock decides when an eventual commit becomes durable.
    let spec = OpenSpec { create: false, sync_interval: None, ..OpenSpec::default() };
    open_as_another_process(path, &spec)
}

fn check_page_size(spec: &OpenSpec) -> Result<()> {
    if limits::page_size_ok(spec.page_size) {
        return Ok(());
    }
    let what = format!("a page size of {} bytes is not possible; choose 4096, 8192, 16384 or 32768", spec.page_size);
    Err(Error::usage(what))
}

/// Refuses a mode with which the owner could not open the file again.
fn check_mode(spec: &OpenSpec) -> Result<()> {
    if spec.mode & !0o777 == 0 && spec.mode & 0o600 == 0o600 {
        return Ok(());
    }
    let what =
        "is not possible: it may have permission bits only, and the owner must be able to read and write; choose one such \
         as 0o600";
    Err(Error::usage(format!("mode {:#o} {what}", spec.mode)))
}

/// Opens and locks a file for salvage, however damaged it is. It is read only with `pread`; the
/// lock keeps writers out.
pub(crate) fn to_salvage(path: &Path) -> Result<(File, FileLock)> {
    let file = file::open(path, false).map_err(|e| open_error(path, e))?;
    check_type(path, &file)?;
    let id = file_id(path, &file)?;
    let lock = enter_plainly(path, id, true).map_err(|e| name_holders(e, id))?;
    file::can_be_read(&file).map_err(|e| Error::io("reading", path, e))?;
    Ok((file, lock))
}

/// Comes in without a lock file, beside no process but plain readers.
fn enter_plainly(path: &Path, id: FileId, read_only: bool) -> Result<FileLock> {
    enter(path, id, Wanted { read_only, exclusive: false, plain: true, fault_guard: true }).map(|entry| entry.lock)
}

/// Plans going back to a whole state, and does it if `carry_out` is true.
pub(crate) fn recover(path: &Path, carry_out: bool) -> Result<rollback::Plan> {
    let file = file::open(path, carry_out).map_err(|e| open_error(path, e))?;
    check_type(path, &file)?;
    let id = file_id(path, &file)?;
    let lock = enter_plainly(path, id, !carry_out).map_err(|e| name_holders(e, id))?;
    let len = file::length(&file).map_err(|e| Error::io("reading the length", path, e))?;
    if len == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    cache_validation::validate(path, &file, id, !carry_out)?;
    metas(path, &file)?;
    let mut plan = rollback::plan(path, &file)?;
    if carry_out {
        rollback::carry_out(path, &file, &plan)?;
    }
    if plan.replays() {
        drop(lock);
        plan.after = replay_log(path, &plan, carry_out)?;
    }
    Ok(plan)
}

/// Replays the log of the target up to its damage, in the file if `carry_out` is true, else in
/// memory. Returns the tables and their numbers of entries.
fn replay_log(path: &Path, plan: &rollback::Plan, carry_out: bool) -> Result<Vec<(String, u64)>> {
    let replay_from = Some((plan.target, plan.slots));
    let exclusive = carry_out;
    let spec =
        OpenSpec { read_only: !carry_out, exclusive, replay_to_damage: true, replay_from, ..OpenSpec::default() };
    let txn = ReadPool::new(open(path, &spec)?).begin()?;
    let tables = txn.table_records()?;
    Ok(tables.into_iter().map(|(name, record)| (name, record.root.entries)).collect())
}

/// Opens a file that this process has open once more, as another process would.
#[cfg(feature = "testing")]
pub(crate) fn open_as_another_process(path: &Path, spec: &OpenSpec) -> Result<Arc<Env>> {
    let file = file::open(path, !spec.read_only).map_err(|e| open_error(path, e))?;
    let id = file_id(path, &file)?;
    open_file(path, file, id, spec)
}

/// Opens a file: joins the processes that have it open, or is the first.
fn open_file(path: &Path, file: File, id: FileId, spec: &OpenSpec) -> Result<Arc<Env>> {
    check_file_system(path, &file, spec)?;
    let fault_guard = spec.fault_guard.unwrap_or(true);
    // A recovery goes back to an older state, so no other process may have a newer one.
    let exclusive = spec.exclusive || spec.recover;
    let wanted = Wanted { read_only: spec.read_only, exclusive, plain: false, fault_guard };
    let Entry { lock, joined, gate } = enter(path, id, wanted)?;
    match joined {
        Some(live) => join(path, file, spec, (lock, live, gate)),
        None => open_first(path, file, (spec, wanted), (lock, gate)),
    }
}

/// Refuses to create a file that would be refused afterwards. Then nothing is left.
fn check_directory(target: &Path, spec: &OpenSpec) -> Result<()> {
    match file::open_directory_of(target) {
        Ok(directory) => check_file_system(target, &directory, spec),
        // Creating the file says more.
        Err(_) => Ok(()),
    }
}

/// Refuses to write to a file on a network file system, unless the options say that it is wanted.
/// `file` is the file, or the directory of a new one.
fn check_file_system(path: &Path, file: &File, spec: &OpenSpec) -> Result<()> {
    let Some(name) = file_calls::network_file_system(file).filter(|_| !spec.network && !spec.read_only) else {
        return Ok(());
    };
    let what = "which does not keep mappings and locks of several machines coherent";
    let remedy =
        "move it to a local disk, open it read-only, or use Options::network_file_system if only one machine uses it";
    Err(Error::usage(format!("{}: the file is on a network file system ({name}), {what}; {remedy}", path.display())))
}

fn map_options(meta: &MetaPage, spec: &OpenSpec, used_bytes: Option<u64>) -> MapOptions {
    MapOptions {
        page_size: meta.page_size as usize,
        window_bytes: spec.window_bytes,
        fault_guard: spec.fault_guard.unwrap_or(true),
        used_bytes,
    }
}

/// Joins the processes that have a file open. The file is neither flushed, compared nor cut.
fn join(path: &Path, file: File, spec: &OpenSpec, (lock, live, gate): (FileLock, Live, Gate)) -> Result<Arc<Env>> {
    // Only what is the same in all meta pages of the file counts.
    let (meta, _) = newest_meta(path, &file)?;
    let options = map_options(&meta, spec, None);
    let mapped = Mapping::of_shared_file(file, !spec.read_only, options, live.length(), true);
    let mapping = mapped.map_err(|e| Error::io("mapping the file", path, e))?;
    mapping.set_read_ahead(spec.read_ahead.unwrap_or_default());
    let (read_only, opened) = (spec.read_only, spec.clone());
    let parts = EnvParts { path: path.to_path_buf(), meta, live, read_only, opened, lock: Some(lock) };
    enter_joined(Env::new(parts, mapping), gate)
}

/// Leaves the gate with an environment that has joined others, and sees whether it can be used.
fn enter_joined(env: Env, gate: Gate) -> Result<Arc<Env>> {
    let env = Arc::new(env);
    env.joined_marks.note(&env.live);
    drop(gate);
    env.check_poison()?;
    env.claim_reader_slots()?;
    env.check_whole(&env.live.published())?;
    Ok(env)
}

/// Adds to a `Truncated` error which older state is whole, if one is. The caller does not hold the
/// lock on the registry, because this reads every page in use: other databases can be opened and
/// closed meanwhile.
fn say_what_is_whole(e: Error, id: FileId) -> Error {
    let Error::Truncated { path, needed, found, whole: None } = e else { return e };
    // Without the lock another process has the file open and changes it, and only that process
    // knows which state is whole.
    let whole = enter_plainly(&path, id, true).ok().and_then(|lock| rollback::whole_of(&path, lock.file(), found));
    Error::Truncated { path, needed, found, whole }
}

/// The error of a failed open. It says so if the path is not a regular file (a directory, a
/// socket).
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
