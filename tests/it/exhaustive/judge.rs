//! Opens images, each once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mapleaf::testing::{abandon, with_mutant};
use mapleaf::Db;

use super::agents::visible;
use super::book::Entries;
use crate::power::image::Image;

/// What each image holds.
pub(super) struct Judge {
    path: PathBuf,
    known: HashMap<u64, Result<Entries, String>>,
}

impl Judge {
    pub(super) fn new(path: PathBuf) -> Judge {
        Judge { path, known: HashMap::new() }
    }

    /// Images that were opened.
    pub(super) fn opened(&self) -> usize {
        self.known.len()
    }

    /// The entries that are found when the image is opened.
    pub(super) fn find(&mut self, image: &Image) -> Result<&Entries, String> {
        let path = &self.path;
        let found = self.known.entry(image.hash()).or_insert_with(|| {
            image.write(path);
            with_mutant(None, || open(path))
        });
        found.as_ref().map_err(Clone::clone)
    }
}

/// The entries of a database that is whole.
fn open(path: &Path) -> Result<Entries, String> {
    let db = Db::open_existing(path).map_err(|e| format!("open: {e}"))?;
    let found = visible(&db).map_err(|e| format!("read: {e}"));
    let report = db.check().map_err(|e| format!("check: {e}"))?;
    abandon(&db);
    match report.is_clean() {
        true => found.map(|(_, entries)| entries),
        false => Err(format!("check: {:?}", report.findings)),
    }
}
