//! Processes that are killed while others have the file open: at each event of the test seam, while
//! they open it, while they begin to read, and with snapshots.
//!
//! The victim executes the script of `log_kills`: it joins, commits at both levels, flushes, makes
//! checkpoints, leaves, and does so twice. At its k-th event it stops; k runs from 1 until it comes
//! to the end of the script.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use mapleaf::testing::at_moments;
use mapleaf::Db;

use super::broker::Broker;
use super::member::{numbers, Member};
use crate::log_kills::{hear, kind_of, StopAt, EVENTS};
use crate::reexec::{self, Process};
use crate::workload::{fast_dir, FIRST_TXN};

fn victim(path: &Path, seed: u64, event: u64) -> Process {
    let (seed, event) = (seed.to_string(), event.to_string());
    reexec::start(reexec::command("log_kills::child_with_a_script", &[&path, &seed, &event]))
}

/// The process that stays.
struct Survivors {
    writer: Member,
    /// It holds a snapshot while the other dies.
    reader: Member,
    acknowledged: u64,
}

impl Survivors {
    /// Kills a process that has stopped at an event. All goes on, and nothing is lost.
    fn outlive(&mut self, mut victim: Process, at: &str, number: u64) {
        let held = self.reader.ask("held");
        assert!(!self.writer.ask("hash").starts_with("failed"), "{at}: a reader beside a process that has stopped");
        let level = ["immediate", "eventual"][number as usize / 2 % 2];
        let commits = self.acknowledged..=self.acknowledged + 1;
        // Every other time the survivor waits already.
        if number.is_multiple_of(2) {
            self.writer.say(&format!("step {level}"));
            victim.kill();
        } else {
            victim.kill();
            let seen = numbers(&self.writer.ask("judge"), at)[0];
            assert!(commits.contains(&seen), "{at}: step {seen}, acknowledged {}", self.acknowledged);
            self.writer.say(&format!("step {level}"));
        }
        let step = numbers(&self.writer.answer(), at)[0];
        assert!(commits.contains(&(step - 1)), "{at}: the next step is {step}, acknowledged {}", self.acknowledged);
        assert_eq!(self.writer.ask("judge"), format!("ok {step}"), "{at}");
        assert_eq!(self.reader.ask("held"), held, "{at}: a snapshot changed");
        self.reader.expect("release", "ok");
        self.reader.ask("hold");
        assert_eq!(self.reader.ask("judge"), format!("ok {step}"), "{at}");
        self.acknowledged = step;
    }
}

/// Kills a process at every event of the script. Adds the kinds of events.
fn every_event(path: &Path, seed: u64, kinds: &mut BTreeMap<String, u64>) {
    let mut survivors =
        Survivors { writer: Member::open(path, seed), reader: Member::open(path, seed), acknowledged: 0 };
    survivors.acknowledged = survivors.writer.number("step immediate");
    survivors.reader.ask("hold");
    for event in 1.. {
        let mut victim = victim(path, seed, event);
        let (said, stopped) = hear(&mut victim, |_| false);
        survivors.acknowledged = survivors.acknowledged.max(said);
        let Some(stopped) = stopped else {
            victim.finish();
            break;
        };
        *kinds.entry(kind_of(&stopped)).or_default() += 1;
        survivors.outlive(victim, &format!("seed {seed}, event {event}, {stopped}"), event);
    }
    survivors.reader.finish();
    survivors.writer.finish();
    let mut last = Member::open(path, seed);
    assert!(last.number("judge") >= survivors.acknowledged);
}

#[test]
fn a_process_that_is_killed_at_any_event_delays_no_other_and_loses_nothing() {
    let seed = crate::support::seed("killed_beside_others");
    let mut kinds = BTreeMap::new();
    // The events before one depend on those that were killed before, so one run may pass by some.
    for seed in seed..seed + 5 {
        let dir = fast_dir();
        every_event(&dir.path().join("killed.mapleaf"), seed, &mut kinds);
        if EVENTS.iter().all(|kind| kinds.contains_key(*kind)) {
            break;
        }
    }
    writeln!(io::stdout(), "\nSIGKILL beside others: {} events", kinds.values().sum::<u64>()).ok();
    println!("{kinds:?}");
    EVENTS.iter().for_each(|kind| assert!(kinds.contains_key(*kind), "no {kind} in {kinds:?}"));
}

#[test]
fn a_process_with_shared_memory_that_is_killed_at_any_event_delays_no_other_and_loses_nothing() {
    let seed = crate::support::seed("killed_beside_others_in_memory");
    let (broker, mut kinds) = (Broker::start(), BTreeMap::new());
    every_event(&broker.path(), seed, &mut kinds);
    writeln!(io::stdout(), "\nSIGKILL in shared memory: {} events", kinds.values().sum::<u64>()).ok();
    println!("{kinds:?}");
    let expected =
        ["Filling", "InDoubt", "meta page", "MetaMoved", "LatestStored", "Publishing", "Clearing", "SlotsRead"];
    expected.iter().for_each(|kind| assert!(kinds.contains_key(*kind), "no {kind} in {kinds:?}"));
}

