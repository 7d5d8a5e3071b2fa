//! Any bytes as a file: opening, checking and reading all of it gives values or errors, and the file that was refused
//! is not changed. Start from small databases in the corpus; the function seals the checksums of what it is given, so
//! that changed bytes get past them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mapleaf::testing::fuzz_open(data));
