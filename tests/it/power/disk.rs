//! Models the disk: the durable contents of each page, and all contents that it has had since the
//! last flush.
//!
//! A [`Recorder`] implements the hooks of an open database. It reads the whole file before each
//! flush, at each change of length, after a meta page is stored, and when the run asks for it in
//! the middle of a transaction. A page whose contents have changed since the last look gets a new
//! version. A successful flush makes the last versions of its range durable, and the length.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mapleaf::testing::{latest_txn, Creation, FlushEvent, FlushKind, Hooks};
use mapleaf::Db;

use super::image::{Content, Cut, Doubt};

/// Most writes that a lying disk may have lost.
pub(super) const LYING_WRITES: usize = 64;

/// A file on a disk.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) page_size: usize,
    /// The contents of each page: the durable one first, the current one last.
    pages: Vec<Vec<Content>>,
    /// The durable length first and the current one last.
    lens: Vec<u64>,
}

impl Disk {
    /// A disk on which all data is durable.
    pub(super) fn durable(page_size: usize, pages: &[Content], len: u64) -> Disk {
        Disk { page_size, pages: pages.iter().map(|page| vec![page.clone()]).collect(), lens: vec![len] }
    }

    /// The disk at a cut.
    pub(super) fn in_doubt(cut: &Cut) -> Disk {
        let mut pages: Vec<Vec<Content>> = cut.base.iter().map(|page| vec![page.clone()]).collect();
        for doubt in &cut.doubts {
            pages[doubt.page] = doubt.versions.clone();
        }
        Disk { page_size: cut.page_size, pages, lens: cut.all_lens.clone() }
    }

    /// An empty, durable file.
    pub(super) fn empty(page_size: usize) -> Disk {
        Disk { page_size, pages: Vec::new(), lens: vec![0] }
    }

    /// Records the current contents of the file.
    pub(super) fn observe(&mut self, bytes: &[u8]) {
        if self.lens.last() != Some(&(bytes.len() as u64)) {
            self.lens.push(bytes.len() as u64);
        }
        let pages = bytes.len().div_ceil(self.page_size).max(self.pages.len());
        self.pages.resize_with(pages, || vec![Content::zero(self.page_size)]);
        for (at, versions) in self.pages.iter_mut().enumerate() {
            let start = (at * self.page_size).min(bytes.len());
            let end = (start + self.page_size).min(bytes.len());
            let now = &bytes[start..end];
            if !versions.last().is_some_and(|last| last.holds(now)) {
                versions.push(Content::new(now, self.page_size));
            }
        }
    }

    /// Makes a range durable, with the contents that were recorded last.
    fn flushed(&mut self, offset: u64, len: u64, carries_length: bool) {
        let (first, end) = (offset as usize / self.page_size, (offset + len).div_ceil(self.page_size as u64) as usize);
        for versions in self.pages.iter_mut().take(end).skip(first) {
            versions.drain(..versions.len() - 1);
        }
        if carries_length {
            self.lens.drain(..self.lens.len() - 1);
            // The pages after the new end are lost for ever.
            let kept = self.lens[0].div_ceil(self.page_size as u64) as usize;
            for versions in self.pages.iter_mut().skip(kept) {
                versions.drain(..versions.len() - 1);
            }
        }
    }

    pub(super) fn current(&self) -> (Vec<Content>, u64) {
        let pages = self.pages.iter().map(|versions| versions[versions.len() - 1].clone()).collect();
        (pages, self.lens[self.lens.len() - 1])
    }

    /// The images that a power cut may leave now.
    pub(super) fn cut(&self, what: String, meta_flush: bool) -> Cut {
        let base = self.pages.iter().map(|versions| versions[0].clone()).collect();
        let in_doubt = |(page, versions): (usize, &Vec<Content>)| {
            let differs = versions.iter().any(|version| version.hash != versions[0].hash);
            differs.then(|| Doubt { page, versions: versions.clone() })
        };
        let doubts = self.pages.iter().enumerate().filter_map(in_doubt).collect();
        let mut lens = self.lens.clone();
        lens.sort_unstable();
        lens.dedup();
        Cut {
            what,
            page_size: self.page_size,
            base,
            doubts,
            lens,
            all_lens: self.lens.clone(),
            meta_flush,
            log_flush: false,
            in_flight: 0..0,
        }
    }
}

