//! Failures with two processes that have the file open: the file is cut, a flush fails, the lock
//! file is deleted, cut or overwritten. Each call gives right data or an error, and no process dies
//! or hangs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use mapleaf::testing::cached_pages;
use mapleaf::ErrorKind;

use super::member::{is_failure, numbers, Member};
use crate::support::{bytes, long, seed, Rng};
use crate::workload::fast_dir;

const PAGE: u64 = 4096;
/// Errors of a call on a file that was cut.
const NOTICED: [ErrorKind; 2] = [ErrorKind::Fault, ErrorKind::Poisoned];

/// A closed database of some hundred pages.
fn closed(dir: &Path) -> PathBuf {
    let path = dir.join("shared.mapleaf");
    let mut member = Member::open(&path, 0);
    member.number("fill t 0 1500 500");
    member.number("fill long 0 8 30000");
    member.number("put immediate t k 0");
    member.finish();
    path
}

fn set_len(path: &Path, len: u64) {
    File::options().write(true).open(path).and_then(|file| file.set_len(len)).expect("cut");
}

/// What the two processes were doing when the file was cut, by number: nothing, one had written,
/// one has a transaction, one has a snapshot.
const DOING: usize = 4;

/// Cuts the file under both processes. Counts the calls that still gave data.
fn cut(members: &mut [Member; 2], path: &Path, len: u64, doing: usize, at: &str) -> usize {
    members.iter_mut().for_each(|member| member.expect("open", "ok"));
    let [first, second] = members;
    match doing {
        1 => drop(first.number("put eventual t k 0")),
        2 => {
            first.number("begin");
            first.expect("insert t k lost", "ok");
        }
        3 => {
            first.number("put immediate t k 0");
            second.ask("hold");
            second.ask("held");
        }
        _ => {}
    }
    set_len(path, len);
    let mut right = 0;
    if doing == 2 {
        let answer = first.ask("commit");
        assert!(is_failure(&answer, &NOTICED), "{at}, the commit: {answer}");
    }
    for (n, member) in [second, first].into_iter().enumerate() {
        let mut refused = 0;
        for command in ["filled t 0 1500 500", "filled long 0 8 30000", "get t k", "put immediate t k 1", "hash"] {
            let answer = member.ask(command);
            match is_failure(&answer, &NOTICED) {
                true => refused += 1,
                false => {
                    // Data of the state that was there.
                    assert!(["ok", "0"].contains(&answer.as_str()) || command == "hash", "{at}, {command}: {answer}");
                    right += 1;
                }
            }
        }
        assert!(refused >= 2, "{at}: process {n} has not noticed");
    }
    members.iter_mut().for_each(|member| member.expect("close", "ok"));
    right
}

#[test]
fn a_file_that_is_cut_under_two_processes_is_noticed_by_both() {
    let dir = fast_dir();
    let path = closed(dir.path());
    let whole = fs::read(&path).expect("the file");
    let mut rng = Rng::new(seed("cut_under_two"));
    let count = 16 * u64::from(long());
    let boundaries = (0..count).map(|n| n * whole.len() as u64 / count / PAGE * PAGE);
    let others: Vec<u64> = (0..count).map(|_| rng.below(whole.len() as u64)).collect();
    let mut members = [Member::start(&path, 0), Member::start(&path, 0)];
    let mut right = 0;
    for (n, len) in boundaries.chain(others).enumerate() {
        let at = format!("length {len} of {}, doing {}", whole.len(), n % DOING);
        fs::write(&path, &whole).expect("a copy");
        right += cut(&mut members, &path, len, n % DOING, &at);
        assert_eq!(fs::metadata(&path).expect("the file").len(), len, "{at}: the length was changed");
        let answer = members[n % 2].ask("open");
        assert!(is_failure(&answer, &[ErrorKind::Truncated, ErrorKind::EmptyFile]), "{at}, opened again: {answer}");
        fs::write(&path, &whole).expect("the file comes back");
        members.iter_mut().for_each(|member| member.expect("open", "ok"));
        members.iter_mut().for_each(|member| member.expect("filled t 0 1500 500", "ok"));
        members.iter_mut().for_each(|member| member.expect("close", "ok"));
    }
    println!("{right} calls gave right data after the cut");
}

