//! Tests of the mapping as a whole.

use std::sync::atomic::AtomicU64;
use std::sync::Barrier;

use super::*;
use crate::ids::PageId;
use crate::sys::call;

const PAGE: u64 = 4096;

fn options(window_pages: Option<u64>) -> MapOptions {
    MapOptions {
        page_size: PAGE as usize,
        window_bytes: window_pages.map(|pages| pages * PAGE),
        fault_guard: true,
        used_bytes: None,
    }
}

fn in_file(window_pages: Option<u64>) -> (Mapping, tempfile::NamedTempFile) {
    let temp = tempfile::NamedTempFile::new().unwrap();
    (to_write(temp.path(), window_pages), temp)
}

/// Maps a file and makes it ready for stores.
fn to_write(path: &std::path::Path, window_pages: Option<u64>) -> Mapping {
    let mapping = Mapping::of_file(file::open(path, true).unwrap(), true, options(window_pages)).unwrap();
    mapping.ready_to_write().unwrap();
    mapping
}

/// The contents of page `id` in these tests.
fn pattern(id: u64) -> [u8; 8] {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn fill(write_map: &mut WriteMap, id: u64) {
    write_map.claim(PageId(id), 1);
    write_map.bytes_mut(PageId(id), 1).chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&pattern(id)));
}

#[track_caller]
fn expect(bytes: &[u8], id: u64) {
    assert!(bytes.chunks_exact(8).all(|word| word == pattern(id)), "page {id}");
}

