//! The file as the page cache shows it, and the contents that the disk may hold of each page.
//!
//! Only flushed data is durable. A page that was changed since its last flush may have any content
//! that it had since. A page of the log or a meta page is torn at times, and holds anything if it
//! was written again while it was flushed. The length of the file is always durable here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use mapleaf::testing::FlushKind;

use super::schedule::Place;
use crate::power::image::{Content, Image};

pub(super) const PAGE: usize = 4096;

/// A page: all contents that the disk may have, the one that was durable first, the current last.
#[derive(Clone)]
struct Page {
    versions: Vec<Content>,
    /// The current version when a flush in progress began: of the log, and of the rest.
    flushing: [Option<usize>; 2],
    /// The current version when a flush failed: the kernel takes it for clean, and the disk may not
    /// have it.
    lost: Option<usize>,
}

/// The disk.
#[derive(Clone)]
pub(super) struct Disk {
    pages: Vec<Page>,
    /// Pages of the log.
    log: Range<usize>,
}

impl Disk {
    /// A file all of which is durable.
    pub(super) fn durable(bytes: &[u8]) -> Disk {
        let page = |bytes| Page { versions: vec![Content::new(bytes, PAGE)], flushing: [None; 2], lost: None };
        Disk { pages: bytes.chunks(PAGE).map(page).collect(), log: 0..0 }
    }

    /// The log lies in these pages; `0..0`: not known.
    pub(super) fn set_log(&mut self, log: Range<usize>) {
        self.log = log;
    }

    /// Whether the disk may be in the middle of writing a page, so that it can be torn.
    fn is_torn(&self, page: usize) -> bool {
        page < 2 || self.log.contains(&page)
    }

    /// Notes the contents of the file.
    pub(super) fn observe(&mut self, bytes: &[u8]) {
        let zero = || Page { versions: vec![Content::zero(PAGE)], flushing: [None; 2], lost: None };
        self.pages.resize_with(bytes.len().div_ceil(PAGE).max(self.pages.len()), zero);
        for (at, bytes) in bytes.chunks(PAGE).enumerate() {
            let torn = self.is_torn(at);
            let page = &mut self.pages[at];
            if page.current().holds(bytes) {
                continue;
            }
            let content = Content::new(bytes, PAGE);
            if page.flushing != [None; 2] && torn {
                page.versions.push(garbage(&content));
            }
            page.versions.push(content);
        }
    }

    /// A flush begins or has ended.
    pub(super) fn flush(&mut self, flush: Place) {
        let (Place::FlushBegins(kind, offset, len)
        | Place::FlushEnded(kind, offset, len)
        | Place::FlushFailed(kind, offset, len)) = flush
        else {
            return;
        };
        let pages = (offset as usize / PAGE)..((offset + len) as usize).div_ceil(PAGE).min(self.pages.len());
        let begins = matches!(flush, Place::FlushBegins(..));
        let own = usize::from(kind != FlushKind::Log);
        // A flush of pages of trees flushes what lies between them, the log too.
        for page in &mut self.pages[pages] {
            if begins {
                page.flushing[own] = Some(page.versions.len() - 1);
            } else if let Some(begun) = page.flushing[own].take() {
                if matches!(flush, Place::FlushFailed(..)) {
                    page.lost = page.lost.max(Some(begun).filter(|&begun| begun > 0));
                }
                if page.lost.is_some_and(|lost| begun <= lost) {
                    continue;
                }
                page.lost = None;
                page.versions.drain(..begun);
                page.flushing[1 - own] = page.flushing[1 - own].map(|other| other.saturating_sub(begun));
            }
        }
    }

    /// What all processes together see.
    pub(super) fn current(&self) -> Image {
        Image::new(PAGE, self.pages.iter().map(|page| page.current().clone()).collect(), self.len())
    }

    fn len(&self) -> u64 {
        (self.pages.len() * PAGE) as u64
    }

    /// The images that a power cut may leave now.
    ///
    /// A page of a tree that a durable meta page leads to has one content. So it is enough to try
    /// the oldest and the newest content of all pages of trees.
    pub(super) fn images(&self) -> Vec<Image> {
        let mut images = Vec::new();
        for newest in [false, true] {
            let base: Vec<Content> = self.pages.iter().map(|page| page.at(newest).clone()).collect();
            let mut all = vec![base];
            for (at, page) in self.pages.iter().enumerate().filter(|(at, _)| self.is_torn(*at)) {
                let options = page.options();
                if options.len() > 1 {
                    let with = |pages: &Vec<Content>| {
                        let with = |content: &Content| {
                            let mut pages = pages.clone();
                            pages[at] = content.clone();
                            pages
                        };
                        options.iter().map(with).collect::<Vec<_>>()
                    };
                    all = all.iter().flat_map(with).collect();
                }
            }
            images.extend(all.into_iter().map(|pages| Image::new(PAGE, pages, self.len())));
        }
        images
    }

    /// A hash of what a power cut may leave, and of what the page cache shows.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (at, page) in self.pages.iter().enumerate() {
            (page.flushing, page.lost).hash(&mut hasher);
            let counts = |at: &usize| [Some(0), Some(page.versions.len() - 1)].contains(&Some(*at));
            let all = self.is_torn(at);
            let versions = page.versions.iter().enumerate();
            let counted = versions
                .filter(|(at, _)| all || counts(at) || page.flushing.contains(&Some(*at)) || page.lost == Some(*at));
            counted.for_each(|(_, content)| content.hash.hash(&mut hasher));
        }
        hasher.finish()
    }
}

impl Page {
    fn current(&self) -> &Content {
        self.at(true)
    }

    fn at(&self, newest: bool) -> &Content {
        &self.versions[if newest { self.versions.len() - 1 } else { 0 }]
    }

    /// The contents to try: each version, and mixtures of the oldest and the newest.
    fn options(&self) -> Vec<Content> {
        let mut options: Vec<Content> = Vec::new();
        for version in &self.versions {
            if options.iter().all(|known| known.hash != version.hash) {
                options.push(version.clone());
            }
        }
        if options.len() > 1 {
            let (old, new) = (self.at(false).bytes(), self.at(true).bytes());
            options.push(Content::new(&[&new[..512], &old[512..]].concat(), PAGE));
            options.push(Content::new(&[&old[..512], &new[512..]].concat(), PAGE));
        }
        options
    }
}

/// A page whose write was disturbed.
fn garbage(content: &Content) -> Content {
    Content::new(&content.bytes().iter().map(|byte| byte ^ 0xa5).collect::<Vec<u8>>(), PAGE)
}
