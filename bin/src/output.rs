//! What `kvctl` writes: rows and answers to standard output or a file, notes and complaints to standard error.
//!
//! Nothing here panics when the other end is closed, as `println!` would. Output to a file is complete or absent: it
//! goes to a temporary file beside it, which takes its name when all is written (devices and pipes are written
//! directly).

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::exit::Failure;

const BUFFER_BYTES: usize = 256 * 1024;

/// Writes one line of complaint to standard error.
pub(crate) fn complain(text: &str) {
    note(&format!("kvctl: {text}"));
}

/// Writes one line that is no complaint to standard error: in one piece, as other processes may write there too.
pub(crate) fn note(text: &str) {
    let mut line = one_line(text);
    line.push('\n');
    io::stderr().lock().write_all(line.as_bytes()).ok();
}

/// Text without control characters, which may come from names of files and tables and would break the line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Where rows and answers go.
pub(crate) struct Output {
    sink: BufWriter<Box<dyn Write>>,
    /// For error texts.
    name: String,
    /// A temporary file that takes the name of the target at the end.
    unfinished: Option<Unfinished>,
}

struct Unfinished {
    temporary: PathBuf,
    target: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when it got its name; otherwise nothing is left of an output that was not completed.
        fs::remove_file(&self.temporary).ok();
    }
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Output {
        Output::to(Box::new(io::stdout().lock()), "standard output", None)
    }

    /// A file, replaced when it exists.
    pub(crate) fn file(target: &Path) -> Result<Output, Failure> {
        let name = target.display().to_string();
        let failed = |error: io::Error| Failure::writing(&name, &error);
        // A link is followed, so that it stays a link.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
        if fs::metadata(&target).is_ok_and(|meta| !meta.is_file()) {
            let file = File::options().write(true).open(&target).map_err(failed)?;
            return Ok(Output::to(Box::new(file), &name, None));
        }
        // The name of the target may be as long as names can be, so it is no part of this one.
        let temporary = target.with_file_name(format!(".kvctl-{}.partial", std::process::id()));
        let file = File::create(&temporary).map_err(failed)?;
        Ok(Output::to(Box::new(file), &name, Some(Unfinished { temporary, target })))
    }

    fn to(sink: Box<dyn Write>, name: &str, unfinished: Option<Unfinished>) -> Output {
        Output { sink: BufWriter::with_capacity(BUFFER_BYTES, sink), name: name.to_string(), unfinished }
    }

    /// Whether this is a file that does not have its name yet.
    pub(crate) fn is_unfinished_file(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sink.write_all(bytes).map_err(|error| Failure::writing(&self.name, &error))
    }

    /// Writes what is still buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.sink.flush().map_err(|error| Failure::writing(&self.name, &error))
    }

    /// Writes what is still buffered and gives a file its name. Without this call a file does not come to be.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_break_the_line() {
        assert_eq!(one_line("a\nb\r\u{1b}[c \u{e4}"), "a\\nb\\r\\u{1b}[c \u{e4}");
    }

    #[test]
    fn a_file_is_complete_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut output = Output::file(&path).unwrap();
        output.write(b"half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        fs::write(&path, "before").unwrap();
        let mut output = Output::file(&path).unwrap();
        output.write(b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before");
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
