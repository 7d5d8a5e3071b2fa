//! Files, page cache and device: what has to be equal before two stores are compared.
//!
//! Page cache made afresh: a file that has just been written sits in large folios, and a mapped store that dirties one
//! page of such a folio has all of it written back. `fresh_copy` therefore copies, flushes, drops the copy from the
//! page cache, and reads it again through a descriptor with POSIX_FADV_RANDOM, which allocates folios of one page.
//! (Pieces of 128 KiB are read: on Linux 6.18 with ext4 that leaves folios of one page just as pieces of 4 KiB do, and
//! takes a tenth of the time.) `Cache::Large` leaves the copy as it was written: the other half of the picture.
//!
//! Holes are kept: LMDB's file is as long as its map when it writes through the map.
//!
//! Device bytes are what `/sys/dev/block/*/stat` counts for the device below the folder; other programs that write to
//! it are counted with them, so `Device::noise` looks at an idle second first.

use crate::Res;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The page that a changed page is counted in.
pub(crate) const PAGE_BYTES: usize = 4096;
const PIECE_BYTES: usize = 128 << 10;
const TMPFS_MAGIC: i64 = 0x0102_1994;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// Folios of one page.
    Small,
    /// Whatever a copy leaves behind.
    Large,
}

/// The folder of one run; goes away with it.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A folder of its own below `parent`, or below that of the executable (a build folder, so a disk as a rule).
    pub(crate) fn new(parent: Option<&Path>) -> Res<Scratch> {
        let executable = std::env::current_exe()?;
        let parent = parent.or(executable.parent()).unwrap_or(Path::new("."));
        if is_tmpfs(parent)? {
            return Err(format!("{} is a tmpfs: choose a folder on a disk with --dir", parent.display()).into());
        }
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("mapleaf-peers-{}-{number}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, use_: &str, engine: &str) -> PathBuf {
        self.path.join(format!("{use_}-{engine}.db"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.path) {
            eprintln!("{}: left behind: {e}", self.path.display());
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn is_tmpfs(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    // SAFETY: an all-zero statfs is a valid value of that plain C struct.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and `stat` is writable for the whole struct.
    check(unsafe { libc::fstatfs(file.as_raw_fd(), &mut stat) })?;
    #[allow(clippy::unnecessary_cast)]
    Ok(stat.f_type as i64 == TMPFS_MAGIC)
}

/// Flushes everything of the file system that holds `folder`, so that no earlier work runs into a window.
pub(crate) fn settle(folder: &Path) -> io::Result<()> {
    let file = File::open(folder)?;
    // SAFETY: the descriptor is open.
    check(unsafe { libc::syncfs(file.as_raw_fd()) })
}

/// Removes a database, file or folder, and the files of a lock or a log that may lie beside it.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return fs::remove_dir_all(path);
    }
    for suffix in ["", "-lock", "-lck", "-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(suffix);
        match fs::remove_file(beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The files of a database: itself, or all below a folder.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        found.extend(files(&entry?.path())?);
    }
    Ok(found)
}

/// Moves a database that is closed.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    fs::rename(from, to)?;
    remove(from)
}

/// The parts of a file that hold data, as (offset, length).
fn segments(file: &File) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = seek(file, at, libc::SEEK_DATA)? {
        let end = seek(file, start, libc::SEEK_HOLE)?.unwrap_or(start);
        found.push((start, end - start));
        at = end;
    }
    Ok(found)
}

fn seek(file: &File, from: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    // SAFETY: the descriptor is open; its position is used by nobody.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from as libc::off_t, whence) };
    if found >= 0 {
        return Ok(Some(found as u64));
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        e => Err(e),
    }
}

/// Reads all data in pieces of at most `PIECE_BYTES`.
fn each_piece(file: &File, mut visit: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    for (start, len) in segments(file)? {
        let mut at = start;
        while at < start + len {
            let wanted = PIECE_BYTES.min((start + len - at) as usize);
            let got = file.read_at(&mut piece[..wanted], at)?;
            if got == 0 {
                break;
            }
            visit(at, &piece[..got])?;
            at += got as u64;
        }
    }
    Ok(())
}

fn advise(file: &File, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call changes only what the kernel caches.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, advice) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Copies a closed database, flushed, with the page cache that `cache` names.
pub(crate) fn fresh_copy(from: &Path, to: &Path, cache: Cache) -> io::Result<()> {
    remove(to)?;
    for source in files(from)? {
        let copy = match source.strip_prefix(from) {
            Ok(below) if !below.as_os_str().is_empty() => to.join(below),
            _ => to.to_owned(),
        };
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        copy_file(&source, &copy, cache)?;
    }
    settle(to.parent().unwrap_or(Path::new(".")))
}

fn copy_file(from: &Path, to: &Path, cache: Cache) -> io::Result<()> {
    let source = File::open(from)?;
    let copy = OpenOptions::new().read(true).write(true).create_new(true).open(to)?;
    copy.set_len(source.metadata()?.len())?;
    each_piece(&source, |at, bytes| copy.write_all_at(bytes, at))?;
    copy.sync_all()?;
    if cache == Cache::Small {
        advise(&copy, libc::POSIX_FADV_DONTNEED)?;
        drop(copy);
        let copy = File::open(to)?;
        advise(&copy, libc::POSIX_FADV_RANDOM)?;
        each_piece(&copy, |_, _| Ok(()))?;
    }
    Ok(())
}

/// Takes a closed database out of the page cache, and looks whether it is gone. A root asks the kernel to drop
/// everybody's clean pages where advice was not enough.
pub(crate) fn drop_cache(path: &Path) -> Res<()> {
    let mut left = 0;
    for path in files(path)? {
        let file = File::open(&path)?;
        file.sync_all()?;
        advise(&file, libc::POSIX_FADV_DONTNEED)?;
        left += cached_pages(&file)?;
    }
    if left == 0 {
        return Ok(());
    }
    fs::write("/proc/sys/vm/drop_caches", "1").map_err(|e| format!("{left} pages stay cached; drop_caches: {e}"))?;
    let mut left = 0;
    for path in files(path)? {
        left += cached_pages(&File::open(&path)?)?;
    }
    if left > 0 {
        return Err(format!("{}: {left} pages stay in the page cache", path.display()).into());
    }
    Ok(())
}

/// Pages of a file in the page cache.
pub(crate) fn cached_pages(file: &File) -> io::Result<u64> {
    let mut cached = 0;
    for (start, length) in segments(file)? {
        let start = start & !(PAGE_BYTES as u64 - 1);
        let length = length as usize;
        // SAFETY: a new mapping at an address that the kernel chooses; nobody reads through it.
        let map = unsafe {
            let offset = start as libc::off_t;
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut resident = vec![0u8; length.div_ceil(PAGE_BYTES)];
        // SAFETY: the range is the mapping just made, and `resident` has a byte for each of its pages.
        let asked = check(unsafe { libc::mincore(map, length, resident.as_mut_ptr()) });
        // SAFETY: the mapping just made; nothing refers to it.
        let unmapped = check(unsafe { libc::munmap(map, length) });
        asked.and(unmapped)?;
        cached += resident.iter().filter(|page| **page & 1 == 1).count() as u64;
    }
    Ok(cached)
}

/// Length of a database as everybody sees it, and the bytes that it occupies.
pub(crate) fn file_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let mut sum = (0, 0);
    for path in files(path)? {
        let meta = fs::metadata(path)?;
        sum = (sum.0 + meta.len(), sum.1 + meta.blocks() * 512);
    }
    Ok(sum)
}

/// The contents of a file at one moment, to tell which pages have changed since.
pub(crate) struct Snapshot {
    file: File,
    pages: Vec<u8>,
}

impl Snapshot {
    pub(crate) fn new(path: &Path) -> io::Result<Snapshot> {
        let mut snapshot = Snapshot { file: File::open(path)?, pages: Vec::new() };
        snapshot.advance()?;
        Ok(snapshot)
    }

    /// Takes the contents of now; returns how many pages differ. Missing pages count as zeros.
    pub(crate) fn advance(&mut self) -> io::Result<u64> {
        let pages = &mut self.pages;
        let mut changed = 0;
        each_piece(&self.file, |at, bytes| {
            let at = at as usize;
            if pages.len() < at + bytes.len() {
                pages.resize((at + bytes.len()).next_multiple_of(PAGE_BYTES), 0);
            }
            for (new, old) in bytes.chunks(PAGE_BYTES).zip(pages[at..].chunks_mut(PAGE_BYTES)) {
                let old = &mut old[..new.len()];
                if *old != *new {
                    old.copy_from_slice(new);
                    changed += 1;
                }
            }
            Ok(())
        })?;
        Ok(changed)
    }
}

/// The counters of the device that holds a folder.
pub(crate) struct Device {
    stat: PathBuf,
    pub(crate) name: String,
}

/// What a device has done since it was started.
#[derive(Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) bytes_written: u64,
    pub(crate) flushes: u64,
}

