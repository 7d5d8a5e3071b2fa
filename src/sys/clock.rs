//! A coarse clock that all processes of the machine share, also those in other time namespaces.
//!
//! Floor: sys. Steps of a few milliseconds, and a call takes a few nanoseconds. It is the time of
//! day, so it jumps when the time is set: only for ages that people read, and for hints.
//!
//! Failure: none. Without the clock, the time is 0.
#![allow(unsafe_code, reason = "a raw system call")]

/// Milliseconds since 1970.
#[inline]
pub(crate) fn coarse_millis() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a call that fills `now`.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut now) };
    (now.tv_sec as u64).wrapping_mul(1000).wrapping_add(now.tv_nsec as u64 / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn the_coarse_clock_is_near_the_time_of_day() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
        assert!(coarse_millis().abs_diff(now) < 60_000);
    }
}
