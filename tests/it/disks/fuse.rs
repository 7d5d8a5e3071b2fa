//! A small file system in memory that injects faults: one directory, a simulated disk per file, a
//! list of faults.
//!
//! The kernel caches pages as for a disk, so that shared mappings work and are written back. The
//! file system is served by a thread of the test process, so nothing on it may be mapped there:
//! databases are opened in children.
//!
//! A disk keeps the data that a successful flush made durable, and the writes since then. A power
//! cut keeps the durable data and any subset of these writes. A failed flush loses some of them for
//! ever, although the page cache has them and the next flush succeeds.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use tempfile::TempDir;

use super::run;
use crate::support::Rng;
use crate::workload::fast_dir;

/// The faults to inject, on every file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Reads that touch one of these ranges fail.
    pub(crate) unreadable: Vec<Range<u64>>,
    /// Writes that touch one of these ranges fail, and store nothing.
    pub(crate) unwritable: Vec<Range<u64>>,
    /// This many writes succeed, then one fails, then all succeed.
    pub(crate) write_after: Option<u64>,
    /// Every n-th flush fails.
    pub(crate) flush_every: Option<u64>,
    /// A flush that fails loses all writes since the one before, not some.
    pub(crate) loses_all: bool,
    /// The range of writes and flushes at each of which a power cut is recorded.
    pub(crate) cuts: Option<Range<u64>>,
}

/// The requests that a disk got, in order.
#[derive(Clone, Debug)]
enum Told {
    Write(u64, Vec<u8>),
    Len(u64),
}

impl Told {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Told::Write(at, bytes) => {
                let end = *at as usize + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at as usize..end].copy_from_slice(bytes);
            }
            Told::Len(len) => to.resize(*len as usize, 0),
        }
    }
}

/// A file: its durable content, and the writes since the last flush.
#[derive(Clone, Debug, Default)]
struct Medium {
    durable: Vec<u8>,
    since: Vec<Told>,
    /// The current content: both together.
    current: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Medium {
    fn of(content: Vec<u8>) -> Medium {
        Medium { durable: content.clone(), current: content, ..Medium::default() }
    }

    fn tell(&mut self, told: Told) {
        told.apply(&mut self.current);
        self.since.push(told);
    }

    fn flush(&mut self) {
        self.since.drain(..).for_each(|told| told.apply(&mut self.durable));
    }

    /// Loses about half of the writes since the last flush, or all.
    fn fail_to_flush(&mut self, rng: &mut Rng, all: bool) {
        self.since.retain(|told| matches!(told, Told::Len(_)) || (!all && rng.below(2) == 0));
        self.current = self.image(|_| true);
    }

    /// The durable content with some of the later writes.
    fn image(&self, mut kept: impl FnMut(&Told) -> bool) -> Vec<u8> {
        let mut image = self.durable.clone();
        self.since.iter().filter(|told| kept(told)).for_each(|told| told.apply(&mut image));
        image
    }
}

#[derive(Debug)]
struct State {
    names: BTreeMap<Vec<u8>, u64>,
    media: BTreeMap<u64, Medium>,
    plan: Plan,
    rng: Rng,
    flushes: u64,
    failures: u64,
    /// Writes and flushes under this plan.
    requests: u64,
    /// The contents after each recorded power cut.
    cut: Vec<Vec<u8>>,
}

impl State {
    /// Records the result of a power cut at this moment, if the plan asks for one.
    fn may_cut(&mut self, ino: INodeNo) {
        if self.plan.cuts.as_ref().is_some_and(|cuts| cuts.contains(&self.requests)) {
            let images = self.images(ino.0);
            self.cut.extend(images);
        }
        self.requests += 1;
    }

    /// The possible results of a power cut: none of the writes since the last flush, all, or some.
    fn images(&mut self, ino: u64) -> Vec<Vec<u8>> {
        let mut rng = self.rng.clone();
        self.rng.next();
        let Some(medium) = self.media.get(&ino) else { return Vec::new() };
        let some = medium.image(|_| rng.below(2) == 0);
        vec![medium.durable.clone(), medium.current.clone(), some]
    }

    fn medium(&mut self, ino: INodeNo) -> Result<&mut Medium, Errno> {
        self.media.get_mut(&ino.0).ok_or(Errno::ENOENT)
    }

