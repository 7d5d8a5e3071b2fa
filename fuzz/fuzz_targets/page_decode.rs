//! Uses any bytes as a page, and builds pages of any entries. Nothing may panic, a decoded page
//! must encode to the same bytes, and each search must agree with a linear search. The function is
//! in `src/testing/pages.rs`; the tests call it too.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mapleaf::testing::fuzz_page(data));
