//! Where a shared file lies, and which user opens it: permissions, links, renamed, copied and
//! removed files, and `fork`.
//!
//! Tests with two users run as root, and do nothing otherwise. The other user is `nobody`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{chown, symlink, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use mapleaf::testing::fork;
use mapleaf::{Db, ErrorKind};

use super::member::{numbers, Member};
use crate::reexec;
use crate::workload::fast_dir;

const NOBODY: u32 = 65534;

/// A directory that every user may use.
fn open_directory() -> (tempfile::TempDir, PathBuf) {
    let dir = fast_dir();
    set_mode(dir.path(), 0o777);
    let path = dir.path().join("shared.mapleaf");
    (dir, path)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the owner");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").mode() & 0o777
}

fn lock_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    name.into()
}

/// Whether this process is root in a directory; otherwise says that a test does nothing.
fn is_root(dir: &Path) -> bool {
    let is_root = fs::metadata(dir).expect("a directory").uid() == 0;
    if !is_root {
        println!("not checked: only root can become another user");
    }
    is_root
}

/// A process of the user `nobody`, which opens nothing yet.
fn nobody(path: &Path) -> Member {
    let mut member = Member::start(path, 0);
    member.expect("nobody", "ok");
    member
}

/// A closed database of root with an entry, and this mode.
fn closed(path: &Path, mode: u32) {
    let mut member = Member::open(path, 0);
    member.number("put immediate t k v");
    member.finish();
    set_mode(path, mode);
}

#[test]
fn another_user_with_permission_to_both_files_reads_and_writes() {
    let (dir, path) = open_directory();
    if !is_root(dir.path()) {
        return;
    }
    closed(&path, 0o666);
    fs::remove_file(lock_file(&path)).expect("a lock file");
    for first_is_root in [true, false] {
        let (mut first, mut second) = match first_is_root {
            true => (Member::start(&path, 0), nobody(&path)),
            false => (nobody(&path), Member::start(&path, 0)),
        };
        first.expect("open", "ok");
        second.expect("open", "ok");
        for n in 0..4 {
            first.number(&format!("put immediate t k {n}"));
            second.expect("get t k", &n.to_string());
            second.number(&format!("put eventual t other {n}"));
            first.expect("get t other", &n.to_string());
        }
        first.finish();
        second.finish();
        assert_eq!(mode(&lock_file(&path)), 0o666, "the lock file has the mode of the data file");
        fs::remove_file(lock_file(&path)).expect("a lock file");
    }
}

#[test]
fn a_user_that_may_only_read_is_refused_beside_members_and_reads_without_them() {
    let (dir, path) = open_directory();
    if !is_root(dir.path()) {
        return;
    }
    closed(&path, 0o644);
    let before = fs::read(&path).expect("the file");
    let (mut reader, mut another) = (nobody(&path), nobody(&path));
    reader.refuses("open", ErrorKind::Permission);
    for _ in 0..2 {
        reader.expect("open read-only", "ok");
        another.expect("open read-only", "ok");
        for reader in [&mut reader, &mut another] {
            reader.expect("get t k", "v");
            reader.expect("check", "ok");
        }
        // Now a writer is refused, and a reader that could be a member is not.
        let mut root = Member::start(&path, 0);
        root.refuses("open", ErrorKind::Locked);
        root.expect("open read-only", "ok");
        root.expect("get t k", "v");
        root.finish();
        reader.expect("close", "ok");
        another.expect("close", "ok");
        assert!(fs::read(&path).expect("the file") == before, "changed by readers");
        let mut root = Member::open(&path, 0);
        reader.refuses("open read-only", ErrorKind::Locked);
        root.number("put immediate t k more");
        reader.refuses("open read-only", ErrorKind::Locked);
        root.number("put immediate t k v");
        root.finish();
        reader.expect("open read-only", "ok");
        reader.expect("get t k", "v");
        reader.expect("close", "ok");
        fs::write(&path, &before).expect("as it was");
    }
    // After a kill: the reader replays the log in memory.
    let mut root = Member::open(&path, 0);
    for n in 0..9 {
        root.number(&format!("put immediate t k {n}"));
    }
    root.kill();
    let before = fs::read(&path).expect("the file");
    reader.expect("open read-only", "ok");
    reader.expect("get t k", "8");
    reader.expect("check", "ok");
    reader.finish();
    assert!(fs::read(&path).expect("the file") == before, "changed by a reader");
    Member::open(&path, 0).expect("get t k", "8");
}

