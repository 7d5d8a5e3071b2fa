//! Processes that join, read, write in turns, and leave: each sees what the others commit.

use std::path::{Path, PathBuf};

use mapleaf::ErrorKind;

use super::member::{numbers, Member};
use crate::workload::{fast_dir, Rng};

const PAGE: u64 = 4096;
const LEVELS: [&str; 2] = ["immediate", "eventual"];

fn directory() -> (tempfile::TempDir, PathBuf) {
    let dir = fast_dir();
    let path = dir.path().join("shared.mapleaf");
    (dir, path)
}

/// Closes all members that are left, and asserts that the file is closed cleanly and that nothing
/// is damaged.
#[track_caller]
fn assert_closed_cleanly(path: &Path) {
    let len = std::fs::metadata(path).expect("the file").len();
    let mut reader = Member::start(path, 0);
    reader.expect("open read-only", "ok");
    let [count, _, _, log] = numbers(&reader.ask("pages"), "pages")[..] else { panic!("four numbers") };
    assert_eq!((len, log), (count * PAGE, 0), "length, pages of the log");
    reader.expect("check", "ok");
    reader.finish();
    assert_eq!(std::fs::metadata(path).expect("the file").len(), len, "a reader changed the length");
}

#[test]
fn a_second_process_sees_what_the_first_has_committed_and_each_later_commit() {
    let (_dir, path) = directory();
    let mut first = Member::open(&path, 0);
    let txn = first.number("put immediate t k 0");
    let mut second = Member::open(&path, 0);
    let mut reader = Member::start(&path, 0);
    reader.expect("open read-only", "ok");
    for other in [&mut second, &mut reader] {
        other.expect("get t k", "0");
    }
    for n in 1..60 {
        let of = LEVELS[n % 2];
        assert_eq!(first.number(&format!("put {of} t k {n}")), txn + n as u64);
        for other in [&mut second, &mut reader] {
            other.expect("get t k", &n.to_string());
        }
    }
    let hash = first.ask("hash");
    second.expect("hash", &hash);
    reader.expect("hash", &hash);
    first.finish();
    second.expect("hash", &hash);
    second.finish();
    reader.expect("hash", &hash);
    reader.finish();
}

/// Each step of the history puts, deletes, removes ranges, and drops tables, at either level. Every
/// process compares the whole database after each step of another.
#[test]
fn processes_that_write_in_turns_see_each_others_entries_tables_and_drops() {
    let (_dir, path) = directory();
    let seed = crate::support::seed("turns");
    let mut rng = Rng(seed);
    let mut members = vec![Member::open(&path, seed), Member::open(&path, seed)];
    let mut step = members[0].number("step immediate");
    for round in 0..150 {
        let writer = rng.below(members.len() as u64) as usize;
        let of = LEVELS[rng.below(2) as usize];
        step += 1;
        members[writer].expect(&format!("step {of}"), &format!("ok {step}"));
        for (n, member) in members.iter_mut().enumerate() {
            assert_eq!(
                member.ask("judge"),
                format!("ok {step}"),
                "seed {seed}, round {round}, {writer} wrote, {n} read"
            );
        }
        // Others join and leave meanwhile.
        match rng.below(10) {
            0 if members.len() < 4 => members.push(Member::open(&path, seed)),
            1 if members.len() > 2 => members.swap_remove(rng.below(members.len() as u64) as usize).finish(),
            2 => members[writer].expect("checkpoint", "ok"),
            _ => {}
        }
    }
    members.into_iter().for_each(Member::finish);
    assert_closed_cleanly(&path);
}

/// The processes that are there outgrow their windows too.
#[test]
fn processes_follow_the_growth_of_the_others() {
    let (_dir, path) = directory();
    let mut first = Member::open(&path, 0);
    first.expect("put immediate t k v", "ok 3");
    let mut second = Member::start(&path, 0);
    second.expect("open window=1048576", "ok");
    let mut reader = Member::start(&path, 0);
    reader.expect("open read-only window=1048576", "ok");
    for member in [&mut second, &mut reader] {
        member.expect("get t k", "v");
    }
    for n in 0..6 {
        first.number(&format!("fill big {} 1000 4000", n * 1000));
    }
    assert!(std::fs::metadata(&path).expect("the file").len() > 20 << 20);
    let mut third = Member::open(&path, 0);
    for member in [&mut third, &mut second, &mut reader, &mut first] {
        member.expect("filled big 0 6000 4000", "ok");
    }
    // Now another one grows the file, in small and in large steps.
    third.number("fill small 0 20000 100");
    second.number("fill big 6000 2000 4000");
    third.number("fill long 0 3 3000000");
    for member in [&mut first, &mut second, &mut third, &mut reader] {
        member.expect("filled big 0 8000 4000", "ok");
        member.expect("filled small 0 20000 100", "ok");
        member.expect("filled long 0 3 3000000", "ok");
    }
    // What the others grew can be written to.
    first.number("fill small 0 20000 100");
    second.expect("filled small 0 20000 100", "ok");
    [reader, second, third, first].into_iter().for_each(Member::finish);
    assert_closed_cleanly(&path);
}

