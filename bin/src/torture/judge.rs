//! The judging child: compares a database with its plan.
//!
//! If there were only kills, the file must open, `check` must find nothing, and counters, tables
//! and entries must be exactly those of one state of the plan. In a damaged copy, each answer must
//! be correct or a typed error. The judge prints its verdict as one JSON object; its exit code says
//! only whether it printed one. The parent checks that the judge answers in time and does not die.

use std::collections::BTreeMap;
use std::path::Path;

use mapleaf::{Db, Error, ErrorKind, Options, ReadTable, ReadTxn};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Outcome};
use crate::terminal::output::Output;
use crate::torture::plan::{Contents, Plan, PlannedValue, COUNTERS};

/// The result of judging a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// The file holds exactly the state after this transaction of this plan.
    State { number: u64, seed: u64 },
    /// The file does not exist or has no tables: nothing was committed yet.
    Nothing,
    /// Opening failed with an error for damaged files.
    Refused(String),
    /// A cut copy was recovered to the older state that the error named. It holds exactly the state
    /// after this transaction.
    Recovered { number: u64, seed: u64 },
    /// The copy opened. At least one answer was an error for damaged files; all others were
    /// correct.
    Errors(String),
    /// The file is a database of another program, or not a database.
    Foreign(String),
    /// The kernel refused to open or read the file.
    Cannot(String),
    /// Data is lost or wrong.
    Violation(String),
}

/// The checks that a file must pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode {
    /// Open it for writing, which recovers it; else read-only.
    pub(crate) writes: bool,
    /// It is a damaged copy: errors for damaged files are correct answers.
    pub(crate) damaged: bool,
    /// The newest transaction that was begun.
    pub(crate) newest: u64,
}

/// Judges a file and prints the verdict.
pub(crate) fn run(path: &Path, mode: Mode) -> Outcome {
    let verdict = judge(path, mode);
    let mut output = Output::stdout();
    let text = serde_json::to_string(&verdict).unwrap_or_default();
    output.write(format!("{text}\n").as_bytes())?;
    output.finish()?;
    Ok(Exit::Done)
}

/// The reason why a database does not match its plan.
enum Mismatch {
    Foreign(String),
    Violation(String),
    Error(Error),
}

impl From<Error> for Mismatch {
    fn from(error: Error) -> Mismatch {
        Mismatch::Error(error)
    }
}

fn violation(text: impl Into<String>) -> Mismatch {
    Mismatch::Violation(text.into())
}

/// Judges a file.
pub(crate) fn judge(path: &Path, mode: Mode) -> Verdict {
    let db = match Options::new().read_only(!mode.writes).create(false).open(path) {
        Ok(db) => db,
        Err(Error::Truncated { whole: Some(_), .. }) if mode.writes && mode.damaged => return recovered(path, mode),
        Err(error) => return not_opened(&error, mode),
    };
    let first = compare_all(&db, mode);
    if mode.writes && mode.damaged {
        // Writing to a damaged copy may fail, but entries that were correct must stay correct.
        return match write_probe(&db) {
            Ok(()) => worse_of(first, compare_all(&db, mode)),
            Err(error) => worse_of(first, verdict_of_error(&error, mode)),
        };
    }
    first
}

/// Recovers a cut copy to the state that the error named. That state must be exact, clean and
/// writable.
fn recovered(path: &Path, mode: Mode) -> Verdict {
    let exact = Mode { damaged: false, ..mode };
    let db = match Options::new().recover(true).create(false).open(path) {
        Ok(db) => db,
        Err(error) => return verdict_of_error(&error, exact),
    };
    match compare_all(&db, exact) {
        Verdict::State { number, seed } => match write_probe(&db).and_then(|()| first_finding(&db)) {
            Ok(None) => Verdict::Recovered { number, seed },
            Ok(Some(finding)) => Verdict::Violation(format!("check after a recovery: {finding}")),
            Err(error) => verdict_of_error(&error, exact),
        },
        other => other,
    }
}

fn not_opened(error: &Error, mode: Mode) -> Verdict {
    match error.kind() {
        ErrorKind::NotFound => Verdict::Nothing,
        kind if mode.damaged && says_damage(kind) => Verdict::Refused(error.to_string()),
        ErrorKind::NotADatabase => Verdict::Foreign(error.to_string()),
        _ => verdict_of_error(error, mode),
    }
}

