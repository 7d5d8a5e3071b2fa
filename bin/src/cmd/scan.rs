//! `scan`: prints the entries within bounds in key order, from either end.

use mapleaf::ReadTxn;

use crate::cmd::args::{AtSnapshot, Encoding, ExistingFile, KeyRange, TableName};
use crate::database::any_table::AnyTable;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::{Columns, Field, RowText};
use crate::format::jsonl;
use crate::format::span::Span;
use crate::format::tsv;
use crate::numbers;
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl scan names.mapleaf --prefix U+1F98 --limit 3
  kvctl scan names.mapleaf --from U+1F600 --to U+1F650
  kvctl scan names.mapleaf --reverse --limit 1 --keys
  kvctl scan names.mapleaf --prefix U+1F --count
  kvctl scan names.mapleaf --skip 1000 --limit 50 --json

Prints TSV: the key, a tab, the value, as text of their types; \\t \\n \\r \\\\ stand for tabs, line ends and backslashes.
--prefix, --from and --to are text of keys, and an entry must satisfy all that are given; for tuples, --prefix holds the
first items. Keys and values that have no text are printed as bytes after \\!: those of a codec that is not built in, and
those that their codec cannot decode. With --json, each line is an object as in JSON lines of dump: {\"key\": \"..\",
\"value\": \"..\"}, bytes in \"key_b64\" and \"value_b64\"; with --base64 all are bytes. If there are any of the latter, scan exits with 3 at the end. A missing table reads
as empty. Of a multimap table, each line is one value with its key.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    keys_of: KeyRange,
    /// Print from the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Leave out the first N of these entries
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = numbers::whole)]
    skip: u64,
    /// Print at most N entries
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = numbers::whole)]
    limit: Option<u64>,
    /// Print only the number of entries
    #[arg(long, conflicts_with = "keys")]
    count: bool,
    /// Print only keys
    #[arg(long)]
    keys: bool,
    /// Print JSON lines
    #[arg(long, conflicts_with = "hex")]
    json: bool,
    #[command(flatten)]
    at: AtSnapshot,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let txn = self.at.begin(&db).map_err(|error| Failure::of_database(error, &self.file.path))?;
        let columns =
            Columns::of_read(&txn, &self.table.name).map_err(|error| Failure::of_database(error, &self.file.path))?;
        let span =
            self.keys_of.span(&columns.key, self.encoding).map_err(|failure| failure.of_file(&self.file.path))?;
        open::note_missing_table(&txn, &self.table.name, &self.file.path)?;
        let mut row_text = RowText::new(&columns);
        let mut output = Output::stdout();
        let count = self.scan(&txn, &span, &mut row_text, &mut output)?;
        if self.count {
            output.write(self.count_text(count).as_bytes())?;
        }
        output.finish()?;
        match row_text.undecodable() {
            Some(failure) => Err(failure.of_file(&self.file.path)),
            None => Ok(Exit::Done),
        }
    }

    /// Prints the entries, unless `--count` is given, and returns their number.
    fn scan(
        &self,
        txn: &ReadTxn,
        span: &Span,
        row_text: &mut RowText<'_>,
        output: &mut Output,
    ) -> Result<u64, Failure> {
        let failed = |error| Failure::of_database(error, &self.file.path);
        let limit = self.limit.unwrap_or(u64::MAX);
        let table = AnyTable::open(txn, &self.table.name).map_err(failed)?;
        if self.count && span.is_all() {
            return Ok(table.len().saturating_sub(self.skip).min(limit));
        }
        if span.is_empty() {
            return Ok(0);
        }
        let mut range = table.range(span.bounds()).map_err(failed)?;
        let mut next = || if self.reverse { range.next_back() } else { range.next() };
        for _ in 0..self.skip {
            match next() {
                Some(entry) => drop(entry.map_err(failed)?),
                None => break,
            }
        }
        let mut line = Vec::new();
        let mut count = 0;
        while count < limit {
            let Some(entry) = next() else { break };
            let (key, value) = entry.map_err(failed)?;
            count += 1;
            if !self.count {
                line.clear();
                match self.json {
                    true => self.write_json(key, value, row_text, &mut line)?,
                    false => self.write_line(key, value, row_text, &mut line),
                }
                output.write(&line)?;
            }
        }
        Ok(count)
    }

    fn count_text(&self, count: u64) -> String {
        match self.json {
            true => format!("{{\"count\": {count}}}\n"),
            false => format!("{count}\n"),
        }
    }

    /// An entry as the JSON line that `dump` writes. With `--base64`, it has the stored bytes.
    fn write_json(
        &self,
        key: &[u8],
        value: &[u8],
        row_text: &mut RowText<'_>,
        line: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let (key, value) = match (self.encoding.is_digits(), self.keys) {
            (true, _) => (Field::Stored(key), Field::Stored(value)),
            // The value need not decode if it is not printed.
            (false, true) => (row_text.key(key), Field::Stored(value)),
            (false, false) => row_text.both(key, value),
        };
        let written = match self.keys {
            true => jsonl::write_key(key, line),
            false => jsonl::write_row(None, key, value, line),
        };
        written.map_err(|error| Failure::writing("a row", &error))
    }

    fn write_line(&self, key: &[u8], value: &[u8], row_text: &mut RowText<'_>, line: &mut Vec<u8>) {
        if self.encoding.is_digits() {
            self.encoding.write(key, line);
        } else {
            tsv::write_key(row_text.key(key), line);
        }
        if !self.keys {
            line.push(b'\t');
            if self.encoding.is_digits() {
                self.encoding.write(value, line);
            } else {
                tsv::write_field(row_text.value(value), line);
            }
        }
        line.push(b'\n');
    }
}
