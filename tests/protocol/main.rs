//! A model of processes that share a database, searched exhaustively.
//!
//! `docs/concurrency.md` says in steps and rules what processes may do. The model is a copy of it in
//! two thousand lines: each step names the function that takes it in the crate. The search visits
//! all interleavings of the steps of a few processes, with a kill possible between any two steps,
//! and judges each state. A rule that is left out must lead to a violation, whose shortest schedule
//! is printed. `tests/it/exhaustive` searches the real code of commits and readers.
//!
//! ```text
//! world       file, page cache and disk, live records, locks, processes
//! step        one step of a process
//! write       taking over, reclaiming, growth, committing
//! lead        leaders, and the proof of P18
//! checkpoint  checkpoints, and writing meta pages
//! read        reader pages and readers
//! presence    opening, recovery, closing
//! judge       power cuts, and the death of all
//! search      visits the states
//! weak        begin read against reclaim under the memory model of Rust
//! ```

mod checkpoint;
mod judge;
mod lead;
mod presence;
mod read;
mod search;
mod step;
mod weak;
mod world;
mod write;

use search::{Search, Violation};
use step::Pc;

/// An operation of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    /// Opens the file, with one of two lock files: there are two paths to the file.
    Open(u8),
    Close,
    Immediate,
    Eventual,
    /// Commits, and nobody waits until the commit is durable.
    Unawaited,
    /// Commits by checkpoint.
    Large,
    Checkpoint,
    /// Makes the latest state durable.
    Sync,
    Read,
    /// Reads, and makes a child meanwhile: the next process of the scenario.
    ReadAndFork,
    /// A child: it drops the read transaction that it has inherited, and lives on.
    Child,
}
use Op::*;

/// A rule of `docs/concurrency.md` that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// R5: snapshots count.
    SlotIgnored,
    /// R5: the state of the durable meta page counts.
    MetaIgnored,
    /// R5: the pinned state counts.
    PinnedIgnored,
    /// R5: the state in doubt counts. Spare while `pinned` stands.
    InDoubtIgnored,
    /// R5: the states from published to latest count (P7).
    P7,
    /// P7: the writer reads `published` before the slots.
    PublishedReadLast,
    /// A reader reads `published` again after it has shown a state.
    NotReread,
    /// A checkpoint reads `published` again after it has pinned a state.
    PinNotReread,
    /// A reader page is claimed, and then its slots are freed.
    ClearedBeforeClaim,
    /// Only pages of dead processes are freed.
    OwnerUntested,
    /// A page is freed only if its owner still has the generation that was tested.
    Generation,
    /// A member uses the lock file that the others use.
    P3,
    /// P3: some member uses this lock file.
    BindingNotHeld,
    /// P4: an opener keeps the gate until it has its locks.
    OpensOutsideGate,
    /// P4: a closer takes the gate.
    ClosesOutsideGate,
    /// P5: a state is written whole, and then named.
    P5,
    /// P5: a copy counts only if it is whole and of the txn.
    TornCopy,
    /// P5: the ring has the published state.
    RingOverrun,
    /// An epoch with an orphan record is over.
    P9,
    /// A state is durable, and then published.
    P10,
    /// A leader and a checkpoint map what they flush.
    P11,
    /// A state that is not durable is published only after the `Immediate` ones before it are.
    P12,
    /// A meta page in doubt is finished before anything builds on an older state.
    P13,
    /// The state in doubt counts, and `pinned` stands until its meta page is durable.
    P15AndPinned,
    /// `length` moves before a page is used.
    P17,
    /// P17: no process takes the length of the file for `length`.
    FileLengthTaken,
    /// P18: a process that joins while a mark is odd proves the cache.
    P18,
    /// P18: a leader that finds the mark odd flushes again. Spare.
    NotFlushedAgain,
    /// P18: the description of the log is opened with the file.
    LogOpenedLate,
    /// P18: only a flush makes an odd mark even.
    EvenWithoutFlush,
    /// P18: the proof compares with the disk.
    NotCompared,
    /// After poison, no process commits or acknowledges.
    P19,
    /// The attribute stands until what the recovery has found is durable.
    P20,
    /// P22: a child frees nothing of its parent.
    ChildFreesSlot,
    /// P22: a child keeps no lock of its parent.
    ChildKeepsLocks,
}

