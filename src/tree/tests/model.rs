//! Random operations against a `BTreeMap`.

use proptest::prelude::*;

use super::*;
use crate::limits::{max_inline_key_bytes, MAX_KEY_BYTES};

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, usize),
    Delete(Vec<u8>),
    /// Deletes the existing entry at this fraction of the tree.
    DeleteAt(u16),
    /// Overwrites the existing entry at this fraction of the tree.
    Overwrite(u16, usize),
    Append(u8, usize),
    /// Puts as many keys in a row, up or down, from a start.
    Sequence(Vec<u8>, u8, bool),
    /// Deletes as many entries from a fraction of the tree on.
    DeleteSpan(u16, u8),
    /// Removes the range between two fractions of the tree.
    RemoveSpan(u16, u16),
    /// Removes the range between two keys; no upper bound if the last is set.
    RemoveRange(Vec<u8>, Vec<u8>, bool),
    /// Removes the entries that a hash rejects, one in so many (or all but those, if negative),
    /// from a fraction of the tree on up to another. Ends after so many entries.
    Retain(u16, u16, i8, u16, bool),
    /// Loads entries, and for each as many that follow it.
    Load(Vec<(Vec<u8>, usize)>, u8),
    Get(Vec<u8>),
    Commit,
}

/// Keys that share prefixes, differ by trailing zeros, and are long.
fn key(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(255u8)];
    prop_oneof![
        3 => prop::collection::vec(byte.clone(), 0..8),
        3 => (0..4usize, prop::collection::vec(byte.clone(), 0..6)).prop_map(|(prefix, tail)| {
            let prefix = [&b""[..], b"user:", b"a common and rather long prefix of keys", b"user:0000000"][prefix];
            [prefix, &tail].concat()
        }),
        4 => (0..=limit, any::<u16>()).prop_map(|(len, number)| {
            let mut key = vec![b'x'; len];
            let at = len.saturating_sub(2);
            key.truncate(at);
            key.extend(&number.to_be_bytes()[..len - at]);
            key
        }),
        2 => (any::<u16>(), 0..=limit).prop_map(move |(number, len)| {
            let mut key = number.to_be_bytes().to_vec();
            key.resize(len.max(2).min(limit), 0);
            key
        }),
    ]
}

fn value_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![5 => 0..40usize, 4 => 0..1100usize, 1 => 0..20_000usize]
}

/// Short keys, and long ones: with long common beginnings, up to the limit; many differ only in
/// their last bytes.
fn mixed_key(page_size: usize) -> BoxedStrategy<Vec<u8>> {
    let short = max_inline_key_bytes(page_size);
    let lengths = [short - 1, short, short + 1, 2 * short, page_size, 2 * page_size + 7, 60_000, MAX_KEY_BYTES];
    let lengths = lengths.map(|len| len.min(MAX_KEY_BYTES));
    let same = move |(at, fill, number): (usize, bool, u16)| {
        let mut key = vec![if fill { b'x' } else { b'a' }; lengths[at]];
        let end = key.len() - 2;
        key[end..].copy_from_slice(&number.to_be_bytes());
        key
    };
    prop_oneof![
        4 => key(short),
        5 => (0..lengths.len(), any::<bool>(), 0..80u16).prop_map(same),
        1 => key(MAX_KEY_BYTES),
    ]
    .boxed()
}

fn op(limit: usize) -> impl Strategy<Value = Op> {
    op_with(move || key(limit).boxed())
}

fn op_with(key: impl Fn() -> BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (key(), value_bytes()).prop_map(|(key, value)| Op::Put(key, value)),
        2 => key().prop_map(Op::Delete),
        5 => any::<u16>().prop_map(Op::DeleteAt),
        3 => (any::<u16>(), value_bytes()).prop_map(|(at, value)| Op::Overwrite(at, value)),
        3 => (any::<u8>(), value_bytes()).prop_map(|(step, value)| Op::Append(step, value)),
        2 => (key(), any::<u8>(), any::<bool>()).prop_map(|(key, count, up)| Op::Sequence(key, count, up)),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(at, count)| Op::DeleteSpan(at, count)),
        1 => (any::<u16>(), 0..12_000u16).prop_map(|(at, width)| Op::RemoveSpan(at, at.saturating_add(width))),
        1 => (key(), key(), prop::bool::weighted(0.1)).prop_map(|(a, b, open)| Op::RemoveRange(a, b, open)),
        2 => (any::<u16>(), 0..60_000u16, -20..20i8, any::<u16>(), any::<bool>()).prop_map(
            |(at, width, one_of, most, one)| Op::Retain(at, at.saturating_add(width), one_of, most, one)
        ),
        1 => (prop::collection::vec((key(), 0..1100usize), 0..16), any::<u8>())
            .prop_map(|(entries, count)| Op::Load(entries, if count % 16 == 0 { count / 4 } else { count / 64 })),
        2 => key().prop_map(Op::Get),
        1 => Just(Op::Commit),
    ]
}

fn nth_key(tree: &ModelTree, fraction: u16) -> Option<Vec<u8>> {
    let at = tree.model.len() * usize::from(fraction) / 65536;
    tree.model.keys().nth(at).cloned()
}

fn value(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + len) as u8).collect()
}

