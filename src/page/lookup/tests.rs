//! Compares the lookup functions with `Branch` and `Leaf`, on sound and damaged pages.

use proptest::prelude::*;

use super::*;
use crate::page::branch::{self, Branch, Child};
use crate::page::key::NoLongKeys;
use crate::page::layout::put_u16;
use crate::page::leaf::{self, Leaf, LeafValue, OverflowPtr};
use crate::page::tests::{any_key, key_set, ptr, ID, STAMP};

const LEVEL: usize = 3;

/// Checks FIND-1 for a branch, with vectors of every width. Returns whether [`child`] answered;
/// `None` without an answer.
fn check_branch(page: &[u8], level: usize, key: &[u8]) -> Option<bool> {
    if !is_sound(page, ID) {
        return None;
    }
    let (answer, at_once) = testing::branch(page, level, key)?;
    if answer.id.0 < 2 {
        return None;
    }
    let branch = Branch::parse(page, ID).expect("answered, so it parses");
    assert_eq!(usize::from(branch.level()), level);
    let index = branch.find(&NoLongKeys, key).expect("answered, so it finds");
    assert_eq!(branch.child(index), Ok(answer), "{key:?}");
    Some(at_once)
}

/// Checks FIND-1 for a leaf, with vectors of every width. Returns whether there was an answer.
fn check_leaf(page: &[u8], key: &[u8]) -> bool {
    if !is_sound(page, ID) {
        return false;
    }
    let Some(answer) = testing::leaf(page, key) else { return false };
    let leaf = Leaf::parse(page, ID).expect("answered, so it parses");
    let at = leaf.find(&NoLongKeys, key).expect("answered, so it finds");
    assert_eq!(at.map(|at| leaf.value(at)), answer.map(|value| Ok(LeafValue::Inline(value))), "{key:?}");
    true
}

/// A branch with these separators, or as many of them as fit.
fn branch_of(page_size: usize, keys: &[Vec<u8>]) -> (Vec<u8>, usize) {
    let mut children = vec![Child { sep: vec![].into(), ptr: ptr(1 << 40) }];
    let separators = keys.iter().filter(|key| !key.is_empty());
    children.extend(separators.zip(2..).map(|(sep, n)| Child { sep: sep.clone().into(), ptr: ptr((1 << 47) + n) }));
    let mut page = vec![0; page_size];
    while branch::build(&mut page, STAMP, LEVEL as u8, &children) == Ok(false) {
        children.truncate(children.len() / 2);
    }
    (page, children.len())
}

/// A leaf with these keys, or as many of them as fit; every seventh has an overflow value.
fn leaf_of(page_size: usize, mut keys: &[Vec<u8>], value: &[u8]) -> (Vec<u8>, usize) {
    let mut page = vec![0; page_size];
    let entry = |(at, key)| -> (&[u8], LeafValue<'_>) {
        let overflow = LeafValue::Overflow(OverflowPtr { ptr: ptr(9), len: 5000 });
        (Vec::as_slice(key), if at % 7 == 6 { overflow } else { LeafValue::Inline(value) })
    };
    while leaf::build(&mut page, STAMP, keys.iter().enumerate().map(entry)) == Ok(false) {
        keys = &keys[..keys.len() / 2];
    }
    (page, keys.len())
}

/// Each key, neighbours of it, and extreme keys.
fn around(keys: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut probes = vec![vec![], vec![0], vec![0xff; 40], vec![0; 40]];
    for key in keys {
        probes.extend([key.clone(), [key, &[0][..]].concat(), key[..key.len().saturating_sub(1)].to_vec()]);
        for at in [key.len().checked_sub(1), Some(0)].into_iter().flatten().filter(|at| *at < key.len()) {
            for change in [1, 0xff] {
                let mut near = key.clone();
                near[at] = near[at].wrapping_add(change);
                probes.push(near);
            }
        }
    }
    probes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn answers_on_sound_pages_equal_those_of_branch_and_leaf(
        keys in key_set(1000, 300),
        probes in prop::collection::vec(any_key(1000), 0..30),
        large: bool,
        value_bytes in prop_oneof![0usize..5, 0usize..200],
    ) {
        let page_size = if large { 8192 } else { 4096 };
        let probes = [around(&keys), probes].concat();
        let (page, children) = branch_of(page_size, &keys);
        for key in &probes {
            let answer = check_branch(&page, LEVEL, key);
            prop_assert!(answer.is_some() || children > heads::FEW, "every key of a sound branch has an answer");
            prop_assert_eq!(check_branch(&page, LEVEL - 1, key), None);
        }
        let (page, _) = leaf_of(page_size, &keys, &vec![7; value_bytes]);
        for key in &probes {
            check_leaf(&page, key);
        }
    }

    #[test]
    fn answers_on_damaged_pages_equal_those_of_branch_and_leaf(
        keys in key_set(200, 200),
        probes in prop::collection::vec(any_key(1000), 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        in_front in prop_oneof![Just(32usize), Just(200), Just(1500), Just(4096)],
        prefix in prop_oneof![2 => Just(None), 1 => (0u16..40).prop_map(Some), 1 => any::<u16>().prop_map(Some)],
        fill in prop::option::weighted(0.3, prop::collection::vec(any::<u8>(), 1..50)),
    ) {
        let probes = [around(&keys[..keys.len().min(20)]), probes].concat();
        for branch in [false, true] {
            let mut page = if branch { branch_of(4096, &keys).0 } else { leaf_of(4096, &keys, b"value").0 };
            if let Some(fill) = &fill {
                // The header stays valid. The bytes after it are noise.
                page[32..].iter_mut().zip(fill.iter().cycle()).for_each(|(byte, noise)| *byte = *noise);
            }
            if let Some(prefix) = prefix {
                put_u16(&mut page, 8, prefix);
            }
            for (at, value) in &flips {
                page[at.index(in_front)] ^= value;
            }
            for key in &probes {
                check_leaf(&page, key);
                check_branch(&page, LEVEL, key);
            }
        }
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), level in 0usize..300, times in 1usize..40) {
        let page = bytes.repeat(times);
        for key in [&b""[..], b"k", b"key-0005", &bytes] {
            check_leaf(&page, key);
            check_branch(&page, level, key);
        }
    }
}

