//! Finding the valid records of a commit log.
//!
//! Floor: txn. Begins at the log start of the meta page, and goes on while records verify, chain on
//! each other and have the next transaction number. The next record follows the one before or
//! begins the next page. A gap ends the log.
//!
//! A crash may leave whole records of transactions that were not acknowledged after a gap. But each
//! record names the transaction and the meta page that were durable when it was written. If one of
//! them is newer than the last record found, an acknowledged transaction was lost. The scan reports
//! damage then, and never a shorter history.
//!
//! Failure: [`LogDamage`] names the transactions that are possibly lost.

use std::io;

use crate::hooks::{self, Mutant};
use crate::ids::TxnId;
use crate::page::log_record::{stored_checksum, RecordHeader, Seed, HEADER_BYTES};
use crate::page::meta::MetaPage;

/// Bytes of the log in each read.
const READ_BYTES: u64 = 1 << 20;

/// Reads bytes of the file: at an offset, into a buffer.
pub(crate) type ReadAt<'r> = dyn Fn(u64, &mut [u8]) -> io::Result<()> + 'r;

/// A valid record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) header: RecordHeader,
    /// The position where the record begins.
    pub(crate) position: u64,
    /// The position where the next record may begin.
    pub(crate) end: u64,
    pub(crate) checksum: u32,
}

/// Proof that acknowledged transactions are missing from a log, or that its pages cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogDamage {
    /// The first transaction that is lost or possibly lost.
    pub(crate) from: TxnId,
    /// The last transaction that is known to have been durable. `None` if a page could not be read.
    pub(crate) durable: Option<TxnId>,
    pub(crate) what: String,
}

/// The contents of a log: its valid records, its damage.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) records: Vec<Record>,
    pub(crate) damage: Option<LogDamage>,
    /// The log from the position of the first record on.
    bytes: Vec<u8>,
    start: u64,
}

impl Scan {
    /// The operations of a record.
    pub(crate) fn body(&self, record: &Record) -> &[u8] {
        let begin = (record.position - self.start) as usize + HEADER_BYTES;
        &self.bytes[begin..begin + record.header.body_bytes as usize]
    }

    /// Bytes of all records.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.records.iter().map(|record| record.end - record.position).sum()
    }

    /// The newest transaction of the log. Without records, that of the meta page.
    pub(crate) fn newest(&self, meta: &MetaPage) -> TxnId {
        self.records.last().map_or(meta.txn, |record| record.header.txn)
    }
}

/// Reads the records that follow the state of a meta page. `read` is given offsets in the file.
pub(crate) fn scan(meta: &MetaPage, read: &ReadAt<'_>) -> Scan {
    let page_size = u64::from(meta.page_size);
    let log = &meta.log;
    if log.pages == 0 {
        return Scan { records: Vec::new(), damage: None, bytes: Vec::new(), start: 0 };
    }
    let len = log.pages * page_size;
    let start = log.start / page_size * page_size;
    let mut scanner = Scanner {
        read,
        offset: log.first.0 * page_size,
        len,
        page_size,
        start,
        bytes: Vec::new(),
        seed: Seed::new(&meta.uuid, log.epoch),
        failed: None,
        verified: 0,
    };
    let mut records = Vec::new();
    let (mut chain, mut position, mut txn) = (log.chain, log.start, meta.txn);
    loop {
        let next = [position, position.next_multiple_of(page_size)].into_iter().find_map(|at| {
            let chains = |found: &Record| found.header.chain == chain || chains_on_anything(&records);
            scanner.record(at).filter(|found| chains(found) && found.header.txn == txn.next())
        });
        let Some(record) = next else { break };
        (chain, position, txn) = (record.checksum, record.end, record.header.txn);
        records.push(record);
    }
    let damage = scanner.damage(&records, meta, (position, txn));
    Scan { records, damage, bytes: scanner.bytes, start }
}

