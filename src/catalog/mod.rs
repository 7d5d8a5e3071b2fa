//! The catalog: the tree of table names and table records.
//!
//! Floor: catalog. The catalog is a B+tree of its own (tree 0) from table name to [`TableRecord`].
//! Records are plain bytes, so that recovery, check and tools need no codec.
//!
//! `spec.rs` says how a table is opened ([`TableSpec`]), and has the flags. `txn/write/tables.rs`
//! makes the record of a new table, with the flags of the spec. [`TableRecord::known_flags`]
//! refuses flags that are not in `flags::KNOWN`; all code that opens a table calls it first. The
//! commit log, compaction and salvage carry flags without looking at them; `flags::features` says
//! which required feature a flag needs.
//!
//! Record, little-endian:
//!
//! ```text
//! 0 u8 version (1)  1 u32 flags  5 u32 tree id  9 u48 root page  15 u32 root checksum  19 u8 height  20 u64 entries
//! 28 u16 length of the key codec's name, the name, u16 length of the value codec's name, the name
//!    u16 length of the key order's name, the name: only if the flags say that the order has a name
//!    u64 values of all keys: only in a multimap
//! ```
//!
//! Invariants:
//!   CATALOG-1  tree ids are unique and below the state's next tree id.
//!   CATALOG-2  a table with unknown flags is refused with an error that says so. Other tables are
//!              not affected.
//!
//! Failure: [`Error::Corrupt`] for malformed records, [`Error::Usage`] and [`Error::TooLarge`] for
//! invalid names.

pub(crate) mod orders;
pub(crate) mod snapshots;
mod spec;

use crate::error::{Error, Result};
use crate::ids::{PageId, PagePtr, TreeId};
use crate::limits::MAX_TABLE_NAME_BYTES;
use crate::page::layout::{get_u16, get_u32, get_u48, get_u64};
use crate::page::meta::TreeRoot;

pub(crate) use spec::{flags, Asked, TableOrder, TableSpec};

const RECORD_VERSION: u8 = 1;
const FIXED_BYTES: usize = 28;

/// The value of a table in the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableRecord {
    pub(crate) flags: u32,
    pub(crate) root: TreeRoot,
    pub(crate) key_codec: String,
    pub(crate) value_codec: String,
    /// The name of the order of keys. Empty unless the flags say that it has one.
    pub(crate) key_order: String,
}

impl TableRecord {
    /// Entries of the table; in a multimap, pairs.
    pub(crate) fn entries(&self) -> u64 {
        match self.root.shape.is_multi() {
            true => self.root.pairs,
            false => self.root.entries,
        }
    }

