//! Tests of the pages of a write transaction: allocation, claims, and pages written through.

use super::*;
use crate::hooks::FlushKind;
use crate::ids::MAX_U48;
use crate::mapping::MapOptions;
use crate::page::checksum;
use crate::pager::read::snapshot_pages::SnapshotPages;

/// Pages with ids above 2^32, so past 16 TiB, are allocated, stored to, flushed and read through
/// both mappings. The file is sparse and on tmpfs, because other file systems do not allow this
/// length; with larger pages it would not fit an address space of 47 bits.
#[test]
fn pages_with_ids_above_two_to_the_32_are_allocated_written_and_read() {
    for page_size in [4096usize, 8192] {
        let first = (1u64 << 32) + 7;
        let file = tempfile::tempfile_in("/dev/shm").expect("a file on tmpfs");
        file.set_len((first + 600) * page_size as u64).expect("a sparse file");
        let options = MapOptions { page_size, window_bytes: None, fault_guard: true, used_bytes: None };
        let mapping = Arc::new(Mapping::of_file(file, true, options).expect("mapped"));
        mapping.ready_to_write().expect("ready");
        let write_map = mapping.write_map().expect("the first writable mapping");
        let path = Arc::new(PathBuf::from("far"));
        let mut pages = TxnPages::new(Arc::clone(&mapping), write_map, path, page_size, FreeSpace::default());
        pages.begin(TxnId(9), first);
        let mut written = Vec::new();
        for extent in [1u64, 1, 300, 1] {
            let id = pages.alloc(extent).expect("taken");
            assert_eq!(id.0, first + written.iter().map(|&(_, extent, _)| extent).sum::<u64>());
            let bytes = pages.extent_mut(id, extent).expect("claimed");
            bytes.fill(id.0 as u8);
            bytes[4..12].copy_from_slice(&id.0.to_le_bytes());
            let crc = checksum::seal(bytes);
            pages.set_verified_sealed(PagePtr { id, crc });
            written.push((id, extent, crc));
        }
        assert_eq!(pages.write_map.claimed_count(), 303);
        let far = first * page_size as u64;
        mapping.flush(FlushKind::Tree, far, 303 * page_size as u64).expect("flushed");
        let count = pages.page_count();
        pages.end();
        pages.begin(TxnId(10), count);
        let snapshot = SnapshotPages::new(mapping.read_map(), page_size, count);
        for &(id, extent, crc) in &written {
            let ptr = PagePtr { id, crc };
            for bytes in [snapshot.extent(ptr, extent).expect("read"), pages.extent(ptr, extent).expect("read")] {
                assert_eq!(bytes.len() as u64, extent * page_size as u64);
                assert_eq!(bytes[4..12], id.0.to_le_bytes());
            }
            assert!(!pages.is_dirty(id) && snapshot.page(PagePtr { id: PageId(id.0 - (1 << 32)), crc }).is_err());
        }
        // A page that is freed and allocated again keeps its id.
        pages.free(written[0].0, 1, TxnId(9));
        let freed = pages.free.drain_freed();
        assert_eq!((freed[0].start, freed[0].pages, freed[0].born), (written[0].0, 1, TxnId(9)));
        pages.free.add_unlisted(freed[0].start, 1);
        assert_eq!(pages.alloc(1).expect("taken"), written[0].0);
        pages.end();
    }
}

