//! The live read transactions of a database.
//!
//! Floor: db. Reads the reader slots of all processes, and the free space of the newest state.

use std::time::Duration;

use crate::db::pins::PinCount;
use crate::error::Result;
use crate::ids::TxnId;
use crate::sys::clock;
use crate::txn::free::free_extents::{self, FreeRecord};
use crate::txn::read::readers::ReaderNotes;
use crate::txn::read::snapshot::{ReadTxn, LABEL_BYTES_MAX, NOTE_BEGUN, NOTE_LABEL};

/// A live read transaction, from [`Db::readers`](crate::Db::readers).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ReaderInfo {
    /// The number of its process, as that process sees it: in a container it may be another one.
    pub process: u32,
    /// How long ago it began or was last refreshed, in steps of some milliseconds.
    pub age: Duration,
    /// The number of the transaction whose state it reads.
    pub txn: u64,
    /// Its label; empty if it has none.
    pub label: String,
    /// Bytes of pages that newer states do not use any more, and that this transaction reaches.
    pub pinned_bytes: u64,
}

/// Lists the read transactions that are live, but for `txn`.
pub(crate) fn of(txn: &ReadTxn) -> Result<Vec<ReaderInfo>> {
    let env = txn.env();
    let now = clock::coarse_millis();
    let mut own_left = 1;
    let mut readers: Vec<ReaderInfo> = Vec::new();
    for found in env.readers.list() {
        let is_own = found.process.is_none_or(|process| process.id == std::process::id());
        if is_own && found.txn == txn.state().txn && own_left > 0 && found.notes[NOTE_LABEL] == OWN_LABEL {
            own_left -= 1;
            continue;
        }
        readers.push(info(&found, now));
    }
    let page_size = env.page_size as u64;
    let mut count = PinCount::new(readers.iter().map(|reader| TxnId(reader.txn)).collect());
    let walked = free_extents::walk(txn.pages(), txn.state(), &mut |record| {
        if let FreeRecord::Pending(item) = record {
            count.add(&item);
        }
        Ok(())
    });
    txn.check_fault(walked)?;
    let pinned = count.finish();
    readers.iter_mut().for_each(|reader| reader.pinned_bytes = pinned.of(TxnId(reader.txn)).0 * page_size);
    readers.sort_by_key(|reader| (reader.txn, reader.process));
    Ok(readers)
}

/// The first word of the label of the transaction that lists the others.
const OWN_LABEL: u64 = u64::from_le_bytes(*b"readers\0");

/// The label of the transaction that lists the others.
pub(crate) const LISTING: &str = "readers";

/// A read transaction as its slot describes it.
pub(crate) fn info(found: &ReaderNotes, now: u64) -> ReaderInfo {
    let words = &found.notes[NOTE_LABEL..NOTE_LABEL + LABEL_BYTES_MAX / 8];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0).collect();
    ReaderInfo {
        process: found.process.map_or_else(std::process::id, |process| process.id),
        age: Duration::from_millis(now.saturating_sub(found.notes[NOTE_BEGUN])),
        txn: found.txn.0,
        label: String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        pinned_bytes: 0,
    }
}
