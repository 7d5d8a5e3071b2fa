//! Creation: a file is complete or absent, also if several processes create it at once, and after a
//! kill at any step.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::time::Duration;

use mapleaf::testing::set_file_system;
use mapleaf::{Db, ErrorKind, Options};

use crate::reexec::{self, Process};
use crate::support::{names_beside_locks, remove_database};
use crate::workload::{fast_dir, long, Rng};

fn uuid(db: &Db) -> [u8; 16] {
    let stats = db.stats().expect("stats");
    assert_eq!((stats.page_count, stats.tables), (2, 0));
    assert!(db.check().expect("check").is_clean());
    stats.uuid
}

/// The refusal comes before anything is made: no file, no temporary one, no lock file.
#[test]
fn a_new_file_on_a_network_file_system_is_refused_and_nothing_is_left_behind() {
    const NFS: i64 = 0x6969;
    let (dir, elsewhere) = (fast_dir(), fast_dir());
    let (path, link, empty) = (dir.path().join("new"), elsewhere.path().join("link"), elsewhere.path().join("empty"));
    std::os::unix::fs::symlink(&path, &link).expect("a link to a file that does not exist");
    std::fs::write(&empty, "").expect("an empty file");
    set_file_system(Some(NFS));
    for path in [&path, &link, &empty] {
        let refused = Options::new().init_empty(true).open(path).map(drop).expect_err("NFS");
        let text = refused.to_string();
        assert!(refused.kind() == ErrorKind::Usage && text.contains("(NFS)"), "{text}");
        assert!(text.contains("Options::network_file_system"), "{text}");
    }
    let count = |dir: &Path| std::fs::read_dir(dir).expect("a directory").count();
    assert_eq!((count(dir.path()), count(elsewhere.path())), (0, 2), "nothing was made");
    assert_eq!(std::fs::metadata(&empty).expect("the empty file").len(), 0);
    drop(Options::new().network_file_system(true).open(&path).expect("wanted"));
    set_file_system(None);
    drop(Db::open_existing(&path).expect("made"));
}

#[test]
fn threads_that_create_the_same_file_share_it() {
    let dir = fast_dir();
    for round in 0..50 {
        let name = format!("{round}.mapleaf");
        let path = dir.path().join(&name);
        let barrier = Barrier::new(8);
        let handles: Vec<Db> = std::thread::scope(|scope| {
            let open = || {
                barrier.wait();
                Db::open(&path).expect("open")
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let uuids: Vec<_> = handles.iter().map(uuid).collect();
        assert!(uuids.iter().all(|uuid| *uuid == uuids[0]), "one database");
        handles[0].write(|txn| txn.bytes_table("t")?.insert(b"k", b"v").map(drop)).expect("write");
        let seen = handles[7].read(|txn| Ok::<_, mapleaf::Error>(txn.bytes_table("t")?.len())).expect("read");
        assert_eq!(seen, 1);
        drop(handles);
        assert_eq!(names_beside_locks(dir.path(), &[&name]), [name.as_str()], "nothing is left over");
        remove_database(&path);
    }
}

/// Threads open and close the same files, so they hit databases that are just being closed or
/// created.
#[test]
fn threads_that_open_and_close_at_once_never_fail() {
    let dir = fast_dir();
    let path = dir.path().join("busy.mapleaf");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..100u64 {
                    let db = Db::open(path).expect("open");
                    let key = (thread * 1000 + n).to_be_bytes();
                    db.write(|txn| txn.bytes_table("t")?.insert(&key, b"v").map(drop)).expect("write");
                }
            });
        }
    });
    let db = Db::open_existing(&path).expect("open");
    assert_eq!(db.read(|txn| Ok::<_, mapleaf::Error>(txn.bytes_table("t")?.len())).expect("read"), 400);
    assert!(db.check().expect("check").is_clean());
}

/// At any moment, another process sees no file under the name, or a complete one.
#[test]
fn a_file_appears_complete() {
    let dir = fast_dir();
    for (round, page_size) in [4096, 8192, 16384, 32768].into_iter().cycle().take(200).enumerate() {
        let path = dir.path().join(format!("{round}.mapleaf"));
        let created = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| loop {
                let done = created.load(Ordering::Acquire);
                match std::fs::read(&path) {
                    Ok(bytes) => break Some(bytes),
                    Err(_) if done => break None,
                    Err(_) => std::thread::yield_now(),
                }
            });
            let db = Options::new().page_size(page_size).open(&path).expect("creation");
            created.store(true, Ordering::Release);
            let seen = watcher.join().expect("no panic").expect("the file is there when it is open");
            drop(db);
            let whole = 2 * page_size as usize;
            assert_eq!(seen[..whole], std::fs::read(&path).expect("the file"));
            // An open database has one more page, which holds only the sentinel.
            assert!(seen.len() <= whole + 4096 && seen[whole..].iter().skip(1).all(|&byte| byte == 0));
        });
    }
}

