//! `del`: deletes one key, or all keys of a range, in one transaction.

use std::ffi::OsString;

use mapleaf::Db;

use crate::cmd::args::{Encoding, ExistingFile, KeyRange, TableName};
use crate::database::any_table::AnyTableMut;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::{Column, Columns};
use crate::numbers;
use crate::terminal::output;

const EXAMPLES: &str = "\
Examples:
  kvctl del app.mapleaf ada
  kvctl del app.mapleaf --hex 00ff -t blobs
  kvctl del app.mapleaf --prefix session: --to session:2026

Deletes the KEY, in a multimap table with all its values or only VALUE, or all keys that satisfy --prefix, --from and --to,
which are text of keys as in scan; of a range, it prints the number of deleted entries to standard error. Exits with 1 if
there is no such key; then it changes nothing and creates no file. 'kvctl tables clear' deletes all entries of a table.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    /// Key, as text of its type
    #[arg(allow_negative_numbers = true, required_unless_present_any = ["prefix", "from", "to"])]
    #[arg(conflicts_with_all = ["prefix", "from", "to"])]
    key: Option<OsString>,
    /// Value of a multimap table, as text of its type: delete only this value of the key
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    #[command(flatten)]
    range: KeyRange,
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
        let deleted = self.delete(&db).map_err(|failure| failure.of_file(&self.file.path))?;
        if deleted == 0 {
            output::error(&format!("{}: no such key in table '{}'", self.file.path.display(), self.table.name));
            return Ok(Exit::No);
        }
        if self.key.is_none() {
            output::message(&format!("deleted {}", numbers::count(deleted, "entry")));
        }
        Ok(Exit::Done)
    }

    /// Returns the number of deleted entries.
    fn delete(&self, db: &Db) -> Result<u64, Failure> {
        let mut txn = db.begin_write()?;
        let columns = Columns::of_write(&mut txn, &self.table.name)?;
        let column = &columns.key;
        let deleted = match &self.key {
            Some(key) => {
                let key = column.to_compare(self.encoding, key)?;
                self.delete_key(&mut AnyTableMut::open(&txn, &self.table.name)?, &key, &columns.value)?
            }
            None => {
                let span = self.range.span(column, self.encoding)?;
                if span.is_all() {
                    return Err(Failure::usage("this range has all keys; 'kvctl tables clear' deletes all entries"));
                }
                match span.is_empty() {
                    true => 0,
                    false => AnyTableMut::open(&txn, &self.table.name)?.delete_range(span.bounds())?,
                }
            }
        };
        // Without a commit, a missing table is not created.
        if deleted > 0 {
            txn.commit()?;
        }
        Ok(deleted)
    }

    /// Deletes the key, or one of its values. Returns the number of deleted entries.
    fn delete_key(&self, table: &mut AnyTableMut<'_>, key: &[u8], column: &Column) -> Result<u64, Failure> {
        let Some(value) = &self.value else { return Ok(table.delete(key)?) };
        let value = column.to_compare(self.encoding, value)?;
        match table.delete_value(key, &value)? {
            Some(deleted) => Ok(u64::from(deleted)),
            None => Err(Failure::usage(format!(
                "table '{}' is no multimap, so a key has one value; leave VALUE out",
                self.table.name
            ))),
        }
    }
}
