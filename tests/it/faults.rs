//! Files that are cut while they are open: the process survives, reads return right data or an
//! error, and no acknowledged commit is lost.
//!
//! Each part runs in a child process, so that the test notices a crash. For each given length, the
//! child opens a fresh copy of a database, cuts the file, and continues to read or write.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};

use mapleaf::codec::{Codec, CodecError, Encoded};
use mapleaf::testing::{set_hooks, FlushEvent, FlushKind, Hooks};
use mapleaf::{Db, Error, ErrorKind, Options, ReadTable, Result, Table};

use crate::reexec;
use crate::support::{bytes, long, seed, Rng};
use crate::workload::fast_dir;

const DATA: Table<u64, &[u8]> = Table::new("data");
const NUMBERS: Table<u64, u64> = Table::new("numbers");
const PAGE: u64 = 4096;
/// Number of lengths that are not page boundaries.
const OTHER_LENGTHS: u64 = 500;

/// The value of a key: most are small, some are in overflow extents.
fn value_of(key: u64) -> &'static [u8] {
    static VALUES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    &VALUES.get_or_init(|| (0..KEYS + 100).map(make_value).collect())[key as usize]
}

fn make_value(key: u64) -> Vec<u8> {
    let len = match key % 40 {
        0 => 9000 + key % 5000,
        1 => 3000 + key % 700,
        n => 20 + n * 17,
    };
    // No byte is zero, so that zeros are never right.
    bytes(key, len as usize).into_iter().map(|byte| byte.max(1)).collect()
}

const KEYS: u64 = 2500;

/// A database of at least 2 MiB, closed.
fn base(dir: &Path) -> PathBuf {
    let path = dir.join("base.mapleaf");
    let db = Db::open(&path).expect("open");
    for part in 0..5 {
        db.write(|txn| -> Result<()> {
            for key in (part..KEYS).step_by(5) {
                txn.table(DATA)?.insert(key, value_of(key))?;
                txn.table(NUMBERS)?.insert(key, key + 1)?;
            }
            Ok(())
        })
        .expect("written");
    }
    drop(db);
    assert!(std::fs::metadata(&path).expect("the file").len() >= 2 << 20);
    path
}

/// Every page boundary of a file, and others.
fn lengths(file_len: u64, rng: &mut Rng) -> Vec<u64> {
    let boundaries = (0..file_len / PAGE).map(|page| page * PAGE);
    boundaries.chain((0..OTHER_LENGTHS * u64::from(long())).map(|_| rng.below(file_len))).collect()
}

/// The counts of a child.
#[derive(Default)]
struct Counts {
    right: u64,
    refused: u64,
}

impl Counts {
    /// Counts an answer: right, or the error for a cut file.
    fn answer<T: PartialEq + std::fmt::Debug>(&mut self, at: &str, found: Result<T>, expected: &T) {
        match found {
            Ok(found) => {
                assert!(found == *expected, "{at}: a wrong answer");
                self.right += 1;
            }
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Fault | ErrorKind::Poisoned), "{at}: {e}");
                self.refused += 1;
            }
        }
    }
}

/// Reads everything by key, by range in both directions, and by owned range.
fn read_all(at: &str, data: &ReadTable<u64, &'static [u8]>, numbers: &ReadTable<u64, u64>, counts: &mut Counts) {
    for key in 0..KEYS {
        counts.answer(
            at,
            data.get(key).map(|found| found.map(<[u8]>::to_vec)).and_then(|copy| after(data, copy)),
            &Some(value_of(key).to_vec()),
        );
        counts.answer(at, numbers.get(key), &Some(key + 1));
    }
    for (key, entry) in (0..).zip(numbers.iter()) {
        let failed = entry.is_err();
        counts.answer(at, entry, &(key, key + 1));
        if failed {
            break;
        }
    }
    let complete = numbers.iter().rev().try_fold(KEYS, |below, entry| {
        let (key, number) = entry?;
        assert_eq!((key, number), (below - 1, below), "{at}");
        Ok::<u64, Error>(below - 1)
    });
    counts.answer(at, complete, &0);
    let owned: Result<Vec<(u64, Vec<u8>)>> = data.range_owned(..).expect("a range").collect();
    counts.answer(
        at,
        owned.map(|all| all.iter().all(|(key, value)| value == value_of(*key)) && all.len() as u64 == KEYS),
        &true,
    );
}

