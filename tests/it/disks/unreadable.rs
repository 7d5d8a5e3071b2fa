//! Pages that cannot be read: 300 of them, one at a time and all at once, with every kind of read.
//!
//! A read that needs such a page fails with an error that names the page; all other reads return
//! right data.

use std::collections::BTreeMap;
use std::path::Path;

use mapleaf::testing::{latest_txn, log_content};
use mapleaf::{Db, Error, ErrorKind, Options, Table};

use super::fuse::{Faulty, Plan};
use super::skipped;
use crate::processes::member::{is_failure, Member};
use crate::reexec;
use crate::support::{bytes, long, seed, Rng};
use crate::workload::fast_dir;

const DATA: Table<u64, &[u8]> = Table::new("data");
const NAME: &str = "test.mapleaf";
const PAGE_BYTES: u64 = 4096;
const KEYS: u64 = 1200;

fn value_of(key: u64) -> Vec<u8> {
    bytes(key, if key.is_multiple_of(50) { 20_000 } else { 200 + (key % 9 * 150) as usize })
}

/// The bytes of a database with pages of every kind, also free ones.
fn database() -> Vec<u8> {
    let dir = fast_dir();
    let path = dir.path().join(NAME);
    let db = Db::open(&path).expect("a database");
    for from in (0..KEYS + 200).step_by(200) {
        let insert = |key: u64| db.write(|txn| txn.table(DATA)?.insert(key, &value_of(key)).map(drop));
        (from..from + 200).step_by(100).for_each(|key| insert(key).expect("insert"));
        db.write(|txn| -> mapleaf::Result<()> {
            (from..from + 200).try_for_each(|key| txn.table(DATA)?.insert(key, &value_of(key)).map(drop))
        })
        .expect("write");
    }
    db.write(|txn| -> mapleaf::Result<()> {
        (KEYS..KEYS + 200).try_for_each(|key| txn.table(DATA)?.remove(key).map(drop))
    })
    .expect("remove");
    drop(db);
    std::fs::read(&path).expect("its bytes")
}

/// The counts of one round of reads.
#[derive(Default)]
struct Round {
    read: u64,
    refused: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

impl Round {
    /// Asserts that an error names the unreadable page.
    fn refused(&mut self, call: &str, error: &Error) {
        let typed = matches!(error.kind(), ErrorKind::Fault | ErrorKind::Io | ErrorKind::Poisoned);
        if !typed {
            self.wrong.push(format!("{call}: {:?}: {error}", error.kind()));
        }
        *self.refused.entry(format!("{:?}", error.kind())).or_default() += 1;
    }

    fn get(&mut self, db: &Db, key: u64) {
        let got = db.begin_read().and_then(|txn| txn.table(DATA)?.get(key).map(|value| value.map(<[u8]>::to_vec)));
        match got {
            Ok(value) if value == Some(value_of(key)) => self.read += 1,
            Ok(value) => self.wrong.push(format!("get {key} gives {:?} bytes", value.map(|value| value.len()))),
            Err(error) => self.refused("get", &error),
        }
    }

    /// Batches of lookups: an error, or all values.
    fn batches(&mut self, db: &Db) {
        let table = match db.begin_read().and_then(|txn| txn.table(DATA)) {
            Ok(table) => table,
            Err(error) => return self.refused("table", &error),
        };
        let keys: Vec<u64> = (0..KEYS).map(|key| key * 7 % KEYS).collect();
        for keys in keys.chunks(100) {
            match table.multi_get(keys.iter().copied()) {
                Err(error) => self.refused("multi_get", &error),
                Ok(found) => {
                    for (&key, value) in keys.iter().zip(found) {
                        match value == Some(&value_of(key)[..]) {
                            true => self.read += 1,
                            false => self.wrong.push(format!("multi_get gives something else for {key}")),
                        }
                    }
                }
            }
        }
    }

