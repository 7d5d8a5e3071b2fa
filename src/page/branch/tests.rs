//! Branches against a sorted `Vec` of separators.

use proptest::prelude::*;

use super::*;
use crate::ids::PageId;
use crate::limits::max_inline_key_bytes;
use crate::page::header::PageStamp;
use crate::page::key::NoLongKeys;
use crate::page::tests::{any_key, key_set, ptr, ID, STAMP};

/// Children with their separators; the first separator is empty.
type Model = Vec<(Vec<u8>, PagePtr)>;

fn children(model: &Model) -> Vec<Child> {
    model.iter().map(|(sep, ptr)| Child { sep: sep.clone().into(), ptr: *ptr }).collect()
}

fn check(branch: Branch<'_>, model: &Model, probes: &[Vec<u8>]) {
    assert_eq!(branch.verify(), Ok(()));
    assert_eq!((branch.count(), branch.level()), (model.len(), 3));
    let mut found = PageKeyBuf::from(vec![1, 2, 3]);
    for (index, (sep, ptr)) in model.iter().enumerate() {
        assert_eq!(branch.child(index), Ok(*ptr));
        branch.separator_into(index, &mut found).unwrap();
        assert_eq!((&found.bytes, found.long), (sep, None));
        assert!(index == 0 || sep.starts_with(branch.prefix()));
    }
    assert_eq!(branch.used_bytes() + branch.free_bytes() + 128, branch.page().len());
    for probe in probes.iter().chain(model.iter().map(|(sep, _)| sep)) {
        let expected = model.iter().skip(1).filter(|(sep, _)| sep <= probe).count();
        assert_eq!(branch.find(&NoLongKeys, probe), Ok(expected), "find {probe:?}");
    }
}

/// Keys just below and above every separator.
fn neighbours(model: &Model) -> Vec<Vec<u8>> {
    let mut probes = vec![vec![], vec![0], vec![0xff; 1100]];
    for (sep, _) in model.iter().skip(1) {
        probes.push([sep.as_slice(), &[0]].concat());
        probes.push(sep[..sep.len().saturating_sub(1)].to_vec());
        let mut below = sep.clone();
        if let Some(last) = below.last_mut() {
            *last = last.wrapping_sub(1);
        }
        probes.push(below);
    }
    probes
}

fn model_of(keys: Vec<Vec<u8>>) -> Model {
    let separators = keys.into_iter().filter(|key| !key.is_empty());
    std::iter::once(vec![]).chain(separators).zip(2..).map(|(sep, n)| (sep, ptr((1 << 47) + n))).collect()
}

fn insert(branch: &mut BranchMut<'_>, model: &mut Model, key: Vec<u8>, to: PagePtr) {
    let at = model.partition_point(|(sep, _)| *sep <= key);
    let before = branch.as_branch().page().to_vec();
    let shares = key.starts_with(branch.as_branch().prefix());
    let tail = key.len() - if shares { branch.as_branch().prefix().len() } else { 0 };
    let fits = 16 + if tail > 4 { tail - 2 } else { 0 } <= branch.as_branch().free_bytes();
    assert_eq!(branch.insert(at, &key, to), Ok(shares && fits));
    if shares && fits {
        model.insert(at, (key, to));
    } else {
        assert_eq!(branch.as_branch().page(), before, "a refused change leaves the page untouched");
    }
}

