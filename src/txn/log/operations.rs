//! The operations of a transaction as bytes: the body of a record of the commit log.
//!
//! Floor: txn. Operations are logical: to apply them again gives the same entries, not the same
//! pages. Numbers are LEB128: seven bits a byte, lowest first, the highest bit set in all but the
//! last byte.
//!
//! ```text
//! 1 table   name, key codec, value codec     opens or makes a table, which gets the next number
//! 2 put     table number, key, value
//! 3 delete  table number, key                 in a multimap with all values of the key
//! 4 drop    name                              drops a table
//! 5 rename  name, new name
//! 6 remove  table number, low, high           removes the keys from low on and below high; a bound
//!                                             is one byte (0 none, 1 given) and the key if given
//! 7 table   name, key codec, value codec, flags, key order
//!                                             like 1, for a table with flags (`catalog::flags`); the
//!                                             key order only if the flags say that it has a name
//! 8 insert  table number, key, value          adds a value of a key to a multimap
//! 9 remove  table number, key, value          removes a value of a key from a multimap
//! ```
//!
//! A name, a codec, a key order, a key or a value is its length and its bytes. A table without
//! flags is recorded by operation 1, so that a file without such tables stays readable for releases
//! that know no flags.
//!
//! Failure: a body that does not decode is `None` in [`Operations::next_operation`].

use crate::catalog::{flags, TableRecord};
use crate::hooks::{self, Mutant};
use crate::page::log_record::HEADER_BYTES;

const TABLE: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const DROP: u8 = 4;
const RENAME: u8 = 5;
const REMOVE: u8 = 6;
const TABLE_WITH_FLAGS: u8 = 7;
const INSERT_VALUE: u8 = 8;
const REMOVE_VALUE: u8 = 9;

/// The record of the running transaction. It is filled as long as it is small enough.
#[derive(Debug, Default)]
pub(crate) struct TxnRecord {
    /// Room for the header, then the body.
    bytes: Vec<u8>,
    /// The most bytes that the record may have. 0: nothing is recorded.
    limit: usize,
    tables: u32,
    /// Bytes that a savepoint of the transaction needs. They stay when recording stops.
    needed: usize,
}

/// A record at a savepoint of its transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordMark {
    len: usize,
    limit: usize,
    tables: u32,
    /// The bytes that an earlier savepoint needs.
    needed_before: usize,
}

impl TxnRecord {
    /// Begins the record of a transaction, of at most `limit` bytes. With a limit of 0 nothing is
    /// recorded, and the transaction commits by checkpoint.
    pub(crate) fn begin(&mut self, limit: usize) {
        self.limit = limit;
        self.tables = 0;
        self.needed = 0;
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
    }

    /// Stops recording: the transaction commits by checkpoint, unless it goes back to a savepoint
    /// from before.
    pub(crate) fn give_up(&mut self) {
        self.limit = 0;
        match self.needed {
            0 => self.bytes = Vec::new(),
            needed => self.bytes.truncate(needed),
        }
    }

    /// Sets a savepoint.
    pub(crate) fn mark(&mut self) -> RecordMark {
        let TxnRecord { ref bytes, limit, tables, needed } = *self;
        if self.is_active() {
            self.needed = bytes.len();
        }
        RecordMark { len: self.needed, limit, tables, needed_before: needed }
    }

    /// Goes back to a savepoint, which stays. Records again, if recording has stopped since.
    pub(crate) fn roll_back(&mut self, mark: &RecordMark) {
        if hooks::is(Mutant::RecordNotRolledBack) {
            return;
        }
        (self.limit, self.tables, self.needed) = (mark.limit, mark.tables, mark.len);
        self.bytes.truncate(mark.len);
    }

    /// Gives up a savepoint and all after it.
    pub(crate) fn release(&mut self, mark: &RecordMark) {
        self.needed = mark.needed_before;
    }

