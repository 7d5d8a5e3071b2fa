//! Real file systems with real faults: small disks that run full, and a file system that injects
//! faults.
//!
//! A [`Disk`] is mounted if the tests run as root and the tools are installed; otherwise its tests
//! print that they are skipped, and pass. Databases on such disks are opened in child processes
//! (`reexec`), so that a crash fails one test and does not end all of them.
//!
//! ```text
//! fuse         a small file system in memory that gives errors for chosen reads, writes and flushes
//! full         disks that are full at each step of growth, at creation, in a commit, under holes
//! writeback    pages and flushes that do not reach the disk, then power cuts
//! unreadable   pages that cannot be read
//! proof        a flush whose error only a process saw that died
//! mounts       mounts that are read only, and the times of files
//! ```

mod full;
mod fuse;
mod mounts;
mod proof;
mod remote;
mod unreadable;
mod writeback;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs2::FileExt as _;
use tempfile::TempDir;

use crate::workload::fast_dir;

/// A file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    /// MiB of a small disk; for some file systems, their minimum.
    fn mib(self) -> u64 {
        match self {
            Kind::Tmpfs => 24,
            Kind::Ext4 => 32,
            Kind::Xfs => 320,
            Kind::Btrfs => 128,
        }
    }

    /// The tool that makes one, with its options.
    fn maker(self) -> &'static [&'static str] {
        match self {
            Kind::Tmpfs => &[],
            Kind::Ext4 => &["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096"],
            Kind::Xfs => &["mkfs.xfs", "-q", "-f"],
            Kind::Btrfs => &["mkfs.btrfs", "-q", "-f"],
        }
    }
}

/// Runs a command to its end. Returns its output if it failed or is missing.
pub(crate) fn run(command: &[&str], paths: &[&Path]) -> Result<String, String> {
    let output = Command::new(command[0]).args(&command[1..]).args(paths).output();
    let output = output.map_err(|e| format!("{}: {e}", command[0]))?;
    if !output.status.success() {
        return Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Prints that a test is skipped.
pub(crate) fn skipped(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
}

/// A mounted directory; drop unmounts it.
#[derive(Debug)]
pub(crate) struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts with these arguments of `mount`.
    pub(crate) fn new(arguments: &[&str], source: &Path, at: &Path) -> Result<Mount, String> {
        run(&[&["mount"], arguments].concat(), &[source, at])?;
        Ok(Mount { at: at.to_path_buf() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // An open file keeps the mount busy; a lazy unmount ends it when the file is closed.
        if run(&["umount"], &[&self.at]).is_err() {
            if let Err(why) = run(&["umount", "-l"], &[&self.at]) {
                println!("not unmounted: {why}");
            }
        }
    }
}

/// A new, empty file system. Drop removes it with its contents.
#[derive(Debug)]
pub(crate) struct Disk {
    // Dropped in this order.
    _mount: Mount,
    dir: TempDir,
}

impl Disk {
    /// Creates and mounts a small one, or returns why that is impossible here.
    pub(crate) fn new(kind: Kind) -> Result<Disk, String> {
        Disk::of_mib(kind, kind.mib())
    }

    /// Creates and mounts one of so many MiB.
    pub(crate) fn of_mib(kind: Kind, mib: u64) -> Result<Disk, String> {
        let dir = fast_dir();
        let at = dir.path().join("mounted");
        fs::create_dir(&at).map_err(|e| e.to_string())?;
        let mount = if kind == Kind::Tmpfs {
            Mount::new(&["-t", "tmpfs", "-o", &format!("size={mib}m")], Path::new("tmpfs"), &at)?
        } else {
            let image = dir.path().join("image");
            File::create(&image).and_then(|file| file.set_len(mib << 20)).map_err(|e| e.to_string())?;
            run(kind.maker(), &[&image])?;
            // Unmounting also frees the loop device.
            Mount::new(&["-o", "loop"], &image, &at)?
        };
        Ok(Disk { _mount: mount, dir })
    }

    /// Its root.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }
}

/// Files that fill a disk.
#[derive(Debug)]
pub(crate) struct Ballast {
    dir: PathBuf,
}

impl Ballast {
    /// None yet.
    pub(crate) fn on(disk: &Path) -> Ballast {
        let dir = disk.join("ballast");
        fs::create_dir_all(&dir).expect("a directory");
        Ballast { dir }
    }

    fn file(&self, number: usize) -> std::io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.dir.join(number.to_string()))
    }

    /// Fills the disk except for `left` bytes; with 0, to the last block.
    pub(crate) fn leave(&self, free: u64) {
        let (mut number, mut step) = (0, 64 << 20);
        // One file per step: xfs requests the space of a file's existing blocks again.
        while step >= 4096 {
            match self.file(number).and_then(|file| file.allocate(step)) {
                Ok(()) => number += 1,
                Err(_) => step /= 2,
            }
        }
        let mut free = free;
        for number in 0..number {
            let file = self.file(number).expect("a ballast file");
            let len = file.metadata().expect("a length").len();
            file.set_len(len - free.min(len)).expect("a shorter ballast");
            free -= free.min(len);
        }
    }

    /// Frees all space. The files stay, because some file systems free the blocks of removed files
    /// later.
    pub(crate) fn remove(&self) {
        for entry in fs::read_dir(&self.dir).expect("the ballast") {
            let file = File::options().write(true).open(entry.expect("an entry").path()).expect("a ballast file");
            file.set_len(0).expect("to empty the ballast");
        }
    }
}