/// A copy of a borrowed value counts only if the next call of the transaction succeeds: the slice
/// itself shows zeros.
fn after<T>(data: &ReadTable<u64, &'static [u8]>, copy: T) -> Result<T> {
    data.get(u64::MAX)?;
    Ok(copy)
}

#[test]
fn reading_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let (base, seed): (&str, u64) = (&arguments[0], arguments[1].parse().expect("a seed"));
    let whole = std::fs::read(base).expect("the base");
    let path = Path::new(base).with_file_name(format!("reading-{seed}.mapleaf"));
    let (mut rng, mut counts, mut noticed) = (Rng::new(seed), Counts::default(), 0u64);
    let lengths = lengths(whole.len() as u64, &mut rng);
    for (n, &len) in lengths.iter().enumerate() {
        let at = format!("seed {seed}, length {len}");
        std::fs::write(&path, &whole).expect("a copy");
        let db = Options::new().read_only(n % 2 == 0).open(&path).expect("open");
        let txn = db.begin_read().expect("begins");
        let (data, numbers) = (txn.table(DATA).expect("table"), txn.table(NUMBERS).expect("table"));
        if n % 2 != 0 {
            read_all(&at, &data, &numbers, &mut counts);
            assert_eq!(counts.refused, noticed, "{at}: refused before the cut");
        }
        let held = data.get(40).expect("get").expect("there");
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(len)).expect("cut");
        // A held slice may show zeros, and reading it does not end the process.
        let _zeros = held.iter().filter(|&&byte| byte == 0).count();
        read_all(&at, &data, &numbers, &mut counts);
        assert!(counts.refused > noticed, "{at}: nobody noticed");
        noticed = counts.refused;
        let again = db.begin_read().map(drop).expect_err("the handle is poisoned");
        assert_eq!(again.kind(), ErrorKind::Poisoned, "{at}: {again}");
        drop((data, numbers, txn, db));
        let reopened = Options::new().create(false).open(&path).map(drop).expect_err("too short");
        assert!(matches!(reopened.kind(), ErrorKind::Truncated | ErrorKind::EmptyFile), "{at}: {reopened}");
        assert_eq!(std::fs::metadata(&path).expect("the file").len(), len, "{at}: the file changed");
        std::fs::write(&path, &whole).expect("the file comes back");
        let healed =
            Db::open(&path).and_then(|db| db.begin_read()?.table(DATA)?.get(40).map(|v| v == Some(value_of(40))));
        assert!(healed.expect("reopening heals"), "{at}");
    }
    reexec::answer(&format!("{} {} {}", lengths.len(), counts.right, counts.refused));
}

/// Writes until a call notices the cut; the commit must, if no earlier call does.
fn write_on(db: &Db, cut: impl FnOnce(), first: u64) -> Result<()> {
    let txn = db.begin_write()?;
    let mut table = txn.table(DATA)?;
    for key in first..first + 30 {
        table.insert(key, value_of(key + 7))?;
    }
    cut();
    for key in first + 30..first + 60 {
        table.insert(key, value_of(key + 7))?;
    }
    table.remove(first)?;
    txn.commit()
}