/// A disk that reports flushes that it did not make: the newest page writes may be missing.
#[derive(Clone)]
struct LyingDisk {
    page_size: usize,
    base: Vec<Content>,
    sent: Vec<Content>,
    newest: VecDeque<(usize, Content, u64)>,
    len: u64,
}

impl LyingDisk {
    fn new(disk: &Disk) -> LyingDisk {
        let (pages, len) = disk.current();
        LyingDisk { page_size: disk.page_size, sent: pages.clone(), base: pages, newest: VecDeque::new(), len }
    }

    /// Pages of a range that have changed are sent to the disk.
    fn send(&mut self, disk: &Disk, offset: u64, len: u64) {
        let (now, file_len) = disk.current();
        let zero = Content::zero(self.page_size);
        self.sent.resize(now.len().max(self.sent.len()), zero.clone());
        let (first, end) = (offset as usize / self.page_size, (offset + len).div_ceil(self.page_size as u64) as usize);
        for (at, content) in now.iter().enumerate().take(end).skip(first) {
            if self.sent[at].hash == content.hash {
                continue;
            }
            self.sent[at] = content.clone();
            self.newest.push_back((at, content.clone(), file_len));
            if self.newest.len() > LYING_WRITES {
                if let Some((page, content, len)) = self.newest.pop_front() {
                    self.base.resize(self.base.len().max(page + 1), zero.clone());
                    self.base[page] = content;
                    self.len = len;
                }
            }
        }
    }

    fn cut(&self, what: String) -> Cut {
        let mut base = self.base.clone();
        base.resize(self.sent.len().max(base.len()), Content::zero(self.page_size));
        let mut doubts: Vec<Doubt> = Vec::new();
        let mut lens = vec![self.len];
        for (page, content, len) in &self.newest {
            lens.push(*len);
            match doubts.iter_mut().find(|doubt| doubt.page == *page) {
                Some(doubt) => doubt.versions.push(content.clone()),
                None => doubts.push(Doubt { page: *page, versions: vec![base[*page].clone(), content.clone()] }),
            }
        }
        lens.sort_unstable();
        lens.dedup();
        Cut {
            what,
            page_size: self.page_size,
            base,
            doubts,
            all_lens: lens.clone(),
            lens,
            meta_flush: false,
            log_flush: false,
            in_flight: 0..0,
        }
    }
}

/// Records the versions of one file.
pub(super) struct Recorder {
    path: PathBuf,
    inner: Mutex<Recording>,
    overlap: Mutex<Option<Overlap>>,
}

/// Blocks the next flush until another thread has completed a transaction.
pub(super) struct Overlap {
    pub(super) db: Db,
    /// Tells the other thread to begin.
    pub(super) begin: Sender<()>,
    /// The transaction that it will complete.
    pub(super) txn: u64,
}

