//! Images: the possible contents of the disk after a power cut, chosen page by page from the stored
//! versions. Equal images are counted once.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use mapleaf::testing::{log_content, LogContent};

use super::disk::Disk;
use super::setting::Mode;
use crate::workload::Rng;

/// The smallest unit that a disk writes atomically.
pub(super) const SECTOR: usize = 512;
/// The smallest atomic unit of any storage, such as persistent memory.
pub(super) const WORD: usize = 8;
/// Up to this many choices, all are tried.
const ALL_CHOICES_OF: usize = 64;

/// Bytes of a page, and their hash.
#[derive(Clone)]
pub(crate) struct Content {
    bytes: Arc<[u8]>,
    /// 0 for only zeros.
    pub(crate) hash: u64,
}

impl Content {
    /// A page of these bytes followed by zeros.
    pub(crate) fn new(bytes: &[u8], page_size: usize) -> Content {
        let mut page = vec![0; page_size];
        page[..bytes.len()].copy_from_slice(bytes);
        let hash = match page.iter().any(|&byte| byte != 0) {
            true => {
                let mut hasher = DefaultHasher::new();
                hasher.write(&page);
                hasher.finish() | 1
            }
            false => 0,
        };
        Content { bytes: page.into(), hash }
    }

    pub(crate) fn zero(page_size: usize) -> Content {
        static ZERO: Mutex<Vec<Content>> = Mutex::new(Vec::new());
        let mut zeros = ZERO.lock().expect("zeros");
        if let Some(zero) = zeros.iter().find(|zero| zero.bytes.len() == page_size) {
            return zero.clone();
        }
        zeros.push(Content { bytes: vec![0; page_size].into(), hash: 0 });
        zeros[zeros.len() - 1].clone()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is these bytes followed by zeros.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        let (begin, rest) = self.bytes.split_at(bytes.len());
        begin == bytes && rest.iter().all(|&byte| byte == 0)
    }
}

/// The possible contents of a file on the disk.
#[derive(Clone)]
pub(crate) struct Image {
    pub(super) page_size: usize,
    pub(super) pages: Vec<Content>,
    pub(super) len: u64,
    /// There is no file.
    pub(super) missing: bool,
}

impl Image {
    pub(crate) fn new(page_size: usize, pages: Vec<Content>, len: u64) -> Image {
        Image { page_size, pages, len, missing: false }
    }

    pub(super) fn of_bytes(bytes: &[u8], page_size: usize) -> Image {
        let pages = bytes.chunks(page_size).map(|page| Content::new(page, page_size)).collect();
        Image::new(page_size, pages, bytes.len() as u64)
    }

    pub(super) fn missing(page_size: usize) -> Image {
        Image { missing: true, ..Image::new(page_size, Vec::new(), 0) }
    }

    /// A hash of the image. Zero pages do not count; the length does.
    pub(crate) fn hash(&self) -> u64 {
        if self.missing {
            return 0;
        }
        let within = (self.len as usize).div_ceil(self.page_size);
        let pages = self.pages.iter().take(within).enumerate().filter(|(_, page)| page.hash != 0);
        pages.fold(Rng(self.len).next(), |sum, (at, page)| sum ^ Rng(page.hash ^ (at as u64) << 40).next())
    }

    /// Writes the image to the file. Zeros become holes.
    pub(crate) fn write(&self, path: &Path) {
        if self.missing {
            drop(std::fs::remove_file(path));
            return;
        }
        let file = File::create(path).expect("to make an image");
        for (at, page) in self.pages.iter().enumerate() {
            let start = (at * self.page_size) as u64;
            if page.hash != 0 && start < self.len {
                let end = ((self.len - start) as usize).min(self.page_size);
                file.write_all_at(&page.bytes[..end], start).expect("to write an image");
            }
        }
        file.set_len(self.len).expect("to set the length of an image");
    }

    /// Fills a buffer with the bytes at an offset; `false` past the end.
    fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        if offset + into.len() as u64 > self.len {
            return false;
        }
        let mut at = offset as usize;
        let mut rest = into;
        while !rest.is_empty() {
            let within = at % self.page_size;
            let (chunk, later) = rest.split_at_mut((self.page_size - within).min(rest.len()));
            match self.pages.get(at / self.page_size) {
                Some(page) => chunk.copy_from_slice(&page.bytes[within..within + chunk.len()]),
                None => chunk.fill(0),
            }
            at += chunk.len();
            rest = later;
        }
        true
    }

    /// What the commit log holds; `None` without a log.
    pub(super) fn log_content(&self) -> Option<LogContent> {
        log_content(&|offset, into: &mut [u8]| self.read(offset, into))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.pages.iter().flat_map(|page| page.bytes.iter().copied()).collect();
        bytes.resize(self.len as usize, 0);
        bytes
    }
}

/// A page that may hold any of several contents, the durable one first and the newest last.
#[derive(Clone)]
pub(super) struct Doubt {
    pub(super) page: usize,
    pub(super) versions: Vec<Content>,
}