/// A store into a hole allocates a block, and on a full disk kills the process. So the block must
/// be allocated before.
#[test]
fn pages_in_holes_get_blocks_before_they_are_stored_to() {
    use std::os::unix::fs::MetadataExt as _;
    let file = tempfile::tempfile_in("/dev/shm").expect("a file on tmpfs");
    file.set_len(100 * 4096).expect("a sparse file");
    let same = file.try_clone().expect("the same file");
    let blocks = move || same.metadata().expect("metadata").blocks();
    let options = MapOptions { page_size: 4096, window_bytes: None, fault_guard: true, used_bytes: None };
    let mapping = Arc::new(Mapping::of_file(file, true, options).expect("mapped"));
    mapping.ready_to_write().expect("ready");
    let write_map = mapping.write_map().expect("the first writable mapping");
    let path = Arc::new(PathBuf::from("holes"));
    let mut pages = TxnPages::new(mapping, write_map, path, 4096, FreeSpace::default());
    pages.begin(TxnId(3), 50);
    // Blocks of the sentinel, and of the last page, which was read: on tmpfs, reading a hole
    // through a mapping allocates a block.
    let sentinel = blocks();
    assert!(sentinel <= 16, "{sentinel}");
    pages.alloc(1).expect("a page after the pages in use");
    assert_eq!(blocks(), sentinel + 8);
    pages.free.add_unlisted(PageId(10), 4);
    pages.alloc(4).expect("free pages");
    assert_eq!(blocks(), sentinel + 5 * 8);
    pages.end();
}

/// Pages in memory, with their first transaction begun.
fn in_memory() -> TxnPages {
    let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 22), fault_guard: true, used_bytes: None };
    let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
    let write_map = mapping.write_map().expect("the first writable mapping");
    let path = Arc::new(PathBuf::from("memory"));
    let mut pages = TxnPages::new(mapping, write_map, path, 4096, FreeSpace::default());
    pages.begin(TxnId(3), 2);
    pages
}

/// Fills a page with a number and seals it; returns the checksum for its pointer.
fn filled(page: &mut [u8], number: u32) -> u32 {
    page.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&number.to_le_bytes()));
    checksum::seal(page)
}

/// Two numbers for which [`filled`] pages have the same verified byte.
fn with_the_same_verified_byte() -> (u32, u32) {
    let mut page = vec![0; 4096];
    let mut verified_byte = |number| verified_byte_of(filled(&mut page, number));
    let first = verified_byte(1);
    (1, (2..).find(|&number| verified_byte(number) == first).expect("there are only 255 verified bytes"))
}

#[test]
fn a_page_freed_while_in_the_append_buffer_can_be_allocated_again() {
    let mut pages = in_memory();
    let mut filling = pages.alloc_to_fill().expect("a page");
    while !pages.append_buffer.is_due() {
        assert!(pages.finish_filling(filling).expect("finished").is_none());
        filling = pages.alloc_to_fill().expect("a page");
    }
    pages.finish_filling(filling).expect("finished");
    let filling = pages.alloc_to_fill().expect("a page in the append buffer");
    filled(pages.page_mut(filling).expect("dirty"), 1);
    pages.free(filling, 1, TxnId(3));
    assert_eq!(pages.alloc(1).expect("a page"), filling, "the page freed last is allocated first");
    let crc = filled(pages.extent_mut(filling, 1).expect("dirty"), 2);
    let ptr = PagePtr { id: filling, crc };
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[100], bytes[101], bytes[102], bytes[103]]);
    assert_eq!(number(pages.extent(ptr, 1).expect("an extent of one page")), 2);
    assert_eq!(number(pages.page(ptr).expect("a page")), 2);
    pages.end_filling().expect("ended");
    assert_eq!(
        number(pages.extent(ptr, 1).expect("an extent of one page")),
        2,
        "the append buffer is not written over it"
    );
    pages.end();
}

/// A verified byte must not outlive the page that it was set for.
#[test]
fn a_page_in_the_write_queue_has_no_verified_byte_of_the_old_page() {
    let (before, after) = with_the_same_verified_byte();
    let mut pages = in_memory();
    let id = pages.alloc(3).expect("pages");
    for page in 0..3 {
        let crc =
            filled(pages.extent_mut(id, 3).expect("dirty").chunks_exact_mut(4096).nth(page).expect("a page"), before);
        pages.set_verified_sealed(PagePtr { id: PageId(id.0 + page as u64), crc });
    }
    let count = pages.page_count();
    pages.end();
    pages.begin(TxnId(4), count);
    pages.free.add_unlisted(id, 3);
    pages.begin_writing(true);
    let ptr = pages
        .write_new(|page, _| {
            filled(page, after);
            Ok(())
        })
        .expect("built");
    assert_eq!((ptr.id, pages.read_map.verified_byte(id)), (id, 0));
    assert!(pages.page(ptr).expect("read")[8..].chunks_exact(4).all(|word| word == after.to_le_bytes()));
    assert_eq!(pages.read_map.verified_byte(id), verified_byte_of(ptr.crc), "written and verified");
    // An extent in the write queue: none of its pages has the verified byte of the old page.
    let extent = pages.alloc_written_through(2).expect("an extent");
    assert_eq!(extent.0, id.0 + 1);
    pages.put(extent, &[7; 2 * 4096]).expect("taken");
    assert_eq!([0, 1].map(|page| pages.read_map.verified_byte(PageId(extent.0 + page))), [0, 0]);
    pages.end_writing().expect("written");
    pages.end();
}

