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
//! mod               the registry of open files; `open`, `open_file`, `find_state`
//! create            makes new databases, in files and in memory
//! newest_meta       reads both meta pages and chooses the newest valid one
//! cache_validation  checks that the page cache shows what the disk has
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
mod newest_meta;
pub(crate) mod rollback;
pub(crate) mod survey;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::hooks::FlushKind;
use crate::limits;
use crate::mapping::file;
use crate::mapping::{MapOptions, Mapping, ReadAhead};
use crate::page::meta::{MetaPage, Slot};
use crate::sys::fork::PerProcess;
use crate::txn::env::{Env, EnvParts};
use crate::txn::live::Live;
use crate::txn::log::replay;
use crate::txn::log::scan::Scan;
use crate::txn::processes::descriptor::Gate;
use crate::txn::processes::lock_file;
use crate::txn::processes::presence::{enter, file_id, name_holders, Entry, FileId, FileLock, Wanted};
use crate::txn::read::snapshot::ReadPool;
use crate::txn::state::State;
pub(crate) use create::in_memory;
use create::{create, initialise, is_blank, target_of_link};
pub(crate) use newest_meta::readable_version;
use newest_meta::{metas, newest_meta};
use survey::Candidate;

/// How to open a database: the values of [`Options`](crate::Options).
#[derive(Clone, Debug)]
pub(crate) struct OpenSpec {
    /// Page size of a new database, in bytes.
    pub(crate) page_size: usize,
    pub(crate) read_only: bool,
    /// Have the file alone.
    pub(crate) exclusive: bool,
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
}

impl Default for OpenSpec {
    fn default() -> OpenSpec {
        OpenSpec {
            page_size: limits::PAGE_SIZE_DEFAULT,
            read_only: false,
            exclusive: false,
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
        }
    }
}

/// Default of [`OpenSpec::sync_interval`].
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A database of this process: its file, and whether it is open read-only. Both may be open, as two
/// members.
type Key = (FileId, bool);

/// What the registry has of a database.
enum Registered {
    /// A thread is opening it.
    Opening,
    /// It is open, or its last handle is being dropped.
    Open(Weak<Env>),
}

/// Databases that are open in this process. A child after `fork` gets an empty registry, so that it
/// opens again what its parent has open.
static REGISTRY: PerProcess<Mutex<HashMap<Key, Registered>>> = PerProcess::new();

fn registry() -> MutexGuard<'static, HashMap<Key, Registered>> {
    REGISTRY.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileLock {
    /// Releases the lock, then removes the environment from the registry (OPEN-3).
    pub(crate) fn release(self, read_only: bool) {
        let mut registry = registry();
        let id = self.id();
        drop(self);
        registry.remove(&(id, read_only));
    }
}

/// A thread opens a database. Dropping this tells other threads that it is not open.
struct OpeningMark(Key);

impl Drop for OpeningMark {
    fn drop(&mut self) {
        let mut registry = registry();
        if matches!(registry.get(&self.0), Some(Registered::Opening)) {
            registry.remove(&self.0);
        }
    }
}

/// What a thread that wants to open a database finds in the registry.
enum Found {
    Open(Arc<Env>),
    /// Another thread opens or closes it.
    Changing,
    /// The thread may open it.
    Free(OpeningMark),
}

fn look_up(id: FileId, read_only: bool) -> Found {
    let mut registry = registry();
    // A read-only handle shares a database that is open for writing.
    let keys = if read_only { vec![(id, false), (id, true)] } else { vec![(id, false)] };
    for key in keys {
        match registry.get(&key) {
            None => {}
            Some(Registered::Opening) => return Found::Changing,
            Some(Registered::Open(env)) => return env.upgrade().map_or(Found::Changing, Found::Open),
        }
    }
    if let Some(Registered::Open(reading)) = registry.get(&(id, true)).filter(|_| !read_only) {
        match reading.upgrade() {
            // A plain reader has no live records that a writer could join.
            Some(env) if !env.is_member() => return Found::Open(env),
            Some(_) => {}
            None => return Found::Changing,
        }
    }
    registry.insert((id, read_only), Registered::Opening);
    Found::Free(OpeningMark((id, read_only)))
}