/// A cut that takes only the sentinel, or the blocks that were reserved for growth.
#[test]
fn a_cut_after_the_data_is_noticed_or_does_no_harm() {
    let dir = fast_dir();
    let path = closed(dir.path());
    let used = fs::metadata(&path).expect("the file").len();
    for len in [used, used + 1, used + PAGE / 2] {
        let mut members = [Member::open(&path, 0), Member::open(&path, 0)];
        members[0].number("put immediate t k 0");
        set_len(&path, len);
        let mut acknowledged = "0".to_string();
        for round in 1..6 {
            for n in 0..2 {
                let answer = members[n].ask(&format!("put immediate t k {round}"));
                match answer.starts_with("ok ") {
                    true => acknowledged = round.to_string(),
                    false => assert!(is_failure(&answer, &NOTICED), "length {len}: {answer}"),
                }
                let answer = members[1 - n].ask("get t k");
                assert!(answer == acknowledged || is_failure(&answer, &NOTICED), "length {len}: {answer}");
            }
        }
        members.into_iter().for_each(Member::finish);
        let mut again = Member::start(&path, 0);
        let answer = again.ask("open");
        if answer == "ok" {
            again.expect("get t k", &acknowledged);
            again.expect("filled t 0 1500 500", "ok");
            again.number("put immediate t k 0");
            again.finish();
        } else {
            // Commits before the cut had used the pages.
            assert!(is_failure(&answer, &[ErrorKind::Truncated]), "length {len}: {answer}");
            fs::remove_file(&path).expect("removed");
            closed(dir.path());
        }
    }
}

/// The flush that fails, and the call that meets it.
const FLUSHES: [(&str, &str); 4] =
    [("log", "put immediate t k more"), ("log", "sync"), ("tree", "checkpoint"), ("meta", "checkpoint")];

/// How the process that met the failure leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaves {
    First,
    Last,
    Killed,
}

/// Whether an error names a process with its program.
fn names(answer: &str, member: &Member) -> bool {
    answer.contains(&format!("process {} (", member.process_id()))
}

fn failed_flush(kind: &str, call: &str, leaves: Leaves) {
    let at = format!("{kind} at {call}, it leaves: {leaves:?}");
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let (mut fails, mut other) = (Member::open(&path, 3), Member::open(&path, 3));
    let mut step = 0;
    for n in 0..4 {
        step = fails.number(["step immediate", "step eventual"][n % 2]);
        assert_eq!(other.number("step immediate"), step + 1);
        step += 1;
    }
    other.ask("hold");
    let held = other.ask("held");
    if call != "put immediate t k more" {
        step = fails.number("step eventual");
    }
    fails.expect(&format!("fail {kind}"), "ok");
    let answer = fails.ask(call);
    assert!(is_failure(&answer, &[ErrorKind::Io]), "{at}: {answer}");
    if leaves == Leaves::Killed {
        fails.kill();
    } else {
        let answer = fails.ask("step immediate");
        assert!(is_failure(&answer, &[ErrorKind::Poisoned]) && names(&answer, &other), "{at}: {answer}");
        fails.expect("heal", "ok");
    }
    for command in ["step immediate", "step eventual", "hash", "sync", "checkpoint", "begin"] {
        let answer = other.ask(command);
        assert!(is_failure(&answer, &[ErrorKind::Poisoned]), "{at}, then {command}: {answer}");
        assert_eq!(names(&answer, &fails), leaves != Leaves::Killed, "{at}, then {command}: {answer}");
    }
    assert_eq!(other.ask("held"), held, "{at}: held snapshots go on");
    let mut third = Member::start(&path, 3);
    let refused = |third: &mut Member, when: &str| {
        for open in ["open", "open read-only"] {
            let answer = third.ask(open);
            assert!(is_failure(&answer, &[ErrorKind::Poisoned, ErrorKind::Locked]), "{at}, {when}, {open}: {answer}");
        }
    };
    refused(&mut third, "both are there");
    match leaves {
        Leaves::First => {
            fails.finish();
            refused(&mut third, "the other is there");
            other.finish();
        }
        Leaves::Last => {
            other.finish();
            refused(&mut third, "the one that failed is there");
            fails.finish();
        }
        Leaves::Killed => other.finish(),
    }
    third.expect("open", "ok");
    let found = third.ask("judge");
    let wanted = [format!("ok {step}"), format!("ok {}", step + 1)];
    // The put that failed is no step of the history, and may be there.
    let is_passing = call.starts_with("put") && found.contains("tables");
    assert!(wanted.contains(&found) || is_passing, "{at}: {found}, acknowledged {step}");
    third.number("step immediate");
    Member::open(&path, 3).finish();
    third.finish();
}

