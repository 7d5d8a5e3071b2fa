//! What the commit log of a file holds, for tests that count the kinds of files that they judge.
//!
//! Floor: testing. Reads meta pages and records as opening does, and also looks for records that a
//! replay must not apply.
//!
//! Failure: none. A file without a usable meta page, or without a log, has no content.

use std::io;

use crate::page::log_record::{stored_checksum, RecordHeader, Seed, HEADER_BYTES};
use crate::page::meta::{self, MetaPage};
use crate::txn::log::scan::scan;

/// So many epochs before that of the meta page are tried.
const EARLIER_EPOCHS: u64 = 6;

/// The content of a commit log.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LogContent {
    /// The first page of the extent, and the number of its pages.
    pub first: u64,
    pub pages: u64,
    /// The epoch of the newest meta page.
    pub epoch: u64,
    /// Records that a replay applies.
    pub records: u64,
    /// Positions where the first of them may begin, and where the last one ends, in bytes.
    pub start: u64,
    pub end: u64,
    /// Whole records of this epoch that begin a page after the end of those, and are newer.
    pub after_a_gap: u64,
    /// Whole records of this epoch that the meta page has: of an earlier lap, or before its start.
    pub earlier_laps: u64,
    /// Whole records of earlier epochs.
    pub earlier_epochs: u64,
}

impl LogContent {
    /// Whether the records that a replay applies go past the end of the extent and on at its
    /// beginning.
    pub fn wraps(&self, page_size: usize) -> bool {
        let bytes = self.pages * page_size as u64;
        self.records > 0 && self.start / bytes != (self.end - 1) / bytes
    }
}

/// The log of a file. `read` fills a buffer with the bytes at an offset, or returns `false`.
pub fn log_content(read: &dyn Fn(u64, &mut [u8]) -> bool) -> Option<LogContent> {
    let probe = meta::probe(|offset, len| {
        let mut bytes = vec![0; len];
        read(offset, &mut bytes).then_some(bytes)
    });
    let meta = probe.slots.iter().filter_map(|slot| slot.meta().ok()).max_by_key(|meta| meta.txn)?;
    (meta.log.pages > 0).then(|| content(&meta, read))
}

fn content(meta: &MetaPage, read: &dyn Fn(u64, &mut [u8]) -> bool) -> LogContent {
    let fill = |offset: u64, into: &mut [u8]| match read(offset, into) {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    };
    let found = scan(meta, &fill);
    let log = &meta.log;
    let mut content = LogContent {
        first: log.first.0,
        pages: log.pages,
        epoch: log.epoch,
        records: found.records.len() as u64,
        start: log.start,
        end: found.records.last().map_or(log.start, |record| record.end),
        ..LogContent::default()
    };
    let applied: Vec<u64> = found.records.iter().map(|record| record.position % ring_bytes(meta)).collect();
    let newest = found.newest(meta);
    for at in (0..ring_bytes(meta)).step_by(meta.page_size as usize).filter(|at| !applied.contains(at)) {
        match record_at(meta, read, at) {
            Some((epoch, _)) if epoch < log.epoch => content.earlier_epochs += 1,
            Some((_, txn)) if txn > newest.0 => content.after_a_gap += 1,
            Some((_, txn)) if txn <= meta.txn.0 => content.earlier_laps += 1,
            _ => {}
        }
    }
    content
}

fn ring_bytes(meta: &MetaPage) -> u64 {
    meta.log.pages * u64::from(meta.page_size)
}

/// Epoch and transaction of the whole record that begins at an offset in the ring.
fn record_at(meta: &MetaPage, read: &dyn Fn(u64, &mut [u8]) -> bool, at: u64) -> Option<(u64, u64)> {
    let offset = meta.log.first.0 * u64::from(meta.page_size);
    let mut bytes = vec![0; HEADER_BYTES];
    read(offset + at, &mut bytes).then_some(())?;
    let header = RecordHeader::decode(&bytes)?;
    let whole = HEADER_BYTES as u64 + u64::from(header.body_bytes);
    if whole > ring_bytes(meta) / 4 {
        return None;
    }
    bytes.resize(whole as usize, 0);
    let first = whole.min(ring_bytes(meta) - at) as usize;
    (read(offset + at, &mut bytes[..first]) && read(offset, &mut bytes[first..])).then_some(())?;
    let verifies = |epoch: &u64| Seed::new(&meta.uuid, *epoch).checksum(&bytes) == stored_checksum(&bytes);
    let epoch = (meta.log.epoch.saturating_sub(EARLIER_EPOCHS)..=meta.log.epoch).rev().find(verifies)?;
    Some((epoch, header.txn.0))
}
