//! Models the disk: the durable contents of each page, and all contents that it has had since the
//! last flush.
//!
//! A page whose contents have changed since the last look gets a new version. A successful flush
//! makes the last versions of its range durable, and the length.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use mapleaf::testing::{log_content, LogContent};

use super::image::{Content, Cut, Doubt};
use crate::workload::Rng;

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
    /// Pages whose content could not be written, with that content. The kernel takes them for
    /// clean, so no flush writes them until they change.
    lost: HashMap<usize, u64>,
    /// Pages of the commit log.
    log: Range<usize>,
}

impl Disk {
    /// A disk on which all data is durable.
    pub(super) fn durable(page_size: usize, pages: &[Content], len: u64) -> Disk {
        let pages = pages.iter().map(|page| vec![page.clone()]).collect();
        Disk { page_size, pages, lens: vec![len], lost: HashMap::new(), log: 0..0 }
    }

    /// The disk at a cut.
    pub(super) fn in_doubt(cut: &Cut) -> Disk {
        let mut pages: Vec<Vec<Content>> = cut.base.iter().map(|page| vec![page.clone()]).collect();
        for doubt in &cut.doubts {
            pages[doubt.page] = doubt.versions.clone();
        }
        let (lens, log) = (cut.all_lens.clone(), cut.log.clone());
        Disk { page_size: cut.page_size, pages, lens, lost: HashMap::new(), log }
    }

    /// An empty, durable file.
    pub(super) fn empty(page_size: usize) -> Disk {
        Disk { page_size, pages: Vec::new(), lens: vec![0], lost: HashMap::new(), log: 0..0 }
    }

    /// Records the current contents of the file.
    pub(super) fn observe(&mut self, bytes: &[u8]) {
        self.log = log_of(bytes).map_or(0..0, |log| log.first as usize..(log.first + log.pages) as usize);
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
    pub(super) fn flushed(&mut self, offset: u64, len: u64, carries_length: bool) {
        let (first, end) = (offset as usize / self.page_size, (offset + len).div_ceil(self.page_size as u64) as usize);
        for (at, versions) in self.pages.iter_mut().enumerate().take(end).skip(first) {
            if self.lost.get(&at) == versions.last().map(|last| &last.hash) {
                continue;
            }
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

    /// Some pages of trees cannot be written. Whether there are such pages.
    pub(super) fn lose(&mut self, rng: &mut Rng) -> bool {
        let log = self.log.clone();
        let dirty = self.pages.iter().enumerate().filter(|(at, versions)| {
            *at >= 2 && !log.contains(at) && versions.last().is_some_and(|last| last.hash != versions[0].hash)
        });
        let lost = dirty.filter(|_| rng.one_in(2)).map(|(at, versions)| (at, versions[versions.len() - 1].hash));
        self.lost = lost.collect();
        !self.lost.is_empty()
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
            log: self.log.clone(),
            acknowledged: 0,
        }
    }
}

/// A disk that reports flushes that it did not make: the newest page writes may be missing.
#[derive(Clone)]
pub(super) struct LyingDisk {
    page_size: usize,
    base: Vec<Content>,
    sent: Vec<Content>,
    newest: VecDeque<(usize, Content, u64)>,
    len: u64,
    log: Range<usize>,
}

impl LyingDisk {
    pub(super) fn new(disk: &Disk) -> LyingDisk {
        let (pages, len) = disk.current();
        let (sent, log) = (pages.clone(), disk.log.clone());
        LyingDisk { page_size: disk.page_size, sent, base: pages, newest: VecDeque::new(), len, log }
    }

    /// Pages of a range that have changed are sent to the disk.
    pub(super) fn send(&mut self, disk: &Disk, offset: u64, len: u64) {
        self.log = disk.log.clone();
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

    pub(super) fn cut(&self, what: String) -> Cut {
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
            log: self.log.clone(),
            acknowledged: 0,
        }
    }
}

/// The commit log of a file.
pub(super) fn log_of(bytes: &[u8]) -> Option<LogContent> {
    log_content(&|offset, into: &mut [u8]| {
        let found = bytes.get(offset as usize..offset as usize + into.len());
        found.inspect(|found| into.copy_from_slice(found)).is_some()
    })
}
