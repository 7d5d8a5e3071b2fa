//! Hooks that only tests need: the flush seam, fuzz entry points, counters. Not part of the public interface.
//!
//! Floor: testing, above all others. Behind the feature `testing`, hidden from the documentation, and free to change.

use std::path::Path;
use std::sync::Arc;

use crate::db::{Db, Options};
use crate::error::Result;
use crate::ids::PageId;
use crate::mapping::set_next_seam;
use crate::page::branch::Branch;
use crate::page::header::Header;
use crate::page::leaf::Leaf;
use crate::page::{free_list, overflow};

pub use crate::mapping::{FlushEvent, FlushKind, Seam};
pub use crate::txn::checkpoint::Mutant;

/// Sets who sees each flush and each growth of a database, before it happens, and may make it fail.
pub fn set_seam(db: &Db, seam: Arc<dyn Seam>) {
    db.env().mapping.set_seam(seam);
}

/// Opens a database that a seam watches from the first flush on, those of opening included.
pub fn open_with_seam(options: Options, path: impl AsRef<Path>, seam: Arc<dyn Seam>) -> Result<Db> {
    set_next_seam(Some(seam));
    let opened = options.open(path);
    set_next_seam(None);
    opened
}

/// Makes the checkpoints of a database wrong in one way, to prove that a test would see it.
pub fn set_mutant(db: &Db, mutant: Mutant) {
    db.env().set_mutant(mutant);
}

/// Flushes of this database that succeeded.
pub fn flush_count(db: &Db) -> u64 {
    db.env().mapping.flush_count()
}

/// Changes whenever the database outgrows its address space and goes on in a larger window.
pub fn window_id(db: &Db) -> u64 {
    db.env().mapping.window_id()
}

/// Number of the newest transaction that a durable meta describes.
pub fn durable_txn(db: &Db) -> u64 {
    db.env().live.durable().txn.0
}

/// Reads bytes as a page of every kind: nothing may panic.
pub fn fuzz_page(data: &[u8]) {
    let id = PageId(if data.len() >= 22 { crate::page::layout::get_u48(data, 16) } else { 2 });
    let _header = Header::read(data, id);
    if let Ok(leaf) = Leaf::parse(data, id) {
        let _verified = leaf.verify();
        for at in 0..leaf.count() {
            if let Ok((key, _)) = leaf.entry(at) {
                let _found = (leaf.find(key), leaf.lower_bound(key));
            }
        }
    }
    if let Ok(branch) = Branch::parse(data, id) {
        let mut separator = Vec::new();
        for at in 0..branch.count() {
            let _child = branch.child(at);
            if at > 0 && branch.separator_into(at, &mut separator).is_ok() {
                let _found = branch.find(&separator);
            }
        }
    }
    let _items = free_list::read(data, id);
    let _value = overflow::value(data, id, 100);
}

/// Opens bytes as a database file, with the checksums that they have, and walks it: nothing may panic, and a
/// file that is refused may not change.
pub fn fuzz_open(data: &[u8]) {
    let Ok(dir) = tempfile_dir() else { return };
    let path = dir.join("fuzz.mapleaf");
    if std::fs::write(&path, data).is_ok() {
        match crate::db::Options::new().create(false).open(&path) {
            Ok(db) => walk(&db),
            Err(_) => assert!(std::fs::read(&path).is_ok_and(|after| after == data), "a refused file changed"),
        }
    }
    drop(std::fs::remove_dir_all(&dir));
}

fn tempfile_dir() -> std::io::Result<std::path::PathBuf> {
    static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("mapleaf-fuzz-{}-{number}", std::process::id()));
    std::fs::create_dir(&dir)?;
    Ok(dir)
}

/// Reads everything, then writes a little: errors are answers, panics are not.
fn walk(db: &Db) {
    let _report = db.check();
    let _stats = db.stats();
    let Ok(txn) = db.begin_read() else { return };
    for table in txn.tables().unwrap_or_default() {
        let Ok(entries) = txn.bytes_table(&table.name) else { continue };
        let _forward = entries.iter().take(10_000).filter(Result::is_ok).count();
        let _backward = entries.iter().rev().take(10_000).filter(Result::is_ok).count();
    }
    let Ok(mut txn) = db.begin_write() else { return };
    let done = txn.bytes_table("fuzz").and_then(|mut table| table.insert(b"key", b"value"));
    if done.is_ok() {
        let _committed = txn.commit();
    }
}
