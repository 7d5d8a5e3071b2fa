//! Databases in memory that processes share: processes that get the descriptors through a socket,
//! and children after `fork`. `stress`, `death` and `mounts` have more.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;

use mapleaf::testing::{
    end_child, ends_without_error, fork, in_forked_child, memory_with_seals, receive_descriptors, send_descriptors,
};
use mapleaf::{Db, Error, ErrorKind, Options, SharedMemory, Table};

use super::broker::Broker;
use super::member::{numbers, Member};
use crate::reexec;

const NUMBERS: Table<u64, u64> = Table::new("numbers");

fn shared_db() -> (Db, SharedMemory) {
    let db = Options::new().shared_memory(true).in_memory().expect("made");
    let memory = db.share().expect("shared");
    (db, memory)
}

fn put(db: &Db, key: u64, value: u64) {
    db.write(|txn| txn.table(NUMBERS)?.insert(key, value).map(drop)).expect("committed");
}

fn get(db: &Db, key: u64) -> Option<u64> {
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

#[test]
fn snapshots_of_killed_processes_pin_no_pages_of_shared_memory() {
    let broker = Broker::start();
    let mut writer = Member::open(&broker.path(), 0);
    writer.number("fill t 0 1000 400");
    let live = numbers(&writer.ask("pages"), "pages")[0];
    for _ in 0..8 {
        let mut reader = Member::open(&broker.path(), 0);
        reader.ask("hold");
        reader.kill();
        writer.number("update eventual t 300 1000 400");
        writer.number("fill t 0 1000 400");
    }
    let end = numbers(&writer.ask("pages"), "pages")[0];
    assert!(end < 6 * live, "{end} pages, {live} hold the data");
    writer.finish();
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
    assert_eq!((db.path(), db.stats().expect("stats").processes), (None, 1));
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

/// A process without other threads, which forks.
#[test]
fn forking_child() {
    if reexec::arguments().is_none() {
        return;
    }
    reexec::watch();
    let (db, memory) = shared_db();
    put(&db, 1, 1);
    let mut inherited = Some(db);
    assert!(in_forked_child(|| {
        let db = inherited.take().expect("the copy");
        for error in [db.begin_read().map(drop), db.begin_write().map(drop), db.share().map(drop)] {
            let error = error.expect_err("a child");
            assert!(matches!(error, Error::Inherited { .. }) && error.to_string().contains("Db::attach"), "{error}");
        }
        let attached = Db::attach(&memory).expect("attached");
        assert_eq!(get(&attached, 1), Some(1));
        drop(db);
        put(&attached, 2, 2);
        assert_eq!(attached.stats().expect("stats").processes, 2, "the parent and the child");
    }));
    let db = inherited.expect("the parent's own");
    assert_eq!((get(&db, 2), db.stats().expect("stats").processes), (Some(2), 1));
    // Parent and child do not share their locks.
    let txn = db.begin_write().expect("begins");
    txn.table(NUMBERS).expect("table").insert(3, 3).expect("inserted");
    assert!(in_forked_child(|| {
        let attached = Db::attach(&memory).expect("attached");
        assert!(attached.try_begin_write().expect("asked").is_none(), "the parent writes");
        assert_eq!(get(&attached, 3), None);
    }));
    txn.commit().expect("committed");
    // A child that ends without closing anything holds nothing.
    assert!(in_forked_child(|| {
        let attached = Db::attach(&memory).expect("attached");
        let txn = attached.begin_write().expect("begins");
        let held = attached.begin_read().expect("begins");
        std::mem::forget((txn, held, attached));
    }));
    put(&db, 4, 4);
    assert!(db.check().expect("check").is_clean());
    reexec::answer("done");
}

#[test]
fn a_forked_child_attaches_to_the_memory_of_its_parent() {
    let mut child = reexec::start(reexec::command("processes::memory::forking_child", &[&"go"]));
    assert_eq!(child.line().as_deref(), Some("done"));
    child.finish();
}

/// A process that passes descriptors to its child through a socket pair. Both commit in turns.
#[test]
fn sending_child() {
    if reexec::arguments().is_none() {
        return;
    }
    reexec::watch();
    const ROUNDS: u64 = 200;
    let turn = |db: &Db, socket: &mut UnixStream, round: u64| {
        assert_eq!(get(db, round), round.checked_sub(1).map(|_| round), "round {round}");
        put(db, round + 1, round + 1);
        socket.write_all(&[1]).expect("told");
    };
    let await_turn = |socket: &mut UnixStream| socket.read_exact(&mut [0]).expect("another process that goes on");
    let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    // The child has no descriptors of the memory but those that it receives.
    let Some(child) = fork() else {
        let run = || {
            drop(ours);
            let [data, records] = receive_descriptors(&theirs).expect("received");
            let db = Db::attach(&SharedMemory::new(data, records)).expect("attached");
            for round in (1..ROUNDS).step_by(2) {
                await_turn(&mut theirs);
                turn(&db, &mut theirs, round);
            }
        };
        end_child(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok());
    };
    drop(theirs);
    let (db, memory) = shared_db();
    send_descriptors(&ours, [memory.data.as_fd(), memory.records.as_fd()]).expect("sent");
    drop(memory);
    for round in (0..ROUNDS).step_by(2) {
        turn(&db, &mut ours, round);
        await_turn(&mut ours);
    }
    assert!(ends_without_error(child));
    assert_eq!(get(&db, ROUNDS), Some(ROUNDS));
    assert!(db.check().expect("check").is_clean());
    reexec::answer("done");
}

#[test]
fn a_process_attaches_by_descriptors_from_a_socket_pair() {
    let mut child = reexec::start(reexec::command("processes::memory::sending_child", &[&"go"]));
    assert_eq!(child.line().as_deref(), Some("done"));
    child.finish();
}

/// A process whose child goes on when it is killed.
#[test]
fn dying_parent() {
    if reexec::arguments().is_none() {
        return;
    }
    reexec::watch();
    let (db, memory) = shared_db();
    put(&db, 0, 1);
    if fork().is_some() {
        // Holds a snapshot and the writer lock until it is killed.
        let txn = db.begin_write().expect("begins");
        let held = db.begin_read().expect("begins");
        reexec::answer("parent holds");
        loop {
            std::thread::park();
            std::hint::black_box((&txn, &held));
        }
    }
    let run = || {
        reexec::progress();
        let db = Db::attach(&memory).expect("attached");
        reexec::answer("child attached");
        while let Some(command) = reexec::listen() {
            let number = command.parse().expect("a number");
            assert_eq!(get(&db, 0), Some(number));
            put(&db, 0, number + 1);
            assert!(db.check().expect("check").is_clean());
            reexec::answer(&format!("{} {}", number + 1, db.stats().expect("stats").processes));
        }
    };
    end_child(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok());
}

#[test]
fn a_child_goes_on_with_shared_memory_when_its_parent_is_killed() {
    let mut parent = reexec::start(reexec::command("processes::memory::dying_parent", &[&"go"]));
    let mut said = [parent.line().expect("a line"), parent.line().expect("a line")];
    said.sort();
    assert_eq!(said, ["child attached", "parent holds"]);
    parent.kill();
    for number in 1..20_u64 {
        parent.say(&number.to_string());
        assert_eq!(parent.line(), Some(format!("{} 1", number + 1)));
    }
}
