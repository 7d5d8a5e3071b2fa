//! `salvage`: copies every readable entry of a damaged file to a new file.

use std::path::PathBuf;

use mapleaf::{Db, SalvageReport, SalvagedTable};
use serde_json::{json, Value};

use crate::cmd::args::{Answer, NewFile};
use crate::database::findings;
use crate::database::new_file;
use crate::exit::{Exit, Outcome};
use crate::numbers::count;
use crate::terminal::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  kvctl salvage damaged.mapleaf saved.mapleaf
  kvctl salvage damaged.mapleaf saved.mapleaf --json

Never writes to FILE. OUT must not exist; it appears when it is complete. Lists everything that cannot be read, with page,
table and keys as far as they are known. Entries of lost key ranges are copied from older pages, if the file has any; such
entries may be stale (an older value, or an entry that was deleted later) and are counted for each table. A table whose
name is lost gets a name such as lost-16. Exits with 4 if anything is lost, and with 3 if there is nothing to copy.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    // Not an `ExistingFile`: the file need not open as a database.
    /// Damaged database; only read
    file: PathBuf,
    #[command(flatten)]
    out: NewFile,
    #[command(flatten)]
    answer: Answer,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let report = new_file::write("pages", |on_progress| Db::salvage_with(&self.file, &self.out.path, on_progress))?;
        let mut output = Output::stdout();
        if self.answer.json {
            output.write(format!("{}\n", json_of(&report)).as_bytes())?;
        } else {
            findings::write(&report.lost, &mut output)?;
            output.write(self.summary(&report).as_bytes())?;
        }
        output.finish()?;
        Ok(if report.is_loss() { Exit::Loss } else { Exit::Done })
    }

    fn summary(&self, report: &SalvageReport) -> String {
        let mut text = String::new();
        if report.bytes_missing() > 0 {
            text.push_str(&format!(
                "{} of the file {} missing\n",
                count(report.bytes_missing(), "byte"),
                if report.bytes_missing() == 1 { "is" } else { "are" }
            ));
        }
        for table in &report.tables {
            text.push_str(&format!("{}\n", output::one_line(&line_of(table))));
        }
        let (entries, stale) = (report.entries(), report.maybe_stale());
        let outcome = if report.is_loss() { "salvaged with loss" } else { "salvaged without loss" };
        let out = output::one_line(&self.out.path.display().to_string());
        text.push_str(&format!(
            "{outcome}: {} copied to {out}, {stale} of them may be stale\n",
            count(entries, "entry")
        ));
        text
    }
}

fn line_of(table: &SalvagedTable) -> String {
    let mut line = format!("table '{}': {}", table.name, count(table.entries + table.maybe_stale, "entry"));
    if let Some(expected) = table.expected {
        line.push_str(&format!(" of {expected}"));
    }
    if table.maybe_stale > 0 {
        line.push_str(&format!(", {} of them may be stale", table.maybe_stale));
    }
    line
}

fn json_of(report: &SalvageReport) -> Value {
    let tables: Vec<Value> = report
        .tables
        .iter()
        .map(|table| {
            json!({
                "table": table.name,
                "certain": table.is_certain,
                "entries": table.entries,
                "maybe_stale": table.maybe_stale,
                "expected": table.expected,
            })
        })
        .collect();
    json!({
        "loss": report.is_loss(),
        "txn": report.txn,
        "page_size": report.page_size,
        "file_bytes": report.file_bytes,
        "needed_bytes": report.needed_bytes,
        "missing_bytes": report.bytes_missing(),
        "entries": report.entries(),
        "maybe_stale": report.maybe_stale(),
        "lost": findings::json_of_all(&report.lost),
        "tables": tables,
    })
}
