//! `load`: rows from a file or standard input, in batches of which each is a transaction.
//!
//! Rows go into the transaction as they are read; memory holds one line, whatever the size of a batch. A batch that
//! cannot be completed is dropped whole, and the failure says how many rows of the batches before it stay. A full
//! batch is committed before the next line is asked for, so that rows of a slow sender do not wait for each other.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mapleaf::{Db, WriteTxn};

use crate::columns::{Column, Columns, Given};
use crate::exit::{Exit, Failure, Outcome};
use crate::input::{self, Format, Rows, Source};
use crate::interrupt::{self, Watched};
use crate::output;
use crate::store;
use crate::targets::Targets;

const EXAMPLES: &str = "\
Examples:
  kvctl load names.mapleaf data/unicode-names.tsv
  kvctl load app.mapleaf app.jsonl --batch 1000
  sort rows | kvctl load app.mapleaf -t rows

Keys and values are text of the types of their table, or bytes after \\! and in \"key_b64\", \"value_b64\". A dump makes its
tables with their types; if the database has one with other types, nothing is loaded. Tables that nothing declares are made
without types.

INPUT is TSV (key, tab, value; escapes \\t \\n \\r \\\\ \\xNN; lines that start with # are skipped) or JSON lines
({\"key\": \"..\", \"value\": \"..\"}; \"table\" for another table than -t), by its
extension or --format; standard input is TSV. A batch is applied whole or not at all. A malformed line ends the load
with 65: its batch is not applied, batches before it stay.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database; made where there is none
    file: PathBuf,
    /// Rows to load; standard input for none and for '-'
    input: Option<PathBuf>,
    /// Table of rows that name none, and the name to load a dump of one table under [default: main]
    #[arg(short = 't', long = "table", value_name = "NAME")]
    table: Option<String>,
    /// Rows have the bytes to store, and no text of types, as dumps without lines about tables have
    #[arg(long)]
    raw: bool,
    /// Store bytes that the codec of their table does not decode
    #[arg(long)]
    unchecked: bool,
    /// Format of the rows
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Rows in a transaction
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let source = Source::open(self.input.as_deref(), self.format)?;
        let db = store::open_to_write(&self.file)?;
        interrupt::watch()?;
        let started = Instant::now();
        let progress = progress_bar(source.bytes);
        let input = input::buffered(progress.wrap_read(Watched(source.input)));
        let mut load = Load {
            args: &self,
            db: &db,
            rows: Rows::new(source.format, input),
            input_name: source.name,
            progress: progress.clone(),
            targets: Targets::new(self.table.clone()),
            committed: 0,
        };
        let result = load.run();
        let committed = load.committed;
        drop(load);
        progress.finish_and_clear();
        result?;
        drop(db);
        self.report(committed, started.elapsed());
        Ok(Exit::Done)
    }

    fn report(&self, rows: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let rate = rows as f64 / seconds.max(1e-6);
        let size =
            std::fs::metadata(&self.file).map_or_else(|_| "size unknown".to_string(), |meta| bytes_text(meta.len()));
        output::note(&format!(
            "loaded {rows} rows in {seconds:.2} s ({rate:.0} entries/s); {}: {size}",
            self.file.display()
        ));
    }
}

fn bytes_text(bytes: u64) -> String {
    format!("{bytes} bytes ({:.1} MiB)", bytes as f64 / f64::from(1 << 20))
}

/// Shows bytes of the input on a terminal, and nothing elsewhere.
fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {percent:>3}%  {msg}  {bytes_per_sec}  {eta} left"),
        None => (ProgressBar::no_length(), "{spinner}  {bytes}  {msg}  {bytes_per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Why no more rows go into the same table of the same batch.
enum Until {
    BatchIsFull,
    OtherTable,
    InputEnds,
}

/// A load under way.
struct Load<'a, R> {
    args: &'a Args,
    db: &'a Db,
    rows: Rows<R>,
    input_name: String,
    targets: Targets,
    progress: ProgressBar,
    /// Rows that were committed.
    committed: u64,
}

impl<R: BufRead> Load<'_, R> {
    fn run(&mut self) -> Result<(), Failure> {
        self.batches().map_err(|failure| {
            // What interrupted it says so itself.
            if failure.exit == Exit::Interrupted {
                failure
            } else {
                failure.also(&self.kept())
            }
        })
    }

    fn batches(&mut self) -> Result<(), Failure> {
        interrupt::keep(self.kept());
        let mut more = self.advance()?;
        while more || self.targets.has_pending() {
            let mut txn = self.db.begin_write().map_err(|error| self.failed(error))?;
            let mut in_batch = 0;
            let until = loop {
                self.make_tables(&mut txn)?;
                if !more {
                    break Until::InputEnds;
                }
                match self.fill(&mut txn, &mut in_batch)? {
                    Until::OtherTable => continue,
                    until => break until,
                }
            };
            self.make_tables(&mut txn)?;
            txn.commit().map_err(|error| self.failed(error))?;
            self.committed += in_batch;
            self.progress.set_message(format!("{} rows", self.committed));
            interrupt::keep(self.kept());
            more = match until {
                Until::InputEnds => false,
                _ if interrupt::asked() => return Err(interrupt::failure()),
                _ => self.advance()?,
            };
        }
        Ok(())
    }

    /// Inserts the current row, and the rows behind it that go into the same table and the same batch.
    fn fill(&mut self, txn: &mut WriteTxn, in_batch: &mut u64) -> Result<Until, Failure> {
        let name = self.targets.of_row(self.rows.row().table).to_string();
        let columns = Columns::of_write(txn, &name).map_err(|error| self.at_line(error))?;
        let mut table = txn.bytes_table(&name).map_err(|error| self.at_line(error))?;
        loop {
            let row = self.rows.row();
            if self.targets.has_pending() || self.targets.of_row(row.table) != name {
                return Ok(Until::OtherTable);
            }
            let key = self.stored(&columns.key, row.key)?;
            let value = self.stored(&columns.value, row.value)?;
            table.put(&key, &value).map_err(|error| self.at_line(error))?;
            *in_batch += 1;
            if *in_batch == self.args.batch {
                return Ok(Until::BatchIsFull);
            }
            if !self.advance()? {
                return Ok(Until::InputEnds);
            }
        }
    }

    /// The bytes of a field of the current row.
    fn stored<'r>(&self, column: &Column, field: Given<'r>) -> Result<Cow<'r, [u8]>, Failure> {
        let field = match field {
            Given::Text(bytes) if self.args.raw => Given::Bytes(bytes),
            field => field,
        };
        match (field, column.stored(field)) {
            (_, Ok(stored)) => Ok(stored),
            (Given::Bytes(bytes), Err(_)) if self.args.unchecked => Ok(Cow::Borrowed(bytes)),
            (_, Err(failure)) if !column.of().is_known() => Err(failure.at(&self.line())),
            (Given::Bytes(_), Err(failure)) => Err(failure.also("--unchecked stores it all the same").at(&self.line())),
            (Given::Text(_), Err(failure)) => Err(Failure { exit: Exit::Input, ..failure }.at(&self.line())),
        }
    }

    fn make_tables(&mut self, txn: &mut WriteTxn) -> Result<(), Failure> {
        let made = self.targets.make(txn);
        made.map_err(|error| self.at_line(error))
    }

    /// Goes to the next row; false at the end. Takes the declarations before it.
    fn advance(&mut self) -> Result<bool, Failure> {
        while self.rows.advance().map_err(|error| error.of_input(&self.input_name))? {
            let Some(declared) = self.rows.declared() else { return Ok(true) };
            self.targets.declare(declared).map_err(|failure| failure.at(&self.line()))?;
        }
        Ok(false)
    }

    fn failed(&self, error: mapleaf::Error) -> Failure {
        Failure::of_database(error, &self.args.file)
    }

    fn at_line(&self, error: mapleaf::Error) -> Failure {
        self.failed(error).at(&self.line())
    }

    fn line(&self) -> String {
        format!("{}: line {}", self.input_name, self.rows.line_number())
    }

    fn kept(&self) -> String {
        match self.committed {
            0 => "no rows were loaded".to_string(),
            1 => "1 row of whole batches stays, the rest was not loaded".to_string(),
            rows => format!("{rows} rows of whole batches stay, the rest was not loaded"),
        }
    }
}