    /// Entries in order up to the first error: none is missing before it.
    fn scan(&mut self, db: &Db, backward: bool) {
        let table = match db.begin_read().and_then(|txn| txn.table(DATA)) {
            Ok(table) => table,
            Err(error) => return self.refused("table", &error),
        };
        let mut expected = 0..KEYS;
        let mut entries = table.iter().fill_cache(!backward);
        loop {
            let entry = if backward { entries.next_back() } else { entries.next() };
            match entry {
                Some(Ok((key, value))) => {
                    let next = if backward { expected.next_back() } else { expected.next() };
                    if Some(key) != next || value != value_of(key) {
                        return self.wrong.push(format!("scan gives {key} instead of {next:?}"));
                    }
                    self.read += 1;
                }
                Some(Err(error)) => return self.refused("scan", &error),
                None if expected.is_empty() => return,
                None => return self.wrong.push(format!("scan ends before {expected:?}")),
            }
        }
    }

    /// Reads the table into memory at once: an error, or all of its pages.
    fn warm(&mut self, db: &Db) {
        match db.begin_read().and_then(|txn| txn.table(DATA)?.warm(..)) {
            Err(error) => self.refused("warm", &error),
            Ok(pages) if pages * PAGE_BYTES < KEYS * 200 => self.wrong.push(format!("warm reads {pages} pages")),
            Ok(pages) => self.read += pages,
        }
    }

    fn check(&mut self, db: &Db) {
        match db.check() {
            Ok(report) => self.read += report.pages_checked,
            Err(error) => self.refused("check", &error),
        }
    }

    /// Changes that are aborted: the free pages that they use may be unreadable too.
    fn write(&mut self, db: &Db, seed: u64) {
        let txn = match db.begin_write() {
            Ok(txn) => txn,
            Err(error) => return self.refused("begin_write", &error),
        };
        let mut rng = Rng::new(seed);
        for _ in 0..40 {
            let key = rng.below(KEYS);
            let done = txn.table(DATA).and_then(|mut table| table.insert(key, &value_of(key ^ 1)).map(drop));
            if let Err(error) = done {
                self.refused("insert", &error);
                break;
            }
        }
        txn.abort();
    }
}

fn open(path: &Path, read_only: bool, round: &mut Round) -> Option<Db> {
    Options::new().read_only(read_only).open(path).map_err(|error| round.refused("open", &error)).ok()
}

#[test]
fn unreadable_pages_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let path = Path::new(&arguments[0]);
    while let Some(command) = reexec::listen() {
        let number: u64 = command.parse().expect("a number");
        let mut round = Round::default();
        // Each kind of read takes its turn to be the first to use the page, in a newly opened
        // database.
        match number % 5 {
            0 => {
                if let Some(db) = open(path, true, &mut round) {
                    (0..KEYS).for_each(|key| round.get(&db, key));
                }
            }
            1 => [false, true].into_iter().for_each(|backward| {
                if let Some(db) = open(path, backward, &mut round) {
                    round.scan(&db, backward);
                }
            }),
            2 => {
                if let Some(db) = open(path, true, &mut round) {
                    if number.is_multiple_of(2) {
                        round.warm(&db);
                    }
                    round.batches(&db);
                }
            }
            3 => {
                if let Some(db) = open(path, false, &mut round) {
                    round.check(&db);
                    (0..KEYS).step_by(7).for_each(|key| round.get(&db, key));
                }
            }
            _ => {
                if let Some(db) = open(path, false, &mut round) {
                    round.write(&db, number);
                    (0..KEYS).step_by(7).for_each(|key| round.get(&db, key));
                }
            }
        }
        let refused: Vec<String> = round.refused.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let wrong = round.wrong.first().map_or(String::new(), |wrong| wrong.replace(['\n', '|'], " "));
        reexec::answer(&format!("{}|{}|{wrong}", round.read, refused.join(", ")));
    }
}

