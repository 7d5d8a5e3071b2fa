//! `put`: one value under one key, in a transaction of its own.

use std::ffi::OsString;
use std::path::PathBuf;

use mapleaf::Db;

use crate::database::open::{self, TableName};
use crate::exit::{Exit, Failure, Outcome};
use crate::format::bytes::Encoding;
use crate::format::columns::{Column, Columns, Field};

const EXAMPLES: &str = "\
Examples:
  kvctl put app.mapleaf ada 'Ada Lovelace'
  kvctl put app.mapleaf logo @logo.png
  date | kvctl put app.mapleaf last-run -
  kvctl put app.mapleaf -t born grace 1906
  kvctl put app.mapleaf --hex 00ff c0ffee

KEY and VALUE are text of the types of the table, which 'kvctl tables' shows and 'kvctl help' describes; a table that
does not exist is made without types. What the codec of the table does not decode is refused, also with --hex, --base64
and --raw. What comes from standard input or a file is taken as it is; of numbers and other types of one line, a final line
feed is left out. A value that is itself '-' or
starts with '@' goes through standard input. What else starts with '-' goes behind '--'.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database; made where there is none
    file: PathBuf,
    /// Key
    #[arg(allow_negative_numbers = true)]
    key: OsString,
    /// Value, '-' for standard input, or '@PATH' for the content of a file
    #[arg(allow_negative_numbers = true)]
    value: OsString,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
    /// VALUE is the bytes to store: no text of its type, and no digits whatever the key is
    #[arg(long)]
    raw: bool,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let key = self.encoding.decode(&self.key)?;
        let encoding = if self.raw { Encoding::default() } else { self.encoding };
        let value = encoding.decode_value(&self.value)?;
        let db = open::or_make(&self.file)?;
        self.put(&db, &key, &value).map_err(|failure| failure.of_file(&self.file))?;
        Ok(Exit::Done)
    }

    fn put(&self, db: &Db, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut txn = db.begin_write()?;
        let columns = Columns::of_write(&mut txn, &self.table.table)?;
        let is_bytes = self.encoding.is_digits();
        let key = columns.key.stored(if is_bytes { Field::Stored(key) } else { Field::Text(key) })?;
        let value = match is_bytes || self.raw {
            true => Field::Stored(value),
            false => Field::Text(self.without_line_feed(value, &columns.value)),
        };
        let value = columns.value.stored(value)?;
        txn.bytes_table(&self.table.table)?.put(&key, &value)?;
        Ok(txn.commit()?)
    }

    /// The value without the line feed that ends a file or what a command prints, where no text of
    /// the type has one.
    fn without_line_feed<'v>(&self, value: &'v [u8], column: &Column) -> &'v [u8] {
        let is_stream = matches!(self.value.as_encoded_bytes(), b"-" | [b'@', ..]);
        match value.strip_suffix(b"\n") {
            Some(line) if is_stream && column.of().is_one_line() => line.strip_suffix(b"\r").unwrap_or(line),
            _ => value,
        }
    }
}
