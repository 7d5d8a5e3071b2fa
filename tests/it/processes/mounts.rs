//! Processes in mount and process namespaces of their own: read-only mounts, a file that is mounted
//! without its directory, equal process ids, and file systems without room for a lock file.
//!
//! Only root may make namespaces; otherwise these tests say so and do nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mapleaf::ErrorKind;

use super::broker::Broker;
use super::member::{is_failure, numbers, Member};
use crate::workload::fast_dir;

/// Whether this process may make namespaces and mounts.
fn may_unshare() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let may = command.status().is_ok_and(|status| status.success());
    if !may {
        println!("not checked: namespaces and mounts need root");
    }
    may
}

/// A member in namespaces of its own, after a script has run there with `$1` and `$2`.
fn unshared(path: &Path, seed: u64, script: &str, places: [&Path; 2]) -> Member {
    let child = Member::command(path, seed);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The shell stays, as the first process of the namespace: that one ignores most signals.
    command.args(["sh", "-ec", &format!("{script}\nshift 2\n\"$@\"\nexit $?"), "sh"]).args(places);
    command.arg(child.get_program()).args(child.get_args());
    command.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Member::start_by(command)
}

/// A directory with a closed database in a directory, and an empty directory.
fn places() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = fast_dir();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    fs::create_dir(&data).and_then(|()| fs::create_dir(&other)).expect("directories");
    let mut member = Member::open(&data.join("shared.mapleaf"), 0);
    member.number("put immediate t k v");
    member.number("fill t 0 200 300");
    member.finish();
    (dir, data, other)
}

#[test]
fn a_database_on_a_read_only_mount_is_read_without_members_and_refused_beside_them() {
    if !may_unshare() {
        return;
    }
    let (_dir, data, mounted) = places();
    let path = data.join("shared.mapleaf");
    let script = "mount --bind \"$1\" \"$2\"; mount -o remount,bind,ro \"$2\"";
    let mut reader = unshared(&mounted.join("shared.mapleaf"), 0, script, [&data, &mounted]);
    let mut writer = Member::start(&path, 0);
    for _ in 0..2 {
        let refused = reader.ask("open");
        assert!(is_failure(&refused, &[ErrorKind::Permission, ErrorKind::Io]), "{refused}");
        reader.expect("open read-only", "ok");
        reader.expect("get t k", "v");
        reader.expect("filled t 0 200 300", "ok");
        writer.refuses("open", ErrorKind::Locked);
        reader.expect("close", "ok");
        writer.expect("open", "ok");
        reader.refuses("open read-only", ErrorKind::Locked);
        writer.number("put immediate t k v");
        writer.expect("close", "ok");
    }
    writer.finish();
    reader.finish();
}

#[test]
fn a_file_that_is_mounted_without_its_directory_is_refused_while_others_have_it() {
    if !may_unshare() {
        return;
    }
    let (_dir, data, other) = places();
    let path = data.join("shared.mapleaf");
    let mount_point = other.join("mounted.mapleaf");
    fs::write(&mount_point, "").expect("a file");
    let script = "mount --bind \"$1\" \"$2\"";
    let mut inside = unshared(&mount_point, 0, script, [&path, &mount_point]);
    let mut outside = Member::start(&path, 0);
    for _ in 0..2 {
        outside.expect("open", "ok");
        for open in ["open", "open read-only"] {
            inside.refuses(open, ErrorKind::Locked);
        }
        outside.number("put immediate t k v");
        outside.expect("close", "ok");
        inside.expect("open", "ok");
        inside.expect("get t k", "v");
        inside.number("put immediate t k inside");
        for open in ["open", "open read-only"] {
            outside.refuses(open, ErrorKind::Locked);
        }
        inside.expect("close", "ok");
    }
    outside.expect("open", "ok");
    outside.expect("get t k", "inside");
    outside.finish();
    inside.finish();
}

