//! The path of a temporary file, in memory if the machine has `/dev/shm`.
//!
//! Floor: testing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

use crate::error::best_effort;

/// A path of its own for one run. The file is removed when this is dropped.
pub(super) struct TempPath(pub(super) PathBuf);

impl TempPath {
    pub(super) fn new() -> TempPath {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { shm.to_path_buf() } else { env::temp_dir() };
        TempPath(dir.join(format!("mapleaf-fuzz-{}-{number}", process::id())))
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        // There is no file if it could not be written.
        best_effort(fs::remove_file(&self.0));
    }
}
