//! Hooks that only tests need: the flush seam, fuzz entry points, counters. Not part of the public interface.
//!
//! Floor: testing, above all others. Behind the feature `testing`, hidden from the documentation, and free to change.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::db::{Db, Options};
use crate::error::Result;
use crate::ids::PageId;
use crate::limits;
use crate::mapping::set_next_seam;
use crate::page::branch::Branch;
use crate::page::header::Header;
use crate::page::layout::{self, meta as at};
use crate::page::leaf::Leaf;
use crate::page::meta::Meta;
use crate::page::{free_list, overflow};

pub use crate::mapping::{Creation, FlushEvent, FlushKind, Seam};
pub use crate::mutant::Mutant;

/// Sets who sees each flush and each growth of a database, before it happens, and may make it fail.
pub fn set_seam(db: &Db, seam: Arc<dyn Seam>) {
    db.env().mapping.set_seam(seam);
}

/// Opens a database that a seam watches from the first flush on, those of opening and the steps of creation included.
pub fn open_with_seam(options: Options, path: impl AsRef<Path>, seam: Arc<dyn Seam>) -> Result<Db> {
    set_next_seam(Some(seam));
    let opened = options.open(path);
    set_next_seam(None);
    opened
}

/// Does something wrong on this thread while `run` runs, to prove that a test would see it.
pub fn with_mutant<T>(mutant: Option<Mutant>, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<Mutant>);
    impl Drop for Restore {
        fn drop(&mut self) {
            crate::mutant::set(self.0);
        }
    }
    let _restore = Restore(crate::mutant::current());
    crate::mutant::set(mutant);
    run()
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

/// Number of the newest transaction whose state is complete, durable or not.
pub fn tip_txn(db: &Db) -> u64 {
    db.env().live.tip().txn.0
}

/// Makes the newest state of a closed file claim so many pages, and the file `spare` pages longer than that, so that the
/// next transactions use page ids from there on. The pages between are lost; `check` would say so.
pub fn raise_page_count(path: &std::path::Path, pages: u64, spare: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut record = [0; 256];
    file.read_exact_at(&mut record, 0)?;
    let first = Meta::decode_copy(&record).map_err(|e| std::io::Error::other(format!("{e:?}")))?;
    let page_size = u64::from(first.page_size);
    file.read_exact_at(&mut record, page_size)?;
    let (at, mut meta) = match Meta::decode_copy(&record) {
        Ok(second) if second.txn > first.txn => (page_size, second),
        _ => (0, first),
    };
    meta.page_count = pages;
    let mut slot = vec![0; page_size as usize];
    meta.encode_slot(&mut slot);
    file.write_all_at(&slot, at)?;
    file.set_len((pages + spare) * page_size)
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

/// Sets the checksums of a file right, from the leaves up to the metas, as far as it can be made out.
pub fn seal_file(data: &mut [u8]) {
    let page_size = match layout::get_u32(data, at::PAGE_SIZE) as usize {
        size if limits::page_size_ok(size) => size,
        _ => limits::PAGE_SIZE_MIN,
    };
    let mut sealer = Sealer { data, page_size, sealed: HashMap::new() };
    for copy in [0, page_size / 2, page_size, page_size + page_size / 2] {
        if copy + at::RECORD_BYTES > sealer.data.len() {
            break;
        }
        for root in [at::CATALOG, at::FREE_SPACE] {
            sealer.pointer(copy + root, 0, 0);
        }
        let pages = layout::get_u48(sealer.data, copy + at::SPILL + 10);
        sealer.run_pointer(copy + at::SPILL, pages);
        let crc = crc32fast::hash(&sealer.data[copy..copy + at::CHECKSUM]);
        layout::put_u32(sealer.data, copy + at::CHECKSUM, crc);
    }
}

struct Sealer<'a> {
    data: &'a mut [u8],
    page_size: usize,
    sealed: HashMap<u64, u32>,
}

