//! `stat`: prints statistics of a database.

use mapleaf::Stats;
use serde_json::{json, Value};

use crate::cmd::args::{Answer, ExistingFile};
use crate::database::findings;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl stat names.mapleaf
  kvctl stat names.mapleaf --json
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
        let stats = db.stats().map_err(|error| Failure::of_database(error, &self.file.path))?;
        let remarks = db.slot_remarks().map_err(|error| Failure::of_database(error, &self.file.path))?;
        let mut figures = vec![("file", json!(self.file.path.to_string_lossy()))];
        figures.extend(figures_of(&stats));
        let mut output = Output::stdout();
        if self.answer.json {
            figures.push(("remarks", findings::json_of_all(&remarks)));
            let object: serde_json::Map<String, Value> =
                figures.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
            output.write(format!("{}\n", Value::Object(object)).as_bytes())?;
        } else {
            for (name, value) in figures {
                let text = value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string());
                output.write(format!("{:<15} {text}\n", name.replace('_', " ")).as_bytes())?;
            }
            output.write(findings::notes(&remarks).as_bytes())?;
        }
        output.finish()?;
        Ok(Exit::Done)
    }
}

fn figures_of(stats: &Stats) -> [(&'static str, Value); 17] {
    [
        ("format_version", json!(stats.format_version)),
        ("uuid", json!(uuid_text(&stats.uuid))),
        ("file_bytes", json!(stats.file_bytes)),
        ("disk_bytes", json!(stats.disk_bytes)),
        ("page_size", json!(stats.page_size)),
        ("page_count", json!(stats.page_count)),
        ("free_pages", json!(stats.free_pages)),
        ("pending_pages", json!(stats.pending_pages)),
        ("txn", json!(stats.txn)),
        ("tables", json!(stats.tables)),
        ("entries", json!(stats.entries)),
        ("processes", json!(stats.processes)),
        ("readers", json!(stats.readers)),
        ("used_bytes", json!(stats.used_bytes)),
        ("mapped_bytes", json!(stats.mapped_bytes)),
        ("reserved_bytes", json!(stats.reserved_bytes)),
        ("log_pages", json!(stats.log_pages)),
    ]
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn uuids_are_printed_in_groups() {
        let uuid = std::array::from_fn(|i| u8::try_from(i * 17).unwrap());
        assert_eq!(super::uuid_text(&uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