#[test]
fn members_that_only_read_leave_the_file_byte_identical() {
    let (_dir, path) = directory();
    let mut writer = Member::open(&path, 0);
    writer.number("fill t 0 500 100");
    writer.finish();
    let look = || {
        let found = std::fs::metadata(&path).expect("the file");
        (std::fs::read(&path).expect("the bytes"), found.modified().expect("a time"))
    };
    // Two readers without a writer, then beside one that does nothing, then beside one that has
    // written.
    let closed = look();
    for with_writer in [false, true, true] {
        let mut writer = with_writer.then(|| Member::open(&path, 0));
        let before = look();
        let mut readers = [Member::start(&path, 0), Member::start(&path, 0)];
        for reader in &mut readers {
            reader.expect("open read-only", "ok");
            reader.expect("filled t 0 500 100", "ok");
            reader.expect("check", "ok");
            reader.refuses("put immediate t k v", ErrorKind::Usage);
        }
        readers.into_iter().for_each(Member::finish);
        assert!(look() == before, "changed by readers, with a writer: {with_writer}");
        if let Some(mut writer) = writer.take() {
            writer.number("put immediate t k v");
            let mut reader = Member::start(&path, 0);
            reader.expect("open read-only", "ok");
            let before = look();
            reader.expect("get t k", "v");
            assert!(look() == before, "changed by a reader");
            writer.number("drop x");
            reader.finish();
            writer.finish();
        } else {
            assert!(look() == closed, "changed while no writer was there");
        }
    }
    assert_closed_cleanly(&path);
}

#[test]
fn a_writer_joins_a_process_that_only_reads() {
    let (_dir, path) = directory();
    Member::open(&path, 0).finish();
    let mut reader = Member::start(&path, 0);
    reader.expect("open read-only", "ok");
    reader.expect("get t k", "none");
    let mut writer = Member::open(&path, 0);
    for n in 0..20 {
        writer.number(&format!("put {} t k {n}", LEVELS[n % 2]));
        reader.expect("get t k", &n.to_string());
    }
    writer.number("fill big 0 3000 4000");
    reader.expect("filled big 0 3000 4000", "ok");
    writer.finish();
    reader.expect("filled big 0 3000 4000", "ok");
    // Another one comes while the reader is the only one.
    let mut writer = Member::open(&path, 0);
    writer.number("put immediate t k again");
    reader.expect("get t k", "again");
    reader.finish();
    writer.finish();
    assert_closed_cleanly(&path);
}

/// The orders in which three members may close.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn the_file_is_clean_after_the_last_process_has_closed_it_in_each_order() {
    for (n, order) in ORDERS.into_iter().enumerate() {
        let (_dir, path) = directory();
        let mut members: Vec<Option<Member>> = (0..3).map(|_| Some(Member::open(&path, n as u64))).collect();
        let mut step = 0;
        for round in 0..12 {
            let member = members[round % 3].as_mut().expect("open");
            step = member.number(&format!("step {}", LEVELS[(round + n) % 2]));
        }
        for (left, at) in (1..=3).rev().zip(order) {
            let mut member = members[at].take().expect("open");
            assert_eq!(member.number("judge"), step, "order {order:?}");
            // Every other time the last ones have written nothing.
            if n % 2 == 0 {
                step = member.number("step eventual");
            }
            member.finish();
            if left > 1 {
                // Members are still there: nothing is cut off.
                let mut other = Member::open(&path, n as u64);
                assert_eq!(other.number("judge"), step, "order {order:?}");
                other.finish();
            }
        }
        assert_closed_cleanly(&path);
        let mut again = Member::open(&path, n as u64);
        assert_eq!(again.number("judge"), step, "order {order:?}");
    }
}

#[test]
fn a_process_that_opens_again_and_again_beside_another_sees_all() {
    let (_dir, path) = directory();
    let mut stays = Member::open(&path, 5);
    let mut comes = Member::start(&path, 5);
    for round in 0..40 {
        let step = stays.number(&format!("step {}", LEVELS[round % 2]));
        comes.expect(if round % 3 == 2 { "open read-only" } else { "open" }, "ok");
        assert_eq!(comes.number("judge"), step);
        if round % 3 == 0 {
            assert_eq!(comes.number(&format!("step {}", LEVELS[round / 3 % 2])), step + 1);
            assert_eq!(stays.number("judge"), step + 1);
        }
        comes.expect("close", "ok");
    }
    comes.finish();
    stays.finish();
    assert_closed_cleanly(&path);
}

