//! A state on its way to another node.
//!
//! The sender pins a read transaction and writes its tables as chunks; writers go on meanwhile. The
//! receiver reads the chunks into a new file, which no other file depends on until it is installed.
//!
//! ```text
//! chunk    length u32 | CRC-32 of the rest u32 | number u64 | kind u8 | body
//! kind 1   a table begins: three texts, name, codec of keys, codec of values
//! kind 2   entries of this table: key, value, key, value ..
//! kind 3   the end: number of tables u64, of entries u64
//! ```
//!
//! Numbers are little-endian; texts, keys and values have their length before them, as `u32`.
//! Chunks are numbered from 0, so that a lost, doubled or moved one is noticed, and the end tells
//! an aborted stream from a complete one.
//!
//! Failure: a damaged or incomplete stream is `Error::Snapshot`; the new file is removed.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use mapleaf::{Options, ReadTxn, TableInfo, WriteTxn};

use crate::error::{Error, Result};
use crate::state::{applied_of, remove, Applied, State};

/// Bytes of entries in a chunk; one entry may have more.
const CHUNK_BYTES: usize = 128 << 10;
/// A longer chunk is damage: no value is longer than what a request may carry.
const MAX_CHUNK_BYTES: usize = 1 << 30;

const TABLE: u8 = 1;
const ENTRIES: u8 = 2;
const END: u8 = 3;

/// The data of a snapshot, as openraft hands it on.
#[derive(Debug)]
pub enum SnapshotData {
    /// Nothing yet.
    Awaited,
    /// A state of this node.
    Pinned(Pinned),
    /// A state that another node has sent.
    Received(Incoming),
}

/// A state of this node that stays readable while it is sent.
#[derive(Debug)]
pub struct Pinned {
    txn: ReadTxn,
}

impl Pinned {
    /// Pins the newest state.
    ///
    /// # Errors
    /// `Store` as [`mapleaf::Db::begin_read`].
    pub fn new(state: &State) -> Result<Pinned> {
        let txn = state.db().begin_read()?;
        txn.set_label("snapshot for another node");
        Ok(Pinned { txn })
    }

    /// How far the state is.
    ///
    /// # Errors
    /// `Store` or `Decode` if the file is damaged.
    pub fn applied(&self) -> Result<Applied> {
        applied_of(&self.txn)
    }

    /// Writes the state as chunks. Blocks; takes memory for one chunk.
    ///
    /// # Errors
    /// `Store` if the file is damaged, `Snapshot` if `out` does not take the bytes.
    pub fn write_to(&self, out: impl Write) -> Result<()> {
        let mut chunks = ChunkWriter { out, number: 0, chunk: Vec::new() };
        let (mut tables, mut entries) = (0u64, 0u64);
        for table in self.txn.tables()? {
            chunks.table(&table)?;
            entries += chunks.entries(&self.txn, &table.name)?;
            tables += 1;
        }
        chunks.end(tables, entries)
    }

    /// Copies the state to a new file of another state machine in this process.
    pub(crate) fn copy_to(self, state: &State) -> Result<Incoming> {
        let (reader, writer) = io::pipe().map_err(|e| Error::Snapshot(e.to_string()))?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || self.write_to(writer));
            let incoming = Incoming::receive(state, reader);
            let sent = sender.join().unwrap_or_else(|_| Err(Error::Snapshot("the sender panicked".to_string())));
            let incoming = incoming?;
            sent?;
            Ok(incoming)
        })
    }
}

/// Writes chunks.
struct ChunkWriter<W> {
    out: W,
    number: u64,
    chunk: Vec<u8>,
}

impl<W: Write> ChunkWriter<W> {
    fn table(&mut self, table: &TableInfo) -> Result<()> {
        if table.is_multimap {
            let name = &table.name;
            return Err(Error::Refused(format!("table {name:?} is a multimap, which no snapshot can hold")));
        }
        for text in [&table.name, &table.key_codec, &table.value_codec] {
            self.put(text.as_bytes())?;
        }
        self.send(TABLE)
    }

    fn entries(&mut self, txn: &ReadTxn, name: &str) -> Result<u64> {
        let mut count = 0;
        for entry in txn.bytes_table(name)?.iter() {
            let (key, value) = entry?;
            self.put(key)?;
            self.put(value)?;
            count += 1;
            if self.chunk.len() >= CHUNK_BYTES {
                self.send(ENTRIES)?;
            }
        }
        if !self.chunk.is_empty() {
            self.send(ENTRIES)?;
        }
        Ok(count)
    }

    fn end(&mut self, tables: u64, entries: u64) -> Result<()> {
        self.chunk.extend(tables.to_le_bytes());
        self.chunk.extend(entries.to_le_bytes());
        self.send(END)?;
        self.out.flush().map_err(|e| Error::Snapshot(format!("sending it: {e}")))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > MAX_CHUNK_BYTES / 2 {
            let (len, most) = (bytes.len(), MAX_CHUNK_BYTES / 2);
            return Err(Error::Refused(format!("a key or value of {len} bytes; a snapshot holds at most {most}")));
        }
        self.chunk.extend((bytes.len() as u32).to_le_bytes());
        self.chunk.extend(bytes);
        Ok(())
    }

