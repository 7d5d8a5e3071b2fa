//! Runs the functions of the fuzz targets on a small random sample; `fuzz/` runs them for hours.
//!
//! Each finding becomes a named test here, with the bytes that caused it.

use mapleaf::testing::{fuzz_open, fuzz_ops, fuzz_page, sample_files};
use proptest::prelude::*;

use crate::support::long;

fn cases(usual: u32) -> ProptestConfig {
    let cases = usual * long();
    ProptestConfig { cases, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() }
}

/// Input whose first byte has `value` in the bits of `mask`; the first byte selects the meaning of
/// the rest.
fn input(first: u8, mask: u8, len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..len).prop_map(move |mut bytes| {
        bytes[0] = bytes[0] & !mask | first;
        bytes
    })
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn fuzzed_leaves_return_the_stored_entries(data in input(0b1000, 0b1100, 1500)) {
        fuzz_page(&data);
    }

    #[test]
    fn fuzzed_branches_return_the_stored_entries(data in input(0b1100, 0b1100, 1500)) {
        fuzz_page(&data);
    }

    #[test]
    fn random_bytes_as_a_page_are_an_error_or_safe(mut data in input(0, 0b1000, 300), kind in 0u8..7) {
        // Bytes 3 to 8 are checksum, kind and level of the page.
        if let Some(place) = data.get_mut(7) {
            *place = kind;
        }
        fuzz_page(&data);
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn changed_sample_pages_are_an_error_or_safe(
        sample: prop::sample::Index,
        page: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let pages: Vec<&[u8]> = sample.get(sample_files()).chunks(4096).collect();
        let mut page = page.get(&pages).to_vec();
        for (at, byte) in changes {
            page[at.index(4096)] = byte;
        }
        // Unchanged, all in the front part.
        fuzz_page(&[&[0b0100, 0x10, 0x00], page.as_slice(), &[0, 0]].concat());
    }

    #[test]
    fn changed_files_are_an_error_or_safe(data in input(0, 0x80, 40)) {
        fuzz_open(&data);
    }

    #[test]
    fn fuzzed_operations_agree_with_a_map(data in prop::collection::vec(any::<u8>(), 0..1500)) {
        fuzz_ops(&data);
    }
}

/// `check` once accepted a meta page with a low next tree id, and the next new table got a reserved
/// id.
#[test]
fn a_meta_page_with_a_low_next_tree_id_is_damage() {
    // The empty sample, in whose meta pages the next tree id, at byte 128, is 3.
    fuzz_open(&[3, 28, 128, 3, 0, 0, 0]);
}

/// A meta page whose roots had other tree ids than those of catalog and free space once opened and
/// passed `check`, while recovery reported damage.
#[test]
fn a_meta_page_with_roots_of_other_trees_is_damage() {
    for sample in 0..8 {
        // The number of the catalog's tree, and that of the free-space tree.
        for at in [84, 108] {
            fuzz_open(&[sample, 28, at, 7, 0, 0, 0]);
        }
    }
}

/// A changed record of the free-space tree covered a page that the transaction used. When the
/// transaction freed the page, an assertion failed; without assertions, overlapping extents were
/// saved.
#[test]
fn a_page_that_is_free_twice_is_damage_when_it_comes_back() {
    fuzz_open(&[2, 0xbf, 0x5d, 0x04, 0x5d, 0x04, 0x1a, 0x19]);
}

/// Opening a file once extended it before it found damage in the free list: the records of its
/// commit log were gone, so nothing was replayed in memory before.
#[test]
fn a_file_with_an_empty_log_and_a_damaged_free_list_is_refused_unchanged() {
    for sample in 0..8 {
        fuzz_open(&[sample << 3 | 4, 81, 165, 5, 4, 5, 65, 99, 97, 0, 0, 103]);
    }
}

/// `check` once accepted a meta page whose copies had two database ids. After the next commit it
/// did not.
#[test]
fn a_meta_page_whose_copies_have_two_database_ids_is_damage() {
    fuzz_open(&[101, 202, 52, 6, 16, 0, 0, 205, 55]);
}