/// Numbers that look random.
fn scattered(count: u64) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..count)
        .map(|n| {
            let word =
                |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            [word(n).to_be_bytes(), word(n + 1).to_be_bytes()].concat()
        })
        .collect();
    keys.sort();
    keys
}

#[test]
fn common_pages_take_the_fast_path() {
    let (all, ascending) = (scattered(1500), (0..1500u64).map(|n| (n << 30).to_be_bytes().to_vec()).collect());
    for keys in [all, ascending] {
        for stride in [6, 50, 100, 700, 1000] {
            // Short separators, as splits make them for keys that are far apart.
            let separators: Vec<Vec<u8>> = keys.iter().skip(1).step_by(stride).map(|key| key[..6].to_vec()).collect();
            let (page, children) = branch_of(4096, &separators);
            assert!(children == separators.len() + 1 || stride == 6);
            let probes = keys.iter().filter(|key| !separators.iter().any(|sep| sep[..4] == key[..4]));
            let slow = probes.clone().filter(|key| check_branch(&page, LEVEL, key) != Some(true)).count();
            // Only the lowest key may be slow: its head equals that of separator 0, which is 0.
            assert!(probes.count() > 300 && slow <= 1, "{slow}, stride {stride}");
        }
    }
    for count in [1, 2, 15, 16, 17, 31, 32, 33, 100] {
        for keys in [scattered(count), (0..count).map(|n| format!("user:{n:08}:name").into_bytes()).collect()] {
            let (page, fitted) = leaf_of(4096, &keys, b"12345678");
            assert_eq!(fitted, keys.len());
            for (at, key) in keys.iter().enumerate() {
                assert_eq!(check_leaf(&page, key), at % 7 != 6, "key {at} of {count}");
            }
            let absent = scattered(count + 50).into_iter().filter(|key| !keys.contains(key));
            // With one entry the whole key is the prefix, so the head does not distinguish keys.
            assert!(count == 1 || absent.into_iter().all(|key| check_leaf(&page, &key)));
        }
    }
}

#[test]
fn a_branch_with_any_number_of_children_is_answered() {
    for count in 0..248u64 {
        let separators: Vec<Vec<u8>> = (1..=count).map(|n| ((n * 3) as u32).to_be_bytes()[1..].to_vec()).collect();
        let (page, children) = branch_of(4096, &separators);
        assert_eq!(children as u64, count + 1);
        for n in 0..=count * 3 + 4 {
            for tail in [&[][..], &[0][..], &[9; 9][..]] {
                let key = [&(n as u32).to_be_bytes()[1..], tail].concat();
                assert!(check_branch(&page, LEVEL, &key).is_some());
            }
        }
    }
}

#[test]
fn a_value_that_looks_like_an_entry_is_not_found() {
    // A value that contains the bytes of an entry, and bytes after the slots that look like a slot
    // for it.
    let inner = [&[3, 0, 1, 0][..], b"zzz", b"!"].concat();
    let mut page = vec![0; 4096];
    let entries = [(&b"aaa"[..], LeafValue::Inline(b"")), (b"bbb", LeafValue::Inline(&inner))];
    leaf::build(&mut page, STAMP, entries.into_iter()).unwrap();
    let offset = (4096 - inner.len()) as u16;
    assert_eq!(page[6..8], [2, 0]);
    // The place where slot 2 would be.
    put_u16(&mut page, 32 + 8 + 4, offset);
    for key in [&b"zzz"[..], b"zzzz", b"zzzzzzzz"] {
        assert!(testing::leaf(&page, key).is_none_or(|answer| answer.is_none()), "{key:?}");
    }
    assert!(check_leaf(&page, b"aaa"));
}
