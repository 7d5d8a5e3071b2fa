//! Write transactions: one at a time, aborted on drop, committed by checkpoint.
//!
//! Floor: txn. A write transaction changes copies of pages on the writable mapping, and a commit
//! makes them the next state: seal the trees of changed tables, put their records into the catalog,
//! save the free space, seal, store the latest state, let the next writer go, and harden. An abort
//! forgets the claimed pages and everything known of the free space.
//!
//! Invariants:
//!   WRITE-1  nothing that a committed state reaches changes (rule R1): only pages of this
//!            transaction are claimed.
//!   WRITE-2  a transaction in which a tree operation failed half-way cannot be committed.
//!   WRITE-3  the latest state is stored only when every page of it is sealed (R2, R12).
//!
//! Failure: errors of the operation; after one that may have left a tree half-changed, every call
//! answers so.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::catalog::{self, Asked, TableRecord};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{TreeId, MAX_U48};
use crate::limits;
use crate::page::meta::TreeRoot;
use crate::page::overflow;
use crate::pager::write::free_space::LiveStates;
use crate::pager::write::txn_pages::{TxnPages, WRITING};
use crate::pager::PageRead;
use crate::sys::folios::Dirtied;
use crate::tree::{self, AppendHint, PutHint};
use crate::txn::env::{Env, Writer};
use crate::txn::read::snapshot;
use crate::txn::state::State;
use crate::txn::write::table_set::TableSet;

/// A write transaction. There is one at a time; readers go on undisturbed and see nothing of it
/// before
/// [`commit`](WriteTxn::commit). Dropping it aborts. `Send`: it may move to another thread.
pub struct WriteTxn {
    pub(crate) env: Arc<Env>,
    /// The window that was current at the beginning.
    window_id: u64,
    /// `None` only while the transaction ends.
    pub(crate) writer: Option<Box<Writer>>,
    pub(crate) latest: State,
    pub(crate) live: LiveStates,
    catalog: TreeRoot,
    next_tree: TreeId,
    pub(crate) tables: TableSet,
    /// The catalog was changed directly, by a drop or a rename.
    catalog_changed: bool,
    pub(crate) broken: Option<String>,
    folios: FolioWatch,
}

/// Whether an error of writing may be one of the disk. It was none if the kernel refused the call,
/// or the process may not make the file so long: nothing was written then.
fn may_have_lost(source: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, PermissionDenied, Unsupported};
    !matches!(source.kind(), FileTooLarge | PermissionDenied | Unsupported)
}

/// When the page cache is looked at next, to see whether it makes stores dirty more than they
/// should.
#[derive(Debug)]
struct FolioWatch {
    since: Dirtied,
    /// Looked at when the transaction has so many pages.
    next_pages: u64,
}

impl FolioWatch {
    /// Looks soon, then seldom.
    const FIRST_PAGES: u64 = 2;
    const FACTOR: u64 = 8;

    fn begin() -> FolioWatch {
        FolioWatch { since: Dirtied::until_now(), next_pages: FolioWatch::FIRST_PAGES }
    }
}

impl WriteTxn {
    /// Begins on the latest state; the caller holds the writer lock, which this releases if it
    /// fails.
    pub(crate) fn begin(env: Arc<Env>) -> Result<WriteTxn> {
        match WriteTxn::try_begin(&env) {
            Ok((writer, latest, live)) => Ok(WriteTxn {
                window_id: env.mapping.window_id(),
                env,
                writer: Some(writer),
                catalog: latest.catalog,
                next_tree: latest.next_tree,
                latest,
                live,
                tables: TableSet::default(),
                catalog_changed: false,
                broken: None,
                folios: FolioWatch::begin(),
            }),
            Err(e) => {
                env.writer_lock.release();
                Err(e.with_path(env.path()))
            }
        }
    }

