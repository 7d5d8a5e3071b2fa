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
//! RowFormat     --format
//! KeepFile      --keep
//! Answer        --json
//! ```
//!
//! The parsers of numbers as arguments are in `numbers`.

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use crate::format::bytes::Encoding;
use crate::format::input::Format;

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
