//! Sandboxes and old kernels: with each system call refused (EPERM and ENOSYS), each operation
//! works or its error names the call. No error reports damage, and no process dies.
//!
//! A child process forbids the call to itself (seccomp), either before it opens a file (*cold*: the
//! page cache has nothing of the files) or with every database open and used (*warm*). Then it
//! tries all operations, each on its own file. The parent checks the files afterwards.
//!
//! ```text
//! calls   the list, with the numbers of x86_64
//! steps   the operations
//! limits  limits on the size of files, and signals
//! ```

mod calls;
mod flush;
mod limits;
mod steps;

use std::path::Path;

use mapleaf::testing::{answer_calls, die_after, Answer, Matching};
use mapleaf::{Db, ErrorKind};

use crate::disks::skipped;
use crate::reexec;
use calls::{Call, Without, CALLS, LEFT_OUT};
use steps::{Start, ENTRIES, NAMES, OPERATIONS};

/// Seconds after which a hanging child is killed.
const HANGS_AFTER: u32 = 600;

const REFUSALS: [(&str, i32); 2] = [("EPERM", libc::EPERM), ("ENOSYS", libc::ENOSYS)];

fn make_template(dir: &Path) {
    let db = Db::open(dir.join("template")).expect("opens");
    db.write(|txn| {
        let mut table = txn.table(NAMES)?;
        (0..ENTRIES).try_for_each(|key| table.insert(key, &steps::value(key)).map(drop))
    })
    .expect("a template");
}

/// Whether the call belongs to the optional ones that can be refused together. Of calls that
/// replace each other, one must stay.
fn is_done_without(call: &Call) -> bool {
    const LEFT: [&str; 6] = ["fdatasync", "newfstatat", "fstat", "linkat", "unlink", "read"];
    call.without == Without::Works && !LEFT.contains(&call.name)
}

/// The child: directory, how it is confined (`list`, `together` or the index of a call), errno,
/// cold or warm.
#[test]
fn confined_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let [dir, which, errno, state] = &arguments[..] else { panic!("{arguments:?}") };
    die_after(HANGS_AFTER);
    let paths: Vec<_> = OPERATIONS.iter().map(|operation| Path::new(dir).join(operation)).collect();
    let warm = state == "warm";
    let starts: Vec<Start<'_>> = paths.iter().zip(OPERATIONS).map(|(path, op)| Start::new(path, op, warm)).collect();
    let all = |call: &Call| Matching { number: call.number, arguments: call.arguments };
    if which == "together" {
        let hints: Vec<Matching<'_>> = CALLS.iter().filter(|call| is_done_without(call)).map(all).collect();
        let refuse = Answer::Refuse(errno.parse().expect("a number"));
        answer_calls(&hints, refuse, Answer::Obey).expect("confined");
    } else if which == "list" {
        let mut allowed: Vec<Matching<'_>> = CALLS.iter().map(all).collect();
        allowed.extend(LEFT_OUT.iter().map(|&(_, number, _)| Matching { number, arguments: &[] }));
        answer_calls(&allowed, Answer::Obey, Answer::Kill).expect("confined");
    } else {
        let call = &CALLS[which.parse::<usize>().expect("an index")];
        let refuse = Answer::Refuse(errno.parse().expect("a number"));
        answer_calls(&[all(call)], refuse, Answer::Obey).expect("confined");
    }
    for (operation, start) in OPERATIONS.iter().zip(starts) {
        match start.run(operation) {
            Ok(right) => reexec::answer(&format!("{operation} {}", if right { "works" } else { "WRONG" })),
            Err(e) => reexec::answer(&format!("{operation} {:?} {e}", e.kind())),
        }
    }
}

