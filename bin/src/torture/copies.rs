//! Makes damaged copies of the database: cut short, or with changed bytes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::database::new_file;
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

/// A damaged copy in the database's folder. Drop removes it, unless `keep` was called.
pub(crate) struct DamagedCopy {
    path: PathBuf,
    keep: bool,
}

impl DamagedCopy {
    /// Copies the database and damages the copy. Also returns a description of the damage.
    pub(crate) fn create(
        database: &Path,
        damage: Damage,
        cycle: u64,
        rng: &mut Rng,
    ) -> io::Result<(DamagedCopy, String)> {
        let mut name = database.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}-{cycle}", damage.name()));
        let copy = DamagedCopy { path: database.with_file_name(name), keep: false };
        fs::copy(database, &copy.path)?;
        let file = OpenOptions::new().read(true).write(true).open(&copy.path)?;
        let description = match damage {
            Damage::Cut => cut(&file, rng)?,
            Damage::Flips => flip(&file, rng)?,
        };
        Ok((copy, description))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the copy, and returns its path.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.keep = true;
        self.path.clone()
    }
}

impl Drop for DamagedCopy {
    fn drop(&mut self) {
        if !self.keep {
            new_file::remove(&self.path);
        }
    }
}

/// Cuts the file, to any length in half of the calls, else to a multiple of 4 KiB. Describes the
/// cut.
fn cut(file: &File, rng: &mut Rng) -> io::Result<String> {
    let before = file.metadata()?.len();
    let mut len = rng.below(before);
    if rng.one_in(2) {
        len -= len % 4096;
    }
    file.set_len(len)?;
    Ok(format!("cut from {before} to {len} bytes"))
}

/// Changes up to 64 bytes, most often one, by at least one bit each. Describes the changes.
fn flip(file: &File, rng: &mut Rng) -> io::Result<String> {
    let len = file.metadata()?.len();
    let count = if rng.one_in(2) { 1 } else { 1 + rng.below(64) };
    let mut offsets = Vec::new();
    for _ in 0..count {
        // Every eighth change hits the meta pages, which few random offsets would hit.
        let within = if rng.one_in(8) { len.min(8192) } else { len };
        let offset = rng.below(within);
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        byte[0] ^= 1 + rng.below(255) as u8;
        file.write_all_at(&byte, offset)?;
        offsets.push(offset.to_string());
    }
    Ok(format!("bytes changed at {}", offsets.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_differ_from_the_file_and_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        fs::write(&path, vec![0; 10_000]).unwrap();
        for number in 0..20 {
            for damage in [Damage::Cut, Damage::Flips] {
                let mut rng = Rng::of(1, number);
                let (copy, description) = DamagedCopy::create(&path, damage, number, &mut rng).unwrap();
                assert_ne!(fs::read(copy.path()).unwrap(), fs::read(&path).unwrap(), "{description}");
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
