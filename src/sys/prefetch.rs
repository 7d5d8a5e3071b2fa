//! Asking the processor for memory before it is needed.
//!
//! Floor: sys. A prefetch is a hint: it changes nothing that a program sees, and never faults,
//! whatever lies at the address. Pages that are not in memory stay where they are.
//!
//! Failure: none. Where there is no stable instruction for it, nothing happens.
#![allow(unsafe_code, reason = "the instruction")]

/// What comes into the cache at once on common processors.
pub(crate) const LINE_BYTES: usize = 64;

/// Asks for the lines of some bytes, one for each 64 from the first.
#[inline(always)]
pub(crate) fn lines(bytes: &[u8]) {
    bytes.iter().step_by(LINE_BYTES).for_each(line);
}

/// Asks for all lines of a value that is aligned to them.
#[inline(always)]
pub(crate) fn value<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        // SAFETY: bounds: the offset lies inside of the value, which is borrowed for the call. A
        // prefetch is a hint: it reads nothing that the program sees, and it does not fault.
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
