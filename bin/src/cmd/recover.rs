//! `recover`: returns a file to its newest undamaged state, after it has listed the lost changes.

use mapleaf::{Db, RecoverReport};
use serde_json::{json, Value};

use crate::cmd::args::{Accepted, Answer, ExistingFile};
use crate::database::findings;
use crate::exit::{Exit, Failure, Outcome};
use crate::numbers::count;
use crate::terminal::confirm;
use crate::terminal::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  kvctl recover names.mapleaf
  kvctl recover names.mapleaf --yes
  kvctl recover names.mapleaf --yes --json

For a file that was cut short, or whose newest state is damaged. The previous state is sure to be undamaged only if
nothing was written after the last commit, not even by a dropped transaction. Prints the loss and asks before it changes
the file; without a terminal it needs --yes, or else exits with 2 and changes nothing. Reads every page in use. Exits
with 0 if nothing is lost, with 4 if it returned to an older state, and with 3 if no state is undamaged: then
'kvctl salvage' copies every readable entry.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    accepted: Accepted,
    #[command(flatten)]
    answer: Answer,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let failed = |error| Failure::of_database(error, &self.file.path);
        let preview = Db::recover_preview(&self.file.path).map_err(failed)?;
        if preview.is_loss() && !self.accepted.yes {
            self.ask(&preview)?;
        }
        let report = match preview.is_nothing() {
            true => preview,
            false => Db::recover(&self.file.path).map_err(failed)?,
        };
        let mut output = Output::stdout();
        let text = match self.answer.json {
            true => format!("{}\n", json_of(&report)),
            false => findings::notes(&report.remarks) + &self.text(&report),
        };
        output.write(text.as_bytes())?;
        output.finish()?;
        Ok(if report.is_loss() { Exit::Loss } else { Exit::Done })
    }

    /// Prints the loss, and fails unless the user accepts it.
    fn ask(&self, preview: &RecoverReport) -> Result<(), Failure> {
        for remark in &preview.remarks {
            output::message(&format!("note: {remark}"));
        }
        for line in losses(preview) {
            output::message(&line);
        }
        let unchanged = format!("{}: not changed", self.file.path.display());
        confirm::ask(
            "Accept the loss and go back to the older state?",
            &unchanged,
            "accepts the loss and goes back to the older state",
        )
    }

    /// The answer as text.
    fn text(&self, report: &RecoverReport) -> String {
        if report.is_nothing() {
            return format!("whole: the state of transaction {}, nothing to recover\n", report.newest_txn);
        }
        if let (Some(damage), true) =
            (&report.damage, report.is_newest_doubtful && report.newest_txn == report.whole_txn)
        {
            let damage = output::one_line(&damage.to_string());
            return format!(
                "{damage}\nrecovered: the state of transaction {}, the newest that is left\n",
                report.whole_txn
            );
        }
        if !report.is_loss() {
            return format!(
                "recovered without loss: only pages that are not in use were missing ({} bytes)\n",
                report.bytes_missing()
            );
        }
        let mut text: String = losses(report).iter().map(|line| format!("{}\n", output::one_line(line))).collect();
        text.push_str(&format!("recovered: the state of transaction {}\n", report.whole_txn));
        text
    }
}

/// Describes the loss, one fact on each line.
fn losses(report: &RecoverReport) -> Vec<String> {
    let mut lines = Vec::new();
    if report.bytes_missing() > 0 {
        let (missing, has, needs) = (report.bytes_missing(), report.file_bytes, report.needed_bytes);
        lines.push(format!("{missing} bytes are missing: the file has {has}, its newest state needs {needs}"));
    }
    lines.extend(report.damage.iter().map(|damage| format!("the newest state is damaged: {damage}")));
    lines.push(format!(
        "the newest state that is whole is that of transaction {}; all later commits are lost, up to transaction {}",
        report.whole_txn, report.newest_txn
    ));
    lines.push(match (report.whole_tables, report.whole_entries) {
        (0, _) => "that state is empty: it has no tables, and all entries are lost".to_string(),
        (tables, 0) => format!("that state is empty: it has {} without entries", count(tables, "table")),
        (tables, entries) => format!("that state has {} with {}", count(tables, "table"), count(entries, "entry")),
    });
    for table in &report.tables {
        lines.push(match (table.entries_before, table.entries_after) {
            (Some(before), Some(after)) => format!("table '{}': {} become {after}", table.name, count(before, "entry")),
            (Some(before), None) => format!("table '{}' with {} is lost", table.name, count(before, "entry")),
            (None, Some(after)) => {
                format!(
                    "table '{}': {} {}; the number before is unreadable",
                    table.name,
                    count(after, "entry"),
                    if after == 1 { "stays" } else { "stay" }
                )
            }
            (None, None) => continue,
        });
    }
    lines
}

fn json_of(report: &RecoverReport) -> Value {
    let tables: Vec<Value> = report
        .tables
        .iter()
        .map(|table| {
            json!({
                "table": table.name,
                "entries_before": table.entries_before,
                "entries_after": table.entries_after,
            })
        })
        .collect();
    json!({
        "loss": report.is_loss(),
        "newest_txn": report.newest_txn,
        "whole_txn": report.whole_txn,
        "file_bytes": report.file_bytes,
        "needed_bytes": report.needed_bytes,
        "missing_bytes": report.bytes_missing(),
        "damage": report.damage.as_ref().map(findings::json_of),
        "tables": tables,
        "whole_tables": report.whole_tables,
        "whole_entries": report.whole_entries,
        "remarks": findings::json_of_all(&report.remarks),
    })
}
