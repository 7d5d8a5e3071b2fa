//! Finds the processes that hold a lock of a file, for the text of an error.
//!
//! Floor: sys. The kernel names no process for a lock of an open file (`F_OFD_GETLK` and
//! `/proc/locks` give -1), but `/proc/PID/fdinfo` lists such locks for each descriptor. So this
//! module reads the descriptors of all processes that it may read: those of the same user, or all
//! for the superuser. That costs a few system calls for each descriptor on the machine, and is done
//! only when a lock was refused.
//!
//! Failure: no process, if the kernel does not tell, or if the holders have ended meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::sys::descriptor;

/// A process that holds a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    pub(crate) process: u32,
    /// The name of its program, without control characters.
    pub(crate) command: String,
    /// Whether the lock is exclusive.
    pub(crate) writes: bool,
}

/// Finds the processes that hold a lock from byte `lock` on, of the file with this device and
/// inode.
pub(crate) fn of_lock(id: (u64, u64), lock: u64) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holder = |process: u32| {
        let writes = lock_in(process, id, lock)?;
        let command = descriptor::read_text(Path::new(&format!("/proc/{process}/comm"))).unwrap_or_default();
        let command = command.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Some(Holder { process, command, writes })
    };
    numbers.into_iter().filter_map(holder).collect()
}

/// `Some` if a process holds the lock: whether it is exclusive.
fn lock_in(process: u32, id: (u64, u64), lock: u64) -> Option<bool> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    descriptors.flatten().find_map(|descriptor| {
        let info = Path::new("/proc").join(process.to_string()).join("fdinfo").join(descriptor.file_name());
        let kind = descriptor::read_text(&info).ok()?.lines().find_map(|line| kind_of(line, lock))?;
        // Only for a file with such a lock: for any other file, the call could wait for a file
        // system that does not answer.
        let file = fs::metadata(descriptor.path()).ok().filter(|file| (file.dev(), file.ino()) == id);
        file.map(|_| kind)
    })
}

/// `Some` if a line of `fdinfo` is a lock that begins at this byte: whether it is exclusive. Such a
/// line reads `lock: 1: OFDLCK ADVISORY WRITE -1 fd:01:4711 FIRST LAST`.
fn kind_of(line: &str, lock: u64) -> Option<bool> {
    let mut words = line.strip_prefix("lock:")?.split_whitespace().skip_while(|word| *word != "OFDLCK").skip(2);
    let kind = words.next()?;
    (words.nth(2)?.parse() == Ok(lock)).then_some(kind == "WRITE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::locks::{self, LockKind};

    #[test]
    fn kind_and_position_of_a_lock_are_read_from_fdinfo() {
        let line = "lock:\t1: OFDLCK ADVISORY  WRITE -1 fd:01:4711 17 17";
        assert_eq!((kind_of(line, 17), kind_of(line, 18)), (Some(true), None));
        assert_eq!(kind_of("lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:4711 17 EOF", 17), Some(false));
        for other in ["pos:\t0", "lock:\t1: FLOCK  ADVISORY  WRITE 1 fd:01:4711 17 17", "lock:", ""] {
            assert_eq!(kind_of(other, 17), None, "{other}");
        }
    }

    #[test]
    fn the_holder_of_a_lock_is_found_while_it_holds_it() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let file = fs::File::options().read(true).write(true).open(named.path()).unwrap();
        let found = file.metadata().unwrap();
        let id = (found.dev(), found.ino());
        assert_eq!(of_lock(id, locks::WRITER), []);
        for (kind, writes) in [(LockKind::Exclusive, true), (LockKind::Shared, false)] {
            assert!(locks::try_lock(&file, locks::WRITER, 1, kind).unwrap());
            let holder = of_lock(id, locks::WRITER).pop().unwrap();
            assert_eq!((holder.process, holder.writes), (std::process::id(), writes));
            assert!(!holder.command.is_empty());
        }
        locks::unlock(&file, locks::WRITER, 1).unwrap();
        assert_eq!(of_lock(id, locks::WRITER), []);
    }
}
