//! `check`: verifies the structure of a file and lists all damage.

use mapleaf::CheckReport;
use serde_json::{json, Value};

use crate::cmd::args::{Answer, ExistingFile};
use crate::database::findings;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::numbers::count;
use crate::terminal::output::{self, Output};
use crate::terminal::progress::{self, Progress, Unit};

const EXAMPLES: &str = "\
Examples:
  kvctl check names.mapleaf
  kvctl check names.mapleaf --json

Reads every page. Prints one line for each finding, and exits with 1 if there is damage.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    answer: Answer,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let progress = Progress::new(Unit::Items("pages"), None);
        let checked = db.check_with(|done, all| progress.set(done, all));
        progress::clear();
        let report = checked.map_err(|error| Failure::of_database(error, &self.file.path))?;
        let mut output = Output::stdout();
        if self.answer.json {
            output.write(format!("{}\n", json_of(&report)).as_bytes())?;
        } else {
            findings::write(&report.findings, &mut output)?;
            output.write(findings::notes(&report.remarks).as_bytes())?;
            output.write(summary(&report).as_bytes())?;
        }
        output.finish()?;
        if report.is_clean() {
            return Ok(Exit::Done);
        }
        output::error(&format!(
            "{}: damaged, findings: {}; 'kvctl recover FILE' goes back to an older state if that is whole, \
             'kvctl salvage FILE OUT' copies what can be read",
            self.file.path.display(),
            report.findings.len()
        ));
        Ok(Exit::No)
    }
}

fn summary(report: &CheckReport) -> String {
    format!(
        "{}: {} checked, {} reachable, {} free; {}, {}\n",
        if report.is_clean() { "whole" } else { "damaged" },
        count(report.pages_checked, "page"),
        report.reachable_pages,
        report.free_pages,
        count(report.tables, "table"),
        count(report.entries, "entry")
    ) + &match report.snapshots {
        0 => String::new(),
        snapshots => format!("also checked {}\n", count(snapshots, "snapshot")),
    }
}

fn json_of(report: &CheckReport) -> Value {
    json!({
        "clean": report.is_clean(),
        "findings": findings::json_of_all(&report.findings),
        "remarks": findings::json_of_all(&report.remarks),
        "pages_checked": report.pages_checked,
        "reachable_pages": report.reachable_pages,
        "free_pages": report.free_pages,
        "tables": report.tables,
        "entries": report.entries,
        "snapshots": report.snapshots,
    })
}
