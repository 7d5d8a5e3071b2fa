//! Databases in memory that processes share, which get the descriptors through a socket; and
//! descriptors of something else. `forked` has children after `fork`; `stress`, `death` and
//! `mounts` have more.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use mapleaf::testing::{at_moments, memory_with_seals, with_next_hooks, FlushEvent, Hooks, Moment};
use mapleaf::{Db, Error, ErrorKind, Options, Presence, SharedMemory, Table};

use super::broker::{self, Broker};
use super::member::{is_failure, numbers, Member};
use crate::log_kills::StopAt;
use crate::reexec;
use crate::support::seed;
use crate::workload::Rng;

pub(super) const NUMBERS: Table<u64, u64> = Table::new("numbers");

pub(super) fn shared_db() -> (Db, SharedMemory) {
    let db = Options::new().shared_memory(true).in_memory().expect("made");
    let memory = db.share().expect("shared");
    (db, memory)
}

pub(super) fn put(db: &Db, key: u64, value: u64) {
    db.write(|txn| txn.table(NUMBERS)?.insert(key, value).map(drop)).expect("committed");
}

pub(super) fn get(db: &Db, key: u64) -> Option<u64> {
    db.read(|txn| txn.table(NUMBERS)?.get(key)).expect("read")
}

fn copy(of: &OwnedFd) -> OwnedFd {
    of.try_clone().expect("a descriptor")
}

#[test]
fn processes_read_what_others_commit_to_shared_memory() {
    let broker = Broker::start();
    let path = broker.path();
    let (mut first, mut second) = (Member::open(&path, 1), Member::open(&path, 1));
    first.number("put immediate t k first");
    second.expect("get t k", "first");
    second.number("put eventual t k second");
    first.expect("get t k", "second");
    first.number("drop t");
    let mut step = 0;
    for round in 0..40 {
        let (writer, reader) = if round % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        step = writer.number(["step immediate", "step eventual"][round / 2 % 2]);
        reader.expect("judge", &format!("ok {step}"));
    }
    assert!(step > 40);
    first.expect("check", "ok");
    second.expect("check", "ok");
    first.finish();
    second.finish();
}

#[test]
fn each_process_grows_shared_memory_while_another_reads_it() {
    let broker = Broker::start();
    let path = broker.path();
    let mut members = [Member::open(&path, 0), Member::start(&path, 0)];
    // A window that is outgrown soon.
    members[1].expect("open window=65536", "ok");
    members[0].number("fill t 0 100 1000");
    for member in &mut members {
        member.ask("hold");
    }
    let held = members[1].ask("held");
    for round in 1..12 {
        let [first, second] = &mut members;
        let (writer, reader) = if round % 2 == 0 { (first, second) } else { (second, first) };
        // More than the memory has, and values of many pages.
        writer.say(&format!("fill t {} 400 3000", round * 1000));
        writer.number(&format!("fill long {round} 1 900000"));
        numbers(&reader.ask("pages"), "pages");
        writer.answer();
        reader.expect(&format!("filled t {} 400 3000", round * 1000), "ok");
        reader.expect(&format!("filled long {round} 1 900000"), "ok");
        reader.expect("filled t 0 100 1000", "ok");
    }
    assert!(broker.data_bytes() > 20 << 20, "{} bytes", broker.data_bytes());
    assert_eq!(members[1].ask("held"), held, "a snapshot changed");
    for member in &mut members {
        member.expect("release", "ok");
        member.expect("check", "ok");
    }
    members.into_iter().for_each(Member::finish);
}

#[test]
fn writers_of_shared_memory_take_turns_also_when_one_is_killed() {
    let broker = Broker::start();
    let mut stays = Member::open(&broker.path(), 0);
    stays.number("put immediate t k before");
    for round in 0..10 {
        let mut dies = Member::open(&broker.path(), 0);
        dies.number("begin");
        dies.expect("insert t k lost", "ok");
        stays.expect("try", "none");
        stays.say("begin");
        dies.kill();
        numbers(&stays.answer(), "begin");
        stays.expect(&format!("insert t other {round}"), "ok");
        numbers(&stays.ask("commit"), "commit");
        stays.expect("get t k", "before");
        stays.expect("get t other", &round.to_string());
    }
    stays.expect("check", "ok");
    stays.finish();
}

