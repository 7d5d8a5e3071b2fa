//! Records of the commit log: bytes <-> header and body.
//!
//! Floor: page. A record holds one transaction. It begins with a header and lies in the log extent,
//! right after the record before it or at the beginning of a later page.
//!
//! ```text
//!  0 u32 checksum of all bytes after it, body included
//!  4 u32 chain: the checksum of the record before, or the number that the epoch begins with
//!  8 u32 bytes of the body
//! 12 u32 "MLog"
//! 16 u64 transaction
//! 24 u64 newest transaction that was durable when the record was written
//! 32 u64 transaction of the meta page that was durable then
//! 40     body: operations
//! ```
//!
//! The checksum begins with the uuid of the database and the epoch of the log. So a record of
//! another database or of an earlier epoch never verifies, and a record of an earlier lap has
//! another chain. A record verifies without the record before it. So a record after a gap can still
//! prove which transaction was durable when it was written.
//!
//! Failure: none. [`RecordHeader::decode`] returns `None` for bytes that are no record.

use super::layout::{get_u32, get_u64, put_u32, put_u64};
use crate::hooks::{self, Mutant};
use crate::ids::{TxnId, MAX_U48};

/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 40;
/// A record ends at a multiple of this.
pub(crate) const ALIGNED_BYTES: usize = 8;
const MAGIC: u32 = u32::from_le_bytes(*b"MLog");

/// The fields of the header, without the checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) chain: u32,
    pub(crate) body_bytes: u32,
    pub(crate) txn: TxnId,
    pub(crate) durable: TxnId,
    pub(crate) durable_meta: TxnId,
}

impl RecordHeader {
    /// Bytes of the whole record, with the padding before the next one.
    pub(crate) fn record_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.body_bytes)).next_multiple_of(ALIGNED_BYTES as u64)
    }

    /// Reads a header. `None` if the bytes do not begin like a record. The checksum is not
    /// verified.
    pub(crate) fn decode(bytes: &[u8]) -> Option<RecordHeader> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let header = (get_u32(header, 12) == MAGIC).then(|| RecordHeader {
            chain: get_u32(header, 4),
            body_bytes: get_u32(header, 8),
            txn: TxnId(get_u64(header, 16)),
            durable: TxnId(get_u64(header, 24)),
            durable_meta: TxnId(get_u64(header, 32)),
        })?;
        let possible = [header.txn, header.durable, header.durable_meta].iter().all(|txn| txn.0 <= MAX_U48);
        possible.then_some(header)
    }
}

/// The start value of the checksums of one epoch of one database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(uuid: &[u8; 16], epoch: u64) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(uuid);
        if !hooks::is(Mutant::StaleEpoch) {
            hasher.update(&epoch.to_le_bytes());
        }
        Seed(hasher.finalize())
    }

    /// The checksum that a whole record should have.
    pub(crate) fn checksum(self, record: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(record.get(4..).unwrap_or(&[]));
        hasher.finalize()
    }
}

/// Writes the header of a record, whose body follows [`HEADER_BYTES`] bytes. Returns its checksum,
/// which the next record chains on.
pub(crate) fn seal(record: &mut [u8], seed: Seed, header: &RecordHeader) -> u32 {
    put_u32(record, 4, header.chain);
    put_u32(record, 8, header.body_bytes);
    put_u32(record, 12, MAGIC);
    put_u64(record, 16, header.txn.0);
    put_u64(record, 24, header.durable.0);
    put_u64(record, 32, header.durable_meta.0);
    let end = HEADER_BYTES + header.body_bytes as usize;
    let checksum = seed.checksum(&record[..end]);
    put_u32(record, 0, checksum);
    checksum
}

/// The checksum that a record holds.
pub(crate) fn stored_checksum(record: &[u8]) -> u32 {
    get_u32(record, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(body: &[u8], seed: Seed) -> Vec<u8> {
        let mut record = vec![0; HEADER_BYTES];
        record.extend_from_slice(body);
        let header = RecordHeader {
            chain: 7,
            body_bytes: body.len() as u32,
            txn: TxnId(9),
            durable: TxnId(8),
            durable_meta: TxnId(3),
        };
        seal(&mut record, seed, &header);
        assert_eq!(RecordHeader::decode(&record), Some(header));
        record
    }

    #[test]
    fn a_record_verifies_only_with_its_database_and_epoch_and_unchanged() {
        let seed = Seed::new(&[1; 16], 4);
        let record = sealed(b"operations", seed);
        assert_eq!(seed.checksum(&record), stored_checksum(&record));
        for other in [Seed::new(&[2; 16], 4), Seed::new(&[1; 16], 5)] {
            assert_ne!(other.checksum(&record), stored_checksum(&record));
        }
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(seed.checksum(&damaged), stored_checksum(&damaged), "bit {bit}");
        }
    }

    #[test]
    fn record_bytes_are_a_multiple_of_8_and_short_headers_are_none() {
        let record = sealed(b"12345", Seed::new(&[0; 16], 1));
        let header = RecordHeader::decode(&record).expect("a header");
        assert_eq!(header.record_bytes(), 48);
        assert_eq!(RecordHeader::decode(&record[..HEADER_BYTES - 1]), None);
        assert_eq!(RecordHeader::decode(&[0; 64]), None);
    }
}
