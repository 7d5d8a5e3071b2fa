//! `get`: prints the value of one key.
//!
//! [`Column::show`] makes the text with `Type::show`; [`Output::write`] escapes control characters
//! if standard output is a terminal.

use crate::cmd::args::{AtSnapshot, Encoding, ExistingFile, Key, TableName};
use crate::database::any_table::AnyTable;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::{Column, Columns};
use crate::terminal::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  kvctl get names.mapleaf U+1F980
  kvctl get app.mapleaf logo --raw > logo.png
  kvctl get app.mapleaf --hex 00ff

Prints the value as text of its type, and a line feed; of a multimap table all values of the key, in order; 'kvctl help' shows the text of each type. With --hex or --base64,
the key and the value are the stored bytes. Exits with 1 if the key is absent, and with 3 if the table's codec cannot
decode the value.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    key: Key,
    #[command(flatten)]
    at: AtSnapshot,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
    /// Print only the stored bytes of the value, without a line feed: neither text of its type nor
    /// --hex or --base64 digits
    #[arg(long)]
    raw: bool,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let failed = |error| Failure::of_database(error, &self.file.path);
        let txn = self.at.begin(&db).map_err(failed)?;
        let columns = Columns::of_read(&txn, &self.table.name).map_err(failed)?;
        let key = columns
            .key
            .to_compare(self.encoding, &self.key.text)
            .map_err(|failure| failure.of_file(&self.file.path))?;
        let table = AnyTable::open(&txn, &self.table.name).map_err(failed)?;
        let values = table.values(&key).map_err(failed)?;
        if values.is_empty() {
            let name = &self.table.name;
            let problem = match open::has_table(&txn, name)? {
                true => format!("no such key in table '{name}'"),
                false => format!("no table '{name}'; 'kvctl tables' lists them"),
            };
            output::error(&format!("{}: {problem}", self.file.path.display()));
            return Ok(Exit::No);
        }
        self.print(&values, &columns.value).map_err(|failure| failure.of_file(&self.file.path))?;
        Ok(Exit::Done)
    }

    fn print(&self, values: &[&[u8]], column: &Column) -> Result<(), Failure> {
        let mut output = Output::stdout();
        let mut line = Vec::new();
        for value in values {
            line.clear();
            if self.raw {
                line.extend_from_slice(value);
            } else {
                match self.encoding.is_digits() {
                    true => self.encoding.write(value, &mut line),
                    false => column.show(value, &mut line)?,
                }
                line.push(b'\n');
            }
            output.write(&line)?;
        }
        output.finish()
    }
}
