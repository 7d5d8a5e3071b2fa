//! Sealing and verifying pages and extents with a CRC-32 (IEEE) in their first four bytes.
//!
//! Floor: page. The checksum covers everything after itself, unused bytes too, so that it can be
//! verified without decoding the page. The pointer to a page carries the same number (R2). So a
//! lost write is noticed too: the old page is intact, but its checksum differs from the one in the
//! pointer.

use super::header::PageKind;
use super::layout::{get_u32, put_u32, CHECKED, CHECKSUM, KIND};
use crate::hooks::{self, Mutant};

/// Computes the checksum of a page or extent; ignores the stored one.
pub(crate) fn compute(page: &[u8]) -> u32 {
    if hooks::is(Mutant::ShortChecksum) {
        return crc32fast::hash(page.get(CHECKED..page.len().saturating_sub(1)).unwrap_or(&[]));
    }
    crc32fast::hash(page.get(CHECKED..).unwrap_or(&[]))
}

/// Computes the checksum of a page or extent, stores it in its header and returns it.
pub(crate) fn seal(page: &mut [u8]) -> u32 {
    let crc = compute(page);
    put_u32(page, CHECKSUM, crc);
    crc
}

/// The checksum in the header.
#[inline]
pub(crate) fn stored(page: &[u8]) -> u32 {
    get_u32(page, CHECKSUM)
}

/// Whether a page or extent is the one that its pointer refers to: stored and computed checksum are
/// both `expected`. The cheap comparison comes first.
pub(crate) fn matches(page: &[u8], expected: u32) -> bool {
    if hooks::is(Mutant::PointerUnchecked) {
        return compute(page) == stored(page);
    }
    if hooks::is(Mutant::LongKeyUnchecked) && page.get(KIND) == Some(&(PageKind::Overflow as u8)) {
        return true;
    }
    stored(page) == expected && compute(page) == expected
}

/// The checksum of an extent that is read in chunks, from its header on.
#[derive(Default, Debug)]
pub(crate) struct Running {
    hasher: crc32fast::Hasher,
    begun: bool,
}

impl Running {
    pub(crate) fn add(&mut self, chunk: &[u8]) {
        let from = if self.begun { 0 } else { CHECKED };
        self.begun = true;
        self.hasher.update(chunk.get(from..).unwrap_or(&[]));
    }

    /// Starts after the header: all bytes that are added count.
    pub(crate) fn after_header() -> Running {
        Running { begun: true, ..Running::default() }
    }

    /// Appends the bytes that were added to `rest`.
    pub(crate) fn append(&mut self, rest: Running) {
        self.hasher.combine(&rest.hasher);
    }

    pub(crate) fn finish(self) -> u32 {
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_page_matches_its_checksum_until_a_bit_flips() {
        let mut page = vec![7u8; 4096];
        let crc = seal(&mut page);
        assert_eq!(stored(&page), crc);
        assert!(matches(&page, crc));
        assert!(!matches(&page, crc ^ 1), "another page than the pointer means");
        for bit in (0..4096 * 8).step_by(13) {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches(&page, crc), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn the_function_is_ieee_crc32() {
        assert_eq!(compute(b"....123456789"), 0xCBF4_3926);
    }

    #[test]
    fn too_short_slices_do_not_panic() {
        assert_eq!(stored(&[1, 2]), 0);
        assert_eq!(compute(&[]), 0);
    }
}