/// The user may write the data file, but not the lock file, or may not make one: it has the file
/// exclusively, or is refused.
#[test]
fn a_user_that_cannot_write_the_lock_file_opens_exclusively() {
    let (dir, path) = open_directory();
    if !is_root(dir.path()) {
        return;
    }
    closed(&path, 0o666);
    let mut root = Member::start(&path, 0);
    for has_lock_file in [true, false] {
        match has_lock_file {
            true => set_mode(&lock_file(&path), 0o644),
            false => {
                fs::remove_file(lock_file(&path)).expect("a lock file");
                set_mode(dir.path(), 0o755);
            }
        }
        let mut user = nobody(&path);
        user.expect("open", "ok");
        user.number("put immediate t k by_nobody");
        for open in ["open", "open read-only"] {
            root.refuses(open, ErrorKind::Locked);
        }
        user.number("put immediate t k again");
        user.expect("get t k", "again");
        user.expect("close", "ok");
        assert_eq!(lock_file(&path).exists(), has_lock_file);
        root.expect("open", "ok");
        root.expect("get t k", "again");
        if has_lock_file {
            set_mode(&lock_file(&path), 0o644);
        } else {
            // Root has made one with the mode of the file.
            assert_eq!(mode(&lock_file(&path)), 0o666);
            set_mode(&lock_file(&path), 0o600);
        }
        user.refuses("open", ErrorKind::Locked);
        root.number("put immediate t k v");
        root.expect("close", "ok");
        user.finish();
    }
    root.finish();
}

#[test]
fn the_lock_file_has_mode_and_owner_of_the_data_file_under_any_umask() {
    let (dir, path) = open_directory();
    for umask in ["077", "000", "027"] {
        for bits in [0o600, 0o640, 0o660, 0o666] {
            let _gone = (fs::remove_file(&path), fs::remove_file(lock_file(&path)));
            closed(&path, bits);
            fs::remove_file(lock_file(&path)).expect("a lock file");
            let child = Member::command(&path, 0);
            let mut command = Command::new("sh");
            command.args(["-c", &format!("umask {umask} && exec \"$0\" \"$@\"")]);
            command.arg(child.get_program()).args(child.get_args());
            command.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let mut member = Member::start_by(command);
            member.expect("open", "ok");
            assert_eq!(mode(&lock_file(&path)), bits, "umask {umask}");
            member.number("put immediate t k more");
            member.finish();
            assert_eq!(mode(&lock_file(&path)), bits, "umask {umask}");
        }
    }
    if !is_root(dir.path()) {
        return;
    }
    let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).expect("a file");
    for (bits, had_lock_file) in [(0o600, false), (0o600, true), (0o640, false)] {
        closed(&path, bits);
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("root");
        if !had_lock_file {
            fs::remove_file(lock_file(&path)).expect("a lock file");
        }
        let (mut root, mut user) = (Member::open(&path, 0), nobody(&path));
        assert_eq!((mode(&lock_file(&path)), owner(&lock_file(&path))), (bits, (NOBODY, NOBODY)));
        user.expect("open", "ok");
        root.number("put immediate t k by_root");
        user.expect("get t k", "by_root");
        root.finish();
        user.number("put immediate t k by_nobody");
        user.finish();
        chown(&path, Some(0), Some(0)).expect("root");
    }
}

#[test]
fn a_lock_file_of_another_program_is_not_changed() {
    let (_dir, path) = open_directory();
    closed(&path, 0o644);
    let lock = lock_file(&path);
    for content in [vec![7_u8; 100_000], b"notes".to_vec()] {
        fs::write(&lock, &content).expect("another file");
        let mut member = Member::open(&path, 0);
        member.expect("get t k", "v");
        member.number("put immediate t k v");
        Member::start(&path, 0).refuses("open", ErrorKind::Locked);
        member.finish();
        assert!(fs::read(&lock).expect("the file") == content, "changed");
    }
    fs::remove_file(&lock).expect("removed");
    fs::create_dir(&lock).expect("a directory");
    let mut member = Member::open(&path, 0);
    member.number("put immediate t k v");
    member.finish();
    fs::remove_dir(&lock).expect("removed");
    // A link in place of the lock file is not followed.
    let target = path.with_file_name("target");
    symlink(&target, &lock).expect("a link");
    let mut member = Member::open(&path, 0);
    member.number("put immediate t k v");
    member.finish();
    assert!(!target.exists(), "a lock file was made where a link led");
}

