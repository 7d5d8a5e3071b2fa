//! Power cuts: log and state machine at every flush, and what Raft needs of them afterwards.
//!
//! Two groups change their logs in one file at the same time; the first one also applies entries.
//! Before each flush of either file, and after each acknowledgement, a cut may leave many images of
//! both files. Each is opened and judged:
//!
//! - The log of each group holds what it held after some number of changes, all acknowledged ones
//!   among them: no vote is forgotten, no acknowledged entry is lost, no truncated one is back.
//! - The state holds each entry up to its position once, and none after it. It is as far as the
//!   last snapshot, and so far that the log continues it.
//! - The log replays the entries up to its committed index, and the state holds each of them once.
//!
//! Two mutants prove that the images find a log that acknowledges too early, and a state whose
//! position is not of the same transaction.

mod disk;
mod judge;
mod model;
mod run;

use run::{run, Setting, Tally};

use mapleaf_raft::testing::Mutant;

/// Images to judge; `MAPLEAF_LONG=20` judges 20 times as many.
const IMAGES: u64 = 1_000;

#[test]
fn after_a_power_cut_raft_permits_what_is_found() {
    let long = std::env::var("MAPLEAF_LONG").ok().map_or(1, |long| long.parse().expect("MAPLEAF_LONG is a number"));
    let (mut tally, mut seed) = (Tally::default(), 1);
    while tally.images < IMAGES * long || !tally.has_all() {
        assert!(seed < 50 * long, "not all kinds of events within {seed} runs: {tally:?}");
        run(Setting { seed, mutant: None }, &mut tally).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        seed += 1;
    }
    println!("{tally:?}, violations: 0");
}

#[test]
fn the_images_find_both_mutants() {
    for (mutant, expected) in
        [(Mutant::AcknowledgedBeforeFlush, "the log of group"), (Mutant::AppliedWithoutLastApplied, "the state at")]
    {
        let mut tally = Tally::default();
        let found = (1..20).find_map(|seed| run(Setting { seed, mutant: Some(mutant) }, &mut tally).err());
        let found = found.unwrap_or_else(|| panic!("{mutant:?} is not found by {tally:?}"));
        assert!(found.contains(expected), "{mutant:?}: {found}");
    }
}