    /// Encodes the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let names = [&self.key_codec, &self.value_codec, &self.key_order];
        let names = &names[..if flags::is_order_named(self.flags) { 3 } else { 2 }];
        let mut bytes = Vec::with_capacity(FIXED_BYTES + names.iter().map(|name| 2 + name.len()).sum::<usize>());
        bytes.push(RECORD_VERSION);
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.root.tree.0.to_le_bytes());
        bytes.extend(&self.root.ptr.id.0.to_le_bytes()[..6]);
        bytes.extend(self.root.ptr.crc.to_le_bytes());
        bytes.push(self.root.height);
        bytes.extend(self.root.entries.to_le_bytes());
        for name in names {
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        if self.flags & flags::MULTIMAP != 0 {
            bytes.extend(self.root.pairs.to_le_bytes());
        }
        bytes
    }

    /// Decodes a record.
    pub(crate) fn decode(bytes: &[u8]) -> Result<TableRecord> {
        let bad = |what: &str| Error::corrupt(PageId::NONE, format!("table record: {what}"));
        if bytes.len() < FIXED_BYTES {
            return Err(bad("too short"));
        }
        if bytes[0] != RECORD_VERSION {
            return Err(bad("unknown version"));
        }
        let mut root = TreeRoot {
            ptr: PagePtr { id: PageId(get_u48(bytes, 9)), crc: get_u32(bytes, 15) },
            height: bytes[19],
            entries: get_u64(bytes, 20),
            tree: TreeId(get_u32(bytes, 5)),
            ..TreeRoot::default()
        };
        if root.height > 0 && root.ptr.id.0 < 2 {
            // No pointer may lead to a meta page, because they are overwritten in place.
            return Err(bad("its root is a meta page"));
        }
        let (key_codec, rest) = take_name(&bytes[FIXED_BYTES..]).ok_or_else(|| bad("malformed codec name"))?;
        let (value_codec, rest) = take_name(rest).ok_or_else(|| bad("malformed codec name"))?;
        let flags = get_u32(bytes, 1);
        let (key_order, rest) = match flags::is_order_named(flags) {
            true => take_name(rest).ok_or_else(|| bad("malformed name of the key order"))?,
            false => (String::new(), rest),
        };
        (root.shape, root.order) = (flags::shape(flags), flags::order(flags));
        let rest = match root.shape.is_multi() {
            true => {
                let (pairs, rest) = rest.split_first_chunk().ok_or_else(|| bad("no number of values"))?;
                root.pairs = u64::from_le_bytes(*pairs);
                rest
            }
            false => rest,
        };
        if !rest.is_empty() {
            return Err(bad("bytes after its end"));
        }
        Ok(TableRecord { flags, root, key_codec, value_codec, key_order })
    }

    /// Returns an error if the table cannot be opened as `spec` says.
    pub(crate) fn check_spec(&self, name: &str, spec: TableSpec<'_>) -> Result<()> {
        self.check_kind(name, spec)?;
        self.check_codecs(name, spec.codecs)
    }

    /// Returns an error if a flag or the order of keys differs from those of `spec`, as far as they
    /// are compared.
    #[inline]
    pub(crate) fn check_kind(&self, name: &str, spec: TableSpec<'_>) -> Result<()> {
        let same_flags = (self.flags ^ spec.flags) & spec.compared == 0;
        let same_order = spec.compared & flags::KEY_ORDER == 0 || self.key_order == spec.key_order;
        match same_flags && same_order {
            true if spec.compared == 0 => Ok(()),
            true => self.check_order(name),
            false => Err(self.wrong_kind(name, spec)),
        }
    }

    #[cold]
    fn wrong_kind(&self, name: &str, spec: TableSpec<'_>) -> Error {
        let compared = |flags: u32, order: &str| spec::kind_text(flags & spec.compared, order);
        let (stored, asked) = (compared(self.flags, &self.key_order), compared(spec.flags, spec.key_order));
        let (refused, remedy) = match spec.codecs {
            Asked::Made(..) => ("was to be made", "choose another name, or drop the table first"),
            _ if (self.flags ^ spec.flags) & spec.compared & flags::MULTIMAP == 0 => {
                ("was opened", "open it as what it is")
            }
            _ if self.flags & flags::MULTIMAP != 0 => {
                ("was opened", "open it with multi_table, or as raw bytes with multi_bytes_table")
            }
            _ => ("was opened", "open it with table, or as raw bytes with bytes_table"),
        };
        Error::usage(format!("table '{name}' is {stored} and {refused} as {asked}; {remedy}"))
    }

    /// Returns an error if the table cannot be opened as `asked`.
    pub(crate) fn check_codecs(&self, name: &str, asked: Asked<'_>) -> Result<()> {
        let fits = |stored: &str, asked: &str| stored == asked || (stored.is_empty() && OF_NO_TYPE.contains(&asked));
        let is_right = match asked {
            Asked::Bytes => true,
            Asked::Types(key, value) => fits(&self.key_codec, key) && fits(&self.value_codec, value),
            Asked::Made(key, value) => self.key_codec == key && self.value_codec == value,
        };
        if is_right {
            return Ok(());
        }
        Err(self.wrong_codecs(name, asked))
    }

    #[cold]
    fn wrong_codecs(&self, name: &str, asked: Asked<'_>) -> Error {
        let stored = types_text(&self.key_codec, &self.value_codec);
        let (key, value) = asked.codecs_of_new();
        let asked_for = types_text(key, value);
        let has_no_type = self.key_codec.is_empty() || self.value_codec.is_empty();
        let (refused, remedy) = match asked {
            Asked::Made(..) => ("was to be made", "choose another name, or drop the table first".to_string()),
            _ if has_no_type => (
                "was opened",
                "a side without a type opens as text or bytes only: open it so, or copy the entries to a table that \
                 has these types"
                    .to_string(),
            ),
            _ => ("was opened", format!("open it {stored}, or as raw bytes with bytes_table")),
        };
        Error::usage(format!("table '{name}' was made {stored} and {refused} {asked_for}; {remedy}"))
    }

    /// Returns an error if a flag is set that this build does not know: then it cannot read this
    /// kind of table.
    #[inline]
    pub(crate) fn known_flags(&self, name: &str) -> Result<()> {
        check_flags(name, self.flags)
    }
}

