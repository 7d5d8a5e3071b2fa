//! Tests of several page modules together: golden pages, and invalid bytes for everything that
//! decodes.
//!
//! The model tests of leaf and branch are in `leaf/tests.rs` and `branch/tests.rs`.

use proptest::prelude::*;

use super::branch::{self, Branch, BranchMut, Child};
use super::header::{self, Header, PageKind, PageStamp};
use super::key::{NoLongKeys, PageKeyBuf};
use super::leaf::{self, Leaf, LeafMut, LeafValue, OverflowPtr};
use super::{checksum, free_list, meta, overflow};
use crate::ids::{PageId, PagePtr, TreeId, TxnId};

/// Needs all 48 bits.
pub(super) const ID: PageId = PageId(0x1234_5678_9abc);
pub(super) const TREE: TreeId = TreeId(0xa0b0_c0d0);
pub(super) const TXN: TxnId = TxnId(0x0fed_cba9_8765);
pub(super) const STAMP: PageStamp = PageStamp::new(ID, TREE, TXN);

pub(super) fn ptr(id: u64) -> PagePtr {
    PagePtr { id: PageId(id), crc: (id as u32).wrapping_mul(0x9e37_79b9) }
}

fn bytes_at(page: &[u8], at: usize, expected: &[u8]) {
    assert_eq!(&page[at..at + expected.len()], expected, "bytes at {at}");
}

#[test]
fn a_built_leaf_has_the_documented_bytes() {
    let mut page = vec![0xee; 4096];
    let long = LeafValue::Overflow(OverflowPtr { ptr: PagePtr { id: ID, crc: 0x0403_0201 }, len: 0x55_0000_0001 });
    let entries = [(b"key1".as_slice(), LeafValue::Inline(b"v")), (b"key22".as_slice(), long)];
    assert!(leaf::build(&mut page, STAMP, entries.iter().copied()).unwrap());
    // Entries: 4 + 4 + 1 and 4 + 5 + 18 bytes.
    let upper = 4096 - 9 - 27;
    bytes_at(&page, 4, &[1, 0, 2, 0, 3, 0, 44, 0, (upper & 255) as u8, (upper >> 8) as u8, 0, 0]);
    bytes_at(&page, 16, &[0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x65, 0x87, 0xa9, 0xcb, 0xed, 0x0f]);
    bytes_at(&page, 28, &[0xd0, 0xc0, 0xb0, 0xa0]);
    bytes_at(&page, 32, &[0, 0, 0, b'1', 0, 0, b'2', b'2']);
    bytes_at(&page, 40, &[(upper & 255) as u8, (upper >> 8) as u8, ((upper + 9) & 255) as u8, (upper >> 8) as u8]);
    assert!(page[44..upper].iter().all(|byte| *byte == 0), "the gap is zero");
    bytes_at(&page, upper, b"\x04\x00\x01\x00key1v");
    bytes_at(&page, upper + 9, b"\x05\x40\x12\x00key22");
    bytes_at(&page, upper + 18, &[0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 1, 2, 3, 4, 1, 0, 0, 0, 0x55, 0, 0, 0]);
}

