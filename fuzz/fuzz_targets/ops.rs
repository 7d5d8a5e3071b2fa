//! Executes sequences of operations of the public API and compares with maps: tables, values of all
//! sizes, aborts, snapshots, reopening. `src/testing/ops.rs` defines the meaning of the bytes; the
//! tests call the same function.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mapleaf::testing::fuzz_ops(data));