/// No other process has the memory when one dies there. Two attach meanwhile.
#[test]
fn processes_attach_to_shared_memory_in_which_the_last_one_was_killed_at_any_event() {
    let seed = crate::support::seed("killed_last_in_memory");
    let (broker, mut acknowledged, mut kinds) = (Broker::start(), FIRST_TXN, BTreeMap::<_, u64>::new());
    let path = broker.path();
    // It makes the memory.
    Member::open(&path, seed).finish();
    for event in 1.. {
        let mut victim = victim(&path, seed, event);
        let (said, stopped) = hear(&mut victim, |_| false);
        acknowledged = acknowledged.max(said);
        let Some(stopped) = stopped else {
            victim.finish();
            break;
        };
        *kinds.entry(kind_of(&stopped)).or_default() += 1;
        let at = format!("seed {seed}, event {event}, {stopped}");
        let mut others: Vec<Member> = (0..2).map(|_| Member::start(&path, seed)).collect();
        if event % 2 == 0 {
            others.iter_mut().for_each(|other| other.say("open"));
            victim.kill();
        } else {
            victim.kill();
            others.iter_mut().for_each(|other| other.say("open"));
        }
        for other in &mut others {
            assert_eq!(other.answer(), "ok", "{at}");
            let seen = numbers(&other.ask("judge"), &at)[0];
            assert!((acknowledged..=acknowledged + 1).contains(&seen), "{at}: step {seen} of {acknowledged}");
        }
        acknowledged = numbers(&others[0].ask("step immediate"), &at)[0];
        assert_eq!(others[1].ask("judge"), format!("ok {acknowledged}"), "{at}");
        others.into_iter().for_each(Member::finish);
    }
    println!("{kinds:?}");
    let expected = ["InDoubt", "meta page", "MetaMoved", "LatestStored", "Publishing", "Clearing"];
    expected.iter().for_each(|kind| assert!(kinds.contains_key(*kind), "no {kind} in {kinds:?}"));
}

/// The file of a process that died is recovered by one that dies too, while another waits to open.
#[test]
fn a_process_that_is_killed_while_it_opens_delays_no_other() {
    let (seed, dir) = (crate::support::seed("killed_in_opening"), fast_dir());
    let (begin, path) = (dir.path().join("begin.mapleaf"), dir.path().join("killed.mapleaf"));
    let mut member = Member::open(&begin, seed);
    let acknowledged = (0..9).map(|n| member.number(["step immediate", "step eventual"][n % 2])).last();
    let acknowledged = acknowledged.expect("some");
    member.kill();
    let mut opening = 0;
    for event in 1.. {
        std::fs::copy(&begin, &path).expect("copied");
        let mut victim = victim(&path, seed, event);
        let (said, stopped) = hear(&mut victim, |_| false);
        let stopped = stopped.expect("an event");
        if said > 0 {
            break;
        }
        opening += 1;
        let at = format!("seed {seed}, event {event}, {stopped}");
        let mut others: Vec<Member> = (0..2).map(|_| Member::start(&path, seed)).collect();
        others.iter_mut().for_each(|other| other.say("open"));
        victim.kill();
        for other in &mut others {
            assert_eq!(other.answer(), "ok", "{at}");
            let seen = numbers(&other.ask("judge"), &at)[0];
            assert!((acknowledged..=acknowledged + 1).contains(&seen), "{at}: step {seen} of {acknowledged}");
        }
        let step = numbers(&others[0].ask("step immediate"), &at)[0];
        assert_eq!(others[1].ask("judge"), format!("ok {step}"), "{at}");
        others.into_iter().for_each(Member::finish);
    }
    assert!(opening > 10, "{opening} events while opening");
}

/// Pages of the newest state, without those of the log.
fn used(member: &mut Member) -> u64 {
    let [count, _, _, log] = numbers(&member.ask("pages"), "pages")[..] else { panic!("four numbers") };
    count - log
}

