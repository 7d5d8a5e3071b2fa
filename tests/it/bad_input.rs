//! Wrong files and impossible openings: each is refused with its error kind, and no file is
//! changed.

use std::os::unix::process::CommandExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;

use mapleaf::testing::without_log;
use mapleaf::{Db, Error, ErrorKind, Options, PageId, Table};

use crate::reexec::{self, Process};
use crate::support::names_beside_locks;
use crate::workload::{fast_dir, long, History, Rng};

const T: Table<&[u8], &[u8]> = Table::new("t");

/// All ways to open a file.
fn ways() -> [Options; 4] {
    let new = Options::new;
    [new(), new().create(false), new().read_only(true), new().init_empty(true).page_size(8192)]
}

/// Expects that every way of opening fails with this kind and changes nothing; the error of the
/// last.
fn refused(path: &Path, kind: ErrorKind) -> Error {
    let before = std::fs::read(path).expect("the file");
    let mut last = None;
    for options in ways() {
        let e = options.open(path).expect_err("refused");
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(path.to_str().expect("a name")), "{e}: names the file");
        assert!(std::fs::read(path).expect("the file") == before, "{e}: changed by the refusal");
        last = Some(e);
    }
    last.expect("an error")
}

fn refused_bytes(bytes: &[u8], kind: ErrorKind) -> Error {
    let dir = fast_dir();
    let path = dir.path().join("file");
    std::fs::write(&path, bytes).expect("to write it");
    let e = refused(&path, kind);
    assert_eq!(names_beside_locks(dir.path(), &[]), ["file"], "nothing appears beside a refused file");
    e
}

/// The bytes of a closed database with this many transactions of a seeded run.
fn database(page_size: usize, commits: u64) -> (Vec<u8>, History) {
    database_of(History::new(7), page_size, commits)
}

fn database_of(history: History, page_size: usize, commits: u64) -> (Vec<u8>, History) {
    let dir = fast_dir();
    let path = dir.path().join("made");
    // With a log the last transaction would be the one that gives it up.
    without_log(|| {
        let db = Options::new().page_size(page_size as u32).open(&path).expect("creation");
        for _ in 0..commits {
            history.commit_next(&db).expect("commit");
        }
        history.judge(&db).expect("a database that is whole");
    });
    (std::fs::read(&path).expect("the file"), history)
}

/// Changes every copy of the meta pages and recomputes their checksums (docs/format.md).
fn with_metas(bytes: &[u8], page_size: usize, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in [0, page_size / 2, page_size, page_size + page_size / 2] {
        let record = &mut bytes[at..at + 256];
        change(record);
        let crc = crc32fast::hash(&record[..252]);
        record[252..].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

fn txn_of(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at + 48..at + 56].try_into().expect("8 bytes"))
}

#[test]
fn files_that_are_no_database_are_refused() {
    let mut rng = Rng(0x61);
    refused_bytes(b"{\"name\": \"settings\"}\n", ErrorKind::NotADatabase);
    refused_bytes(b"x", ErrorKind::NotADatabase);
    refused_bytes(&[0; 100_000], ErrorKind::NotADatabase);
    refused_bytes(b"SQLite format 3\0", ErrorKind::NotADatabase);
    for len in [7, 255, 256, 511, 4095, 4096, 8192, 70_000] {
        let bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
        refused_bytes(&bytes, ErrorKind::NotADatabase);
    }
    // The magic after a transfer in text mode.
    let (bytes, _) = database(4096, 1);
    let text: Vec<u8> = bytes.iter().copied().filter(|&byte| byte != b'\r').collect();
    refused_bytes(&text, ErrorKind::NotADatabase);
}

/// A power cut during the initialisation of an empty file can leave its length and no bytes. Only
/// `init_empty` may initialise such a file.
#[test]
fn a_short_file_of_zeros_is_refused_unless_it_may_be_initialised() {
    let dir = fast_dir();
    let path = dir.path().join("zeros");
    for len in [1, 4096, 8192, 65_536] {
        std::fs::write(&path, vec![0; len]).expect("to write it");
        for options in &ways()[..3] {
            let e = options.clone().open(&path).expect_err("refused");
            assert_eq!(e.kind(), ErrorKind::NotADatabase, "{e}");
            assert!(std::fs::read(&path).expect("the file") == vec![0; len], "{e}: changed by the refusal");
        }
        let db = Options::new().init_empty(true).open(&path).expect("initialised");
        assert!(db.check().expect("check").is_clean());
    }
}

#[test]
fn a_huge_file_that_is_no_database_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("huge");
    let file = std::fs::File::create(&path).expect("a file");
    let len = 1 << 42;
    if let Err(e) = file.set_len(len) {
        return println!("not tested: the file system takes no file of 4 TiB ({e})");
    }
    for options in ways() {
        assert_eq!(options.open(&path).expect_err("refused").kind(), ErrorKind::NotADatabase);
    }
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), len);
}

