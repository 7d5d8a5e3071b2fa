//! Opens the input files that the user names, and standard input.
//!
//! Failure: a folder, a missing file and a closed standard input are errors that name their remedy.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::exit::Failure;

/// Opens an input file.
pub(crate) fn open_file(path: &Path) -> Result<File, Failure> {
    let name = path.display().to_string();
    if path.is_dir() {
        return Err(directory(&name));
    }
    File::open(path).map_err(|error| Failure::reading(&name, &error))
}

/// The failure to read a folder.
pub(crate) fn directory(name: &str) -> Failure {
    Failure::usage(format!("{name}: is a folder; name a file in it"))
}

/// Refuses a closed standard input (`<&-`), which would otherwise count as an empty value or as no
/// rows. The standard library replaces a closed descriptor by the null device, opened for reading
/// and writing. A shell opens `</dev/null` for reading only.
pub(crate) fn refuse_closed_stdin() -> Result<(), Failure> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().and_then(|stdin| File::from(stdin).metadata());
    let null = fs::metadata("/dev/null");
    let is_null = matches!((stdin, null), (Ok(stdin), Ok(null)) if stdin.file_type().is_char_device() && stdin.rdev() == null.rdev());
    let info = fs::read_to_string("/proc/self/fdinfo/0").unwrap_or_default();
    let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    match is_null && flags.is_some_and(|flags| flags & 3 == 2) {
        true => Err(Failure::usage("standard input is closed; open it, or use </dev/null for an empty one")),
        false => Ok(()),
    }
}