/// Grows in steps while readers hold slices and compare them; returns the number of windows.
fn grow_under_readers(mapping: &Mapping, steps: u64, step_pages: u64) -> usize {
    let filled = AtomicU64::new(2);
    let done = AtomicBool::new(false);
    let start = Barrier::new(4);
    let mut windows = std::collections::BTreeSet::new();
    std::thread::scope(|scope| {
        for seed in 0..3_u64 {
            let (filled, done, start) = (&filled, &done, &start);
            scope.spawn(move || read_at_random(mapping, filled, done, start, seed));
        }
        let mut write_map = mapping.write_map().unwrap();
        mapping.grow(&mut write_map, 2 * PAGE).unwrap();
        start.wait();
        for _ in 0..steps {
            let first = filled.load(Ordering::Relaxed);
            mapping.grow(&mut write_map, (first + step_pages) * PAGE).unwrap();
            windows.insert(mapping.window_id());
            (first..first + step_pages).for_each(|id| fill(&mut write_map, id));
            write_map.release_all();
            filled.store(first + step_pages, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
    let read_map = mapping.read_map();
    let last = filled.load(Ordering::Relaxed);
    (2..last).for_each(|id| expect(read_map.bytes(id * PAGE, PAGE as usize).unwrap(), id));
    assert_eq!(mapping.file_len().unwrap(), (last + 1) * PAGE, "the pages and one for the sentinel");
    windows.len()
}

fn read_at_random(mapping: &Mapping, filled: &AtomicU64, done: &AtomicBool, start: &Barrier, seed: u64) {
    start.wait();
    let first = mapping.read_map();
    let mut read_map = first.clone();
    let mut state = seed;
    let mut held = None;
    while !done.load(Ordering::Acquire) {
        let pages = filled.load(Ordering::Acquire);
        if read_map.window_id() != mapping.window_id() {
            read_map = mapping.read_map();
        }
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        if pages == 2 {
            continue;
        }
        let id = 2 + (state >> 33) % (pages - 2);
        expect(read_map.bytes(id * PAGE, PAGE as usize).unwrap(), id);
        // A slice of the first window, held until the end.
        held = held.or_else(|| first.bytes(id * PAGE, PAGE as usize).map(|bytes| (bytes, id)));
        if let Some((bytes, id)) = held {
            expect(bytes, id);
        }
    }
}

#[test]
fn grows_in_place_under_readers() {
    let (mapping, _temp) = in_file(None);
    assert_eq!(grow_under_readers(&mapping, 400, 5), 1);
}

#[test]
fn grows_through_many_windows_under_readers() {
    let (mapping, _temp) = in_file(Some(8));
    assert!(grow_under_readers(&mapping, 400, 7) >= 3);
}

#[test]
fn a_database_in_memory_grows_under_readers() {
    let mapping = Mapping::anonymous(options(Some(8))).unwrap();
    assert!(grow_under_readers(&mapping, 400, 7) >= 3);
    mapping.flush(FlushKind::Tree, 0, 100 * PAGE).unwrap();
    assert!(mapping.anonymous);
}

#[test]
fn a_read_map_of_the_old_window_works_beside_the_new_window() {
    let (mapping, _temp) = in_file(Some(4));
    let mut write_map = mapping.write_map().unwrap();
    mapping.grow(&mut write_map, 4 * PAGE).unwrap();
    fill(&mut write_map, 3);
    let old = mapping.read_map();
    old.set_verified(PageId(3), 7);
    let slice = old.bytes(3 * PAGE, PAGE as usize).unwrap();
    mapping.grow(&mut write_map, 5 * PAGE).unwrap();
    let new = mapping.read_map();
    assert_ne!(old.window_id(), new.window_id());
    assert_eq!(new.window_id(), mapping.window_id());
    assert_ne!(slice.as_ptr(), new.bytes(3 * PAGE, 1).unwrap().as_ptr());
    assert_eq!((old.len_bytes(), new.len_bytes()), (4 * PAGE, 5 * PAGE));
    assert_eq!(
        (old.verified_byte(PageId(3)), new.verified_byte(PageId(3))),
        (7, 0),
        "a new window starts without marks"
    );
    expect(slice, 3);
    // Both windows show stores through the writable mapping, which is now in the new window.
    write_map.bytes_mut(PageId(3), 1).fill(9);
    assert!(old.bytes(3 * PAGE, PAGE as usize).unwrap().iter().all(|&b| b == 9));
    assert!(new.bytes(3 * PAGE, PAGE as usize).unwrap().iter().all(|&b| b == 9));
    assert!(old.bytes(4 * PAGE, 1).is_none());
}

#[test]
fn a_window_is_unmapped_with_its_last_pin() {
    let (mapping, _temp) = in_file(Some(4));
    let mut write_map = mapping.write_map().unwrap();
    mapping.grow(&mut write_map, 4 * PAGE).unwrap();
    let old = Arc::downgrade(&mapping.window());
    let (read_map, flusher) = (mapping.read_map(), mapping.window());
    mapping.grow(&mut write_map, 5 * PAGE).unwrap();
    drop(flusher);
    let clone = read_map.clone();
    drop(read_map);
    assert!(old.upgrade().is_some());
    drop(clone);
    assert!(old.upgrade().is_none());
}

/// The memory areas between two addresses, each with its flags.
fn areas(base: u64, len: u64) -> Vec<(u64, u64, String)> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut areas: Vec<(u64, u64, String)> = Vec::new();
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap();
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            areas.last_mut().unwrap().2.push_str(flags);
        } else if let Some((from, to)) = first.split_once('-') {
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            areas.push((address(from), address(to), String::new()));
        }
    }
    areas.retain(|(from, to, _)| *from < base + len && base < *to);
    areas
}

#[test]
fn growth_merges_into_one_area_with_all_advice() {
    let (mapping, _temp) = in_file(Some(1000));
    let mut write_map = mapping.write_map().unwrap();
    for pages in [10, 11, 30, 500, 1000, 1001, 1500] {
        mapping.grow(&mut write_map, pages * PAGE).unwrap();
        let window = mapping.window();
        for base in [window.read_range().base, window.write_base().unwrap()] {
            let found = areas(base.as_ptr() as u64, pages * PAGE);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].2.contains(" rr") && found[0].2.contains(" dd"), "{found:?}");
            let behind = areas(base.as_ptr() as u64, window.capacity());
            assert!(behind.len() <= 2 && behind.last().unwrap().2.contains(" dd"), "{behind:?}");
        }
    }
}

#[test]
fn pages_are_prefaulted_if_blocks_cannot_be_reserved() {
    let (mapping, temp) = in_file(None);
    mapping.prefault_first.store(true, Ordering::Relaxed);
    mapping.grow(&mut mapping.write_map().unwrap(), 100 * PAGE).unwrap();
    assert!(mapping.prefaults_first());
    assert!(file::allocated_bytes(temp.as_file()).unwrap() >= 100 * PAGE);
}

#[test]
fn pages_of_32_kib_can_be_mapped() {
    let large = MapOptions { page_size: 32768, window_bytes: Some(100_000), fault_guard: true, used_bytes: None };
    let mapping = Mapping::anonymous(large).unwrap();
    let mut write_map = mapping.write_map().unwrap();
    mapping.grow(&mut write_map, 2 * 32768 + 1).unwrap();
    assert_eq!(write_map.len_bytes(), 3 * 32768);
    write_map.claim(PageId(2), 1);
    write_map.bytes_mut(PageId(2), 1).fill(2);
    mapping.grow(&mut write_map, 40 * 32768).unwrap();
    write_map.claim(PageId(39), 1);
    write_map.bytes_mut(PageId(39), 1).fill(39);
    let read_map = mapping.read_map();
    assert!(read_map.bytes(2 * 32768, 32768).unwrap().iter().all(|&b| b == 2));
    assert!(read_map.bytes(39 * 32768, 32768).unwrap().iter().all(|&b| b == 39));
    mapping.store_meta_page(1, &[7; 32768]);
    assert_eq!(read_map.bytes(65535, 2).unwrap(), [7, 2]);
}

