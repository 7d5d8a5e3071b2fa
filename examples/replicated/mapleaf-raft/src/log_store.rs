//! The log of one Raft group: openraft's `RaftLogStorage` on a [`LogFile`].
//!
//! The positions of the log (last entry, purged, vote, committed) are read when it is opened and
//! kept in memory. Entries are decoded out of the mapped file, without a copy of their bytes.
//!
//! Invariants, besides RAFT-1 to RAFT-6:
//!   RAFT-7  the entries are those after `purged` up to `last`, without a gap. An append that would
//!       leave one is refused.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex};

use mapleaf::ReadTxn;
use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{Entry, LogId, OptionalSend, StorageError, StorageIOError, Vote};
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::log_file::{entries_of, lock, Change, LogFile, FIELDS};
use crate::unflushed::{EntryBytes, Unflushed};
use crate::Config;

/// Bytes of entries that are sent to another node at once, at most; one entry may have more.
const SENT_BYTES: usize = 2 << 20;

type Stored<T> = std::result::Result<T, StorageError<u64>>;

/// The log of one Raft group.
///
/// It is openraft's log storage and log reader. [`LogFile::group`] opens one.
#[derive(Debug)]
pub struct LogStore<C: Config> {
    reader: LogReader<C>,
    /// Gives the group free for another store.
    _group: Arc<GroupGuard>,
}

/// Reads entries of a group; openraft gives one to each of its replication tasks.
#[derive(Debug)]
pub struct LogReader<C: Config> {
    file: LogFile,
    group: u64,
    log: Arc<Mutex<Log<C>>>,
}

#[derive(Debug)]
struct GroupGuard {
    file: LogFile,
    group: u64,
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        self.file.leave(self.group);
    }
}

/// The positions of a log, and its entries that are not durable yet.
#[derive(Debug)]
struct Log<C: Config> {
    purged: Option<LogId<u64>>,
    last: Option<LogId<u64>>,
    vote: Option<Vote<u64>>,
    committed: Option<LogId<u64>>,
    unflushed: Unflushed,
    types: std::marker::PhantomData<fn() -> C>,
}

impl<C: Config> Log<C> {
    fn read(file: &LogFile, group: u64) -> Result<Log<C>> {
        let txn = file.db().begin_read()?;
        let purged = read_field(&txn, group, "purged")?;
        let last = match txn.table(entries_of(group))?.last()? {
            Some((_, bytes)) => Some(id_of(bytes)?),
            None => purged,
        };
        let (vote, committed) = (read_field(&txn, group, "vote")?, read_field(&txn, group, "committed")?);
        Ok(Log { purged, last, vote, committed, unflushed: Unflushed::default(), types: std::marker::PhantomData })
    }

    /// The part of a range in which the log has entries.
    fn bounded(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let begin = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        begin.max(next_index(self.purged))..end.min(next_index(self.last))
    }

    /// Checks that entries follow the last one, and takes them in. Entries that were purged already
    /// are left out.
    fn take_in(&mut self, entries: &mut Vec<(u64, EntryBytes)>, last: LogId<u64>) -> Result<()> {
        let purged = next_index(self.purged);
        entries.retain(|(index, _)| *index >= purged);
        let Some((first, _)) = entries.first() else { return Ok(()) };
        let begin = self.last.map_or(*first, |id| id.index + 1);
        for (next, (index, _)) in (begin..).zip(entries.iter()) {
            if *index != next {
                return Err(Error::Refused(format!("entry {index} does not follow the log; the next one is {next}")));
            }
        }
        self.last = Some(last);
        self.unflushed.add(entries);
        Ok(())
    }
}

impl<C: Config> LogStore<C> {
    pub(crate) fn open(file: LogFile, group: u64) -> Result<LogStore<C>> {
        let log = Arc::new(Mutex::new(Log::read(&file, group)?));
        let guard = GroupGuard { file: file.clone(), group };
        Ok(LogStore { reader: LogReader { file, group, log }, _group: Arc::new(guard) })
    }

    /// Queues a change, and returns when it is durable.
    async fn change(&self, change: Change) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        let done = Box::new(move |written| drop(tell.send(written)));
        self.reader.file.queue(self.reader.group, change, done);
        told.await.unwrap_or_else(|_| Err(io::Error::other("the thread that writes the log has ended")))
    }

    /// Queues entries, and calls back when they are durable.
    fn append_entries(&self, entries: Vec<(u64, EntryBytes)>, callback: LogFlushed<C>) {
        let (log, kept) = (Arc::clone(&self.reader.log), entries.clone());
        let done = Box::new(move |written: std::result::Result<(), io::Error>| {
            if written.is_ok() {
                lock(&log).unflushed.written(&kept);
            }
            callback.log_io_completed(written);
        });
        self.reader.file.queue(self.reader.group, Change::Append(entries), done);
    }

    /// The last entry that was purged.
    pub(crate) fn purged(&self) -> Option<LogId<u64>> {
        lock(&self.reader.log).purged
    }

    /// The id of the entry at an index; `None` if there is none, as when it was purged.
    fn id_at(&self, index: u64) -> Result<Option<LogId<u64>>> {
        let entries = self.reader.read(index..=index, usize::MAX)?;
        Ok(entries.first().map(|entry| entry.log_id))
    }
}

impl<C: Config> Clone for LogReader<C> {
    fn clone(&self) -> Self {
        LogReader { file: self.file.clone(), group: self.group, log: Arc::clone(&self.log) }
    }
}

