//! Meta pages: round trips, damage, and the search for copies.

use super::*;

fn meta(page_size: u32, txn: u64) -> MetaPage {
    let root = |id, tree| TreeRoot {
        ptr: PagePtr { id: PageId(id), crc: 0xdead_0001 },
        height: 3,
        entries: u64::MAX - 7,
        tree: TreeId(tree),
        ..TreeRoot::default()
    };
    MetaPage {
        page_size,
        required: features::SNAPSHOTS,
        optional: 1 << 63 | 5,
        uuid: *b"0123456789abcdef",
        txn: TxnId(txn),
        page_count: MAX_U48,
        catalog: root(MAX_U48 - 1, 0),
        free_space: root(1 << 33, 1),
        free_list: ExtentPtr { ptr: PagePtr { id: PageId(1 << 40), crc: 9 }, pages: 1 << 34 },
        next_tree: TreeId(TreeId::VALUES),
        log: LogDescriptor {
            first: PageId(1 << 41),
            pages: 1 << 15,
            epoch: (1 << 56) - 1,
            start: 4096 * 3,
            chain: 0xabcd,
        },
        snapshots: root(1 << 35, 2),
    }
}

fn slot_of(meta: &MetaPage) -> Vec<u8> {
    let mut page = vec![0xee; meta.page_size as usize];
    meta.encode_slot(&mut page);
    page
}

fn probe_file(file: &[u8]) -> Probe {
    probe(|offset, len| file.get(offset as usize..offset as usize + len).map(<[u8]>::to_vec))
}

