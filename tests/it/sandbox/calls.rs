//! The list of all system calls of Mapleaf, with the purpose of each, and the effect if the kernel
//! refuses it.
//!
//! `strace -f` found them, on the operations of `steps` and the verbs of `kvctl`; the test
//! `every_system_call_is_in_the_list` keeps the list complete.

use mapleaf::testing::Argument;

/// The effect of a refused call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Without {
    /// Every operation works: the call is a hint, or another call replaces it.
    Works,
    /// Operations that need it end with an error that names one of these, the errno, and a sandbox.
    NamesIt(&'static [&'static str]),
}

/// A call, or one use of it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) number: i64,
    /// Conditions on the arguments, where only one use is meant.
    pub(super) arguments: &'static [Argument],
    pub(super) purpose: &'static str,
    pub(super) without: Without,
}

const fn argument(index: u32, mask: u32, value: u32) -> Argument {
    Argument { index, mask, value }
}

const fn whole(index: u32, value: i32) -> Argument {
    argument(index, u32::MAX, value as u32)
}

/// Flags of `mmap` for a shared mapping of a file.
const SHARED_FILE: Argument = argument(3, (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u32, libc::MAP_SHARED as u32);
const RESERVED: Argument = argument(2, u32::MAX, libc::PROT_NONE as u32);
const NEW_FILE: Argument = argument(2, libc::O_CREAT as u32, libc::O_CREAT as u32);

macro_rules! call {
    ($name:literal, $number:expr, [$($argument:expr),*], $purpose:literal, $without:expr) => {
        Call { name: $name, number: $number, arguments: &[$($argument),*], purpose: $purpose, without: $without }
    };
}

use Without::{NamesIt, Works};

/// All of them.
#[rustfmt::skip]
pub(super) const CALLS: &[Call] = &[
    // Mapping.
    call!("mmap", libc::SYS_mmap, [SHARED_FILE], "maps the file", NamesIt(&["mmap"])),
    call!("mmap PROT_NONE", libc::SYS_mmap, [RESERVED], "reserves address space", NamesIt(&["mmap"])),
    call!("mremap", libc::SYS_mremap, [], "moves a mapping into its reservation", Works),
    call!("munmap", libc::SYS_munmap, [], "gives address space back", Works),
    call!("mprotect", libc::SYS_mprotect, [], "permits accesses to a new mapping", Works),
    call!("munlock", libc::SYS_munlock, [], "keeps mappings out of mlockall", Works),
    call!("msync", libc::SYS_msync, [], "flushes", Works),
    call!("madvise", libc::SYS_madvise, [], "all advice on mappings", Works),
    call!("madvise RANDOM", libc::SYS_madvise, [whole(2, libc::MADV_RANDOM)], "keeps folios small", Works),
    call!("madvise DONTNEED", libc::SYS_madvise, [whole(2, libc::MADV_DONTNEED)], "lets pages and marks go", Works),
    call!("madvise DONTDUMP", libc::SYS_madvise, [whole(2, libc::MADV_DONTDUMP)], "keeps core dumps small", Works),
    call!("madvise WIPEONFORK", libc::SYS_madvise, [whole(2, libc::MADV_WIPEONFORK)], "tells a child after fork", Works),
    call!("madvise POPULATE_READ", libc::SYS_madvise, [whole(2, libc::MADV_POPULATE_READ)], "brings pages in", Works),
    call!("madvise POPULATE_WRITE", libc::SYS_madvise, [whole(2, libc::MADV_POPULATE_WRITE)], "takes faults ahead", Works),
    call!("mincore", libc::SYS_mincore, [], "asks what is in memory", Works),
    call!("cachestat", 451, [], "asks what is in memory or dirty", Works),
    call!("rt_sigaction", libc::SYS_rt_sigaction, [], "installs the fault guard", NamesIt(&["rt_sigaction"])),
    // Files.
    call!("openat", libc::SYS_openat, [], "opens files", NamesIt(&["openat"])),
    call!("openat O_CREAT", libc::SYS_openat, [NEW_FILE], "makes files", NamesIt(&["openat"])),
    call!("openat O_DIRECT", libc::SYS_openat, [argument(2, libc::O_DIRECT as u32, libc::O_DIRECT as u32)],
        "reads meta pages past the cache", Works),
    call!("memfd_create", libc::SYS_memfd_create, [], "makes a database in memory", NamesIt(&["memfd_create"])),
    call!("close", libc::SYS_close, [], "closes files", Works),
    call!("statx", libc::SYS_statx, [], "type, length and identity of a file", Works),
    call!("fstat", libc::SYS_fstat, [], "the same", Works),
    call!("newfstatat", libc::SYS_newfstatat, [], "the same", Works),
    call!("lseek", libc::SYS_lseek, [], "the length of a file", Works),
    call!("lseek SEEK_DATA", libc::SYS_lseek, [whole(2, libc::SEEK_DATA)], "passes over holes", Works),
    call!("fstatfs", libc::SYS_fstatfs, [], "the kind of file system", Works),
    call!("statfs", libc::SYS_statfs, [], "room on the disk", Works),
    call!("ioctl", libc::SYS_ioctl, [], "extents, and attributes on btrfs", Works),
    call!("fcntl F_OFD_SETLK", libc::SYS_fcntl, [whole(1, libc::F_OFD_SETLK)], "locks", NamesIt(&["fcntl(F_OFD_SETLK)"])),
    call!("readlink", libc::SYS_readlink, [], "where a new file is to lie", Works),
    call!("read", libc::SYS_read, [], "what memory there is and what the process has of it", Works),
    call!("pread64", libc::SYS_pread64, [], "meta pages and pages", NamesIt(&["pread"])),
    call!("pwrite64", libc::SYS_pwrite64, [], "long values and pages of a load", NamesIt(&["pwrite"])),
    call!("ftruncate", libc::SYS_ftruncate, [], "length of the file", NamesIt(&["ftruncate"])),
    call!("fallocate", libc::SYS_fallocate, [], "reserves blocks", Works),
    call!("fadvise64", libc::SYS_fadvise64, [], "read-ahead, and dropping the cache", Works),
    call!("sync_file_range", libc::SYS_sync_file_range, [], "starts write-back", Works),
    call!("fsync", libc::SYS_fsync, [], "makes new files and their names durable", Works),
    call!("fdatasync", libc::SYS_fdatasync, [], "instead of the others", Works),
    call!("syncfs", libc::SYS_syncfs, [], "instead of flushing a directory", Works),
    call!("renameat2", libc::SYS_renameat2, [], "gives a new file its name", Works),
    call!("linkat", libc::SYS_linkat, [], "the same", Works),
    call!("unlink", libc::SYS_unlink, [], "removes temporary files", Works),
    call!("fgetxattr", libc::SYS_fgetxattr, [], "whether a flush failed", Works),
    call!("fsetxattr", libc::SYS_fsetxattr, [], "that a flush failed", Works),
    call!("fremovexattr", libc::SYS_fremovexattr, [], "that the file was recovered", Works),
    call!("fchmod", libc::SYS_fchmod, [], "gives a copy the rights of its source", Works),
    call!("fchown", libc::SYS_fchown, [], "the same", Works),
    // The process.
    call!("getpid", libc::SYS_getpid, [], "tells a child after fork", Works),
    call!("getrandom", libc::SYS_getrandom, [], "random numbers", Works),
    call!("poll", libc::SYS_poll, [], "whether standard descriptors are closed", Works),
    call!("prlimit64", libc::SYS_prlimit64, [], "limits of the process", Works),
    call!("getrusage", libc::SYS_getrusage, [], "notices large folios", Works),
    call!("clone3", libc::SYS_clone3, [], "threads that write or prefault beside a load", Works),
    call!("clone", libc::SYS_clone, [], "the same", Works),
];

/// Calls that are not refused, with the reason.
#[rustfmt::skip]
pub(super) const LEFT_OUT: &[(&str, i64, &str)] = &[
    ("write", libc::SYS_write, "answers of the test; Mapleaf makes none"),
    ("futex", libc::SYS_futex, "locks and waiting of the standard library"),
    ("brk", libc::SYS_brk, "memory of the C library"),
    ("mmap", libc::SYS_mmap, "the same; Mapleaf's own uses are in the list"),
    ("mprotect", libc::SYS_mprotect, "memory of the C library, stacks of threads"),
    ("exit", libc::SYS_exit, "ends a thread"),
    ("exit_group", libc::SYS_exit_group, "ends the process"),
    ("rt_sigreturn", libc::SYS_rt_sigreturn, "returns from a signal handler"),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask, "start and end of a thread"),
    ("sigaltstack", libc::SYS_sigaltstack, "the same"),
    ("set_robust_list", libc::SYS_set_robust_list, "the same"),
    ("rseq", libc::SYS_rseq, "the same"),
    ("gettid", libc::SYS_gettid, "the same"),
    ("prctl", libc::SYS_prctl, "names of threads"),
    ("sched_getaffinity", libc::SYS_sched_getaffinity, "the standard library, for a thread's stack"),
    ("sched_yield", libc::SYS_sched_yield, "spinning of the standard library"),
    ("clock_gettime", libc::SYS_clock_gettime, "not made where the kernel maps the clock"),
    ("fcntl", libc::SYS_fcntl, "the standard library's look at a descriptor; Mapleaf's locks are in the list"),
    ("restart_syscall", libc::SYS_restart_syscall, "made by the kernel"),
    ("lstat, stat", libc::SYS_stat, "whether a path is taken: the call that makes the file decides"),
    ("alarm", libc::SYS_alarm, "the test"),
];