/// The contents that a choice gives to a page in doubt.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Fate {
    /// It holds this version.
    Whole(usize),
    /// In chunks of `grain` bytes it holds one version or the other; `how` says which ones.
    Torn { old: usize, new: usize, grain: usize, how: u64 },
    /// Sectors of a page that was being written hold anything.
    Garbage(u64),
}

/// A choice for all pages in doubt, and the length.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Choice {
    pub(super) fates: Vec<Fate>,
    pub(super) len: u64,
}

/// A moment of a possible power cut.
#[derive(Clone)]
pub(super) struct Cut {
    pub(super) what: String,
    pub(super) page_size: usize,
    pub(super) base: Vec<Content>,
    pub(super) doubts: Vec<Doubt>,
    /// Lengths that the file may have.
    pub(super) lens: Vec<u64>,
    /// The lengths in order: the durable one first, the current one last.
    pub(super) all_lens: Vec<u64>,
    /// A meta page is being written.
    pub(super) meta_flush: bool,
    /// The commit log is being flushed.
    pub(super) log_flush: bool,
    /// Pages of the log that are being flushed: the disk may be in the middle of writing them.
    pub(super) in_flight: Range<usize>,
    /// Pages of the commit log.
    pub(super) log: Range<usize>,
    /// The step that had to survive when the cut was recorded.
    pub(super) acknowledged: u64,
}

impl Cut {
    pub(super) fn image(&self, choice: &Choice) -> Image {
        let mut pages = self.base.clone();
        for (doubt, fate) in self.doubts.iter().zip(&choice.fates) {
            pages[doubt.page] = doubt.content(*fate, self.page_size);
        }
        Image::new(self.page_size, pages, choice.len)
    }

    /// The disk after a kill at this moment: the page cache has all contents, and some are durable.
    pub(super) fn disk(&self) -> Disk {
        Disk::in_doubt(self)
    }

    /// The choices to try: all if they are few, otherwise seeded samples. `grain` is the disk's
    /// atomic unit.
    pub(super) fn choices(&self, samples: usize, grain: usize, rng: &mut Rng) -> Vec<Choice> {
        let options: Vec<Vec<Fate>> = self.doubts.iter().map(Doubt::options).collect();
        let most = ALL_CHOICES_OF.min(4 * samples);
        let product = options.iter().try_fold(1, |all, some| Some(all * some.len()).filter(|&all| all <= most));
        let mut all = match product {
            Some(_) => every(&options),
            None => self.sampled(samples * 3 / 4, rng),
        };
        for _ in 0..samples / 4 {
            all.push(self.doubts.iter().map(|doubt| doubt.any_fate(self.is_in_flight(doubt), grain, rng)).collect());
        }
        let both = product.is_some();
        let lens = |fates: Vec<Fate>| {
            let lens =
                if both { self.lens.clone() } else { vec![self.lens[rng.below(self.lens.len() as u64) as usize]] };
            lens.into_iter().map(move |len| Choice { fates: fates.clone(), len }).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(lens).collect()
    }

    /// The flush that it precedes: 0 of pages, 1 of a meta page, 2 of the log, 3 none.
    pub(super) fn flush(&self) -> usize {
        match (self.meta_flush, self.log_flush) {
            (true, _) => 1,
            (_, true) => 2,
            _ => usize::from(!self.what.starts_with("before flush")) * 3,
        }
    }

    /// Whether sectors of a page may hold anything, because it is being written.
    fn is_in_flight(&self, doubt: &Doubt) -> bool {
        (doubt.page < 2 && self.meta_flush) || self.in_flight.contains(&doubt.page)
    }

    fn sampled(&self, samples: usize, rng: &mut Rng) -> Vec<Vec<Fate>> {
        let n = self.doubts.len();
        let all_old = vec![Fate::Whole(0); n];
        let all_new: Vec<Fate> = self.doubts.iter().map(Doubt::newest).collect();
        let mut choices = vec![all_old.clone(), all_new.clone()];
        for (at, doubt) in self.doubts.iter().enumerate().filter(|(_, doubt)| doubt.page < 2) {
            // An older meta page, and everything else new.
            let mut older = all_new.clone();
            older[at] = Fate::Whole(doubt.versions.len().saturating_sub(2));
            choices.push(older);
        }
        if self.doubts.iter().any(|doubt| self.log.contains(&doubt.page)) {
            choices.extend((0..(samples / 4).max(1)).map(|_| self.with_any_log(&all_old, &all_new, rng)));
        }
        for at in 0..samples - samples / 4 {
            if at % 3 == 0 {
                let mut one_differs = if rng.one_in(2) { all_old.clone() } else { all_new.clone() };
                let differs = rng.below(n as u64) as usize;
                let doubt = &self.doubts[differs];
                one_differs[differs] = doubt.any_fate(self.is_in_flight(doubt), SECTOR, rng);
                choices.push(one_differs);
            } else {
                let odds = 1 + rng.below(9);
                let one = |doubt: &Doubt| match rng.below(10) < odds {
                    true => Fate::Whole(rng.below(doubt.versions.len() as u64) as usize),
                    false => Fate::Whole(if odds.is_multiple_of(2) { 0 } else { doubt.versions.len() - 1 }),
                };
                choices.push(self.doubts.iter().map(one).collect());
            }
        }
        choices
    }

    /// The pages of the log in any of their contents, and all other pages old or new.
    fn with_any_log(&self, old: &[Fate], new: &[Fate], rng: &mut Rng) -> Vec<Fate> {
        let mut fates = if rng.one_in(2) { old.to_vec() } else { new.to_vec() };
        for (doubt, fate) in self.doubts.iter().zip(&mut fates).filter(|(doubt, _)| self.log.contains(&doubt.page)) {
            *fate = Fate::Whole(rng.below(doubt.versions.len() as u64) as usize);
        }
        fates
    }
}

/// All combinations.
fn every(options: &[Vec<Fate>]) -> Vec<Vec<Fate>> {
    options.iter().fold(vec![Vec::new()], |all, some| {
        let with =
            |begun: &Vec<Fate>| some.iter().map(|fate| [begun.as_slice(), &[*fate]].concat()).collect::<Vec<_>>();
        all.iter().flat_map(with).collect()
    })
}

impl Doubt {
    pub(super) fn newest(&self) -> Fate {
        Fate::Whole(self.versions.len() - 1)
    }