/// The verdict for an error of the library.
fn verdict_of_error(error: &Error, mode: Mode) -> Verdict {
    match error.kind() {
        kind if mode.damaged && says_damage(kind) => Verdict::Errors(error.to_string()),
        ErrorKind::Io | ErrorKind::DiskFull | ErrorKind::Permission | ErrorKind::Locked | ErrorKind::Busy => {
            Verdict::Cannot(error.to_string())
        }
        _ => Verdict::Violation(error.to_string()),
    }
}

/// Whether an error of this kind is a correct answer for a damaged copy.
fn says_damage(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotADatabase
            | ErrorKind::NewerVersion
            | ErrorKind::EmptyFile
            | ErrorKind::Truncated
            | ErrorKind::Corrupt
            | ErrorKind::Fault
            | ErrorKind::Poisoned
    )
}

/// The worse of two verdicts on one damaged copy.
fn worse_of(first: Verdict, second: Verdict) -> Verdict {
    match (&first, &second) {
        (Verdict::Violation(_) | Verdict::Cannot(_), _) | (_, Verdict::State { .. } | Verdict::Nothing) => first,
        _ => second,
    }
}

/// Compares everything in an open database with its plan.
fn compare_all(db: &Db, mode: Mode) -> Verdict {
    let judged = db.begin_read().map_err(Mismatch::from).and_then(|txn| {
        let mut first_error = None;
        let found = compare(&txn, mode, &mut first_error)?;
        match first_error {
            Some(error) => Err(Mismatch::Error(error)),
            None => Ok(found),
        }
    });
    match judged {
        Ok(Some((plan, number))) => match first_finding(db) {
            // Only `check` finds a flipped bit that no read needs: in one of the two copies of a
            // record in its meta page, or in a free page.
            Ok(Some(finding)) if mode.damaged => Verdict::Errors(finding),
            Ok(Some(finding)) => Verdict::Violation(format!("check: {finding}")),
            Ok(None) => Verdict::State { number, seed: plan.seed },
            Err(error) => verdict_of_error(&error, mode),
        },
        Ok(None) => Verdict::Nothing,
        Err(Mismatch::Foreign(text)) => Verdict::Foreign(text),
        Err(Mismatch::Violation(text)) => Verdict::Violation(text),
        Err(Mismatch::Error(error)) => verdict_of_error(&error, mode),
    }
}

fn first_finding(db: &Db) -> mapleaf::Result<Option<String>> {
    Ok(db.check()?.findings.first().map(ToString::to_string))
}

/// Commits a small change, as any program may.
fn write_probe(db: &Db) -> mapleaf::Result<()> {
    let txn = db.begin_write()?;
    txn.bytes_table(PROBE)?.insert(b"key", &[7; 5000])?;
    txn.commit()
}

/// The table that the judge creates in a damaged copy.
const PROBE: &str = "probe";

/// The plan and the number of the newest transaction, from the database. `None` if it has no
/// tables.
pub(crate) fn counters(db: &Db) -> mapleaf::Result<Option<(Plan, u64)>> {
    let txn = db.begin_read()?;
    if txn.tables()?.is_empty() {
        return Ok(None);
    }
    let number = |name: &str| read_counter(&txn, name);
    match (number("seed")?, number("keys")?, number("transaction")?) {
        (Some(seed), Some(keys), Some(transaction)) => Ok(Some((Plan { seed, keys }, transaction))),
        _ => Err(Error::Usage { what: FOREIGN.to_string() }),
    }
}

const FOREIGN: &str = "not made by 'kvctl torture'; give the path of a file that does not exist";

fn read_counter(txn: &ReadTxn, name: &str) -> mapleaf::Result<Option<u64>> {
    let table = txn.bytes_table(COUNTERS)?;
    let number = table.get(name.as_bytes())?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    Ok(number)
}