fn apply(tree: &mut ModelTree, op: &Op, limit: usize) {
    match op {
        Op::Put(key, len) => tree.put(key, &value(*len)),
        Op::Delete(key) => tree.delete(key),
        Op::DeleteAt(at) => nth_key(tree, *at).iter().for_each(|key| tree.delete(key)),
        Op::Overwrite(at, len) => nth_key(tree, *at).iter().for_each(|key| tree.put(key, &value(*len))),
        Op::Append(step, len) => {
            let mut key = tree.model.last_key_value().map_or(Vec::new(), |(key, _)| key.clone());
            match step % 3 {
                0 => key.push(*step),
                1 if key.len() > 1 => drop(key.pop()),
                _ => key.iter_mut().take(3).for_each(|byte| *byte = byte.saturating_add(step / 64)),
            }
            key.truncate(limit);
            tree.append(&key, &value(*len));
        }
        Op::Sequence(start, count, up) => {
            for number in 0..u32::from(*count) {
                let number = if *up { number } else { 1000 - number };
                let key = [&start[..start.len().min(limit - 4)], &number.to_be_bytes()].concat();
                tree.put(&key, &value(number as usize % 50));
            }
        }
        Op::DeleteSpan(at, count) => {
            let Some(start) = nth_key(tree, *at) else { return };
            let keys: Vec<_> = tree.model.range(start..).take((*count).into()).map(|(key, _)| key.clone()).collect();
            keys.iter().for_each(|key| tree.delete(key));
        }
        Op::RemoveSpan(from, to) => {
            let (Some(low), high) = (nth_key(tree, *from), nth_key(tree, *to)) else { return };
            tree.remove_range(&low, high.as_deref());
        }
        Op::RemoveRange(a, b, open) => tree.remove_range(a.min(b), Some(a.max(b).as_slice()).filter(|_| !open)),
        Op::Retain(from, to, one_of, most, one) => {
            let low = nth_key(tree, *from).unwrap_or_default();
            let high = nth_key(tree, *to).filter(|_| *to < u16::MAX);
            let hit = |key: &[u8]| crc32fast::hash(key).is_multiple_of(u32::from(one_of.unsigned_abs().max(1)));
            let most = if most % 3 == 0 { usize::from(most % 500) } else { usize::MAX };
            tree.retain((&low, high.as_deref()), &|key| hit(key) != (*one_of > 0), most, *one);
        }
        Op::Load(entries, count) => {
            let more = |(key, len): &(Vec<u8>, usize)| {
                let (key, len) = (key[..key.len().min(limit - 4)].to_vec(), *len);
                let follow = move |n: u32| ([key.as_slice(), &n.to_be_bytes()].concat(), value(len / (n as usize + 1)));
                (0..u32::from(*count)).map(follow).collect::<Vec<_>>()
            };
            let first = entries.iter().map(|(key, len)| (key.clone(), value(*len)));
            tree.load(first.chain(entries.iter().flat_map(more)).collect());
        }
        Op::Get(key) => tree.get(key),
        Op::Commit => drop(tree.verify()),
    }
}

fn run(page_size: usize, ops: &[Op]) {
    run_within(page_size, ops, max_inline_key_bytes(page_size));
}

fn run_within(page_size: usize, ops: &[Op], limit: usize) {
    let mut tree = ModelTree::new(page_size);
    for op in ops {
        apply(&mut tree, op, limit);
    }
    tree.verify();
    for key in tree.model.keys() {
        tree.get(key);
    }
    let keys: Vec<_> = tree.model.keys().cloned().collect();
    for key in keys.iter().step_by(2).chain(keys.iter().skip(1).step_by(2)) {
        tree.delete(key);
    }
    assert_eq!(tree.verify(), TreeStats::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_equals_a_map_4k(ops in prop::collection::vec(op(max_inline_key_bytes(4096)), 1..200)) {
        run(4096, &ops);
    }

    #[test]
    fn a_tree_equals_a_map_8k(ops in prop::collection::vec(op(max_inline_key_bytes(8192)), 1..120)) {
        run(8192, &ops);
    }

    #[test]
    fn a_tree_equals_a_map_32k(ops in prop::collection::vec(op(max_inline_key_bytes(32768)), 1..120)) {
        run(32768, &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_with_long_keys_equals_a_map_4k(ops in prop::collection::vec(op_with(|| mixed_key(4096)), 1..100)) {
        run_within(4096, &ops, MAX_KEY_BYTES);
    }

    #[test]
    fn a_tree_with_long_keys_equals_a_map_8k(ops in prop::collection::vec(op_with(|| mixed_key(8192)), 1..80)) {
        run_within(8192, &ops, MAX_KEY_BYTES);
    }

    #[test]
    fn a_tree_with_long_keys_equals_a_map_16k(ops in prop::collection::vec(op_with(|| mixed_key(16384)), 1..80)) {
        run_within(16384, &ops, MAX_KEY_BYTES);
    }

    #[test]
    fn a_tree_with_long_keys_equals_a_map_32k(ops in prop::collection::vec(op_with(|| mixed_key(32768)), 1..80)) {
        run_within(32768, &ops, MAX_KEY_BYTES);
    }
}

#[test]
fn a_tree_equals_a_map_in_a_long_run() {
    let times = std::env::var("MAPLEAF_LONG").ok().and_then(|times| times.parse().ok()).unwrap_or(0);
    let config = ProptestConfig { cases: 20 + 500 * times, ..ProptestConfig::default() };
    proptest!(config, |(ops in prop::collection::vec(op(max_inline_key_bytes(4096)), 1..400))| run(4096, &ops));
}
