//! Replay: applies the records of a log to the state of the newest meta page.
//!
//! Floor: txn. One transaction applies all records. It commits by checkpoint, with a number and an
//! epoch of its own, before anything is appended (R10). A crash during a replay leaves the meta
//! page and the log as they were, so the next opening replays again.
//!
//! ```text
//! opened for writing, up to 4 MiB:  in_memory applies, then write_out copies the new pages and
//!                                   commits them by Core::commit_by_checkpoint
//! more, or no room to grow:         apply_all in the file, then RunningTxn::commit_replayed
//! opened read-only:                 apply_all in memory after the file's pages, then
//!                                   RunningTxn::keep_state; the file is not changed
//! ```
//!
//! Failure: damage of the log or of a page is `Corrupt` and names the transactions that are
//! possibly lost. Otherwise the errors of a write transaction. No page that a meta page reaches was
//! changed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::catalog::{self, Asked, TableSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::PageId;
use crate::mapping::{file, MapOptions, Mapping};
use crate::page::meta::{LogDescriptor, MetaPage};
use crate::sys::direct_io::PastCache;
use crate::txn::env::{Env, EnvParts, Writer};
use crate::txn::log::operations::{Operation, Operations};
use crate::txn::log::scan::{scan, LogDamage, Scan};
use crate::txn::state::State;
use crate::txn::write::put_all::Collected;
use crate::txn::write::txn::RunningTxn;

/// Records of at most this many bytes are applied in memory first. Each operation may change a page
/// or two.
const IN_MEMORY_MAX_BYTES: u64 = 4 << 20;
/// Bytes and number of puts from which on they no longer wait.
const WAITING_MAX_BYTES: usize = 64 << 20;
const WAITING_MAX: usize = 1 << 20;
/// Bytes of replayed pages in each write to the file.
const COPY_BYTES: usize = 1 << 20;

/// Reads the log of a meta page from the disk, past the page cache where that is possible.
pub(crate) fn read_log(file: &File, meta: &MetaPage) -> Scan {
    let direct = PastCache::open(file);
    scan(meta, &|offset, into: &mut [u8]| match &direct {
        Some(direct) => direct.read_at(offset, into),
        None => file::read_at(file, into, offset),
    })
}

/// Returns the error of a damaged log.
pub(crate) fn damage_error(path: &Path, damage: &LogDamage) -> Error {
    let doubt = match damage.durable {
        Some(durable) if durable > damage.from => format!("transactions {} to {durable} are lost", damage.from),
        Some(_) => format!("transaction {} is lost", damage.from),
        None => format!("whether transaction {} and later ones were committed is not known", damage.from),
    };
    let what = format!(
        "{}; {doubt}; 'kvctl recover FILE' or Options::recover goes back to the state before, and 'kvctl salvage FILE \
         OUT' copies what can be read",
        damage.what
    );
    Error::Corrupt { path: Some(path.to_path_buf()), page: None, table: None, what }
}

/// Applies the records of a log and commits the resulting state; only publishes it if the
/// environment is read-only. The environment was just opened on the state of the meta page, and no
/// other thread has it yet. `memory` is the environment in which `in_memory` has applied the
/// records.
///
/// After an error the environment is poisoned: its latest state has the number of the newest record
/// but not the entries of that record, so nothing may be built on it.
pub(crate) fn replay(env: &Arc<Env>, meta: (&MetaPage, usize), log: &Scan, memory: Option<Arc<Env>>) -> Result<()> {
    let replayed = match memory {
        Some(memory) => match write_out(env, meta, log, &memory) {
            // The file cannot grow: apply the records in its free pages.
            Err(e) if may_not_grow(&e) => apply_all(env, meta, log),
            other => other,
        },
        None => apply_all(env, meta, log),
    };
    if let Err(e) = &replayed {
        env.abandon(e);
    }
    replayed
}

/// After a replay, commits its state once more: into the slot of the meta page that the replay
/// began with. That slot may hold a copy of another meta page.
pub(crate) fn write_other_slot(env: &Env) -> Result<()> {
    let latest = env.live.latest();
    env.writer_lock.acquire(None);
    let again = State { txn: latest.txn.next(), ..latest };
    let done = env.commit_by_checkpoint(&again, env.checkpoint_lock.lock());
    env.writer_lock.release();
    done
}

/// Whether an error says that the file cannot get longer.
pub(super) fn may_not_grow(e: &Error) -> bool {
    match e {
        Error::DiskFull { .. } => true,
        Error::Io { source, .. } => {
            matches!(source.kind(), io::ErrorKind::FileTooLarge | io::ErrorKind::OutOfMemory)
        }
        _ => false,
    }
}

