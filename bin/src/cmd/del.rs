//! `del`: deletes one key, in one transaction.

use mapleaf::Db;

use crate::cmd::args::{Encoding, ExistingFile, Key, TableName};
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
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
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    key: Key,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let Some(db) = open::if_exists(&self.file.path)? else {
            let path = self.file.path.display();
            output::error(&format!("{path}: no such key, because there is no such file; check the path"));
            return Ok(Exit::No);
        };
        if self.delete(&db).map_err(|failure| failure.of_file(&self.file.path))? {
            return Ok(Exit::Done);
        }
        output::error(&format!("{}: no such key in table '{}'", self.file.path.display(), self.table.name));
        Ok(Exit::No)
    }

    fn delete(&self, db: &Db) -> Result<bool, Failure> {
        let mut txn = db.begin_write()?;
        let key = Columns::of_write(&mut txn, &self.table.name)?.key.to_compare(self.encoding, &self.key.text)?;
        let was_there = txn.bytes_table(&self.table.name)?.delete(key.as_slice())?;
        // Without a commit, a missing table is not created.
        if was_there {
            txn.commit()?;
        }
        Ok(was_there)
    }
}
