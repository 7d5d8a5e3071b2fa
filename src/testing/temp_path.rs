//! The path of a temporary file, in memory if the machine has `/dev/shm`.
//!
//! Floor: testing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

use crate::error::best_effort;

/// A path of its own for one run. The file and its lock file are removed when this is dropped.
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
        // There is no file if it could not be written, and no lock file if it was not opened.
        best_effort(fs::remove_file(&self.0));
        best_effort(fs::remove_file(lock_file(&self.0)));
    }
}

fn lock_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_database_at_a_temporary_path() {
        let path = TempPath::new();
        let (file, lock) = (path.0.clone(), lock_file(&path.0));
        drop(crate::db::Db::open(&file).expect("made"));
        assert!(file.exists() && lock.exists());
        drop(path);
        assert!(!file.exists() && !lock.exists());
    }
}