#[test]
fn an_empty_file_is_refused_unless_it_may_be_initialised() {
    let dir = fast_dir();
    let path = dir.path().join("empty");
    std::fs::write(&path, b"").expect("a file");
    let new = Options::new;
    for options in [new(), new().create(false), new().read_only(true), new().read_only(true).init_empty(true)] {
        let e = options.open(&path).expect_err("refused");
        assert_eq!(e.kind(), ErrorKind::EmptyFile);
        assert!(e.to_string().contains("init_empty"), "{e}: names the remedy");
        assert_eq!(std::fs::metadata(&path).expect("the file").len(), 0);
    }
    let db = Options::new().init_empty(true).page_size(8192).open(&path).expect("initialised");
    db.write(|txn| txn.table(T)?.insert(b"k", b"v").map(drop)).expect("write");
    assert_eq!(db.stats().expect("stats").page_size, 8192);
    assert!(db.check().expect("check").is_clean());
    drop(db);
    // The option says nothing about a file that has bytes.
    let db = Options::new().init_empty(true).open(&path).expect("open");
    assert_eq!(db.begin_read().expect("read").table(T).expect("table").get(b"k").expect("get"), Some(&b"v"[..]));
}

#[test]
fn a_newer_version_is_refused() {
    for page_size in [4096, 32768] {
        let (bytes, _) = database(page_size, 3);
        for version in [2u32, 3, u32::MAX, 0] {
            let newer = with_metas(&bytes, page_size, |record| record[8..12].copy_from_slice(&version.to_le_bytes()));
            let e = refused_bytes(&newer, ErrorKind::NewerVersion);
            assert!(e.to_string().contains(&version.to_string()), "{e}: names the version");
        }
        // One slot is enough: the file was written by a newer release.
        for slot in 0..2 {
            let mut one = bytes.clone();
            let newer = with_metas(&bytes, page_size, |record| record[8] = 9);
            let range = slot * page_size..(slot + 1) * page_size;
            one[range.clone()].copy_from_slice(&newer[range]);
            refused_bytes(&one, ErrorKind::NewerVersion);
        }
    }
}

#[test]
fn an_unknown_required_feature_is_refused() {
    let (bytes, _) = database(4096, 3);
    for bit in [4, 5, 17, 63] {
        let newer = with_metas(&bytes, 4096, |record| record[16..24].copy_from_slice(&(1u64 << bit).to_le_bytes()));
        let e = refused_bytes(&newer, ErrorKind::NewerVersion);
        assert!(e.to_string().contains("feature"), "{e}");
    }
}

#[test]
fn an_unknown_optional_feature_is_ignored_and_kept() {
    let (bytes, history) = database(4096, 3);
    let bits = 0x8000_0000_0000_0401u64.to_le_bytes();
    let bytes = with_metas(&bytes, 4096, |record| record[24..32].copy_from_slice(&bits));
    let dir = fast_dir();
    let path = dir.path().join("optional");
    std::fs::write(&path, &bytes).expect("to write it");
    let db = Db::open(&path).expect("open");
    history.judge(&db).expect("whole");
    history.commit_next(&db).expect("commit");
    history.commit_next(&db).expect("commit");
    drop(db);
    let after = std::fs::read(&path).expect("the file");
    for at in [0, 2048, 4096, 6144] {
        assert_eq!(&after[at + 24..at + 32], bits, "the copy at {at}");
    }
}

#[test]
fn an_impossible_page_size_is_refused() {
    let (bytes, _) = database(4096, 3);
    for size in [0u32, 1, 512, 2048, 4095, 4097, 6000, 65536, 1 << 31, u32::MAX] {
        let bytes = with_metas(&bytes, 4096, |record| record[12..16].copy_from_slice(&size.to_le_bytes()));
        let e = refused_bytes(&bytes, ErrorKind::Corrupt);
        assert!(e.to_string().contains("page size"), "{e}");
    }
    for size in [0, 1, 512, 2048, 5000, 65536, u32::MAX] {
        let dir = fast_dir();
        let made = Options::new().page_size(size).open(dir.path().join("new"));
        assert_eq!(made.expect_err("refused").kind(), ErrorKind::Usage);
        assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 0);
        assert_eq!(Options::new().page_size(size).in_memory().expect_err("refused").kind(), ErrorKind::Usage);
    }
}

#[test]
fn impossible_fields_of_a_meta_are_refused_or_read_as_damage() {
    let (bytes, _) = database(4096, 3);
    let mut rng = Rng(0x62);
    for round in 0..600 {
        let at = 48 + rng.below(204) as usize;
        let byte = if round % 3 == 0 { 0xff } else { rng.next() as u8 };
        let bytes = with_metas(&bytes, 4096, |record| record[at..(at + 4).min(252)].fill(byte));
        judge_damaged(&bytes, None).unwrap_or_else(|e| panic!("bytes {at}.. of the meta pages are {byte:#x}: {e}"));
    }
}