impl Sealer<'_> {
    /// Seals what the pointer at an offset leads to, and puts the checksum into the pointer.
    fn pointer(&mut self, offset: usize, kept: u32, depth: usize) {
        if offset + layout::CHILD_BYTES > self.data.len() {
            return;
        }
        let id = layout::get_u48(self.data, offset);
        let crc = self.page(id, depth).unwrap_or(kept);
        layout::put_u32(self.data, offset + 6, crc);
    }

    fn run_pointer(&mut self, offset: usize, pages: u64) {
        if offset + layout::CHILD_BYTES > self.data.len() {
            return;
        }
        let id = layout::get_u48(self.data, offset);
        if let Some(crc) = self.seal(id, pages) {
            layout::put_u32(self.data, offset + 6, crc);
        }
    }

    fn page(&mut self, id: u64, depth: usize) -> Option<u32> {
        let start = usize::try_from(id).ok()?.checked_mul(self.page_size)?;
        if let Some(&crc) = self.sealed.get(&id) {
            return Some(crc);
        }
        if id < 2 || depth > limits::DEPTH_MAX || start.checked_add(self.page_size)? > self.data.len() {
            return None;
        }
        self.sealed.insert(id, 0);
        let count = usize::from(layout::get_u16(self.data, start + layout::COUNT));
        let end = start + self.page_size;
        match self.data[start + layout::KIND] {
            1 => {
                let slots = start + layout::LEAF_HEADS + count * layout::HEAD_BYTES;
                for slot in (slots..end).step_by(layout::SLOT_BYTES).take(count) {
                    let entry = start + usize::from(layout::get_u16(self.data, slot));
                    self.entry(entry.min(end - 1), end, depth);
                }
            }
            2 => {
                let children = start + layout::BRANCH_HEADS + count * (layout::HEAD_BYTES + layout::SLOT_BYTES);
                for child in (children..end).step_by(layout::CHILD_BYTES).take(count) {
                    self.pointer(child, 0, depth + 1);
                }
            }
            _ => {}
        }
        let crc = self.seal(id, 1)?;
        self.sealed.insert(id, crc);
        Some(crc)
    }

    /// What an entry of a leaf points at: an overflow run, or the tree of a table.
    fn entry(&mut self, entry: usize, end: usize, depth: usize) {
        let word = layout::get_u16(self.data, entry);
        let key_bytes = usize::from(word) & layout::KEY_BYTES_MAX;
        let value = entry + layout::ENTRY_HEADER_BYTES + key_bytes;
        if value + layout::OVERFLOW_PTR_BYTES > end {
            return;
        }
        let tree = layout::get_u32(self.data, (end - self.page_size) + layout::TREE);
        match word >> layout::KEY_BYTES_BITS {
            1 => {
                let bytes = layout::get_u64(self.data, value + layout::CHILD_BYTES);
                let pages = bytes.saturating_add(layout::HEADER_BYTES as u64).div_ceil(self.page_size as u64);
                self.run_pointer(value, pages);
            }
            0 if tree == 0 => self.pointer(value + 9, 0, depth + 1),
            _ => {}
        }
    }

    fn seal(&mut self, id: u64, pages: u64) -> Option<u32> {
        let start = usize::try_from(id).ok()?.checked_mul(self.page_size)?;
        let end = start.checked_add(usize::try_from(pages).ok()?.checked_mul(self.page_size)?)?;
        let page = self.data.get_mut(start..end).filter(|page| id >= 2 && !page.is_empty())?;
        let crc = crc32fast::hash(&page[layout::CHECKED..]);
        layout::put_u32(page, layout::CHECKSUM, crc);
        Some(crc)
    }
}

/// Opens bytes as a database file, after setting every page checksum right, and walks it: nothing may panic, and a
/// file that is refused may not change.
pub fn fuzz_open(data: &[u8]) {
    let Ok(dir) = tempfile_dir() else { return };
    let path = dir.join("fuzz.mapleaf");
    let mut data = data.to_vec();
    seal_file(&mut data);
    if std::fs::write(&path, &data).is_ok() {
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
