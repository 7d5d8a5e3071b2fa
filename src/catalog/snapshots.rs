//! Records of named snapshots: the tree of names and the states that they keep.
//!
//! Floor: catalog. The tree of named snapshots is a B+tree of its own (tree 2), from the name of a
//! snapshot to its [`SnapshotRecord`]. Its root is a field of the state.
//!
//! Record, little-endian:
//!
//! ```text
//! 0 u8 version (1)  1 u8[3] zero  4 u32 next tree id  8 u64 txn  16 u64 page count  24 root of the catalog (24 bytes)
//! 48 u64 milliseconds since 1970 when it was created
//! ```
//!
//! Invariants:
//!   NAMED-1  txns of records are distinct, and each is before the state that holds the record.
//!   NAMED-2  every page that the catalog of a record reaches is inside the state that holds the
//!            record: in use, or pending.
//!
//! Failure: [`Error::Corrupt`] for malformed records, which names the snapshot; [`Error::Usage`]
//! and [`Error::TooLarge`] for names that no snapshot can have.

use crate::error::{Error, Result};
use crate::ids::{PageId, TreeId, TxnId, MAX_U48};
use crate::limits::MAX_SNAPSHOT_NAME_BYTES;
use crate::page::layout::{get_u32, get_u64, TREE_ROOT_BYTES};
use crate::page::meta::TreeRoot;
use crate::pager::PageRead;
use crate::tree::{Cursor, Tree};

const VERSION: u8 = 1;
const RECORD_BYTES: usize = 56;

/// The value of a named snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotRecord {
    /// The transaction that made the state.
    pub(crate) txn: TxnId,
    pub(crate) page_count: u64,
    pub(crate) catalog: TreeRoot,
    pub(crate) next_tree: TreeId,
    /// When it was created: milliseconds since 1970.
    pub(crate) created_millis: u64,
}

impl SnapshotRecord {
    /// Encodes the record.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, 0, 0, 0];
        bytes.extend(self.next_tree.0.to_le_bytes());
        bytes.extend(self.txn.0.to_le_bytes());
        bytes.extend(self.page_count.to_le_bytes());
        bytes.extend(self.catalog.encode());
        bytes.extend(self.created_millis.to_le_bytes());
        bytes
    }

    /// Decodes the record of a snapshot, in a state of this txn.
    pub(crate) fn decode(name: &str, bytes: &[u8], holder: TxnId) -> Result<SnapshotRecord> {
        let bad = |what: &str| {
            let remedy = "db.drop_snapshot or 'kvctl snapshot drop' removes it";
            Error::corrupt(PageId::NONE, format!("the record of snapshot '{name}' is damaged: {what}; {remedy}"))
        };
        if bytes.len() != RECORD_BYTES {
            return Err(bad("wrong length"));
        }
        if bytes[0] != VERSION {
            return Err(bad("unknown version"));
        }
        let catalog = TreeRoot::decode(&bytes[24..24 + TREE_ROOT_BYTES]).filter(|root| root.tree == TreeId::CATALOG);
        let record = SnapshotRecord {
            txn: TxnId(get_u64(bytes, 8)),
            page_count: get_u64(bytes, 16),
            catalog: catalog.ok_or_else(|| bad("impossible root of the catalog"))?,
            next_tree: TreeId(get_u32(bytes, 4)),
            created_millis: get_u64(bytes, 48),
        };
        let is_inside = record.catalog.height == 0 || record.catalog.ptr.id.0 < record.page_count;
        let checks = [
            (record.txn < holder, "its transaction is not before the state that holds it"),
            (record.page_count >= 2 && record.page_count <= MAX_U48 && is_inside, "impossible page count"),
            (record.next_tree >= TreeId::FIRST_TABLE, "impossible next tree id"),
        ];
        match checks.iter().find(|(good, _)| !good) {
            Some((_, what)) => Err(bad(what)),
            None => Ok(record),
        }
    }
}

/// Returns an error if a snapshot cannot have this name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::usage("the name of a snapshot must not be empty; give at least one character"));
    }
    if name.len() > MAX_SNAPSHOT_NAME_BYTES {
        let (len, limit) = (name.len() as u64, MAX_SNAPSHOT_NAME_BYTES as u64);
        return Err(Error::TooLarge { what: "snapshot name", len, limit, table: None });
    }
    Ok(())
}

/// Names and records of all snapshots in the tree of a state, in the order of names. A damaged
/// record is an error in its place.
pub(crate) fn list<P: PageRead>(
    pages: &P,
    root: &TreeRoot,
    holder: TxnId,
) -> Result<Vec<(String, Result<SnapshotRecord>)>> {
    let mut found = Vec::new();
    let mut cursor = Cursor::new(Tree::new(pages, root));
    let mut next = cursor.seek_first().map_err(in_tree)?;
    while let Some((key, value)) = next {
        let name = String::from_utf8_lossy(key).into_owned();
        let record = SnapshotRecord::decode(&name, value, holder);
        found.push((name, record));
        next = cursor.next().map_err(in_tree)?;
    }
    Ok(found)
}

