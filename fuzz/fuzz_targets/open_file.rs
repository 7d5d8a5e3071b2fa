//! Uses any bytes as a file, or as changes to a small database. Opening, checking, reading and
//! writing it must give values or errors, and must not change a refused file. The function
//! recomputes the checksums first, so that they do not hide the changes. It is in
//! `src/testing/files.rs`; the tests call it too.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mapleaf::testing::fuzz_open(data));
