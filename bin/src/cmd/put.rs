//! `put`: one value under one key, in a transaction of its own.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::bytes::Encoding;
use crate::exit::{Exit, Failure, Outcome};
use crate::store::{self, TableName};

const EXAMPLES: &str = "\
Examples:
  kvctl put app.mapleaf ada 'Ada Lovelace'
  kvctl put app.mapleaf logo @logo.png
  date | kvctl put app.mapleaf last-run -
  kvctl put app.mapleaf --hex 00ff c0ffee

What comes from standard input or a file is taken as it is, a final line feed included. A value that is itself '-' or
starts with '@' goes through standard input. What else starts with '-' goes behind '--'.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database; made where there is none
    file: PathBuf,
    /// Key
    key: OsString,
    /// Value, '-' for standard input, or '@PATH' for the bytes of a file
    value: OsString,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let key = self.encoding.decode(&self.key)?;
        let value = self.encoding.decode_value(&self.value)?;
        let db = store::open_to_write(&self.file)?;
        let put = || -> mapleaf::Result<()> {
            let mut txn = db.begin_write()?;
            txn.bytes_table(&self.table.table)?.insert(key.as_slice(), value.as_slice())?;
            txn.commit()
        };
        put().map_err(|error| Failure::of_database(error, &self.file))?;
        Ok(Exit::Done)
    }
}
