//! Hooks that only tests need: the test hooks, fuzz entry points, counters. Not part of the public
//! interface.
//!
//! Floor: testing, above all others. Only with the feature `testing`, hidden from the
//! documentation, and free to change.
//!
//! ```text
//! pages   any bytes as a page, and pages of any entries      }
//! files   any bytes as a file, opened and used               } what the targets in `fuzz/` call, and the tests
//! ops     any bytes as operations, compared with a model     }
//! input   how these take numbers and keys from bytes
//! seal    sets the checksums of a changed file right
//! bare    lookups without marks, checksums and fault guard, to measure what these cost
//! ```

mod bare;
mod files;
mod input;
mod ops;
mod pages;
mod seal;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::db::{Db, Options};
use crate::error::Result;
use crate::hooks::set_next_hooks;
use crate::page::meta::MetaPage;
use crate::sys::direct_io;

pub use bare::BareTable;
pub use files::{fuzz_open, sample_files};
pub use ops::fuzz_ops;
pub use pages::fuzz_page;
pub use seal::seal_file;

pub use crate::hooks::{at_moments, strict_claims, Creation, FlushEvent, FlushKind, Hooks, Moment, Mutant, Recovery};
pub use crate::mapping::testing::reserved as reserved_bytes;
pub use crate::sys::testing::confine::{
    answer_calls, die_after, interrupt_every, interruptions, limit_file_size, Answer, Argument, Matching,
};

pub use crate::sys::testing::limits::{
    become_nobody, lock_process_memory, set_process_limit, split_into_areas, ProcessLimit,
};
pub use crate::sys::testing::process::{
    close_standard_descriptors, end_child, ends_in_order, foreign_fault, fork, handle_one_bus_error, in_forked_child,
    print_to_standard_descriptors,
};

/// Sets the hooks of a database: they see each flush and each growth before it happens, and may
/// make it fail.
pub fn set_hooks(db: &Db, hooks: Arc<dyn Hooks>) {
    db.env().mapping.set_hooks(hooks);
}

/// Opens a database with hooks from the first flush on, those of opening and the steps of creation
/// included.
pub fn open_with_hooks(options: Options, path: impl AsRef<Path>, hooks: Arc<dyn Hooks>) -> Result<Db> {
    set_next_hooks(Some(hooks));
    let opened = options.open(path);
    set_next_hooks(None);
    opened
}

/// Does something wrong on this thread while `run` runs, to prove that a test would see it.
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

/// Steps that this thread has taken so far: looks at what transactions and the database hold
/// besides trees.
pub fn steps() -> u64 {
    crate::hooks::steps()
}

/// Flushes of this database that succeeded.
pub fn flush_count(db: &Db) -> u64 {
    db.env().mapping.flush_count()
}

/// Changes whenever the database outgrows its address space and goes on in a larger window.
pub fn window_id(db: &Db) -> u64 {
    db.env().mapping.window_id()
}

/// Drops the page cache of a file that is flushed and that nobody has mapped; whether all of it
/// went.
pub fn drop_page_cache(file: &File) -> io::Result<bool> {
    direct_io::forget_cache(file)
}

/// Drops the page cache of a database that is open, as far as it is clean, as the kernel does when
/// it needs the memory.
pub fn evict(db: &Db) {
    db.env().mapping.drop_cache();
}

/// Says how many bytes of page cache fit in memory, from now on.
pub fn set_available_memory(db: &Db, bytes: u64) {
    db.env().mapping.set_room(bytes);
}

/// Kernel pages that the page cache holds of a file.
pub fn cached_pages(file: &File) -> io::Result<u64> {
    direct_io::cached_pages(file)
}

/// Number of the newest transaction that a durable meta page describes.
pub fn durable_txn(db: &Db) -> u64 {
    db.env().live.durable().txn.0
}

/// Number of the newest transaction whose state is complete, durable or not.
pub fn latest_txn(db: &Db) -> u64 {
    db.env().live.latest().txn.0
}

/// Makes the newest state of a closed file claim so many pages, and the file `spare` pages longer
/// than that, so that the next transactions use page ids from there on. The pages between are lost;
/// `check` would say so.
pub fn raise_page_count(path: &std::path::Path, pages: u64, spare: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut record = [0; 256];
    file.read_exact_at(&mut record, 0)?;
    let first = MetaPage::decode_copy(&record).map_err(|e| std::io::Error::other(format!("{e:?}")))?;
    let page_size = u64::from(first.page_size);
    file.read_exact_at(&mut record, page_size)?;
    let (at, mut meta) = match MetaPage::decode_copy(&record) {
        Ok(second) if second.txn > first.txn => (page_size, second),
        _ => (0, first),
    };
    meta.page_count = pages;
    let mut slot = vec![0; page_size as usize];
    meta.encode_slot(&mut slot);
    file.write_all_at(&slot, at)?;
    file.set_len((pages + spare) * page_size)
}