fn apply(page_size: usize, keys: Vec<Vec<u8>>, ops: Vec<(Vec<u8>, u8)>, probes: &[Vec<u8>]) {
    let mut model = model_of(keys);
    let mut page = vec![0xee; page_size];
    while build(&mut page, STAMP, 3, &children(&model)) == Ok(false) {
        assert!(built_bytes(page_size, crate::page::order::Order::Bytewise, &children(&model)) > page_size);
        assert!(page.iter().all(|byte| *byte == 0xee), "a refused change leaves the page untouched");
        model.truncate(model.len() / 2);
    }
    let built = Branch::parse(&page, ID).unwrap();
    check(built, &model, probes);
    check(built, &model, &neighbours(&model));
    assert_eq!(
        built_bytes(page_size, crate::page::order::Order::Bytewise, &children(&model)),
        128 + built.used_bytes()
    );
    let mut branch = BranchMut::open(&mut page, ID).unwrap();
    for (step, (key, op)) in ops.into_iter().enumerate() {
        let at = model.partition_point(|(sep, _)| *sep <= key);
        match op {
            0 if model.len() > 1 => {
                branch.remove_first().unwrap();
                model.remove(0);
                model[0].0.clear();
            }
            0 => assert!(branch.remove_first().is_err()),
            1..=3 if at > 1 => {
                branch.remove(at - 1).unwrap();
                model.remove(at - 1);
            }
            1..=3 => assert!(branch.remove(0).is_err()),
            4 => {
                model[at - 1].1 = ptr(1000 + step as u64);
                branch.set_child(at - 1, model[at - 1].1).unwrap();
            }
            _ if model[at - 1].0 == key => {}
            _ => insert(&mut branch, &mut model, key, ptr(5_000_000_000 + step as u64)),
        }
        if step % 8 == 0 {
            check(branch.as_branch(), &model, probes);
        }
    }
    let reread = Branch::parse(&page, ID).unwrap();
    check(reread, &model, probes);
    check(reread, &model, &neighbours(&model));
}

