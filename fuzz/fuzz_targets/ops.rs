//! Sequences of operations through the public API, compared with maps: tables, values of all sizes, aborts, snapshots,
//! reopening. What the bytes mean stands in `src/testing/ops.rs`; the tests call the same function.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| mapleaf::testing::fuzz_ops(data));
