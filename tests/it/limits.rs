//! Limits of the process: address space, memory areas, locked memory. Each test sets its limit in a
//! child process.
//!
//! Other limits are tested in `bin/tests/it/refused_writes.rs` (size of files) and `disks` (full
//! disks).

use mapleaf::testing::{
    become_nobody, lock_process_memory, reserved_bytes, set_process_limit, split_into_areas, window_id, ProcessLimit,
};
use mapleaf::{Db, Options, Table};

use crate::reexec;
use crate::workload::fast_dir;

const VALUES: Table<u64, &[u8]> = Table::new("values");
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Runs the child `test` of this module and expects success.
fn in_child(test: &str) {
    let mut child = reexec::start(reexec::command(&format!("limits::{test}"), &[]));
    assert_eq!(child.line().as_deref(), Some("done"), "{test}");
    child.finish();
}

/// A field of `/proc/self/status` in bytes.
fn status_bytes(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the status");
    let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

fn limit_address_space(bytes: Option<u64>) {
    set_process_limit(ProcessLimit::AddressSpace, bytes).expect("a limit");
}

/// Stores `mib` MiB more, in one transaction.
fn put_mib(db: &Db, from: u64, mib: u64) -> mapleaf::Result<()> {
    db.write(|txn| {
        let mut table = txn.table(VALUES)?;
        (from * 16..(from + mib) * 16).try_for_each(|key| table.insert(key, &[key as u8; 65_000][..]).map(drop))
    })
}

/// Reads what [`put_mib`] has stored.
fn read_mib(db: &Db, mib: u64) {
    let txn = db.begin_read().expect("begins");
    let table = txn.table(VALUES).expect("the table");
    for key in 0..mib * 16 {
        let value = table.get(key).expect("served").expect("there");
        assert!(value.len() == 65_000 && value.iter().all(|&byte| byte == key as u8), "value {key}");
    }
}

/// Allocates for the program: memory that it never touches, and memory that it does.
fn the_program_allocates(reserved: u64, touched: usize) {
    let len = usize::try_from(reserved).expect("64 bits");
    drop(memmap2::MmapOptions::new().len(len).no_reserve_swap().map_anon().expect("address space for the program"));
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(touched).expect("memory for the program");
    memory.resize(touched, 1);
    assert_eq!(memory.iter().map(|&byte| u64::from(byte)).sum::<u64>(), touched as u64);
}

#[test]
fn three_thousand_open_databases_leave_the_program_address_space() {
    in_child("three_thousand_databases_child");
}

#[test]
fn three_thousand_databases_child() {
    if reexec::arguments().is_none() {
        return;
    }
    set_process_limit(ProcessLimit::OpenFiles, None).expect("descriptors");
    let dir = fast_dir();
    let open = |n: u64| {
        let db = Db::open(dir.path().join(format!("{n}.mapleaf"))).unwrap_or_else(|e| panic!("database {n}: {e}"));
        if n.is_multiple_of(100) {
            db.write(|txn| txn.table(VALUES)?.insert(n, &[n as u8; 100][..]).map(drop)).expect("committed");
        }
        db
    };
    let open: Vec<Db> = (0..3000).map(open).collect();
    the_program_allocates(1 << 40, 64 << 20);
    // A database opened last can still grow.
    let last = &open[2999];
    put_mib(last, 0, 40).expect("grows");
    read_mib(last, 40);
    for (n, db) in (0..).zip(&open).step_by(100) {
        let txn = db.begin_read().expect("begins");
        assert_eq!(txn.table(VALUES).expect("table").get(n).expect("read"), Some(&[n as u8; 100][..]));
    }
    drop(open);
    assert_eq!(reserved_bytes(), 0, "what was reserved goes back");
    reexec::answer("done");
}

#[test]
fn under_a_limit_on_address_space_twenty_databases_open_grow_read_and_commit() {
    in_child("twenty_databases_child");
}

#[test]
fn twenty_databases_child() {
    if reexec::arguments().is_none() {
        return;
    }
    limit_address_space(Some(4 * GIB));
    let dir = fast_dir();
    let path = |n: u64| dir.path().join(format!("{n}.mapleaf"));
    let open: Vec<Db> = (0..20).map(|n| Db::open(path(n)).unwrap_or_else(|e| panic!("database {n}: {e}"))).collect();
    for mib in 0..8 {
        open.iter().for_each(|db| put_mib(db, mib, 1).expect("grows and commits"));
    }
    open.iter().for_each(|db| read_mib(db, 8));
    the_program_allocates(GIB, 256 << 20);
    drop(open);
    (0..20).for_each(|n| read_mib(&Db::open(path(n)).expect("opens again"), 8));
    reexec::answer("done");
}

#[test]
fn small_databases_under_a_small_limit_leave_half_of_it_to_the_program() {
    in_child("many_small_databases_child");
}

#[test]
fn many_small_databases_child() {
    if reexec::arguments().is_none() {
        return;
    }
    const LIMIT: u64 = 800 * MIB;
    let program = status_bytes("VmSize");
    limit_address_space(Some(LIMIT));
    let dir = fast_dir();
    let path = |n: u64| dir.path().join(format!("{n}.mapleaf"));
    let open: Vec<Db> = (0..40).map(|n| Db::open(path(n)).unwrap_or_else(|e| panic!("database {n}: {e}"))).collect();
    // Empty files need a few pages each, for two mappings and the verified bytes.
    let half = (LIMIT - program) / 2 + 40 * 64 * 1024;
    assert!(reserved_bytes() <= half, "{} of {half} bytes for empty files", reserved_bytes());
    open.iter().take(8).for_each(|db| put_mib(db, 0, 4).expect("grows and commits"));
    // The eight files need two mappings each, plus an eighth and one step of growth.
    let needed = 8 * 2 * 8 * MIB;
    assert!(reserved_bytes() <= half + needed, "{} of {half} and {needed} bytes", reserved_bytes());
    the_program_allocates(100 * MIB, 50 << 20);
    open.iter().take(8).for_each(|db| read_mib(db, 4));
    reexec::answer("done");
}

#[test]
fn a_growth_without_address_space_is_an_error_and_the_handle_goes_on() {
    in_child("growth_without_address_space_child");
}

/// Lowers the limit so that `db` cannot grow, and returns its error.
fn grow_without_room(db: &Db, from: u64) -> String {
    limit_address_space(Some(status_bytes("VmSize") + 8 * MIB));
    let refused = put_mib(db, from, 400).expect_err("no room");
    assert_eq!(refused.kind(), mapleaf::ErrorKind::Io, "{refused}");
    refused.to_string()
}

#[test]
fn growth_without_address_space_child() {
    if reexec::arguments().is_none() {
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let at_first = status_bytes("VmSize");
    let db = Options::new().window_size(MIB).open(&path).expect("opens");
    put_mib(&db, 0, 4).expect("grows");
    for round in 0..20 {
        let said = grow_without_room(&db, 4);
        let named = ["RLIMIT_AS", "ulimit -v", "Options::window_size"].iter().all(|name| said.contains(name));
        assert!(named, "round {round}: {said}");
        read_mib(&db, 4);
    }
    // Another handle, without more room.
    drop(db);
    let db = Options::new().window_size(MIB).open(&path).expect("opens again");
    read_mib(&db, 4);
    grow_without_room(&db, 4);
    // And the same handle, when there is room.
    limit_address_space(None);
    put_mib(&db, 4, 60).expect("grows when there is room");
    read_mib(&db, 64);
    drop(db);
    assert_eq!(reserved_bytes(), 0, "what was reserved goes back");
    let left = status_bytes("VmSize").saturating_sub(at_first);
    assert!(left < 64 * MIB, "{left} bytes of address space stay");
    reexec::answer("done");
}

#[test]
fn a_growth_without_memory_areas_is_an_error_and_the_handle_goes_on() {
    in_child("growth_without_areas_child");
}

#[test]
fn growth_without_areas_child() {
    if reexec::arguments().is_none() {
        return;
    }
    let limit: usize =
        std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("a limit").trim().parse().expect("it");
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let db = Options::new().window_size(MIB).open(&path).expect("opens");
    put_mib(&db, 0, 4).expect("grows");
    let mut memory = memmap2::MmapMut::map_anon(limit * 4096).expect("memory of the program");
    split_into_areas(&mut memory).expect_err("more areas than there can be");
    let refused = put_mib(&db, 4, 64).expect_err("no areas").to_string();
    assert!(refused.contains("vm.max_map_count"), "{refused}");
    read_mib(&db, 4);
    drop(memory);
    put_mib(&db, 4, 60).expect("grows when there are areas again");
    read_mib(&db, 64);
    drop(db);
    read_mib(&Db::open(&path).expect("opens"), 64);
    reexec::answer("done");
}

#[test]
fn a_program_that_locks_its_memory_does_not_lock_what_a_database_reserves() {
    in_child("locked_memory_child");
}

#[test]
fn locked_memory_child() {
    if reexec::arguments().is_none() {
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    put_mib(&Db::open(&path).expect("opens"), 0, 80).expect("grows");
    // Privileged processes have no limit.
    lock_process_memory(true).expect("locked");
    let (locked, resident) = (status_bytes("VmLck"), status_bytes("VmRSS"));
    let db = Db::open(&path).expect("opens");
    let first = window_id(&db);
    db.write(|txn| txn.table(VALUES)?.insert(u64::MAX, &[][..]).map(drop)).expect("committed");
    let more = |field, before| status_bytes(field).saturating_sub(before);
    assert!(more("VmLck", locked) < 8 * MIB, "{} bytes more are locked", more("VmLck", locked));
    assert!(more("VmRSS", resident) < 16 * MIB, "{} bytes more are in memory", more("VmRSS", resident));
    // Also the pages that it grows by, and a larger window.
    put_mib(&db, 80, 20).expect("grows");
    read_mib(&db, 100);
    assert_eq!(window_id(&db), first);
    let small = Options::new().window_size(MIB).open(dir.path().join("small.mapleaf")).expect("opens");
    let before = window_id(&small);
    put_mib(&small, 0, 20).expect("grows");
    read_mib(&small, 20);
    assert_ne!(window_id(&small), before);
    assert!(more("VmLck", locked) < 32 * MIB, "{} bytes more are locked", more("VmLck", locked));
    reexec::answer("done");
}

#[test]
fn a_limit_on_locked_memory_leaves_databases_usable() {
    in_child("limit_on_locked_memory_child");
}

#[test]
fn limit_on_locked_memory_child() {
    if reexec::arguments().is_none() {
        return;
    }
    let dir = fast_dir();
    let anyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), anyone).expect("a directory for anyone");
    set_process_limit(ProcessLimit::LockedMemory, Some(6 * MIB)).expect("a limit");
    become_nobody().expect("no privilege");
    lock_process_memory(false).expect("locked from now on");
    for window in [None, Some(MIB)] {
        let path = dir.path().join(format!("{window:?}.mapleaf"));
        let options = || window.map_or(Options::new(), |bytes| Options::new().window_size(bytes));
        let db = options().open(&path).expect("opens");
        // More than can be locked.
        (0..80).step_by(4).for_each(|mib| put_mib(&db, mib, 4).expect("grows"));
        read_mib(&db, 80);
        drop(db);
        read_mib(&options().open(&path).expect("opens again"), 80);
    }
    reexec::answer("done");
}

#[test]
fn stats_tell_apart_what_is_used_mapped_and_reserved() {
    let dir = fast_dir();
    let db = Options::new().window_size(64 * MIB).open(dir.path().join("db.mapleaf")).expect("opens");
    put_mib(&db, 0, 4).expect("grows");
    let stats = db.stats().expect("stats");
    assert_eq!(stats.used_bytes, stats.page_count * u64::from(stats.page_size));
    assert!(stats.used_bytes <= stats.mapped_bytes && stats.mapped_bytes <= stats.file_bytes, "{stats:?}");
    // The read-only mapping, the writable one, and the verified bytes.
    assert!((128 * MIB..129 * MIB).contains(&stats.reserved_bytes), "{stats:?}");
}
