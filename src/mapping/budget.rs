//! The budget: how much address space the databases of this process reserve together.
//!
//! Floor: mapping. Address space belongs to the whole process, so every range that is reserved for
//! a window is counted here until it is unmapped.
//!
//! ```text
//! address space of the process, or RLIMIT_AS if that is less
//! | rest of the program | half of the remainder: all databases | the other half: unused |
//!                       | one window takes at most 1/16 of what is left of this half
//! ```
//!
//! A file always gets a window for its own length and an eighth more, even beyond the budget, as
//! long as the kernel has address space.
//!
//! Invariants:
//!   BUDGET-1  the account is the sum of the reserved ranges: each is added before it is mapped,
//!       and subtracted after it was unmapped.
//!
//! Failure: none. If there is no limit, or if the kernel does not tell how much address space the
//! process uses, only the databases are counted.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crate::sys::{descriptor, process_limits};

/// The databases may reserve one part in this many of the address space that the rest of the
/// program leaves.
const PROGRAM_PARTS: u64 = 2;
/// One window takes at most one part in this many of the remaining budget.
const WINDOW_PARTS: u64 = 16;
/// A process this close to the limit on its memory areas counts as having reached it, because some
/// calls need several areas at once.
const AREAS_SPARE: u64 = 16;

/// Smallest address space of a window, if the budget allows it.
const WINDOW_BYTES_MIN: u64 = 64 << 30;
/// Address space of a window per byte of the file, if the budget allows it.
const WINDOW_PER_FILE: u64 = 16;
/// Room for growth that a window gets while the budget has twice as much left.
const WINDOW_SPARE_BYTES: u64 = 16 << 20;

/// Bytes that all databases of this process have reserved.
pub(super) static RESERVED: AtomicU64 = AtomicU64::new(0);

/// Bytes of address space that are counted in the budget until this is dropped.
#[derive(Debug)]
pub(super) struct BudgetShare {
    bytes: AtomicU64,
    of_file: Arc<AtomicU64>,
}

impl BudgetShare {
    /// Adds bytes that are about to be reserved, to the account of the process and to that of a
    /// file.
    pub(super) fn new(bytes: u64, of_file: &Arc<AtomicU64>) -> BudgetShare {
        RESERVED.fetch_add(bytes, Ordering::Relaxed);
        of_file.fetch_add(bytes, Ordering::Relaxed);
        BudgetShare { bytes: AtomicU64::new(bytes), of_file: Arc::clone(of_file) }
    }

