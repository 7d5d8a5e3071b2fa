//! SQLite through rusqlite, built from its own sources: WAL, `synchronous=FULL` (a commit is durable when it returns), a
//! table of blobs WITHOUT ROWID, statements prepared once per connection. `mmap_size` is its greatest, 2 GiB less 64 KiB;
//! the cache 1 GiB as with redb and canopydb, which in effect holds what is changed. It checkpoints by itself at 1,000
//! pages of log, its default, and when it is closed.
//!
//! A connection serves one thread at a time: they are kept in a list, and a call takes one or opens one.

use super::{Direction, Order, Store, Tuning};
use crate::data::{entry_sum, Pairs, Probes, Seeks, Tally, Verifier};
use crate::workload::{self, Single, Workload};
use crate::Res;
use rusqlite::{Connection, OptionalExtension as _, Row};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const CACHE_BYTES: usize = 1 << 30;
const MMAP_BYTES: i64 = 0x7fff_0000;

const GET: &str = "SELECT value FROM main WHERE key = ?1";
const PUT: &str = "REPLACE INTO main VALUES (?1, ?2)";
const REMOVE: &str = "DELETE FROM main WHERE key = ?1";
const FROM: &str = "SELECT key, value FROM main WHERE key >= ?1 ORDER BY key LIMIT ?2";
const FORWARD: &str = "SELECT key, value FROM main ORDER BY key";
const REVERSE: &str = "SELECT key, value FROM main ORDER BY key DESC";

struct Sqlite {
    path: PathBuf,
    cache_bytes: usize,
    idle: Mutex<Vec<Connection>>,
}

pub(super) fn open(path: &Path, tuning: Tuning) -> Res<Box<dyn Store>> {
    let cache_bytes = tuning.cache_bytes.unwrap_or(CACHE_BYTES);
    let store = Sqlite { path: path.into(), cache_bytes, idle: Mutex::new(Vec::new()) };
    let exists = path.exists();
    let connection = store.connect()?;
    if !exists {
        connection.execute_batch("CREATE TABLE main (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")?;
    }
    store.give_back(connection);
    Ok(Box::new(store))
}

impl Sqlite {
    fn connect(&self) -> Res<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "mmap_size", MMAP_BYTES)?;
        connection.pragma_update(None, "cache_size", -((self.cache_bytes / 1024) as i64))?;
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if mode != "wal" {
            return Err(format!("the journal is {mode}, not wal").into());
        }
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// Calls `work` with a connection that nobody else uses meanwhile.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> Res<T>) -> Res<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| self.connect(), Ok)?;
        let done = work(&connection);
        self.give_back(connection);
        done
    }

    fn transaction<T>(&self, work: impl FnOnce(&Connection) -> Res<T>) -> Res<T> {
        self.with(|connection| {
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
            let done = work(connection);
            let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
            connection.prepare_cached(end)?.execute(())?;
            done
        })
    }

    /// All reads in one transaction.
    fn reading<T>(&self, work: impl FnOnce(&Connection) -> Res<T>) -> Res<T> {
        self.with(|connection| {
            connection.prepare_cached("BEGIN")?.execute(())?;
            let done = work(connection);
            connection.prepare_cached("COMMIT")?.execute(())?;
            done
        })
    }
}

fn blob<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r [u8]> {
    Ok(row.get_ref(column)?.as_blob()?)
}

fn see_value(connection: &Connection, key: &[u8], mut see: impl FnMut(Option<&[u8]>)) -> Res<()> {
    let mut statement = connection.prepare_cached(GET)?;
    let found = statement.query_row([key], |row| blob(row, 0).map(|value| see(Some(value)))).optional()?;
    if found.is_none() {
        see(None);
    }
    Ok(())
}

fn put_value(connection: &Connection, key: &[u8], value: &[u8]) -> Res<()> {
    connection.prepare_cached(PUT)?.execute([key, value])?;
    Ok(())
}

impl Single for Sqlite {
    fn get(&self, key: &[u8], see: impl FnMut(Option<&[u8]>)) -> Res<()> {
        self.with(|connection| see_value(connection, key, see))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.with(|connection| put_value(connection, key, value))
    }