    fn try_begin(env: &Arc<Env>) -> Result<(Box<Writer>, State, LiveStates)> {
        env.check_process()?;
        env.check_poison()?;
        let latest = env.live.latest();
        if latest.txn.0 >= MAX_U48 {
            // No program has made so many commits, and pages could not carry the next number.
            let what = "the transaction number is the largest there can be; compact to a new file, which begins again"
                .to_string();
            return Err(Error::Corrupt { path: None, page: None, table: None, what });
        }
        env.make_writer()?;
        let live = env.live_states();
        let mut writer =
            env.take_writer().ok_or_else(|| Error::usage("the database was opened read-only; open it for writing"))?;
        if writer.based_on != latest.txn {
            writer.forget();
            writer.based_on = latest.txn;
        }
        writer.pages.begin(latest.txn.next(), latest.page_count);
        let begun = writer.cache.begin(&mut writer.pages, &latest, &live);
        let begun = writer.pages.check_fault(begun);
        if let Err(e) = begun {
            writer.forget();
            env.return_writer(writer);
            return Err(e);
        }
        Ok((writer, latest, live))
    }

    /// Makes everything that this transaction changed durable and visible, or nothing of it.
    ///
    /// Returns when it survives a power loss. Transactions that commit at the same time share their
    /// flushes.
    ///
    /// # Errors
    /// `DiskFull`, or `Io` of growing the file: the transaction is aborted and the database goes
    /// on. `Fault` when the file was cut or could not be read or stored to: nothing was committed,
    /// and the database has to be opened again. `Poisoned` (also when the file is cut in the last
    /// moment), or `Io` of a flush, of whatever cause: whether this transaction survives is not
    /// known until the database is opened again, and no later one will be acknowledged before.
    pub fn commit(mut self) -> Result<()> {
        self.usable()?;
        let env = Arc::clone(&self.env);
        let made = self.make_state();
        // A store that the system could not serve is lost, though everything looks well.
        let made = self.pages().check_fault(made).map_err(|e| e.with_path(env.path()))?;
        let Some(state) = made else { return Ok(()) };
        self.finish(Some(state));
        env.make_durable(state.txn)
    }

    /// Ends the transaction without a trace. Dropping it does the same.
    pub fn abort(self) {}

    /// The number that this transaction's state will have.
    pub fn txn_id(&self) -> u64 {
        self.latest.txn.next().0
    }

    /// Seals everything and gives the next state; `None` if nothing was changed.
    fn make_state(&mut self) -> Result<Option<State>> {
        if !self.catalog_changed && self.tables.iter().all(|table| !table.changed) {
            return Ok(None);
        }
        self.env.check_poison()?;
        self.env.prefault_meta_pages()?;
        self.end_filling()?;
        self.save_tables()?;
        let writer = writer_of(&mut self.writer);
        tree::seal(&mut writer.pages, &mut self.catalog)?;
        let (free_space, free_list) = writer.cache.save(&mut writer.pages, &self.latest, &self.live)?;
        self.watch_folios()?;
        let writer = writer_of(&mut self.writer);
        let txn = self.latest.txn.next();
        Ok(Some(State {
            txn,
            page_count: writer.pages.page_count(),
            catalog: self.catalog,
            free_space,
            free_list,
            next_tree: self.next_tree,
            log: self.latest.log,
            floor: txn,
        }))
    }

    fn save_tables(&mut self) -> Result<()> {
        // Records of new tables that come in order leave full pages.
        let mut hint = PutHint::default();
        for at in 0..self.tables.len() {
            if !self.tables[at].changed {
                continue;
            }
            self.ensure(0)?;
            let table = &mut self.tables[at];
            let writer = writer_of(&mut self.writer);
            tree::seal(&mut writer.pages, &mut table.record.root).map_err(|e| e.with_table(table.name()))?;
            let record = table.record.encode();
            tree::put(&mut writer.pages, &mut self.catalog, table.name().as_bytes(), &record, &mut hint, None)?;
        }
        Ok(())
    }