fn opener(path: &Path) -> Process {
    reexec::start(reexec::command("creation::open_child", &[&path]))
}

#[test]
fn open_child() {
    let Some(arguments) = reexec::arguments() else { return };
    reexec::answer("ready");
    while let Some(command) = reexec::listen() {
        assert!(["open", "open alone"].contains(&&*command), "{command}");
        match Options::new().exclusive(command == "open alone").open(&arguments[0]) {
            Ok(db) => {
                reexec::answer(&format!("opened {:?}", uuid(&db)));
                reexec::listen();
                drop(db);
                reexec::answer("closed");
            }
            Err(e) if e.kind() == ErrorKind::Locked => reexec::answer("locked"),
            Err(e) => panic!("{e}"),
        }
    }
}

fn four_openers(path: &Path) -> Vec<Process> {
    let mut openers: Vec<Process> = (0..4).map(|_| opener(path)).collect();
    for opener in &mut openers {
        assert_eq!(opener.line().as_deref(), Some("ready"));
    }
    openers
}

/// Lets all openers try at once.
fn tell_all(openers: &mut [Process], command: &str) -> Vec<String> {
    openers.iter_mut().for_each(|opener| opener.say(command));
    openers.iter_mut().map(|opener| opener.line().expect("an answer")).collect()
}

#[test]
fn processes_that_create_the_same_file_share_it() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut openers = four_openers(&path);
    for _ in 0..30 {
        let said = tell_all(&mut openers, "open");
        let db = Db::open(&path).expect("open beside the others");
        let whole = format!("opened {:?}", uuid(&db));
        assert!(said.iter().all(|said| *said == whole), "one database: {said:?}");
        drop(db);
        let locked = Options::new().exclusive(true).open(&path).expect_err("other processes have it");
        assert_eq!(locked.kind(), ErrorKind::Locked);
        assert_eq!(tell_all(&mut openers, "close"), ["closed"; 4]);
        let db = Options::new().create(false).exclusive(true).open(&path).expect("no other process has it");
        assert_eq!(format!("opened {:?}", uuid(&db)), whole);
        drop(db);
        assert_eq!(names_beside_locks(dir.path(), &["shared.mapleaf"]), ["shared.mapleaf"]);
        remove_database(&path);
    }
    openers.into_iter().for_each(Process::finish);
}

#[test]
fn one_of_several_processes_that_create_a_file_exclusively_gets_it_and_the_others_find_it_locked() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut openers = four_openers(&path);
    for _ in 0..30 {
        let said = tell_all(&mut openers, "open alone");
        let won: Vec<usize> = (0..4).filter(|&at| said[at].starts_with("opened")).collect();
        assert_eq!(won.len(), 1, "{said:?}");
        let locked = Db::open(&path).expect_err("another process has it");
        assert_eq!(locked.kind(), ErrorKind::Locked);
        openers[won[0]].say("close");
        assert_eq!(openers[won[0]].line().as_deref(), Some("closed"));
        let db = Db::open_existing(&path).expect("open");
        assert_eq!(said[won[0]], format!("opened {:?}", uuid(&db)), "the winner's file is the one that stands");
        drop(db);
        assert_eq!(names_beside_locks(dir.path(), &["shared.mapleaf"]), ["shared.mapleaf"]);
        remove_database(&path);
    }
    openers.into_iter().for_each(Process::finish);
}

#[test]
fn create_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let dir = PathBuf::from(&arguments[0]);
    for n in 0..u64::MAX {
        drop(Db::open(dir.join(format!("{n}.mapleaf"))).expect("creation"));
        reexec::answer(&n.to_string());
    }
}

#[test]
fn creation_that_is_killed_leaves_no_file_or_a_whole_one() {
    let mut rng = Rng(0x51);
    let (mut absent, mut leftovers) = (0, 0);
    for _ in 0..if long() { 500 } else { 40 } {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = reexec::start(reexec::command("creation::create_child", &[&dir.path()]));
        let mut made = child.line().expect("a child that creates");
        std::thread::sleep(Duration::from_micros(rng.below(3000)));
        child.kill();
        while let Some(line) = child.line() {
            made = line;
        }
        let made: u64 = made.parse().expect("a number");
        let path = |n: u64| dir.path().join(format!("{n}.mapleaf"));
        let all = names_beside_locks(dir.path(), &[]);
        let databases: Vec<&str> = all.iter().map(String::as_str).filter(|name| name.ends_with(".mapleaf")).collect();
        let left = names_beside_locks(dir.path(), &databases);
        leftovers += left.iter().filter(|name| name.starts_with('.')).count();
        absent += u64::from(!path(made + 1).exists());
        for name in left.iter().filter(|name| !name.starts_with('.')) {
            uuid(&Db::open_existing(dir.path().join(name)).unwrap_or_else(|e| panic!("{name} of {left:?}: {e}")));
        }
        assert!((0..=made).all(|n| path(n).exists()), "{made} were acknowledged, {left:?} are there");
        // Left-over temporary files are harmless.
        let db = Db::open(path(made + 1)).expect("to create it again");
        db.write(|txn| txn.bytes_table("t")?.insert(b"k", b"v").map(drop)).expect("write");
        assert!(db.check().expect("check").is_clean());
    }
    println!("seed 0x51: {absent} times no file, {leftovers} temporary files left over");
}