    /// Subtracts all but `bytes` bytes.
    pub(super) fn shrink_to(&self, bytes: u64) {
        let removed = self.bytes.fetch_min(bytes, Ordering::Relaxed).saturating_sub(bytes);
        RESERVED.fetch_sub(removed, Ordering::Relaxed);
        self.of_file.fetch_sub(removed, Ordering::Relaxed);
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// Bytes that windows may still reserve.
fn left() -> u64 {
    let reserved = RESERVED.load(Ordering::Relaxed);
    let all = process_limits::address_space_bytes();
    let (all, of_program) = match process_limits::address_space_limit() {
        Some(limit) => (all.min(limit), process_limits::process_bytes().unwrap_or(reserved).saturating_sub(reserved)),
        // What the rest of the program uses is little beside a whole address space.
        None => (all, 0),
    };
    budget(all, of_program).saturating_sub(reserved)
}

/// Address space for the first window over a file of `len` bytes: the size that the caller asked
/// for, or the default.
pub(super) fn first_window(asked: Option<u64>, len: u64, writable: bool) -> u64 {
    match asked {
        Some(bytes) => bytes.min(left() / ranges(writable)),
        None => within_budget(len.saturating_mul(WINDOW_PER_FILE).max(WINDOW_BYTES_MIN), len, writable),
    }
}

/// Address space for the window that a file of `len` bytes moves to from one of `room` bytes.
pub(super) fn larger_window(room: u64, len: u64, writable: bool) -> u64 {
    within_budget(room.saturating_mul(2).max(len.saturating_mul(WINDOW_PER_FILE)), len, writable)
}

/// Address space for a window over a file of `len` bytes: `wanted`, if the budget has it, else the
/// file and some room for growth. A database that gets little moves to a larger window as it grows.
fn within_budget(wanted: u64, len: u64, writable: bool) -> u64 {
    let left = left() / ranges(writable);
    let spare = (len / 2).max(WINDOW_SPARE_BYTES).min((left / 2).max(len / 8));
    let room = len.saturating_add(spare);
    wanted.min(room.max(left / WINDOW_PARTS))
}

/// Reservations of a window: one for the read-only mapping, and one for the writable mapping.
fn ranges(writable: bool) -> u64 {
    1 + u64::from(writable)
}

/// How much of an address space of `all` bytes the databases may take, if the rest of the program
/// uses `of_program` bytes.
fn budget(all: u64, of_program: u64) -> u64 {
    all.saturating_sub(of_program) / PROGRAM_PARTS
}

/// Makes an error say which limit was reached, if the kernel refused `wanted` bytes of address
/// space. Returns other errors unchanged.
#[cold]
pub(super) fn explain(cause: io::Error, wanted: u64) -> io::Error {
    let what = match cause.raw_os_error() {
        Some(libc::ENOMEM) => no_space_left(),
        Some(libc::EAGAIN) => format!(
            "it locks its memory (mlockall), and RLIMIT_MEMLOCK (ulimit -l) permits {}; raise that",
            bytes_or_any(process_limits::locked_memory_limit())
        ),
        _ => return cause,
    };
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!("the process gets no address space for {wanted} bytes more ({cause}): {what}"),
    )
}

/// The limit that was reached, and the remedy.
fn no_space_left() -> String {
    const REMEDY: &str = "close databases, or open them with a smaller Options::window_size";
    if let (Some(areas), Some(permitted)) = (areas(), process_limits::areas_limit()) {
        if areas.saturating_add(AREAS_SPARE) >= permitted {
            return format!(
                "it has {areas} memory areas, and vm.max_map_count permits {permitted}; raise that, or close databases"
            );
        }
    }
    match process_limits::address_space_limit() {
        Some(limit) => {
            let used = bytes_or_any(process_limits::process_bytes());
            format!("it uses {used}, and RLIMIT_AS (ulimit -v) permits {limit} bytes; raise that, {REMEDY}")
        }
        None => REMEDY.to_string(),
    }
}

fn bytes_or_any(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "an unknown number of bytes".to_string(), |bytes| format!("{bytes} bytes"))
}

/// Memory areas of this process. Uses a small buffer, because there may be little memory.
fn areas() -> Option<u64> {
    let mut file = descriptor::open(OpenOptions::new().read(true), Path::new("/proc/self/maps")).ok()?;
    let (mut chunk, mut lines) = ([0; 4096], 0);
    loop {
        match file.read(&mut chunk).ok()? {
            0 => return Some(lines),
            read => lines += chunk[..read].iter().filter(|&&byte| byte == b'\n').count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_get_half_of_the_free_address_space() {
        assert_eq!(budget(1 << 47, 0), 1 << 46);
        assert_eq!(budget(1000, 400), 300);
        assert_eq!(budget(1000, 2000), 0);
    }

    #[test]
    fn a_window_fits_its_file_and_is_not_larger_than_wanted() {
        let beyond = within_budget(u64::MAX, 1 << 62, true) - (1 << 62);
        assert_eq!(beyond, 1 << 59, "a file gets its own length and an eighth more, even beyond the budget");
        assert_eq!(within_budget(1 << 30, 4096, true), 1 << 30);
        assert_eq!(within_budget(8192, 4096, true), 8192, "no window is larger than wanted");
    }

    #[test]
    fn a_budget_share_is_subtracted_once() {
        let of_file = Arc::new(AtomicU64::new(0));
        let counted = [BudgetShare::new(1000, &of_file), BudgetShare::new(500, &of_file)];
        assert_eq!(of_file.load(Ordering::Relaxed), 1500);
        counted[0].shrink_to(300);
        counted[0].shrink_to(700);
        assert_eq!(of_file.load(Ordering::Relaxed), 800);
        drop(counted);
        assert_eq!(of_file.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_error_names_the_limit_that_was_reached() {
        let explained = |code| explain(io::Error::from_raw_os_error(code), 4096);
        assert!(explained(libc::ENOMEM).to_string().contains("Options::window_size"));
        assert_eq!(explained(libc::ENOMEM).kind(), io::ErrorKind::OutOfMemory);
        assert!(explained(libc::EAGAIN).to_string().contains("RLIMIT_MEMLOCK"));
        assert_eq!(explained(libc::ENODEV).raw_os_error(), Some(libc::ENODEV));
        assert!(areas().is_some_and(|areas| areas > 5) && left() > 1 << 40);
    }
}