#[test]
fn writing_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let (base, seed): (&str, u64) = (&arguments[0], arguments[1].parse().expect("a seed"));
    let whole = std::fs::read(base).expect("the base");
    let path = Path::new(base).with_file_name(format!("writing-{seed}.mapleaf"));
    let mut rng = Rng::new(seed);
    let lengths = lengths(whole.len() as u64, &mut rng);
    for (n, &len) in lengths.iter().enumerate() {
        let at = format!("seed {seed}, length {len}");
        std::fs::write(&path, &whole).expect("a copy");
        let db = Db::open(&path).expect("open");
        if n % 2 == 0 {
            write_on(&db, || (), rng.below(KEYS)).expect("a commit before");
        }
        let cut = || std::fs::File::options().write(true).open(&path).and_then(|f| f.set_len(len)).expect("cut");
        let e = write_on(&db, cut, rng.below(KEYS)).expect_err("the file was cut");
        assert!(matches!(e.kind(), ErrorKind::Fault | ErrorKind::Poisoned), "{at}: {e}");
        assert_eq!(db.begin_write().map(drop).expect_err("poisoned").kind(), ErrorKind::Poisoned, "{at}");
        drop(db);
        let left = std::fs::metadata(&path).expect("the file").len();
        assert_eq!(left, len, "{at}: the file changed its length");
    }
    reexec::answer(&format!("{} 0 0", lengths.len()));
}

/// Runs a child over all lengths and returns its counts. A crash, a panic or a wrong answer fails
/// the test.
fn run(child: &str, name: &str) -> String {
    let dir = fast_dir();
    let base = base(dir.path());
    let seed = seed(name).to_string();
    let mut child = reexec::start(reexec::command(child, &[&base, &seed]));
    let said = child.line().expect("the child lives to its end");
    child.finish();
    said
}

#[test]
fn a_file_cut_under_a_reader_is_an_error_and_never_wrong_data() {
    let said = run("faults::reading_child", "cut_under_a_reader");
    println!("cut under a reader: lengths, right answers, errors: {said}; deaths 0, wrong answers 0");
}

#[test]
fn a_file_cut_under_a_writer_is_an_error_and_nothing_is_acknowledged() {
    let said = run("faults::writing_child", "cut_under_a_writer");
    println!("cut under a writer: lengths: {said}; deaths 0, commits acknowledged and lost 0");
}

/// Readers in several threads beside a writer, when the file is cut.
#[test]
fn threads_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let (base, seed): (&str, u64) = (&arguments[0], arguments[1].parse().expect("a seed"));
    let whole = std::fs::read(base).expect("the base");
    let path = Path::new(base).with_file_name("threads.mapleaf");
    let other = Db::open(Path::new(base).with_file_name("other.mapleaf")).expect("open");
    let mut rng = Rng::new(seed);
    for round in 0..20 * u64::from(long()) {
        std::fs::write(&path, &whole).expect("a copy");
        let db = Db::open(&path).expect("open");
        let (stop, faults, begun) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(5));
        let len = rng.below(whole.len() as u64);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (db, stop, faults, begun) = (&db, &stop, &faults, &begun);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed ^ thread);
                    let numbers = db.begin_read().and_then(|txn| txn.table(NUMBERS)).expect("begun before the cut");
                    begun.wait();
                    while !stop.load(Ordering::Acquire) {
                        let key = rng.below(KEYS);
                        match numbers.get(key) {
                            Ok(found) => assert_eq!(found, Some(key + 1)),
                            Err(e) => {
                                assert_eq!(e.kind(), ErrorKind::Fault, "{e}");
                                faults.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                        }
                    }
                });
            }
            begun.wait();
            std::thread::sleep(std::time::Duration::from_micros(rng.below(3000)));
            std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(len)).expect("cut");
            // Each thread runs until it gets the error.
        });
        assert_eq!(faults.load(Ordering::Relaxed), 4);
        stop.store(true, Ordering::Release);
        other.write(|txn| txn.table(NUMBERS)?.insert(round, round).map(drop)).expect("other databases go on");
    }
    reexec::answer("done");
}

#[test]
fn all_threads_get_the_error_of_a_cut_and_other_databases_still_work() {
    assert_eq!(run("faults::threads_child", "threads"), "done");
}