    fn modify(&self, key: &[u8], see: impl FnMut(Option<&[u8]>), value: &[u8]) -> Res<()> {
        self.transaction(|connection| {
            see_value(connection, key, see)?;
            put_value(connection, key, value)
        })
    }

    fn scan_from(&self, key: &[u8], count: usize, mut see: impl FnMut(&[u8], &[u8])) -> Res<()> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(FROM)?;
            let mut rows = statement.query((key, count as i64))?;
            while let Some(row) = rows.next()? {
                see(blob(row, 0)?, blob(row, 1)?);
            }
            Ok(())
        })
    }
}

impl Store for Sqlite {
    fn put_all(&mut self, pairs: &mut Pairs<'_>, _order: Order) -> Res<()> {
        self.transaction(|connection| {
            let mut statement = connection.prepare_cached(PUT)?;
            while let Some((key, value)) = pairs.next() {
                statement.execute([key, value])?;
            }
            Ok(())
        })
    }

    fn remove_all(&mut self, keys: &mut Pairs<'_>) -> Res<()> {
        self.transaction(|connection| {
            let mut statement = connection.prepare_cached(REMOVE)?;
            while let Some((key, _)) = keys.next() {
                statement.execute([key])?;
            }
            Ok(())
        })
    }

    fn get_all(&self, probes: &Probes) -> Res<()> {
        let mut verifier = Verifier::default();
        self.reading(|connection| {
            let mut statement = connection.prepare_cached(GET)?;
            for (key, expected) in probes.iter() {
                let check = |value: &[u8]| verifier.check(Some(value), expected);
                if statement.query_row([key], |row| blob(row, 0).map(check)).optional()?.is_none() {
                    verifier.check(None, expected);
                }
            }
            Ok(())
        })?;
        verifier.finish()
    }

    fn put_each(&self, pairs: &mut Pairs<'_>) -> Res<()> {
        workload::put_each(self, pairs)
    }

    fn get_each(&self, probes: &Probes) -> Res<()> {
        workload::get_each(self, probes)
    }

    fn seek_all(&self, seeks: &Seeks) -> Res<()> {
        let mut verifier = Verifier::default();
        self.reading(|connection| {
            let mut statement = connection.prepare_cached(FROM)?;
            for (key, expected) in seeks.iter() {
                let mut sum = 0u64;
                let mut rows = statement.query((key, seeks.length as i64))?;
                while let Some(row) = rows.next()? {
                    sum = sum.wrapping_add(entry_sum(blob(row, 0)?, blob(row, 1)?));
                }
                verifier.check_sum(sum, expected);
            }
            Ok(())
        })?;
        verifier.finish()
    }

    fn scan(&self, direction: Direction) -> Res<Tally> {
        let mut tally = Tally::default();
        self.with(|connection| {
            let text = if direction == Direction::Forward { FORWARD } else { REVERSE };
            let mut statement = connection.prepare_cached(text)?;
            let mut rows = statement.query(())?;
            while let Some(row) = rows.next()? {
                tally.add(blob(row, 0)?, blob(row, 1)?);
            }
            Ok(())
        })?;
        Ok(tally)
    }

    fn drive(&self, workload: &Workload) -> Res<()> {
        workload::drive(self, workload)
    }

    fn free_pages(&self) -> Res<Option<u64>> {
        let pages = |connection: &Connection| {
            Ok(connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0))?)
        };
        Ok(Some(self.with(pages)? as u64))
    }

    fn compact(self: Box<Self>, _path: &Path, to: &Path) -> Res<bool> {
        self.with(|connection| {
            connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
            Ok(())
        })?;
        self.close()?;
        Ok(true)
    }

    fn close(self: Box<Self>) -> Res<()> {
        let idle = self.idle.into_inner().unwrap_or_else(PoisonError::into_inner);
        for connection in idle {
            connection.close().map_err(|(_, e)| e)?;
        }
        Ok(())
    }
}