#[test]
fn a_file_with_both_meta_slots_damaged_is_refused() {
    for page_size in [4096usize, 16384] {
        let (mut bytes, _) = database(page_size, 3);
        for at in [0, page_size / 2, page_size, page_size + page_size / 2] {
            bytes[at + 60] ^= 1;
        }
        let e = refused_bytes(&bytes, ErrorKind::Corrupt);
        assert!(e.to_string().contains("meta"), "{e}");
    }
}

#[test]
fn a_damaged_meta_copy_is_reported_and_repaired_by_the_next_commits() {
    for page_size in [4096usize, 8192, 16384, 32768] {
        let (whole, history) = database(page_size, 4);
        let newest = txn_of(&whole, 0).max(txn_of(&whole, page_size));
        for at in [0, page_size / 2, page_size, page_size + page_size / 2] {
            for damage in 0..3 {
                let mut bytes = whole.clone();
                match damage {
                    0 => bytes[at + 130] ^= 0x10,
                    1 => bytes[at] ^= 0x10,
                    _ => bytes[at..at + 512].fill(0xaa),
                }
                let dir = fast_dir();
                let path = dir.path().join("damaged");
                std::fs::write(&path, &bytes).expect("to write it");
                let read_only = Options::new().read_only(true).open(&path).expect("open");
                assert_eq!(history.judge(&read_only), Ok(newest), "copy at {at}");
                let remarks = read_only.check().expect("check").remarks;
                let pages: Vec<_> = remarks.iter().filter_map(|remark| remark.page).collect();
                assert_eq!(pages, [PageId((at / page_size) as u64)], "{remarks:?}");
                drop(read_only);
                let db = Db::open(&path).expect("open");
                assert_eq!(history.judge(&db), Ok(newest), "copy at {at}");
                history.commit_next(&db).expect("commit");
                history.commit_next(&db).expect("commit");
                assert_eq!(mapleaf::inspect::metas(&db).expect("metas").len(), 4, "every copy is whole again");
                assert!(db.check().expect("check").remarks.is_empty());
                drop(db);
                assert_eq!(history.judge(&Db::open(&path).expect("open")), Ok(newest + 2));
            }
        }
    }
}

#[test]
fn a_damaged_meta_slot_opens_the_state_of_the_other() {
    for page_size in [4096usize, 32768] {
        let (whole, history) = database(page_size, 4);
        for slot in 0..2 {
            let mut bytes = whole.clone();
            bytes[slot * page_size..(slot + 1) * page_size].fill(0x5a);
            let other = txn_of(&whole, (1 - slot) * page_size);
            let dir = fast_dir();
            let path = dir.path().join("damaged");
            std::fs::write(&path, &bytes).expect("to write it");
            let db = Db::open(&path).unwrap_or_else(|e| panic!("slot {slot}: {e}"));
            assert_eq!(history.judge(&db), Ok(other));
            assert_eq!(history.commit_next(&db).expect("commit"), other + 1);
            drop(db);
            assert_eq!(history.judge(&Db::open(&path).expect("open")), Ok(other + 1));
        }
    }
}

#[test]
fn a_truncated_file_is_refused_with_what_it_needs() {
    for page_size in [4096usize, 16384] {
        let (bytes, history) = database(page_size, 12);
        let mut rng = Rng(0x63);
        let lens = (1..bytes.len() / page_size).map(|page| page * page_size);
        let random: Vec<usize> = (0..60).map(|_| 4 + rng.below(bytes.len() as u64 - 4) as usize).collect();
        // Fewer than the first four bytes of the magic identify no database.
        refused_bytes(&bytes[..3], ErrorKind::NotADatabase);
        for len in lens.chain(random).chain([4, 8, 9, 100, 255, 256, 257, bytes.len() - 1]) {
            let e = refused_bytes(&bytes[..len], ErrorKind::Truncated);
            let Error::Truncated { needed, found, .. } = e else { unreachable!("the kind is Truncated") };
            assert_eq!(found, len as u64);
            // With one slot cut off, the other still tells the needed length.
            assert!(needed > found && needed <= bytes.len() as u64, "{len}: {needed} are needed");
            if len >= 2 * page_size {
                assert_eq!(needed, bytes.len() as u64);
            }
        }
        // A longer file is no damage.
        for more in [1, 511, page_size - 1, page_size, 10 * page_size + 7] {
            let mut long = bytes.clone();
            long.resize(bytes.len() + more, 0xee);
            let dir = fast_dir();
            let path = dir.path().join("long");
            std::fs::write(&path, &long).expect("to write it");
            let db = Db::open(&path).expect("open");
            history.judge(&db).expect("whole");
            history.commit_next(&db).expect("commit");
            history.judge(&db).expect("whole");
        }
    }
}