/// Faults outside of our mappings end the process as they do without Mapleaf.
#[test]
fn foreign_fault_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let db = Db::in_memory().expect("memory");
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    let options = Options::new().fault_guard(arguments[0] != "unguarded");
    let file = options.open(&path).expect("open");
    match arguments[0].as_str() {
        "sent" => send_bus(),
        "sent twice" => (0..2).for_each(|_| send_bus()),
        "sent, then cut" => {
            send_bus();
            cut_and_read(&file, &path);
        }
        "foreign" => println!("{}", mapleaf::testing::foreign_fault(&dir.path().join("foreign")).expect("a file")),
        "overflow" => println!("{}", overflow(1)),
        "unguarded" => cut_and_read(&file, &path),
        other => panic!("{other}"),
    }
    drop((db, file));
    reexec::answer("lived on");
}

fn send_bus() {
    let pid = std::process::id().to_string();
    std::process::Command::new("kill").args(["-BUS", &pid]).status().expect("kill");
}

fn cut_and_read(db: &Db, path: &Path) {
    db.write(|txn| txn.table(NUMBERS)?.insert(1, 1).map(drop)).expect("written");
    let numbers = db.begin_read().and_then(|txn| txn.table(NUMBERS)).expect("table");
    std::fs::File::options().write(true).open(path).and_then(|file| file.set_len(0)).expect("cut");
    assert_eq!(numbers.get(1).expect_err("the file was cut").kind(), ErrorKind::Fault);
}

fn overflow(depth: u64) -> u64 {
    let array = [depth; 1000];
    if std::hint::black_box(&array)[5] == 0 {
        return 0;
    }
    overflow(depth + 1) + std::hint::black_box(&array)[7]
}

#[test]
fn faults_outside_of_mapleaf_and_sent_signals_still_end_the_process() {
    // The first sent signal only removes the handler of Rust's runtime, as it does without a
    // database.
    let cases = [("sent", None), ("sent twice", Some(7)), ("sent, then cut", None), ("foreign", Some(7))];
    for (how, signal) in cases.into_iter().chain([("unguarded", Some(7)), ("overflow", Some(6))]) {
        let mut command = reexec::command("faults::foreign_fault_child", &[&how]);
        let output = command.stdin(Stdio::null()).output().expect("a child");
        assert_eq!(output.status.signal(), signal, "{how}: {output:?}");
        assert_eq!(output.status.success(), signal.is_none(), "{how}: {output:?}");
        if how == "overflow" {
            assert!(String::from_utf8_lossy(&output.stderr).contains("has overflowed its stack"), "{output:?}");
        }
    }
}

/// A one-shot handler (SA_RESETHAND) that is installed before ours, and one that is installed after
/// it.
#[test]
fn one_shot_handler_child() {
    if reexec::arguments().is_none() {
        return;
    }
    mapleaf::testing::handle_one_bus_error();
    let dir = fast_dir();
    let _open = Db::open(dir.path().join("db.mapleaf")).expect("open");
    println!("{}", mapleaf::testing::foreign_fault(&dir.path().join("foreign")).expect("a file"));
}

#[test]
fn an_earlier_one_shot_handler_is_called_once_with_its_signal_mask() {
    let mut child = reexec::start(reexec::command("faults::one_shot_handler_child", &[&"go"]));
    assert_eq!(child.line().as_deref(), Some("called, SIGUSR1 blocked"));
    // The access is repeated, and the default action ends the process.
    assert_eq!(child.line(), None);
    assert_eq!(child.end().signal(), Some(7));
}

