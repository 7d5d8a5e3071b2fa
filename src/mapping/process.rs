//! Which process this is, to tell a child after `fork`, which has copies of all that its parent had (P22).
//!
//! Floor: mapping. The number stands in memory that the system clears in every child, so that asking costs a load and no
//! system call.
//!
//! Failure: none. Where memory cannot be cleared so, the system is asked each time.
#![allow(unsafe_code, reason = "memory that is never given back")]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use super::os;

/// Where the number stands; null before the first question, and where it cannot stand anywhere.
static PLACE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
static ASKS_SYSTEM: AtomicBool = AtomicBool::new(false);

/// The number of this process.
#[inline]
pub(crate) fn id() -> u32 {
    // SAFETY: null, or (bounds) the start of a page of memory, so aligned and large enough; lifetime: it is never given back;
    // aliasing: it is reached through atomics alone.
    match unsafe { PLACE.load(Ordering::Acquire).as_ref() } {
        Some(place) => match place.load(Ordering::Relaxed) {
            0 => note(place),
            id => id,
        },
        None => first_id(),
    }
}

/// Asks the system once: nobody has in this process.
#[cold]
fn note(place: &AtomicU32) -> u32 {
    let id = std::process::id();
    place.store(id, Ordering::Relaxed);
    id
}

#[cold]
fn first_id() -> u32 {
    if !ASKS_SYSTEM.load(Ordering::Relaxed) {
        match os::cleared_in_children() {
            // Of two that ask at once, one has made its place in vain.
            Ok(place) => PLACE.store(place.cast().as_ptr(), Ordering::Release),
            Err(_) => ASKS_SYSTEM.store(true, Ordering::Relaxed),
        }
    }
    std::process::id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_number() {
        assert_eq!((id(), id(), id()), (std::process::id(), std::process::id(), std::process::id()));
        assert!(!ASKS_SYSTEM.load(Ordering::Relaxed), "this system clears memory in children");
    }
}
