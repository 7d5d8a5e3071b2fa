//! `tables`: lists the tables of a database with their types; creates, drops, renames and clears
//! tables.

use std::ops::Bound;
use std::path::Path;

use mapleaf::{Db, KeyOrder, TableInfo, MAX_KEY_BYTES};
use serde_json::{json, Value};

use crate::cmd::args::{Accepted, Answer, CreatedFile, ExistingFile};
use crate::database::any_table::AnyTableMut;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::tsv;
use crate::format::types::{self, Type};
use crate::numbers::count;
use crate::terminal::confirm;
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl tables names.mapleaf
  kvctl tables names.mapleaf --json
  kvctl tables create app.mapleaf born --key str --value u64
  kvctl tables rename app.mapleaf born birth-years

Prints TSV: name, number of entries, height of the tree, codec of the keys, codec of the values. A table without types has
empty codecs: its keys and values are any bytes, and programs open it as text or bytes.
";

const CREATE_EXAMPLES: &str = "\
Examples:
  kvctl tables create app.mapleaf born --key str --value u64
  kvctl tables create app.mapleaf edges --key '(u64,u64)' --value '()'
  kvctl tables create app.mapleaf tags --multimap --key str --value u64
  kvctl tables create app.mapleaf scores --descending --key u64 --value str

TYPE is a built-in codec: str, bytes, u8 to u128, i8 to i128, f32, f64, bool, char, [u8;N], uuid, timestamp, datetime,
date, time, duration, tuples such as (str,u64), Option, Vec and Reverse such as Option<u64>, and () and json<any> for
values; 'kvctl --help' shows their text. Without --key, keys have no type; without --value, values have none. An existing
table with the same types is left unchanged; one with other types is an error.
";

const DISCARD_EXAMPLES: &str = "\
Examples:
  kvctl tables drop app.mapleaf born
  kvctl tables clear app.mapleaf born --yes

Asks before it removes entries; without a terminal it needs --yes, or else exits with 2 and changes nothing. Exits with 1 if
there is no such table. Another process may read the entries until its read transaction ends.
";

const RENAME_EXAMPLES: &str = "\
Examples:
  kvctl tables rename app.mapleaf born birth-years

Exits with 1 if there is no such table, and with 2 if the new name is taken. Programs must use the new name.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(mut_arg("json", |json| json.help("Print a JSON array of objects")))]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    file: Option<ExistingFile>,
    #[command(flatten)]
    answer: Answer,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Create a table with types
    Create(Create),
    /// Remove a table with all its entries
    Drop(Discard),
    /// Give a table another name
    Rename(Rename),
    /// Remove all entries of a table, and keep its types
    Clear(Discard),
}

#[derive(clap::Args, Debug)]
#[command(after_help = CREATE_EXAMPLES)]
struct Create {
    #[command(flatten)]
    file: CreatedFile,
    /// Name of the table
    name: String,
    /// Type of the keys
    #[arg(long, value_name = "TYPE", value_parser = key_type)]
    key: Option<Type>,
    /// Type of the values
    #[arg(long, value_name = "TYPE", value_parser = value_type)]
    value: Option<Type>,
    /// Create a multimap table: several values for each key, in order
    #[arg(long)]
    multimap: bool,
    /// Keep the keys in descending order
    #[arg(long, conflicts_with = "multimap")]
    descending: bool,
}

#[derive(clap::Args, Debug)]
#[command(after_help = DISCARD_EXAMPLES)]
struct Discard {
    #[command(flatten)]
    file: ExistingFile,
    /// Name of the table
    name: String,
    #[command(flatten)]
    accepted: Accepted,
}

#[derive(clap::Args, Debug)]
#[command(after_help = RENAME_EXAMPLES)]
struct Rename {
    #[command(flatten)]
    file: ExistingFile,
    /// Name of the table
    name: String,
    /// New name
    to: String,
}

fn value_type(name: &str) -> Result<Type, String> {
    Type::named(name).ok_or_else(|| match name.trim_start().starts_with('(') {
        true => {
            format!("a tuple has 2 to 6 items, of which only the last may be () or JSON; items are {}", types::KNOWN)
        }
        false => format!("no such type; the types are {}", types::KNOWN),
    })
}

fn key_type(name: &str) -> Result<Type, String> {
    match value_type(name)? {
        key if key.is_of_keys() => Ok(key),
        other => Err(format!("keys cannot have the type {}", other.name())),
    }
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        match (self.action, self.file) {
            (Some(Action::Create(create)), _) => create.run(),
            (Some(Action::Drop(discard)), _) => discard.run(true),
            (Some(Action::Rename(rename)), _) => rename.run(),
            (Some(Action::Clear(discard)), _) => discard.run(false),
            (None, Some(file)) => list(&file.path, self.answer.json),
            (None, None) => Err(Failure::usage("tables: FILE is missing")),
        }
    }
}

