//! `dump`: all entries as rows that `load` reads, so that load(dump(x)) is x for any bytes.

use std::path::{Path, PathBuf};

use mapleaf::ReadTxn;

use crate::exit::{Exit, Failure, Outcome};
use crate::input::Format;
use crate::output::Output;
use crate::store::{self, TableName};
use crate::{interrupt, jsonl, tsv};

const EXAMPLES: &str = "\
Examples:
  kvctl dump names.mapleaf > names.tsv
  kvctl dump names.mapleaf -o names.jsonl
  kvctl dump app.mapleaf --all -o app.jsonl

Writes TSV to standard output unless --format or the name of OUT (.tsv, .jsonl) says otherwise. With --all, rows name
their table, which only JSON lines can. OUT is complete or not there.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database
    file: PathBuf,
    #[command(flatten)]
    table: TableName,
    /// All tables, each row with its table (JSON lines)
    #[arg(long, conflicts_with = "table")]
    all: bool,
    /// Format of the rows
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let format = self.choose_format()?;
        let db = store::open_to_read(&self.file)?;
        let txn = db.begin_read().map_err(|error| Failure::of_database(error, &self.file))?;
        let mut output = self.open_output()?;
        if self.all {
            for table in txn.tables()? {
                self.dump(&txn, &table.name, format, &mut output)?;
            }
        } else {
            store::note_missing_table(&txn, &self.table.table, &self.file)?;
            self.dump(&txn, &self.table.table, format, &mut output)?;
        }
        output.finish()?;
        Ok(Exit::Done)
    }

    fn choose_format(&self) -> Result<Format, Failure> {
        let format = match (self.target(), self.format) {
            (Some(target), asked) => Format::choose(asked, target)?,
            (None, Some(asked)) => asked,
            (None, None) if self.all => Format::Jsonl,
            (None, None) => Format::Tsv,
        };
        if self.all && format == Format::Tsv {
            return Err(Failure::usage("--all: TSV has no place for the name of the table; use --format jsonl"));
        }
        Ok(format)
    }

    fn target(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }

    fn open_output(&self) -> Result<Output, Failure> {
        let Some(target) = self.target() else { return Ok(Output::stdout()) };
        let same = match (target.canonicalize(), self.file.canonicalize()) {
            (Ok(target), Ok(file)) => target == file,
            _ => false,
        };
        if same {
            return Err(Failure::usage(format!("{}: is the database itself; give another OUT", target.display())));
        }
        let output = Output::file(target)?;
        // A SIGINT has to remove what was written so far. A pipe or device has nothing to remove, and may block.
        if output.is_unfinished_file() {
            interrupt::watch()?;
        }
        Ok(output)
    }

    fn dump(&self, txn: &ReadTxn, name: &str, format: Format, output: &mut Output) -> Result<(), Failure> {
        let failed = |error| Failure::of_database(error, &self.file);
        let table = txn.bytes_table(name).map_err(failed)?;
        let named = self.all.then_some(name);
        let mut line = Vec::new();
        for entry in table.range(..).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            line.clear();
            match format {
                Format::Tsv => tsv::write_row(key, value, &mut line),
                Format::Jsonl => {
                    jsonl::write_row(named, key, value, &mut line).map_err(|error| Failure::writing("a row", &error))?
                }
            }
            output.write(&line)?;
            if interrupt::asked() {
                return Err(interrupt::failure());
            }
        }
        Ok(())
    }
}
