//! `txn`: a batch of checks and changes, applied whole or not at all.
//!
//! The whole batch is read before the database is opened, so no process waits for a slow sender,
//! and a malformed line creates no file.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use mapleaf::WriteTxn;

use crate::cmd::args::{CreatedFile, MaxLine, TableName};
use crate::database::any_table::AnyTableMut;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::batch::{self, Operation, Step};
use crate::format::columns::{Column, Columns, OwnedField};
use crate::format::files;
use crate::format::input;
use crate::format::rows::RowError;
use crate::terminal::output;

const EXAMPLES: &str = "\
Examples:
  kvctl txn app.mapleaf batch.tsv
  printf 'check\\tleader\\thost-1\\nput\\tleader\\thost-2\\ndel\\tlock\\n' | kvctl txn app.mapleaf

INPUT has one operation a line, with a tab before each field, and the escapes of load:

  put    KEY  VALUE   store a value; in a multimap table, add it to those of the key
  del    KEY          delete a key, if it exists, with all its values
  del    KEY  VALUE   of a multimap table: delete this value of the key, if it has it
  check  KEY  VALUE   go on only if the key has this value (a multimap table: among others)
  check  KEY          go on only if there is no such key
  table  NAME         the lines after this one are about this table

The lines are applied in order, and each sees the changes of those before it; all of them are one transaction. If a check
fails, txn exits with 1 and names its line; a malformed line, or text that does not fit its type, ends it with 65. Then
nothing is changed, and no file is created. Keys and values are text of the types of their table; after \\! they are bytes.
The batch is held in memory. Lines that start with # are skipped.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: CreatedFile,
    /// File with the batch; standard input if missing or '-'
    input: Option<PathBuf>,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    max_line: MaxLine,
}

/// Why a batch ends before its last line.
enum Stop {
    /// The check at this line has failed.
    Check(u64, &'static str),
    Failed(Failure),
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let (name, steps) = self.read()?;
        let db = open::or_create(&self.file.path)?;
        let mut txn = db.begin_write().map_err(|error| Failure::of_database(error, &self.file.path))?;
        let mut batch = Batch { path: &self.file.path, input: &name, table: self.table.name.clone(), columns: None };
        let changes = match batch.apply(&mut txn, &steps) {
            Ok(changes) => changes,
            Err(Stop::Failed(failure)) => return Err(failure.append("nothing was changed")),
            Err(Stop::Check(line, what)) => {
                let path = self.file.path.display();
                output::error(&format!("{path}: {name}: line {line}: {what}; nothing was changed"));
                return Ok(Exit::No);
            }
        };
        // Without a change there is nothing to commit, and no file to create.
        if changes > 0 {
            txn.commit().map_err(|error| Failure::of_database(error, &self.file.path))?;
        }
        Ok(Exit::Done)
    }

    /// Reads the batch. Returns the name of the input too.
    fn read(&self) -> Result<(String, Vec<Step>), Failure> {
        let path = self.input.as_deref().filter(|path| *path != Path::new("-"));
        let name = path.map_or("standard input".to_string(), |path| path.display().to_string());
        let limit = self.max_line.bytes;
        let read = match path {
            Some(path) => batch::read(input::buffered(files::open_file(path)?), limit),
            None => {
                files::refuse_closed_stdin()?;
                batch::read(input::buffered(io::stdin().lock()), limit)
            }
        };
        let steps = read.map_err(|error| match error {
            RowError::Malformed { line, what } => {
                Failure::new(Exit::Input, format!("{name}: line {line}: {what}; nothing was changed"))
            }
            RowError::Read(error) => Failure::reading(&name, &error),
        })?;
        Ok((name, steps))
    }
}

/// The state of a batch.
struct Batch<'a> {
    path: &'a Path,
    input: &'a str,
    /// The table that lines are about.
    table: String,
    /// Its columns, and whether it exists.
    columns: Option<(Columns, bool)>,
}