/// Opens the database at a path, or creates it.
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
        match look_up(id, spec.read_only) {
            Found::Open(env) => return share(env, spec),
            // Not `sleep`, which panics if a sandbox refuses its system call.
            Found::Changing => std::thread::park_timeout(Duration::from_millis(1)),
            Found::Free(mark) => {
                let opened = open_file(path, file, id, spec);
                if let Ok((env, Ok(()))) = &opened {
                    registry().insert(mark.0, Registered::Open(Arc::downgrade(env)));
                }
                let opened = opened.and_then(|(env, replayed)| replayed.map(|()| env));
                drop(mark);
                return opened.map_err(|e| name_holders(say_what_is_whole(e, id), id));
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

/// Returns another handle to a database that this process has open.
fn share(env: Arc<Env>, spec: &OpenSpec) -> Result<Arc<Env>> {
    if spec.exclusive && env.is_member() {
        return Err(Error::Locked {
            path: env.path().to_path_buf(),
            by: "this process has it open and shares it; close that handle, or open it without `exclusive`".into(),
        });
    }
    if env.read_only && !spec.read_only {
        return Err(Error::Locked {
            path: env.path().to_path_buf(),
            by: "this process has it open read-only; close that handle, or open read-only here too".into(),
        });
    }
    if spec.recover {
        let what = "recovery works only on a closed database, and this process has it open";
        let remedy = "drop all its handles and transactions first, or open it without recovery";
        return Err(Error::usage(format!("{}: {what}; {remedy}", env.path().display())));
    }
    agree(&env, "fault_guard", spec.fault_guard, env.opened.fault_guard.unwrap_or(true))?;
    agree(&env, "read_ahead", spec.read_ahead, env.opened.read_ahead.unwrap_or_default())?;
    env.check_poison()?;
    Ok(env)
}

/// Refuses an option whose value differs from the one that the database is open with.
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

/// Comes in without a lock file, alone or beside plain readers.
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

/// Opens a file: joins the processes that have it open, or is the first. Returns the environment,
/// which must not be used if its replay failed.
fn open_file(path: &Path, file: File, id: FileId, spec: &OpenSpec) -> Result<(Arc<Env>, Result<()>)> {
    let fault_guard = spec.fault_guard.unwrap_or(true);
    // A recovery goes back to an older state, so no other process may have a newer one.
    let exclusive = spec.exclusive || spec.recover;
    let wanted = Wanted { read_only: spec.read_only, exclusive, plain: false, fault_guard };
    let Entry { lock, joined, gate } = enter(path, id, wanted)?;
    match joined {
        Some(live) => join(path, file, spec, (lock, live, gate)).map(|env| (env, Ok(()))),
        None => open_first(path, file, (spec, wanted), (lock, gate)),
    }
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
    let env = Arc::new(Env::new(parts, mapping));
    env.joined_marks.note(&env.live);
    drop(gate);
    env.check_poison()?;
    env.check_whole(&env.live.published())?;
    Ok(env)
}

/// Opens a file that no member has open, and replays its log.
fn open_first(
    path: &Path,
    file: File,
    (spec, wanted): (&OpenSpec, Wanted),
    (mut lock, gate): (FileLock, Gate),
) -> Result<(Arc<Env>, Result<()>)> {
    let id = lock.id();
    initialise_blank(path, &file, spec)?;
    let may_be_clean = !spec.recover && (!spec.read_only || lock.may_share());
    let found = find_state(path, &file, (id, may_be_clean), spec)?;
    let NewestState { meta, slot, closed_cleanly, cache_dropped, rewrites_slot } = found;
    if spec.read_only && !closed_cleanly {
        // Only a process that may write to the file could make it one that others can join.
        lock.read_plainly(path)?;
    }
    let page_size = u64::from(meta.page_size);
    let len = file::length(&file).map_err(|e| Error::io("reading the length", path, e))?;
    let needed = meta.page_count.saturating_mul(page_size);
    if needed > len {
        return Err(Error::Truncated { path: path.to_path_buf(), needed, found: len, whole: None });
    }
    let log = find_log(path, &file, &meta, spec)?;
    // A replay may use the space after the state, whose blocks are reserved already.
    let options = map_options(&meta, spec, (spec.read_only || log.is_none()).then_some(needed));
    let replays = log.as_ref().is_some_and(|log| !log.records.is_empty());
    let parts = |lock, live: Live| EnvParts {
        path: path.to_path_buf(),
        meta,
        live: live.begin(State::from_meta(&meta), slot),
        read_only: spec.read_only,
        opened: spec.clone(),
        lock,
    };
    let memory = match &log {
        Some(log) if !spec.read_only => replay::in_memory(&file, (parts(None, Live::private()), slot), options, log)?,
        _ => None,
    };
    let records = lock.share(path, wanted)?;
    let mapped = match (&records, spec.read_only && replays) {
        (_, true) => Mapping::over_file(file, needed, options),
        (Some(live), _) => Mapping::of_shared_file(file, !spec.read_only, options, live.length(), false),
        (None, _) => Mapping::of_file(file, !spec.read_only, options),
    };
    let mapping = mapped.map_err(|e| Error::io("mapping the file", path, e))?;
    mapping.set_read_ahead(spec.read_ahead.unwrap_or_default());
    if !spec.read_only && !closed_cleanly {
        prepare_unclean(path, &mapping, needed, log.is_none() && len > needed)?;
    }
    let live = records.unwrap_or_else(Live::private);
    let env = Arc::new(Env::new(parts(Some(lock), live), mapping));
    let replayed = match log.filter(|_| !spec.read_only || replays) {
        Some(log) => replay::replay(&env, (&meta, slot), &log, memory),
        None => Ok(()),
    };
    let replayed = match rewrites_slot && !spec.read_only {
        true => replayed.and_then(|()| replay::write_other_slot(&env)),
        false => replayed,
    };
    if let (Ok(()), true, false, Some(lock)) = (&replayed, cache_dropped, spec.read_only, &env.lock) {
        // Only now is the state durable that was read after the cache was dropped (P20).
        cache_validation::forget_failed_flush(lock.file(), id);
    }
    if replayed.is_ok() && env.is_member() {
        lock_file::begin_session(&env.live).map_err(|e| Error::io("reading random numbers", path, e))?;
    }
    drop(gate);
    Ok((env, replayed))
}

/// Prepares a file for writing that was not closed cleanly.
///
/// A killed process may have left its newest meta page only in the page cache. It is flushed before
/// readers see its state or a commit builds on it (R7, R10); otherwise a power loss could bring
/// back the older state after its pages were reused.
fn prepare_unclean(path: &Path, mapping: &Mapping, needed: u64, cuts: bool) -> Result<()> {
    mapping.flush(FlushKind::Tree, 0, needed).map_err(|e| Error::io("flushing the file", path, e))?;
    if cuts {
        // Cut only after the flush: the meta page found, which may need less than the older one, is
        // durable now.
        mapping.shrink(needed).map_err(|e| Error::io("cutting off unused space", path, e))?;
    }
    mapping.ready_to_write().map_err(|e| Error::io("mapping the file for writing", path, e))
}

/// Makes an empty file a database, if the options say so.
fn initialise_blank(path: &Path, file: &File, spec: &OpenSpec) -> Result<()> {
    let len = file::length(file).map_err(|e| Error::io("reading the length", path, e))?;
    let may = spec.init_empty && !spec.read_only;
    match len {
        0 if may => initialise(path, file, spec),
        0 => Err(Error::EmptyFile { path: path.to_path_buf() }),
        // A power loss while an empty file was initialised can leave the new length without the
        // bytes.
        _ if may && len <= 2 * limits::PAGE_SIZE_MAX as u64 && is_blank(file, len) => initialise(path, file, spec),
        _ => Ok(()),
    }
}

/// Reads the commit log of a file that was not closed cleanly. `None` if it has no log.
fn find_log(path: &Path, file: &File, meta: &MetaPage, spec: &OpenSpec) -> Result<Option<Scan>> {
    let log = (meta.log.pages > 0).then(|| replay::read_log(file, meta));
    match log.as_ref().and_then(|log| log.damage.as_ref()).filter(|_| !spec.replay_to_damage) {
        Some(damage) => Err(replay::damage_error(path, damage)),
        None => Ok(log),
    }
}

/// The state that a file is opened with, and how far the file can be trusted.
struct NewestState {
    meta: MetaPage,
    slot: usize,
    /// The file was closed cleanly, so the work for a writer can wait until there is one.
    closed_cleanly: bool,
    /// The page cache was dropped, because it may have held bytes that the disk does not have.
    cache_dropped: bool,
    /// The slots contradict each other, and the replay writes only one of them.
    rewrites_slot: bool,
}

/// Finds the newest state of a file, or the one that recovery goes back to.
fn find_state(path: &Path, file: &File, (id, may_be_clean): (FileId, bool), spec: &OpenSpec) -> Result<NewestState> {
    let len = file::length(file).map_err(|e| Error::io("reading the length", path, e))?;
    if may_be_clean && !cache_validation::has_failed_flush(file, id) {
        // A file that is being written is longer than its newest state (MAP-5). So if the lengths
        // are equal, the file was closed cleanly, or opened and never written to.
        match newest_meta(path, file) {
            Ok((meta, slot)) if meta.log.pages == 0 && meta.page_count.saturating_mul(meta.page_size.into()) == len => {
                let cache_dropped = false;
                return Ok(NewestState { meta, slot, closed_cleanly: true, cache_dropped, rewrites_slot: false });
            }
            _ => {}
        }
    }
    let cache_dropped = cache_validation::validate(path, file, id, spec.read_only)?;
    let mut target =
        spec.replay_from.filter(|(_, slots)| survey::probe(file).slots == *slots).map(|(target, _)| target);
    let mut rewrites_slot = false;
    if spec.recover {
        metas(path, file)?;
        let plan = rollback::plan(path, file)?;
        rollback::carry_out(path, file, &plan)?;
        target = plan.replays().then_some(plan.target);
        rewrites_slot = plan.replays() && plan.contradiction.is_some();
    }
    let (meta, slot) = match target {
        Some(Candidate { meta, slot }) => (meta, slot),
        None => newest_meta(path, file)?,
    };
    Ok(NewestState { meta, slot, closed_cleanly: false, cache_dropped, rewrites_slot })
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
