//! Models the disk under one file: what a power cut may leave of each page.
//!
//! A page has the content that was flushed last, and those that it had since. A cut leaves any of
//! them, or a mixture of two in whole sectors; and it leaves any length that the file had since.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The content of a page, with its hash; that of zeros is 0.
#[derive(Debug)]
struct Content {
    bytes: [u8; PAGE],
    hash: u64,
}

type Page = Arc<Content>;

fn page(bytes: [u8; PAGE]) -> Page {
    let mix = |hash: u64, word: &[u8]| {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    };
    let hash = if bytes == [0; PAGE] { 0 } else { bytes.chunks_exact(8).fold(1, mix) | 1 };
    Arc::new(Content { bytes, hash })
}

/// Random numbers from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A file on a disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    /// The contents of each page: the durable one first, the current one last.
    pages: Vec<Vec<Page>>,
    lens: Vec<u64>,
}

/// How an image is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    Old,
    New,
    Any,
    Torn,
}

impl Disk {
    /// A file all of whose bytes are durable.
    pub(crate) fn durable(path: &Path) -> Disk {
        let mut disk = Disk { path: path.to_path_buf(), pages: Vec::new(), lens: Vec::new() };
        disk.look();
        disk.flushed(0, u64::MAX, true);
        disk
    }

    /// Records the current contents of the file.
    pub(crate) fn look(&mut self) {
        let bytes = fs::read(&self.path).expect("to read the file that is watched");
        if self.lens.last() != Some(&(bytes.len() as u64)) {
            self.lens.push(bytes.len() as u64);
        }
        let count = bytes.len().div_ceil(PAGE).max(self.pages.len());
        self.pages.resize_with(count, || vec![page([0; PAGE])]);
        for (versions, now) in self.pages.iter_mut().zip(bytes.chunks(PAGE)) {
            if versions[versions.len() - 1].bytes[..now.len()] != *now {
                let mut bytes = [0; PAGE];
                bytes[..now.len()].copy_from_slice(now);
                versions.push(page(bytes));
            }
        }
    }

    /// Makes a range durable, with the contents that were recorded last.
    pub(crate) fn flushed(&mut self, offset: u64, len: u64, carries_length: bool) {
        let (first, end) = (offset as usize / PAGE, offset.saturating_add(len).div_ceil(PAGE as u64) as usize);
        for versions in self.pages.iter_mut().take(end).skip(first) {
            versions.drain(..versions.len() - 1);
        }
        if carries_length {
            self.lens.drain(..self.lens.len() - 1);
        }
    }

    /// Whether any page is not durable as it is now.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.pages.iter().any(|versions| versions.len() > 1)
    }

    /// An image that a power cut may leave now.
    pub(crate) fn image(&self, choice: Choice, rng: &mut Rng) -> Image {
        let pages = self.pages.iter().map(|versions| pick(versions, choice, rng)).collect();
        let at = match choice {
            Choice::Old => 0,
            Choice::New => self.lens.len() - 1,
            Choice::Any | Choice::Torn => rng.below(self.lens.len() as u64) as usize,
        };
        Image { pages, len: self.lens[at] }
    }
}

fn pick(versions: &[Page], choice: Choice, rng: &mut Rng) -> Page {
    let newest = versions.len() - 1;
    if newest == 0 {
        return Arc::clone(&versions[0]);
    }
    let any = |rng: &mut Rng| rng.below(versions.len() as u64) as usize;
    match choice {
        Choice::Old => Arc::clone(&versions[0]),
        Choice::New => Arc::clone(&versions[newest]),
        Choice::Any => Arc::clone(&versions[any(rng)]),
        Choice::Torn => {
            let (one, two) = (&versions[any(rng)], &versions[any(rng)]);
            let mut bytes = one.bytes;
            for at in (0..PAGE).step_by(SECTOR).filter(|_| rng.below(2) == 0) {
                bytes[at..at + SECTOR].copy_from_slice(&two.bytes[at..at + SECTOR]);
            }
            page(bytes)
        }
    }
}

/// The contents of a file after a cut.
pub(crate) struct Image {
    pages: Vec<Page>,
    len: u64,
}

impl Image {
    pub(crate) fn hash(&self) -> u64 {
        self.pages.iter().fold(Rng(self.len).next(), |sum, page| Rng(sum ^ page.hash).next())
    }

    /// Writes the image to a file. Zeros become holes.
    pub(crate) fn write(&self, path: &Path) {
        let file = File::create(path).expect("to make an image");
        for (at, page) in self.pages.iter().enumerate() {
            let start = (at * PAGE) as u64;
            if start < self.len && page.hash != 0 {
                let end = ((self.len - start) as usize).min(PAGE);
                file.write_all_at(&page.bytes[..end], start).expect("to write an image");
            }
        }
        file.set_len(self.len).expect("to set the length of an image");
    }
}