/// The child's answer for each operation, after the parent has checked the files; `None` if the
/// kernel cannot confine processes.
fn tried(which: &str, errno: i32, state: &str) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().expect("a directory");
    make_template(dir.path());
    let errno = errno.to_string();
    let mut child = reexec::start(reexec::command("sandbox::confined_child", &[&dir.path(), &which, &errno, &state]));
    let lines = std::iter::from_fn(|| child.line());
    let said: Vec<(String, String)> = lines
        .map(|line| line.split_once(' ').map(|(a, b)| (a.to_string(), b.to_string())).expect("two words"))
        .collect();
    assert_eq!(said.len(), OPERATIONS.len(), "{which} {errno} {state}: the process died after {said:?}");
    child.finish();
    for operation in OPERATIONS {
        steps::assert_whole(&dir.path().join(operation), operation, &format!("{which} {errno} {state} {operation}"));
    }
    said
}

/// Why an answer is wrong, if it is.
fn judge(call: &Call, errno: i32, answer: &str) -> Option<String> {
    if answer == "works" {
        return None;
    }
    let Without::NamesIt(names) = call.without else { return Some("is to work without".into()) };
    let kind = answer.split(' ').next().unwrap_or_default();
    let honest = [ErrorKind::Permission, ErrorKind::Io].iter().any(|known| format!("{known:?}") == kind);
    let number = format!("(os error {errno})");
    let named = names.iter().any(|name| answer.contains(&format!("refused the call {name}")));
    (!honest || !named || !answer.contains(&number) || !answer.contains("sandbox?")).then(|| "is no clear error".into())
}

fn can_confine() -> bool {
    let can = Path::new("/proc/sys/kernel/seccomp/actions_avail").exists();
    if !can {
        skipped("sandbox", "this kernel does not let processes be confined");
    }
    can
}

/// Refuses each call in the list; prints the table of docs/testing.md.
#[test]
fn without_a_refused_call_operations_work_or_name_it_and_never_report_damage_or_crash() {
    if !can_confine() {
        return;
    }
    // The children wait for the disk most of the time.
    let indices: Vec<usize> = (0..CALLS.len()).collect();
    let done: Vec<(String, Vec<String>)> = std::thread::scope(|scope| {
        let parts = indices.chunks(CALLS.len().div_ceil(4));
        let threads: Vec<_> =
            parts.map(|part| scope.spawn(|| part.iter().map(|&which| refuse(which)).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no child died")).collect()
    });
    done.iter().for_each(|(row, _)| println!("{row}"));
    let wrong: Vec<String> = done.into_iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Refuses a call of the list in each way. Returns its row of the table, and the wrong answers.
fn refuse(which: usize) -> (String, Vec<String>) {
    let call = &CALLS[which];
    let (mut named, mut wrong) = (Vec::new(), Vec::new());
    for (name, errno) in REFUSALS {
        for state in ["cold", "warm"] {
            for (operation, answer) in tried(&which.to_string(), errno, state) {
                let why = judge(call, errno, &answer);
                wrong.extend(why.map(|why| format!("{} {name} {state} {operation} {why}: {answer}", call.name)));
                if answer != "works" && !named.contains(&operation) {
                    named.push(operation);
                }
            }
        }
    }
    if call.without != Without::Works && named.is_empty() {
        wrong.push(format!("{}: everything works without it", call.name));
    }
    let outcome = if named.is_empty() { "works".to_string() } else { format!("named by {}", named.join(", ")) };
    (format!("| `{}` | {} | {outcome} |", call.name, call.purpose), wrong)
}

#[test]
fn all_optional_calls_can_be_refused_together() {
    if !can_confine() {
        return;
    }
    for (name, errno) in REFUSALS {
        for state in ["cold", "warm"] {
            for (operation, answer) in tried("together", errno, state) {
                assert_eq!(answer, "works", "{name} {state} {operation}");
            }
        }
    }
}

/// A call that is in neither list ends the process.
#[test]
fn every_system_call_is_in_the_list() {
    if !can_confine() {
        return;
    }
    for state in ["cold", "warm"] {
        for (operation, answer) in tried("list", 0, state) {
            assert_eq!(answer, "works", "{state} {operation}");
        }
    }
}
