//! Any bytes as a page, and pages of any entries: no panic, what decodes encodes to the same, each search agrees with a
//! look at all entries. The function stands in `src/testing/pages.rs`; the tests call the same one.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mapleaf::testing::fuzz_page(data));