#[test]
fn a_failed_flush_poisons_the_file_for_all_processes_until_all_have_closed_it() {
    for (kind, call) in FLUSHES {
        for leaves in [Leaves::First, Leaves::Last, Leaves::Killed] {
            failed_flush(kind, call, leaves);
        }
    }
}

/// Kernel pages of a file in the page cache, before and after a process opens it. All of it is read
/// before.
fn cached_by_opening(path: &Path, opens: &mut Member) -> [u64; 2] {
    fs::read(path).expect("the file");
    let file = File::open(path).expect("the file");
    let cached = || cached_pages(&file).expect("the kernel tells");
    let before = cached();
    opens.expect("open", "ok");
    [before, cached()]
}

/// The file system has no attributes. The lock file says to the next process that a flush has
/// failed, so it drops the page cache and reads from the disk; then this is forgotten.
fn remembered_in_the_lock_file(fails: bool, killed: bool, mutant: bool) -> [u64; 2] {
    // Not in memory, where the page cache is all there is.
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("shared.mapleaf");
    let mut members = [Member::open(&path, 0), Member::open(&path, 0)];
    members.iter_mut().for_each(|member| member.expect("no-attributes", "ok"));
    members[0].number("fill t 0 4000 1000");
    // Enough for a log: the last commits are not in a checkpoint.
    for _ in 0..8 {
        members[0].number("put immediate t k v");
    }
    if fails {
        members[0].expect("fail tree", "ok");
        members[0].refuses("checkpoint", ErrorKind::Io);
        members[1].refuses("put immediate t k w", ErrorKind::Poisoned);
    }
    for mut member in members {
        match killed {
            true => member.kill(),
            false => member.finish(),
        }
    }
    let mut third = Member::start(&path, 0);
    if mutant {
        third.expect("mutant LockFilePoisonIgnored", "ok");
    }
    let cached = cached_by_opening(&path, &mut third);
    third.expect("get t k", "v");
    third.expect("filled t 0 4000 1000", "ok");
    third.number("put immediate t k v");
    third.kill();
    // It has recovered, although it was killed afterwards.
    let [before, after] = cached_by_opening(&path, &mut Member::start(&path, 0));
    assert!(mutant || after > before / 2, "{after} of {before} pages stay, once it was recovered");
    cached
}

#[test]
fn a_failed_flush_is_remembered_by_the_lock_file_where_files_have_no_attributes() {
    let [before, after] = remembered_in_the_lock_file(false, true, false);
    assert!(before > 1000 && after > before / 2, "without a failure, {after} of {before} pages stay");
    for killed in [false, true] {
        let [before, after] = remembered_in_the_lock_file(true, killed, false);
        assert!(after < before / 4, "after a failed flush, {after} of {before} pages stay, killed: {killed}");
    }
    let [before, after] = remembered_in_the_lock_file(true, true, true);
    assert!(after > before / 2, "the measure: {after} of {before} pages stay if the lock file is not read");
}

/// One process finds the disk full at each step of growth; the other one goes on, then both do.
#[test]
fn a_full_disk_at_any_step_of_growth_of_one_process_does_not_stop_the_other() {
    let mut failures = 0;
    for steps in 0.. {
        let dir = fast_dir();
        let path = dir.path().join("shared.mapleaf");
        let (mut full, mut other) = (Member::open(&path, 0), Member::open(&path, 0));
        full.number("put immediate t k v");
        other.number("fill t 0 100 300");
        full.expect(&format!("full {steps}"), "ok");
        let mut failed = false;
        for n in 0..4 {
            let answer = full.ask(&format!("fill big {} 300 4000", n * 300));
            failed |= is_failure(&answer, &[ErrorKind::DiskFull]);
            assert!(failed || answer.starts_with("ok "), "{steps} steps: {answer}");
            other.number(&format!("fill other {} 300 4000", n * 300));
            full.expect(&format!("filled other 0 {} 4000", (n + 1) * 300), "ok");
            other.number("put eventual t k v");
            full.expect("get t k", "v");
        }
        full.expect("heal", "ok");
        full.number("fill big 0 1200 4000");
        other.expect("filled big 0 1200 4000", "ok");
        other.expect("check", "ok");
        other.finish();
        full.finish();
        failures += u64::from(failed);
        if !failed {
            break;
        }
    }
    assert!(failures >= 3, "the disk was full at {failures} steps");
}

fn lock_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    name.into()
}

