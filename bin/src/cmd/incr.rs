//! `incr`: adds to a number, in one transaction, and prints the sum.

use std::ffi::OsString;

use mapleaf::Db;

use crate::cmd::args::{CreatedFile, Encoding, Key, TableName};
use crate::database::any_table::plain_to_write;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::{Columns, Field};
use crate::terminal::output::Output;

const EXAMPLES: &str = "\
Examples:
  kvctl incr app.mapleaf visits
  kvctl incr app.mapleaf -t stock apples -12
  kvctl incr app.mapleaf -t weights ada 0.5

Adds BY to the number of KEY and prints the sum; an absent key counts as 0. Values are whole numbers, or numbers such as 1.5
in a table with values of type f32 or f64. In a table without types, or of type str or bytes, they are decimal digits. A sum
that does not fit the type is refused, and nothing changes. Processes that add at the same time lose nothing.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("hex", |arg| arg.help("KEY is hexadecimal")))]
#[command(mut_arg("base64", |arg| arg.help("KEY is base64")))]
pub(crate) struct Args {
    #[command(flatten)]
    file: CreatedFile,
    #[command(flatten)]
    key: Key,
    /// Number to add, which may be negative
    #[arg(allow_negative_numbers = true, default_value = "1")]
    by: OsString,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let key = self.encoding.decode(&self.key.text)?;
        let db = open::or_create(&self.file.path)?;
        let sum = self.add(&db, &key).map_err(|failure| failure.of_file(&self.file.path))?;
        let mut output = Output::stdout();
        output.write(format!("{sum}\n").as_bytes())?;
        output.finish()?;
        Ok(Exit::Done)
    }

    fn add(&self, db: &Db, key: &[u8]) -> Result<String, Failure> {
        let mut txn = db.begin_write()?;
        let columns = Columns::of_write(&mut txn, &self.table.name)?;
        let key = columns.key.given(self.encoding, key)?;
        let mut table = plain_to_write(&txn, &self.table.name, "incr")?;
        let old = table.get(&key)?.map(|value| value.to_vec());
        let sum = columns.value.sum(old.as_deref(), self.by.as_encoded_bytes())?;
        table.put(&key, &columns.value.stored(Field::Text(sum.as_bytes()))?)?;
        txn.commit()?;
        Ok(sum)
    }
}