    /// Ends the transaction: with a new latest state, or as if it had not been. The next writer may
    /// go.
    fn finish(&mut self, state: Option<State>) {
        let Some(mut writer) = self.writer.take() else { return };
        if self.env.is_inherited() {
            // A child frees nothing, and waits for no lock that a thread of its parent may hold
            // (P22).
            std::mem::forget(writer);
            return;
        }
        writer.pages.end();
        let window_id = self.env.mapping.window_id();
        if window_id != self.window_id || self.env.readers.may_keep_old_views() {
            self.env.readers.drop_old_views(window_id);
        }
        match state {
            Some(state) => {
                self.env.live.store_latest(&state);
                writer.based_on = state.txn;
            }
            None => writer.forget(),
        }
        self.env.return_writer(writer);
        self.env.writer_lock.release();
    }

    pub(crate) fn usable(&self) -> Result<()> {
        // What a child stored to would be pages of its parent (P22).
        self.env.check_process()?;
        match &self.broken {
            None => Ok(()),
            Some(cause) => Err(Error::usage(format!(
                "the transaction cannot go on after an earlier error ({cause}); abort it and begin another"
            ))),
        }
    }

    /// Remembers that a tree may be half-changed, unless the error says that nothing was done.
    #[inline]
    pub(crate) fn note<T>(&mut self, at: Option<usize>, result: Result<T>) -> Result<T> {
        match result {
            Ok(done) if self.pages().all_served() => Ok(done),
            other => self.note_error(at, other),
        }
    }

    #[cold]
    #[inline(never)]
    fn note_error<T>(&mut self, at: Option<usize>, result: Result<T>) -> Result<T> {
        self.pages().check_fault(result).map_err(|e| {
            let e = e.with_path(self.env.path());
            let e = match at.and_then(|at| self.tables.get(at)) {
                Some(table) => e.with_table(table.name()),
                None => e,
            };
            if matches!(&e, Error::Io { op, source, .. } if *op == WRITING && may_have_lost(source)) {
                // It may have been told for the only time (R9).
                self.env.set_poison(&e);
            }
            if !matches!(e.kind(), ErrorKind::Usage | ErrorKind::TooLarge) {
                self.broken.get_or_insert_with(|| e.to_string());
            }
            e
        })
    }

    /// Sees that free pages are at hand for one operation that stores `value_bytes`.
    #[inline]
    pub(crate) fn ensure(&mut self, value_bytes: usize) -> Result<()> {
        if self.pages().owned_count() >= self.folios.next_pages {
            self.watch_folios()?;
        }
        let writer = writer_of(&mut self.writer);
        let page_size = writer.pages.page_size();
        let extent = match value_bytes > limits::max_inline_value_bytes(page_size) {
            true => overflow::overflow_pages(page_size, value_bytes as u64),
            false => 1,
        };
        writer.cache.ensure(&mut writer.pages, &self.latest, &self.live, extent)
    }

    /// What was appended lies in its place from now on, and pages that come are prepared for
    /// stores.
    #[inline]
    pub(crate) fn end_filling(&mut self) -> Result<()> {
        let ended = writer_of(&mut self.writer).pages.end_filling();
        self.note(None, ended)
    }