/// The number that the other process has for itself is all that is known of it.
#[test]
fn a_poisoned_database_names_a_process_of_another_namespace_by_its_own_number() {
    if !may_unshare() {
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let mut outside = Member::open(&path, 0);
    let mut inside = unshared(&path, 0, "true", [dir.path(), dir.path()]);
    inside.expect("open", "ok");
    // Enough for a log: the last commits are not in a checkpoint.
    for _ in 0..8 {
        outside.number("put immediate t k v");
    }
    outside.expect("fail tree", "ok");
    outside.refuses("checkpoint", ErrorKind::Io);
    let answer = inside.ask("put immediate t k w");
    let named = format!("process {} (its own number; of another namespace or user) has it open", outside.process_id());
    assert!(is_failure(&answer, &[ErrorKind::Poisoned]) && answer.contains(&named), "{answer}");
    // Outside, its number can be seen.
    let answer = outside.ask("put immediate t k w");
    assert!(is_failure(&answer, &[ErrorKind::Poisoned]) && answer.contains(") has it open"), "{answer}");
    assert!(!answer.contains("its own number"), "{answer}");
    inside.finish();
    outside.finish();
}

/// Each of two processes is the same number in its namespace.
#[test]
fn processes_of_different_namespaces_share_a_file() {
    if !may_unshare() {
        return;
    }
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let start = || unshared(&path, 4, "true", [dir.path(), dir.path()]);
    let mut members = vec![start(), start(), Member::start(&path, 4)];
    members.iter_mut().for_each(|member| member.expect("open", "ok"));
    let mut step = 0;
    for round in 0..30 {
        let writer = round % members.len();
        step = members[writer].number(["step immediate", "step eventual"][round % 2]);
        members.iter_mut().for_each(|member| assert_eq!(member.number("judge"), step));
        if round % 7 == 6 {
            // One of them dies with a snapshot and the writer lock.
            members[0].ask("hold");
            members[0].number("begin");
            members[1].expect("try", "none");
            members[1].say("begin");
            members[0].kill();
            numbers(&members[1].answer(), "begin");
            members[1].expect("abort", "ok");
            members[0] = start();
            members[0].expect("open", "ok");
            assert_eq!(members[0].number("judge"), step);
        }
    }
    members.into_iter().for_each(Member::finish);
    assert_eq!(Member::open(&path, 4).number("judge"), step);
}

/// The lock file cannot be made: the process has the file exclusively, or says why not.
#[test]
fn a_file_system_without_room_for_a_lock_file_is_used_exclusively_or_refused() {
    if !may_unshare() {
        return;
    }
    let (_dir, data, mounted) = places();
    let source = data.join("shared.mapleaf");
    let len = fs::metadata(&source).expect("the file").len();
    // A directory and one file; then room for the file and no page more.
    for limits in ["nr_inodes=2,size=16m".to_string(), format!("nr_inodes=100,size={len}")] {
        let script = format!("mount -t tmpfs -o {limits} none \"$2\"; cp \"$1\" \"$2/shared.mapleaf\"");
        let mut member = unshared(&mounted.join("shared.mapleaf"), 0, &script, [&source, &mounted]);
        for open in ["open", "open read-only"] {
            let answer = member.ask(open);
            println!("{limits}, {open}: {answer}");
            if answer == "ok" {
                member.expect("get t k", "v");
                member.expect("filled t 0 200 300", "ok");
                let put = member.ask("put immediate t k v");
                let full = [ErrorKind::DiskFull, ErrorKind::Io, ErrorKind::Usage];
                assert!(put.starts_with("ok ") || is_failure(&put, &full), "{limits}, {open}: {put}");
                member.expect("get t k", "v");
            } else {
                let reasons = [ErrorKind::DiskFull, ErrorKind::Io, ErrorKind::Permission];
                assert!(is_failure(&answer, &reasons), "{limits}, {open}: {answer}");
            }
            member.expect("close", "ok");
        }
        member.finish();
    }
}

/// Without `/proc`, a file in memory cannot be opened again.
#[test]
fn shared_memory_without_proc_is_refused_with_the_remedy() {
    if !may_unshare() {
        return;
    }
    let broker = Broker::start();
    let path = broker.path();
    let mut hidden = unshared(&path, 0, "mount -t tmpfs none /proc", [&path, &path]);
    let remedy = "there is no /proc/self/fd; mount /proc";
    for _ in 0..2 {
        // First it makes the database itself, then it attaches to one.
        let answer = hidden.ask("open");
        assert!(is_failure(&answer, &[ErrorKind::Io]) && answer.contains(remedy), "{answer}");
        if broker.data_bytes() == 0 {
            let mut maker = Member::open(&path, 0);
            maker.number("put immediate t k v");
            maker.finish();
        }
    }
    let mut last = Member::open(&path, 0);
    last.expect("get t k", "v");
    last.finish();
}