/// Processes hold snapshots, and live on or are killed; then everything is replaced a few times.
/// Returns the pages at the beginning and in the end.
fn beside_snapshots(killed: bool) -> [u64; 2] {
    let broker = Broker::start();
    let mut writer = Member::open(&broker.path(), 0);
    let pages = |writer: &mut Member| numbers(&writer.ask("pages"), "pages")[0];
    writer.number("fill t 0 1000 400");
    let live = pages(&mut writer);
    let mut readers = Vec::new();
    for _ in 0..6 {
        let mut reader = Member::open(&broker.path(), 0);
        reader.ask("hold");
        readers.push(reader);
        writer.number("update eventual t 1000 1000 400");
    }
    if killed {
        readers.iter_mut().for_each(Member::kill);
    }
    for n in 0..5 {
        writer.number(&format!("fill more {} 1000 400", n * 1000));
    }
    let end = pages(&mut writer);
    drop(readers);
    writer.expect("check", "ok");
    writer.finish();
    [live, end]
}

#[test]
fn snapshots_of_killed_processes_pin_no_pages_of_shared_memory() {
    let ([live, pinned], [_, killed]) = (beside_snapshots(false), beside_snapshots(true));
    assert!(pinned >= killed + 3 * live, "{pinned} pages with snapshots of {live}, {killed} after they were killed");
}

/// A process that fills the memory, and stops at an event of its growth.
#[test]
fn growing_child() {
    let Some(arguments) = reexec::arguments() else { return };
    reexec::watch();
    let growth = Arc::new(Growth(StopAt::new(&arguments[1])));
    let events = Arc::clone(&growth);
    at_moments(
        move |moment| match moment {
            Moment::Lengthening | Moment::SentinelMoving => events.0.event(&format!("{moment:?}")),
            _ => {}
        },
        || {
            let hooks = Arc::clone(&growth) as Arc<dyn Hooks>;
            let db = with_next_hooks(hooks, || broker::open(Options::new(), arguments[0].as_ref())).expect("opened");
            let txn = db.begin_write().expect("begins");
            let mut table = txn.bytes_table("grown").expect("table");
            (0..4_u64).for_each(|n| drop(table.insert(&n.to_be_bytes(), &[n as u8; 1 << 20]).expect("inserted")));
            // It aborts, so the next one grows the memory too.
        },
    );
    reexec::answer("done");
}

/// Hooks that stop only at growth.
struct Growth(Arc<StopAt>);

impl Hooks for Growth {
    fn before_flush(&self, _event: &FlushEvent<'_>) -> io::Result<()> {
        Ok(())
    }

    fn growing(&self, new_len: u64) -> io::Result<()> {
        self.0.growing(new_len)
    }

    fn resized(&self, new_len: u64) {
        self.0.resized(new_len);
    }
}

#[test]
fn a_process_that_is_killed_while_it_grows_shared_memory_delays_no_other() {
    let mut kinds = BTreeSet::new();
    for event in 1.. {
        let broker = Broker::start();
        let path = broker.path();
        let [mut writer, mut reader] = [Member::open(&path, 0), Member::open(&path, 0)];
        writer.number("fill t 0 100 1000");
        let number = event.to_string();
        let mut dies = reexec::start(reexec::command("processes::memory::growing_child", &[&path, &number]));
        let line = dies.line().expect("a child that goes on");
        let Some(stopped) = line.strip_prefix("stopped ") else {
            assert_eq!(line, "done");
            break;
        };
        kinds.insert(stopped.split(' ').next().expect("a word").to_string());
        let held = reader.ask("hold");
        dies.kill();
        reader.expect("filled t 0 100 1000", "ok");
        writer.number("fill long 0 2 3000000");
        reader.expect("filled long 0 2 3000000", "ok");
        reader.number("fill t 100 2000 1000");
        writer.expect("filled t 0 2100 1000", "ok");
        assert!(reader.ask("held").starts_with(&format!("{held} ")), "event {event}, {stopped}");
        reader.expect("release", "ok");
        for member in [&mut writer, &mut reader] {
            member.expect("check", "ok");
        }
        writer.finish();
        reader.finish();
    }
    assert!(kinds.len() >= 4, "{kinds:?}");
}

#[test]
fn shared_memory_lives_as_long_as_its_descriptors() {
    let broker = Broker::start();
    let mut first = Member::open(&broker.path(), 3);
    let mut step = first.number("step immediate");
    first.finish();
    for round in 0..3 {
        let mut next = Member::open(&broker.path(), 3);
        next.expect("judge", &format!("ok {step}"));
        step = next.number("step eventual");
        match round {
            1 => next.kill(),
            _ => next.finish(),
        }
    }
    broker.forget();
    let mut new = Member::open(&broker.path(), 3);
    new.expect("get t k", "none");
    new.finish();
}

