//! Prefetch: asks the processor to bring memory into its cache before it is used.
//!
//! Floor: sys. A prefetch is a hint: it changes nothing that a program sees, and never faults,
//! whatever is at the address. It does not bring pages into memory.
//!
//! Failure: none. On a processor for which Rust has no stable instruction, nothing happens.
#![allow(unsafe_code, reason = "the instruction")]

/// Bytes of a cache line on common processors.
pub(crate) const LINE_BYTES: usize = 64;

/// Prefetches the cache lines of some bytes: one for each 64 bytes, from the first on.
#[inline(always)]
pub(crate) fn lines(bytes: &[u8]) {
    bytes.iter().step_by(LINE_BYTES).for_each(line);
}

/// Prefetches all cache lines of a value that is aligned to them.
#[inline(always)]
pub(crate) fn value<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        // SAFETY: bounds: the offset is inside the value, which is borrowed during the call. A
        // prefetch is a hint: it reads nothing that the program sees, and does not fault.
        unsafe {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast::<i8>().add(offset));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _no_stable_intrinsic = value;
}

#[inline(always)]
fn line(byte: &u8) {
    value(byte);
}
