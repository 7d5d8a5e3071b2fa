//! `load`: stores rows from a file or standard input, in batches. Each batch is one transaction.
//!
//! Each row goes into the transaction when it is read, so memory holds one line, even for a large
//! batch. If a batch fails, all of it is dropped. The failure says how many rows of earlier batches
//! are stored, and how to continue after them. A full batch is committed before the next line is
//! read, so that it does not wait for a slow sender. The first row is read before the database is
//! created, so that an input with a malformed first row creates no file.

use std::borrow::Cow;
use std::io::BufRead;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mapleaf::WriteTxn;

use crate::cmd::args::{CreatedFile, MaxLine, RowFormat};
use crate::database::any_table::AnyTableMut;
use crate::database::open;
use crate::database::targets::Targets;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::{Column, Columns, Field};
use crate::format::input::{self, Rows, Source};
use crate::numbers;
use crate::terminal::interrupt::{self, InterruptibleReader};
use crate::terminal::output;
use crate::terminal::progress::{self, CountingReader, Progress, Unit};

/// Number of bytes of keys and values after which a batch is committed.
const BATCH_BYTES: u64 = 256 << 20;

const EXAMPLES: &str = "\
Examples:
  kvctl load names.mapleaf data/unicode-names.tsv
  kvctl load app.mapleaf app.jsonl --batch 1000
  sort rows | kvctl load app.mapleaf -t rows

Keys and values are text of the types of their table; after \\! and in \"key_b64\", \"value_b64\" they are bytes. A line whose
text does not fit its type is malformed. A dump creates its tables with their types; if the database has one of them with
other types, nothing is loaded. Tables that the input does not declare are created without types.

INPUT is TSV (key, tab, value; escapes \\t \\n \\r \\\\ \\xNN; lines that start with # are skipped) or JSON lines
({\"key\": \"..\", \"value\": \"..\"}; \"table\" for another table than -t), by its extension or --format; standard input is
TSV, and so are /dev/stdin and pipes without one of these extensions. A byte order mark before the first line is skipped.

A batch is stored completely or not at all. It holds 256 MiB of keys and values, or --batch rows if that is less. A
malformed line ends the load with 65: its batch is dropped, earlier batches stay. An interrupted load prints how many rows
are stored; --skip continues after them. Loading the whole input again is also correct: it stores the same rows again.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: CreatedFile,
    /// File with the rows; standard input if missing or '-'
    input: Option<PathBuf>,
    /// Table for rows that name none; for a dump of one table, its new name [default: main]
    #[arg(short = 't', long = "table", value_name = "NAME")]
    table: Option<String>,
    /// Store the bytes of the rows unchanged: they are not text of their types
    #[arg(long)]
    raw: bool,
    /// Also store bytes that the table's codec cannot decode
    #[arg(long)]
    unchecked: bool,
    #[command(flatten)]
    rows: RowFormat,
    /// Maximum number of rows in a batch [default: as many as fit into 256 MiB]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = numbers::positive)]
    batch: Option<u64>,
    /// Skip the first N rows, because an earlier load has stored them
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = numbers::whole)]
    skip: u64,
    #[command(flatten)]
    max_line: MaxLine,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let source = Source::open(self.input.as_deref(), self.rows.format)?;
        interrupt::handle_sigint()?;
        let started = Instant::now();
        let progress = Progress::new(Unit::Bytes, source.bytes);
        let input = input::buffered(CountingReader(InterruptibleReader(source.input), progress.clone()));
        let rows = Rows::new(source.format, input, self.max_line.bytes);
        let targets = Targets::new(self.table.clone());
        let mut load = Load { args: &self, rows, input_name: source.name, targets, progress, committed: 0 };
        let result = load.run();
        let committed = load.committed;
        progress::clear();
        result?;
        self.report(committed, started.elapsed());
        Ok(Exit::Done)
    }

    fn report(&self, rows: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let rate = rows as f64 / seconds.max(1e-6);
        let size = std::fs::metadata(&self.file.path)
            .map_or_else(|_| "size unknown".to_string(), |meta| bytes_text(meta.len()));
        output::message(&format!(
            "loaded {} in {seconds:.2} s ({rate:.0} entries/s); {}: {size}",
            numbers::count(rows, "row"),
            self.file.path.display()
        ));
    }
}

fn bytes_text(bytes: u64) -> String {
    format!("{} ({:.1} MiB)", numbers::count(bytes, "byte"), bytes as f64 / f64::from(1 << 20))
}

/// The reason why `fill` stopped.
enum Stop {
    BatchIsFull,
    OtherTable,
    InputEnds,
}

/// The size of a batch, and its limit.
struct Batch {
    rows: u64,
    bytes: u64,
    rows_max: u64,
}

impl Batch {
    /// Counts a row of this many bytes. Returns whether the batch is full.
    fn is_full_after(&mut self, bytes: usize) -> bool {
        self.rows += 1;
        self.bytes += bytes as u64;
        self.rows >= self.rows_max || self.bytes >= BATCH_BYTES
    }
}

/// The state of a load.
struct Load<'a, R> {
    args: &'a Args,
    rows: Rows<R>,
    input_name: String,
    targets: Targets,
    progress: Progress,
    /// Number of committed rows.
    committed: u64,
}

