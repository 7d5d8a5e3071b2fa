//! `cas`: stores a value if the present one is as expected, in one transaction.

use std::ffi::OsString;

use mapleaf::Db;

use crate::cmd::args::{CreatedFile, Encoding, GivenValue, Key, TableName};
use crate::database::any_table::plain_to_write;
use crate::database::open;
use crate::exit::{Exit, Failure, Outcome};
use crate::format::columns::Columns;
use crate::terminal::output;

const EXAMPLES: &str = "\
Examples:
  kvctl cas app.mapleaf leader host-1 host-2
  kvctl cas app.mapleaf --absent leader host-1
  kvctl cas app.mapleaf -t logos logo @old.png @new.png

Stores NEW under KEY if its value is OLD, or with --absent, if there is no such key. Else it exits with 1 and changes
nothing. Both values are given as in put, and compared as stored bytes. 'kvctl txn' checks and changes several keys.
";

#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(
    override_usage = "kvctl cas [OPTIONS] <FILE> <KEY> <OLD> <NEW>\n       kvctl cas [OPTIONS] --absent <FILE> <KEY> <NEW>"
)]
pub(crate) struct Args {
    #[command(flatten)]
    file: CreatedFile,
    #[command(flatten)]
    key: Key,
    /// Expected value, given as in put
    #[arg(allow_negative_numbers = true)]
    old: OsString,
    /// New value; with --absent, it takes the place of OLD
    #[arg(allow_negative_numbers = true)]
    new: Option<OsString>,
    /// Store only if there is no such key
    #[arg(long)]
    absent: bool,
    #[command(flatten)]
    table: TableName,
    #[command(flatten)]
    encoding: Encoding,
    /// Compare and store the bytes of OLD and NEW unchanged: neither text of their type nor --hex
    /// or --base64 digits
    #[arg(long)]
    raw: bool,
}

/// Why nothing was stored.
enum Refused {
    Present,
    Absent,
    Other,
}

impl Args {
    pub(crate) fn run(self) -> Outcome {
        let key = self.encoding.decode(&self.key.text)?;
        let (old, new) = self.read_values()?;
        let swapped = match self.absent {
            true => {
                let db = open::or_create(&self.file.path)?;
                self.swap(&db, &key, None, &new)
            }
            false => match open::if_exists(&self.file.path)? {
                Some(db) => self.swap(&db, &key, old.as_ref(), &new),
                None => Ok(Some(Refused::Absent)),
            },
        };
        let name = &self.table.name;
        let why = match swapped.map_err(|failure| failure.of_file(&self.file.path))? {
            None => return Ok(Exit::Done),
            Some(Refused::Present) => format!("the key exists already in table '{name}'"),
            Some(Refused::Absent) => format!("no such key in table '{name}'"),
            Some(Refused::Other) => format!("the key has another value in table '{name}'; 'kvctl get' shows it"),
        };
        output::error(&format!("{}: {why}", self.file.path.display()));
        Ok(Exit::No)
    }

    /// The expected value, unless `--absent` is given, and the new one.
    fn read_values(&self) -> Result<(Option<GivenValue>, GivenValue), Failure> {
        let read = |argument: &OsString| GivenValue::read(argument, self.encoding, self.raw);
        match (&self.old, &self.new, self.absent) {
            (new, None, true) => Ok((None, read(new)?)),
            (old, Some(new), false) if old != "-" || new != "-" => Ok((Some(read(old)?), read(new)?)),
            (_, Some(_), false) => Err(Failure::usage("OLD and NEW cannot both come from standard input; use '@PATH'")),
            (_, Some(_), true) => Err(Failure::usage("--absent takes only the new value; leave OLD out")),
            (_, None, false) => Err(Failure::usage("NEW is missing; give OLD and NEW, or --absent and NEW")),
        }
    }

    /// Stores the new value. Returns why not, if the present one is not as expected.
    fn swap(
        &self,
        db: &Db,
        key: &[u8],
        old: Option<&GivenValue>,
        new: &GivenValue,
    ) -> Result<Option<Refused>, Failure> {
        let mut txn = db.begin_write()?;
        let columns = Columns::of_write(&mut txn, &self.table.name)?;
        let key = columns.key.given(self.encoding, key)?;
        let old = old.map(|old| old.stored(&columns.value)).transpose()?;
        let new = new.stored(&columns.value)?;
        let mut table = plain_to_write(&txn, &self.table.name, "cas")?;
        match (table.get(&key)?, old.as_deref()) {
            (Some(_), None) => return Ok(Some(Refused::Present)),
            (None, Some(_)) => return Ok(Some(Refused::Absent)),
            (Some(found), Some(expected)) if found != expected => return Ok(Some(Refused::Other)),
            _ => {}
        }
        table.put(&key, &new)?;
        txn.commit()?;
        Ok(None)
    }
}
