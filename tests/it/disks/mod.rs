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
//! mounts       mounts that are read only, and the times of files
//! ```

mod full;
mod fuse;
mod mounts;
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
    /// MiB of a small disk; what the file system needs at least, for some.
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

/// Runs a command to its end; what it said when it failed or is not there.
pub(crate) fn run(command: &[&str], paths: &[&Path]) -> Result<String, String> {
    let output = Command::new(command[0]).args(&command[1..]).args(paths).output();
    let output = output.map_err(|e| format!("{}: {e}", command[0]))?;
    if !output.status.success() {
        return Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Says that a test was skipped.
pub(crate) fn skipped(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
}

/// A mounted directory; unmounted when it goes.
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
        // A file that is still open keeps it busy: then it goes when that is closed.
        if run(&["umount"], &[&self.at]).is_err() {
            if let Err(why) = run(&["umount", "-l"], &[&self.at]) {
                println!("not unmounted: {why}");
            }
        }
    }
}

/// An empty file system of its own. Goes with all that is in it.
#[derive(Debug)]
pub(crate) struct Disk {
    // In this order they are dropped.
    _mount: Mount,
    dir: TempDir,
}

impl Disk {
    /// Makes and mounts one; why that is not possible here.
    pub(crate) fn new(kind: Kind) -> Result<Disk, String> {
        let dir = fast_dir();
        let at = dir.path().join("mounted");
        fs::create_dir(&at).map_err(|e| e.to_string())?;
        let mount = if kind == Kind::Tmpfs {
            Mount::new(&["-t", "tmpfs", "-o", &format!("size={}m", kind.mib())], Path::new("tmpfs"), &at)?
        } else {
            let image = dir.path().join("image");
            File::create(&image).and_then(|file| file.set_len(kind.mib() << 20)).map_err(|e| e.to_string())?;
            run(kind.maker(), &[&image])?;
            // Unmounting lets go of the loop device.
            Mount::new(&["-o", "loop"], &image, &at)?
        };
        Ok(Disk { _mount: mount, dir })
    }

    /// Its root.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }
}

/// Files that take room on a disk until there is none.
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

    /// Takes all room but so many bytes, to the block where that is 0.
    pub(crate) fn leave(&self, free: u64) {
        let (mut number, mut step) = (0, 64 << 20);
        // One file per step: xfs asks for the room of what a file has already once more.
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

    /// Gives everything back. The files stay, as some file systems remove them later.
    pub(crate) fn remove(&self) {
        for entry in fs::read_dir(&self.dir).expect("the ballast") {
            let file = File::options().write(true).open(entry.expect("an entry").path()).expect("a ballast file");
            file.set_len(0).expect("to empty the ballast");
        }
    }
}
