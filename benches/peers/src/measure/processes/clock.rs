//! Clocks: one that all processes share, and the time that this process has had on the processors.

use std::io;
use std::time::Duration;

/// Nanoseconds of CLOCK_MONOTONIC.
pub(super) fn now_nanos() -> u64 {
    nanos_of(libc::CLOCK_MONOTONIC).unwrap_or(0)
}

/// Nanoseconds that all threads of this process have run.
pub(super) fn cpu_nanos() -> io::Result<u64> {
    nanos_of(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn nanos_of(clock: libc::clockid_t) -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable for the whole struct.
    if unsafe { libc::clock_gettime(clock, &mut time) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos() as u64)
}

/// Keeps a processor busy.
pub(super) fn spin_until(nanos: u64) {
    while now_nanos() < nanos {
        std::hint::spin_loop();
    }
}
