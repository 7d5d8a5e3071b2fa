//! The arguments that several verbs share, each defined once. A verb takes a block of them with
//! `#[command(flatten)]`.
//!
//! ```text
//! ExistingFile  FILE of a verb that needs a database
//! CreatedFile   FILE of a verb that creates a missing database
//! NewFile       OUT of a verb that writes a copy of a database
//! Key           KEY
//! TableName     -t NAME
//! Encoding      --hex and --base64, from `format::bytes`, which decodes and writes such text
//! KeyRange      --prefix, --from and --to
//! GivenValue    VALUE: an argument, standard input, or the content of a file
//! AtSnapshot    --snapshot
//! MaxLine       --max-line
//! RowFormat     --format
//! KeepFile      --keep
//! Answer        --json
//! Accepted      --yes
//! ```
//!
//! The parsers of numbers as arguments are in `numbers`.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use mapleaf::{Db, ReadTxn};

use crate::exit::Failure;
pub(crate) use crate::format::bytes::Encoding;
use crate::format::columns::{Column, Field};
use crate::format::input::Format;
use crate::format::span::Span;
use crate::numbers;

/// FILE of a verb that needs a database.
#[derive(clap::Args, Debug)]
pub(crate) struct ExistingFile {
    /// Database
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
}

/// FILE of a verb that creates a missing database.
#[derive(clap::Args, Debug)]
pub(crate) struct CreatedFile {
    /// Database; created if missing
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
}

/// OUT of a verb that writes a copy of a database.
#[derive(clap::Args, Debug)]
pub(crate) struct NewFile {
    /// New database
    #[arg(id = "out", value_name = "OUT")]
    pub(crate) path: PathBuf,
}

/// KEY of a verb that works on one entry.
#[derive(clap::Args, Debug)]
pub(crate) struct Key {
    /// Key, as text of its type
    #[arg(id = "key", value_name = "KEY", allow_negative_numbers = true)]
    pub(crate) text: OsString,
}

/// `--prefix`, `--from` and `--to`: the range of keys that a verb works on.
#[derive(clap::Args, Debug)]
pub(crate) struct KeyRange {
    /// Only keys that start with P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    prefix: Option<OsString>,
    /// Only keys from A on
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    from: Option<OsString>,
    /// Only keys before B
    #[arg(long, value_name = "B", allow_negative_numbers = true)]
    to: Option<OsString>,
}

impl KeyRange {
    /// Whether any bound is given.
    pub(crate) fn is_given(&self) -> bool {
        self.prefix.is_some() || self.from.is_some() || self.to.is_some()
    }

    /// The stored keys that satisfy all bounds that are given.
    pub(crate) fn span(&self, column: &Column, encoding: Encoding) -> Result<Span, Failure> {
        let bound = |argument: &Option<OsString>| {
            argument.as_deref().map(|argument| column.to_compare(encoding, argument)).transpose()
        };
        let prefix = self.prefix.as_deref().map(|argument| column.prefix(encoding, argument)).transpose()?;
        Ok(Span::new(prefix, bound(&self.from)?, bound(&self.to)?))
    }
}

/// VALUE, read from the argument, from standard input or from a file.
#[derive(Debug)]
pub(crate) struct GivenValue {
    bytes: Vec<u8>,
    is_stored: bool,
    is_stream: bool,
}

impl GivenValue {
    /// Reads a value. With `raw`, its bytes are stored unchanged.
    pub(crate) fn read(argument: &OsStr, encoding: Encoding, raw: bool) -> Result<GivenValue, Failure> {
        let decoding = if raw { Encoding::default() } else { encoding };
        Ok(GivenValue {
            bytes: decoding.decode_value(argument)?,
            is_stored: raw || encoding.is_digits(),
            is_stream: matches!(argument.as_encoded_bytes(), b"-" | [b'@', ..]),
        })
    }

    /// The bytes to store in a column.
    pub(crate) fn stored(&self, column: &Column) -> Result<Cow<'_, [u8]>, Failure> {
        column.stored(match self.is_stored {
            true => Field::Stored(&self.bytes),
            false => Field::Text(self.without_line_feed(column)),
        })
    }

    /// Removes the line feed at the end of a file or of standard input, if no text of the type can
    /// end in one.
    fn without_line_feed(&self, column: &Column) -> &[u8] {
        match self.bytes.strip_suffix(b"\n") {
            Some(line) if self.is_stream && column.item_type().is_one_line() => {
                line.strip_suffix(b"\r").unwrap_or(line)
            }
            _ => &self.bytes,
        }
    }
}

/// `--snapshot`: the named snapshot that a verb reads.
#[derive(clap::Args, Debug)]
pub(crate) struct AtSnapshot {
    /// Read a named snapshot instead of the newest state
    #[arg(long = "snapshot", value_name = "NAME")]
    name: Option<String>,
}

impl AtSnapshot {
    /// Begins to read the snapshot, or the newest state.
    pub(crate) fn begin(&self, db: &Db) -> mapleaf::Result<ReadTxn> {
        match &self.name {
            Some(name) => db.read_snapshot(name),
            None => db.begin_read(),
        }
    }
}

/// `--max-line`: the length of a line of the input.
#[derive(clap::Args, Debug)]
pub(crate) struct MaxLine {
    /// Maximum length of a line; K, M and G are powers of 1024
    #[arg(long = "max-line", value_name = "BYTES", default_value = "256M", value_parser = numbers::size::<1>)]
    pub(crate) bytes: u64,
}

/// `-t NAME`: the table of a verb.
#[derive(clap::Args, Debug)]
pub(crate) struct TableName {
    /// Table to work on
    #[arg(id = "table", short = 't', long = "table", value_name = "NAME", default_value = "main")]
    pub(crate) name: String,
}

/// `--format`: the format of the rows that a verb reads or writes.
#[derive(clap::Args, Debug)]
pub(crate) struct RowFormat {
    /// Format of the rows
    #[arg(long = "format", value_enum)]
    pub(crate) format: Option<Format>,
}

/// `--keep`: whether the database that a verb creates for itself stays.
#[derive(clap::Args, Debug)]
pub(crate) struct KeepFile {
    /// Keep a new file at the end
    #[arg(long = "keep")]
    pub(crate) keep: bool,
}

/// `--json`: whether a verb prints its answer as text or as JSON.
#[derive(clap::Args, Debug)]
pub(crate) struct Answer {
    /// Print one JSON object
    #[arg(long = "json")]
    pub(crate) json: bool,
}

/// `--yes`: whether a verb discards data without asking.
#[derive(clap::Args, Debug)]
pub(crate) struct Accepted {
    /// Accept the loss without asking
    #[arg(long = "yes")]
    pub(crate) yes: bool,
}