/// Files that were cut while they were closed: opening is refused as truncated, or all reads are
/// right.
#[test]
fn cut_while_closed_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let (base, seed): (&str, u64) = (&arguments[0], arguments[1].parse().expect("a seed"));
    let whole = std::fs::read(base).expect("the base");
    let path = Path::new(base).with_file_name("closed.mapleaf");
    let lengths = lengths(whole.len() as u64, &mut Rng::new(seed));
    let mut refused = 0;
    for (n, &len) in lengths.iter().enumerate() {
        let at = format!("seed {seed}, length {len}");
        std::fs::write(&path, &whole[..len as usize]).expect("a copy");
        match Options::new().create(false).read_only(n % 2 == 0).open(&path) {
            Ok(db) => {
                let txn = db.begin_read().expect("begins");
                let (data, numbers) = (txn.table(DATA).expect("table"), txn.table(NUMBERS).expect("table"));
                let mut counts = Counts::default();
                read_all(&at, &data, &numbers, &mut counts);
                assert_eq!(counts.refused, 0, "{at}");
            }
            Err(e) => {
                let cut = matches!(e.kind(), ErrorKind::Truncated | ErrorKind::EmptyFile | ErrorKind::NotADatabase);
                // Without meta pages, nothing tells that the file was longer.
                assert!(cut && (e.kind() == ErrorKind::Truncated || len < 256), "{at}: {e}");
                refused += 1;
            }
        }
        assert!(std::fs::read(&path).expect("the file") == whole[..len as usize], "{at}: the file changed");
    }
    reexec::answer(&format!("{} {refused}", lengths.len()));
}

#[test]
fn a_file_cut_while_it_was_closed_is_refused() {
    let said = run("faults::cut_while_closed_child", "cut_while_closed");
    println!("cut while closed: lengths, refused: {said}; deaths 0, wrong answers 0");
}

/// Flipped bytes of a database of some MiB: every read is right or an error.
#[test]
fn flipping_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let (base, seed): (&str, u64) = (&arguments[0], arguments[1].parse().expect("a seed"));
    let whole = std::fs::read(base).expect("the base");
    let path = Path::new(base).with_file_name("flipped.mapleaf");
    std::fs::write(&path, &whole).expect("a copy");
    let file = std::fs::File::options().write(true).open(&path).expect("open");
    let (mut rng, mut harmless, mut found) = (Rng::new(seed), 0u64, 0u64);
    let flips = FLIPS * u64::from(long());
    for _ in 0..flips {
        let (at, bit) = (rng.below(whole.len() as u64), 1 << rng.below(8));
        std::os::unix::fs::FileExt::write_all_at(&file, &[whole[at as usize] ^ bit], at).expect("flipped");
        match read_damaged(&path, at).unwrap_or_else(|e| panic!("seed {seed}, byte {at}, bit {bit}: {e}")) {
            true => harmless += 1,
            false => found += 1,
        }
        std::os::unix::fs::FileExt::write_all_at(&file, &[whole[at as usize]], at).expect("flipped back");
    }
    reexec::answer(&format!("{flips} {harmless} {found}"));
}

const FLIPS: u64 = 5000;

/// Reads all entries that the flipped page may affect, and some more. Returns whether all were
/// right.
fn read_damaged(path: &Path, at: u64) -> Result<bool, String> {
    let typed = |e: Error| match e.kind() {
        ErrorKind::Corrupt => Ok(false),
        _ => Err(e.to_string()),
    };
    let db = match Options::new().create(false).read_only(true).open(path) {
        Ok(db) => db,
        Err(e) => return typed(e),
    };
    let tables = db.begin_read().and_then(|txn| Ok((txn.table(DATA)?, txn.table(NUMBERS)?)));
    let (data, numbers) = match tables {
        Ok(tables) => tables,
        Err(e) => return typed(e),
    };
    let mut all = true;
    for key in 0..KEYS {
        match data.get(key) {
            Ok(found) if found == Some(value_of(key)) => {}
            Ok(_) => return Err(format!("a wrong value of key {key}")),
            Err(e) => all &= typed(e)?,
        }
    }
    for (key, entry) in (0..).zip(numbers.iter()) {
        match entry {
            Ok(entry) if entry == (key, key + 1) => {}
            Ok(_) => return Err(format!("a wrong entry at {key}")),
            Err(e) => {
                all = typed(e)?;
                break;
            }
        }
    }
    // If no read has found the damage, `check` finds it, or the page is unused.
    let report = db.check().map_err(|e| e.to_string())?;
    if !all && report.is_clean() {
        return Err(format!("the check does not find what reading does, at byte {at}"));
    }
    Ok(all)
}

#[test]
fn five_thousand_flipped_bytes_are_detected_or_harmless() {
    let said = run("faults::flipping_child", "flipped_bytes");
    println!("flipped bytes: flips, all read right, errors: {said}; wrong answers 0, panics 0, hangs 0");
}