    /// Whether operations are recorded.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.limit > 0
    }

    /// Returns the record, with room for its header, if it has every operation of the transaction.
    pub(crate) fn whole(&mut self) -> Option<&mut Vec<u8>> {
        self.is_active().then_some(&mut self.bytes)
    }

    /// Records that a table was opened or made. Returns its number in the record.
    pub(crate) fn table(&mut self, name: &str, table: &TableRecord) -> u32 {
        let TableRecord { flags, ref key_codec, ref value_codec, ref key_order, .. } = *table;
        if self.fits(name.len() + key_codec.len() + value_codec.len() + key_order.len()) {
            self.bytes.push(if flags == 0 { TABLE } else { TABLE_WITH_FLAGS });
            for part in [name, key_codec, value_codec] {
                self.bytes(part.as_bytes());
            }
            if flags != 0 {
                self.number(u64::from(flags));
            }
            if flags::is_order_named(flags) {
                self.bytes(key_order.as_bytes());
            }
        }
        self.tables += 1;
        self.tables - 1
    }

    pub(crate) fn put(&mut self, table: u32, key: &[u8], value: &[u8]) {
        // A value that is too long is not copied first.
        if self.fits(key.len() + value.len()) {
            self.bytes.push(PUT);
            self.number(u64::from(table));
            self.bytes(key);
            self.bytes(value);
        }
    }

    pub(crate) fn insert_value(&mut self, table: u32, key: &[u8], value: &[u8]) {
        self.pair(INSERT_VALUE, table, key, value);
    }

    pub(crate) fn remove_value(&mut self, table: u32, key: &[u8], value: &[u8]) {
        self.pair(REMOVE_VALUE, table, key, value);
    }

    fn pair(&mut self, operation: u8, table: u32, key: &[u8], value: &[u8]) {
        if self.fits(key.len() + value.len()) {
            self.bytes.push(operation);
            self.number(u64::from(table));
            self.bytes(key);
            self.bytes(value);
        }
    }

    pub(crate) fn delete(&mut self, table: u32, key: &[u8]) {
        if self.fits(key.len()) {
            self.bytes.push(DELETE);
            self.number(u64::from(table));
            self.bytes(key);
        }
    }

    pub(crate) fn drop_table(&mut self, name: &str) {
        if self.fits(name.len()) {
            self.bytes.push(DROP);
            self.bytes(name.as_bytes());
        }
    }

    pub(crate) fn rename_table(&mut self, from: &str, to: &str) {
        if self.fits(from.len() + to.len()) {
            self.bytes.push(RENAME);
            self.bytes(from.as_bytes());
            self.bytes(to.as_bytes());
        }
    }

    pub(crate) fn remove_range(&mut self, table: u32, low: Option<&[u8]>, high: Option<&[u8]>) {
        if self.fits(low.map_or(0, <[u8]>::len) + high.map_or(0, <[u8]>::len)) {
            self.bytes.push(REMOVE);
            self.number(u64::from(table));
            for bound in [low, high] {
                self.bytes.push(u8::from(bound.is_some()));
                bound.into_iter().for_each(|key| self.bytes(key));
            }
        }
    }

    /// Whether an operation with a value of `bytes` bytes fits the record. If not, stops recording.
    pub(crate) fn makes_room(&mut self, bytes: usize) -> bool {
        self.is_active() && self.fits(bytes)
    }

    /// Whether `bytes` more bytes fit the record. If not, stops recording.
    #[inline]
    fn fits(&mut self, bytes: usize) -> bool {
        let fits = self.bytes.len().saturating_add(bytes).saturating_add(64) <= self.limit;
        if !fits {
            self.give_up();
        }
        fits
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}