/// Overwrites bytes of a record and updates its checksum.
fn resealed(mut record: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    record[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32fast::hash(&record[..252]);
    record[252..256].copy_from_slice(&crc.to_le_bytes());
    record
}

#[test]
fn both_copies_of_a_meta_page_decode_to_what_was_written() {
    for page_size in [4096, 8192, 16384, 32768] {
        let meta = meta(page_size, 77);
        let page = slot_of(&meta);
        let middle = page_size as usize / 2;
        assert_eq!((MetaPage::decode_copy(&page), MetaPage::decode_copy(&page[middle..])), (Ok(meta), Ok(meta)));
        assert!(page[256..middle].iter().chain(&page[middle + 256..]).all(|byte| *byte == 0));
    }
}

#[test]
fn a_meta_page_has_the_documented_bytes() {
    let page = slot_of(&meta(4096, 0x0102));
    assert_eq!(&page[..16], b"\x89MLF\r\n\x1a\n\x01\0\0\0\0\x10\0\0");
    assert_eq!(&page[32..50], b"0123456789abcdef\x02\x01");
    assert_eq!(&page[64..88], b"\xfe\xff\xff\xff\xff\xff\x01\0\xad\xde\x03\0\xf8\xff\xff\xff\xff\xff\xff\xff\0\0\0\0");
    assert_eq!(&page[112..132], b"\0\0\0\0\0\x01\x09\0\0\0\0\0\0\0\x04\0\0\0\0\x80");
    assert_eq!(&page[168..176], b"\xcd\xab\0\0\0\0\0\0");
}

#[test]
fn a_copy_with_a_flipped_bit_is_refused_and_the_other_one_is_used() {
    let page = slot_of(&meta(4096, 5));
    for bit in 0..256 * 8 {
        let mut record = page[..256].to_vec();
        record[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 64 { MetaPageError::NoMagic } else { MetaPageError::Checksum };
        assert_eq!(MetaPage::decode_copy(&record), Err(expected), "bit {bit}");
        let mut file = [record, page[256..].to_vec(), slot_of(&meta(4096, 6))].concat();
        let found = probe_file(&file);
        assert_eq!((found.page_size, found.slots[0].meta()), (Some(4096), Ok(meta(4096, 5))));
        assert!(found.slots[0].flaw().is_some() && found.slots[1].flaw().is_none());
        file.truncate(4096);
        assert_eq!(probe_file(&file).slots[1].meta(), Err(MetaPageError::NoMagic));
    }
    assert_eq!(MetaPage::decode_copy(&page[..255]), Err(MetaPageError::NoMagic));
}

#[test]
fn a_newer_version_is_reported_as_such_and_not_as_damage() {
    let record = slot_of(&meta(8192, 5));
    let decode = |at: usize, bytes: &[u8]| MetaPage::decode_copy(&resealed(record.clone(), at, bytes));
    assert_eq!(decode(8, &[2, 0, 0, 0]), Err(MetaPageError::Version(2)));
    assert_eq!(decode(8, &[0, 0, 0, 0]), Err(MetaPageError::Version(0)));
    assert_eq!(decode(16, &[0, 0, 2]), Err(MetaPageError::RequiredFeature(1 << 17)));
    assert_eq!(decode(31, &[0xff]).map(|meta| meta.optional >> 56), Ok(0xff), "unknown optional bits pass");
    assert!(decode(200, &[1]).is_ok(), "so do bytes that they may use");

    let newer = [resealed(record.clone(), 8, &[2]), slot_of(&meta(8192, 6))].concat();
    let found = probe_file(&newer);
    assert_eq!((found.page_size, found.slots[0].meta()), (Some(8192), Err(MetaPageError::Version(2))));
    assert_eq!(found.slots[1].meta(), Ok(meta(8192, 6)));
}

#[test]
fn an_impossible_field_is_refused_by_name() {
    let record = slot_of(&meta(4096, 5));
    for (at, bytes, field) in [
        (12, &[0u8, 0x11, 0, 0][..], "page size"),
        (12, &[0, 0, 1, 0], "page size"),
        (55, &[1], "transaction id"),
        (56, &[1, 0, 0, 0, 0, 0, 0, 0], "page count"),
        (63, &[1], "page count"),
        (64, &[1, 0, 0, 0, 0, 0], "catalog root"),
        (64, &[0xff; 6], "catalog root"),
        (74, &[33], "catalog root"),
        (98, &[0], "free-space root"),
        (122, &[0; 6], "free list"),
        (122, &[0xff; 6], "free list"),
        (143, &[0xff], "commit log run"),
        (151, &[0xff], "commit log run"),
        (167, &[0xff], "commit log start"),
        (128, &[15, 0, 0, 0], "next tree id"),
    ] {
        let found = MetaPage::decode_copy(&resealed(record.clone(), at, bytes));
        assert_eq!(found, Err(MetaPageError::Field(field)), "{bytes:?} at {at}");
    }
}

#[test]
fn probe_finds_each_page_size_from_any_single_copy() {
    for page_size in [4096u32, 8192, 16384, 32768] {
        let size = page_size as usize;
        let metas = [meta(page_size, 8), meta(page_size, 9)];
        // After the slots come bytes that look like meta pages of every other page size.
        let decoys: Vec<u8> = [4096, 8192, 16384, 32768].iter().flat_map(|other| slot_of(&meta(*other, 99))).collect();
        let file = [slot_of(&metas[0]), slot_of(&metas[1]), decoys].concat();
        assert_eq!(probe_file(&file).slots.map(|slot| slot.meta()), [Ok(metas[0]), Ok(metas[1])]);
        for whole in 0..4 {
            let mut damaged = file.clone();
            for (copy, at) in copy_offsets(size).into_iter().enumerate() {
                if copy != whole {
                    damaged[at + 100] ^= 1;
                }
            }
            let found = probe_file(&damaged);
            assert_eq!(found.page_size, Some(size), "copy {whole}");
            assert_eq!(found.slots[whole / 2].meta(), Ok(metas[whole / 2]));
            assert_eq!(found.slots[1 - whole / 2].meta(), Err(MetaPageError::Checksum));
        }
    }
}

#[test]
fn probe_finds_the_newer_copy_and_no_meta_page_in_other_files() {
    // The first copy is new, the second still has the record of the transaction two before.
    let page = [slot_of(&meta(4096, 12))[..2048].to_vec(), slot_of(&meta(4096, 10))[2048..].to_vec()].concat();
    assert_eq!(probe_file(&page).slots[0].meta().map(|meta| meta.txn), Ok(TxnId(12)));
    for file in [vec![], vec![0; 100], vec![0xff; 100_000], b"SQLite format 3\0".repeat(1000)] {
        let found = probe_file(&file);
        assert_eq!((found.page_size, found.slots[0].meta()), (None, Err(MetaPageError::NoMagic)));
    }
    let torn = [b"\x89MLF\r\n\x1a\n".to_vec(), vec![7; 9000]].concat();
    assert_eq!(probe_file(&torn).slots[0].meta(), Err(MetaPageError::Checksum), "a damaged database");
}

#[test]
fn tree_roots_round_trip_and_impossible_ones_are_refused() {
    let root = meta(4096, 1).catalog;
    assert_eq!(TreeRoot::decode(&root.encode()), Some(root));
    let empty = TreeRoot::empty(TreeId(17));
    assert_eq!(TreeRoot::decode(&empty.encode()), Some(empty));
    for wrong in [
        TreeRoot { height: 0, ..root },
        TreeRoot { entries: 1, ..empty },
        TreeRoot { height: 1, ..empty },
        TreeRoot { height: DEPTH_MAX as u8 + 1, ..root },
    ] {
        assert_eq!(TreeRoot::decode(&wrong.encode()), None, "{wrong:?}");
    }
    assert_eq!(TreeRoot::decode(&root.encode()[1..]), None);
}

/// An interrupted write can leave an intact copy of each record.
#[test]
fn a_slot_whose_copies_differ_gives_the_newer_one_and_a_remark() {
    let (older, newer) = (meta(4096, 6), meta(4096, 8));
    for copies in [[Ok(older), Ok(newer)], [Ok(newer), Ok(older)]] {
        let slot = Slot { copies };
        assert_eq!(slot.meta(), Ok(newer));
        assert!(slot.flaw().is_some_and(|flaw| flaw.contains("the copies differ")), "{slot:?}");
    }
    assert_eq!(Slot { copies: [Ok(newer), Ok(newer)] }.flaw(), None);
}