/// Cuts the file just after the meta page of a commit was flushed.
struct CutBehindMeta(PathBuf);

impl mapleaf::testing::Hooks for CutBehindMeta {
    fn before_flush(&self, _event: &mapleaf::testing::FlushEvent<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn after_flush(&self, event: &mapleaf::testing::FlushEvent<'_>) {
        if event.kind == mapleaf::testing::FlushKind::MetaPage {
            let file = std::fs::File::options().write(true).open(&self.0).expect("open");
            file.set_len(event.mapped_len).expect("cut");
        }
    }
}

/// The kind `Fault` would mean that nothing was committed.
#[test]
fn a_commit_whose_file_is_cut_after_the_meta_page_is_an_error() {
    let dir = fast_dir();
    let path = dir.path().join("db.mapleaf");
    drop(Db::open(&path).expect("made"));
    let hooks = std::sync::Arc::new(CutBehindMeta(path.clone()));
    let db = mapleaf::testing::open_with_hooks(Options::new(), &path, hooks).expect("open");
    let e = db.write(|txn| txn.table(NUMBERS)?.insert(1, 42).map(drop)).expect_err("the file was cut");
    assert_eq!(e.kind(), ErrorKind::Poisoned, "{e}");
    drop(db);
    let found = Db::open(&path).and_then(|db| db.begin_read()?.table(NUMBERS)?.get(1));
    assert_eq!(found.expect("opens"), Some(42), "it stands");
}

/// A verified value in an overflow extent reads as zeros after another program has cut and
/// lengthened the file.
#[test]
fn a_file_cut_and_made_longer_again_is_an_error() {
    let dir = fast_dir();
    let path = base(dir.path());
    let db = Db::open(&path).expect("open");
    let data = db.begin_read().and_then(|txn| txn.table(DATA)).expect("table");
    (0..KEYS).for_each(|key| assert!(data.get(key).expect("get") == Some(value_of(key))));
    let file = std::fs::File::options().write(true).open(&path).expect("open");
    let len = file.metadata().expect("metadata").len();
    file.set_len(len / 2).and_then(|()| file.set_len(len)).expect("cut and longer again");
    assert_eq!(data.get(1).map(drop).expect_err("noticed").kind(), ErrorKind::Fault);
    let e = db.write(|txn| txn.table(NUMBERS)?.insert(1, 1).map(drop)).expect_err("noticed");
    assert_eq!(e.kind(), ErrorKind::Poisoned, "{e}");
}

/// The file is cut while a value is decoded, after the lookup has found it.
struct Cut;

thread_local! {
    static TO_CUT: std::cell::RefCell<Option<PathBuf>> = const { std::cell::RefCell::new(None) };
}

impl Codec for Cut {
    type Item<'a> = u64;
    type Owned = u64;

    fn name() -> String {
        "test.cut".into()
    }