/// One operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation<'a> {
    Table { name: &'a str, key_codec: &'a str, value_codec: &'a str, flags: u32, key_order: &'a str },
    Put { table: u64, key: &'a [u8], value: &'a [u8] },
    InsertValue { table: u64, key: &'a [u8], value: &'a [u8] },
    RemoveValue { table: u64, key: &'a [u8], value: &'a [u8] },
    Delete { table: u64, key: &'a [u8] },
    Drop { name: &'a str },
    Rename { from: &'a str, to: &'a str },
    Remove { table: u64, low: Option<&'a [u8]>, high: Option<&'a [u8]> },
}

/// Reads the operations of a body.
#[derive(Debug)]
pub(crate) struct Operations<'a> {
    rest: &'a [u8],
}

impl<'a> Operations<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Operations<'a> {
        Operations { rest: body }
    }

    /// Whether all operations were read.
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns the next operation. `None` after the last one, and for bytes that do not decode.
    pub(crate) fn next_operation(&mut self) -> Option<Operation<'a>> {
        let (&tag, rest) = self.rest.split_first()?;
        let mut reader = Operations { rest };
        let operation = match tag {
            TABLE | TABLE_WITH_FLAGS => reader.table(tag == TABLE_WITH_FLAGS)?,
            PUT => Operation::Put { table: reader.number()?, key: reader.bytes()?, value: reader.bytes()? },
            INSERT_VALUE => {
                Operation::InsertValue { table: reader.number()?, key: reader.bytes()?, value: reader.bytes()? }
            }
            REMOVE_VALUE => {
                Operation::RemoveValue { table: reader.number()?, key: reader.bytes()?, value: reader.bytes()? }
            }
            DELETE => Operation::Delete { table: reader.number()?, key: reader.bytes()? },
            DROP => Operation::Drop { name: reader.text()? },
            RENAME => Operation::Rename { from: reader.text()?, to: reader.text()? },
            REMOVE => Operation::Remove { table: reader.number()?, low: reader.bound()?, high: reader.bound()? },
            _ => return None,
        };
        self.rest = reader.rest;
        Some(operation)
    }

    fn table(&mut self, has_flags: bool) -> Option<Operation<'a>> {
        let (name, key_codec, value_codec) = (self.text()?, self.text()?, self.text()?);
        let flags = if has_flags { u32::try_from(self.number()?).ok()? } else { 0 };
        let key_order = if flags::is_order_named(flags) { self.text()? } else { "" };
        Some(Operation::Table { name, key_codec, value_codec, flags, key_order })
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn bound(&mut self) -> Option<Option<&'a [u8]>> {
        let (&given, rest) = self.rest.split_first()?;
        self.rest = rest;
        match given {
            0 => Some(None),
            1 => self.bytes().map(Some),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TreeId;
    use crate::page::meta::TreeRoot;

    fn table(key_codec: &str, value_codec: &str, flags: u32, key_order: &str) -> TableRecord {
        let root = TreeRoot::empty(TreeId::FIRST_TABLE);
        let [key_codec, value_codec, key_order] = [key_codec, value_codec, key_order].map(str::to_string);
        TableRecord { flags, root, key_codec, value_codec, key_order }
    }

    fn body(fill: impl FnOnce(&mut TxnRecord)) -> Vec<u8> {
        let mut record = TxnRecord::default();
        record.begin(1 << 20);
        fill(&mut record);
        record.whole().expect("whole")[HEADER_BYTES..].to_vec()
    }

    #[test]
    fn operations_are_read_as_they_were_recorded() {
        let long = vec![7; 300];
        let body = body(|record| {
            assert_eq!(record.table("t", &table("str", "u64", 0, "")), 0);
            assert_eq!(record.table("u", &table("", "", 0, "")), 1);
            assert_eq!(record.table("v", &table("a", "b", 1 << 31, "")), 2);
            assert_eq!(record.table("w", &table("a", "b", flags::NAMED_ORDER, "acme")), 3);
            record.put(1, b"key", &long);
            record.insert_value(2, b"key", b"one");
            record.remove_value(2, b"", b"");
            record.delete(0, b"");
            record.drop_table("u");
            record.rename_table("t", "v");
            record.remove_range(0, None, Some(b"m"));
        });
        let mut operations = Operations::new(&body);
        let mut found = Vec::new();
        while let Some(operation) = operations.next_operation() {
            found.push(operation);
        }
        assert!(operations.is_done());
        assert_eq!(
            found,
            [
                Operation::Table { name: "t", key_codec: "str", value_codec: "u64", flags: 0, key_order: "" },
                Operation::Table { name: "u", key_codec: "", value_codec: "", flags: 0, key_order: "" },
                Operation::Table { name: "v", key_codec: "a", value_codec: "b", flags: 1 << 31, key_order: "" },
                Operation::Table { name: "w", key_codec: "a", value_codec: "b", flags: 6, key_order: "acme" },
                Operation::Put { table: 1, key: b"key", value: &long },
                Operation::InsertValue { table: 2, key: b"key", value: b"one" },
                Operation::RemoveValue { table: 2, key: b"", value: b"" },
                Operation::Delete { table: 0, key: b"" },
                Operation::Drop { name: "u" },
                Operation::Rename { from: "t", to: "v" },
                Operation::Remove { table: 0, low: None, high: Some(b"m") },
            ]
        );
    }

    #[test]
    fn no_bytes_make_the_reader_panic_and_every_cut_shows() {
        let whole = body(|record| {
            let table = record.table("t", &table("str", "u64", 0, ""));
            record.put(table, b"key", b"value");
            record.remove_range(table, Some(b"a"), None);
            record.table("u", &self::table("str", "u64", flags::NAMED_ORDER, "acme"));
        });
        let read = |body: &[u8]| {
            let mut operations = Operations::new(body);
            let mut count = 0;
            while operations.next_operation().is_some() {
                count += 1;
            }
            (count, operations.is_done())
        };
        assert_eq!(read(&whole), (4, true));
        for len in 0..whole.len() {
            let (count, is_done) = read(&whole[..len]);
            assert!(count < 4, "{len}: {count} operations, done: {is_done}");
        }
        let mut state = 1u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 40) as u8 % 11 * if state & 1 == 0 { 1 } else { 25 }
                })
                .collect();
            read(&bytes);
        }
    }

    #[test]
    fn a_record_goes_back_to_a_savepoint_also_after_recording_has_stopped() {
        let mut record = TxnRecord::default();
        record.begin(1000);
        let table = record.table("t", &self::table("", "", 0, ""));
        record.put(table, b"a", b"1");
        let before = record.whole().expect("whole").clone();
        let outer = record.mark();
        record.put(table, b"b", b"2");
        let longer = record.whole().expect("whole").clone();
        let inner = record.mark();
        record.put(record.tables - 1, b"c", &[3; 2000]);
        assert!(record.whole().is_none());
        let unrecorded = record.mark();
        record.roll_back(&unrecorded);
        assert!(record.whole().is_none());
        record.roll_back(&inner);
        assert_eq!(record.whole(), Some(&mut longer.clone()));
        record.release(&inner);
        record.put(table, b"d", &[3; 2000]);
        record.roll_back(&outer);
        assert_eq!(record.whole(), Some(&mut before.clone()));
        assert_eq!(record.table("u", &self::table("", "", 0, "")), 1);
        record.release(&outer);
        record.give_up();
        assert!(record.bytes.is_empty());
    }

    #[test]
    fn a_transaction_over_the_limit_has_no_record() {
        let mut record = TxnRecord::default();
        record.begin(1000);
        let table = record.table("t", &self::table("", "", 0, ""));
        record.put(table, b"a", &[1; 500]);
        assert!(record.is_active());
        record.put(table, b"b", &[1; 500]);
        assert!(!record.is_active() && record.whole().is_none());
        record.begin(0);
        assert!(record.whole().is_none());
    }
}
