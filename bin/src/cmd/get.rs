//! `get`: the value of one key.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::bytes::Encoding;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Output};
use crate::store::{self, TableName};

const EXAMPLES: &str = "\
Examples:
  kvctl get names.mapleaf U+1F980
  kvctl get app.mapleaf logo --raw > logo.png
  kvctl get app.mapleaf --hex 00ff

Prints the value and a line feed. Exits with 1 when the key is absent.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database
    file: PathBuf,
    /// Key
    key: OsString,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
    /// Print the bytes of the value alone: no line feed, and no digits whatever the key is
    #[arg(long)]
    raw: bool,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let key = self.encoding.decode(&self.key)?;
        let db = store::open_to_read(&self.file)?;
        let failed = |error| Failure::of_database(error, &self.file);
        let txn = db.begin_read().map_err(failed)?;
        let table = txn.bytes_table(&self.table.table).map_err(failed)?;
        let Some(value) = table.get(key.as_slice()).map_err(failed)? else {
            let name = &self.table.table;
            let why = if store::has_table(&txn, name)? { "no such key in table" } else { "no table" };
            output::complain(&format!("{}: {why} '{name}'", self.file.display()));
            return Ok(Exit::No);
        };
        self.print(value)?;
        Ok(Exit::Done)
    }

    fn print(&self, value: &[u8]) -> Result<(), Failure> {
        let mut output = Output::stdout();
        if self.raw {
            output.write(value)?;
        } else {
            let mut line = Vec::new();
            self.encoding.write_bare(value, &mut line);
            line.push(b'\n');
            output.write(&line)?;
        }
        output.finish()
    }
}