    fn send(&mut self, kind: u8) -> Result<()> {
        let mut head = self.number.to_le_bytes().to_vec();
        head.push(kind);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(&self.chunk);
        let length = (head.len() + self.chunk.len()) as u32;
        let frame = [&length.to_le_bytes()[..], &crc.finalize().to_le_bytes(), &head, &self.chunk].concat();
        self.out.write_all(&frame).map_err(|e| Error::Snapshot(format!("sending it: {e}")))?;
        self.number += 1;
        self.chunk.clear();
        Ok(())
    }
}

/// A state that was received into a file of its own: complete, durable, and not installed. The file
/// is removed when this is dropped before that.
#[derive(Debug)]
pub struct Incoming {
    part: PathBuf,
}

impl Incoming {
    /// Reads chunks into a new file. Blocks until the end of the stream; takes memory for a chunk.
    ///
    /// # Errors
    /// `Snapshot` if the stream is damaged or ends early, `Store` if the file cannot be written.
    pub fn receive(state: &State, input: impl Read) -> Result<Incoming> {
        let incoming = Incoming { part: state.part() };
        remove(&incoming.part)?;
        let db = Options::new().exclusive(true).open(&incoming.part)?;
        let txn = db.begin_write()?;
        fill(&txn, &mut ChunkReader { input, number: 0 })?;
        txn.commit()?;
        Ok(incoming)
    }

    /// Makes it the current state, if it is as far as the sender said.
    pub(crate) fn install(self, state: &State, expected: &Applied) -> Result<()> {
        let found = applied_of(&Options::new().exclusive(true).create(false).open(&self.part)?.begin_read()?)?;
        if found != *expected {
            let (found, expected) = (found.0, expected.0);
            return Err(Error::Snapshot(format!("its state is at {found:?}, and not at {expected:?} as announced")));
        }
        state.replace(&self.part)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // An error leaves a file that the next opening removes.
        drop(remove(&self.part));
    }
}

/// Puts all that the chunks hold into a new database.
fn fill<R: Read>(txn: &WriteTxn, chunks: &mut ChunkReader<R>) -> Result<()> {
    let (mut tables, mut entries) = (0u64, 0u64);
    let (mut kind, mut body) = chunks.next()?;
    while kind == TABLE {
        let mut texts = Items { rest: &body };
        let (name, key, value) = (texts.text()?, texts.text()?, texts.text()?);
        let mut table = txn.create_table(name, key, value)?;
        let mut loader = table.loader()?;
        (kind, body) = chunks.next()?;
        while kind == ENTRIES {
            let mut items = Items { rest: &body };
            while !items.rest.is_empty() {
                loader.push(items.bytes()?, items.bytes()?)?;
                entries += 1;
            }
            (kind, body) = chunks.next()?;
        }
        loader.finish()?;
        tables += 1;
    }
    let counted = [tables.to_le_bytes(), entries.to_le_bytes()].concat();
    if kind != END || body != counted {
        return Err(damaged(format!("after {tables} tables and {entries} entries")));
    }
    Ok(())
}

/// Reads chunks, and verifies them.
struct ChunkReader<R> {
    input: R,
    number: u64,
}

impl<R: Read> ChunkReader<R> {
    /// The kind and the body of the next chunk.
    fn next(&mut self) -> Result<(u8, Vec<u8>)> {
        let number = self.number;
        let mut head = [0; 8];
        self.fill(&mut head)?;
        let (length, crc) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let crc = u32::from_le_bytes(crc.try_into().expect("four bytes"));
        if !(9..=MAX_CHUNK_BYTES).contains(&length) {
            return Err(damaged(format!("chunk {number} has a length of {length} bytes")));
        }
        let mut rest = vec![0; length];
        self.fill(&mut rest)?;
        if crc32fast::hash(&rest) != crc {
            return Err(damaged(format!("chunk {number} does not match its checksum")));
        }
        let body = rest.split_off(9);
        if rest[..8] != number.to_le_bytes() {
            return Err(damaged(format!("another chunk stands where number {number} should")));
        }
        self.number += 1;
        Ok((rest[8], body))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let number = self.number;
        self.input.read_exact(bytes).map_err(|e| damaged(format!("it ends in chunk {number} ({e})")))
    }
}

/// The items in the body of a chunk.
struct Items<'b> {
    rest: &'b [u8],
}

impl<'b> Items<'b> {
    fn bytes(&mut self) -> Result<&'b [u8]> {
        let too_short = || damaged("an item is longer than its chunk".to_string());
        let (length, rest) = self.rest.split_first_chunk().ok_or_else(too_short)?;
        let (item, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(too_short)?;
        self.rest = rest;
        Ok(item)
    }

    fn text(&mut self) -> Result<&'b str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged("the name of a table is no text".to_string()))
    }
}

fn damaged(what: String) -> Error {
    Error::Snapshot(what)
}