/// The record of a snapshot, if there is one of this name.
pub(crate) fn find<P: PageRead>(
    pages: &P,
    root: &TreeRoot,
    name: &str,
    holder: TxnId,
) -> Result<Option<SnapshotRecord>> {
    check_name(name)?;
    let found = Tree::new(pages, root).get(name.as_bytes()).map_err(in_tree)?;
    found.map(|bytes| SnapshotRecord::decode(name, bytes, holder)).transpose()
}

/// Says of damage that it is in the tree of named snapshots.
fn in_tree(e: Error) -> Error {
    match e {
        Error::Corrupt { path, page, table, what } => {
            Error::Corrupt { path, page, table, what: format!("the tree of named snapshots: {what}") }
        }
        other => other,
    }
}

/// The error for a snapshot that does not exist.
#[cold]
pub(crate) fn absent(name: &str, others: &[String]) -> Error {
    const LISTED: usize = 10;
    let listed: Vec<String> = others.iter().take(LISTED).map(|other| format!("'{other}'")).collect();
    let there_are = match (others.len(), listed.join(", ")) {
        (0, _) => "the database has none".to_string(),
        (1..=LISTED, listed) => format!("there is {listed}"),
        (count, listed) => format!("there are {count}, such as {listed}"),
    };
    Error::usage(format!("there is no snapshot '{name}'; {there_are}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PagePtr;

    const HOLDER: TxnId = TxnId(1 << 40);

    fn record() -> SnapshotRecord {
        SnapshotRecord {
            txn: TxnId((1 << 40) - 1),
            page_count: 1 << 41,
            catalog: TreeRoot {
                ptr: PagePtr { id: PageId((1 << 41) - 1), crc: 77 },
                height: 3,
                entries: 1 << 50,
                tree: TreeId::CATALOG,
                ..TreeRoot::default()
            },
            next_tree: TreeId(u32::MAX),
            created_millis: 1 << 42,
        }
    }

    #[test]
    fn records_round_trip_and_have_the_documented_bytes() {
        let bytes = record().encode();
        assert_eq!(SnapshotRecord::decode("s", &bytes, HOLDER).expect("decodes"), record());
        assert_eq!(bytes.len(), RECORD_BYTES);
        assert_eq!(bytes[..16], *b"\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0");
        assert_eq!(bytes[24..36], *b"\xff\xff\xff\xff\xff\x01\x4d\0\0\0\x03\0");
    }

    #[test]
    fn damaged_records_are_refused_by_name_and_with_the_remedy() {
        let good = record().encode();
        let mut cases: Vec<(Vec<u8>, &str)> = (0..RECORD_BYTES).map(|len| (good[..len].to_vec(), "length")).collect();
        let changed = |at: usize, bytes: &[u8]| {
            let mut record = good.clone();
            record[at..at + bytes.len()].copy_from_slice(bytes);
            record
        };
        cases.push((changed(0, &[2]), "version"));
        cases.push((changed(4, &[15, 0, 0, 0]), "next tree id"));
        cases.push((changed(8, &HOLDER.0.to_le_bytes()), "transaction"));
        cases.push((changed(16, &1u64.to_le_bytes()), "page count"));
        cases.push((changed(16, &((1u64 << 41) - 1).to_le_bytes()), "page count"));
        cases.push((changed(34, &[33]), "root"));
        cases.push((changed(44, &[1]), "root"));
        for (bytes, what) in cases {
            let e = SnapshotRecord::decode("before", &bytes, HOLDER).expect_err(what).to_string();
            assert!(e.contains(what) && e.contains("'before'") && e.contains("drop"), "{e}");
        }
    }

    #[test]
    fn names_have_from_1_to_255_bytes() {
        assert!(check_name("").is_err() && check_name(&"n".repeat(256)).is_err());
        assert!(check_name("n").is_ok() && check_name(&"n".repeat(255)).is_ok());
    }

    #[test]
    fn the_error_of_an_absent_snapshot_says_which_there_are() {
        let names = |count: usize| (0..count).map(|n| format!("s{n}")).collect::<Vec<_>>();
        let text = |count| absent("x", &names(count)).to_string();
        assert_eq!(text(0), "there is no snapshot 'x'; the database has none");
        assert_eq!(text(2), "there is no snapshot 'x'; there is 's0', 's1'");
        assert!(text(11).contains("there are 11, such as 's0', 's1'") && !text(11).contains("'s10'"));
    }
}