impl Overlap {
    fn happen(self) {
        self.begin.send(()).expect("the other thread waits");
        let since = Instant::now();
        while latest_txn(&self.db) < self.txn {
            assert!(since.elapsed() < Duration::from_secs(60), "txn {} is not complete after a minute", self.txn);
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

struct Recording {
    file: Option<File>,
    disk: Disk,
    lying: Option<LyingDisk>,
    cuts: Vec<Cut>,
    flushes: u64,
    /// Ignores this many flushes: a mutant of the test itself.
    deaf: u64,
    bytes: Vec<u8>,
    /// The steps of creation, each with the disk of the temporary file at that time.
    steps: Vec<(Creation, Disk)>,
}

impl Recorder {
    pub(super) fn new(path: &Path, disk: Disk, deaf: u64) -> Arc<Recorder> {
        let inner = Recording {
            file: None,
            disk,
            lying: None,
            cuts: Vec::new(),
            flushes: 0,
            deaf,
            bytes: Vec::new(),
            steps: Vec::new(),
        };
        Arc::new(Recorder { path: path.to_path_buf(), inner: Mutex::new(inner), overlap: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.inner.lock().expect("recording")
    }

    /// Lets another transaction run when the next flush begins.
    pub(super) fn overlap(&self, overlap: Overlap) {
        *self.overlap.lock().expect("the overlap") = Some(overlap);
    }

    /// Lets the other thread begin, if it has not yet, and waits until its transaction is complete.
    pub(super) fn end_overlap(&self) {
        let overlap = self.overlap.lock().expect("the overlap").take();
        if let Some(overlap) = overlap {
            overlap.happen();
        }
    }

    /// From now on the disk lies.
    pub(super) fn lie(&self) {
        let mut inner = self.lock();
        inner.lying = Some(LyingDisk::new(&inner.disk));
    }

    pub(super) fn take_cuts(&self) -> Vec<Cut> {
        std::mem::take(&mut self.lock().cuts)
    }

    /// The images that a power cut may leave now, while no flush runs.
    pub(super) fn cut_now(&self, what: &str) -> Cut {
        self.look();
        self.lock().disk.cut(what.to_string(), false)
    }

    /// The images that a lying disk may hold now.
    pub(super) fn lying_cut(&self, what: &str) -> Cut {
        self.lock().lying.as_ref().expect("a lying disk").cut(what.to_string())
    }

    pub(super) fn steps(&self) -> Vec<(Creation, Disk)> {
        self.lock().steps.clone()
    }

    /// Records the file, at any moment.
    pub(super) fn look(&self) {
        self.lock().look(&self.path);
    }
}

impl Recording {
    fn look(&mut self, path: &Path) {
        if self.file.is_none() {
            self.file = Some(File::open(path).expect("to open the file that is watched"));
        }
        let file = self.file.as_ref().expect("open");
        let len = file.metadata().expect("its length").len() as usize;
        self.bytes.resize(len, 0);
        file.read_exact_at(&mut self.bytes, 0).expect("to read the file that is watched");
        self.disk.observe(&self.bytes);
    }
}

impl Hooks for Recorder {
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()> {
        if event.kind == FlushKind::Log {
            self.end_overlap();
        }
        let mut inner = self.lock();
        inner.look(&self.path);
        inner.flushes += 1;
        let what = format!("before flush {} ({event:?})", inner.flushes);
        let mut cut = inner.disk.cut(what, event.kind == FlushKind::MetaPage);
        if event.kind == FlushKind::Log {
            cut.log_flush = true;
            let page_size = inner.disk.page_size as u64;
            cut.in_flight = (event.offset / page_size) as usize..((event.offset + event.len) / page_size) as usize;
        }
        inner.cuts.push(cut);
        let Recording { lying, disk, .. } = &mut *inner;
        if let Some(lying) = lying {
            lying.send(disk, event.offset, event.len);
        }
        Ok(())
    }

    fn after_flush(&self, event: &FlushEvent<'_>) {
        let mut inner = self.lock();
        if inner.flushes > inner.deaf {
            inner.disk.flushed(event.offset, event.len, event.carries_length);
        }
    }

    fn stored_meta(&self, _slot: usize) {
        self.look();
    }

    fn wrote(&self, _offset: u64, _len: u64) {
        self.look();
    }

    fn growing(&self, _new_len: u64) -> io::Result<()> {
        self.look();
        Ok(())
    }

    fn resized(&self, _new_len: u64) {
        self.look();
    }

    fn creating(&self, step: Creation, temporary: &Path, path: &Path) {
        let mut inner = self.lock();
        let named = matches!(step, Creation::Renamed | Creation::DirectoryFlushed);
        let bytes = std::fs::read(if named { path } else { temporary }).expect("the new file");
        inner.disk.observe(&bytes);
        if step == Creation::Flushed {
            inner.disk.flushed(0, bytes.len() as u64, true);
        }
        let disk = inner.disk.clone();
        inner.steps.push((step, disk));
    }
}
