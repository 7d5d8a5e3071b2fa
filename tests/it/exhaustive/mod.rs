//! An exhaustive search over the schedules of a few agents, each a thread that runs the code of the
//! crate.
//!
//! One agent runs at a time. At each moment between two steps of the protocol (`testing::Moment`,
//! and the beginning and end of each flush), the search decides which one goes on. It visits all
//! schedules, depth first, each from the beginning, and turns back where a state is known. In each
//! state it cuts the power: every image that the disk may hold is opened and judged. Agents share
//! an environment, or each has one of its own, as processes have.
//!
//! ```text
//! schedule  one thread runs at a time; stops
//! agents    what agents do
//! book      what was committed and promised
//! disk    what the page cache shows and the disk may hold
//! judge     opens images
//! search    visits the states
//! stopped   a committer stops at each event, and another environment goes on
//! ```

mod agents;
mod book;
mod disk;
mod judge;
mod schedule;
mod search;
mod stopped;

use mapleaf::testing::Mutant;

use crate::support;
use agents::Operation::{self, *};
use search::{Scenario, Search};

/// The first commit makes the log. The second one has pages that only the log makes durable.
const BEFORE: &[Operation] = &[Immediate, Immediate];

/// All schedules of some agents.
const fn all(name: &'static str, agents: &'static [&'static [Operation]]) -> Scenario {
    let (sole, processes) = (false, false);
    Scenario { name, before: BEFORE, agents, log_bytes: 16 << 10, sole, processes, stops: 0, preemptions: u8::MAX }
}

/// The same; one agent may stop at any step.
const fn stopping(name: &'static str, agents: &'static [&'static [Operation]]) -> Scenario {
    Scenario { stops: 1, ..all(name, agents) }
}

/// The schedules in which agents that can go on wait for others at most so often.
const fn bounded(preemptions: u8, scenario: Scenario) -> Scenario {
    Scenario { preemptions, ..scenario }
}

/// The same; agents make sole commits when they can.
const fn sole(scenario: Scenario) -> Scenario {
    Scenario { sole: true, ..scenario }
}

/// The same; each agent is a process of its own: an environment with mappings, descriptors and
/// locks of its own, which shares the file and the lock file.
const fn shared(scenario: Scenario) -> Scenario {
    Scenario { processes: true, ..scenario }
}

/// Visits all states of scenarios; none breaks a rule.
fn hold(scenarios: &[Scenario]) {
    for &scenario in scenarios {
        let mut search = Search::new(scenario, None);
        search.run(usize::MAX).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn two_agents_keep_the_rules_in_every_state() {
    hold(&[
        all("two commits", &[&[Immediate], &[Immediate]]),
        all("three commits", &[&[Immediate, Immediate], &[Immediate]]),
        all("levels", &[&[Immediate, Eventual], &[Eventual, Immediate]]),
        all("by checkpoint", &[&[Immediate], &[Large]]),
        all("checkpoint", &[&[Immediate, Eventual], &[Checkpoint]]),
        all("failed append", &[&[FailsToAppend], &[Immediate]]),
        all("abort", &[&[Abort, Immediate], &[Immediate]]),
        all("reader", &[&[Immediate, Immediate], &[Read]]),
        all("failed flush", &[&[FailsToFlush, Immediate], &[Immediate, Immediate]]),
    ]);
}

#[test]
fn the_rules_hold_when_one_of_two_agents_stops() {
    hold(&[
        stopping("two commits", &[&[Immediate], &[Immediate]]),
        stopping("levels", &[&[Immediate], &[Eventual]]),
        stopping("by checkpoint", &[&[Large], &[Immediate]]),
        stopping("checkpoints", &[&[Immediate, Checkpoint], &[Eventual, Checkpoint]]),
        stopping("failed append", &[&[FailsToAppend], &[Immediate]]),
        ORPHAN,
    ]);
}

#[test]
fn three_agents_keep_the_rules_in_every_state() {
    hold(&[
        bounded(2, all("three commits", &[&[Immediate], &[Immediate], &[Immediate]])),
        bounded(2, all("reader, checkpoint", &[&[Immediate, Eventual], &[Read], &[Checkpoint]])),
        bounded(2, all("leader, checkpoint", &[&[Eventual, Unawaited], &[Sync], &[Checkpoint]])),
        bounded(2, all("all levels", &[&[Immediate], &[Eventual], &[Large]])),
    ]);
}

#[test]
fn the_rules_hold_when_agents_of_three_stop() {
    hold(&[
        bounded(1, stopping("three commits", &[&[Immediate], &[Eventual], &[Immediate]])),
        bounded(1, stopping("reader", &[&[Immediate, Immediate], &[Read], &[Large]])),
        bounded(1, Scenario { stops: 2, ..all("two stop", &[&[Large], &[Checkpoint], &[Immediate]]) }),
    ]);
}

#[test]
fn the_rules_hold_with_sole_commits() {
    hold(&[
        sole(all("sole", &[&[Immediate, Immediate], &[Immediate]])),
        sole(all("sole, levels", &[&[Eventual, Immediate], &[Immediate, Eventual]])),
        sole(all("sole, checkpoint", &[&[Immediate, Immediate], &[Checkpoint]])),
        sole(all("sole, by checkpoint", &[&[Immediate], &[Large, Immediate]])),
        sole(all("sole, failed append", &[&[FailsToAppend], &[Immediate]])),
        sole(all("sole, failed flush", &[&[FailsToFlush, Immediate], &[Immediate]])),
        sole(all("sole, reader", &[&[Immediate, Immediate], &[Read]])),
        sole(stopping("sole", &[&[Immediate], &[Immediate, Immediate]])),
        sole(stopping("sole, levels", &[&[Immediate], &[Eventual, Immediate]])),
        sole(stopping("sole, checkpoint", &[&[Immediate], &[Checkpoint, Immediate]])),
        sole(bounded(2, all("sole, three", &[&[Immediate], &[Eventual], &[Immediate, Checkpoint]]))),
    ]);
}

#[test]
fn two_processes_keep_the_rules_in_every_state() {
    hold(&[shared(all("two commits", &[&[Immediate], &[Immediate]]))]);
}

/// Takes minutes.
#[test]
fn more_agents_keep_the_rules_in_every_state() {
    if support::long() == 1 {
        return;
    }
    hold(&[
        bounded(4, all("three commits", &[&[Immediate], &[Immediate], &[Immediate]])),
        bounded(3, stopping("levels", &[&[Immediate], &[Eventual], &[Large]])),
        bounded(2, Scenario { stops: 2, ..all("two stop", &[&[Large], &[Checkpoint], &[Immediate]]) }),
        bounded(2, all("five agents", &[&[Immediate], &[Eventual], &[Read], &[Sync], &[Checkpoint]])),
        bounded(2, all("failures", &[&[FailsToAppend], &[FailsToFlush], &[Immediate, Abort]])),
    ]);
}

/// The first violation that a search finds with a mutant.
fn found(mutant: Mutant, scenario: Scenario) -> String {
    let mut search = Search::new(scenario, Some(mutant));
    let found = search.run(usize::MAX);
    println!("{mutant:?}: {:?}: {found:?}", search.counts);
    found.expect_err("a violation")
}

/// The record of a committer that stops may stand in a page that another one closes.
const ORPHAN: Scenario = stopping("orphan", &[&[Immediate], &[Eventual, Sync, Immediate]]);

const TWO: Scenario = all("two commits", &[&[Immediate], &[Immediate]]);

#[test]
fn a_thread_that_locks_the_flush_lock_again_at_once_starves_no_waiter() {
    let scenario = all("starvation", &[&[Immediate], &[Immediate, Immediate]]);
    hold(&[scenario]);
    assert!(found(Mutant::WaitsForFlushLock, scenario).contains("cannot go on"));
}

#[test]
fn a_search_finds_each_rule_that_is_left_out() {
    let ring = Scenario { before: &[Unawaited; 61], log_bytes: 64 << 10, ..all("ring", &[&[Unawaited; 4], &[Read]]) };
    let full = Scenario { before: &[Immediate; 4], ..all("log space", &[&[Immediate, Immediate], &[Immediate]]) };
    let failing = all("failed append", &[&[FailsToAppend], &[Immediate]]);
    let mutants = [
        (Mutant::NamedBeforeWhole, stopping("P5", &[&[Checkpoint], &[Immediate, Checkpoint]]), "both meta pages"),
        (Mutant::RingOverrun, ring, "ring has lost"),
        (Mutant::UnpublishedReused, all("P7", &[&[Unawaited, Unawaited, Unawaited], &[Read]]), "R5"),
        (Mutant::FlushedPageRewritten, TWO, "power cut"),
        (Mutant::AppenderNotAwaited, TWO, "power cut"),
        (Mutant::PoisonForgotten, all("R9", &[&[FailsToFlush], &[Immediate]]), "acknowledged"),
        (Mutant::OrphanStays, ORPHAN, "acknowledged"),
        (Mutant::PublishedEarly, TWO, "shown"),
        (Mutant::AcknowledgedEarly, TWO, "acknowledged"),
        (Mutant::LastImmediateIgnored, all("P12", &[&[Immediate], &[Eventual]]), "shown"),
        (Mutant::MetaUnfinished, stopping("P13", &[&[Large], &[Immediate]]), "acknowledged"),
        (Mutant::EpochByRecord, failing, "acknowledged"),
        (Mutant::UnpinnedEarly, all("P15", &[&[Eventual, Eventual, Eventual], &[Checkpoint]]), "checksum"),
        (Mutant::PinNotReread, all("pin", &[&[Eventual, Eventual, Eventual], &[Checkpoint]]), "checksum"),
        (Mutant::DurableBeforeFlush, all("P10", &[&[Eventual, Sync], &[Checkpoint]]), "power cut"),
        (Mutant::MetaBeforeData, all("R7", &[&[Eventual], &[Checkpoint]]), "checksum"),
        (Mutant::LogSpaceIgnored, full, "the commit log ends"),
        (Mutant::SoleAfterUnflushed, sole(all("sole", &[&[Eventual, Immediate]])), "power cut"),
    ];
    for (mutant, scenario, says) in mutants {
        let violation = found(mutant, scenario);
        assert!(violation.contains(says), "{mutant:?}: {violation}");
    }
}