/// Whether a mutant leaves out the comparison of the chain.
fn chains_on_anything(before: &[Record]) -> bool {
    hooks::is(Mutant::ChainUnchecked) || (hooks::is(Mutant::StaleEpoch) && before.is_empty())
}

struct Scanner<'r> {
    read: &'r ReadAt<'r>,
    offset: u64,
    len: u64,
    page_size: u64,
    /// Position of the first byte in `bytes`.
    start: u64,
    bytes: Vec<u8>,
    seed: Seed,
    failed: Option<io::Error>,
    /// Bytes of records whose checksums were computed.
    verified: u64,
}

impl Scanner<'_> {
    /// Returns the record that begins at a position, if its checksum verifies.
    fn record(&mut self, position: u64) -> Option<Record> {
        let header = RecordHeader::decode(self.bytes(position, HEADER_BYTES as u64)?)?;
        let whole = HEADER_BYTES as u64 + u64::from(header.body_bytes);
        // No record is longer than a quarter of its log.
        if whole > self.len / 4 {
            return None;
        }
        self.verified += whole;
        let bytes = self.bytes(position, whole)?;
        let checksum = stored_checksum(bytes);
        let seed = self.seed;
        let bytes = self.bytes(position, whole)?;
        (seed.checksum(bytes) == checksum).then(|| Record {
            header,
            position,
            end: position + header.record_bytes(),
            checksum,
        })
    }

    /// Returns bytes from a position on, within one lap of the log. Reads the log as far as needed.
    fn bytes(&mut self, position: u64, count: u64) -> Option<&[u8]> {
        let begin = position.checked_sub(self.start)?;
        let end = begin.checked_add(count).filter(|&end| end <= self.len)?;
        while (self.bytes.len() as u64) < end {
            let from = self.bytes.len() as u64;
            let at = (self.start + from) % self.len;
            let count = READ_BYTES.min(self.len - from).min(self.len - at);
            self.bytes.resize((from + count) as usize, 0);
            let chunk = &mut self.bytes[from as usize..];
            if (self.read)(self.offset + at, chunk).is_err() {
                // A page that the disk cannot read must not hide its neighbours: read page by page.
                chunk.fill(0);
                let page_size = self.page_size as usize;
                let (read, at) = (self.read, self.offset + at);
                for (page, offset) in chunk.chunks_mut(page_size).zip((at..).step_by(page_size)) {
                    if let Err(e) = read(offset, page) {
                        page.fill(0);
                        self.failed.get_or_insert(e);
                    }
                }
            }
        }
        Some(&self.bytes[begin as usize..end as usize])
    }

    /// Looks for proof that the records found are not all that were acknowledged.
    fn damage(&mut self, records: &[Record], meta: &MetaPage, (end, txn): (u64, TxnId)) -> Option<LogDamage> {
        if self.len == 0 {
            return None;
        }
        if let Some(record) = records.iter().find(|record| record.header.durable_meta > meta.txn) {
            let newer = record.header.durable_meta;
            let what = format!("the commit log names the meta page of transaction {newer}, which is not there");
            return Some(LogDamage { from: meta.txn.next(), durable: Some(newer), what });
        }
        let mut position = end.next_multiple_of(self.page_size);
        // At most a quarter of the log was unflushed (`Core::keep_unflushed`), and a record has at
        // most a quarter. Records that lie farther are of an earlier lap.
        let limit = (end + self.len / 2).min(self.start + self.len);
        let mut proof: Option<(TxnId, u64)> = None;
        // Mapleaf writes no records that overlap. Verifying a forged log of such records must not
        // take time quadratic in its length.
        let most = self.verified + 4 * self.len;
        while position < limit && self.verified < most {
            if let Some(record) = self.record(position) {
                let known = record.header.durable.max(record.header.durable_meta);
                if known > txn && record.header.txn > txn {
                    proof = proof.max(Some((known, position)));
                }
            }
            position += self.page_size;
        }
        if let Some((known, _)) = proof {
            let what = format!(
                "the commit log ends at transaction {txn}, and a later record says that transaction {known} was durable"
            );
            return Some(LogDamage { from: txn.next(), durable: Some(known), what });
        }
        let failed = self.failed.as_ref()?;
        let what = format!("a page of the commit log cannot be read ({failed})");
        Some(LogDamage { from: txn.next(), durable: None, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PageId, TreeId};
    use crate::page::log_record;
    use crate::page::meta::{LogDescriptor, TreeRoot};

    const PAGE: usize = 4096;
    const PAGES: u64 = 16;

    fn meta(start: u64) -> MetaPage {
        MetaPage {
            page_size: PAGE as u32,
            required: 0,
            optional: 0,
            uuid: [3; 16],
            txn: TxnId(10),
            page_count: 100,
            catalog: TreeRoot::empty(TreeId::CATALOG),
            free_space: TreeRoot::empty(TreeId::FREE_SPACE),
            free_list: Default::default(),
            next_tree: TreeId::FIRST_TABLE,
            log: LogDescriptor { first: PageId(2), pages: PAGES, epoch: 5, start, chain: 77 },
            snapshots: TreeRoot::empty(TreeId::SNAPSHOTS),
        }
    }

    /// A log that is written like the real one.
    struct Log {
        ring: Vec<u8>,
        head: u64,
        chain: u32,
        txn: TxnId,
        durable: TxnId,
        epoch: u64,
    }

    impl Log {
        fn new(start: u64) -> Log {
            let ring = vec![0; PAGES as usize * PAGE];
            Log { ring, head: start, chain: 77, txn: TxnId(10), durable: TxnId(10), epoch: 5 }
        }

        fn append(&mut self, body_bytes: usize) -> u64 {
            self.txn = self.txn.next();
            let mut record = vec![0xab; HEADER_BYTES + body_bytes];
            let header = RecordHeader {
                chain: self.chain,
                body_bytes: body_bytes as u32,
                txn: self.txn,
                durable: self.durable,
                durable_meta: TxnId(10),
            };
            self.chain = log_record::seal(&mut record, Seed::new(&[3; 16], self.epoch), &header);
            let begin = self.head;
            self.head += header.record_bytes();
            record.resize((self.head.next_multiple_of(PAGE as u64) - begin) as usize, 0);
            let len = self.ring.len();
            for (at, byte) in (begin as usize..).zip(record) {
                self.ring[at % len] = byte;
            }
            begin
        }

        fn flush(&mut self) {
            self.head = self.head.next_multiple_of(PAGE as u64);
            self.durable = self.txn;
        }

        fn scan(&self, start: u64) -> Scan {
            self.scan_from(TxnId(10), start)
        }

        fn scan_from(&self, txn: TxnId, start: u64) -> Scan {
            let read = |offset: u64, into: &mut [u8]| {
                let at = offset as usize - 2 * PAGE;
                into.copy_from_slice(&self.ring[at..at + into.len()]);
                Ok(())
            };
            scan(&MetaPage { txn, ..meta(start) }, &read)
        }
    }

    fn txns(scan: &Scan) -> Vec<u64> {
        scan.records.iter().map(|record| record.header.txn.0).collect()
    }

    #[test]
    fn records_are_found_within_a_page_across_pages_and_around_the_end() {
        for start in [0, 5000, 14 * PAGE as u64 + 8, (1 << 40) + 15 * PAGE as u64] {
            let mut log = Log::new(start);
            for (count, bytes) in [(3, 100), (1, 9000), (2, 40)] {
                (0..count).for_each(|_| {
                    log.append(bytes);
                });
                log.flush();
            }
            let found = log.scan(start);
            assert_eq!(txns(&found), [11, 12, 13, 14, 15, 16], "from {start}");
            assert_eq!(found.damage, None);
            assert!(found.records.iter().all(|record| found.body(record).iter().all(|&byte| byte == 0xab)));
        }
    }

    #[test]
    fn a_log_without_records_has_no_damage() {
        let found = Log::new(0).scan(0);
        assert!(found.records.is_empty() && found.damage.is_none());
    }

    #[test]
    fn a_torn_record_that_was_not_acknowledged_ends_the_log() {
        let mut log = Log::new(0);
        log.append(100);
        log.flush();
        let torn = log.append(5000);
        log.head = log.head.next_multiple_of(PAGE as u64);
        log.append(100);
        log.ring[torn as usize + 4500] ^= 1;
        let found = log.scan(0);
        assert_eq!((txns(&found), found.damage), (vec![11], None), "a whole record after a torn one proves nothing");
    }

    #[test]
    fn damage_of_a_record_that_was_acknowledged_is_found() {
        let mut log = Log::new(0);
        let begins: Vec<u64> = (0..4)
            .map(|_| {
                let begin = log.append(100);
                log.flush();
                begin
            })
            .collect();
        // The last record has no witness: it may be one that was never acknowledged.
        for (index, &begin) in begins.iter().enumerate().take(2) {
            let mut damaged = Log { ring: log.ring.clone(), ..log };
            damaged.ring[begin as usize + 60] ^= 1;
            let found = damaged.scan(0);
            assert_eq!(found.records.len(), index);
            let damage = found.damage.expect("seen");
            assert_eq!((damage.from.0, damage.durable), (11 + index as u64, Some(TxnId(13))));
        }
    }

    #[test]
    fn records_of_an_earlier_lap_or_epoch_are_not_found() {
        let mut log = Log::new(0);
        (0..40).for_each(|_| {
            log.append(3000);
            log.flush();
        });
        // As if a checkpoint had been made of the newest state, and a commit had followed.
        let start = 40 * PAGE as u64;
        let mut later = Log { chain: 77, head: start, ..log };
        let newest = later.txn;
        later.append(100);
        later.flush();
        let found = later.scan_from(newest, start);
        assert_eq!((txns(&found), found.damage), (vec![51], None));
        later.epoch = 4;
        later.append(100);
        assert_eq!(txns(&later.scan_from(newest, start)), [51], "an earlier epoch");
    }

    #[test]
    fn a_meta_page_that_a_record_names_must_be_there() {
        let mut log = Log::new(0);
        log.append(10);
        let mut meta = meta(0);
        // The record names the meta page of transaction 10; the newest that was found is older.
        meta.txn = TxnId(10);
        let read = |offset: u64, into: &mut [u8]| {
            let at = offset as usize - 2 * PAGE;
            into.copy_from_slice(&log.ring[at..at + into.len()]);
            Ok(())
        };
        assert_eq!(scan(&meta, &read).damage, None);
        let mut ring = log.ring.clone();
        let header =
            RecordHeader { chain: 77, body_bytes: 10, txn: TxnId(11), durable: TxnId(10), durable_meta: TxnId(12) };
        log_record::seal(&mut ring[..64], Seed::new(&[3; 16], 5), &header);
        let read = |offset: u64, into: &mut [u8]| {
            let at = offset as usize - 2 * PAGE;
            into.copy_from_slice(&ring[at..at + into.len()]);
            Ok(())
        };
        assert_eq!(scan(&meta, &read).damage.expect("seen").durable, Some(TxnId(12)));
    }

    #[test]
    fn a_page_that_cannot_be_read_is_damage() {
        let mut log = Log::new(0);
        (0..3).for_each(|_| {
            log.append(100);
            log.flush();
        });
        let read = |offset: u64, into: &mut [u8]| {
            let at = offset as usize - 2 * PAGE;
            if at < 2 * PAGE && at + into.len() > PAGE {
                return Err(io::Error::other("bad sector"));
            }
            into.copy_from_slice(&log.ring[at..at + into.len()]);
            Ok(())
        };
        let found = scan(&meta(0), &read);
        assert_eq!(txns(&found), [11]);
        assert_eq!(found.damage.expect("seen").from, TxnId(12));
    }
}