#[test]
fn a_write_transaction_waits_for_that_of_another_process() {
    let (_dir, path) = directory();
    let (mut holder, mut waiter) = (Member::open(&path, 0), Member::open(&path, 0));
    for round in 0..10 {
        let txn = holder.number(["begin", "try", "wait 60000"][round % 3]);
        waiter.expect("try", "none");
        waiter.expect("wait 20", "none");
        holder.expect(&format!("insert t k {round}"), "ok");
        waiter.say(["begin", "wait 60000"][round % 2]);
        match round % 5 {
            4 => holder.expect("abort", "ok"),
            _ => holder.expect("commit", &format!("ok {txn}")),
        }
        let next = if round % 5 == 4 { txn } else { txn + 1 };
        assert_eq!(waiter.answer(), format!("ok {next}"), "it began after the end of the other");
        holder.expect("try", "none");
        waiter.expect(&format!("insert t waiter {round}"), "ok");
        waiter.expect("commit", &format!("ok {next}"));
        let expected = if round % 5 == 4 { round - 1 } else { round };
        waiter.expect("get t k", &expected.to_string());
        holder.expect("get t waiter", &round.to_string());
    }
    // A transaction that is dropped with its handle releases the lock too.
    holder.number("begin");
    waiter.say("begin");
    holder.finish();
    numbers(&waiter.answer(), "begin");
    waiter.finish();
}

/// A process that has written nothing yet makes durable what another has left, with and without a
/// checkpoint, also if the other is killed then.
#[test]
fn a_process_that_has_written_nothing_makes_the_commits_of_another_durable() {
    for round in 0..12 {
        let (_dir, path) = directory();
        let (mut first, count) = (Member::open(&path, 0), [1, 6, 40][round / 4]);
        let early = (round / 2 % 2 == 1).then(|| Member::open(&path, 0));
        for n in 0..count {
            first.number(&format!("put eventual t k {n}"));
        }
        let mut second = early.unwrap_or_else(|| Member::open(&path, 0));
        if round % 2 == 0 {
            first.kill();
        }
        second.expect("sync", "ok");
        second.expect("get t k", &(count - 1).to_string());
        second.expect("checkpoint", "ok");
        second.expect("checkpoint", "ok");
        second.number("put immediate t k more");
        second.expect("check", "ok");
        if round % 2 == 1 {
            first.expect("get t k", "more");
            first.finish();
        }
        second.finish();
        assert_closed_cleanly(&path);
    }
}

/// Processes that want the writer lock all the time: each of them gets it.
#[test]
fn no_process_starves_while_others_write() {
    let (_dir, path) = directory();
    let mut members: Vec<Member> = (0..3).map(|_| Member::open(&path, 0)).collect();
    for of in ["immediate", "eventual"] {
        for (n, member) in members.iter_mut().enumerate() {
            member.say(&format!("update {of} t{n} 1000 50 60"));
        }
        for member in &mut members {
            numbers(&member.answer(), "update");
        }
    }
    let hash = members[0].ask("hash");
    members.iter_mut().for_each(|member| member.expect("hash", &hash));
    members.into_iter().for_each(Member::finish);
    assert_closed_cleanly(&path);
}

/// Pages of the newest state, without those of the log.
fn used(member: &mut Member) -> u64 {
    let [count, _, _, log] = numbers(&member.ask("pages"), "pages")[..] else { panic!("four numbers") };
    count - log
}

/// Commits beside a snapshot of another process, and then stores more. Returns the pages of the
/// data at first and of all in the end.
fn beside_a_snapshot(released: bool) -> [u64; 2] {
    let (_dir, path) = directory();
    let (mut reader, mut writer) = (Member::open(&path, 0), Member::open(&path, 0));
    writer.number("fill t 0 1000 400");
    let live = used(&mut writer);
    reader.ask("hold");
    let held = reader.ask("held");
    for round in 0..3 {
        writer.number(&format!("update {} t 1000 1000 400", LEVELS[round % 2]));
        reader.expect("held", &held);
    }
    let peak = used(&mut writer);
    assert!(peak < 8 * live, "{peak} pages for {live}");
    if released {
        reader.expect("release", "ok");
    }
    for n in 0..3 {
        writer.expect("checkpoint", "ok");
        writer.number(&format!("fill more {} 1000 400", n * 1000));
    }
    if !released {
        reader.expect("held", &held);
    }
    let end = used(&mut writer);
    reader.expect("check", "ok");
    reader.finish();
    writer.finish();
    assert_closed_cleanly(&path);
    [live, end]
}

#[test]
fn a_snapshot_stays_as_it_is_while_another_process_commits_and_its_pages_come_back() {
    let ([live, with_snapshot], [_, released]) = (beside_a_snapshot(false), beside_a_snapshot(true));
    assert!(
        with_snapshot >= released + live / 2,
        "{with_snapshot} pages with a snapshot of {live}, {released} without"
    );
}