    fn find(&self, name: &OsStr) -> Result<u64, Errno> {
        self.names.get(name.as_encoded_bytes()).copied().ok_or(Errno::ENOENT)
    }

    fn attr(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        let (kind, perm, size) = match self.media.get(&ino.0) {
            Some(medium) => (FileType::RegularFile, 0o644, medium.current.len() as u64),
            None if ino == INodeNo::ROOT => (FileType::Directory, 0o755, 0),
            None => return Err(Errno::ENOENT),
        };
        let (atime, mtime, ctime, crtime) = (UNIX_EPOCH, UNIX_EPOCH, UNIX_EPOCH, UNIX_EPOCH);
        let blocks = size.div_ceil(512);
        let (nlink, uid, gid, rdev, flags, blksize) = (1, 0, 0, 0, 0, 4096);
        Ok(FileAttr {
            ino,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev,
            flags,
            blksize,
        })
    }

    fn read(&mut self, ino: INodeNo, at: u64, len: u64) -> Result<Vec<u8>, Errno> {
        if touches(&self.plan.unreadable, at, len) {
            self.failures += 1;
            return Err(Errno::EIO);
        }
        let content = &self.medium(ino)?.current;
        let end = (at + len).min(content.len() as u64) as usize;
        Ok(content[(at as usize).min(end)..end].to_vec())
    }

    fn write(&mut self, ino: INodeNo, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut fails = touches(&self.plan.unwritable, at, bytes.len() as u64);
        if let Some(left) = self.plan.write_after {
            fails |= left == 0;
            self.plan.write_after = left.checked_sub(1);
        }
        if fails {
            self.failures += 1;
            return Err(Errno::EIO);
        }
        self.medium(ino)?.tell(Told::Write(at, bytes.to_vec()));
        Ok(())
    }

    fn flush(&mut self, ino: INodeNo) -> Result<(), Errno> {
        self.flushes += 1;
        let loses_all = self.plan.loses_all;
        let fails = self.plan.flush_every.is_some_and(|every| self.flushes.is_multiple_of(every));
        let mut rng = self.rng.clone();
        self.rng.next();
        let medium = self.medium(ino)?;
        if fails {
            medium.fail_to_flush(&mut rng, loses_all);
            self.failures += 1;
            return Err(Errno::EIO);
        }
        medium.flush();
        Ok(())
    }

    fn create(&mut self, name: &OsStr) -> INodeNo {
        let ino = self.media.keys().max().map_or(2, |last| last + 1);
        self.media.insert(ino, Medium::default());
        self.names.insert(name.as_encoded_bytes().to_vec(), ino);
        INodeNo(ino)
    }

    fn rename(&mut self, from: &OsStr, to: &OsStr, flags: RenameFlags) -> Result<(), Errno> {
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && self.find(to).is_ok() {
            return Err(Errno::EEXIST);
        }
        let ino = self.find(from)?;
        self.names.remove(from.as_encoded_bytes());
        self.names.insert(to.as_encoded_bytes().to_vec(), ino);
        Ok(())
    }
}

fn touches(ranges: &[Range<u64>], at: u64, len: u64) -> bool {
    ranges.iter().any(|range| range.start < at + len && at < range.end)
}

/// The file system as the kernel sees it.
struct Served(Arc<Mutex<State>>);

const TTL: Duration = Duration::from_secs(3600);

impl Served {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the state of the file system")
    }
}