/// Compares the database with its plan. In a damaged copy, it continues after an error, and stores
/// the first one in `first_error`.
fn compare(txn: &ReadTxn, mode: Mode, first_error: &mut Option<Error>) -> Result<Option<(Plan, u64)>, Mismatch> {
    let mut names: Vec<String> = txn.tables()?.into_iter().map(|table| table.name).collect();
    if names.is_empty() {
        return Ok(None);
    }
    names.retain(|name| name != PROBE || !mode.damaged);
    let (Some(seed), Some(keys), Some(number)) =
        (read_counter(txn, "seed")?, read_counter(txn, "keys")?, read_counter(txn, "transaction")?)
    else {
        return Err(Mismatch::Foreign(FOREIGN.to_string()));
    };
    if number > mode.newest {
        return Err(violation(format!("transaction {number} was never begun, the newest is {}", mode.newest)));
    }
    let plan = Plan { seed, keys };
    let state = plan.state(number);
    let mut expected: Vec<&str> = state.keys().copied().chain([COUNTERS]).collect();
    expected.sort_unstable();
    if names != expected {
        return Err(violation(format!(
            "after transaction {number} of seed {seed}: tables {names:?}, expected {expected:?}"
        )));
    }
    compare_tables(txn, &state, mode, first_error).map_err(|mismatch| match mismatch {
        Mismatch::Violation(text) => violation(format!("after transaction {number} of seed {seed}: {text}")),
        other => other,
    })?;
    Ok(Some((plan, number)))
}

fn compare_tables(
    txn: &ReadTxn,
    state: &Contents,
    mode: Mode,
    first_error: &mut Option<Error>,
) -> Result<(), Mismatch> {
    for (name, entries) in state {
        let table = txn.bytes_table(name)?;
        if table.len() != entries.len() as u64 {
            return Err(violation(format!("table {name}: {} entries, expected {}", table.len(), entries.len())));
        }
        compare_in_order(&table, entries.iter(), table.iter(), first_error)?;
        if mode.damaged {
            compare_in_order(&table, entries.iter().rev(), table.iter().rev(), first_error)?;
            compare_each_key(&table, entries, first_error)?;
        }
        if let (false, Some(error)) = (mode.damaged, first_error.take()) {
            return Err(violation(error.to_string()));
        }
    }
    Ok(())
}

type Bytes = ReadTable<&'static [u8], &'static [u8]>;
type Entries = BTreeMap<Vec<u8>, PlannedValue>;

/// Compares the entries of an iteration with the expected ones, up to the first error.
fn compare_in_order<'t>(
    table: &Bytes,
    mut expected: impl Iterator<Item = (&'t Vec<u8>, &'t PlannedValue)>,
    found: impl Iterator<Item = mapleaf::Result<(&'t [u8], &'t [u8])>>,
    first_error: &mut Option<Error>,
) -> Result<(), Mismatch> {
    for item in found {
        let (key, value) = match item {
            Ok(item) => item,
            Err(error) => {
                first_error.get_or_insert(error);
                return Ok(());
            }
        };
        compare_entry(table, expected.next(), key, value)?;
    }
    match expected.next() {
        Some((key, _)) => Err(violation(format!("table {}: {} is missing", table.name(), shown(key)))),
        None => Ok(()),
    }
}

fn compare_entry(
    table: &Bytes,
    expected: Option<(&Vec<u8>, &PlannedValue)>,
    key: &[u8],
    value: &[u8],
) -> Result<(), Mismatch> {
    let Some((expected_key, expected_value)) = expected.filter(|(expected, _)| expected.as_slice() == key) else {
        return Err(violation(format!("table {}: {} is unexpected", table.name(), shown(key))));
    };
    if expected_value.bytes() != value {
        return Err(violation(format!("table {}: wrong value of {}", table.name(), shown(expected_key))));
    }
    Ok(())
}

