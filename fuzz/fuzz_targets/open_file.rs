//! Any bytes as a file, or as changes to a small database: opening, checking, reading and writing it gives values or
//! errors, and a file that was refused is not changed. The checksums are set right first, so that changes get past
//! them. The function stands in `src/testing/files.rs`; the tests call the same one.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mapleaf::testing::fuzz_open(data));