impl<R: BufRead> Load<'_, R> {
    fn run(&mut self) -> Result<(), Failure> {
        self.batches().map_err(|failure| {
            // The text of an interrupt already says how many rows are stored.
            if failure.exit == Exit::Interrupted {
                failure
            } else {
                failure.append(&self.stored_rows_text())
            }
        })
    }

    fn batches(&mut self) -> Result<(), Failure> {
        interrupt::set_summary(self.stored_rows_text());
        let mut more = self.skip_rows()?;
        let mut db = open::or_create(&self.args.file.path)?;
        while more || self.targets.has_pending() {
            let mut txn = db.begin_write().map_err(|error| self.failed(error))?;
            let mut batch = Batch { rows: 0, bytes: 0, rows_max: self.args.batch.unwrap_or(u64::MAX) };
            let stop = loop {
                self.create_tables(&mut txn)?;
                if !more {
                    break Stop::InputEnds;
                }
                match self.fill(&mut txn, &mut batch)? {
                    Stop::OtherTable => continue,
                    stop => break stop,
                }
            };
            self.create_tables(&mut txn)?;
            txn.commit().map_err(|error| self.failed(error))?;
            db.keep();
            self.committed += batch.rows;
            self.progress.set_note(format!("{} rows", self.committed));
            interrupt::set_summary(self.stored_rows_text());
            more = match stop {
                Stop::InputEnds => false,
                _ if interrupt::requested() => return Err(interrupt::failure()),
                _ => self.advance()?,
            };
        }
        db.keep();
        Ok(())
    }

    /// Moves to the first row after the rows that `--skip` leaves out; false at the end.
    fn skip_rows(&mut self) -> Result<bool, Failure> {
        for skipped in 0..self.args.skip {
            if !self.advance()? {
                let (name, skip) = (&self.input_name, self.args.skip);
                return Err(Failure::usage(format!("{name}: --skip {skip}: the input has only {skipped} rows")));
            }
        }
        self.advance()
    }

    /// Stores the current row and the next ones, until the batch is full or a row goes into another
    /// table.
    fn fill(&mut self, txn: &mut WriteTxn, batch: &mut Batch) -> Result<Stop, Failure> {
        let name = self.targets.of_row(self.rows.row().table).to_string();
        let columns = Columns::of_write(txn, &name).map_err(|error| self.at_line(error))?;
        let mut table = AnyTableMut::open(txn, &name).map_err(|error| self.at_line(error))?;
        loop {
            let row = self.rows.row();
            if self.targets.has_pending() || self.targets.of_row(row.table) != name {
                return Ok(Stop::OtherTable);
            }
            let key = self.stored(&columns.key, row.key)?;
            let value = self.stored(&columns.value, row.value)?;
            table.put(&key, &value).map_err(|error| self.at_line(error))?;
            if batch.is_full_after(key.len() + value.len()) {
                return Ok(Stop::BatchIsFull);
            }
            if !self.advance()? {
                return Ok(Stop::InputEnds);
            }
        }
    }

    /// The bytes to store for a field of the current row.
    fn stored<'r>(&self, column: &Column, field: Field<'r>) -> Result<Cow<'r, [u8]>, Failure> {
        let field = match field {
            Field::Text(bytes) if self.args.raw => Field::Stored(bytes),
            field => field,
        };
        match (field, column.stored(field)) {
            (_, Ok(stored)) => Ok(stored),
            (Field::Stored(bytes), Err(_)) if self.args.unchecked => Ok(Cow::Borrowed(bytes)),
            (_, Err(failure)) if !column.item_type().is_known() => Err(failure.prepend(&self.line())),
            (given, Err(failure)) => {
                let failure = Failure { exit: Exit::Input, ..failure };
                let failure = match given {
                    Field::Stored(_) => failure.append("--unchecked stores it anyway"),
                    Field::Text(_) => failure,
                };
                Err(failure.prepend(&self.line()))
            }
        }
    }

    fn create_tables(&mut self, txn: &mut WriteTxn) -> Result<(), Failure> {
        let result = self.targets.create(txn);
        result.map_err(|error| self.at_line(error))
    }

    /// Moves to the next row; false at the end. Passes the declarations before it to `targets`.
    fn advance(&mut self) -> Result<bool, Failure> {
        while self.rows.advance().map_err(|error| error.of_input(&self.input_name))? {
            let Some(declared) = self.rows.declared() else { return Ok(true) };
            self.targets.declare(declared).map_err(|failure| failure.prepend(&self.line()))?;
        }
        Ok(false)
    }

    fn failed(&self, error: mapleaf::Error) -> Failure {
        Failure::of_database(error, &self.args.file.path)
    }

    /// The failure to store the current row. The text names the line only if the row is the cause.
    fn at_line(&self, error: mapleaf::Error) -> Failure {
        let failure = self.failed(error);
        match failure.exit {
            Exit::Usage | Exit::Input => failure.prepend(&self.line()),
            _ => failure,
        }
    }

    fn line(&self) -> String {
        format!("{}: line {}", self.input_name, self.rows.line_number())
    }

    /// Tells the user how many rows are stored, and how to continue after them.
    fn stored_rows_text(&self) -> String {
        let rows = self.args.skip + self.committed;
        match self.committed {
            0 => "no rows were loaded".to_string(),
            1 => format!("1 row of whole batches stays, the rest was not loaded; load with --skip {rows} to continue after it"),
            count => format!(
                "{count} rows of whole batches stay, the rest was not loaded; load with --skip {rows} to continue after them"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_full_after_256_mib_or_its_number_of_rows() {
        let mut batch = Batch { rows: 0, bytes: 0, rows_max: u64::MAX };
        assert!((0..255).all(|_| !batch.is_full_after(1 << 20)));
        assert!(batch.is_full_after(1 << 20) && batch.rows == 256);
        let mut batch = Batch { rows: 0, bytes: 0, rows_max: 3 };
        assert_eq!([1, 1, 1].map(|bytes| batch.is_full_after(bytes)), [false, false, true]);
    }
}