#[test]
fn a_directory_is_refused() {
    let dir = fast_dir();
    for options in ways() {
        let e = options.open(dir.path()).expect_err("refused");
        assert_eq!(e.kind(), ErrorKind::NotADatabase);
        assert!(e.to_string().contains("directory"), "{e}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 0);
    assert_ne!(Db::open("").expect_err("no name").kind(), ErrorKind::Truncated);
}

#[test]
fn a_device_is_refused() {
    for device in ["/dev/null", "/dev/zero", "/dev/full", "/dev/tty"].map(Path::new) {
        if !device.exists() {
            continue;
        }
        for options in ways() {
            let e = options.open(device).expect_err("refused");
            // A missing terminal cannot be opened at all.
            assert!(e.kind() == ErrorKind::NotADatabase || device == Path::new("/dev/tty"), "{e}");
        }
    }
}

/// Runs in a child, so that the parent notices a call that blocks.
#[test]
fn refusing_child() {
    let Some(arguments) = reexec::arguments() else { return };
    for options in ways() {
        match options.open(&arguments[0]) {
            Ok(_) => reexec::answer("opened"),
            Err(e) => reexec::answer(&format!("{:?}: {e}", e.kind())),
        }
    }
}

#[test]
fn a_fifo_is_refused_without_waiting_for_its_other_end() {
    let dir = fast_dir();
    let path = dir.path().join("fifo");
    let made = Command::new("mkfifo").arg(&path).status();
    if !made.is_ok_and(|status| status.success()) {
        return println!("not tested: no mkfifo");
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut child = reexec::start(reexec::command("bad_input::refusing_child", &[&path]));
    let listener = std::thread::spawn(move || {
        let lines: Vec<String> = std::iter::from_fn(|| child.line()).take(4).collect();
        drop(sender.send(lines));
        child
    });
    // Far longer than four refusals take; the limit only makes the test end.
    let lines = receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap_or_default();
    if lines.is_empty() {
        // Opens the other end of the fifo, so that the child and the listener end too.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&path));
    }
    assert_eq!(lines.len(), 4, "opening a FIFO waits for its other end");
    assert!(lines.iter().all(|line| line.starts_with("NotADatabase")), "{lines:?}");
    listener.join().expect("no panic").finish();
}

#[test]
fn a_socket_is_refused() {
    let dir = fast_dir();
    let path = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    for options in ways() {
        let e = options.open(&path).expect_err("refused");
        assert_eq!(e.kind(), ErrorKind::NotADatabase, "{e}");
    }
}

/// The error that an ordinary user gets for a path.
fn as_nobody(path: &Path) -> Option<Vec<String>> {
    let (nobody, mut command) = (65534, reexec::command("bad_input::refusing_child", &[&path]));
    // Other users may not be able to reach the test binary, so this runs a copy of it.
    let copy = path.parent().expect("a directory").with_extension("bin");
    std::fs::create_dir_all(&copy).ok()?;
    let binary = copy.join("it");
    std::fs::copy(command.get_program(), &binary).ok()?;
    set_mode(&copy, 0o755);
    let mut child = Command::new(&binary);
    child.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    child.current_dir("/").gid(nobody).uid(nobody);
    command = child;
    let probe = Command::new("true").uid(nobody).gid(nobody).status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("not tested: this user cannot become another one");
        return None;
    }
    let mut child = reexec::start(command);
    let lines = std::iter::from_fn(|| child.line()).collect();
    child.finish();
    drop(std::fs::remove_dir_all(&copy));
    Some(lines)
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("to set permissions");
}

fn kinds(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split(':').next().expect("a kind")).collect()
}

#[test]
fn a_file_without_permission_has_its_own_error_kind() {
    let dir = fast_dir();
    set_mode(dir.path(), 0o755);
    let inner = dir.path().join("files");
    std::fs::create_dir(&inner).expect("a directory");
    set_mode(&inner, 0o755);
    let (bytes, _) = database(4096, 2);
    let path = inner.join("secret");
    std::fs::write(&path, &bytes).expect("to write it");
    set_mode(&path, 0o600);
    let Some(said) = as_nobody(&path) else { return };
    assert_eq!(kinds(&said), ["Permission"; 4], "{said:?}");
    assert!(said[0].contains("secret"), "{said:?}");
    // A file that may only be read can be read.
    set_mode(&path, 0o644);
    let said = as_nobody(&path).expect("as before");
    assert_eq!(kinds(&said), ["Permission", "Permission", "opened", "Permission"], "{said:?}");
    // A directory that takes no new file.
    let said = as_nobody(&inner.join("new")).expect("as before");
    assert_eq!(kinds(&said), ["Permission", "NotFound", "NotFound", "Permission"], "{said:?}");
    // In a directory that takes no new file, a file that may be written can be written.
    set_mode(&path, 0o666);
    let said = as_nobody(&path).expect("as before");
    assert_eq!(kinds(&said), ["opened"; 4], "{said:?}");
    assert!(std::fs::read(&path).expect("the file") == bytes, "nothing was committed, nothing is changed");
    set_mode(&inner, 0o700);
    let said = as_nobody(&path).expect("as before");
    assert_eq!(kinds(&said), ["Permission"; 4], "{said:?}");
}

/// In a directory of mode 0333 a file can be made, and the directory cannot be opened to make its
/// name durable.
#[test]
fn a_directory_that_takes_new_files_and_cannot_be_read_gets_a_database() {
    let dir = fast_dir();
    set_mode(dir.path(), 0o755);
    let inner = dir.path().join("files");
    std::fs::create_dir(&inner).expect("a directory");
    set_mode(&inner, 0o333);
    let Some(said) = as_nobody(&inner.join("new")) else { return };
    assert_eq!(kinds(&said), ["opened"; 4], "{said:?}");
    assert_eq!(names_beside_locks(&inner, &["new"]), ["new"], "nothing else is left");
}

#[test]
fn keys_and_values_over_the_limit_are_refused_and_nothing_is_changed() {
    for page_size in [4096usize, 8192, 32768] {
        let limit = 65_536;
        let dir = fast_dir();
        let path = dir.path().join("limits");
        let db = Options::new().page_size(page_size as u32).open(&path).expect("creation");
        let txn = db.begin_write().expect("write");
        let mut table = txn.table(T).expect("table");
        let (fits, over) = (vec![b'k'; limit], vec![b'k'; limit + 1]);
        table.insert(&fits, b"1").expect("a key at the limit");
        for len in [limit + 1, 2 * limit, 1 << 20] {
            let key = vec![b'k'; len];
            let e = table.insert(&key, b"2").expect_err("too large");
            let Error::TooLarge { len: told, limit: told_limit, table: name, .. } = &e else { panic!("{e}") };
            assert_eq!((*told, *told_limit, name.as_deref()), (len as u64, limit as u64, Some("t")));
            assert_eq!(table.append(&key, b"2").expect_err("too large").kind(), ErrorKind::TooLarge);
            assert_eq!(table.get(&key).expect("not there"), None);
            assert_eq!(table.remove(&key).expect("not there"), None);
        }
        // The transaction goes on, and so does the table.
        table.insert(b"after", &vec![7; 300_000]).expect("insert");
        assert_eq!(table.range(&over[..]..).expect("range").count(), 0);
        assert_eq!(txn.bytes_table(&"n".repeat(256)).err().map(|e| e.kind()), Some(ErrorKind::TooLarge));
        txn.bytes_table(&"n".repeat(255)).expect("the longest name");
        txn.commit().expect("commit");
        assert!(db.check().expect("check").is_clean());
        let txn = db.begin_read().expect("read");
        assert_eq!(txn.table(T).expect("table").len(), 2);
        assert_eq!(txn.table(T).expect("table").get(&over).expect("not there"), None);
    }
}

fn holder(path: &Path, how: &str) -> Process {
    let mut child = reexec::start(reexec::command("bad_input::holding_child", &[&path, &how]));
    assert_eq!(child.line().as_deref(), Some("open"));
    child
}

#[test]
fn holding_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let options = Options::new().read_only(arguments[1] == "read").exclusive(arguments[1] == "alone");
    let db = options.open(&arguments[0]).expect("open");
    reexec::answer("open");
    reexec::listen();
    drop(db);
}

