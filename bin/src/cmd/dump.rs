//! `dump`: writes all entries as rows. Loading these rows restores the same entries, for any bytes.

use std::fs;
use std::path::{Path, PathBuf};

use mapleaf::{Db, ReadTxn, TableInfo};

use crate::cmd::args::{AtSnapshot, Encoding, ExistingFile, KeyRange, RowFormat, TableName};
use crate::database::any_table::AnyTable;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::{Column, Columns, RowText};
use crate::format::input::Format;
use crate::format::jsonl;
use crate::format::rows::TableDeclaration;
use crate::format::span::Span;
use crate::format::tsv;
use crate::terminal::interrupt;
use crate::terminal::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  kvctl dump names.mapleaf > names.tsv
  kvctl dump names.mapleaf -o names.jsonl
  kvctl dump app.mapleaf --all -o app.jsonl
  kvctl dump app.mapleaf -t log --from 2026-11-01 --to 2026-12-01 -o november.tsv

Writes TSV to standard output, unless --format or the extension of OUT (.tsv, .jsonl) selects a format. The first lines
declare each table with its name and codecs; then come the rows, with keys and values as text of their types. In TSV of
several tables, the declaration ('# mapleaf-table') is repeated before the rows of each table; in JSON lines of --all,
each row names its table. Keys and values that have no text are written as bytes: after \\! in TSV, in \"key_b64\" and
\"value_b64\" in JSON lines. 'kvctl load' creates the same tables, also empty ones. OUT appears only when it is complete,
and never has more permissions than the database. If the table does not exist, dump exits with 1 and writes no OUT.
--prefix, --from and --to choose a part of one table, as in scan.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("prefix", |arg| arg.conflicts_with("all")))]
#[command(mut_arg("from", |arg| arg.conflicts_with("all")))]
#[command(mut_arg("to", |arg| arg.conflicts_with("all")))]
#[command(mut_arg("hex", |arg| arg.help("--prefix, --from and --to are hexadecimal")))]
#[command(mut_arg("base64", |arg| arg.help("--prefix, --from and --to are base64")))]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    at: AtSnapshot,
    #[command(flatten)]
    table: TableName,
    /// Dump all tables
    #[arg(long, conflicts_with = "table")]
    all: bool,
    #[command(flatten)]
    keys: KeyRange,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    rows: RowFormat,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let format = self.choose_format()?;
        let db = open::read_only(&self.file.path)?;
        let txn = self.at.begin(&db).map_err(|error| Failure::of_database(error, &self.file.path))?;
        let tables = self.tables(&txn)?;
        if let [table] = &*tables {
            // Wrong bounds are reported before OUT is made.
            self.span(&Columns::new(&table.name, Some(table)).key)?;
        }
        let mut output = self.open_output(&db)?;
        for table in &tables {
            write_declaration(table, format, &mut output)?;
        }
        for table in &tables {
            if tables.len() > 1 && table.entries > 0 && format == Format::Tsv {
                write_declaration(table, format, &mut output)?;
            }
            self.dump(&txn, table, format, &mut output)?;
        }
        output.finish()?;
        Ok(Exit::Done)
    }

    fn span(&self, column: &Column) -> Result<Span, Failure> {
        self.keys.span(column, self.encoding).map_err(|failure| failure.of_file(&self.file.path))
    }

    /// The tables to dump. A missing table is an error, because an empty dump would look like a
    /// copy.
    fn tables(&self, txn: &ReadTxn) -> Result<Vec<TableInfo>, Failure> {
        let failed = |error| Failure::of_database(error, &self.file.path);
        if self.all {
            return txn.tables().map_err(failed);
        }
        let name = &self.table.name;
        match txn.table_info(name).map_err(failed)? {
            Some(table) => Ok(vec![table]),
            None => Err(open::no_table(name, &self.file.path)),
        }
    }

    fn choose_format(&self) -> Result<Format, Failure> {
        match (self.target(), self.rows.format) {
            (Some(target), requested) => Format::choose(requested, target),
            (None, requested) => Ok(requested.unwrap_or(Format::Tsv)),
        }
    }

    fn target(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }

    fn open_output(&self, db: &Db) -> Result<Output, Failure> {
        let Some(target) = self.target() else { return Ok(Output::stdout()) };
        let is_database = match (fs::metadata(target), fs::metadata(&self.file.path)) {
            (Ok(target), Ok(file)) => open::is_same_file(&target, &file),
            _ => false,
        };
        if is_database {
            return Err(Failure::usage(format!("{}: is the database itself; give another OUT", target.display())));
        }
        let output = Output::file(target, db)?;
        // SIGINT must remove an unfinished file. For a pipe or a device, it just ends the process:
        // there is nothing to remove, and a write may block.
        if output.is_unfinished_file() {
            interrupt::handle_sigint()?;
        }
        Ok(output)
    }

    fn dump(&self, txn: &ReadTxn, info: &TableInfo, format: Format, output: &mut Output) -> Result<(), Failure> {
        let failed = |error| Failure::of_database(error, &self.file.path);
        let table = AnyTable::open(txn, &info.name).map_err(failed)?;
        let columns = Columns::new(&info.name, Some(info));
        let span = self.span(&columns.key)?;
        if span.is_empty() {
            return Ok(());
        }
        let mut row_text = RowText::new(&columns);
        let named_table = self.all.then_some(&*info.name);
        let mut line = Vec::new();
        for entry in table.range(span.bounds()).map_err(failed)? {
            let (key, value) = entry.map_err(failed)?;
            let (key, value) = row_text.both(key, value);
            line.clear();
            match format {
                Format::Tsv => tsv::write_row(key, value, &mut line),
                Format::Jsonl => jsonl::write_row(named_table, key, value, &mut line)
                    .map_err(|error| Failure::writing("a row", &error))?,
            }
            output.write(&line)?;
            if interrupt::requested() {
                return Err(interrupt::failure());
            }
        }
        if let Some(text) = row_text.undecodable().and_then(|failure| failure.text) {
            let path = self.file.path.display();
            output::message(&format!(
                "kvctl: note: {path}: {text}; written as bytes, which 'kvctl load --unchecked' takes"
            ));
        }
        Ok(())
    }
}

/// Writes the declaration of a table: its name and codecs.
fn write_declaration(table: &TableInfo, format: Format, output: &mut Output) -> Result<(), Failure> {
    let mut line = Vec::new();
    let write = match format {
        Format::Tsv => tsv::write_declaration,
        Format::Jsonl => jsonl::write_declaration,
    };
    write(&TableDeclaration::of(table), &mut line);
    output.write(&line)
}
