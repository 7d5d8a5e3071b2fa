//! `del`: deletes one key, in one transaction.

use std::ffi::OsString;
use std::path::PathBuf;

use mapleaf::Db;

use crate::database::open::{self, TableName};
use crate::exit::{Exit, Failure, Outcome};
use crate::format::bytes::Encoding;
use crate::format::columns::Columns;
use crate::terminal::output;

const EXAMPLES: &str = "\
Examples:
  kvctl del app.mapleaf ada
  kvctl del app.mapleaf --hex 00ff -t blobs

Exits with 1 if the key is absent; then it changes nothing and creates no file.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database
    file: PathBuf,
    /// Key, as text of its type
    #[arg(allow_negative_numbers = true)]
    key: OsString,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let Some(db) = open::if_exists(&self.file)? else {
            let path = self.file.display();
            output::error(&format!("{path}: no such key, because there is no such file; check the path"));
            return Ok(Exit::No);
        };
        if self.delete(&db).map_err(|failure| failure.of_file(&self.file))? {
            return Ok(Exit::Done);
        }
        output::error(&format!("{}: no such key in table '{}'", self.file.display(), self.table.table));
        Ok(Exit::No)
    }

    fn delete(&self, db: &Db) -> Result<bool, Failure> {
        let mut txn = db.begin_write()?;
        let key = Columns::of_write(&mut txn, &self.table.table)?.key.to_compare(self.encoding, &self.key)?;
        let was_there = txn.bytes_table(&self.table.table)?.delete(key.as_slice())?;
        // Without the commit, a missing table is not created either.
        if was_there {
            txn.commit()?;
        }
        Ok(was_there)
    }
}