#[test]
fn reads_outside_the_mapping_return_none() {
    let (mapping, _temp) = in_file(None);
    assert_eq!(mapping.read_map().len_bytes(), 0);
    assert!(mapping.read_map().bytes(0, 0).is_some() && mapping.read_map().bytes(0, 1).is_none());
    mapping.grow(&mut mapping.write_map().unwrap(), 3 * PAGE - 5).unwrap();
    let read_map = mapping.read_map();
    assert_eq!(read_map.len_bytes(), 3 * PAGE);
    assert!(read_map.bytes(3 * PAGE, 0).is_some() && read_map.bytes(3 * PAGE - 1, 1).is_some());
    for (offset, len) in [(3 * PAGE - 1, 2), (3 * PAGE + 1, 0), (u64::MAX, 1), (1, usize::MAX), (u64::MAX, usize::MAX)]
    {
        assert!(read_map.bytes(offset, len).is_none(), "{offset}+{len}");
    }
}

#[test]
fn verified_bytes_beyond_the_window_read_as_zero() {
    let (mapping, _temp) = in_file(Some(16));
    let read_map = mapping.read_map();
    for page in [0, 15] {
        assert_eq!(read_map.verified_byte(PageId(page)), 0);
        read_map.set_verified(PageId(page), 3);
        assert_eq!(read_map.clone().verified_byte(PageId(page)), 3);
    }
    for page in [call::page_bytes(), 1 << 47, u64::MAX] {
        read_map.set_verified(PageId(page), 1);
        assert_eq!(read_map.verified_byte(PageId(page)), 0);
    }
}

#[test]
fn there_is_one_write_map_at_a_time() {
    let (mapping, temp) = in_file(None);
    let write_map = mapping.write_map().unwrap();
    assert!(mapping.write_map().is_none());
    drop(write_map);
    assert!(mapping.write_map().is_some());
    let reader = Mapping::of_file(file::open(temp.path(), false).unwrap(), false, options(None)).unwrap();
    assert!(reader.write_map().is_none(), "a read-only mapping has none");
}

fn mapping_of_ten() -> (Mapping, WriteMap) {
    let mapping = Mapping::anonymous(options(None)).unwrap();
    let mut write_map = mapping.write_map().unwrap();
    mapping.grow(&mut write_map, 10 * PAGE).unwrap();
    (mapping, write_map)
}

#[test]
#[should_panic(expected = "without a claim")]
fn a_store_without_a_claim_panics() {
    let (_mapping, mut write_map) = mapping_of_ten();
    write_map.claim(PageId(2), 1);
    write_map.bytes_mut(PageId(2), 2);
}

#[test]
#[should_panic(expected = "beyond the mapping")]
fn a_store_beyond_the_mapping_panics() {
    let (_mapping, mut write_map) = mapping_of_ten();
    write_map.bytes_mut(PageId(10), 1);
}

#[test]
#[should_panic(expected = "meta page")]
fn a_claim_of_a_meta_page_panics() {
    mapping_of_ten().1.claim(PageId(1), 1);
}