/// Applies the records of a log in memory, in new pages after those of the file. So a file whose
/// log cannot be applied is refused unchanged.
///
/// Returns `None` if the records are too many or memory does not suffice. The caller then applies
/// them in the file.
pub(crate) fn in_memory(
    file: &File,
    (parts, slot): (EnvParts, usize),
    options: MapOptions,
    log: &Scan,
) -> Result<Option<Arc<Env>>> {
    if log.record_bytes() > IN_MEMORY_MAX_BYTES {
        return Ok(None);
    }
    match apply_in_memory(file, (parts, slot), options, log) {
        Ok(env) => Ok(Some(env)),
        Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::DiskFull) => Ok(None),
        Err(e) => Err(e),
    }
}

fn apply_in_memory(
    file: &File,
    (mut parts, slot): (EnvParts, usize),
    options: MapOptions,
    log: &Scan,
) -> Result<Arc<Env>> {
    let failed = |op, e| Error::io(op, &parts.path, e);
    let file = file.try_clone().map_err(|e| failed("opening the file again", e))?;
    let needed = parts.meta.page_count * u64::from(parts.meta.page_size);
    let mapping = Mapping::over_file(file, needed, options).map_err(|e| failed("mapping the file", e))?;
    (parts.read_only, parts.opened.read_only) = (true, true);
    let meta = parts.meta;
    let env = Arc::new(Env::new(parts, mapping));
    replay(&env, (&meta, slot), log, None)?;
    Ok(env)
}

/// Writes the pages that a replay in memory has made to the file, and commits their state by
/// checkpoint, with an epoch of its own.
fn write_out(env: &Arc<Env>, (meta, slot): (&MetaPage, usize), log: &Scan, memory: &Env) -> Result<()> {
    env.live.restart(&State::from_meta(meta), &before_replay(meta, log), slot);
    let mut state = memory.live.latest();
    env.writer_lock.acquire(None);
    let written = write_pages(env, meta, &state, memory);
    let done = written.and_then(|()| {
        env.begin_epoch(&mut state);
        env.commit_by_checkpoint(&state, env.checkpoint_lock.lock())
    });
    env.writer_lock.release();
    done
}

fn write_pages(env: &Env, meta: &MetaPage, state: &State, memory: &Env) -> Result<()> {
    env.make_writer()?;
    let Some(mut writer) = env.take_writer() else { return Ok(()) };
    writer.pages.begin(state.txn, meta.page_count);
    let written = copy_pages(env, &mut writer, state.page_count - meta.page_count, memory);
    writer.pages.end();
    writer.forget();
    env.return_writer(writer);
    written
}