    /// Drops the page cache if another program has filled it with large folios: from then on a
    /// store dirties its own page alone. What was dirtied by then is flushed, or it would stay.
    #[cold]
    fn watch_folios(&mut self) -> Result<()> {
        let pages = self.pages();
        let count = pages.owned_count();
        let suspicious = self.folios.since.is_suspicious_for(count * pages.page_size() as u64);
        if suspicious && pages.are_in_large_folios() {
            self.env.flush_and_drop_cache()?;
        }
        self.folios = FolioWatch { since: Dirtied::until_now(), next_pages: count.max(1) * FolioWatch::FACTOR };
        Ok(())
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    pub(crate) fn pages(&self) -> &TxnPages {
        match &self.writer {
            Some(writer) => &writer.pages,
            None => unreachable!("a transaction that has ended is not reachable by its user"),
        }
    }

    /// Opens a table by name, if `asked` fits the codecs that it has; makes it with those if there
    /// is none.
    pub(crate) fn open_table(&mut self, name: &str, asked: Asked<'_>) -> Result<usize> {
        self.usable()?;
        if let Some(at) = self.tables.find(name) {
            self.tables[at].record.check_codecs(name, asked)?;
            return Ok(at);
        }
        let found = self.find_record(name)?;
        let changed = found.is_none();
        let record = match found {
            Some(record) => {
                record.check_codecs(name, asked)?;
                record
            }
            None => self.new_record(asked.codecs_of_new())?,
        };
        Ok(self.tables.add(name, record, changed))
    }

    /// The record of a table as this transaction sees it.
    pub(crate) fn record_of(&mut self, name: &str) -> Result<Option<TableRecord>> {
        self.usable()?;
        match self.tables.find(name) {
            Some(at) => Ok(Some(self.tables[at].record.clone())),
            None => self.find_record(name),
        }
    }

    fn find_record(&mut self, name: &str) -> Result<Option<TableRecord>> {
        catalog::check_name(name)?;
        let found = tree::get(self.pages(), &self.catalog, name.as_bytes())
            .and_then(|bytes| bytes.map(TableRecord::decode).transpose());
        let record = self.note(None, found)?;
        if let Some(record) = &record {
            record.known_flags(name)?;
        }
        Ok(record)
    }

    fn new_record(&mut self, (key_codec, value_codec): (&str, &str)) -> Result<TableRecord> {
        let record = TableRecord {
            flags: 0,
            root: TreeRoot::empty(self.next_tree),
            key_codec: key_codec.to_string(),
            value_codec: value_codec.to_string(),
        };
        let (names, size) = (key_codec.len() + value_codec.len(), record.encode().len());
        let limit = limits::max_inline_value_bytes(self.env.page_size) - (size - names);
        if names > limit {
            return Err(Error::usage(format!(
                "the names of a table's codecs have {names} bytes together, and the limit is {limit}; give shorter ones"
            )));
        }
        let next = self.next_tree.0.checked_add(1).ok_or_else(|| {
            Error::usage("2^32 tables were made in this file, which is the limit; compact it to a new file")
        })?;
        self.next_tree = TreeId(next);
        Ok(record)
    }

    pub(crate) fn root(&self, at: usize) -> &TreeRoot {
        &self.tables[at].record.root
    }

    pub(crate) fn table_name(&self, at: usize) -> &str {
        self.tables[at].name()
    }

    /// Stores an entry; whether there was one, whose value goes to `old`.
    pub(crate) fn put(&mut self, at: usize, key: &[u8], value: &[u8], old: Option<&mut Vec<u8>>) -> Result<bool> {
        self.usable()?;
        let ensured = self.ensure(value.len());
        self.note(None, ensured)?;
        self.end_filling()?;
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = tree::put(pages, &mut table.record.root, key, value, &mut table.put_hint, old);
        table.append_hint = AppendHint::default();
        table.changed |= !is_refusal(&done);
        self.note(Some(at), done)
    }

    /// Removes an entry; whether there was one, whose value goes to `old`.
    pub(crate) fn delete(&mut self, at: usize, key: &[u8], old: Option<&mut Vec<u8>>) -> Result<bool> {
        self.usable()?;
        let ensured = self.ensure(0);
        self.note(None, ensured)?;
        self.end_filling()?;
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = tree::delete(pages, &mut table.record.root, key, old);
        if !matches!(done, Ok(false)) {
            table.note_change();
        }
        self.note(Some(at), done)
    }

    /// Stores an entry whose key is greater than every other of the table.
    pub(crate) fn append(&mut self, at: usize, key: &[u8], value: &[u8]) -> Result<()> {
        self.usable()?;
        let ensured = self.ensure(value.len());
        self.note(None, ensured)?;
        let table = &mut self.tables[at];
        let pages = &mut writer_of(&mut self.writer).pages;
        let done = tree::append(pages, &mut table.record.root, key, value, &mut table.append_hint);
        table.put_hint = PutHint::default();
        table.changed |= !is_refusal(&done);
        self.note(Some(at), done)
    }

    /// Names and records of all tables as this transaction sees them.
    pub(crate) fn table_records(&mut self) -> Result<Vec<(String, TableRecord)>> {
        self.usable()?;
        let listed = snapshot::table_records(self.pages(), &self.catalog);
        let mut tables: BTreeMap<String, TableRecord> = self.note(None, listed)?.into_iter().collect();
        tables.extend(self.tables.iter().map(|open| (open.name().to_string(), open.record.clone())));
        Ok(tables.into_iter().collect())
    }

    /// Removes a table with all its entries. Whether there was one.
    ///
    /// # Errors
    /// `Corrupt`, `DiskFull` or `Io`; the transaction then has to be aborted.
    pub fn drop_table(&mut self, name: &str) -> Result<bool> {
        self.usable()?;
        let Some(mut root) = self.detach(name)? else { return Ok(false) };
        let pages = &mut writer_of(&mut self.writer).pages;
        let dropped = tree::drop_tree(pages, &mut root);
        self.note(None, dropped)?;
        self.catalog_changed = true;
        Ok(true)
    }

    /// Gives a table another name.
    ///
    /// # Errors
    /// `Usage` if there is no such table, or the new name is taken.
    pub fn rename_table(&mut self, from: &str, to: &str) -> Result<()> {
        self.usable()?;
        catalog::check_name(to)?;
        let taken = self.tables.find(to).is_some() || self.find_record(to)?.is_some();
        if taken && from != to {
            return Err(Error::usage(format!("there is already a table '{to}'; drop it or choose another name")));
        }
        let open = self.tables.find(from).is_some();
        if !open && self.find_record(from)?.is_none() {
            return Err(Error::usage(format!("there is no table '{from}'")));
        }
        if from == to {
            return Ok(());
        }
        let at = self.open_table(from, Asked::Bytes)?;
        self.remove_from_catalog(from)?;
        self.tables.rename(at, to);
        self.tables[at].changed = true;
        Ok(())
    }

    /// Takes a table out of the catalog and out of the open ones; its root if there was such a
    /// table.
    fn detach(&mut self, name: &str) -> Result<Option<TreeRoot>> {
        let found = self.find_record(name)?;
        let open = self.tables.find(name);
        if found.is_some() {
            self.remove_from_catalog(name)?;
        }
        let root = match open {
            Some(at) => Some(self.tables.remove(at).record.root),
            None => found.map(|record| record.root),
        };
        Ok(root)
    }

    fn remove_from_catalog(&mut self, name: &str) -> Result<()> {
        let ensured = self.ensure(0);
        self.note(None, ensured)?;
        let pages = &mut writer_of(&mut self.writer).pages;
        let deleted = tree::delete(pages, &mut self.catalog, name.as_bytes(), None);
        self.catalog_changed |= self.note(None, deleted)?;
        Ok(())
    }
}

impl fmt::Debug for WriteTxn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("WriteTxn");
        shown.field("path", &self.env.path).field("based_on", &self.latest.txn.0);
        shown.field("open_tables", &self.tables.len()).field("failed", &self.broken).finish()
    }
}

impl Drop for WriteTxn {
    fn drop(&mut self) {
        self.finish(None);
    }
}

/// The writer of a running transaction. A free function, so that other fields stay borrowable.
#[inline]
pub(crate) fn writer_of(writer: &mut Option<Box<Writer>>) -> &mut Writer {
    match writer {
        Some(writer) => writer,
        None => unreachable!("a transaction that has ended is not reachable by its user"),
    }
}

/// Whether an operation was refused before it changed anything.
fn is_refusal<T>(result: &Result<T>) -> bool {
    matches!(result, Err(e) if matches!(e.kind(), ErrorKind::Usage | ErrorKind::TooLarge))
}