#[test]
fn claims_allow_stores_until_they_are_released() {
    let (_mapping, mut write_map) = mapping_of_ten();
    write_map.claim(PageId(4), 3);
    assert_eq!(write_map.claimed_count(), 3);
    write_map.bytes_mut(PageId(4), 3).fill(5);
    let copy = write_map.bytes(PageId(9), 1).unwrap().to_vec();
    write_map.bytes_mut(PageId(4), 1).copy_from_slice(&copy);
    assert_eq!(write_map.bytes(PageId(4), 2).unwrap()[PAGE as usize - 1..PAGE as usize + 1], [0, 5]);
    assert!(write_map.bytes(PageId(9), 2).is_none() && write_map.bytes(PageId(u64::MAX), 2).is_none());
    write_map.unclaim(PageId(5), 1);
    assert!(write_map.is_claimed(PageId(4)) && !write_map.is_claimed(PageId(5)) && write_map.is_claimed(PageId(6)));
    write_map.prefault(PageId(4), 1).unwrap();
    assert_eq!(write_map.prefault(PageId(10), 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    write_map.release_all();
    assert_eq!(write_map.claimed_count(), 0);
}

#[test]
fn a_read_only_mapping_sees_stores_of_the_writer() {
    let (mapping, temp) = in_file(None);
    let mut write_map = mapping.write_map().unwrap();
    mapping.grow(&mut write_map, 4 * PAGE).unwrap();
    let reader = Mapping::of_file(file::open(temp.path(), false).unwrap(), false, options(Some(4))).unwrap();
    let read_map = reader.read_map();
    fill(&mut write_map, 2);
    expect(read_map.bytes(2 * PAGE, PAGE as usize).unwrap(), 2);
    mapping.grow(&mut write_map, 9 * PAGE).unwrap();
    fill(&mut write_map, 8);
    assert!(read_map.bytes(8 * PAGE, 1).is_none());
    let later = Mapping::of_file(file::open(temp.path(), false).unwrap(), false, options(Some(4))).unwrap();
    assert_eq!(later.read_map().len_bytes(), 10 * PAGE, "including the page of the sentinel");
    expect(later.read_map().bytes(8 * PAGE, PAGE as usize).unwrap(), 8);
    assert!(reader.flush(FlushKind::Tree, 0, PAGE).is_err());
}

#[test]
fn a_partial_page_at_the_end_is_not_mapped() {
    let temp = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temp.path(), [1; 10_000]).unwrap();
    let mapping = to_write(temp.path(), None);
    assert_eq!(mapping.read_map().len_bytes(), 2 * PAGE);
    mapping.grow(&mut mapping.write_map().unwrap(), 4 * PAGE).unwrap();
    let read_map = mapping.read_map();
    assert_eq!(read_map.bytes(9_999, 2).unwrap(), [1, 0]);
}

#[test]
fn meta_pages_are_stored_and_read_by_copy() {
    let (mapping, temp) = in_file(None);
    mapping.grow(&mut mapping.write_map().unwrap(), 2 * PAGE).unwrap();
    let page: Vec<u8> = (0..PAGE).map(|n| (n % 251) as u8).collect();
    mapping.store_meta_page(1, &page);
    mapping.flush(FlushKind::MetaPage, PAGE, PAGE).unwrap();
    assert_eq!(std::fs::read(temp.path()).unwrap()[PAGE as usize..2 * PAGE as usize], page);
    for (skip, len) in [(0, 4096), (3, 1), (5, 20), (8, 16), (4095, 1)] {
        let mut copy = vec![0; len];
        assert!(mapping.read_copy(PAGE + skip as u64, &mut copy));
        assert_eq!(copy, page[skip..skip + len]);
    }
    assert!(!mapping.read_copy(2 * PAGE - 1, &mut [0; 2]));
}

#[test]
fn shrinking_cuts_the_file_and_gives_blocks_back() {
    let (mapping, temp) = in_file(None);
    let mut write_map = mapping.write_map().unwrap();
    mapping.grow(&mut write_map, 600 * PAGE).unwrap();
    fill(&mut write_map, 2);
    fill(&mut write_map, 500);
    write_map.release_all();
    mapping.read_map().set_verified(PageId(500), 1);
    mapping.shrink(3 * PAGE).unwrap();
    let read_map = mapping.read_map();
    assert_eq!((read_map.len_bytes(), read_map.verified_byte(PageId(500))), (3 * PAGE, 0));
    expect(read_map.bytes(2 * PAGE, PAGE as usize).unwrap(), 2);
    assert!(file::allocated_bytes(temp.as_file()).unwrap() <= 64 * PAGE);
    file_calls::reserve_blocks(temp.as_file(), 3 * PAGE, 500 * PAGE).unwrap();
    mapping.shrink(u64::MAX).unwrap();
    assert_eq!(mapping.file_len().unwrap(), 3 * PAGE);
    assert!(file::allocated_bytes(temp.as_file()).unwrap() <= 64 * PAGE, "blocks after the end are freed too");
    mapping.grow(&mut write_map, 600 * PAGE).unwrap();
    assert!(mapping.read_map().bytes(500 * PAGE, PAGE as usize).unwrap().iter().all(|&b| b == 0));
}

#[test]
fn page_ranges_beyond_sixteen_tebibytes_do_not_overflow() {
    let page = |id, pages| bounds::page_range(PageId(id), pages, 12);
    assert_eq!(page(1 << 33, 2), Some((1 << 45, 8192)));
    assert_eq!(page((1 << 48) - 1, 1), Some((((1 << 48) - 1) << 12, 4096)));
    assert_eq!(page((1 << 51) - 2, 1), Some(((1 << 63) - 8192, 4096)));
    assert_eq!(page((1 << 51) - 1, 1), None, "the end would not fit a signed offset");
    assert_eq!(page(u64::MAX, 1), None);
    assert_eq!(page(2, u64::MAX), None);
    assert!(bounds::inside(1 << 45, (1 << 45) - 1, 1) && !bounds::inside(1 << 45, 1 << 45, 1));
    assert!(bounds::round_up(u64::MAX - 1, 4096).is_err());
}

mod seams {
    use std::cell::Cell;

    use super::*;
    use crate::hooks::{at_moments, strict_claims, FlushEvent, Hooks, Moment};

    /// The access rights at an address, from `/proc/self/maps`.
    fn rights_at(address: u64) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| {
            let (range, _) = line.split_once(' ').unwrap();
            let (from, to) = range.split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            (number(from)..number(to)).contains(&address)
        });
        line.map(|line| line.split(' ').nth(1).unwrap().to_string())
    }

    /// Whether an address is writable.
    fn can_store(address: u64) -> bool {
        rights_at(address).unwrap().as_bytes()[1] == b'w'
    }

    /// Whether there is private writable memory at an address.
    fn is_private(address: u64) -> bool {
        rights_at(address).is_some_and(|rights| rights == "rw-p")
    }

    #[test]
    fn with_strict_claims_only_claimed_pages_can_be_stored_to() {
        strict_claims(true);
        let (mapping, _temp) = in_file(Some(8));
        strict_claims(false);
        let mut write_map = mapping.write_map().unwrap();
        mapping.grow(&mut write_map, 8 * PAGE).unwrap();
        write_map.claim(PageId(3), 2);
        mapping.store_meta_page(1, &[7; PAGE as usize]);
        // Move to another window, with the claims.
        for pages in [8, 12] {
            mapping.grow(&mut write_map, pages * PAGE).unwrap();
            let base = mapping.window().write_base().unwrap().as_ptr() as u64;
            let open: Vec<u64> = (0..pages).filter(|page| can_store(base + page * PAGE)).collect();
            assert_eq!(open, [3, 4]);
        }
        write_map.unclaim(PageId(3), 1);
        let base = mapping.window().write_base().unwrap().as_ptr() as u64;
        assert!(!can_store(base + 3 * PAGE) && can_store(base + 4 * PAGE));
        write_map.release_all();
        assert!((0..12).all(|page| !can_store(base + page * PAGE)));
    }

    /// Between the two stores of a move, a reader sees the new address and the old value. It must
    /// not report a cut.
    #[test]
    fn readers_see_no_cut_while_the_sentinel_moves_to_its_place_for_writing() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(temp.path(), [3; 4 * PAGE as usize]).unwrap();
        let mapping = Mapping::of_file(file::open(temp.path(), true).unwrap(), true, options(None)).unwrap();
        let (read_map, moments) = (mapping.read_map(), std::rc::Rc::new(Cell::new(0)));
        let counted = std::rc::Rc::clone(&moments);
        let act = move |moment| {
            if moment == Moment::SentinelMoving {
                counted.set(counted.get() + 1);
                assert!(read_map.all_served(), "a reader between the two stores");
            }
        };
        at_moments(act, || mapping.ready_to_write().unwrap());
        assert_eq!(moments.get(), 1);
        assert!(mapping.read_map().all_served() && !mapping.is_faulted());
        temp.as_file().set_len(4 * PAGE).unwrap();
        assert!(!mapping.read_map().all_served(), "the sentinel is checked at its new place");
    }

    /// A move that fails late has unmapped its target, and another thread may have mapped something
    /// there. Growth must go on elsewhere, and must neither unmap nor overwrite that mapping, nor
    /// use it as part of the file.
    #[test]
    fn a_failed_move_leaves_its_target_to_other_mappings() {
        // In turn, these moves fail: the first one of growth (read-only mapping), the second one
        // (writable mapping), and the one that makes an alias.
        for (window_pages, works) in [(64, 0), (64, 1), (4, 0), (4, 1)] {
            let (mapping, _temp) = in_file(Some(window_pages));
            let mut write_map = mapping.write_map().unwrap();
            mapping.grow(&mut write_map, 4 * PAGE).unwrap();
            fill(&mut write_map, 3);
            let old = mapping.read_map();
            hooks::fail_moves(works, 1);
            mapping.grow(&mut write_map, 8 * PAGE).unwrap();
            let others = hooks::others();
            assert_eq!(others.len(), 1, "one move failed");
            expect(old.bytes(3 * PAGE, PAGE as usize).unwrap(), 3);
            drop(old);
            for pages in [9, 20, 60, 200] {
                mapping.grow(&mut write_map, pages * PAGE).unwrap();
                fill(&mut write_map, pages - 1);
                expect(mapping.read_map().bytes(3 * PAGE, PAGE as usize).unwrap(), 3);
            }
            drop(write_map);
            drop(mapping);
            for (start, len) in others {
                assert!(
                    is_private(start as u64) && is_private((start + len - 1) as u64),
                    "the other mapping is untouched"
                );
                crate::sys::testing::process::unmap_others(start, len);
            }
        }
    }

    /// MAP-3: moves fail after the file was extended, including moves into a larger window.
    #[test]
    fn growth_that_fails_late_restores_the_file_and_the_mapping() {
        let (mapping, _temp) = in_file(Some(64));
        let mut write_map = mapping.write_map().unwrap();
        mapping.grow(&mut write_map, 4 * PAGE).unwrap();
        fill(&mut write_map, 3);
        let (len, window_id) = (mapping.file_len().unwrap(), mapping.window_id());
        hooks::fail_moves(0, u32::MAX);
        let refused = mapping.grow(&mut write_map, 40 * PAGE);
        hooks::fail_moves(0, 0);
        assert!(refused.is_err());
        assert_eq!((mapping.file_len().unwrap(), mapping.window_id()), (len, window_id));
        assert_eq!((mapping.read_map().len_bytes(), write_map.len_bytes()), (4 * PAGE, 4 * PAGE));
        assert!(mapping.read_map().all_served());
        mapping.grow(&mut write_map, 40 * PAGE).unwrap();
        fill(&mut write_map, 39);
        expect(mapping.read_map().bytes(3 * PAGE, PAGE as usize).unwrap(), 3);
        expect(mapping.read_map().bytes(39 * PAGE, PAGE as usize).unwrap(), 39);
        hooks::others().into_iter().for_each(|(start, len)| crate::sys::testing::process::unmap_others(start, len));
    }

    /// READY-1: a file that is extended after a cut has a hole in place of the lost pages, which
    /// reads as zeros.
    #[test]
    fn a_file_that_is_cut_just_before_it_is_extended_is_refused() {
        let bytes: Vec<u8> = [3; 10 * PAGE as usize].to_vec();
        let temp = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(temp.path(), &bytes).unwrap();
        let cut = || {
            let file = temp.reopen().unwrap();
            move |moment| {
                if moment == Moment::Lengthening {
                    file.set_len(5 * PAGE + 7).unwrap();
                }
            }
        };
        let mapping = Mapping::of_file(file::open(temp.path(), true).unwrap(), true, options(None)).unwrap();
        assert!(at_moments(cut(), || mapping.ready_to_write()).is_err());
        assert!(mapping.write_map().is_none() && !mapping.read_map().all_served() && mapping.is_faulted());
        std::fs::write(temp.path(), &bytes).unwrap();
        let mapping = to_write(temp.path(), None);
        let mut write_map = mapping.write_map().unwrap();
        assert!(at_moments(cut(), || mapping.grow(&mut write_map, 20 * PAGE)).is_err());
        assert!(!mapping.read_map().all_served() && mapping.is_faulted());
        assert_eq!(write_map.len_bytes(), 10 * PAGE);
    }

    #[derive(Default)]
    struct Watcher {
        fail: AtomicBool,
        seen: Mutex<Vec<String>>,
    }

    impl Hooks for Watcher {
        fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
            let mut bytes = [0; 2];
            assert!(event.read(event.offset, &mut bytes));
            lock(&self.seen).push(format!("{event:?} {bytes:?}"));
            if self.fail.load(Ordering::Relaxed) {
                return Err(io::Error::other("injected"));
            }
            Ok(())
        }

        fn resized(&self, new_len: u64) {
            lock(&self.seen).push(format!("resized {new_len}"));
        }

        fn growing(&self, _new_len: u64) -> io::Result<()> {
            if self.fail.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    #[test]
    fn injected_errors_are_returned_and_the_mapping_stays_usable() {
        let (mapping, _temp) = in_file(Some(4));
        let watcher = Arc::new(Watcher::default());
        mapping.set_hooks(watcher.clone());
        let mut write_map = mapping.write_map().unwrap();
        mapping.grow(&mut write_map, 4 * PAGE).unwrap();
        fill(&mut write_map, 3);
        watcher.fail.store(true, Ordering::Relaxed);
        assert_eq!(mapping.grow(&mut write_map, 6 * PAGE).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(mapping.flush(FlushKind::MetaPage, 3 * PAGE, 9).unwrap_err().to_string(), "injected");
        assert_eq!((mapping.file_len().unwrap(), mapping.read_map().len_bytes()), (5 * PAGE, 4 * PAGE));
        expect(mapping.read_map().bytes(3 * PAGE, PAGE as usize).unwrap(), 3);
        watcher.fail.store(false, Ordering::Relaxed);
        mapping.grow(&mut write_map, 6 * PAGE).unwrap();
        fill(&mut write_map, 5);
        mapping.flush(FlushKind::Tree, 0, 6 * PAGE).unwrap();
        assert_eq!(mapping.flush_count(), 1);
        let [a, b, ..] = pattern(3);
        assert_eq!(
            *lock(&watcher.seen),
            [
                "resized 16384".to_owned(),
                format!("flush MetaPage 12288+9 of 20480 [{a}, {b}]"),
                "resized 24576".to_owned(),
                // The remains of the sentinel of the empty file.
                "flush Tree 0+24576 of 28672 [94, 0]".to_owned(),
            ]
        );
    }
}

/// Accesses that the kernel cannot serve.
mod faults {
    use super::*;

    /// Cuts the file as another program would.
    fn cut(temp: &tempfile::NamedTempFile, len: u64) {
        temp.as_file().set_len(len).unwrap();
    }

    fn filled(pages: u64) -> (Mapping, WriteMap, tempfile::NamedTempFile) {
        let (mapping, temp) = in_file(None);
        let mut write_map = mapping.write_map().unwrap();
        mapping.grow(&mut write_map, pages * PAGE).unwrap();
        (2..pages).for_each(|id| fill(&mut write_map, id));
        (mapping, write_map, temp)
    }

    #[test]
    fn a_load_beyond_the_end_reads_zeros_and_is_recorded() {
        let (mapping, _write_map, temp) = filled(10);
        let read_map = mapping.read_map();
        assert!(read_map.all_served());
        cut(&temp, 5 * PAGE);
        let bytes = read_map.bytes(7 * PAGE + 100, 8).unwrap().to_vec();
        assert_eq!(bytes, [0; 8]);
        assert!(!read_map.all_served() && mapping.is_faulted());
        let error = mapping.fault().unwrap().to_string();
        assert!(error.contains(&format!("at byte {}", 7 * PAGE + 100)) && error.contains("cut to 20480"), "{error}");
        expect(read_map.bytes(4 * PAGE, PAGE as usize).unwrap(), 4);
    }

    #[test]
    fn a_cut_inside_a_page_is_noticed_without_any_fault() {
        for len in [10 * PAGE - 1, 9 * PAGE + 1, 5 * PAGE + 100, 2 * PAGE] {
            let (mapping, _write_map, temp) = filled(10);
            let read_map = mapping.read_map();
            expect(read_map.bytes(2 * PAGE, PAGE as usize).unwrap(), 2);
            cut(&temp, len);
            assert!(!read_map.all_served(), "cut to {len}");
        }
    }

    #[test]
    fn a_cut_after_the_part_in_use_is_not_reported() {
        let (mapping, _write_map, temp) = filled(10);
        cut(&temp, 10 * PAGE + 1);
        assert!(mapping.read_map().all_served());
    }

    /// After a cut and an extension the file has a hole, which reads as zeros without a fault.
    #[test]
    fn a_file_that_was_cut_and_extended_again_is_reported() {
        let (mapping, mut write_map, temp) = filled(10);
        let len = mapping.file_len().unwrap();
        cut(&temp, 5 * PAGE + 7);
        cut(&temp, len);
        assert!(!mapping.read_map().all_served());
        assert!(mapping.grow(&mut write_map, 20 * PAGE).is_err());
    }

    /// After growth, the old place of the sentinel is an ordinary page: a reader that still checks
    /// it must not report a cut.
    #[test]
    fn a_moved_sentinel_is_not_taken_for_a_cut() {
        let (mapping, mut write_map, _temp) = filled(3);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let read_map = mapping.read_map();
                    while !done.load(Ordering::Acquire) {
                        assert!(read_map.all_served());
                    }
                });
            }
            for pages in 4..1500 {
                mapping.grow(&mut write_map, pages * PAGE).unwrap();
                fill(&mut write_map, pages - 1);
            }
            done.store(true, Ordering::Release);
        });
        assert!(mapping.read_map().all_served());
    }

    /// Once the file has moved to another window, the writer may use the page of the old sentinel.
    #[test]
    fn a_reader_of_an_old_window_does_not_report_a_store_as_a_cut() {
        let (mapping, temp) = in_file(Some(4));
        let mut write_map = mapping.write_map().unwrap();
        mapping.grow(&mut write_map, 4 * PAGE).unwrap();
        fill(&mut write_map, 3);
        let old = mapping.read_map();
        mapping.grow(&mut write_map, 6 * PAGE).unwrap();
        assert_ne!(old.window_id(), mapping.window_id());
        fill(&mut write_map, 4);
        fill(&mut write_map, 5);
        assert!(old.all_served() && !mapping.is_faulted());
        expect(old.bytes(3 * PAGE, PAGE as usize).unwrap(), 3);
        cut(&temp, 2 * PAGE);
        assert!(!old.all_served(), "a cut is still reported");
    }

    #[test]
    fn a_read_only_mapping_notices_every_cut_that_loses_more_than_zeros() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![3; 4 * PAGE as usize];
        bytes[4 * PAGE as usize - 1000..].fill(0);
        for (len, noticed) in [(PAGE, true), (4 * PAGE - 1001, true), (4 * PAGE - 1000, false), (4 * PAGE, false)] {
            std::fs::write(temp.path(), &bytes).unwrap();
            let reader = Mapping::of_file(file::open(temp.path(), false).unwrap(), false, options(None)).unwrap();
            assert!(reader.read_map().all_served());
            cut(&temp, len);
            assert_eq!(reader.read_map().all_served(), !noticed, "cut to {len}");
        }
    }

    #[test]
    fn stores_beyond_the_end_are_lost_and_recorded() {
        let (mapping, mut write_map, temp) = filled(10);
        cut(&temp, 5 * PAGE);
        write_map.bytes_mut(PageId(8), 1).fill(1);
        assert_eq!(write_map.bytes(PageId(8), 1).unwrap()[..2], [1, 1]);
        assert!(mapping.is_faulted() && !mapping.has_whole(10 * PAGE).unwrap());
        assert!(mapping.grow(&mut write_map, 20 * PAGE).is_err());
        assert_eq!(mapping.file_len().unwrap(), 5 * PAGE, "the store does not extend the file");
    }

    #[test]
    fn a_file_that_was_cut_does_not_grow() {
        let (mapping, mut write_map, temp) = filled(10);
        cut(&temp, 5 * PAGE);
        assert!(mapping.grow(&mut write_map, 20 * PAGE).is_err());
        assert!(mapping.is_faulted());
        assert_eq!(mapping.file_len().unwrap(), 5 * PAGE);
    }

    #[test]
    fn pages_are_not_written_past_the_end_of_a_file_that_was_cut() {
        let (mapping, _write_map, temp) = filled(10);
        cut(&temp, 8 * PAGE + 5);
        assert!(mapping.write_pages(7 * PAGE, &[1; 2 * PAGE as usize]).is_err());
        assert!(mapping.is_faulted());
        assert_eq!(mapping.file_len().unwrap(), 8 * PAGE + 5);
    }

    #[test]
    fn threads_survive_a_cut_during_large_copies() {
        let (mapping, _write_map, temp) = filled(4000);
        let start = Barrier::new(9);
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (mapping, start) = (&mapping, &start);
                scope.spawn(move || {
                    let read_map = mapping.read_map();
                    start.wait();
                    for round in 0..20 {
                        let from = 2 + (thread * 31 + round) % 50;
                        let copy = read_map.bytes(from * PAGE, (3900 * PAGE) as usize).unwrap().to_vec();
                        assert!(
                            !read_map.all_served()
                                || copy.chunks_exact(8).step_by(512).zip(from..).all(|(w, id)| w == pattern(id))
                        );
                    }
                    assert!(!read_map.all_served());
                });
            }
            start.wait();
            cut(&temp, 1000 * PAGE + 5);
        });
    }

    #[test]
    fn other_mappings_still_work_and_a_new_mapping_recovers() {
        let (mapping, _write_map, temp) = filled(10);
        let (other, _other_write_map, _other_temp) = filled(10);
        let bytes = std::fs::read(temp.path()).unwrap();
        cut(&temp, PAGE);
        assert!(!mapping.read_map().all_served());
        expect(other.read_map().bytes(9 * PAGE, PAGE as usize).unwrap(), 9);
        assert!(other.read_map().all_served());
        std::fs::write(temp.path(), bytes).unwrap();
        assert!(!mapping.read_map().all_served(), "a mapping with a fault is never trusted again");
        let healed = Mapping::of_file(file::open(temp.path(), true).unwrap(), true, options(None)).unwrap();
        expect(healed.read_map().bytes(9 * PAGE, PAGE as usize).unwrap(), 9);
        assert!(healed.read_map().all_served());
    }

    #[test]
    fn probe_reports_accesses_that_would_fail() {
        let (mapping, _write_map, temp) = filled(10);
        let read_map = mapping.read_map();
        read_map.probe(9 * PAGE, PAGE as usize).unwrap();
        cut(&temp, 5 * PAGE);
        let error = read_map.probe(9 * PAGE, PAGE as usize).unwrap_err();
        assert!(matches!(error, Error::Fault { offset, .. } if offset == 9 * PAGE), "{error}");
    }
}

#[test]
fn pages_of_a_dropped_cache_are_read_ahead_and_verified_again() {
    let (mapping, _temp) = in_file(None);
    let mut write_map = mapping.write_map().unwrap();
    mapping.grow(&mut write_map, 64 * PAGE).unwrap();
    let read_map = mapping.read_map();
    read_map.set_verified(PageId(20), 7);
    read_map.ahead().mark_all_examined();
    mapping.drop_cache();
    assert_eq!(read_map.verified_byte(PageId(20)), 0);
    assert!(!read_map.ahead().was_examined(20 * PAGE));
}
