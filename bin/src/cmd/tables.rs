//! `tables`: the tables of a database.

use std::path::PathBuf;

use mapleaf::TableInfo;
use serde_json::{json, Value};

use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::{store, tsv};

const EXAMPLES: &str = "\
Examples:
  kvctl tables names.mapleaf
  kvctl tables names.mapleaf --json

Prints TSV: name, entries, height of the tree, codec of the keys, codec of the values.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Database
    file: PathBuf,
    /// Print a JSON array of objects
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let db = store::open_to_read(&self.file)?;
        let failed = |error| Failure::of_database(error, &self.file);
        let tables = db.begin_read().map_err(failed)?.tables().map_err(failed)?;
        let mut output = Output::stdout();
        if self.json {
            let array: Vec<Value> = tables.iter().map(json_of).collect();
            output.write(format!("{}\n", Value::Array(array)).as_bytes())?;
        } else {
            let mut line = Vec::new();
            for table in &tables {
                line.clear();
                write_line(table, &mut line);
                output.write(&line)?;
            }
        }
        output.finish()?;
        Ok(Exit::Done)
    }
}

fn write_line(table: &TableInfo, line: &mut Vec<u8>) {
    tsv::escape_key(table.name.as_bytes(), line);
    line.extend(format!("\t{}\t{}\t", table.entries, table.height).into_bytes());
    tsv::escape(table.key_codec.as_bytes(), line);
    line.push(b'\t');
    tsv::escape(table.value_codec.as_bytes(), line);
    line.push(b'\n');
}

fn json_of(table: &TableInfo) -> Value {
    json!({
        "name": table.name,
        "entries": table.entries,
        "height": table.height,
        "key_codec": table.key_codec,
        "value_codec": table.value_codec,
        "tree_id": table.tree_id,
    })
}