/// Copies pages from memory to the end of the file, where they have the same numbers.
fn copy_pages(env: &Env, writer: &mut Writer, pages: u64, memory: &Env) -> Result<()> {
    let page_size = env.page_size as u64;
    let first = writer.pages.alloc_written_through_at_end(pages)?;
    let mut chunk = vec![0; COPY_BYTES];
    let (mut at, end) = (0, pages * page_size);
    while at < end {
        let bytes = &mut chunk[..COPY_BYTES.min((end - at) as usize)];
        let read = memory.mapping.read_at(first.0 * page_size + at, bytes);
        read.map_err(|e| Error::io("reading replayed pages", env.path(), e))?;
        writer.pages.write_through(first, at, bytes)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Returns the state that a replay begins with: that of the meta page, with the number of the
/// newest record.
fn before_replay(meta: &MetaPage, log: &Scan) -> State {
    let txn = log.newest(meta);
    let (start, chain) = log.records.last().map_or((meta.log.start, meta.log.chain), |last| (last.end, last.checksum));
    State { txn, last_immediate: txn, log: LogDescriptor { start, chain, ..meta.log }, ..State::from_meta(meta) }
}

fn apply_all(env: &Arc<Env>, (meta, slot): (&MetaPage, usize), log: &Scan) -> Result<()> {
    env.live.restart(&State::from_meta(meta), &before_replay(meta, log), slot);
    env.writer_lock.acquire(None);
    if env.read_only {
        env.make_replayer()?;
    }
    let mut replayed = RunningTxn::begin(Arc::clone(env))?;
    if env.read_only {
        replayed.use_new_pages();
    }
    let mut puts = WaitingPuts::default();
    for record in &log.records {
        replayed.apply_or_wait(log.body(record), &mut puts).map_err(|e| in_record(e, record.header.txn.0))?;
    }
    replayed.apply_waiting(&mut puts).map_err(|e| in_record(e, log.newest(meta).0))?;
    match env.read_only {
        true => replayed.keep_state().and_then(|()| env.drop_replayer()),
        false => replayed.commit_replayed(),
    }
}

/// Adds to an error the transaction up to which records were being applied.
fn in_record(e: Error, txn: u64) -> Error {
    match e {
        Error::Corrupt { path, page, table, what } => Error::Corrupt {
            path,
            page,
            table,
            what: format!("{what}, while the commit log was replayed up to transaction {txn}"),
        },
        other => other,
    }
}

/// Puts of one table that have not been applied yet. Sorting many puts by key halves the time that
/// they take.
#[derive(Default)]
struct WaitingPuts {
    /// Index of the table in the transaction.
    at: usize,
    puts: Collected,
}

impl WaitingPuts {
    fn are_many(&self) -> bool {
        self.puts.len_bytes() >= WAITING_MAX_BYTES || self.puts.count() >= WAITING_MAX
    }
}

impl RunningTxn {
    /// Applies the operations of a record.
    pub(crate) fn apply(&mut self, body: &[u8]) -> Result<()> {
        let mut waiting = WaitingPuts::default();
        self.apply_or_wait(body, &mut waiting)?;
        self.apply_waiting(&mut waiting)
    }

    /// Applies the operations of a record, after those that wait. Its last puts wait too.
    fn apply_or_wait(&mut self, body: &[u8], waiting: &mut WaitingPuts) -> Result<()> {
        let mut operations = Operations::new(body);
        let mut names: Vec<String> = Vec::new();
        while let Some(operation) = operations.next_operation() {
            if !matches!(operation, Operation::Put { .. } | Operation::Table { .. }) {
                self.apply_waiting(waiting)?;
            }
            match operation {
                Operation::Table { name, key_codec, value_codec, flags, key_order } => {
                    let codecs = Asked::Made(key_codec, value_codec);
                    self.open_recorded(name, TableSpec { codecs, flags, key_order, ..TableSpec::any() })?;
                    names.push(name.to_string());
                }
                Operation::Put { table, key, value } => {
                    let at = self.recorded_table(&names, table)?;
                    self.expect_multi(at, false)?;
                    if at != waiting.at || waiting.are_many() {
                        self.apply_waiting(waiting)?;
                    }
                    waiting.at = at;
                    waiting.puts.push(key, value);
                }
                Operation::Delete { table, key } => {
                    let at = self.recorded_table(&names, table)?;
                    match self.root(at).shape.is_multi() {
                        true => self.remove_values(at, key).map(drop)?,
                        false => self.delete(at, key, None).map(drop)?,
                    }
                }
                Operation::InsertValue { table, key, value } => {
                    let at = self.recorded_table(&names, table)?;
                    self.expect_multi(at, true)?;
                    self.insert_value(at, key, value)?;
                }
                Operation::RemoveValue { table, key, value } => {
                    let at = self.recorded_table(&names, table)?;
                    self.expect_multi(at, true)?;
                    self.remove_value(at, key, value)?;
                }
                Operation::Drop { name } => {
                    self.drop_table(name)?;
                }
                Operation::Rename { from, to } => {
                    self.rename_table(from, to)?;
                    names.iter_mut().filter(|name| *name == from).for_each(|name| *name = to.to_string());
                }
                Operation::Remove { table, low, high } => {
                    let at = self.recorded_table(&names, table)?;
                    self.remove_range(at, low, high)?;
                }
            }
        }
        match operations.is_done() {
            true => Ok(()),
            false => Err(Error::corrupt(PageId::NONE, "a record has an operation that this release does not know")),
        }
    }

    /// Refuses an operation of multimaps on a table that is none, and the other way round.
    fn expect_multi(&self, at: usize, is_multi: bool) -> Result<()> {
        match self.root(at).shape.is_multi() == is_multi {
            true => Ok(()),
            false => Err(Error::corrupt(PageId::NONE, "an operation does not fit the kind of its table")),
        }
    }

    fn apply_waiting(&mut self, waiting: &mut WaitingPuts) -> Result<()> {
        self.put_collected_entries(waiting.at, &mut waiting.puts).map(|_new| ())
    }

    fn open_recorded(&mut self, name: &str, made: TableSpec<'_>) -> Result<usize> {
        match self.record_of(name)? {
            Some(record) => {
                record.check_order(name)?;
                self.open_table(name, TableSpec::any())
            }
            None => {
                catalog::check_flags(name, made.flags)?;
                self.open_table(name, made)
            }
        }
    }

    fn recorded_table(&self, names: &[String], number: u64) -> Result<usize> {
        let name = usize::try_from(number).ok().and_then(|number| names.get(number));
        name.and_then(|name| self.tables.find(name))
            .ok_or_else(|| Error::corrupt(PageId::NONE, "an operation of a table that its record did not open"))
    }
}