#[test]
fn a_built_branch_has_the_documented_bytes() {
    let mut page = vec![0xee; 4096];
    let child = |sep: &[u8], id| Child { sep: sep.into(), ptr: PagePtr { id: PageId(id), crc: 0x0403_0201 } };
    let items = [child(b"ignored", 0xffff_ffff_fffe), child(b"pre-ab", 3), child(b"pre-bcdefg", 4)];
    assert!(branch::build(&mut page, STAMP, 1, &items).unwrap());
    let upper: u16 = 4096 - 2 - 2;
    bytes_at(&page, 4, &[2, 1, 3, 0, 4, 0, 176, 0, (upper & 255) as u8, (upper >> 8) as u8, 0, 0]);
    bytes_at(&page, 32, &[0; 8]);
    bytes_at(&page, 40, b"pre-\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    bytes_at(&page, 64, b"\0\0\0\0\0\0baedcb\xff\xff\xff\xff");
    bytes_at(&page, 124, b"\xff\xff\xff\xff");
    bytes_at(&page, 128, b"\0\0\0\0\0\0baedcb");
    bytes_at(&page, 140, &[0, 0, 2, 0, (upper & 255) as u8, (upper >> 8) as u8]);
    bytes_at(&page, 146, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 3, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    bytes_at(&page, 4092, b"\x02\x00fg");
}

#[test]
fn header_reads_what_was_written_and_refuses_reserved_values() {
    let mut page = vec![0; 4096];
    LeafMut::init(&mut page, STAMP);
    let crc = checksum::seal(&mut page);
    let header = Header::read(&page, ID).unwrap();
    assert_eq!((header.checksum, header.kind, header.level, header.count), (crc, PageKind::Leaf, 0, 0));
    assert_eq!((header.lower, header.upper, header.extent_pages()), (32, 4096, 1));
    assert_eq!((header.id, header.txn, header.tree), (ID, TXN, TREE));
    assert_eq!(header::page_txn(&page), TXN);

    let other = PageId(ID.0 ^ 1 << 40);
    for error in [Header::read(&page, other).unwrap_err(), Leaf::parse(&page, other).err().unwrap()] {
        assert_eq!((error.page, error.field, error.found, error.expected), (other, "page id", ID.0, other.0));
    }
    header::restamp(&mut page, other, TxnId(9));
    assert_eq!((Header::read(&page, other).unwrap().txn, header::page_level(&page)), (TxnId(9), 0));
    header::restamp(&mut page, ID, TXN);

    for (at, value, field) in [
        (4, 5, "page kind"),
        (4, 0, "page kind"),
        (4, 2, "page kind"),
        (5, 1, "page level"),
        (6, 1, "lower bound of free space"),
        (13, 0, "upper bound of free space"),
        (13, 0x11, "upper bound of free space"),
        (14, 1, "page flags (a variant that this build does not read)"),
        (14, 4, "page flags (a variant that this build does not read)"),
    ] {
        let before = std::mem::replace(&mut page[at], value);
        assert_eq!(Leaf::parse(&page, ID).err().unwrap().field, field, "byte {at} = {value}");
        page[at] = before;
    }
    assert!(Leaf::parse(&page, ID).is_ok() && Branch::parse(&page, ID).is_err());
}

#[test]
fn overflow_extents_round_trip() {
    for page_size in [4096, 32768] {
        for len in [0, 1, page_size - 33, page_size - 32, page_size - 31, 3 * page_size - 32, 3 * page_size] {
            let value: Vec<u8> = (0..len).map(|at| at as u8 | 1).collect();
            let pages = overflow::overflow_pages(page_size, len as u64);
            assert_eq!(pages, (32 + len).div_ceil(page_size) as u64);
            let mut extent = vec![0xee; pages as usize * page_size];
            let crc = overflow::write(&mut extent, page_size, STAMP, &value);
            assert!(checksum::matches(&extent, crc));
            assert_eq!(overflow::value(&extent, ID, len as u64).unwrap(), value);
            assert!(extent[32 + len..].iter().all(|byte| *byte == 0));
            assert_eq!(Header::read(&extent, ID).unwrap().extent_pages(), pages);
            assert_eq!(overflow::value(&extent, ID, u64::MAX).unwrap_err().field, "value length");
            assert_eq!(overflow::value(&extent, PageId(7), 0).unwrap_err().field, "page id");
            if pages > 1 {
                assert_eq!(overflow::value(&extent[page_size..], ID, 0).unwrap_err().page, ID);
                extent[8] += 1;
                assert!(overflow::value(&extent, ID, 0).is_err() || extent.len() / (pages as usize + 1) >= 4096);
            }
        }
    }
    assert_eq!(overflow::overflow_pages(4096, u64::MAX), u64::MAX.div_ceil(4096), "no overflow");
}

#[test]
fn free_lists_round_trip() {
    let item = |n: u64| free_list::FreeItem {
        start: PageId(ID.0 + n),
        pages: 1 + n * n,
        born: TxnId(TXN.0 - n),
        freed: TxnId(TXN.0 + n),
    };
    for count in [0, 1, 169, 170, 1000] {
        let items: Vec<_> = (0..count).map(item).collect();
        let pages = free_list::list_pages(4096, items.len());
        assert_eq!(pages, if count <= 169 { 1 } else { 1 + (40 + 24 * count - 1) / 4096 });
        let mut extent = vec![0xee; pages as usize * 4096];
        let crc = free_list::write(&mut extent, 4096, ID, TXN, &items);
        assert!(checksum::matches(&extent, crc));
        assert_eq!(free_list::read(&extent, ID).unwrap(), items);
        // One more than fits, not only far more.
        let most = (extent.len() - 40) / 24;
        extent[32..36].copy_from_slice(&(most as u32 + 1).to_le_bytes());
        assert_eq!(free_list::read(&extent, ID).unwrap_err().field, "free list item count");
        extent[35] = 1;
        assert_eq!(free_list::read(&extent, ID).unwrap_err().field, "free list item count");
    }
    let mut extent = vec![0; 4096];
    free_list::write(&mut extent, 4096, ID, TXN, &[item(0)]);
    extent[46..52].fill(0);
    assert_eq!(free_list::read(&extent, ID).unwrap_err().field, "free list item pages");
    extent[40..46].fill(0);
    assert_eq!(free_list::read(&extent, ID).unwrap_err().field, "free list item start");
}

/// Ignores a result: the test is that the call returns and does not panic.
fn ran<T>(_answer: T) {}

/// Calls everything that reads a page; only panics matter.
fn read_everything(page: &[u8], id: PageId) {
    let probes: [&[u8]; 5] = [b"", b"k", b"key-00000005", &[0; 40], &[0xff; 40]];
    ran(Header::read(page, id).map(|header| header.extent_pages()));
    ran((overflow::value(page, id, 100), free_list::read(page, id), meta::MetaPage::decode_copy(page)));
    ran((checksum::stored(page), header::page_level(page), header::page_kind(page, id)));
    if let Ok(leaf) = Leaf::parse(page, id) {
        ran((leaf.verify(), leaf.first_key(), leaf.last_key(), leaf.used_bytes(), leaf.free_bytes()));
        for index in 0..leaf.count() + 2 {
            ran((leaf.key(index), leaf.entry(index), leaf.value(index), leaf.entry_bytes(index)));
        }
        for probe in probes {
            assert!(leaf.lower_bound(&NoLongKeys, probe).map_or(true, |(at, _)| at <= leaf.count()));
            assert!(leaf.find(&NoLongKeys, probe).map_or(true, |at| at.is_none_or(|at| at < leaf.count())));
        }
    }
    if let Ok(branch) = Branch::parse(page, id) {
        let mut separator = PageKeyBuf::default();
        ran((branch.verify(), branch.level(), branch.prefix(), branch.used_bytes()));
        for index in 0..branch.count() + 2 {
            ran((branch.child(index), branch.separator_into(index, &mut separator)));
        }
        for probe in probes {
            assert!(branch.find(&NoLongKeys, probe).map_or(true, |at| at < branch.count()));
        }
    }
}

/// Changes a copy of the page in every way and reads the result.
fn write_everything(page: &[u8], id: PageId) {
    let mut page = page.to_vec();
    for at in [0, 1, 3, 1000] {
        if let Ok(mut leaf) = LeafMut::open(&mut page, id) {
            ran(leaf.replace(at, LeafValue::Inline(b"another value")));
            ran(leaf.insert(at, b"key-00000005x", LeafValue::Inline(b"value")));
            ran((leaf.remove(at), leaf.insert(at, b"", LeafValue::Inline(&[1; 300]))));
            ran(leaf.replace(at, LeafValue::Overflow(OverflowPtr { ptr: ptr(9), len: 9 })));
        }
        read_everything(&page, id);
        if let Ok(mut branch) = BranchMut::open(&mut page, id) {
            ran((branch.set_child(at, ptr(9)), branch.insert(at, b"key-00000005-long", ptr(7)), branch.remove(at)));
            ran((branch.remove_first(), branch.insert(1, b"", ptr(7))));
        }
        read_everything(&page, id);
    }
}

fn valid_page(branch: bool, page_size: usize) -> Vec<u8> {
    let mut page = vec![0; page_size];
    let keys: Vec<Vec<u8>> = (0..60).map(|n| format!("key-{n:08}{}", "x".repeat(n % 30)).into_bytes()).collect();
    let built = if branch {
        let items: Vec<Child> = keys.iter().map(|key| Child { sep: key.clone().into(), ptr: ptr(77) }).collect();
        branch::build(&mut page, STAMP, 1, &items)
    } else {
        let entries = keys.iter().map(|key| (key.as_slice(), LeafValue::Inline(&key[..4])));
        leaf::build(&mut page, STAMP, entries)
    };
    assert_eq!(built, Ok(true));
    page
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pages_with_several_changed_bytes_never_panic(
        branch in any::<bool>(),
        large in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        in_front in any::<bool>(),
    ) {
        let mut page = valid_page(branch, if large { 32768 } else { 4096 });
        let range = if in_front { 700 } else { page.len() };
        for (at, value) in flips {
            page[at.index(range)] ^= value;
        }
        read_everything(&page, ID);
        write_everything(&page, ID);
    }

    #[test]
    fn random_bytes_after_a_valid_header_never_panic(
        seed in prop::collection::vec(any::<u8>(), 64..256),
        kind in 1u8..5,
        count in 0u16..700,
        prefix in prop_oneof![0u16..40, any::<u16>()],
    ) {
        // A valid header, so that the random bytes after it are decoded.
        let mut page: Vec<u8> = seed.iter().cycle().take(4096).copied().collect();
        let lower = if kind == 2 { 128 + 16 * count } else { 32 + 6 * count };
        let upper = if lower <= 4096 { lower.max(4000) } else { 4096 };
        page[4..16].fill(0);
        page[4] = kind;
        page[5] = u8::from(kind == 2);
        for (at, field) in [(6, count), (8, prefix), (10, lower), (12, upper)] {
            page[at..at + 2].copy_from_slice(&field.to_le_bytes());
        }
        super::layout::put_u48(&mut page, 16, ID.0);
        read_everything(&page, ID);
        write_everything(&page, ID);
        if kind >= 3 {
            super::layout::put_u48(&mut page, 8, 1);
            read_everything(&page, ID);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_everything(&bytes, ID);
        write_everything(&bytes, ID);
    }
}

#[test]
fn pages_with_one_wrong_byte_never_panic() {
    for branch in [false, true] {
        let good = valid_page(branch, 4096);
        for at in (4..1200).chain(3900..4096) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut page = good.clone();
                page[at] = value;
                read_everything(&page, ID);
                if at % 7 == 0 {
                    write_everything(&page, ID);
                }
            }
        }
    }
}

/// Keys of all kinds that are difficult for page code: shared and nested prefixes, zero tails, all
/// lengths.
pub(super) fn any_key(max_bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    let tail = prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), Just(b'a'), any::<u8>()], 0..7);
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..24),
        4 => tail.clone().prop_map(|tail| [b"a-prefix/that-most/", tail.as_slice()].concat()),
        4 => tail.clone().prop_map(|tail| [b"a-prefix/that-most/keys-of-the-page-share/", tail.as_slice()].concat()),
        2 => (0usize..9, any::<bool>()).prop_map(|(n, high)| [b"a", vec![if high { 0xff } else { 0 }; n].as_slice()].concat()),
        2 => prop::collection::vec(prop_oneof![Just(0u8), Just(0xffu8)], 0..10),
        3 => (0u32..5000).prop_map(|n| format!("user:{n:08}").into_bytes()),
        1 => (0..=max_bytes, any::<u8>(), tail).prop_map(move |(len, byte, tail)| {
            let mut key = vec![byte; len.saturating_sub(tail.len())];
            key.extend(tail);
            key.truncate(max_bytes);
            key
        }),
    ]
}

/// A set of keys, mostly all of one kind.
pub(super) fn key_set(max_bytes: usize, count: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let prefix = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 1..60)];
    (prefix, prop::collection::btree_set(any_key(max_bytes), 0..count)).prop_map(move |(prefix, keys)| {
        let with_prefix = |key: Vec<u8>| [prefix.clone(), key].concat();
        keys.into_iter().map(with_prefix).filter(|key| key.len() <= max_bytes).collect()
    })
}