/// Processes hold snapshots of different states, and live on or are killed; then more is stored.
/// Returns the pages of the data, and of all in the end.
fn beside_snapshots(killed: bool) -> [u64; 2] {
    let dir = fast_dir();
    let path = dir.path().join("killed.mapleaf");
    let mut writer = Member::open(&path, 0);
    writer.number("fill t 0 1000 400");
    let live = used(&mut writer);
    let mut readers = Vec::new();
    for _ in 0..6 {
        let mut reader = Member::open(&path, 0);
        // More than a reader page has slots.
        for _ in 0..40 {
            reader.ask("hold");
        }
        readers.push(reader);
        writer.number("update eventual t 1000 1000 400");
    }
    if killed {
        readers.iter_mut().for_each(Member::kill);
    }
    for n in 0..5 {
        writer.expect("checkpoint", "ok");
        writer.number(&format!("fill more {} 1000 400", n * 1000));
    }
    let end = used(&mut writer);
    writer.expect("check", "ok");
    drop(readers);
    writer.finish();
    [live, end]
}

#[test]
fn snapshots_of_killed_processes_pin_no_pages() {
    let ([live, pinned], [_, killed]) = (beside_snapshots(false), beside_snapshots(true));
    assert!(pinned >= killed + 3 * live, "{pinned} pages with snapshots of {live}, {killed} after they were killed");
    assert!(killed < 10 * live, "{killed} pages, {live} hold the data at first");
}

#[test]
fn processes_that_are_killed_with_snapshots_leave_their_slots_to_others() {
    let dir = fast_dir();
    let path = dir.path().join("killed.mapleaf");
    let mut writer = Member::open(&path, 0);
    writer.number("fill t 0 1000 400");
    let live = used(&mut writer);
    let lock = dir.path().join("killed.mapleaf-lock");
    let mut lock_bytes = 0;
    for round in 0..16 {
        let mut reader = Member::open(&path, 0);
        for _ in 0..100 {
            reader.ask("hold");
        }
        reader.expect("filled t 0 1000 400", "ok");
        reader.kill();
        writer.number("update eventual t 300 1000 400");
        writer.number("fill t 0 1000 400");
        let len = std::fs::metadata(&lock).expect("a lock file").len();
        assert!(round < 2 || len == lock_bytes, "the lock file grows for slots of the dead, to {len} bytes");
        lock_bytes = len;
    }
    let end = used(&mut writer);
    assert!(end < 8 * live, "{end} pages, {live} hold the data");
    writer.expect("check", "ok");
    writer.finish();
}

#[test]
fn child_that_begins_to_read() {
    let Some(arguments) = reexec::arguments() else { return };
    reexec::watch();
    let db = Db::open_existing(&arguments[0]).expect("opened");
    let stop = StopAt::new(&arguments[1]);
    at_moments(
        move |moment| stop.event(&format!("{moment:?}")),
        || loop {
            let held: Vec<_> = (0..3).map(|_| db.begin_read().expect("begins")).collect();
            drop(held);
        },
    );
}

/// Slots of processes that died while they claimed or freed them are used again.
#[test]
fn processes_that_are_killed_while_they_begin_to_read_pin_no_pages() {
    let dir = fast_dir();
    let path = dir.path().join("killed.mapleaf");
    let mut writer = Member::open(&path, 0);
    writer.number("fill t 0 1000 400");
    let live = numbers(&writer.ask("pages"), "pages")[0];
    let mut kinds = BTreeMap::<String, u64>::new();
    for event in 1..40 {
        let command = reexec::command("processes::death::child_that_begins_to_read", &[&path, &event.to_string()]);
        let mut reader = reexec::start(command);
        let stopped = reader.line().expect("a child that goes on");
        *kinds.entry(kind_of(&stopped)).or_default() += 1;
        // Every other time it dies after the commits.
        if event % 2 == 0 {
            reader.kill();
        }
        writer.number("update eventual t 300 1000 400");
        reader.kill();
        writer.number("fill t 0 1000 400");
    }
    assert!(kinds.len() > 2, "{kinds:?}");
    let end = used(&mut writer);
    assert!(end < 8 * live, "{end} pages, {live} hold the data");
    writer.expect("check", "ok");
    writer.finish();
}

/// A process that holds the writer lock dies; one of those that wait goes on.
#[test]
fn a_writer_that_is_killed_releases_the_writer_lock() {
    let dir = fast_dir();
    let path = dir.path().join("killed.mapleaf");
    let mut stays = Member::open(&path, 0);
    stays.number("put immediate t k before");
    for round in 0..20 {
        let mut dies = Member::open(&path, 0);
        dies.number("begin");
        dies.expect("insert t k lost", "ok");
        stays.expect("try", "none");
        if round % 2 == 0 {
            stays.say("begin");
            dies.kill();
            numbers(&stays.answer(), "begin");
        } else {
            dies.kill();
            numbers(&stays.ask("try"), "try");
        }
        stays.expect(&format!("insert t other {round}"), "ok");
        numbers(&stays.ask("commit"), "commit");
        stays.expect("get t k", "before");
        stays.expect("get t other", &round.to_string());
    }
    stays.expect("check", "ok");
    stays.finish();
}