#[test]
fn a_symbolic_link_leads_to_the_same_lock_file_and_a_hard_link_is_refused() {
    let (dir, path) = open_directory();
    closed(&path, 0o644);
    let (elsewhere, hard) = (dir.path().join("elsewhere"), dir.path().join("hard.mapleaf"));
    fs::create_dir(&elsewhere).expect("a directory");
    let (soft, twice) = (elsewhere.join("soft.mapleaf"), dir.path().join("twice.mapleaf"));
    symlink("../shared.mapleaf", &soft).expect("a link");
    symlink(&soft, &twice).expect("a link");
    fs::hard_link(&path, &hard).expect("a link");
    let paths = [&path, &soft, &twice];
    for first in paths {
        let mut members = vec![Member::open(first, 0)];
        members.extend(paths.map(|path| Member::open(path, 0)));
        for n in 0..members.len() {
            members[n].number(&format!("put immediate t k {n}"));
            members.iter_mut().for_each(|member| member.expect("get t k", &n.to_string()));
        }
        let mut other = Member::start(&hard, 0);
        for open in ["open", "open read-only"] {
            other.refuses(open, ErrorKind::Locked);
        }
        members.into_iter().for_each(Member::finish);
        for path in [&soft, &twice] {
            assert!(!lock_file(path).exists(), "{path:?} has a lock file of its own");
        }
        // Now the hard link has it, and the name is refused.
        other.expect("open", "ok");
        other.expect("get t k", "3");
        Member::start(&path, 0).refuses("open", ErrorKind::Locked);
        other.finish();
    }
}

#[test]
fn a_file_that_was_renamed_while_it_is_open_is_refused_until_it_is_closed() {
    let (dir, path) = open_directory();
    closed(&path, 0o644);
    let renamed = dir.path().join("renamed.mapleaf");
    let mut member = Member::open(&path, 0);
    member.number("put immediate t k before");
    fs::rename(&path, &renamed).expect("renamed");
    let mut other = Member::start(&renamed, 0);
    for open in ["open", "open read-only"] {
        other.refuses(open, ErrorKind::Locked);
    }
    member.number("put immediate t k after");
    // Another file has the old name now: its lock file is in use, but not its own.
    let mut new = Member::start(&path, 0);
    let answer = new.ask("open");
    assert!(answer == "ok" || answer.starts_with("failed Locked"), "{answer}");
    if answer == "ok" {
        new.expect("get t k", "none");
        new.number("put immediate t k new");
    }
    member.number("put immediate t k last");
    member.expect("get t k", "last");
    member.finish();
    other.expect("open", "ok");
    other.expect("get t k", "last");
    new.expect("close", "ok");
    new.finish();
    other.finish();
}

#[test]
fn a_directory_that_was_renamed_while_a_file_in_it_is_open_changes_nothing() {
    let (dir, _) = open_directory();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    fs::create_dir(&old).expect("a directory");
    let mut member = Member::open(&old.join("shared.mapleaf"), 0);
    member.number("put immediate t k before");
    fs::rename(&old, &new).expect("renamed");
    let mut other = Member::open(&new.join("shared.mapleaf"), 0);
    other.expect("get t k", "before");
    member.number("fill t 0 3000 1000");
    other.expect("filled t 0 3000 1000", "ok");
    member.finish();
    other.number("put immediate t k after");
    other.finish();
}

#[test]
fn a_copy_of_the_directory_with_its_lock_file_is_another_database() {
    let (dir, _) = open_directory();
    for killed in [true, false] {
        let (old, new) = (dir.path().join(format!("old{killed}")), dir.path().join(format!("new{killed}")));
        fs::create_dir(&old).expect("a directory");
        let mut member = Member::open(&old.join("shared.mapleaf"), 1);
        let step = (0..9).map(|_| member.number("step immediate")).last().expect("some");
        if killed {
            member.kill();
        }
        // Nothing is committed meanwhile, so the copy is whole.
        assert!(Command::new("cp").arg("-r").args([&old, &new]).status().expect("cp").success());
        let mut copy = [Member::open(&new.join("shared.mapleaf"), 1), Member::open(&new.join("shared.mapleaf"), 1)];
        if killed {
            member = Member::open(&old.join("shared.mapleaf"), 1);
        }
        copy.iter_mut().for_each(|copy| assert_eq!(copy.number("judge"), step, "killed: {killed}"));
        member.number("drop apples");
        copy.iter_mut().for_each(|copy| assert_eq!(copy.number("judge"), step, "killed: {killed}"));
        copy[0].number("step immediate");
        assert_eq!(copy[1].number("judge"), step + 1);
        copy.into_iter().for_each(Member::finish);
        member.finish();
    }
}

