//! Rows that come in: the format of a file, its lines, and what can be wrong with them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::columns::Given;
use crate::exit::{Exit, Failure};
use crate::{jsonl, tsv};

const BUFFER_BYTES: usize = 256 * 1024;
/// What some programs put before UTF-8 text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How rows are written.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// key TAB value LF
    Tsv,
    /// {"key": "..", "value": ".."}
    Jsonl,
}

impl Format {
    /// The format that was asked for, else the one that the name of the file says, else none.
    pub(crate) fn choose(asked: Option<Format>, file: &Path) -> Result<Format, Failure> {
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match (asked, extension.as_deref()) {
            (Some(format), _) => Ok(format),
            (None, Some("tsv")) => Ok(Format::Tsv),
            (None, Some("jsonl")) => Ok(Format::Jsonl),
            (None, _) => Err(Failure::usage(format!(
                "{}: the name does not say the format (.tsv or .jsonl); add --format tsv or --format jsonl",
                file.display()
            ))),
        }
    }
}

/// One row of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row<'a> {
    /// The table that the row names itself.
    pub(crate) table: Option<&'a str>,
    pub(crate) key: Given<'a>,
    pub(crate) value: Given<'a>,
}

/// A table that the input declares: its types, and that the rows after it go there unless they name
/// another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Declared {
    pub(crate) table: String,
    /// Names of codecs; empty for none.
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Why there is no next row.
#[derive(Debug)]
pub(crate) enum RowError {
    /// A line that is no row.
    Malformed { line: u64, what: String },
    /// The input could not be read.
    Read(io::Error),
}

impl RowError {
    /// The failure, for the input of this name.
    pub(crate) fn of_input(self, name: &str) -> Failure {
        match self {
            RowError::Malformed { line, what } => {
                Failure::new(Exit::Input, format!("{name}: line {line}: {what}; mend the line and load again"))
            }
            RowError::Read(error) => Failure::reading(name, &error),
        }
    }
}

/// Lines of a stream, one at a time, in a buffer that is used again. A line over the limit is not
/// held: an input without line ends would take all memory. A byte order mark before the first line
/// is skipped.
pub(crate) struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
    limit: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of at most `limit` bytes, their ends not counted.
    pub(crate) fn new(input: R, limit: u64) -> Lines<R> {
        Lines { input, line: Vec::new(), number: 0, limit }
    }

    /// Goes to the next line; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, RowError> {
        self.line.clear();
        // The byte after the longest line has to be its end.
        let mut input = self.input.by_ref().take(self.limit.saturating_add(1));
        if input.read_until(b'\n', &mut self.line).map_err(RowError::Read)? == 0 {
            return Ok(false);
        }
        self.number += 1;
        if self.line.last() != Some(&b'\n') && self.line.len() as u64 > self.limit {
            let limit = self.limit;
            return Err(
                self.malformed(format!("the line has more than {limit} bytes; if that is right, raise --max-line"))
            );
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
        }
        Ok(true)
    }

    /// The current line without its end.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    pub(crate) fn line_mut(&mut self) -> &mut [u8] {
        &mut self.line
    }

    /// The number of the current line, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Says that the current line is no row.
    pub(crate) fn malformed(&self, what: impl Into<String>) -> RowError {
        RowError::Malformed { line: self.number, what: what.into() }
    }
}

/// Rows of either format.
pub(crate) enum Rows<R> {
    Tsv(tsv::Reader<R>),
    Jsonl(jsonl::Reader<R>),
}

impl<R: BufRead> Rows<R> {
    pub(crate) fn new(format: Format, input: R, line_limit: u64) -> Rows<R> {
        match format {
            Format::Tsv => Rows::Tsv(tsv::Reader::new(input, line_limit)),
            Format::Jsonl => Rows::Jsonl(jsonl::Reader::new(input, line_limit)),
        }
    }

    /// Goes to the next row or declaration; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, RowError> {
        match self {
            Rows::Tsv(reader) => reader.advance(),
            Rows::Jsonl(reader) => reader.advance(),
        }
    }

    /// The declaration that [`Rows::advance`] went to, unless it was a row.
    pub(crate) fn declared(&self) -> Option<&Declared> {
        match self {
            Rows::Tsv(reader) => reader.declared(),
            Rows::Jsonl(reader) => reader.declared(),
        }
    }

    /// The row that [`Rows::advance`] went to.
    pub(crate) fn row(&self) -> Row<'_> {
        match self {
            Rows::Tsv(reader) => reader.row(),
            Rows::Jsonl(reader) => reader.row(),
        }
    }

    /// The number of the current line, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        match self {
            Rows::Tsv(reader) => reader.line_number(),
            Rows::Jsonl(reader) => reader.line_number(),
        }
    }
}

/// An opened input.
pub(crate) struct Source {
    pub(crate) input: Box<dyn Read>,
    /// For error texts.
    pub(crate) name: String,
    pub(crate) format: Format,
    /// Its length, when it is a regular file.
    pub(crate) bytes: Option<u64>,
}

impl Source {
    /// Opens a file, or standard input for none and for `-`. Standard input is TSV unless something
    /// else was asked.
    pub(crate) fn open(path: Option<&Path>, asked: Option<Format>) -> Result<Source, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            let format = asked.unwrap_or(Format::Tsv);
            refuse_closed_stdin()?;
            let input = Box::new(io::stdin().lock());
            return Ok(Source { input, name: "standard input".to_string(), format, bytes: None });
        };
        let name = path.display().to_string();
        if path.is_dir() {
            return Err(directory(&name));
        }
        let kind = fs::metadata(path).map_err(|error| Failure::reading(&name, &error))?.file_type();
        let format = match Format::choose(asked, path) {
            // It has no name that somebody chose.
            Err(_) if !kind.is_file() || path == Path::new("/dev/stdin") => Format::Tsv,
            chosen => chosen?,
        };
        let file = open_file(path)?;
        let bytes = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
        Ok(Source { input: Box::new(file), name, format, bytes })
    }
}

/// Opens an input file.
pub(crate) fn open_file(path: &Path) -> Result<File, Failure> {
    let name = path.display().to_string();
    if path.is_dir() {
        return Err(directory(&name));
    }
    File::open(path).map_err(|error| Failure::reading(&name, &error))
}

fn directory(name: &str) -> Failure {
    Failure::usage(format!("{name}: is a folder; name a file in it"))
}

/// Refuses a standard input that was closed (`<&-`), so that its absence is not taken for an empty
/// value or no rows. The standard library puts the null device in its place, open for reading and
/// writing; `</dev/null` opens it for reading.
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

/// A buffer for input, large enough that reading is rarely asked of the system.
pub(crate) fn buffered<R: Read>(input: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER_BYTES, input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_asked_for_or_in_the_name() {
        for (asked, file, format) in [
            (None, "a.tsv", Format::Tsv),
            (None, "a.JSONL", Format::Jsonl),
            (Some(Format::Jsonl), "a.tsv", Format::Jsonl),
            (Some(Format::Tsv), "a", Format::Tsv),
        ] {
            assert_eq!(Format::choose(asked, Path::new(file)).unwrap(), format);
        }
        for file in ["a", "a.txt", ".tsv", "tsv"] {
            assert_eq!(Format::choose(None, Path::new(file)).unwrap_err().exit, Exit::Usage);
        }
    }
}