#[test]
fn processes_go_on_after_their_lock_file_was_removed_and_new_ones_are_refused() {
    let dir = fast_dir();
    for replace in [false, true] {
        let path = dir.path().join(format!("{replace}.mapleaf"));
        let mut members = [Member::open(&path, 3), Member::open(&path, 3)];
        let mut step = members[0].number("step immediate");
        let lock = lock_file(&path);
        let old = fs::read(&lock).expect("a lock file");
        fs::remove_file(&lock).expect("removed");
        if replace {
            fs::write(&lock, &old).expect("a copy");
        }
        let mut third = Member::start(&path, 3);
        for round in 0..4 {
            third.refuses("open", ErrorKind::Locked);
            third.refuses("open read-only", ErrorKind::Locked);
            step += 1;
            members[round % 2].expect("step immediate", &format!("ok {step}"));
            assert_eq!(members[1 - round % 2].number("judge"), step);
        }
        let [first, second] = members;
        first.finish();
        third.refuses("open", ErrorKind::Locked);
        second.finish();
        third.expect("open", "ok");
        assert_eq!(third.number("judge"), step);
        Member::open(&path, 3).finish();
        third.finish();
    }
}

/// What the tests of damage know: the newest acknowledged number, and how many more may be there.
struct Numbers {
    acknowledged: u64,
    in_doubt: u64,
}

impl Numbers {
    /// Puts the next number. The call works or is refused.
    fn put(&mut self, member: &mut Member, level: &str, at: &str) {
        let next = self.acknowledged + self.in_doubt + 1;
        let answer = member.ask(&format!("put {level} c k {next}"));
        if answer.starts_with("ok ") {
            *self = Numbers { acknowledged: next, in_doubt: 0 };
        } else {
            assert!(answer.starts_with("failed "), "{at}, put: {answer}");
            self.in_doubt += 1;
        }
    }

    /// Reads the number, and all other entries, or an error.
    fn read(&self, member: &mut Member, at: &str) {
        let answer = member.ask("get c k");
        match answer.parse::<u64>() {
            Ok(found) => self.accept(found, at),
            Err(_) => assert!(answer.starts_with("failed "), "{at}, get: {answer}"),
        }
        for command in ["filled t 0 100 300", "check", "sync"] {
            let answer = member.ask(command);
            assert!(answer == "ok" || answer.starts_with("failed "), "{at}, {command}: {answer}");
        }
    }

    fn accept(&self, found: u64, at: &str) {
        let all = self.acknowledged..=self.acknowledged + self.in_doubt;
        assert!(all.contains(&found), "{at}: {found}, acknowledged {all:?}");
    }
}

/// Both processes go on after the damage; then they close, and all is there.
fn go_on(path: &Path, members: &mut [Member; 2], numbers: &mut Numbers, at: &str) {
    for round in 0..2 {
        for n in 0..2 {
            numbers.put(&mut members[n], ["immediate", "eventual"][(n + round) % 2], at);
            numbers.read(&mut members[1 - n], at);
            numbers.read(&mut members[n], at);
        }
        if round == 1 {
            let answer = members[0].ask("checkpoint");
            assert!(answer == "ok" || answer.starts_with("failed "), "{at}, checkpoint: {answer}");
        }
    }
    for member in members.iter_mut() {
        assert_eq!(member.ask("close"), "ok", "{at}");
    }
    assert_eq!(members[0].ask("open"), "ok", "{at}, opened again");
    let found = members[0].ask("get c k").parse().unwrap_or_else(|_| panic!("{at}, opened again"));
    numbers.accept(found, at);
    *numbers = Numbers { acknowledged: found, in_doubt: 0 };
    for command in ["filled t 0 100 300", "check"] {
        assert_eq!(members[0].ask(command), "ok", "{at}, opened again");
    }
    numbers.put(&mut members[0], "immediate", at);
    assert_eq!(numbers.in_doubt, 0, "{at}, opened again");
    let answer = members[1].ask("open");
    if is_failure(&answer, &[ErrorKind::Locked]) && is_foreign(path) {
        // The first one has the file exclusively until the lock file is removed.
        members[0].expect("close", "ok");
        fs::remove_file(lock_file(path)).expect("removed");
        members.iter_mut().for_each(|member| member.expect("open", "ok"));
    } else {
        assert_eq!(answer, "ok", "{at}, opened again by the other");
    }
}