    /// The versions of a page, and for a meta page also mixtures of its two halves.
    fn options(&self) -> Vec<Fate> {
        let mut options: Vec<Fate> = Vec::new();
        let mut seen = HashSet::new();
        for (at, version) in self.versions.iter().enumerate() {
            if seen.insert(version.hash) {
                options.push(Fate::Whole(at));
            }
        }
        if self.page < 2 {
            let (old, new) = (0, self.versions.len() - 1);
            options.extend([0, 1].map(|how| Fate::Torn { old, new, grain: self.versions[0].bytes.len() / 2, how }));
        }
        options
    }

    fn any_fate(&self, in_flight: bool, grain: usize, rng: &mut Rng) -> Fate {
        let any = |rng: &mut Rng| rng.below(self.versions.len() as u64) as usize;
        match rng.below(4) {
            0 => Fate::Whole(0),
            1 => Fate::Whole(any(rng)),
            2 if in_flight => Fate::Garbage(rng.next()),
            _ => {
                let new = any(rng).max(1);
                Fate::Torn { old: rng.below(new as u64) as usize, new, grain, how: rng.next() }
            }
        }
    }

    fn content(&self, fate: Fate, page_size: usize) -> Content {
        match fate {
            Fate::Whole(at) => self.versions[at].clone(),
            Fate::Torn { old, new, grain, how } => {
                let (old, new) = (self.versions[old].bytes(), self.versions[new].bytes());
                Content::new(&torn(old, new, grain, how), page_size)
            }
            Fate::Garbage(seed) => {
                let mut rng = Rng(seed);
                let (old, new) = (self.versions[0].bytes(), self.versions[self.versions.len() - 1].bytes());
                let mut bytes = old.to_vec();
                for (at, sector) in bytes.chunks_mut(SECTOR).enumerate() {
                    let new = &new[at * SECTOR..][..SECTOR];
                    if sector != new && rng.one_in(2) {
                        sector.iter_mut().for_each(|byte| *byte = rng.next() as u8);
                    } else if rng.one_in(2) {
                        sector.copy_from_slice(new);
                    }
                }
                Content::new(&bytes, page_size)
            }
        }
    }
}

/// A torn page: the first chunks are new, the last are, or any.
fn torn(old: &[u8], new: &[u8], grain: usize, how: u64) -> Vec<u8> {
    let mut bytes = old.to_vec();
    let chunks = old.len() / grain;
    let mut rng = Rng(how);
    let (style, edge) = (if chunks == 2 { how % 2 } else { how % 3 }, 1 + rng.below(chunks.max(2) as u64 - 1) as usize);
    for (at, chunk) in bytes.chunks_mut(grain).enumerate() {
        let takes_new = match style {
            0 => at < edge,
            1 => at >= edge,
            _ => rng.one_in(2),
        };
        if takes_new {
            chunk.copy_from_slice(&new[at * grain..][..grain]);
        }
    }
    bytes
}

/// Counts of all tests in this process, for each mode.
#[derive(Default)]
pub(super) struct Tally {
    distinct: Mutex<HashSet<u64>>,
    opened: AtomicU64,
}

static TALLIES: [LazyLock<Tally>; 2] = [const { LazyLock::new(Tally::default) }; 2];

impl Tally {
    pub(super) fn of(mode: Mode) -> &'static Tally {
        &TALLIES[mode as usize]
    }

    /// Counts an opened image. Returns whether it is the first of its kind in this process.
    pub(super) fn count(&self, image: u64) -> bool {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.distinct.lock().expect("the images").insert(image)
    }

    /// The number of distinct images, and of opened ones.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.distinct.lock().expect("the images").len() as u64, self.opened.load(Ordering::Relaxed))
    }
}
