//! `readers`: lists the live read transactions of a database, of all processes.

use mapleaf::ReaderInfo;
use serde_json::{json, Value};

use crate::cmd::args::{Answer, ExistingFile};
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::tsv;
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl readers app.mapleaf
  kvctl readers app.mapleaf --json

Prints TSV: process, age in milliseconds, transaction whose state it reads, bytes that it keeps from being used again, label.
The oldest state comes first.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("json", |json| json.help("Print a JSON array of objects")))]
pub(crate) struct Args {
    #[command(flatten)]
    file: ExistingFile,
    #[command(flatten)]
    answer: Answer,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = open::read_only(&self.file.path)?;
        let readers = db.readers().map_err(|error| Failure::of_database(error, &self.file.path))?;
        let mut output = Output::stdout();
        if self.answer.json {
            let all: Vec<Value> = readers.iter().map(to_json).collect();
            output.write(format!("{}\n", Value::Array(all)).as_bytes())?;
        } else {
            for reader in &readers {
                let ReaderInfo { process, txn, pinned_bytes, .. } = reader;
                let mut line = format!("{process}\t{}\t{txn}\t{pinned_bytes}\t", reader.age.as_millis()).into_bytes();
                tsv::escape(reader.label.as_bytes(), &mut line);
                line.push(b'\n');
                output.write(&line)?;
            }
        }
        output.finish()?;
        Ok(Exit::Done)
    }
}

fn to_json(reader: &ReaderInfo) -> Value {
    json!({
        "process": reader.process,
        "age_ms": u64::try_from(reader.age.as_millis()).unwrap_or(u64::MAX),
        "txn": reader.txn,
        "pinned_bytes": reader.pinned_bytes,
        "label": reader.label,
    })
}
