//! `--scratch`: the verb changes only memory, and what it would change in the file is printed.
//!
//! A verb opens the database as always; while scratch mode is on, `open` opens it to scratch and
//! leaves it here with a snapshot of the time before. When the verb has ended, [`report`] compares
//! both and prints the difference as a batch of `txn`, table by table in key order.
//!
//! Failure: those of reading the database and of writing standard output.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use mapleaf::{Db, Options, ReadTxn, TableInfo};

use crate::exit::Failure;
use crate::format::columns::{Columns, RowText};
use crate::format::tsv;
use crate::terminal::output::Output;

/// The database that the verb has opened.
struct Opened {
    path: PathBuf,
    db: Db,
    before: ReadTxn,
}

static MODE: OnceLock<Mutex<Option<Opened>>> = OnceLock::new();

/// Turns scratch mode on, for all databases that are opened for writing from now on.
pub(crate) fn begin() {
    MODE.get_or_init(Mutex::default);
}

/// Whether scratch mode is on.
pub(crate) fn is_on() -> bool {
    MODE.get().is_some()
}

/// Opens a database to scratch; `None` if scratch mode is off.
pub(crate) fn open(path: &Path) -> Option<mapleaf::Result<Db>> {
    let mode = MODE.get()?;
    let opened = Options::new().scratch(true).open(path).and_then(|db| {
        let opened = Opened { path: path.to_path_buf(), before: db.begin_read()?, db: db.clone() };
        *mode.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        Ok(db)
    });
    Some(opened)
}

/// Prints what the verb would have changed in the file.
pub(crate) fn report() -> Result<(), Failure> {
    let opened = MODE.get().and_then(|mode| mode.lock().unwrap_or_else(PoisonError::into_inner).take());
    let Some(Opened { path, db, before }) = opened else { return Ok(()) };
    let mut output = Output::stdout();
    let reported = report_of(&before, &db, &mut output).map_err(|failure| failure.of_file(&path));
    reported.and_then(|()| output.finish())
}

fn report_of(before: &ReadTxn, db: &Db, output: &mut Output) -> Result<(), Failure> {
    let after = db.begin_read()?;
    let (old, new) = (before.tables()?, after.tables()?);
    let has = |tables: &[TableInfo], name: &str| tables.iter().any(|table| table.name == name);
    for table in &old {
        if !has(&new, &table.name) {
            output.write(&about("table", &table.name, "would be gone"))?;
        }
    }
    for table in &new {
        if !has(&old, &table.name) {
            output.write(&about("table", &table.name, "would be new"))?;
        }
        compare(before, &after, table, output)?;
    }
    Ok(())
}

/// A comment line, which `txn` skips.
fn about(what: &str, name: &str, change: &str) -> Vec<u8> {
    let mut line = format!("# {what}\t").into_bytes();
    tsv::escape(name.as_bytes(), &mut line);
    line.extend_from_slice(format!("\t{change}\n").as_bytes());
    line
}

/// Writes the entries of a table that differ.
fn compare(before: &ReadTxn, after: &ReadTxn, info: &TableInfo, output: &mut Output) -> Result<(), Failure> {
    let (old, new) = (before.bytes_table(&info.name)?, after.bytes_table(&info.name)?);
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let columns = Columns::new(&info.name, Some(info));
    let (mut texts, mut is_first) = (RowText::new(&columns), true);
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(()),
            (Some(Ok((old, _))), Some(Ok((new, _)))) => old.cmp(new),
            (Some(_), None) | (Some(Err(_)), _) => std::cmp::Ordering::Less,
            (None, Some(_)) | (_, Some(Err(_))) => std::cmp::Ordering::Greater,
        };
        let gone = if order.is_le() { old.next().transpose()? } else { None };
        let stored = if order.is_ge() { new.next().transpose()? } else { None };
        if gone == stored {
            continue;
        }
        let mut line = Vec::new();
        if std::mem::take(&mut is_first) {
            line.extend_from_slice(b"table\t");
            tsv::escape(info.name.as_bytes(), &mut line);
            line.push(b'\n');
        }
        match (gone, stored) {
            (_, Some((key, value))) => {
                line.extend_from_slice(b"put\t");
                let (key, value) = texts.both(key, value);
                tsv::write_row(key, value, &mut line);
            }
            (Some((key, _)), None) => {
                line.extend_from_slice(b"del\t");
                tsv::write_key(texts.key(key), &mut line);
                line.push(b'\n');
            }
            (None, None) => {}
        }
        output.write(&line)?;
    }
}