#[test]
fn the_last_handle_and_descriptor_leave_no_memory_behind() {
    use std::os::unix::fs::MetadataExt as _;
    let (db, memory) = shared_db();
    put(&db, 1, 1);
    let inode = |of: &OwnedFd| File::from(copy(of)).metadata().expect("its status").ino();
    let inodes = [inode(&memory.data), inode(&memory.records)];
    let is_used = |inode: u64| {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("mappings");
        let of_memory = |line: &str| line.contains("memfd:mapleaf") && line.contains(&format!(" {inode} "));
        let mut descriptors = std::fs::read_dir("/proc/self/fd").expect("descriptors").flatten();
        let is_open = |of: std::fs::Metadata| of.ino() == inode && of.nlink() == 0;
        maps.lines().any(of_memory) || descriptors.any(|entry| std::fs::metadata(entry.path()).is_ok_and(is_open))
    };
    let attached = Db::attach(&memory).expect("attached");
    let txn = attached.begin_read().expect("begins");
    drop((db, attached));
    drop(memory);
    assert!(inodes.iter().all(|&inode| is_used(inode)));
    drop(txn);
    assert!(!inodes.iter().any(|&inode| is_used(inode)));
}

#[test]
fn attaching_in_the_same_process_gives_another_handle() {
    let (db, memory) = shared_db();
    put(&db, 1, 10);
    let again = Db::attach(&memory).expect("attached");
    assert_eq!(get(&again, 1), Some(10));
    let txn = again.begin_write().expect("begins");
    assert!(db.try_begin_write().expect("asked").is_none(), "both are one database");
    drop(txn);
    let reader = Options::new().read_only(true).attach(&db.share().expect("shared again")).expect("attached");
    assert!(reader.is_read_only());
    assert_eq!(get(&reader, 1), Some(10));
    assert_eq!(reader.begin_write().expect_err("read-only").kind(), ErrorKind::Usage);
    // What differs between a file and memory.
    let stats = db.stats().expect("stats");
    assert_eq!((db.path(), stats.processes, stats.presence), (None, 1, Presence::Member));
    assert!(stats.session.is_some() && stats.session == again.stats().expect("stats").session);
    assert_eq!(db.stats().expect("stats").log_pages, 0);
    db.checkpoint().expect("nothing to do");
    db.sync().expect("nothing to do");
    (2..50).for_each(|key| put(&db, key, key));
    assert_eq!(db.stats().expect("stats").log_pages, 0, "there is nothing that a log could survive");
    let dir = tempfile::tempdir().expect("a directory");
    db.compact_to(dir.path().join("copy.mapleaf")).expect("copied");
    assert_eq!(get(&Db::open_existing(dir.path().join("copy.mapleaf")).expect("opened"), 49), Some(49));
}