#[test]
fn processes_share_a_file_unless_one_opens_it_exclusively() {
    let (bytes, history) = database(4096, 3);
    let dir = fast_dir();
    let path = dir.path().join("shared");
    std::fs::write(&path, &bytes).expect("to write it");
    let unchanged = || assert!(std::fs::read(&path).expect("the file")[..bytes.len()] == bytes, "changed");
    let read_only = || Options::new().read_only(true).open(&path);
    let alone = || Options::new().exclusive(true).open(&path);
    let is_locked = |refused: Result<Db, Error>, holders: &[&Process]| {
        let e = refused.expect_err("not beside another process");
        assert_eq!(e.kind(), ErrorKind::Locked);
        for holder in holders {
            assert!(e.to_string().contains(&format!("process {} (", holder.number())), "{e}");
        }
    };

    let writer = holder(&path, "write");
    history.judge(&Db::open(&path).expect("writer and writer")).expect("whole");
    history.judge(&read_only().expect("writer and reader")).expect("whole");
    is_locked(alone(), &[&writer]);
    unchanged();
    writer.finish();
    unchanged();

    let readers = [holder(&path, "read"), holder(&path, "read")];
    history.judge(&read_only().expect("reader and reader")).expect("whole");
    history.judge(&Db::open(&path).expect("reader and writer")).expect("whole");
    is_locked(alone(), &[&readers[0], &readers[1]]);
    unchanged();
    readers.into_iter().for_each(Process::finish);

    let exclusive = holder(&path, "alone");
    for refused in [Db::open(&path), read_only(), alone()] {
        is_locked(refused, &[&exclusive]);
    }
    unchanged();
    exclusive.finish();
    unchanged();

    // A process that dies takes its locks with it.
    for how in ["write", "read", "alone"] {
        let mut other = holder(&path, how);
        other.kill();
        history.judge(&alone().expect("the locks are gone")).expect("whole");
    }
}