/// Processes, and the bounds of a search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    name: &'static str,
    /// A process whose script begins with `Open` is out at first. The others are members.
    agents: &'static [&'static [Op]],
    /// How many processes may be killed, and which, as bits.
    kills: u8,
    killable: u8,
    /// How many flushes may fail.
    fails: u8,
    /// Free pages at first.
    free: u8,
    /// The file can be read past the page cache.
    past_cache: bool,
}

const fn of(name: &'static str, agents: &'static [&'static [Op]]) -> Scenario {
    Scenario { name, agents, kills: 0, killable: u8::MAX, fails: 0, free: 2, past_cache: true }
}

/// The same; so many processes are killed, each at any step.
const fn kills(kills: u8, scenario: Scenario) -> Scenario {
    Scenario { kills, ..scenario }
}

/// The same; one flush fails, and one process is killed.
const fn fails(scenario: Scenario) -> Scenario {
    Scenario { fails: 1, kills: 1, ..scenario }
}

/// The same, with so many free pages at first.
const fn free(free: u8, scenario: Scenario) -> Scenario {
    Scenario { free, ..scenario }
}

/// The same; only these processes, as bits, may be killed.
const fn only(killable: u8, scenario: Scenario) -> Scenario {
    Scenario { killable, ..scenario }
}

/// Visits all states of scenarios; none breaks a rule.
fn hold(scenarios: &[Scenario]) {
    for scenario in scenarios {
        let mut search = Search::new(scenario, None);
        if let Err(Violation { says, steps, schedule }) = search.run() {
            panic!("{}: {says}, after {steps} steps:\n{schedule}", scenario.name);
        }
        println!("{}: {} states", scenario.name, search.states());
    }
}

/// The search finds what happens without a rule.
fn found(rule: Rule, scenario: &Scenario, says: &str) {
    let mut search = Search::new(scenario, Some(rule));
    let result = search.run();
    let states = search.states();
    let Err(violation) = result else { panic!("{rule:?} is left out, and all {states} states are right") };
    println!("{rule:?}: {} states, {} steps: {}", states, violation.steps, violation.says);
    assert!(violation.says.contains(says), "{rule:?}: {}, after\n{}", violation.says, violation.schedule);
}

#[test]
fn two_processes_keep_the_rules_in_every_state() {
    hold(&[
        kills(1, of("two commits", &[&[Immediate, Eventual], &[Immediate]])),
        kills(1, of("by checkpoint", &[&[Large, Immediate], &[Immediate, Large]])),
        kills(1, of("checkpoints", &[&[Immediate, Checkpoint], &[Eventual, Checkpoint]])),
        kills(1, of("reader", &[&[Read, Read], &[Immediate, Eventual, Immediate]])),
        kills(1, free(0, of("growth", &[&[Immediate, Read], &[Immediate, Immediate]]))),
        kills(2, of("coming and going", &[&[Open(0), Immediate, Close], &[Open(0), Eventual, Close]])),
        kills(1, of("joining", &[&[Immediate, Large, Close], &[Open(0), Read, Close]])),
        kills(1, of("two paths", &[&[Immediate, Close], &[Open(1), Immediate, Open(1), Immediate]])),
        fails(of("failed flush", &[&[Immediate, Checkpoint], &[Immediate, Checkpoint]])),
        fails(of("failed flush, joining", &[&[Immediate, Large, Close], &[Open(0), Immediate, Checkpoint]])),
        fails(of("failed flush, opening", &[&[Open(0), Large, Close], &[Open(0), Immediate, Close]])),
    ]);
}

#[test]
fn three_processes_keep_the_rules_in_every_state() {
    hold(&[
        kills(1, of("commits", &[&[Immediate], &[Eventual], &[Large]])),
        kills(1, of("checkpoint, reader", &[&[Eventual, Immediate], &[Read], &[Checkpoint]])),
        kills(1, free(0, of("growth", &[&[Immediate], &[Large], &[Read]]))),
        kills(1, of("coming and going", &[&[Open(0), Immediate], &[Open(0), Close], &[Large, Close]])),
        fails(of("failed flush", &[&[Immediate], &[Eventual, Checkpoint], &[Open(0), Sync]])),
        kills(1, of("fork", &[&[ReadAndFork, Immediate], &[Child], &[Large, Immediate]])),
    ]);
}

/// The processes of each search below are chosen so that the rule matters.
#[test]
fn the_search_finds_each_condition_of_reclaim_that_is_left_out() {
    let pinned = of("pinned", &[&[Checkpoint], &[Immediate, Immediate, Immediate]]);
    let read = of("slot", &[&[Read], &[Immediate, Immediate, Immediate]]);
    found(Rule::SlotIgnored, &read, "R5");
    found(Rule::NotReread, &read, "R5");
    found(Rule::MetaIgnored, &of("meta", &[&[Immediate, Immediate, Immediate]]), "not on the disk");
    found(Rule::PinnedIgnored, &pinned, "not on the disk");
    found(Rule::PinNotReread, &pinned, "not on the disk");
    found(Rule::P15AndPinned, &pinned, "not on the disk");
    found(Rule::P7, &of("P7", &[&[Immediate], &[Unawaited, Unawaited], &[Read]]), "R5");
    found(Rule::PublishedReadLast, &of("order", &[&[Immediate, Unawaited, Unawaited], &[Sync], &[Read]]), "R5");
}

/// P15 is spare while `pinned` stands, which protects the same pages. Flushing again is spare while
/// each description is opened with the file: the kernel tells each of a failed write.
#[test]
fn two_rules_are_spare_by_themselves() {
    let doubt = kills(1, of("P15", &[&[Checkpoint, Checkpoint], &[Immediate, Immediate, Immediate]]));
    let again = fails(of("P18", &[&[Immediate, Large], &[Immediate, Sync]]));
    for (rule, scenario) in [(Rule::InDoubtIgnored, doubt), (Rule::NotFlushedAgain, again)] {
        assert!(Search::new(&scenario, Some(rule)).run().is_ok(), "{rule:?}");
    }
}

#[test]
fn the_search_finds_each_rule_of_reader_pages_that_is_left_out() {
    found(Rule::ClearedBeforeClaim, &free(1, of("claim", &[&[Read], &[Read], &[Large, Immediate]])), "R5");
    found(Rule::OwnerUntested, &free(1, of("owner", &[&[Read], &[Large, Immediate]])), "R5");
    let again = of("generation", &[&[Read], &[Large, Immediate], &[Open(0), Read]]);
    found(Rule::Generation, &only(1, kills(1, free(0, again))), "R5");
}

#[test]
fn the_search_finds_each_rule_of_coming_and_going_that_is_left_out() {
    found(Rule::P3, &of("P3", &[&[Immediate], &[Open(1), Immediate]]), "after a power cut");
    found(Rule::BindingNotHeld, &kills(1, of("P3", &[&[Immediate], &[Open(1), Immediate]])), "after a power cut");
    let closing = of("P4", &[&[Immediate, Close], &[Open(0), Read]]);
    found(Rule::OpensOutsideGate, &closing, "fault");
    found(Rule::ClosesOutsideGate, &closing, "fault");
    let cached = |scenario| Scenario { past_cache: false, ..scenario };
    let p20 = of("P20", &[&[Large, Close], &[Open(0)], &[Open(0), Immediate]]);
    hold(&[only(2, fails(cached(p20)))]);
    found(Rule::P20, &only(2, fails(cached(p20))), "after a power cut");
    found(Rule::ChildFreesSlot, &of("P22", &[&[ReadAndFork], &[Child], &[Immediate, Immediate, Immediate]]), "R5");
    found(
        Rule::ChildKeepsLocks,
        &kills(1, of("P22", &[&[ReadAndFork, Immediate], &[Child], &[Immediate]])),
        "for ever",
    );
}

#[test]
fn the_search_finds_each_rule_of_records_and_growth_that_is_left_out() {
    found(Rule::P5, &of("P5", &[&[Immediate], &[Read]]), "ring");
    found(Rule::TornCopy, &of("copy", &[&[Read], &[Immediate, Immediate, Immediate, Immediate]]), "ring");
    found(Rule::RingOverrun, &free(5, of("ring", &[&[Unawaited, Unawaited, Unawaited, Unawaited]])), "ring");
    found(Rule::P11, &free(1, of("P11", &[&[Immediate, Immediate], &[Checkpoint]])), "not on the disk");
    found(Rule::P17, &free(1, of("P17", &[&[Read], &[Immediate, Immediate]])), "P17");
    found(Rule::FileLengthTaken, &free(0, of("P17", &[&[Immediate], &[Immediate], &[Read]])), "P17");
}

#[test]
fn the_search_finds_each_rule_of_commits_that_is_left_out() {
    let lost = "after a power cut";
    found(Rule::P9, &kills(1, of("P9", &[&[Immediate, Immediate], &[Eventual, Immediate, Immediate]])), lost);
    found(Rule::P10, &of("P10", &[&[Immediate], &[Eventual]]), lost);
    found(Rule::P12, &of("P12", &[&[Immediate], &[Eventual]]), lost);
    found(Rule::P13, &kills(1, of("P13", &[&[Large], &[Immediate]])), lost);
    found(Rule::P18, &fails(of("P18", &[&[Immediate], &[Open(0), Immediate]])), lost);
    found(Rule::NotCompared, &fails(of("P18", &[&[Immediate], &[Open(0), Immediate]])), lost);
    found(Rule::LogOpenedLate, &fails(of("P18", &[&[Eventual, Checkpoint], &[Sync]])), lost);
    let even = of("P18", &[&[Unawaited, Large], &[Checkpoint], &[Open(0), Sync, Checkpoint]]);
    found(Rule::EvenWithoutFlush, &only(1, fails(even)), lost);
    found(Rule::P19, &only(0, fails(of("P19", &[&[Unawaited, Large, Sync, Sync]]))), lost);
}

/// Takes minutes.
#[test]
fn more_processes_keep_the_rules_in_every_state() {
    let long = std::env::var("MAPLEAF_LONG").ok().and_then(|long| long.parse().ok()).unwrap_or(1);
    if long < 2 {
        return;
    }
    hold(&[
        kills(2, of("commits", &[&[Immediate, Immediate], &[Eventual], &[Large]])),
        kills(2, free(0, of("growth", &[&[Immediate, Immediate], &[Immediate, Read]]))),
        kills(2, of("coming and going", &[&[Open(0), Immediate, Close], &[Open(0), Read, Close], &[Large, Close]])),
        kills(1, of("reader", &[&[Read], &[Immediate, Large], &[Open(0), Immediate, Close]])),
        fails(of("failed flush", &[&[Immediate], &[Large], &[Open(0), Immediate, Checkpoint]])),
        Scenario { kills: 2, ..fails(of("failed proof", &[&[Eventual, Large], &[Sync], &[Open(0), Sync]])) },
        Scenario {
            fails: 2,
            kills: 2,
            ..of("two failed flushes", &[&[Immediate, Large], &[Open(0), Sync, Checkpoint]])
        },
    ]);
}
