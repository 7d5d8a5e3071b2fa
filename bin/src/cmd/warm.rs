//! `warm`: reads tables, or a range of keys, into memory.

use std::io;
use std::ops::{Bound, ControlFlow};

use mapleaf::{Error, ReadTxn};
use serde_json::json;

use crate::cmd::args::{Answer, Encoding, ExistingFile, KeyRange};
use crate::database::any_table::AnyTable;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::Columns;
use crate::numbers::count;
use crate::terminal::interrupt;
use crate::terminal::output::Output;
use crate::terminal::progress::{self, Progress, Unit};

const EXAMPLES: &str = "\
Examples:
  kvctl warm app.mapleaf
  kvctl warm names.mapleaf main
  kvctl warm names.mapleaf main --from U+1F600 --to U+1F650

Reads all pages of the tables, or of one range of keys, from the disk into the page cache of the kernel, in their order
in the file and many at a time. Programs that open the file afterwards find them in memory, for as long as the kernel
keeps them. Every page that is read is verified.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    /// Table to read; all tables if missing
    #[arg(id = "one_table", value_name = "TABLE")]
    table: Option<String>,
    #[command(flatten)]
    keys_of: KeyRange,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    answer: Answer,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        if self.table.is_none() && self.keys_of.is_given() {
            return Err(Failure::usage(
                "--prefix, --from and --to are keys of one table; name it after the file".to_string(),
            ));
        }
        let db = open::read_only(&self.file.path)?;
        let txn = db.begin_read().map_err(|error| Failure::of_database(error, &self.file.path))?;
        interrupt::set_summary("what was read stays in memory".to_string());
        interrupt::handle_sigint()?;
        let (tables, pages) = match &self.table {
            Some(name) => (1, self.warm_range(&txn, name)?),
            None => self.warm_all(&txn)?,
        };
        progress::clear();
        let text = match self.answer.json {
            true => format!("{}\n", json!({ "tables": tables, "pages": pages })),
            false => format!("warmed: {} of {}\n", count(pages, "page"), count(tables, "table")),
        };
        let mut output = Output::stdout();
        output.write(text.as_bytes())?;
        output.finish()?;
        Ok(Exit::Done)
    }

    fn warm_all(&self, txn: &ReadTxn) -> Result<(u64, u64), Failure> {
        let tables = txn.tables().map_err(|error| Failure::of_database(error, &self.file.path))?;
        let all = (Bound::Unbounded, Bound::Unbounded);
        let pages = tables.iter().try_fold(0, |pages, table| Ok(pages + self.warm(txn, &table.name, all)?));
        pages.map(|pages| (tables.len() as u64, pages))
    }

    fn warm_range(&self, txn: &ReadTxn, name: &str) -> Result<u64, Failure> {
        if !open::has_table(txn, name)? {
            return Err(open::no_table(name, &self.file.path));
        }
        let columns = Columns::of_read(txn, name).map_err(|error| Failure::of_database(error, &self.file.path))?;
        let span =
            self.keys_of.span(&columns.key, self.encoding).map_err(|failure| failure.of_file(&self.file.path))?;
        match span.is_empty() {
            true => Ok(0),
            false => self.warm(txn, name, span.bounds()),
        }
    }

    /// Reads a range of a table, shows the progress, and returns the number of pages.
    fn warm(&self, txn: &ReadTxn, name: &str, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> Result<u64, Failure> {
        let table = AnyTable::open(txn, name).map_err(|error| Failure::of_database(error, &self.file.path))?;
        let progress = Progress::new(Unit::Items("pages"), None);
        let warmed = table.warm(bounds, &mut |done, known| {
            progress.set(done, known);
            match interrupt::requested() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        warmed.map_err(|error| match &error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::Interrupted => interrupt::failure(),
            _ => Failure::of_database(error, &self.file.path),
        })
    }
}
