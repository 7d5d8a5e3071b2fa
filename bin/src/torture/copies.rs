//! Makes damaged copies of the database: cut short, or with changed bytes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::random::Rng;

/// The kind of damage to a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    Cut,
    Flips,
}

impl Damage {
    /// Part of the copy's file name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Damage::Cut => "cut",
            Damage::Flips => "flipped",
        }
    }
}

/// A copy in the database's folder. Drop removes it, unless `keep` was called.
pub(crate) struct Copy {
    path: PathBuf,
    kept: bool,
}

impl Copy {
    /// Copies the database and damages the copy. Also returns a description of the damage.
    pub(crate) fn make(of: &Path, damage: Damage, cycle: u64, rng: &mut Rng) -> io::Result<(Copy, String)> {
        let mut name = of.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}-{cycle}", damage.name()));
        let copy = Copy { path: of.with_file_name(name), kept: false };
        fs::copy(of, &copy.path)?;
        let file = OpenOptions::new().read(true).write(true).open(&copy.path)?;
        let done = match damage {
            Damage::Cut => cut(&file, rng)?,
            Damage::Flips => flip(&file, rng)?,
        };
        Ok((copy, done))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the copy, and returns its path.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Cuts the file: half of the time at any length, else at a multiple of 4 KiB.
fn cut(file: &File, rng: &mut Rng) -> io::Result<String> {
    let before = file.metadata()?.len();
    let mut len = rng.below(before);
    if rng.one_in(2) {
        len -= len % 4096;
    }
    file.set_len(len)?;
    Ok(format!("cut from {before} to {len} bytes"))
}

/// Changes up to 64 bytes, most often one, by at least one bit each.
fn flip(file: &File, rng: &mut Rng) -> io::Result<String> {
    let len = file.metadata()?.len();
    let count = if rng.one_in(2) { 1 } else { 1 + rng.below(64) };
    let mut places = Vec::new();
    for _ in 0..count {
        // Every eighth change hits the meta pages, which few random offsets would hit.
        let within = if rng.one_in(8) { len.min(8192) } else { len };
        let at = rng.below(within);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 + rng.below(255) as u8;
        file.write_all_at(&byte, at)?;
        places.push(at.to_string());
    }
    Ok(format!("bytes changed at {}", places.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_damaged_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, vec![0; 10_000]).unwrap();
        for number in 0..20 {
            for damage in [Damage::Cut, Damage::Flips] {
                let mut rng = Rng::of(1, number);
                let (copy, done) = Copy::make(&path, damage, number, &mut rng).unwrap();
                assert_ne!(fs::read(copy.path()).unwrap(), fs::read(&path).unwrap(), "{done}");
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