/// Looks up each key. An error in one page is no excuse for wrong entries in others.
fn compare_each_key(table: &Bytes, entries: &Entries, first_error: &mut Option<Error>) -> Result<(), Mismatch> {
    for (key, value) in entries {
        match table.get(key) {
            Ok(Some(found)) => compare_entry(table, Some((key, value)), key, found)?,
            Ok(None) => return Err(violation(format!("table {}: {} is not found", table.name(), shown(key)))),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    Ok(())
}

fn shown(key: &[u8]) -> String {
    format!("key '{}'", String::from_utf8_lossy(key).trim_end_matches('.').escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::writer;

    const EXACT: Mode = Mode { writes: false, damaged: false, newest: 5 };
    const PLAN: Plan = Plan { seed: 3, keys: 64 };

    /// The verdict on a database with five transactions of the plan, and the change of `spoil`.
    fn judged(spoil: impl FnOnce(&mut mapleaf::WriteTxn)) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let db = Db::open(&path).unwrap();
        db.write(|txn| writer::mark(txn, PLAN)).unwrap();
        for number in 1..=5 {
            db.write(|txn| writer::execute(txn, PLAN, number)).unwrap();
        }
        let mut txn = db.begin_write().unwrap();
        spoil(&mut txn);
        txn.commit().unwrap();
        drop(db);
        judge(&path, EXACT)
    }

    fn a_key() -> (&'static str, Vec<u8>) {
        let state = PLAN.state(5);
        let (name, entries) = state.iter().find(|(_, entries)| !entries.is_empty()).unwrap();
        (name, entries.keys().next().unwrap().clone())
    }

    #[test]
    fn a_state_of_the_plan_is_recognised() {
        assert_eq!(judged(|_| ()), Verdict::State { number: 5, seed: 3 });
    }

    #[test]
    fn any_difference_from_the_plan_is_a_violation() {
        let (table, key) = a_key();
        let violates = |spoil: &dyn Fn(&mut mapleaf::WriteTxn)| {
            let verdict = judged(|txn| spoil(txn));
            assert!(matches!(verdict, Verdict::Violation(_)), "{verdict:?}");
        };
        violates(&|txn| drop(txn.bytes_table(COUNTERS).unwrap().insert(b"transaction", &6u64.to_be_bytes()).unwrap()));
        violates(&|txn| drop(txn.bytes_table(table).unwrap().remove(&key).unwrap()));
        violates(&|txn| drop(txn.bytes_table(table).unwrap().insert(&key, b"other").unwrap()));
        violates(&|txn| drop(txn.bytes_table(table).unwrap().insert(b"more", b"").unwrap()));
        violates(&|txn| {
            txn.bytes_table("more").unwrap();
        });
        violates(&|txn| assert!(txn.drop_table(table).unwrap()));
        violates(&|txn| drop(txn.bytes_table(COUNTERS).unwrap().insert(b"transaction", &4u64.to_be_bytes()).unwrap()));
    }

    #[test]
    fn a_cut_copy_recovers_to_a_state_of_the_plan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let db = Db::open(&path).unwrap();
        db.write(|txn| writer::mark(txn, PLAN)).unwrap();
        let mut numbers = 1..=200;
        // Commits until one makes the file so much longer that the previous state does not need its
        // end.
        let (number, cut) = loop {
            let number = numbers.next().expect("a commit that appends");
            db.write(|txn| writer::execute(txn, PLAN, number)).unwrap();
            let cut = folder.path().join("cut");
            std::fs::copy(&path, &cut).unwrap();
            let file = std::fs::File::options().write(true).open(&cut).unwrap();
            file.set_len((db.stats().unwrap().page_count - 1) * 4096).unwrap();
            let opened = Options::new().read_only(true).open(&cut);
            if matches!(opened, Err(Error::Truncated { whole: Some(_), .. })) {
                break (number, cut);
            }
        };
        let damaged = Mode { damaged: true, newest: number, ..EXACT };
        assert!(matches!(judge(&cut, damaged), Verdict::Refused(_)), "reading changes nothing");
        let verdict = judge(&cut, Mode { writes: true, ..damaged });
        assert_eq!(verdict, Verdict::Recovered { number: number - 1, seed: PLAN.seed });
    }

    #[test]
    fn a_database_of_another_program_is_foreign() {
        let verdict = judged(|txn| assert!(txn.drop_table(COUNTERS).unwrap()));
        assert!(matches!(verdict, Verdict::Foreign(_)), "{verdict:?}");
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, [b'x'; 100]).unwrap();
        assert!(matches!(judge(&text, EXACT), Verdict::Foreign(_)));
        assert_eq!(judge(&folder.path().join("none"), EXACT), Verdict::Nothing);
    }
}