#[test]
fn in_one_process_a_read_only_handle_stays_read_only_beside_handles_that_write() {
    let (bytes, history) = database(4096, 3);
    let dir = fast_dir();
    let path = dir.path().join("shared");
    std::fs::write(&path, &bytes).expect("to write it");
    let reader = Options::new().read_only(true).open(&path).expect("open");
    let writer = Db::open(&path).expect("a second member");
    assert_eq!(reader.begin_write().expect_err("read-only").kind(), ErrorKind::Usage);
    history.commit_next(&writer).expect("commit");
    history.judge(&reader).expect("sees the commit");
    assert_eq!(reader.begin_write().expect_err("still read-only").kind(), ErrorKind::Usage);
    drop(reader);
    let reader = Options::new().read_only(true).open(&path).expect("shares what is open");
    assert_eq!(reader.begin_write().expect_err("read-only").kind(), ErrorKind::Usage);
    history.commit_next(&writer).expect("commit");
    history.judge(&reader).expect("sees the commit");
}

/// Opens damaged bytes, reads and checks everything, and writes. Any step may report damage by a
/// typed error or a finding. Everything that is read without an error must match the history, if
/// there is one.
fn judge_damaged(bytes: &[u8], history: Option<&History>) -> Result<(), String> {
    let dir = fast_dir();
    let path = dir.path().join("damaged");
    std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
    let outcome = catch_unwind(AssertUnwindSafe(|| judge_file(&path, true, history)));
    match outcome.map_err(|_| "panicked")? {
        Ok(true) => Ok(()),
        Ok(false) if std::fs::read(&path).is_ok_and(|after| after == bytes) => Ok(()),
        Ok(false) => Err("changed by a refusal".into()),
        Err(e) => Err(e),
    }
}

fn typed(e: &Error) -> Result<(), String> {
    match e.kind() {
        ErrorKind::Corrupt | ErrorKind::Truncated | ErrorKind::NotADatabase | ErrorKind::NewerVersion => Ok(()),
        // A table whose flags this build does not know: the other tables can be used.
        ErrorKind::Usage if e.to_string().contains("newer release") => Ok(()),
        kind => Err(format!("{kind:?}: {e}")),
    }
}

/// Whether it opened.
fn judge_file(path: &Path, write: bool, history: Option<&History>) -> Result<bool, String> {
    let db = match Options::new().create(false).read_only(!write).open(path) {
        Ok(db) => db,
        Err(e) => return typed(&e).map(|()| false),
    };
    let clean = db.check().map_err(|e| e.to_string())?.is_clean();
    read_all(&db, clean, history)?;
    if write {
        let written = db.write(|txn| {
            for table in txn.tables()? {
                txn.bytes_table(&table.name)?.insert(b"new", &[1; 3000])?;
                txn.bytes_table(&table.name)?.remove(b"key00010")?;
            }
            txn.bytes_table("new").map(drop)
        });
        if let Err(e) = written {
            typed(&e)?;
        }
    }
    Ok(true)
}

