//! `compact`: copies the newest state of a database to a new file with full pages.

use std::path::Path;

use mapleaf::CompactReport;
use serde_json::{json, Value};

use crate::cmd::args::{Answer, ExistingFile, NewFile};
use crate::database::new_file;
use crate::database::open;
use crate::exit::{Exit, Outcome};
use crate::numbers::count;
use crate::terminal::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  kvctl compact app.mapleaf small.mapleaf
  kvctl compact app.mapleaf small.mapleaf --json

Only reads FILE. OUT must not exist; it appears when it is complete and durable. It holds all tables in key order, with
full pages and almost no free pages. The disk must have room for both files.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    out: NewFile,
    #[command(flatten)]
    answer: Answer,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let report = new_file::write("entries", |on_progress| db.compact_to_with(&self.out.path, on_progress))?;
        let mut output = Output::stdout();
        let text = if self.answer.json { format!("{}\n", json_of(&report)) } else { summary(&self.out.path, &report) };
        output.write(text.as_bytes())?;
        output.finish()?;
        Ok(Exit::Done)
    }
}

fn summary(out: &Path, report: &CompactReport) -> String {
    let (before, after) = (report.bytes_before, report.bytes_after);
    format!(
        "compacted: {} in {} to {}, {before} bytes to {after} ({:.0} %)\n",
        count(report.entries, "entry"),
        count(report.tables, "table"),
        output::one_line(&out.display().to_string()),
        after as f64 * 100.0 / before as f64,
    )
}

fn json_of(report: &CompactReport) -> Value {
    json!({
        "txn": report.txn,
        "page_size": report.page_size,
        "tables": report.tables,
        "entries": report.entries,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
    })
}
