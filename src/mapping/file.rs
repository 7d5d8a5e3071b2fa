//! File operations for the upper floors: open, create atomically, measure, read and write.
//!
//! Floor: mapping. Every file is opened by `sys::descriptor`.
//!
//! Invariants:
//!   CREATE-1  a file made by [`create_atomic`] appears under its name complete and durable, or not
//!       at all, and replaces nothing.
//!   CREATE-2  no write crosses the end of a page: a larger one would bring a large
//!       folio into the page cache, and a later store would write back all of it.
//!
//! Failure: `io::Error`; the temporary file is removed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::best_effort;
use crate::hooks::{self, Creation, Mutant};
use crate::sys::file_calls::{self, FileStatus};
use crate::sys::{descriptor, extents, page_cache, refused};

/// Opens an existing file. Opening a FIFO or device succeeds or fails, but never blocks. (By
/// default, opening a FIFO waits for its other end.)
pub(crate) fn open(path: &Path, writable: bool) -> io::Result<File> {
    let file = open_for_locks(path, writable)?;
    page_cache::advise_random(&file);
    Ok(file)
}

/// The same for a file through which no page is read.
pub(crate) fn open_for_locks(path: &Path, writable: bool) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = descriptor::open(OpenOptions::new().read(true).write(writable).custom_flags(flags), path);
    file.map_err(refused::by("openat"))
}

/// Opens a file that lies beside a database, for reading and writing, but no link. With `create`,
/// makes one that admits only its owner.
pub(crate) fn open_beside(path: &Path, create: bool) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    descriptor::open(OpenOptions::new().read(true).write(true).create(create).mode(0o600).custom_flags(flags), path)
}

/// How [`create_atomic`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Created {
    /// The file was created.
    New,
    /// Another file had the name first; the new one was removed.
    Existed,
}

/// Writes a file in chunks of at most a page.
pub(crate) struct ChunkWriter<'a> {
    file: &'a File,
    chunk_bytes: usize,
}

impl<'a> ChunkWriter<'a> {
    /// Writes to a file in chunks of `page_size`, a power of two.
    pub(crate) fn new(file: &'a File, page_size: usize) -> ChunkWriter<'a> {
        ChunkWriter { file, chunk_bytes: page_size.max(512) }
    }

    /// Writes bytes at an offset, in chunks that end at page boundaries (CREATE-2).
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file_calls::within_size_limit(offset + bytes.len() as u64)?;
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let room = self.chunk_bytes - (offset % self.chunk_bytes as u64) as usize;
            let (chunk, later) = rest.split_at(room.min(rest.len()));
            file_calls::write_within(self.file, chunk, offset)?;
            offset += chunk.len() as u64;
            rest = later;
        }
        Ok(())
    }
}

/// Creates a file atomically (CREATE-1): `write` fills a temporary file in the same directory,
/// which is then flushed and renamed. The file has its `mode`, minus the umask, from the start.
/// `page_size` is a power of two.
pub(crate) fn create_atomic(
    path: &Path,
    page_size: usize,
    mode: u32,
    write: impl FnOnce(&ChunkWriter<'_>) -> io::Result<()>,
) -> io::Result<Created> {
    let temporary = temporary_name(path)?;
    let file = descriptor::open(OpenOptions::new().read(true).write(true).create_new(true).mode(mode), &temporary)
        .map_err(refused::by("openat"))?;
    page_cache::advise_random(&file);
    prepare_empty(&file);
    let renamed = write(&ChunkWriter::new(&file, page_size))
        .and_then(|()| flush_new(&file, &temporary, path))
        .and_then(|()| file_calls::rename_new(&temporary, path));
    if !matches!(renamed, Ok(true)) {
        // If this fails, the file only costs space. The first error is the one to return.
        best_effort(std::fs::remove_file(&temporary));
    }
    let created = if renamed? { Created::New } else { Created::Existed };
    if created == Created::New {
        hooks::creating(Creation::Renamed, &temporary, path);
        if hooks::is(Mutant::NoDirectoryFlush) {
            return Ok(created);
        }
    }
    // Also if another process was first: its name must be durable before the database is used.
    sync_name(path, &file)?;
    hooks::creating(Creation::DirectoryFlushed, &temporary, path);
    Ok(created)
}

/// Asks the file system to turn off copy-on-write for a file. Works only while the file is empty.
pub(crate) fn prepare_empty(file: &File) {
    extents::avoid_copy_on_write(file);
}

/// Renames a file whose bytes are durable, and makes the file and its new name durable.
/// `Ok(false)`: the name exists, and nothing was renamed.
pub(crate) fn rename_new(file: &File, from: &Path, to: &Path) -> io::Result<bool> {
    let renamed = file_calls::rename_new(from, to)?;
    if renamed {
        sync_name(to, file)?;
    }
    Ok(renamed)
}

/// Makes a new file durable before it gets its name.
fn flush_new(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    hooks::creating(Creation::Written, temporary, path);
    if !hooks::is(Mutant::NoCreationFlush) {
        file_calls::sync_file(file)?;
        hooks::creating(Creation::Flushed, temporary, path);
    }
    Ok(())
}

/// Makes the name of an open file durable by flushing its directory. A directory that this user may
/// write but not read (mode 0333) cannot be opened; then the whole file system is flushed. If the
/// kernel refuses that too, only the file is flushed, which is enough on file systems with a
/// journal.
fn sync_name(path: &Path, file: &File) -> io::Result<()> {
    let synced = descriptor::open(OpenOptions::new().read(true), directory_of(path))
        .and_then(|directory| file_calls::sync_file(&directory));
    match synced {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied || refused::is(&error) => {
            file_calls::sync_file_system(file).or_else(|error| match refused::is(&error) {
                true => file_calls::sync_file(file),
                false => Err(error),
            })
        }
        other => other,
    }
}

/// The length of an open file.
pub(crate) fn length(file: &File) -> io::Result<u64> {
    file_calls::end_of(file)
}

/// The status of an open file, as the kernel gives it.
pub(crate) fn status(file: &File) -> io::Result<FileStatus> {
    file_calls::status(file)
}

/// The type of a file that is not a regular file, from its mode.
pub(crate) fn other_kind(mode: u32) -> Option<&'static str> {
    match mode & libc::S_IFMT {
        libc::S_IFREG => None,
        libc::S_IFDIR => Some("a directory"),
        libc::S_IFBLK | libc::S_IFCHR => Some("a device"),
        libc::S_IFIFO => Some("a FIFO"),
        libc::S_IFSOCK => Some("a socket"),
        _ => Some("something special"),
    }
}