/// Otherwise the queue would overwrite the next user of the page.
#[test]
fn a_page_freed_in_the_write_queue_is_written_before_it_is_allocated_again() {
    let mut pages = in_memory();
    let id = pages.alloc(1).expect("a page");
    let crc = filled(pages.page_mut(id).expect("dirty"), 1);
    pages.set_verified_sealed(PagePtr { id, crc });
    let count = pages.page_count();
    pages.end();
    pages.begin(TxnId(4), count);
    pages.free.add_unlisted(id, 1);
    pages.begin_writing(true);
    let build = |page: &mut [u8], _| {
        filled(page, 2);
        Ok(())
    };
    assert_eq!(pages.write_new(build).expect("built").id, id);
    pages.free(id, 1, TxnId(4));
    assert_eq!(pages.alloc(1).expect("a page"), id);
    let crc = filled(pages.page_mut(id).expect("dirty"), 3);
    pages.end_writing().expect("written");
    let page = pages.page(PagePtr { id, crc }).expect("read");
    assert!(page[8..].chunks_exact(4).all(|word| word == 3u32.to_le_bytes()));
    pages.end();
}

#[test]
fn a_state_never_gets_more_pages_than_page_ids() {
    let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 20), fault_guard: true, used_bytes: None };
    let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
    let write_map = mapping.write_map().expect("the first writable mapping");
    let path = Arc::new(PathBuf::from("full"));
    let mut pages = TxnPages::new(mapping, write_map, path, 4096, FreeSpace::default());
    for (count, wanted) in [(MAX_U48, 1), (MAX_U48 - 1, 2), (2, MAX_U48), (MAX_U48, u64::MAX)] {
        pages.begin(TxnId(3), count);
        let refused = pages.alloc(wanted).expect_err("too many");
        assert_eq!(refused.kind(), crate::error::ErrorKind::DiskFull, "{refused}");
        assert_eq!((pages.page_count(), pages.write_map.claimed_count()), (count, 0));
    }
}

/// Two users of one page would overwrite each other.
#[test]
fn a_page_that_the_free_space_lists_twice_is_not_allocated_twice() {
    let options = MapOptions { page_size: 4096, window_bytes: Some(1 << 20), fault_guard: true, used_bytes: None };
    let mapping = Arc::new(Mapping::anonymous(options).expect("mapped"));
    let write_map = mapping.write_map().expect("the first writable mapping");
    let mut pages = TxnPages::new(mapping, write_map, Arc::new(PathBuf::from("twice")), 4096, FreeSpace::default());
    pages.begin(TxnId(3), 2);
    let id = pages.alloc(2).expect("two pages");
    for (start, extent) in [(id, 1), (PageId(id.0 + 1), 1), (id, 2)] {
        pages.free.add_unlisted(start, extent);
        let refused = pages.alloc(extent).expect_err("the transaction has it");
        assert_eq!(refused.kind(), crate::error::ErrorKind::Corrupt, "{refused}");
    }
    pages.begin_writing(false);
    pages.free.add_unlisted(id, 1);
    let refused = pages.write_new(|_, _| Ok(())).expect_err("the transaction has it");
    assert_eq!(refused.kind(), crate::error::ErrorKind::Corrupt, "{refused}");
    pages.end();
}