impl<C: Config> LogReader<C> {
    /// The entries in a range, of so many bytes at most, but at least one if there is one.
    fn read(&self, range: impl RangeBounds<u64>, limit: usize) -> Result<Vec<Entry<C>>> {
        // First the unflushed entries, then the file (RAFT-5).
        let (range, unflushed) = {
            let log = lock(&self.log);
            let range = log.bounded(&range);
            (range.clone(), log.unflushed.range(range))
        };
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut taken = Taken { entries: Vec::new(), bytes: 0, limit };
        let in_file = match unflushed.first() {
            Some((first, _)) => range.start..*first,
            None => range,
        };
        if !in_file.is_empty() {
            let txn = self.file.db().begin_read()?;
            for item in txn.table(entries_of(self.group))?.range(in_file)? {
                if !taken.take(item?.1)? {
                    return Ok(taken.entries);
                }
            }
        }
        for (_, bytes) in &unflushed {
            if !taken.take(bytes)? {
                break;
            }
        }
        Ok(taken.entries)
    }
}

/// Decoded entries, up to a limit of bytes.
struct Taken<C: Config> {
    entries: Vec<Entry<C>>,
    bytes: usize,
    limit: usize,
}

impl<C: Config> Taken<C> {
    /// Decodes an entry; `false` if it has no room.
    fn take(&mut self, bytes: &[u8]) -> Result<bool> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > self.limit && !self.entries.is_empty() {
            return Ok(false);
        }
        self.entries.push(postcard::from_bytes(bytes).map_err(Error::decode("an entry of the log"))?);
        Ok(true)
    }
}

impl<C: Config> RaftLogReader<C> for LogReader<C> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<C>>> {
        Ok(self.read(range, usize::MAX).map_err(|e| StorageIOError::read_logs(&e))?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<Vec<Entry<C>>> {
        Ok(self.read(start..end, SENT_BYTES).map_err(|e| StorageIOError::read_logs(&e))?)
    }
}

impl<C: Config> RaftLogReader<C> for LogStore<C> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<C>>> {
        self.reader.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<Vec<Entry<C>>> {
        self.reader.limited_get_log_entries(start, end).await
    }
}

impl<C: Config> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> Stored<LogState<C>> {
        let log = lock(&self.reader.log);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last })
    }

    async fn get_log_reader(&mut self) -> LogReader<C> {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        let encoded = encode(vote).map_err(|e| StorageIOError::write_vote(&e))?;
        self.change(Change::Vote(encoded)).await.map_err(|e| StorageIOError::write_vote(&e))?;
        lock(&self.reader.log).vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        Ok(lock(&self.reader.log).vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Stored<()> {
        let Some(id) = committed else { return Ok(()) };
        let encoded = encode(&id).map_err(|e| StorageIOError::write_logs(&e))?;
        self.reader.file.note_committed(self.reader.group, encoded);
        lock(&self.reader.log).committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Stored<Option<LogId<u64>>> {
        Ok(lock(&self.reader.log).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut encoded, mut last) = (Vec::new(), None);
        for entry in entries {
            let bytes = encode(&entry).map_err(|e| StorageIOError::write_log_entry(entry.log_id, &e))?;
            encoded.push((entry.log_id.index, EntryBytes::from(bytes)));
            last = Some(entry.log_id);
        }
        if let Some(last) = last {
            lock(&self.reader.log).take_in(&mut encoded, last).map_err(|e| StorageIOError::write_logs(&e))?;
        }
        if encoded.is_empty() {
            callback.log_io_completed(Ok(()));
            return Ok(());
        }
        self.append_entries(encoded, callback);
        Ok(())
    }

    async fn truncate(&mut self, id: LogId<u64>) -> Stored<()> {
        let before = match id.index.checked_sub(1) {
            Some(index) => self.id_at(index).map_err(|e| StorageIOError::read_log_at_index(index, &e))?,
            None => None,
        };
        {
            let mut log = lock(&self.reader.log);
            log.last = before.or(log.purged);
            log.unflushed.truncate(id.index);
        }
        Ok(self.change(Change::Truncate(id.index)).await.map_err(|e| StorageIOError::write_logs(&e))?)
    }

    async fn purge(&mut self, id: LogId<u64>) -> Stored<()> {
        let encoded = encode(&id).map_err(|e| StorageIOError::write_logs(&e))?;
        {
            let mut log = lock(&self.reader.log);
            log.purged = Some(id);
            log.last = log.last.filter(|last| last.index > id.index).or(Some(id));
            log.unflushed.purge(id.index);
        }
        Ok(self.change(Change::Purge(id.index, encoded)).await.map_err(|e| StorageIOError::write_logs(&e))?)
    }
}

fn next_index(id: Option<LogId<u64>>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

fn encode(item: &impl serde::Serialize) -> Result<Vec<u8>> {
    postcard::to_stdvec(item).map_err(Error::decode("a record of the log"))
}

/// The id of an encoded entry: its first field.
fn id_of(bytes: &[u8]) -> Result<LogId<u64>> {
    let (id, _) = postcard::take_from_bytes(bytes).map_err(Error::decode("the id of an entry of the log"))?;
    Ok(id)
}

fn read_field<T: serde::de::DeserializeOwned>(txn: &ReadTxn, group: u64, field: &'static str) -> Result<Option<T>> {
    let fields = txn.table(FIELDS)?;
    let Some(bytes) = fields.get((group, field))? else { return Ok(None) };
    Ok(Some(postcard::from_bytes(bytes).map_err(Error::decode(format!("the field {field:?} of the log")))?))
}
