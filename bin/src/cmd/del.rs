//! `del`: takes one key away, in a transaction of its own.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::bytes::Encoding;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::store::{self, TableName};

const EXAMPLES: &str = "\
Examples:
  kvctl del app.mapleaf ada
  kvctl del app.mapleaf --hex 00ff -t blobs

Exits with 1 when the key is absent; nothing is changed then.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database; made where there is none
    file: PathBuf,
    /// Key
    key: OsString,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let key = self.encoding.decode(&self.key)?;
        let db = store::open_to_write(&self.file)?;
        let delete = || -> mapleaf::Result<bool> {
            let mut txn = db.begin_write()?;
            let was_there = txn.bytes_table(&self.table.table)?.remove(key.as_slice())?.is_some();
            // Without a commit a table that was not there is not made either.
            if was_there {
                txn.commit()?;
            }
            Ok(was_there)
        };
        if delete().map_err(|error| Failure::of_database(error, &self.file))? {
            return Ok(Exit::Done);
        }
        output::complain(&format!("{}: no such key in table '{}'", self.file.display(), self.table.table));
        Ok(Exit::No)
    }
}