/// Replies with success or an error, without data.
fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Without it, `write` goes to the disk at once; stores to mappings are cached in both
        // cases.
        let _unknown_here = config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        match state.find(name).and_then(|ino| state.attr(INodeNo(ino))) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attr(ino) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        if let (Some(size), Ok(medium)) = (size, state.medium(ino)) {
            medium.tell(Told::Len(size));
        }
        match state.attr(ino) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let mut state = self.state();
        let ino = state.create(name);
        match state.attr(ino) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().read(ino, offset, u64::from(size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        let written = state.write(ino, offset, data);
        state.may_cut(ino);
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        let flushed = state.flush(ino);
        state.may_cut(ino);
        empty(reply, flushed);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        for (at, (name, ino)) in self.state().names.iter().enumerate().skip(offset as usize) {
            let name = String::from_utf8_lossy(name).into_owned();
            if reply.add(INodeNo(*ino), at as u64 + 1, FileType::RegularFile, name) {
                break;
            }
        }
        reply.ok();
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        let removed = state.names.remove(name.as_encoded_bytes()).map(|_| ()).ok_or(Errno::ENOENT);
        empty(reply, removed);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.state().rename(name, new_name, flags));
    }

    fn fallocate(&self, _: &Request, ino: INodeNo, _: FileHandle, at: u64, len: u64, mode: i32, reply: ReplyEmpty) {
        let mut state = self.state();
        // Mode 1 (keep the size) changes nothing after the end; mode 0 lengthens the file. Other
        // modes are refused.
        let done = state.medium(ino).and_then(|medium| match mode {
            1 => Ok(()),
            0 if at + len > medium.current.len() as u64 => {
                medium.tell(Told::Len(at + len));
                Ok(())
            }
            0 => Ok(()),
            _ => Err(Errno::EOPNOTSUPP),
        });
        empty(reply, done);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        let mut state = self.state();
        let set = state.medium(ino).map(|medium| {
            medium.attributes.insert(name.as_encoded_bytes().to_vec(), value.to_vec());
        });
        empty(reply, set);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let mut state = self.state();
        let found = state
            .medium(ino)
            .and_then(|medium| medium.attributes.get(name.as_encoded_bytes()).cloned().ok_or(Errno::NO_XATTR));
        match found {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() <= size as usize => reply.data(&value),
            Ok(_) => reply.error(Errno::ERANGE),
            Err(error) => reply.error(error),
        }
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        let removed = state
            .medium(ino)
            .and_then(|medium| medium.attributes.remove(name.as_encoded_bytes()).map(drop).ok_or(Errno::NO_XATTR));
        empty(reply, removed);
    }
}

/// A mounted file system with faults; drop unmounts it.
pub(crate) struct Faulty {
    // Dropped in this order.
    session: Option<BackgroundSession>,
    state: Arc<Mutex<State>>,
    dir: TempDir,
}

impl Faulty {
    /// Mounts one with these files, or returns why that is impossible here.
    pub(crate) fn new(seed: u64, files: &[(&str, Vec<u8>)]) -> Result<Faulty, String> {
        let mut state = State {
            names: BTreeMap::new(),
            media: BTreeMap::new(),
            plan: Plan::default(),
            rng: Rng::new(seed),
            flushes: 0,
            failures: 0,
            requests: 0,
            cut: Vec::new(),
        };
        for (name, content) in files {
            let ino = state.create(OsStr::new(name));
            state.media.insert(ino.0, Medium::of(content.clone()));
        }
        let state = Arc::new(Mutex::new(state));
        let dir = fast_dir();
        let session = fuser::spawn_mount(Served(Arc::clone(&state)), dir.path(), &Config::default());
        let session = session.map_err(|e| format!("mounting with FUSE: {e}"))?;
        Ok(Faulty { session: Some(session), state, dir })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state of the file system")
    }

    /// The path of a file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sets the faults from now on.
    pub(crate) fn plan(&self, plan: Plan) {
        let mut state = self.state();
        (state.plan, state.flushes, state.requests) = (plan, 0, 0);
    }

    /// Requests that failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Makes the kernel drop the cached pages of a file.
    pub(crate) fn drop_cache(&self, name: &str) {
        let ino = self.state().find(OsStr::new(name)).expect("a file");
        let notifier = self.session.as_ref().expect("mounted").notifier();
        notifier.inval_inode(INodeNo(ino), 0, 0).expect("to drop the cache");
    }

    /// The possible results of a power cut at this moment.
    pub(crate) fn power_cuts(&self, name: &str) -> Vec<Vec<u8>> {
        let mut state = self.state();
        let ino = state.find(OsStr::new(name)).expect("a file");
        state.images(ino)
    }

    /// The results of the recorded power cuts so far; each is returned once.
    pub(crate) fn planned_cuts(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.state().cut)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.plan(Plan::default());
        if let Some(session) = self.session.take() {
            // A process that another test has just started may hold a file open for a moment: a
            // lazy unmount ends when it is closed.
            let ended = session.umount_and_join().map_err(|e| e.to_string());
            if let Err(why) = ended.or_else(|_| run(&["umount", "-l"], &[self.dir.path()]).map(drop)) {
                println!("not unmounted: {why}");
            }
        }
    }
}