/// Forks while it has transactions. The child drops what it inherited, and lives on. The parent
/// reads its snapshot again and again.
#[test]
fn child_that_forks() {
    let Some(arguments) = reexec::arguments() else { return };
    reexec::watch();
    let db = Db::open_existing(&arguments[0]).expect("opened");
    let snapshot = db.begin_read().expect("begins");
    let read = || {
        snapshot
            .bytes_table("t")
            .and_then(|t| t.iter().collect::<mapleaf::Result<Vec<_>>>().map(|all| format!("{all:?}")))
    };
    let before = read().expect("read");
    let txn = (arguments[1] == "writing").then(|| db.begin_write().expect("begins"));
    let Some(child) = fork() else {
        reexec::watch();
        drop((snapshot.clone(), txn, snapshot, db));
        reexec::answer("dropped");
        // Until the test ends it.
        loop {
            std::thread::park();
        }
    };
    reexec::answer(&format!("forked {child}"));
    while reexec::listen().is_some() {
        reexec::answer(if read().expect("read") == before { "same" } else { "changed" });
    }
}

fn is_alive(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

/// A child that drops inherited transactions frees nothing of its parent; when the parent is
/// killed, all of it is released although the child lives.
#[test]
fn a_forked_child_neither_frees_nor_holds_what_its_parent_has() {
    for with in ["reading", "writing"] {
        let (_dir, path) = open_directory();
        let mut member = Member::open(&path, 0);
        member.number("fill t 0 300 900");
        let mut parent = reexec::start(reexec::command("processes::places::child_that_forks", &[&path, &with]));
        let mut said = [parent.line().expect("a line"), parent.line().expect("a line")];
        said.sort();
        assert!(said[0] == "dropped" && said[1].starts_with("forked "), "{said:?}");
        let id: u32 = said[1]["forked ".len()..].parse().expect("a number");
        if with == "writing" {
            member.expect("try", "none");
        } else {
            // The pages of the snapshot are not used again: the parent reads them.
            member.number("update eventual t 2400 300 900");
        }
        parent.say("read");
        assert_eq!(parent.line().as_deref(), Some("same"));
        parent.kill();
        assert!(is_alive(id), "the child died with its parent");
        numbers(&member.ask("try"), "the parent was killed");
        member.expect("insert t k v", "ok");
        numbers(&member.ask("commit"), "commit");
        member.finish();
        // Without the descriptor of its parent, the child keeps no process from having the file.
        let len = fs::metadata(&path).expect("the file").len();
        let mut last = Member::start(&path, 0);
        last.expect("open read-only", "ok");
        assert_eq!(numbers(&last.ask("pages"), "pages")[0] * 4096, len, "the last one has cut the file");
        last.finish();
        assert!(is_alive(id), "the child ended early");
        assert!(Command::new("kill").args(["-KILL", &id.to_string()]).status().expect("kill").success());
    }
}

#[test]
fn a_program_that_a_process_has_started_holds_nothing_after_its_death() {
    let (_dir, path) = open_directory();
    let (mut dies, mut stays) = (Member::open(&path, 0), Member::open(&path, 0));
    dies.number("put immediate t k v");
    dies.number("begin");
    dies.ask("hold");
    let id = dies.number("spawn");
    stays.expect("try", "none");
    dies.kill();
    // The kernel may still be starting the program, which has copies of all descriptors till then.
    numbers(&stays.ask("begin"), "begin");
    stays.expect("insert t k w", "ok");
    numbers(&stays.ask("commit"), "commit");
    assert!(is_alive(id as u32), "the program ended early");
    stays.finish();
    let mut alone = Member::start(&path, 0);
    alone.expect("open exclusive", "ok");
    alone.expect("get t k", "w");
    alone.finish();
    assert!(Command::new("kill").args(["-KILL", &id.to_string()]).status().expect("kill").success());
}