impl Counters {
    pub(crate) fn since(self, before: Counters) -> Counters {
        Counters { bytes_written: self.bytes_written - before.bytes_written, flushes: self.flushes - before.flushes }
    }
}

impl Device {
    /// None where the file system has no device of its own.
    pub(crate) fn below(folder: &Path) -> Res<Option<Device>> {
        let id = fs::metadata(folder)?.dev();
        let entry = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(id), libc::minor(id)));
        let Ok(target) = fs::canonicalize(entry) else { return Ok(None) };
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Device { stat: target.join("stat"), name }))
    }

    /// Sectors are of 512 bytes whatever the device says of itself; flushes are field 16 (Linux 5.5).
    pub(crate) fn counters(&self) -> Res<Counters> {
        let text = fs::read_to_string(&self.stat)?;
        let fields: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let sectors = fields.get(6).ok_or_else(|| format!("{}: too few fields", self.stat.display()))?;
        Ok(Counters { bytes_written: sectors * 512, flushes: fields.get(15).copied().unwrap_or(0) })
    }

    /// Bytes that others write in a second.
    pub(crate) fn noise(&self) -> Res<u64> {
        let before = self.counters()?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(self.counters()?.since(before).bytes_written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_copied_as_they_are() -> Res<()> {
        let scratch = Scratch::new(None)?;
        let (from, to) = (scratch.path().join("folder"), scratch.path().join("copy"));
        fs::create_dir_all(from.join("below"))?;
        fs::write(from.join("one"), [1; 10])?;
        fs::write(from.join("below/two"), [2; 20])?;
        fresh_copy(&from, &to, Cache::Large)?;
        assert_eq!(fs::read(to.join("below/two"))?, [2; 20]);
        assert_eq!(file_bytes(&to)?.0, 30);
        drop_cache(&to)?;
        remove(&to)?;
        assert!(!to.exists());
        Ok(())
    }

    #[test]
    fn copies_keep_bytes_and_holes_and_snapshots_see_changes() -> Res<()> {
        let scratch = Scratch::new(None)?;
        let (from, to) = (scratch.file("from", "test"), scratch.file("to", "test"));
        let file = File::create(&from)?;
        file.write_all_at(&[7; 5000], 3 << 20)?;
        file.set_len(64 << 20)?;
        drop(file);
        fresh_copy(&from, &to, Cache::Small)?;
        assert!(fs::read(&from)? == fs::read(&to)?);
        assert!(file_bytes(&to)?.1 < 1 << 20);
        assert!(cached_pages(&File::open(&to)?)? > 0);
        drop_cache(&to)?;
        assert_eq!(cached_pages(&File::open(&to)?)?, 0);

        let mut snapshot = Snapshot::new(&to)?;
        assert_eq!(snapshot.advance()?, 0);
        let file = OpenOptions::new().write(true).open(&to)?;
        file.write_all_at(&[8; 2], (3 << 20) + 4095)?;
        file.write_all_at(&[8; 1], 70 << 20)?;
        assert_eq!(snapshot.advance()?, 3);
        assert_eq!(snapshot.advance()?, 0);
        Ok(())
    }
}