/// The file system has no room for the second page: the writer dies or fails between the two slots
/// of an empty file. The file must still count as empty, or be a whole database.
#[test]
fn an_interrupted_initialisation_of_an_empty_file_can_be_repeated() {
    let dir = fast_dir();
    let path = dir.path().join("empty.mapleaf");
    for limit_kib in [0, 4, 8] {
        std::fs::write(&path, b"").expect("an empty file");
        let child = reexec::command("creation::init_child", &[&path]);
        let mut limited = std::process::Command::new("bash");
        limited.args(["-c", &format!("ulimit -f {limit_kib}; exec \"$0\" \"$@\" >/dev/null 2>&1")]);
        limited.arg(child.get_program()).args(child.get_args());
        limited.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let status = limited.status().expect("a child");
        assert!(limit_kib >= 8 || !status.success(), "the limit of {limit_kib} KiB holds");
        let len = std::fs::metadata(&path).expect("the file").len();
        let opened = Options::new().init_empty(true).open(&path);
        uuid(&opened.unwrap_or_else(|e| panic!("cut at {limit_kib} KiB, {len} bytes left: {e}")));
    }
}

#[test]
fn init_child() {
    let Some(arguments) = reexec::arguments() else { return };
    drop(Options::new().init_empty(true).open(&arguments[0]).expect("initialisation"));
}

#[test]
fn opening_a_link_to_a_missing_file_creates_that_file() {
    let dir = fast_dir();
    std::fs::create_dir(dir.path().join("real")).expect("a directory");
    let link = dir.path().join("link.mapleaf");
    std::os::unix::fs::symlink("real/data.mapleaf", &link).expect("a link");
    let db = Db::open(&link).expect("open");
    uuid(&db);
    assert_eq!(names_beside_locks(&dir.path().join("real"), &["data.mapleaf"]), ["data.mapleaf"]);
    assert_eq!(names_beside_locks(dir.path(), &[]), ["link.mapleaf", "real"]);
    assert!(std::fs::symlink_metadata(&link).expect("the link").is_symlink());
    // The same file by its other name is the same database.
    assert_eq!(uuid(&Db::open(dir.path().join("real/data.mapleaf")).expect("open")), uuid(&db));
}

#[test]
fn links_into_missing_folders_and_circular_links_are_refused() {
    let dir = fast_dir();
    let link = dir.path().join("link.mapleaf");
    std::os::unix::fs::symlink("missing/data.mapleaf", &link).expect("a link");
    assert_eq!(Db::open(&link).expect_err("no such directory").kind(), ErrorKind::NotFound);
    std::os::unix::fs::symlink("circle", dir.path().join("circle")).expect("a link");
    assert_eq!(Db::open(dir.path().join("circle")).expect_err("a circle").kind(), ErrorKind::Io);
    assert_eq!(Db::open(dir.path().join("missing/a.mapleaf")).expect_err("no directory").kind(), ErrorKind::NotFound);
    assert_eq!(names_beside_locks(dir.path(), &[]), ["circle", "link.mapleaf"]);
}

/// A name of the maximum length leaves no room for the suffix of a temporary name.
#[test]
fn long_and_unusual_names_are_created() {
    use std::os::unix::ffi::OsStrExt;
    let dir = fast_dir();
    let names: [&[u8]; 4] = [&[b'n'; 255], b"with spaces and\nlines", b"\xff\xfe not UTF-8", b".hidden"];
    for name in names {
        let path = dir.path().join(std::ffi::OsStr::from_bytes(name));
        uuid(&Db::open(&path).unwrap_or_else(|e| panic!("{}: {e}", name.escape_ascii())));
        uuid(&Db::open_existing(&path).expect("open"));
    }
}

/// A starting process has copies of all descriptors of its parent for a moment, also of those that
/// hold locks.
#[test]
fn a_closed_database_opens_again_while_other_threads_start_processes() {
    let dir = fast_dir();
    let path = dir.path().join("again.mapleaf");
    let text = dir.path().join("text");
    std::fs::write(&text, b"no database").expect("a file");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    assert!(std::process::Command::new("true").status().expect("a child").success());
                }
            });
        }
        let outcome = (0..1500).find_map(|round| {
            let failed = |e: mapleaf::Error| format!("round {round}: {e}");
            // Refused files are unlocked too.
            let refused = Db::open(&text).expect_err("no database");
            let locked = (refused.kind() == ErrorKind::Locked).then(|| failed(refused));
            Db::open(&path).err().map(failed).or(locked)
        });
        done.store(true, Ordering::Release);
        assert_eq!(outcome, None);
    });
}
