//! Futexes: a thread sleeps until another one, perhaps of another process, wakes it.
//!
//! Floor: sys. The word lies in memory that the processes share. Sleeping ends after a time limit
//! in any case, and may end early, so callers look again at the state that they wait for.
//!
//! Failure: none. If the kernel refuses futexes, the thread sleeps for a short time instead.
#![allow(unsafe_code, reason = "raw system calls")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a thread sleeps where the kernel refuses futexes.
const NAP: Duration = Duration::from_micros(500);

/// The address of the low half of a word, which the kernel compares.
fn low_half(word: &AtomicU64) -> *const u32 {
    let half = std::ptr::from_ref(word).cast::<u32>();
    match cfg!(target_endian = "big") {
        // SAFETY: the second half of the same word.
        true => unsafe { half.add(1) },
        false => half,
    }
}

/// Sleeps while the low half of a word is that of `seen`, until `wake` or for at most `limit`.
pub(crate) fn wait(word: &AtomicU64, seen: u64, limit: Duration) {
    if word.load(Ordering::SeqCst) as u32 != seen as u32 {
        return;
    }
    let timeout = libc::timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ };
    // SAFETY: the word and the time live through the call. The futex is not private: other
    // processes share it.
    let done =
        unsafe { libc::syscall(libc::SYS_futex, low_half(word), libc::FUTEX_WAIT, seen as u32, &raw const timeout) };
    if done < 0 && !matches!(errno(), libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) {
        std::thread::park_timeout(NAP.min(limit));
    }
}

/// Wakes all threads that sleep on a word, in all processes.
pub(crate) fn wake_all(word: &AtomicU64) {
    // SAFETY: the word lives through the call.
    unsafe { libc::syscall(libc::SYS_futex, low_half(word), libc::FUTEX_WAKE, libc::c_int::MAX) };
}

fn errno() -> libc::c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_is_woken_after_the_word_has_changed() {
        let word = AtomicU64::new(1 << 40 | 7);
        wait(&word, 8, Duration::from_secs(60));
        wait(&word, 7, Duration::from_millis(1));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while word.load(Ordering::SeqCst) as u32 == 7 {
                    wait(&word, 7, Duration::from_secs(60));
                }
            });
            word.store(9, Ordering::SeqCst);
            while !sleeper.is_finished() {
                wake_all(&word);
            }
        });
    }
}