fn any_ops(page_size: usize) -> impl Strategy<Value = Vec<(Vec<u8>, u8)>> {
    prop::collection::vec((any_key(max_inline_key_bytes(page_size)), 0u8..14), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_branch_of_4k_agrees_with_a_vec(keys in key_set(1000, 300), ops in any_ops(4096), probes in prop::collection::vec(any_key(1000), 0..30)) {
        apply(4096, keys, ops, &probes);
    }

    #[test]
    fn a_branch_of_32k_agrees_with_a_vec(keys in key_set(8168, 900), ops in any_ops(32768), probes in prop::collection::vec(any_key(8168), 0..10)) {
        apply(32768, keys, ops, &probes);
    }
}

#[test]
fn a_branch_with_any_number_of_children_finds_each_of_them() {
    for page_size in [4096, 32768] {
        let most = (page_size - 128) / 16;
        for count in (1..=most.min(300)).chain([most]) {
            let model = model_of((1..count).map(|n| (n as u32 * 3).to_be_bytes()[1..].to_vec()).collect());
            let mut page = vec![0; page_size];
            assert_eq!(build(&mut page, STAMP, 3, &children(&model)), Ok(true), "{count} of {page_size}");
            let branch = Branch::parse(&page, ID).unwrap();
            for (index, n) in (0..count).step_by(1 + count / 300).map(|n| (n, n as u32 * 3)) {
                let key = |n: u32| n.to_be_bytes()[1..].to_vec();
                assert_eq!(branch.find(&NoLongKeys, &key(n)), Ok(index));
                assert_eq!(branch.find(&NoLongKeys, &key(n + 2)), Ok(index));
                assert_eq!(branch.find(&NoLongKeys, &[key(n), vec![0]].concat()), Ok(index));
            }
        }
        let mut page = vec![0; page_size];
        let model = model_of((0..most).map(|n| (n as u32 + 1).to_be_bytes().to_vec()).collect());
        assert_eq!(build(&mut page, STAMP, 3, &children(&model)), Ok(false), "one more than fits");
    }
}

#[test]
fn separators_with_equal_heads_are_told_apart() {
    // Tails of 0 to 6 bytes that all have the same head, after a short and a long prefix.
    for prefix in [0, 3, 24, 25, 300] {
        let keys: Vec<Vec<u8>> =
            (0..7).map(|zeros| [vec![b'p'; prefix], vec![b'x'], vec![0; zeros]].concat()).collect();
        let mut model = model_of(keys.clone());
        model.push(([vec![b'p'; prefix], vec![b'y']].concat(), ptr(99)));
        let mut page = vec![0; 4096];
        assert_eq!(build(&mut page, STAMP, 3, &children(&model)), Ok(true));
        let branch = Branch::parse(&page, ID).unwrap();
        assert_eq!(branch.prefix().len(), prefix);
        check(branch, &model, &neighbours(&model));
    }
}

#[test]
fn pointers_to_meta_pages_and_branches_without_children_are_refused() {
    let mut page = vec![0; 4096];
    let model = model_of(vec![vec![7; 1000]]);
    build(&mut page, PageStamp { id: PageId(5), ..STAMP }, 3, &children(&model)).unwrap();
    check(Branch::parse(&page, PageId(5)).unwrap(), &model, &neighbours(&model));
    for id in [0, 1] {
        BranchMut::open(&mut page, PageId(5)).unwrap().set_child(1, ptr(id)).unwrap();
        let error = Branch::parse(&page, PageId(5)).unwrap().child(1).unwrap_err();
        assert_eq!((error.page, error.field, error.found), (PageId(5), "child page", id));
    }
    assert!(build(&mut page, STAMP, 3, &[]).is_err());
    assert!(build(&mut page, STAMP, 0, &children(&model)).is_err());
}

#[test]
fn verify_names_the_damaged_field() {
    use crate::page::layout::put_u16;
    // A tail that fits its head, and two with rests. Heads are little-endian numbers, so the last
    // byte of a head is its first on the page.
    let seps: [&[u8]; 3] = [b"key-a", b"key-bb-long-one", b"key-cc-long-two"];
    let model = model_of(seps.iter().map(|sep| sep.to_vec()).collect());
    let mut good = vec![0; 4096];
    assert_eq!(build(&mut good, STAMP, 3, &children(&model)), Ok(true));
    let (heads, slots) = (BRANCH_HEADS, BRANCH_HEADS + HEAD_BYTES * 4);
    let upper = Branch::parse(&good, ID).unwrap().upper();
    let last_head = good[heads + 12..heads + 16].to_vec();
    type Break<'a> = (&'a str, &'a dyn Fn(&mut [u8]));
    let broken: [Break<'_>; 10] = [
        ("separator head", &|page| page[heads] = 1),
        ("separator head", &|page| page[slots] = 1),
        ("separator head", &|page| page[heads + HEAD_BYTES] = 1),
        ("order of separators at", &|page| page[heads + 15] = b'a'),
        ("order of separators at", &|page| {
            page[heads + 8..heads + 12].copy_from_slice(&last_head);
            page.copy_within(slots + 6..slots + 8, slots + 4);
        }),
        ("hint", &|page| page[HINTS + HEAD_BYTES * (HINT_COUNT - 1)] ^= 1),
        ("rest length", &|page| put_u16(page, upper, 0)),
        ("rest length", &|page| put_u16(page, upper, 4096)),
        ("branch slot (rests are gapless)", &|page| put_u16(page, upper, 6)),
        ("branch slot", &|page| put_u16(page, slots + 6, 4095)),
    ];
    assert_eq!(Branch::parse(&good, ID).unwrap().verify(), Ok(()));
    for (at, (field, spoil)) in broken.into_iter().enumerate() {
        let mut page = good.clone();
        spoil(&mut page);
        let error = Branch::parse(&page, ID).unwrap().verify().expect_err(field);
        assert_eq!((error.page, error.field), (ID, field), "case {at}");
    }
}

#[test]
fn parse_names_the_wrong_header_field() {
    let model = model_of(vec![b"b".to_vec(), b"c".to_vec()]);
    let mut page = vec![0; 4096];
    assert_eq!(build(&mut page, STAMP, 3, &children(&model)), Ok(true));
    for (at, value, field) in [
        (KIND, PageKind::Leaf as u8, "page kind"),
        (KIND, PageKind::Overflow as u8, "page kind"),
        (LEVEL, 0, "page level"),
        (FLAGS, 1, "page flags (a variant that this build does not read)"),
        (crate::page::layout::ID, ID.0 as u8 ^ 1, "page id"),
        (COUNT, 2, "lower bound of free space"),
        (LOWER, 177, "lower bound of free space"),
        (UPPER + 1, 0, "upper bound of free space"),
        (UPPER + 1, 0x11, "upper bound of free space"),
        (PREFIX_BYTES, 25, "prefix length"),
    ] {
        let before = std::mem::replace(&mut page[at], value);
        assert_eq!(Branch::parse(&page, ID).err().map(|e| e.field), Some(field), "byte {at} = {value}");
        page[at] = before;
    }
    assert!(Branch::parse(&page, ID).is_ok());
    page[COUNT..COUNT + 2].fill(0);
    page[LOWER] = BRANCH_HEADS as u8;
    assert_eq!(Branch::parse(&page, ID).err().map(|e| e.field), Some("child count"));
}