    fn encode<'a>(item: &'a u64) -> Result<Encoded<'a>> {
        Ok(Encoded::copied(&item.to_be_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<u64, CodecError> {
        if let Some(path) = TO_CUT.take() {
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("the file");
            file.set_len(2 * PAGE).expect("cut");
        }
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn to_owned(item: u64) -> u64 {
        item
    }
}

/// Decoding reads the value too, so `check_fault` must come after it.
#[test]
fn a_file_that_is_cut_while_a_value_is_decoded_is_an_error() {
    const VALUES: Table<u32, Cut> = Table::new("values");
    const KEYS: u32 = 300;
    let value = |key: u32| u64::MAX - u64::from(key);
    type Read = fn(&Db, u32) -> Result<Option<u64>>;
    fn rows(db: &Db) -> ReadTable<u32, Cut> {
        db.begin_read().expect("begins").table(VALUES).expect("table")
    }
    let reads: [(&str, Read); 10] = [
        ("get", |db, key| rows(db).get(key)),
        ("try_get_resident", |db, key| rows(db).try_get_resident(key)),
        ("of the transaction", |db, key| db.begin_read()?.try_get_resident(VALUES, key)),
        ("multi_get", |db, key| rows(db).multi_get([key]).map(|found| found[0])),
        ("get_owned", |db, key| rows(db).get_owned(key)?.map(|value| value.get()).transpose()),
        ("range", |db, key| Ok(rows(db).range(key..)?.next().transpose()?.map(|entry| entry.1))),
        ("rev", |db, key| Ok(rows(db).range(..=key)?.next_back().transpose()?.map(|entry| entry.1))),
        ("range_owned", |db, key| Ok(rows(db).range_owned(key..)?.next().transpose()?.map(|entry| entry.1))),
        ("of a writer", |db, key| db.begin_write()?.table(VALUES)?.get(key)),
        ("range of a writer", |db, key| {
            Ok(db.begin_write()?.table(VALUES)?.range(key..)?.next().transpose()?.map(|entry| entry.1))
        }),
    ];
    for (name, read) in reads {
        let dir = fast_dir();
        let path = dir.path().join("cut.mapleaf");
        let db = Db::open(&path).expect("opens");
        db.write(|txn| txn.table(VALUES)?.load((0..KEYS).map(|key| (key, value(key))))).expect("committed");
        for key in 0..KEYS {
            assert_eq!(read(&db, key).expect(name), Some(value(key)), "{name}");
        }
        TO_CUT.set(Some(path));
        let told = read(&db, 150).map(|found| found.map(|number| format!("{number:#x}"))).expect_err(name);
        assert_eq!(told.kind(), ErrorKind::Fault, "{name}: {told}");
    }
}

/// Bytes that cut the file when they are copied.
struct CutInCopy;

impl Codec for CutInCopy {
    type Item<'a> = &'a [u8];
    type Owned = Vec<u8>;

    fn name() -> String {
        "cut in copy".into()
    }

    fn encode<'a>(item: &'a &[u8]) -> Result<Encoded<'a>> {
        Ok(Encoded::Borrowed(item))
    }

    fn decode(bytes: &[u8]) -> Result<&[u8], CodecError> {
        Ok(bytes)
    }

    fn to_owned(item: &[u8]) -> Vec<u8> {
        if let Some(path) = TO_CUT.take() {
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("the file");
            file.set_len(2 * PAGE).expect("cut");
        }
        item.to_vec()
    }
}

/// Copying reads the value too, and may copy zeros.
#[test]
fn a_file_that_is_cut_while_an_owned_entry_is_copied_is_an_error() {
    const VALUES: Table<u32, CutInCopy> = Table::new("values");
    for (writes, backwards) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = fast_dir();
        let path = dir.path().join("cut.mapleaf");
        let db = Db::open(&path).expect("opens");
        db.write(|txn| txn.table(VALUES)?.insert(1, &[7; 9000]).map(drop)).expect("committed");
        TO_CUT.set(Some(path));
        let told = if writes {
            let txn = db.begin_write().expect("begins");
            let table = txn.table(VALUES).expect("table");
            let mut entries = table.range_owned(..).expect("range");
            if backwards { entries.next_back() } else { entries.next() }.map(|entry| entry.map(drop))
        } else {
            let table = db.begin_read().expect("begins").table(VALUES).expect("table");
            let mut entries = table.range_owned(..).expect("range");
            if backwards { entries.next_back() } else { entries.next() }.map(|entry| entry.map(drop))
        };
        let told = told.expect("an answer").expect_err("zeros");
        assert_eq!(told.kind(), ErrorKind::Fault, "writes {writes}, backwards {backwards}: {told}");
    }
}

/// Maps memory areas until the kernel allows only one more.
fn take_all_areas(dir: &Path) -> Vec<memmap2::MmapRaw> {
    let path = dir.join("one-page");
    std::fs::write(&path, [1; 4096]).expect("written");
    let file = std::fs::File::open(&path).expect("opened");
    // The same page repeatedly: the kernel does not merge such areas.
    let area = || memmap2::MmapOptions::new().len(4096).map_raw_read_only(&file).ok();
    let mut areas = Vec::with_capacity(1 << 20);
    areas.extend(std::iter::from_fn(area).take(1 << 20));
    assert!(areas.len() < 1 << 20, "the kernel has a limit");
    areas.pop();
    areas
}