/// Whether the lock file does not begin as such: then no process changes it.
fn is_foreign(path: &Path) -> bool {
    !fs::read(lock_file(path)).expect("a lock file").starts_with(b"mapleafL")
}

/// Two processes with a file, and the length of its lock file.
fn two_with_numbers(path: &Path) -> ([Member; 2], Numbers, u64) {
    let mut members = [Member::open(path, 0), Member::open(path, 0)];
    members[0].number("fill t 0 100 300");
    let mut known = Numbers { acknowledged: 0, in_doubt: 0 };
    for n in 0..8 {
        known.put(&mut members[n % 2], "immediate", "before");
    }
    assert_eq!(known.acknowledged, 8);
    members.iter_mut().for_each(|member| known.read(member, "before"));
    (members, known, fs::metadata(lock_file(path)).expect("a lock file").len())
}

#[test]
fn a_lock_file_that_is_cut_under_two_processes_gives_errors_and_no_wrong_data() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let (mut members, mut known, _) = two_with_numbers(&path);
    for (n, part) in [0, 1, 2, 4, 8, 16, 24, 31, 32].into_iter().enumerate() {
        let whole = fs::metadata(lock_file(&path)).expect("a lock file").len();
        let len = (whole * part / 32).saturating_sub(n as u64 % 2 * 7);
        let at = format!("cut to {len} of {whole}");
        set_len(&lock_file(&path), len);
        go_on(&path, &mut members, &mut known, &at);
    }
}

/// An offset in a lock file: often that of a byte that is used.
fn offset(lock: &[u8], rng: &mut Rng) -> usize {
    let start = rng.below(lock.len() as u64) as usize;
    let used = |&at: &usize| lock[at] != 0;
    match rng.below(3) {
        0 => start,
        1 => (start..lock.len()).chain(0..start).find(used).unwrap_or(start),
        // The records lie before the process slots and reader pages.
        _ => (rng.below(16 << 10) as usize..lock.len()).find(used).unwrap_or(start),
    }
}

#[test]
fn a_lock_file_whose_bytes_are_flipped_gives_errors_and_no_wrong_data() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let seed = seed("flipped_lock_file");
    let mut rng = Rng::new(seed);
    let (mut members, mut known, _) = two_with_numbers(&path);
    for trial in 0..80 * u64::from(long()) {
        let lock = fs::read(lock_file(&path)).expect("a lock file");
        let file = File::options().write(true).open(lock_file(&path)).expect("a lock file");
        let at = offset(&lock, &mut rng);
        let to = lock[at] ^ 1 << rng.below(8);
        let what = format!("seed {seed}, trial {trial}, byte {at} from {} to {to}", lock[at]);
        match rng.below(4) {
            // Some bytes become random ones, or zeros.
            0 => {
                let len = (1 + rng.below(64)).min((lock.len() - at) as u64);
                let filled = if rng.below(2) == 0 { vec![0; len as usize] } else { bytes(rng.next(), len as usize) };
                file.write_all_at(&filled, at as u64).expect("overwritten");
            }
            _ => file.write_all_at(&[to], at as u64).expect("flipped"),
        }
        go_on(&path, &mut members, &mut known, &what);
    }
}

/// The bytes change while both processes commit all the time. They hold no reader slot meanwhile:
/// an overwritten one may free what a snapshot needs.
#[test]
fn a_lock_file_that_is_overwritten_during_commits_gives_errors_and_no_damage() {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    let seed = seed("overwritten_lock_file");
    let mut rng = Rng::new(seed);
    let (mut members, mut known, _) = two_with_numbers(&path);
    for trial in 0..10 * u64::from(long()) {
        let at = format!("seed {seed}, trial {trial}");
        for member in &mut members {
            member.say(&format!("update {} u 400 50 60", ["immediate", "eventual"][trial as usize % 2]));
        }
        let file = File::options().write(true).open(lock_file(&path)).expect("a lock file");
        for _ in 0..20 {
            let lock = fs::read(lock_file(&path)).expect("a lock file");
            let place = offset(&lock, &mut rng);
            file.write_all_at(&[lock[place] ^ 1 << rng.below(8)], place as u64).expect("flipped");
        }
        for member in &mut members {
            let answer = member.answer();
            assert!(answer.starts_with("ok ") || answer.starts_with("failed "), "{at}: {answer}");
        }
        go_on(&path, &mut members, &mut known, &at);
    }
    let mut numbers_of = |command: &str| numbers(&members[0].ask(command), command);
    assert!(numbers_of("pages")[0] > 0);
}