/// Runs rounds of reads in children, each with these pages unreadable. Counts the answers and the
/// crashes.
fn rounds(what: &str, content: Vec<u8>, pages_of: impl Fn(u64) -> Vec<u64>, count: u64) {
    let faulty = match Faulty::new(1, &[(NAME, content)]) {
        Ok(faulty) => faulty,
        Err(why) => return skipped(what, &why),
    };
    let start = || reexec::start(reexec::command("disks::unreadable::unreadable_pages_child", &[&faulty.path(NAME)]));
    let (mut read, mut with_errors, mut deaths, mut wrong) = (0, 0, 0, Vec::new());
    let mut child = start();
    for number in 0..count {
        faulty.drop_cache(NAME);
        let pages = pages_of(number);
        let range = |page: &u64| page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        faulty.plan(Plan { unreadable: pages.iter().map(range).collect(), ..Plan::default() });
        child.say(&number.to_string());
        let Some(line) = child.line() else {
            deaths += 1;
            faulty.plan(Plan::default());
            child = start();
            continue;
        };
        faulty.plan(Plan::default());
        let fields: Vec<&str> = line.splitn(3, '|').collect();
        read += fields[0].parse::<u64>().expect("a count");
        with_errors += u64::from(!fields[1].is_empty());
        if !fields[2].is_empty() {
            wrong.push(format!("round {number}, pages {:?}: {}", &pages[..pages.len().min(3)], fields[2]));
        }
    }
    child.kill();
    println!(
        "{what}: {count} rounds, {} requests failed, {with_errors} rounds with errors, {read} reads right, {deaths} deaths, \
         {} wrong",
        faulty.failures(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{what}: {:#?}", &wrong[..wrong.len().min(8)]);
    assert_eq!(deaths, 0, "{what}: deaths");
    assert!(faulty.failures() >= count / 2, "hardly anything was unreadable");
}

#[test]
fn reads_around_each_of_300_unreadable_pages_are_right_or_errors() {
    let mut rng = Rng::new(seed("each of 300 pages"));
    let content = database();
    let pages = content.len() as u64 / PAGE_BYTES;
    // The meta pages first, then randomly chosen pages; no page repeats before all were used.
    let mut others: Vec<u64> = (2..pages).collect();
    for at in (1..others.len()).rev() {
        others.swap(at, rng.below(at as u64 + 1) as usize);
    }
    let metas = (0..8).map(|number| number / 4);
    let chosen: Vec<u64> = metas.chain(others.into_iter().cycle()).take(306 * long() as usize).collect();
    let count = chosen.len() as u64;
    rounds("each of 300 pages", content, |number| vec![chosen[number as usize]], count);
}

#[test]
fn reads_around_300_unreadable_pages_at_once_are_right_or_errors() {
    let seed = seed("300 pages at once");
    let content = database();
    let pages = content.len() as u64 / PAGE_BYTES;
    let chosen = |number: u64| {
        let mut rng = Rng::new(seed ^ number);
        (0..300).map(|_| 2 + rng.below(pages - 2)).collect()
    };
    rounds("300 pages at once", content, chosen, 12);
}

/// An unreadable slot may hold the newest state. Then the older one, whose pages may be reused,
/// must not open instead.
#[test]
fn an_unreadable_meta_page_does_not_bring_back_an_older_state() {
    rounds("metas", database(), |number| vec![number / 4], 8);
}

/// Two processes have the file open, and a page of it cannot be read any more. Each call of both
/// gives right data or an error, and all is there when the page can be read again.
#[test]
fn two_processes_with_an_unreadable_page_get_errors_or_right_data() {
    let dir = fast_dir();
    let path = dir.path().join(NAME);
    let mut maker = Member::open(&path, 0);
    maker.number("fill t 0 1500 500");
    maker.number("fill long 0 8 30000");
    maker.number("put immediate t k 0");
    maker.finish();
    let content = std::fs::read(&path).expect("its bytes");
    let pages = content.len() as u64 / PAGE_BYTES;
    let faulty = match Faulty::new(1, &[(NAME, content)]) {
        Ok(faulty) => faulty,
        Err(why) => return skipped("two processes", &why),
    };
    let mut rng = Rng::new(seed("two processes, an unreadable page"));
    let mut members = [Member::start(&faulty.path(NAME), 0), Member::start(&faulty.path(NAME), 0)];
    let (mut refused, mut right, mut both) = ([0; 2], 0, 0);
    let rounds = 40 * u64::from(long());
    for round in 0..rounds {
        members.iter_mut().for_each(|member| member.expect("open", "ok"));
        if round % 2 == 0 {
            members[round as usize / 2 % 2].number("put immediate t k 0");
            members[0].expect("checkpoint", "ok");
        }
        faulty.drop_cache(NAME);
        let page = 2 + rng.below(pages - 2);
        let unreadable = std::iter::once(page * PAGE_BYTES..(page + 1) * PAGE_BYTES).collect();
        faulty.plan(Plan { unreadable, ..Plan::default() });
        let mut failed = [false; 2];
        for command in ["filled t 0 1500 500", "filled long 0 8 30000", "get t k", "put immediate t k 0", "hash"] {
            for n in [round as usize % 2, 1 - round as usize % 2] {
                let answer = members[n].ask(command);
                if is_failure(&answer, &[ErrorKind::Fault, ErrorKind::Io, ErrorKind::Poisoned]) {
                    (failed[n], refused[n]) = (true, refused[n] + 1);
                } else {
                    let is_right = ["ok", "0"].contains(&answer.as_str()) || answer.starts_with("ok ");
                    assert!(is_right || command == "hash", "page {page}, process {n}, {command}: {answer}");
                    right += 1;
                }
            }
        }
        both += u64::from(failed == [true; 2]);
        faulty.plan(Plan::default());
        faulty.drop_cache(NAME);
        members.iter_mut().for_each(|member| member.expect("close", "ok"));
        for command in ["open", "filled t 0 1500 500", "filled long 0 8 30000", "check", "close"] {
            members[0].expect(command, "ok");
        }
    }
    println!("two processes: {rounds} rounds, {refused:?} calls failed, {right} were right, {both} rounds with errors in both");
    assert!(both > rounds / 8 && right > rounds, "{both} of {rounds} rounds");
}

/// A file that a process with a commit log has left: its bytes, the pages of the log with records,
/// and the newest transaction.
fn unclean() -> (Vec<u8>, Vec<u64>, u64) {
    let dir = fast_dir();
    let path = dir.path().join(NAME);
    let db = Db::open(&path).expect("a database");
    for key in 0..30 {
        db.write(|txn| txn.table(DATA)?.insert(key, &bytes(key, 900)).map(drop)).expect("insert");
    }
    let content = std::fs::read(&path).expect("its bytes");
    let read = |offset: u64, into: &mut [u8]| {
        into.copy_from_slice(&content[offset as usize..offset as usize + into.len()]);
        true
    };
    let log = log_content(&read).expect("a log");
    let pages = log.start / PAGE_BYTES..log.end.div_ceil(PAGE_BYTES);
    (content.clone(), pages.map(|page| log.first + page % log.pages).collect(), latest_txn(&db))
}

#[test]
fn opening_child() {
    let Some(arguments) = reexec::arguments() else { return };
    while let Some(command) = reexec::listen() {
        let opened = Options::new().read_only(command == "read-only").open(Path::new(&arguments[0]));
        let count =
            |db: Db| db.begin_read().and_then(|txn| txn.table(DATA)?.iter().try_fold(0, |n, e| e.map(|_| n + 1)));
        match opened.and_then(count) {
            Ok(entries) => reexec::answer(&format!("{entries} entries")),
            Err(e) => reexec::answer(&format!("{:?}: {e}", e.kind()).replace('\n', " ")),
        }
    }
}

/// An unreadable page of the log is an error that names the commits in doubt, and not a shorter
/// history. The file is not changed, and opens when the page can be read again.
#[test]
fn an_unreadable_log_page_is_an_error_that_names_the_commits_in_doubt() {
    let (content, pages, newest) = unclean();
    let faulty = match Faulty::new(1, &[(NAME, content)]) {
        Ok(faulty) => faulty,
        Err(why) => return skipped("log pages", &why),
    };
    let mut child = reexec::start(reexec::command("disks::unreadable::opening_child", &[&faulty.path(NAME)]));
    let mut open = |page: Option<u64>, how: &str| {
        faulty.drop_cache(NAME);
        let unreadable = page.map(|page| page * PAGE_BYTES..(page + 1) * PAGE_BYTES).into_iter().collect();
        faulty.plan(Plan { unreadable, ..Plan::default() });
        child.say(how);
        child.line().expect("no death")
    };
    assert!(pages.len() > 20, "{pages:?}");
    for &page in &pages {
        for how in ["read-only", "for writing"] {
            let said = open(Some(page), how);
            let in_doubt = said.contains("are lost") || said.contains("is lost") || said.contains("is not known");
            assert!(said.starts_with("Corrupt") && in_doubt, "page {page}, {how}: {said}, newest {newest}");
        }
    }
    assert_eq!(open(None, "read-only"), "30 entries");
    assert_eq!(open(None, "for writing"), "30 entries");
    println!("log pages: {} unreadable in turn, {} requests failed", pages.len(), faulty.failures());
    assert!(faulty.failures() >= pages.len() as u64);
}