/// Makes a whole file durable.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    file_calls::sync_file(file)
}

/// Reads bytes of a file. If the kernel refuses the call itself, the error names the call.
pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(into, offset).map_err(refused::by("pread"))
}

/// An error if the kernel refuses to read the file at all. Disk errors are detected later, page by
/// page.
pub(crate) fn can_be_read(file: &File) -> io::Result<()> {
    match read_at(file, &mut [0], 0) {
        Err(error) if refused::is(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Writes bytes at an offset. An error if the size limit of the process does not allow that length.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file_calls::write_at(file, bytes, offset)
}

/// Bytes that an ordinary user can still write on the disk of `path`, which need not exist yet.
/// `u64::MAX` if the kernel refuses the call.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    match fs2::available_space(if path.exists() { path } else { directory_of(path) }) {
        Err(error) if refused::is(&error) => Ok(u64::MAX),
        other => other,
    }
}

/// An error if the size limit of the process does not allow a file of this length.
pub(crate) fn may_have_length(len: u64) -> io::Result<()> {
    file_calls::within_size_limit(len)
}

/// The first byte at or after `offset` that is not in a hole; `None` if there is none. If the file
/// system does not know, `offset` itself.
pub(crate) fn next_data(file: &File, offset: u64) -> Option<u64> {
    file_calls::seek_data(file, offset).unwrap_or(Some(offset))
}

/// Bytes that a file takes on the disk: less than its length if it has holes, more if blocks are
/// reserved.
pub(crate) fn allocated_bytes(file: &File) -> io::Result<u64> {
    file_calls::status(file).map(|status| status.allocated)
}

/// Opens the directory of a path only to ask for its file system, which needs no right to read it.
pub(crate) fn open_directory_of(path: &Path) -> io::Result<File> {
    descriptor::open(OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY), directory_of(path))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A unique path in the directory of `path`: it contains the process id, the time and a counter.
pub(crate) fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"));
    };
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut temporary = OsString::from(".");
    // The name of `path` may be as long as the file system allows, so only a part of it is used.
    temporary.push(name.to_string_lossy().chars().take(40).collect::<String>());
    temporary.push(format!(".{}-{nanos}-{count}.new", std::process::id()));
    Ok(directory_of(path).join(temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_creator_wins_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.mlf");
        let make = |byte: u8| create_atomic(&path, 4096, 0o666, |file| file.write_at(100, &[byte; 10_000]));
        assert_eq!(make(1).unwrap(), Created::New);
        assert_eq!(make(2).unwrap(), Created::Existed);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 10_100);
        assert!(bytes[..100].iter().all(|&b| b == 0) && bytes[100..].iter().all(|&b| b == 1));
        let failed = create_atomic(&dir.path().join("other"), 4096, 0o666, |_| Err(io::Error::other("no")));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(names(dir.path()), ["data.mlf"]);
    }

    #[test]
    fn concurrent_creators_make_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(200));
        let won: usize = std::thread::scope(|scope| {
            let make = |n: u8| {
                let path = &path;
                scope.spawn(move || create_atomic(path, 4096, 0o666, |file| file.write_at(0, &[n; 8192])).unwrap())
            };
            let threads: Vec<_> = (0..8).map(make).collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter(|c| *c == Created::New).count()
        });
        assert_eq!(won, 1);
        assert_eq!(names(dir.path()).len(), 1);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() == 8192 && bytes.iter().all(|&b| b == bytes[0]), "one creator's bytes");
    }

    #[test]
    fn the_next_data_after_a_hole_is_found() {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(&[1; 100], 1 << 30).unwrap();
        // A file system without holes returns the offset that was asked for.
        let data = next_data(&file, 5).unwrap();
        assert!(data == 5 || ((1 << 30) - (1 << 20)..=1 << 30).contains(&data), "{data}");
        assert_eq!(next_data(&file, (1 << 30) + 50), Some((1 << 30) + 50));
        let last = next_data(&file, 1 << 39);
        assert!(last.is_none() || last == Some(1 << 39), "{last:?}");
    }

    #[test]
    fn free_space_is_found_for_a_file_that_does_not_exist_yet() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(&dir.path().join("not yet")).unwrap() > 0);
        assert!(free_bytes(dir.path()).unwrap() > 0);
    }
}
