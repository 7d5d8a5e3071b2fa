//! Nested transactions to any depth: each makes some of the changes, then the next one inside it
//! makes the others and commits or is aborted.

use std::sync::Arc;

use mapleaf::WriteTxn;
use proptest::prelude::*;

use super::pairs::{self, any_pair_op, PairOp, MULTIS};
use super::{any_key, any_len, names, table, KeyOf, LenOf, Model};
use crate::kinds::same_pairs;
use crate::support::bytes;

#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(u8, KeyOf, LenOf),
    Delete(u8, KeyOf),
    Pairs(u8, PairOp),
    Drop(u8),
}

pub(super) fn any_change() -> impl Strategy<Value = Change> {
    let t = || 0..4u8;
    prop_oneof![
        5 => (t(), any_key(), any_len()).prop_map(|(t, key, len)| Change::Put(t, key, len)),
        2 => (t(), any_key()).prop_map(|(t, key)| Change::Delete(t, key)),
        5 => (MULTIS, any_pair_op()).prop_map(|(t, op)| Change::Pairs(t, op)),
        1 => (0..MULTIS.end).prop_map(Change::Drop),
    ]
}

fn apply(txn: &mut WriteTxn, model: &mut Model, change: &Change, (limit, page_size): (usize, usize)) {
    match change {
        Change::Put(t, key, len) => {
            let key = key.bytes(limit);
            let value = Arc::new(bytes(key.len() as u64, len.bytes(page_size)));
            let existed = txn.table(table(*t)).expect("table").put(&key, &value).expect("put");
            assert_eq!(existed, model.tables.entry(*t).or_default().insert(key, value).is_some());
        }
        Change::Delete(t, key) => {
            let key = key.bytes(limit);
            let existed = txn.table(table(*t)).expect("table").delete(&key).expect("delete");
            assert_eq!(existed, model.tables.entry(*t).or_default().remove(&key).is_some());
        }
        Change::Pairs(t, op) => pairs::steps(txn, &mut model.multis, *t, std::slice::from_ref(op), limit),
        Change::Drop(t) => {
            let there = model.tables.remove(t).is_some() | model.multis.remove(t).is_some();
            assert_eq!(txn.drop_table(&super::name_of(*t)).expect("dropped"), there);
        }
    }
}

/// Makes the first half of the changes, and the others in a transaction inside, to this depth. Bits
/// say which of these commit.
pub(super) fn run(
    txn: &mut WriteTxn,
    model: &mut Model,
    (depth, commits): (u8, u8),
    changes: &[Change],
    sizes: (usize, usize),
) {
    let inside = if depth == 0 { changes.len() } else { changes.len() / 2 };
    let (own, others) = changes.split_at(inside);
    own.iter().for_each(|change| apply(txn, model, change, sizes));
    if depth > 0 {
        let before = model.clone();
        let mut nested = txn.begin_nested().expect("begun");
        run(&mut nested, model, (depth - 1, commits >> 1), others, sizes);
        if commits % 2 == 1 {
            nested.commit().expect("committed");
        } else {
            nested.abort();
            *model = before;
        }
        assert_sees(txn, model);
    }
}

/// Compares everything that a write transaction sees with the model.
pub(super) fn assert_sees(txn: &WriteTxn, model: &Model) {
    let listed: Vec<(String, u64)> =
        txn.tables().expect("tables").into_iter().map(|table| (table.name, table.entries)).collect();
    assert_eq!(listed, names(model));
    for (t, entries) in &model.tables {
        let found = txn.read_table(table(*t)).expect("table");
        let expected = entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        assert!(found.iter().map(|entry| entry.expect("an entry")).eq(expected), "table {t}");
    }
    for (t, (_, pairs)) in &model.multis {
        same_pairs(&*txn.multi_bytes_table(&super::name_of(*t)).expect("a multimap"), pairs);
    }
}