/// Returns an error if a flag is set that this build does not know.
#[inline]
pub(crate) fn check_flags(name: &str, flags: u32) -> Result<()> {
    let unknown = match flags & flags::MULTIMAP {
        0 if flags & flags::KEY_ORDER == flags::NATIVE_ORDER => flags,
        0 => flags & !(flags::KNOWN & !flags::VALUE_BYTES),
        _ => flags & !(flags::KNOWN & !flags::KEY_ORDER),
    };
    match unknown {
        0 => Ok(()),
        unknown => Err(unknown_flags(name, unknown)),
    }
}

#[cold]
fn unknown_flags(name: &str, unknown: u32) -> Error {
    let kind = match unknown {
        bits if bits & flags::KEY_ORDER != 0 => "a table with another key order",
        _ => "a table of an unknown kind",
    };
    Error::usage(format!("table '{name}' is {kind}, which needs a newer release of Mapleaf"))
}

/// Codecs with which keys or values without a type may be opened. `bytes` accepts any bytes; `str`
/// returns an error for bytes that are not UTF-8.
const OF_NO_TYPE: [&str; 2] = ["str", "bytes"];

/// The types of a table, for error messages.
fn types_text(key: &str, value: &str) -> String {
    let shown = |codec: &str| if codec.is_empty() { "no type" } else { codec }.to_string();
    match (key, value) {
        ("", "") => "without types".to_string(),
        _ => format!("as <{}, {}>", shown(key), shown(value)),
    }
}

fn take_name(bytes: &[u8]) -> Option<(String, &[u8])> {
    let len = usize::from(get_u16(bytes.get(..2)?, 0));
    let name = std::str::from_utf8(bytes.get(2..2 + len)?).ok()?;
    Some((name.to_string(), &bytes[2 + len..]))
}

/// Returns an error if a table cannot have this name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::usage("a table name must not be empty; give at least one character"));
    }
    if name.len() > MAX_TABLE_NAME_BYTES {
        return Err(Error::TooLarge {
            what: "table name",
            len: name.len() as u64,
            limit: MAX_TABLE_NAME_BYTES as u64,
            table: None,
        });
    }
    Ok(())
}