impl Batch<'_> {
    /// Applies all operations. Returns the number of changes.
    fn apply(&mut self, txn: &mut WriteTxn, steps: &[Step]) -> Result<u64, Stop> {
        let mut changes = 0;
        for step in steps {
            let (columns, exists) = match self.columns.take() {
                Some(known) => known,
                None => self.find_table(txn, step.line)?,
            };
            let mut exists = exists;
            match &step.operation {
                Operation::Table { name } => {
                    self.table.clone_from(name);
                    continue;
                }
                Operation::Put { key, value } => {
                    let key = self.stored(&columns.key, key, step.line)?;
                    let value = self.stored(&columns.value, value, step.line)?;
                    let put = AnyTableMut::open(txn, &self.table).and_then(|mut table| table.put(&key, &value));
                    put.map_err(|error| self.at_line(error, step.line))?;
                    (exists, changes) = (true, changes + 1);
                }
                Operation::Del { key, value } => {
                    let key = self.stored(&columns.key, key, step.line)?;
                    let value = value.as_ref().map(|value| self.stored(&columns.value, value, step.line));
                    let value = value.transpose()?;
                    if exists {
                        changes += self.delete(txn, &key, value.as_deref(), step.line)?;
                    }
                }
                Operation::Check { key, value } => {
                    let key = self.stored(&columns.key, key, step.line)?;
                    let expected = value.as_ref().map(|value| self.stored(&columns.value, value, step.line));
                    let expected = expected.transpose()?;
                    self.check(txn, exists, &key, expected.as_deref(), step.line)?;
                }
            }
            self.columns = Some((columns, exists));
        }
        Ok(changes)
    }

    fn find_table(&self, txn: &mut WriteTxn, line: u64) -> Result<(Columns, bool), Stop> {
        let info = txn.table_info(&self.table).map_err(|error| self.at_line(error, line))?;
        Ok((Columns::new(&self.table, info.as_ref()), info.is_some()))
    }

    fn check(
        &self,
        txn: &mut WriteTxn,
        exists: bool,
        key: &[u8],
        expected: Option<&[u8]>,
        line: u64,
    ) -> Result<(), Stop> {
        if !exists {
            return expected.map_or(Ok(()), |_| Err(Stop::Check(line, "there is no such key")));
        }
        let checked = AnyTableMut::open(txn, &self.table)
            .and_then(|table| Ok((table.has(key, expected)?, table.has(key, None)?, table.is_multimap())));
        let (is_met, has_key, is_multimap) = checked.map_err(|error| self.at_line(error, line))?;
        match (expected, is_met, has_key) {
            (None, false, _) | (Some(_), true, _) => Ok(()),
            (None, true, _) => Err(Stop::Check(line, "the key exists")),
            (Some(_), false, false) => Err(Stop::Check(line, "there is no such key")),
            (Some(_), false, true) if is_multimap => Err(Stop::Check(line, "the key does not have this value")),
            (Some(_), false, true) => Err(Stop::Check(line, "the key has another value")),
        }
    }

    /// Deletes a key, or one of its values. Returns the number of deleted entries.
    fn delete(&self, txn: &mut WriteTxn, key: &[u8], value: Option<&[u8]>, line: u64) -> Result<u64, Stop> {
        let deleted = AnyTableMut::open(txn, &self.table).and_then(|mut table| match value {
            Some(value) => Ok(table.delete_value(key, value)?.map(u64::from)),
            None => table.delete(key).map(Some),
        });
        deleted.map_err(|error| self.at_line(error, line))?.ok_or_else(|| {
            let what = format!(
                "{}: line {line}: table '{}' is no multimap, so a key has one value; leave the value out",
                self.input, self.table
            );
            Stop::Failed(Failure::new(Exit::Usage, what).of_file(self.path))
        })
    }

    /// The bytes to store for a field. Text that does not fit is an error of the line.
    fn stored<'f>(&self, column: &Column, field: &'f OwnedField, line: u64) -> Result<Cow<'f, [u8]>, Stop> {
        column.stored(field.borrowed()).map_err(|failure| {
            let exit = if column.item_type().is_known() { Exit::Input } else { failure.exit };
            let failure = Failure { exit, ..failure };
            Stop::Failed(failure.prepend(&format!("{}: line {line}", self.input)).of_file(self.path))
        })
    }

    /// The failure of an operation. The text names the line if the line is the cause.
    fn at_line(&self, error: mapleaf::Error, line: u64) -> Stop {
        let failure = Failure::of_database(error, self.path);
        Stop::Failed(match failure.exit {
            Exit::Usage => failure.prepend(&format!("{}: line {line}", self.input)),
            _ => failure,
        })
    }
}
