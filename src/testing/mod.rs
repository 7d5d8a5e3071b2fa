//! Code for tests and benchmarks only: test hooks, fuzz targets, counters. Not part of the public
//! interface.
//!
//! Floor: testing, above all others. Present only with the feature `testing`, hidden from the
//! documentation, and free to change.
//!
//! ```text
//! pages      fuzzing of pages: any bytes as a page, and pages built from any entries
//! files      fuzzing of files: any bytes as a file, which is opened and used
//! ops        fuzzing of operations, compared with a model
//! input      how these read numbers, keys and values from bytes
//! temp_path  paths of their files
//! log        what the commit log of a file holds
//! seal       corrects the checksums of a changed file
//! records    the live records, for a search over schedules
//! bare       lookups without verified bytes, checksums and fault guard, to measure their cost
//! ```
//!
//! The targets in `fuzz/` and tests of this crate call the first three.

mod bare;
mod files;
mod input;
mod log;
mod long_keys;
mod ops;
mod pages;
mod records;
mod seal;
mod temp_path;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::db::{Db, Options};
use crate::error::Result;
use crate::hooks::set_next_hooks;
use crate::page::meta::MetaPage;
use crate::sys::direct_io;
use crate::txn::open;

pub use bare::BareTable;
pub use files::{fuzz_open, sample_files};
pub use log::{log_content, LogContent};
pub use ops::fuzz_ops;
pub use pages::fuzz_page;
pub use records::{abandon, go_on_from, open_as_another_process, records, release_writer_lock, Records};
pub use seal::seal_file;

pub use crate::hooks::{
    at_moments, set_attributes, set_chain, set_file_system, set_log_shape, set_mutant, set_scheduled, set_sole,
    strict_claims, take_noted, Creation, FlushEvent, FlushKind, Hooks, LockName, Moment, Mutant, Recovery,
};
pub use crate::mapping::testing::reserved as reserved_bytes;
pub use crate::sys::testing::confine::{
    answer_calls, die_after, interrupt_every, interruptions, limit_file_size, Answer, Argument, Matching,
};

pub use crate::sys::testing::descriptors::{memory_with_seals, receive_descriptors, send_descriptors};
pub use crate::sys::testing::limits::{
    become_nobody, lock_process_memory, set_process_limit, split_into_areas, ProcessLimit,
};
pub use crate::sys::testing::process::{
    close_standard_descriptors, end_child, ends_without_error, foreign_fault, fork, handle_one_bus_error,
    in_forked_child, print_to_standard_descriptors,
};

/// Sets the hooks of a database. They see each flush and each growth before it happens, and can
/// make it fail.
pub fn set_hooks(db: &Db, hooks: Arc<dyn Hooks>) {
    db.env().mapping.set_hooks(hooks);
}

/// Opens a database with hooks that also see the flushes of opening and the steps of creation.
pub fn open_with_hooks(options: Options, path: impl AsRef<Path>, hooks: Arc<dyn Hooks>) -> Result<Db> {
    with_next_hooks(hooks, || options.open(path))
}

/// Runs `run`, in which the next mapping gets these hooks.
pub fn with_next_hooks<T>(hooks: Arc<dyn Hooks>, run: impl FnOnce() -> T) -> T {
    set_next_hooks(Some(hooks));
    let done = run();
    set_next_hooks(None);
    done
}

/// Opens a database with hooks as another process would, although this process may have it open:
/// the two share the file, the lock file and nothing else.
pub fn open_apart(path: impl AsRef<Path>, hooks: Arc<dyn Hooks>) -> Result<Db> {
    set_next_hooks(Some(hooks));
    let opened = open::open_apart(path.as_ref());
    set_next_hooks(None);
    Ok(Db::of(opened?, false))
}

/// Runs `run` while this thread does a step wrong, to prove that a test fails then.
pub fn with_mutant<T>(mutant: Option<Mutant>, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<Mutant>);
    impl Drop for Restore {
        fn drop(&mut self) {
            crate::hooks::set_mutant(self.0);
        }
    }
    let _restore = Restore(crate::hooks::mutant());
    crate::hooks::set_mutant(mutant);
    run()
}

/// Makes no commit log while `run` runs, in databases that only this thread writes to.
pub fn without_log<T>(run: impl FnOnce() -> T) -> T {
    with_log_shape(Some((u64::MAX, 0)), run)
}

/// Makes commit logs after so many commits and of so many bytes while `run` runs.
pub fn with_log_shape<T>(shape: Option<(u64, u64)>, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<(u64, u64)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            crate::hooks::set_log_shape(self.0);
        }
    }
    let _restore = Restore(crate::hooks::log_shape());
    crate::hooks::set_log_shape(shape);
    run()
}

/// Steps that this thread has counted so far: accesses to open tables, reader slots and free
/// extents.
pub fn steps() -> u64 {
    crate::hooks::steps()
}

/// Flushes of this database that succeeded.
pub fn flush_count(db: &Db) -> u64 {
    db.env().mapping.flush_count()
}

/// The id of the current window. It changes when the database outgrows its window and moves to a
/// larger one.
pub fn window_id(db: &Db) -> u64 {
    db.env().mapping.window_id()
}

/// Drops a file from the page cache. The file was flushed, and no program has it mapped. Returns
/// whether all of it was dropped.
pub fn drop_page_cache(file: &File) -> io::Result<bool> {
    direct_io::forget_cache(file)
}

/// Drops the clean pages of an open database from the page cache, as the kernel does when it needs
/// memory.
pub fn evict(db: &Db) {
    db.env().mapping.drop_cache();
}

/// Sets how many bytes of page cache fit in memory, from now on.
pub fn set_available_memory(db: &Db, bytes: u64) {
    db.env().mapping.set_room(bytes);
}

/// Kernel pages of a file that the page cache holds.
pub fn cached_pages(file: &File) -> io::Result<u64> {
    direct_io::cached_pages(file)
}

/// Number of the newest transaction that is known to be durable.
pub fn durable_txn(db: &Db) -> u64 {
    db.env().live.durable_txn().0
}

/// Number of the transaction that the durable meta page describes.
pub fn durable_meta_txn(db: &Db) -> u64 {
    db.env().live.durable_meta().txn.0
}

/// Number of the newest transaction that new readers see.
pub fn published_txn(db: &Db) -> u64 {
    db.env().live.published_txn().0
}

/// Pages of the commit log; 0 if there is none.
pub fn log_pages(db: &Db) -> u64 {
    db.env().live.latest().log.pages
}

/// Number of the newest committed transaction, durable or not.
pub fn latest_txn(db: &Db) -> u64 {
    db.env().live.latest().txn.0
}

/// Sets the page count of the newest state of a closed file, and makes the file `spare` pages
/// longer than that. The next transactions use page ids from `pages` on. The pages between are
/// lost, and `check` would report them.
pub fn raise_page_count(path: &std::path::Path, pages: u64, spare: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut record = [0; 256];
    file.read_exact_at(&mut record, 0)?;
    let first = MetaPage::decode_copy(&record).map_err(|e| std::io::Error::other(format!("{e:?}")))?;
    let page_size = u64::from(first.page_size);
    file.read_exact_at(&mut record, page_size)?;
    let (offset, mut meta) = match MetaPage::decode_copy(&record) {
        Ok(second) if second.txn > first.txn => (page_size, second),
        _ => (0, first),
    };
    meta.page_count = pages;
    let mut slot = vec![0; page_size as usize];
    meta.encode_slot(&mut slot);
    file.write_all_at(&slot, offset)?;
    file.set_len((pages + spare) * page_size)
}