/// Reads every entry forwards, backwards and by its key; a difference from the history is an error.
fn read_all(db: &Db, clean: bool, history: Option<&History>) -> Result<(), String> {
    let txn = db.begin_read().map_err(|e| e.to_string())?;
    let expected = history.map(|history| history.step(&txn).map(|step| history.state(step)));
    let expected = match expected {
        Some(Err(e)) if !clean => return typed(&e),
        other => other.transpose().map_err(|e| e.to_string())?,
    };
    let tables = match txn.tables() {
        Ok(tables) => tables,
        Err(e) if !clean => return typed(&e),
        Err(e) => return Err(format!("clean, but {e}")),
    };
    let mut complete = true;
    for table in &tables {
        let expected = expected.as_ref().map(|state| state.get(table.name.as_str()).ok_or("a table that never was"));
        let expected = expected.transpose()?;
        let entries = match txn.bytes_table(&table.name) {
            Ok(entries) => entries,
            Err(e) => {
                typed(&e)?;
                complete = false;
                continue;
            }
        };
        let backwards = entries.iter().rev().take(100_000).try_fold(0, |count, entry| entry.map(|_| count + 1));
        let mut read = 0;
        for entry in entries.iter().take(100_000) {
            let (key, value) = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    typed(&e)?;
                    complete = false;
                    break;
                }
            };
            read += 1;
            if let Some(expected) = expected {
                let right = expected.get(key).is_some_and(|right| right.bytes() == value);
                if !right {
                    return Err(format!("table {}: wrong entry {}", table.name, key.escape_ascii()));
                }
            }
            match entries.get(key) {
                Ok(Some(found)) if found == value => {}
                Ok(other) if expected.is_some() => {
                    return Err(format!("get of {} gave {:?}", key.escape_ascii(), other.map(<[u8]>::len)));
                }
                Ok(_) => {}
                Err(e) => typed(&e)?,
            }
        }
        if let Some(expected) = expected.filter(|_| complete) {
            if read != expected.len() || !backwards.is_ok_and(|count| count == read) {
                return Err(format!("table {}: {read} of {} entries", table.name, expected.len()));
            }
        }
    }
    match expected {
        Some(state) if tables.len() != state.len() => Err(format!("{} of {} tables", tables.len(), state.len())),
        _ if clean && !complete => Err("check found nothing, reading did".into()),
        _ => Ok(()),
    }
}

/// A small database that has everything: branches, an overflow value, freed pages, a free list.
fn small() -> (Vec<u8>, History) {
    let (bytes, history) = database_of(History::small(7), 4096, 6);
    assert!(bytes.len() <= 40 * 4096, "{} bytes are too many", bytes.len());
    let kinds: std::collections::HashSet<u8> = bytes.chunks(4096).skip(2).map(|page| page[4]).collect();
    assert!((1..=4).all(|kind| kinds.contains(&kind)), "leaf, branch, overflow and free list are all there: {kinds:?}");
    (bytes, history)
}

#[test]
fn a_flipped_byte_is_an_error_or_does_no_harm() {
    use std::os::unix::fs::FileExt;
    let (bytes, history) = small();
    let dir = fast_dir();
    let path: PathBuf = dir.path().join("flipped");
    std::fs::write(&path, &bytes).expect("to write it");
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
    let mut rng = Rng(0x64);
    let (mut flipped, mut refusals) = (0u64, 0u64);
    println!("seed 0x64, {} bytes", bytes.len());
    for (at, &right) in bytes.iter().enumerate() {
        flipped += 1;
        let flip = 1 + rng.below(255) as u8;
        file.write_all_at(&[right ^ flip], at as u64).expect("to flip");
        let outcome = catch_unwind(|| judge_file(&path, false, Some(&history)));
        match outcome.unwrap_or_else(|_| panic!("byte {at} ^ {flip:#x}: panicked")) {
            Ok(opened) => refusals += u64::from(!opened),
            Err(e) => panic!("byte {at} ^ {flip:#x}: {e}"),
        }
        file.write_all_at(&[right], at as u64).expect("to flip back");
    }
    assert!(std::fs::read(&path).expect("the file") == bytes, "reading changed the file");
    println!("{flipped} bytes flipped, {refusals} refused at open");
}

#[test]
fn a_flipped_byte_does_no_harm_to_a_writer() {
    let (bytes, history) = small();
    let mut rng = Rng(0x65);
    for _ in 0..if long() { 20_000 } else { 700 } {
        let mut damaged = bytes.clone();
        let at = rng.below(bytes.len() as u64) as usize;
        damaged[at] ^= 1 << rng.below(8);
        judge_damaged(&damaged, Some(&history)).unwrap_or_else(|e| panic!("byte {at}: {e}"));
    }
}

/// Pages that were lost, doubled or written to the wrong place, each with a right checksum.
#[test]
fn pages_in_wrong_places_are_found() {
    let (bytes, history) = small();
    let pages = bytes.len() / 4096;
    let mut rng = Rng(0x66);
    for to in 2..pages {
        let sources = [2 + rng.below(pages as u64 - 2) as usize, 2 + rng.below(pages as u64 - 2) as usize, 0];
        for from in sources {
            let mut damaged = bytes.clone();
            match from {
                0 => damaged[to * 4096..(to + 1) * 4096].fill(0),
                from => damaged.copy_within(from * 4096..(from + 1) * 4096, to * 4096),
            }
            judge_damaged(&damaged, Some(&history)).unwrap_or_else(|e| panic!("page {to} from {from}: {e}"));
        }
    }
}