/// Then the handler cannot replace only the faulting page, which would need more areas. It can
/// replace the whole mapping.
#[test]
fn a_cut_is_an_error_even_if_the_process_has_no_free_memory_area() {
    let dir = tempfile::tempdir().expect("a folder");
    reexec::start(reexec::command("faults::no_free_area_child", &[&dir.path()])).finish();
}

#[test]
fn no_free_area_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let dir = Path::new(&arguments[0]);
    let path = base(dir);
    let db = Db::open(&path).expect("opens");
    let other = Db::open(dir.join("other.mapleaf")).expect("opens");
    other.write(|txn| txn.table(NUMBERS)?.insert(7, 8).map(drop)).expect("stored");
    let txn = db.begin_read().expect("begins");
    let data = txn.table(DATA).expect("table");
    let value = data.get(0).expect("get").expect("there");
    assert_eq!(value, value_of(0));
    let file = std::fs::File::options().write(true).open(&path).expect("opened");
    let areas = take_all_areas(dir);
    file.set_len(PAGE).expect("cut");
    // The handler must restore the thread's `errno`.
    let missing = std::fs::File::open("/proc/self/there-is-none");
    let byte = std::hint::black_box(value)[5000];
    let errno = std::io::Error::last_os_error().kind();
    drop(areas);
    assert!(missing.is_err() && byte == 0);
    assert_eq!(errno, std::io::ErrorKind::NotFound, "the handler left its own error");
    for key in 0..50 {
        let found = data.get(key).expect_err("the file was cut");
        assert_eq!(found.kind(), ErrorKind::Fault, "{found}");
    }
    assert_eq!(db.begin_read().expect_err("the file was cut").kind(), ErrorKind::Poisoned);
    assert_eq!(other.begin_read().expect("begins").table(NUMBERS).expect("table").get(7).expect("get"), Some(8));
}

/// Cuts the file before each flush of a kind.
struct CutBefore {
    kind: FlushKind,
    file: std::fs::File,
    len: u64,
}

impl Hooks for CutBefore {
    fn before_flush(&self, event: &FlushEvent<'_>) -> std::io::Result<()> {
        if event.kind == self.kind {
            self.file.set_len(self.len)?;
        }
        Ok(())
    }
}

/// A flush succeeds although a cut has removed pages. No meta page may reach them; if one does, its
/// commit is not acknowledged.
#[test]
fn a_commit_whose_file_is_cut_while_it_is_flushed_is_not_acknowledged() {
    for kind in [FlushKind::Tree, FlushKind::MetaPage] {
        let dir = fast_dir();
        let path = base(dir.path());
        let db = Db::open(&path).expect("opens");
        let write = |number| db.write(|txn| txn.table(NUMBERS)?.insert(7, number).map(drop));
        write(9).expect("stored");
        let file = std::fs::File::options().write(true).open(&path).expect("opened");
        let metas = || std::fs::read(&path).expect("read")[..2 * PAGE as usize].to_vec();
        let before = metas();
        set_hooks(&db, std::sync::Arc::new(CutBefore { kind, file, len: 100 * PAGE }));
        let refused = write(10).expect_err("the file was cut").kind();
        match kind {
            FlushKind::MetaPage => assert_eq!(refused, ErrorKind::Poisoned),
            _ => assert!(refused == ErrorKind::Fault && metas() == before, "{refused:?}, and no meta page is written"),
        }
        assert_eq!(write(11).expect_err("the file was cut").kind(), ErrorKind::Poisoned);
        assert_eq!(db.begin_read().expect_err("the file was cut").kind(), ErrorKind::Poisoned);
        drop(db);
        assert_eq!(Db::open(&path).expect_err("the file was cut").kind(), ErrorKind::Truncated);
    }
}
