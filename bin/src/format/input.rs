//! Opens the input of `load`, chooses its format, and reads rows of either format.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::exit::Failure;
use crate::format::files::{self, open_file, refuse_closed_stdin};
use crate::format::jsonl;
use crate::format::rows::{Row, RowError, TableDeclaration};
use crate::format::tsv;

const BUFFER_BYTES: usize = 256 * 1024;

/// The format of rows.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// key TAB value LF
    Tsv,
    /// {"key": "..", "value": ".."}
    Jsonl,
}

impl Format {
    /// The format of `--format`, or else that of the file's extension.
    pub(crate) fn choose(requested: Option<Format>, file: &Path) -> Result<Format, Failure> {
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match (requested, extension.as_deref()) {
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

    /// Moves to the next row or declaration; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, RowError> {
        match self {
            Rows::Tsv(reader) => reader.advance(),
            Rows::Jsonl(reader) => reader.advance(),
        }
    }

    /// The current declaration, if [`Rows::advance`] moved to one.
    pub(crate) fn declared(&self) -> Option<&TableDeclaration> {
        match self {
            Rows::Tsv(reader) => reader.declared(),
            Rows::Jsonl(reader) => reader.declared(),
        }
    }

    /// The current row, to which [`Rows::advance`] moved.
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
    /// The name of the input, for error texts.
    pub(crate) name: String,
    pub(crate) format: Format,
    /// The length of a regular file.
    pub(crate) bytes: Option<u64>,
}

impl Source {
    /// Opens a file; `None` and `-` are standard input. Standard input is TSV unless `--format` is
    /// given.
    pub(crate) fn open(path: Option<&Path>, requested: Option<Format>) -> Result<Source, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            let format = requested.unwrap_or(Format::Tsv);
            refuse_closed_stdin()?;
            let input = Box::new(io::stdin().lock());
            return Ok(Source { input, name: "standard input".to_string(), format, bytes: None });
        };
        let name = path.display().to_string();
        if path.is_dir() {
            return Err(files::directory(&name));
        }
        let kind = fs::metadata(path).map_err(|error| Failure::reading(&name, &error))?.file_type();
        let format = match Format::choose(requested, path) {
            // Pipes and /dev/stdin have no extension that tells the format.
            Err(_) if !kind.is_file() || path == Path::new("/dev/stdin") => Format::Tsv,
            chosen => chosen?,
        };
        let file = open_file(path)?;
        let bytes = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
        Ok(Source { input: Box::new(file), name, format, bytes })
    }
}

/// Buffers an input. A large buffer saves system calls.
pub(crate) fn buffered<R: Read>(input: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER_BYTES, input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn the_format_comes_from_the_option_or_the_extension() {
        for (requested, file, format) in [
            (None, "a.tsv", Format::Tsv),
            (None, "a.JSONL", Format::Jsonl),
            (Some(Format::Jsonl), "a.tsv", Format::Jsonl),
            (Some(Format::Tsv), "a", Format::Tsv),
        ] {
            assert_eq!(Format::choose(requested, Path::new(file)).unwrap(), format);
        }
        for file in ["a", "a.txt", ".tsv", "tsv"] {
            assert_eq!(Format::choose(None, Path::new(file)).unwrap_err().exit, Exit::Usage);
        }
    }
}
