//! `put`: stores one value under one key, in one transaction.

use std::ffi::OsString;

use mapleaf::Db;

use crate::cmd::args::{CreatedFile, Encoding, GivenValue, Key, TableName};
use crate::database::any_table::AnyTableMut;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::Columns;

const EXAMPLES: &str = "\
Examples:
  kvctl put app.mapleaf ada 'Ada Lovelace'
  kvctl put app.mapleaf logo @logo.png
  date | kvctl put app.mapleaf last-run -
  kvctl put app.mapleaf -t born grace 1906
  kvctl put app.mapleaf --hex 00ff c0ffee

KEY and VALUE are text of the types of the table: 'kvctl tables' shows these types, 'kvctl help' describes their text. A
missing table is created without types. In a multimap table, VALUE is added to the values of KEY. Bytes that the table's codec cannot decode are refused, also with --hex, --base64
and --raw. Standard input and files are stored unchanged, except that a final line feed is dropped for numbers and other
one-line types. To store a value that is '-' or starts with '@', pass it through standard input. Write '--' before other
arguments that start with '-'.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    file: CreatedFile,
    #[command(flatten)]
    key: Key,
    /// Value, '-' for standard input, or '@PATH' for the content of a file
    #[arg(allow_negative_numbers = true)]
    value: OsString,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
    /// Store the bytes of VALUE unchanged: neither text of its type nor --hex or --base64 digits
    #[arg(long)]
    raw: bool,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let key = self.encoding.decode(&self.key.text)?;
        let value = GivenValue::read(&self.value, self.encoding, self.raw)?;
        let db = open::or_create(&self.file.path)?;
        self.put(&db, &key, &value).map_err(|failure| failure.of_file(&self.file.path))?;
        Ok(Exit::Done)
    }

    fn put(&self, db: &Db, key: &[u8], value: &GivenValue) -> Result<(), Failure> {
        let mut txn = db.begin_write()?;
        let columns = Columns::of_write(&mut txn, &self.table.name)?;
        let key = columns.key.given(self.encoding, key)?;
        let value = value.stored(&columns.value)?;
        AnyTableMut::open(&txn, &self.table.name)?.put(&key, &value)?;
        Ok(txn.commit()?)
    }
}