/// Crafted damage with right checksums.
#[test]
fn crafted_pages_give_errors_or_answers_and_never_panic() {
    let (bytes, _) = small();
    let mut sealed = bytes.clone();
    mapleaf::testing::seal_file(&mut sealed);
    assert!(sealed == bytes, "sealing a whole file changes nothing");
    let pages = bytes.len() as u64 / 4096;
    let mut rng = Rng(0x67);
    println!("seed 0x67");
    for round in 0..if long() { 200_000 } else { 5000 } {
        let mut damaged = bytes.clone();
        for _ in 0..1 + rng.below(4) {
            let page = rng.below(pages) as usize * 4096;
            let count = usize::from(u16::from_le_bytes([damaged[page + 6], damaged[page + 7]])).min(400);
            let arrays = if damaged[page + 4] == 2 { 128 + 16 * count } else { 32 + 6 * count } as u64;
            let at = page
                + match rng.below(4) {
                    0 => rng.below(32),
                    1 => rng.below(arrays.clamp(64, 4096)),
                    2 => 4095 - rng.below(600),
                    _ => rng.below(4096),
                } as usize;
            damaged[at] = match rng.below(4) {
                0 => rng.next() as u8,
                1 => 0,
                2 => 0xff,
                _ => damaged[at].wrapping_add(1 + rng.below(3) as u8),
            };
        }
        mapleaf::testing::seal_file(&mut damaged);
        if let Err(e) = judge_damaged(&damaged, None) {
            let differs: Vec<usize> = (0..bytes.len()).filter(|&at| damaged[at] != bytes[at]).collect();
            panic!("seed 0x67, round {round}: {e}; differs at {differs:?}");
        }
    }
}

#[test]
fn a_page_that_is_free_twice_is_damage_and_not_a_panic() {
    let (bytes, _) = small();
    let newest = if txn_of(&bytes, 0) > txn_of(&bytes, 4096) { 0 } else { 4096 };
    let list = u32::from_le_bytes(bytes[newest + 112..newest + 116].try_into().expect("4 bytes")) as usize * 4096;
    let count = u32::from_le_bytes(bytes[list + 32..list + 36].try_into().expect("4 bytes")) as usize;
    let mut damaged = bytes.clone();
    assert!(count > 0, "there is a free list");
    // Every item once more, after the others.
    let items = list + 40;
    damaged.copy_within(items..items + count * 24, items + count * 24);
    damaged[list + 32..list + 36].copy_from_slice(&(2 * count as u32).to_le_bytes());
    mapleaf::testing::seal_file(&mut damaged);
    let dir = fast_dir();
    let path = dir.path().join("twice");
    std::fs::write(&path, &damaged).expect("to write it");
    let db = Db::open(&path).expect("open");
    assert!(!db.check().expect("check").is_clean(), "check finds it");
    let e = db.write(|txn| txn.bytes_table("log")?.insert(b"k", b"v").map(drop)).expect_err("refused");
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}");
    // Reading goes on.
    assert_eq!(db.begin_read().expect("read").bytes_table("log").expect("table").get(b"k").expect("get"), None);
}

/// The free list contains pages that tables and catalog use. New writes to such a file may be lost,
/// but nothing may panic.
#[test]
fn pages_that_are_in_use_and_free_are_damage_and_not_a_panic() {
    let (bytes, _) = small();
    let newest = if txn_of(&bytes, 0) > txn_of(&bytes, 4096) { 0 } else { 4096 };
    let list = u32::from_le_bytes(bytes[newest + 112..newest + 116].try_into().expect("4 bytes")) as usize * 4096;
    let pages = bytes.len() as u64 / 4096;
    let mut rng = Rng(0x68);
    let (mut refused, dir) = (0, fast_dir());
    for round in 0..if long() { 20_000 } else { 400 } {
        let mut damaged = bytes.clone();
        let mut free: Vec<u64> = (2..pages).filter(|_| rng.one_in(2)).take(100).collect();
        free.sort_by_key(|_| rng.next());
        free.truncate(1 + rng.below(free.len().max(1) as u64) as usize);
        for (item, page) in free.iter().enumerate() {
            let at = list + 40 + item * 24;
            damaged[at..at + 24].fill(0);
            damaged[at..at + 6].copy_from_slice(&page.to_le_bytes()[..6]);
            damaged[at + 6] = 1;
        }
        damaged[list + 32..list + 36].copy_from_slice(&(free.len() as u32).to_le_bytes());
        mapleaf::testing::seal_file(&mut damaged);
        let path = dir.path().join("lying");
        std::fs::write(&path, &damaged).expect("to write it");
        let db = Db::open(&path).expect("open");
        for step in 0..4u8 {
            let write = db.write(|txn| {
                let mut table = txn.bytes_table("log")?;
                (0..40u8).try_for_each(|key| table.insert(&[step, key], &[key; 900]).map(drop))?;
                (0..20u8).try_for_each(|key| table.remove(&[step, key]).map(drop))
            });
            match write {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    refused += 1;
                    break;
                }
                Err(e) => panic!("round {round}: {e}"),
            }
        }
    }
    assert!(refused > 0, "nothing was noticed");
}