#[track_caller]
fn refused(what: &str, memory: &SharedMemory, kind: ErrorKind, words: &[&str]) {
    let error = Db::attach(memory).map(drop).expect_err(what);
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{what}: {text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{what}: {text} lacks {word:?}"));
}

/// The same file by another descriptor, which is open for reading only.
fn read_only(of: &OwnedFd) -> OwnedFd {
    File::open(format!("/proc/self/fd/{}", of.as_raw_fd())).expect("opened").into()
}

#[test]
fn descriptors_of_something_else_are_refused_and_not_changed() {
    let ((db, memory), (_other_db, other)) = (shared_db(), shared_db());
    put(&db, 1, 1);
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(&[7; 70_000], 0).expect("filled");
    let sealed = memory_with_seals(true, false).expect("a file");
    sealed.write_all_at(&[7; 70_000], 0).expect("filled");
    let (pipe, _end) = std::io::pipe().expect("a pipe");
    let others: [(&str, OwnedFd, ErrorKind, &str); 7] = [
        ("a pipe", pipe.into(), ErrorKind::NotADatabase, "leads to a FIFO"),
        ("a device", File::open("/dev/null").expect("opened").into(), ErrorKind::NotADatabase, "leads to a device"),
        ("a file", file.try_clone().expect("a file").into(), ErrorKind::NotADatabase, "no shared memory of Mapleaf"),
        ("memory", memory_with_seals(false, false).expect("made").into(), ErrorKind::NotADatabase, "no shared memory"),
        ("sealed memory", memory_with_seals(true, true).expect("made").into(), ErrorKind::Permission, "is sealed"),
        (
            "other memory",
            sealed.try_clone().expect("a file").into(),
            ErrorKind::NotADatabase,
            "descriptors that Db::share",
        ),
        ("another directory", File::open("/").expect("opened").into(), ErrorKind::NotADatabase, "leads to a directory"),
    ];
    for (what, descriptor, kind, word) in &others {
        refused(what, &SharedMemory::new(copy(descriptor), copy(&memory.records)), *kind, &[word]);
        refused(what, &SharedMemory::new(copy(&memory.data), copy(descriptor)), *kind, &[word]);
        let both = SharedMemory::new(copy(descriptor), copy(descriptor));
        refused(what, &both, *kind, &[word]);
    }
    let swapped = SharedMemory::new(copy(&memory.records), copy(&memory.data));
    refused(
        "swapped",
        &swapped,
        ErrorKind::NotADatabase,
        &["`records` does not lead to live records", "each in its field"],
    );
    let mixed = SharedMemory::new(copy(&memory.data), copy(&other.records));
    refused("mixed", &mixed, ErrorKind::NotADatabase, &["not of one database"]);
    let doubled = SharedMemory::new(copy(&memory.records), copy(&memory.records));
    refused("doubled", &doubled, ErrorKind::NotADatabase, &["not of one database"]);
    let data = SharedMemory::new(read_only(&memory.data), copy(&memory.records));
    refused("read-only data", &data, ErrorKind::Permission, &["`data` is not open for reading and writing"]);
    let records = SharedMemory::new(copy(&memory.data), read_only(&memory.records));
    refused("read-only records", &records, ErrorKind::Permission, &["`records` is not open for reading and writing"]);
    for of in [&file, &sealed] {
        let mut bytes = vec![0; 70_000];
        of.read_exact_at(&mut bytes, 0).expect("read");
        assert!(bytes.iter().all(|&byte| byte == 7), "a file of another program was changed");
    }
    // No process can cut the memory.
    assert!(File::from(copy(&memory.data)).set_len(4096).is_err());
    assert!(File::from(copy(&memory.records)).set_len(0).is_err());
    put(&Db::attach(&memory).expect("attached"), 2, 2);
    assert_eq!((get(&db, 1), get(&db, 2)), (Some(1), Some(2)));
    assert!(db.check().expect("check").is_clean());
}

#[test]
fn only_memory_that_was_made_for_it_is_shared() {
    let usage = |error: Error, word: &str| {
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(word), "{error}");
    };
    let private = Db::in_memory().expect("made");
    usage(private.share().expect_err("private"), "Options::shared_memory");
    let dir = tempfile::tempdir().expect("a directory");
    let file = Options::new().shared_memory(true).open(dir.path().join("a.mapleaf")).expect("opened");
    usage(file.share().expect_err("a file"), "open the file");
    let (_db, memory) = shared_db();
    usage(Options::new().exclusive(true).attach(&memory).map(drop).expect_err("shared"), "exclusive");
    usage(Options::new().recover(true).attach(&memory).map(drop).expect_err("shared"), "recover");
}

/// Errors of a process that finds records which no process has stored.
const DAMAGED: [ErrorKind; 3] = [ErrorKind::Poisoned, ErrorKind::Corrupt, ErrorKind::Io];

#[test]
fn shared_records_that_a_program_overwrites_give_errors_and_no_wrong_data() {
    let seed = seed("overwritten_memory");
    let (mut rng, mut found) = (Rng(seed), 0);
    for trial in 0..40 {
        let broker = Broker::start();
        let mut members = [Member::open(&broker.path(), 0), Member::open(&broker.path(), 0)];
        for member in &mut members {
            member.number("put immediate t k 0");
        }
        let records = broker.records();
        let mut bytes = vec![0; records.metadata().expect("its status").len() as usize];
        records.read_exact_at(&mut bytes, 0).expect("read");
        // The first words that are used, but for reader slots: those may show any state.
        let used: Vec<usize> = (0..16 << 10).filter(|&at| bytes[at] != 0).collect();
        let place = used[rng.below(used.len() as u64) as usize];
        let to = bytes[place] ^ 1 << rng.below(8);
        records.write_all_at(&[to], place as u64).expect("overwritten");
        let at = format!("seed {seed}, trial {trial}, byte {place} from {} to {to}", bytes[place]);
        let mut possible = vec![0];
        for number in 1..8 {
            let [writer, reader] = &mut members;
            let answer = writer.ask(&format!("put immediate t k {number}"));
            match is_failure(&answer, &DAMAGED) {
                true => possible.push(number),
                false => {
                    numbers(&answer, &at);
                    possible = vec![number];
                }
            }
            for member in [reader, writer] {
                let answer = member.ask("get t k");
                let right = answer.parse().is_ok_and(|number: i32| possible.contains(&number));
                assert!(right || is_failure(&answer, &DAMAGED), "{at}: {answer}, possible {possible:?}");
            }
            members.swap(0, 1);
        }
        let damaged = possible.len() > 1;
        found += u32::from(damaged);
        let mut next = Member::start(&broker.path(), 0);
        let answer = next.ask("open");
        assert!(
            answer == "ok" || is_failure(&answer, &[DAMAGED[0], DAMAGED[1], ErrorKind::NotADatabase]),
            "{at}: {answer}"
        );
    }
    println!("{found} of 40 changes were found by writers");
    assert!(found > 5, "{found} changes found");
}
