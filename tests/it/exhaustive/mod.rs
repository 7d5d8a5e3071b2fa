//! An exhaustive search over the schedules of a few agents, each a thread that runs the code of the
//! crate.
//!
//! One agent runs at a time. At each moment between two steps of the protocol (`testing::Moment`,
//! and the beginning and end of each flush), the search decides which one goes on. It visits all
//! schedules, depth first, each from the beginning, and turns back where a state is known. In each
//! state it cuts the power: every image that the disk may hold is opened and judged.
//!
//! ```text
//! schedule  one thread runs at a time; stops
//! agents    what agents do
//! book      what was committed and promised
//! disk    what the page cache shows and the disk may hold
//! judge     opens images
//! search    visits the states
//! ```

mod agents;
mod book;
mod disk;
mod judge;
mod schedule;
mod search;

use mapleaf::testing::Mutant;

use agents::Operation::{self, *};
use search::{Scenario, Search};

const TWO: Scenario = Scenario {
    name: "two immediate commits",
    before: &[Immediate],
    agents: &[&[Immediate], &[Immediate]],
    stops: 0,
    preemptions: u8::MAX,
};

/// Visits all states of a scenario; none breaks a rule.
fn holds(name: &'static str, agents: &'static [&'static [Operation]], preemptions: u8) {
    let mut search = Search::new(Scenario { name, agents, preemptions, ..TWO }, None);
    search.run(usize::MAX).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn two_agents_keep_the_rules_in_every_state() {
    holds("two commits", &[&[Immediate], &[Immediate]], u8::MAX);
    holds("three commits", &[&[Immediate, Immediate], &[Immediate]], u8::MAX);
    holds("levels", &[&[Immediate], &[Eventual]], u8::MAX);
    holds("levels 2", &[&[Immediate, Eventual], &[Eventual, Immediate]], u8::MAX);
    holds("by checkpoint", &[&[Immediate], &[Large]], u8::MAX);
    holds("checkpoint", &[&[Immediate, Eventual], &[Checkpoint]], u8::MAX);
    holds("failed append", &[&[FailsToAppend], &[Immediate]], u8::MAX);
    holds("abort", &[&[Abort, Immediate], &[Immediate]], u8::MAX);
    holds("reader", &[&[Immediate, Immediate], &[Read]], u8::MAX);
}

#[test]
fn three_agents_keep_the_rules_in_every_state() {
    holds("three commits 0", &[&[Immediate], &[Immediate], &[Immediate]], 0);
    holds("three commits 1", &[&[Immediate], &[Immediate], &[Immediate]], 1);
    holds("three commits 2", &[&[Immediate], &[Immediate], &[Immediate]], 2);
    holds("reader checkpoint 2", &[&[Immediate, Eventual], &[Read], &[Checkpoint]], 2);
    holds("sync 2", &[&[Eventual, Unawaited], &[Sync], &[Checkpoint]], 2);
}

/// The first violation that a search finds with a mutant.
fn found(scenario: Scenario, mutant: Mutant) -> String {
    let mut search = Search::new(scenario, Some(mutant));
    let found = search.run(usize::MAX);
    println!("{mutant:?}: {:?}: {found:?}", search.counts);
    found.expect_err("a violation")
}

#[test]
fn a_commit_acknowledged_before_its_flush_is_found() {
    assert!(found(TWO, Mutant::AcknowledgedEarly).contains("acknowledged"));
}

#[test]
fn a_record_in_a_page_whose_flush_has_begun_is_found() {
    assert!(found(TWO, Mutant::FlushedPageRewritten).contains("after a power cut"));
}
