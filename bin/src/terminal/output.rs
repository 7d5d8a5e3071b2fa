//! Writes rows and answers to standard output or a file, and messages to standard error.
//!
//! - A terminal gets no control bytes (see `escape`); a pipe or a file gets the unchanged bytes.
//! - A file with the contents of a database never has more permissions than the database.
//! - Unlike `println!`, nothing here panics when the reader of a pipe has closed it.
//! - A file is complete or absent: `Output` writes a temporary file in the same folder and renames
//!   it at the end. It writes to devices and pipes directly.

use std::borrow::Cow;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mapleaf::Db;
use nix::sys::signal::{SigSet, Signal};

use crate::exit::{best_effort, Failure};
pub(crate) use crate::terminal::escape::one_line;
use crate::terminal::escape::visible;
use crate::terminal::progress;

const BUFFER_BYTES: usize = 256 * 1024;

/// Blocks SIGXFSZ, so that a write past the limit on the size of files (`ulimit -f`) returns an
/// error and does not end the process. Call it before the first thread starts, so that all threads
/// inherit the mask.
pub(crate) fn block_size_limit_signal() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    best_effort(signals.thread_block());
}

/// Prints an error to standard error, and ends the progress line.
pub(crate) fn error(text: &str) {
    progress::end();
    message(&format!("kvctl: {text}"));
}

/// Prints a line to standard error. One write, because other processes may print there too.
pub(crate) fn message(text: &str) {
    let mut line = one_line(text);
    line.push('\n');
    progress::clear();
    best_effort(io::stderr().lock().write_all(line.as_bytes()));
}

/// The destination of rows and answers.
pub(crate) struct Output {
    sink: BufWriter<Box<dyn Write>>,
    /// For error texts.
    name: String,
    /// Whether to escape bytes that would control a terminal.
    to_terminal: bool,
    /// The temporary file, until it is renamed.
    unfinished: Option<Unfinished>,
}

struct Unfinished {
    temporary: PathBuf,
    target: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename, the temporary name does not exist. Before it, the file is incomplete.
        best_effort(fs::remove_file(&self.temporary));
    }
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Output {
        let to_terminal = io::stdout().is_terminal();
        Output::to(Box::new(io::stdout().lock()), "standard output", to_terminal, None)
    }

    /// A file with the permissions of the database `source`, or fewer. Replaces an existing file.
    pub(crate) fn file(target: &Path, source: &Db) -> Result<Output, Failure> {
        let name = target.display().to_string();
        let failed = |error: io::Error| Failure::creating(&name, target, &error);
        // If the target is a link, the rename replaces the file that it leads to, and not the link.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
        let replaced = fs::metadata(&target).ok();
        if replaced.as_ref().is_some_and(|replaced| !replaced.is_file()) {
            let file = File::options().write(true).open(&target).map_err(failed)?;
            let to_terminal = file.is_terminal();
            return Ok(Output::to(Box::new(file), &name, to_terminal, None));
        }
        let (temporary, file) = temporary_beside(&target).map_err(failed)?;
        let unfinished = Unfinished { temporary, target };
        source.share_rights_with(&file)?;
        if let Some(replaced) = replaced {
            // A user without permission to read the replaced file gets none for the new one.
            let mode = file.metadata().map_err(failed)?.mode() & replaced.mode();
            file.set_permissions(Permissions::from_mode(mode & 0o777)).map_err(failed)?;
        }
        Ok(Output::to(Box::new(file), &name, false, Some(unfinished)))
    }

    fn to(sink: Box<dyn Write>, name: &str, to_terminal: bool, unfinished: Option<Unfinished>) -> Output {
        Output { sink: BufWriter::with_capacity(BUFFER_BYTES, sink), name: name.to_string(), to_terminal, unfinished }
    }

    /// Whether the output goes to a temporary file that is not renamed yet.
    pub(crate) fn is_unfinished_file(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let bytes = match self.to_terminal {
            true => {
                progress::clear();
                visible(bytes)
            }
            false => Cow::Borrowed(bytes),
        };
        self.sink.write_all(&bytes).map_err(|error| Failure::writing(&self.name, &error))
    }

    /// Writes the buffered bytes.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.sink.flush().map_err(|error| Failure::writing(&self.name, &error))
    }

    /// Writes the buffered bytes and renames the temporary file. Without this call, the file does
    /// not appear.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let name = self.name;
        let failed = |error: io::Error| Failure::writing(&name, &error);
        self.sink.flush().map_err(failed)?;
        if let Some(unfinished) = self.unfinished.take() {
            fs::rename(&unfinished.temporary, &unfinished.target).map_err(failed)?;
        }
        Ok(())
    }
}

/// Creates a file that only its owner may open, under an unused name in the target's folder.
fn temporary_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    let mut count = 0;
    loop {
        // The target's name may have the maximum length, so the temporary name does not contain it.
        let temporary = target.with_file_name(format!(".kvctl-{}-{count}.partial", std::process::id()));
        match File::options().write(true).create_new(true).mode(0o600).open(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
            result => return result.map(|file| (temporary, file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_complete_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let db = Db::in_memory().unwrap();
        let mut output = Output::file(&path, &db).unwrap();
        output.write(b"half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        fs::write(&path, "before").unwrap();
        let mut output = Output::file(&path, &db).unwrap();
        output.write(b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before");
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