impl Create {
    fn run(self) -> Outcome {
        self.refuse_long_keys()?;
        let db = open::or_create(&self.file.path)?;
        let name = |side: &Option<Type>| side.as_ref().map_or_else(String::new, |codec| codec.name().to_string());
        let create = || -> mapleaf::Result<()> {
            let txn = db.begin_write()?;
            let (key, value) = (name(&self.key), name(&self.value));
            let order = if self.descending { KeyOrder::Descending } else { KeyOrder::Bytewise };
            match self.multimap {
                true => {
                    let fixed_bytes = self.value.as_ref().and_then(Type::fixed_bytes).filter(|&bytes| bytes > 0);
                    drop(txn.create_multi_table(&self.name, &key, &value, fixed_bytes)?);
                }
                false => drop(txn.create_table_in_order(&self.name, &key, &value, &order)?),
            }
            txn.commit()
        };
        create().map_err(|error| Failure::of_database(error, &self.file.path))?;
        Ok(Exit::Done)
    }

    /// Refuses a key type whose shortest key is longer than a key can be.
    fn refuse_long_keys(&self) -> Result<(), Failure> {
        let Some(key) = &self.key else { return Ok(()) };
        let limit = MAX_KEY_BYTES as u64;
        match key.least_bytes() > limit {
            true => Err(Failure::usage(format!(
                "{}: --key: keys of type {} have {} bytes or more, and a key may have {limit}",
                self.file.path.display(),
                key.name(),
                key.least_bytes()
            ))),
            false => Ok(()),
        }
    }
}

impl Discard {
    /// Drops the table, or removes its entries.
    fn run(self, drops: bool) -> Outcome {
        let (path, name) = (&self.file.path, &self.name);
        let failed = |error| Failure::of_database(error, path);
        let db = open_with_table(path, name)?;
        let entries = count_of(&db, name, path)?;
        if entries > 0 && !self.accepted.yes {
            let does = if drops { "drop" } else { "clear" };
            let entries = count(entries, "entry");
            let question = format!("{does} table '{name}' with {entries}?");
            let unchanged = format!("{}: not changed", path.display());
            confirm::ask(&question, &unchanged, &format!("removes {entries} of table '{name}'"))?;
        }
        let mut txn = db.begin_write().map_err(failed)?;
        // The table may have gone while the user was asked.
        if txn.table_info(name).map_err(failed)?.is_none() {
            return Err(open::no_table(name, path));
        }
        match drops {
            true => drop(txn.drop_table(name).map_err(failed)?),
            false => {
                let mut table = AnyTableMut::open(&txn, name).map_err(failed)?;
                table.delete_range((Bound::Unbounded, Bound::Unbounded)).map_err(failed)?;
            }
        }
        txn.commit().map_err(failed)?;
        Ok(Exit::Done)
    }
}

impl Rename {
    fn run(self) -> Outcome {
        let (path, name) = (&self.file.path, &self.name);
        let failed = |error| Failure::of_database(error, path);
        let db = open_with_table(path, name)?;
        let mut txn = db.begin_write().map_err(failed)?;
        txn.rename_table(name, &self.to).map_err(failed)?;
        txn.commit().map_err(failed)?;
        Ok(Exit::Done)
    }
}

/// Opens a database for writing that has this table.
fn open_with_table(path: &Path, name: &str) -> Result<Db, Failure> {
    let Some(db) = open::if_exists(path)? else {
        let text = format!("{}: no table '{name}', because there is no such file; check the path", path.display());
        return Err(Failure::new(Exit::No, text));
    };
    let found = db.begin_read().and_then(|txn| txn.table_info(name));
    match found.map_err(|error| Failure::of_database(error, path))? {
        Some(_) => Ok(db),
        None => Err(open::no_table(name, path)),
    }
}

fn count_of(db: &Db, name: &str, path: &Path) -> Result<u64, Failure> {
    let info = db.begin_read().and_then(|txn| txn.table_info(name));
    Ok(info.map_err(|error| Failure::of_database(error, path))?.map_or(0, |info| info.entries))
}

fn list(file: &Path, json: bool) -> Outcome {
    let db = open::read_only(file)?;
    let failed = |error| Failure::of_database(error, file);
    let tables = db.begin_read().map_err(failed)?.tables().map_err(failed)?;
    let mut output = Output::stdout();
    if json {
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

fn write_line(table: &TableInfo, line: &mut Vec<u8>) {
    tsv::escape_key(table.name.as_bytes(), line);
    line.extend(format!("\t{}\t{}\t", table.entries, table.height).into_bytes());
    tsv::escape(table.key_codec.as_bytes(), line);
    line.push(b'\t');
    tsv::escape(table.value_codec.as_bytes(), line);
    line.push(b'\n');
}

/// The name of the order of the keys: that of a comparison, or `bytewise` or `descending`.
fn order_of(table: &TableInfo) -> &str {
    match &table.key_order {
        KeyOrder::Named(name) => name,
        KeyOrder::Descending => "descending",
        _ => "bytewise",
    }
}

fn json_of(table: &TableInfo) -> Value {
    json!({
        "name": table.name,
        "entries": table.entries,
        "height": table.height,
        "key_codec": table.key_codec,
        "value_codec": table.value_codec,
        "tree_id": table.tree_id,
        "multimap": table.is_multimap,
        "key_order": order_of(table),
    })
}