/// The table name in a key of the catalog. Names are UTF-8.
pub(crate) fn name_of(key: &[u8]) -> Result<String> {
    match std::str::from_utf8(key) {
        Ok(name) if check_name(name).is_ok() => Ok(name.to_string()),
        _ => Err(Error::corrupt(PageId::NONE, "a table name in the catalog is malformed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::value_set::Shape;

    fn record() -> TableRecord {
        TableRecord {
            flags: 0,
            root: TreeRoot {
                ptr: PagePtr { id: PageId(1 << 40), crc: 77 },
                height: 3,
                entries: 1 << 50,
                tree: TreeId(9),
                ..TreeRoot::default()
            },
            key_codec: "(str,u64)".into(),
            value_codec: String::new(),
            key_order: String::new(),
        }
    }

    #[test]
    fn records_round_trip_and_every_truncation_is_refused() {
        let ordered = TreeRoot { order: flags::order(flags::NAMED_ORDER), ..record().root };
        let named = TableRecord { flags: flags::NAMED_ORDER, key_order: "acme".into(), root: ordered, ..record() };
        let root = |shape| TreeRoot { shape, pairs: 1 << 40, ..record().root };
        let multi = TableRecord { flags: 9, root: root(Shape::Variable), ..record() };
        let fixed = TableRecord { flags: 8 << 16 | 1, root: root(Shape::Fixed(8)), ..record() };
        for record in [record(), TableRecord { flags: 8, ..record() }, named, multi, fixed] {
            let bytes = record.encode();
            assert_eq!(TableRecord::decode(&bytes).expect("decodes"), record);
            for len in 0..bytes.len() {
                assert!(TableRecord::decode(&bytes[..len]).is_err(), "{len}");
            }
        }
    }

    #[test]
    fn a_table_opens_with_its_own_kind_and_order_only() {
        let of = |flags, key_order: &str| TableRecord { flags, key_order: key_order.into(), ..record() };
        let spec = |flags, key_order| TableSpec { flags, key_order, ..TableSpec::types("(str,u64)", "") };
        let kinds = [(0, ""), (1, ""), (2, ""), (3, ""), (6, "a"), (6, "b")];
        for (at, (flags, order)) in kinds.into_iter().enumerate() {
            for (asked_at, (asked, asked_order)) in kinds.into_iter().enumerate() {
                let opened = of(flags, order).check_spec("t", spec(asked, asked_order));
                assert_eq!(opened.is_ok(), at == asked_at, "{flags} {order} as {asked} {asked_order}");
            }
            assert!(of(flags, order).check_spec("t", TableSpec::any()).is_ok());
            assert_eq!(of(flags, order).check_spec("t", TableSpec::bytes()).is_ok(), flags & 1 == 0);
        }
        let text = |record: TableRecord, spec| record.check_spec("t", spec).expect_err("refused").to_string();
        assert_eq!(
            text(of(6, "a"), spec(2, "")),
            "table 't' is a table with keys in the order 'a' and was opened as a table with keys in descending order; \
             open it as what it is"
        );
        assert_eq!(
            text(of(1, ""), TableSpec::made("(str,u64)", "")),
            "table 't' is a multimap table with keys in bytewise order and was to be made as a table with keys in \
             bytewise order; choose another name, or drop the table first"
        );
    }

    #[test]
    fn reserved_kinds_are_refused_by_name() {
        for (bits, text) in [(4, "key order"), (3, "key order"), (8, "unknown kind"), (8 << 16, "unknown kind")] {
            let error = TableRecord { flags: bits, ..record() }.known_flags("t").expect_err("refused");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_side_without_a_type_opens_as_text_or_bytes_only() {
        let record =
            |key: &str, value: &str| TableRecord { key_codec: key.into(), value_codec: value.into(), ..record() };
        let opens = |record: &TableRecord, asked| record.check_codecs("t", asked).is_ok();
        for (key, value) in [("str", "str"), ("bytes", "str"), ("str", "bytes"), ("bytes", "bytes")] {
            assert!(opens(&record("", ""), Asked::Types(key, value)), "{key} {value}");
        }
        for (key, value) in [("str", "u64"), ("u64", "str"), ("str", "()"), ("[u8;4]", "bytes"), ("(str,str)", "str")] {
            assert!(!opens(&record("", ""), Asked::Types(key, value)), "{key} {value}");
        }
        assert!(opens(&record("u64", ""), Asked::Types("u64", "str")));
        assert!(!opens(&record("u64", ""), Asked::Types("str", "str")));
        // A table with types opens only with these: `bytes` is not `str`.
        assert!(!opens(&record("bytes", "bytes"), Asked::Types("str", "bytes")));
        assert!(!opens(&record("", ""), Asked::Made("str", "str")));
        assert!(opens(&record("", ""), Asked::Made("", "")));
        assert!(opens(&record("u8", "acme"), Asked::Bytes));
    }

    #[test]
    fn the_refusal_of_a_codec_names_table_both_types_and_the_remedy() {
        let text = |record: &TableRecord, asked| record.check_codecs("t", asked).expect_err("refused").to_string();
        let typed = TableRecord { key_codec: "str".into(), value_codec: "u64".into(), ..record() };
        let untyped = TableRecord { key_codec: String::new(), value_codec: String::new(), ..record() };
        assert_eq!(
            text(&typed, Asked::Types("str", "i64")),
            "table 't' was made as <str, u64> and was opened as <str, i64>; open it as <str, u64>, or as raw bytes with \
             bytes_table"
        );
        assert_eq!(
            text(&untyped, Asked::Types("str", "u64")),
            "table 't' was made without types and was opened as <str, u64>; a side without a type opens as text or bytes \
             only: open it so, or copy the entries to a table that has these types"
        );
        assert_eq!(
            text(&typed, Asked::Made("str", "")),
            "table 't' was made as <str, u64> and was to be made as <str, no type>; choose another name, or drop the \
             table first"
        );
    }

    #[test]
    fn empty_and_too_long_table_names_are_refused() {
        assert!(check_name("").is_err());
        assert!(check_name(&"n".repeat(MAX_TABLE_NAME_BYTES)).is_ok());
        assert!(check_name(&"n".repeat(MAX_TABLE_NAME_BYTES + 1)).is_err());
    }
}
