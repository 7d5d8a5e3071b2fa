//! Any bytes as a page: every reader of the page floor gives a value or an error, and does not panic, loop or read out
//! of bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mapleaf::testing::fuzz_page(data));
