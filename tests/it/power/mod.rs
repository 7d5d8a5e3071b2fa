//! Power cuts: opens and judges the images that a disk may hold after a power cut, for seeded runs.
//!
//! Only flushed data is durable. Every page that was stored to since its last flush may hold any
//! content that it had since, whole or torn (`disk`, `image`). Each image is opened and judged
//! (`judge`). Runs contain creation, growth, large values, table drops, reuse of pages, aborts,
//! reopening, and crashes during recovery (`run`, `creation`); a disk may also lie about flushes.
//! `mutants` makes the database wrong on purpose; each of these mistakes must be found. An image
//! with a violation is shrunk and kept (`keep`), and each later run judges it again (`corpus`).
//! `docs/testing.md` has the commands.

mod beside;
mod corpus;
mod creation;
mod disk;
mod events;
mod image;
mod judge;
mod keep;
mod mutants;
mod recorder;
mod run;
mod setting;

use events::Events;
use image::{Tally, SECTOR, WORD};
use run::Run;
use setting::{Log, Mode, Setting};

use crate::support;
use crate::workload::{fast_dir, History};

/// Runs with seeds from `MAPLEAF_SEED` on until there are this many images, times `MAPLEAF_LONG`.
fn runs(test: &str, setting: Setting, images: u64, history: fn(u64) -> History) {
    let images = images * u64::from(support::long());
    let (mut seed, mut distinct, mut opened) = (support::seed(test), 0, 0);
    let mut events = Events::default();
    while distinct < images {
        let dir = fast_dir();
        let history = history(seed);
        let mut run = Run::new(setting, &history, dir.path());
        let found = run.all();
        found.unwrap_or_else(|e| panic!("{test}: after {distinct} images: {e}"));
        assert!(run.opened > 20 * setting.commits, "seed {seed}: only {} images", run.opened);
        events.add(&run.events);
        (distinct, opened, seed) = (distinct + run.distinct, opened + run.opened, seed.wrapping_add(1));
    }
    println!("{test}: {events:?}\n{}", events.log.told(test));
    if setting.mode == Mode::Power {
        assert!(events.reopened > 0 && events.aborts > 0 && events.kills > 0, "{events:?}");
        assert!(events.cuts_of_length > 0 && events.cuts_of_versions > 0, "{events:?}");
        assert!(events.overlaps > 0 || !setting.overlaps, "{events:?}");
        assert!((events.eventual > 0 && events.checkpoints > 0) || setting.overlaps, "{events:?}");
        assert!(events.crashes > 0 && events.crashes_twice > 0, "{events:?}");
    }
    if setting.mode == Mode::Lying {
        assert!(events.refused > 0 && events.newest > 0 && events.older > 0, "{events:?}");
    }
    told(test, setting.mode, distinct, opened);
}

/// Prints one line per test, with the counts of all tests of the process so far.
fn told(test: &str, mode: Mode, distinct: u64, opened: u64) {
    let what = if mode == Mode::Power { "power cut" } else { "lying disk" };
    let (all, all_opened) = Tally::of(mode).totals();
    println!(
        "{what}: {distinct} distinct images, {opened} opened, violations 0 ({test}); all tests so far: {all} distinct, \
         {all_opened} opened"
    );
}

#[test]
fn every_cut_leaves_a_committed_state_4k() {
    runs("every_cut_4k", Setting::power(4096), 6000, History::power);
}

#[test]
fn every_cut_leaves_a_committed_state_4k_torn_at_8_bytes() {
    runs("every_cut_4k_8_bytes", Setting { grain: WORD, ..Setting::power(4096) }, 5000, History::power);
}

#[test]
fn every_cut_leaves_a_committed_state_8k() {
    runs("every_cut_8k", Setting::power(8192), 4000, History::power);
}

#[test]
fn every_cut_leaves_a_committed_state_16k() {
    runs("every_cut_16k", Setting::power(16384), 2500, History::power);
}

#[test]
fn every_cut_leaves_a_committed_state_32k() {
    runs("every_cut_32k", Setting::power(32768), 2500, History::power);
}

/// Values up to 120 KB and transactions of 150 operations.
#[test]
fn every_cut_of_large_transactions_leaves_a_committed_state() {
    let setting = Setting { commits: 10, samples: 12, grain: SECTOR, ..Setting::power(4096) };
    runs("every_cut_large", setting, 3000, History::new);
}

/// A transaction ends while the one before is flushed, so that its pages reach the disk at any
/// time.
#[test]
fn every_cut_of_commits_that_overlap_leaves_a_committed_state() {
    let setting = Setting { overlaps: true, ..Setting::power(4096) };
    runs("every_cut_overlapping", setting, 2000, History::power);
}

/// Tables are loaded: pages are built in memory and written by `pwrite`, in one pass and in
/// several.
#[test]
fn every_cut_of_loads_leaves_a_committed_state() {
    runs("every_cut_loads", Setting { log: Log::Always, ..Setting::power(4096) }, 2500, History::loads);
}

#[test]
fn a_lying_disk_gives_a_refusal_or_an_older_commit() {
    let setting = Setting { mode: Mode::Lying, commits: 24, samples: 40, ..Setting::power(4096) };
    runs("lying_disk", setting, 3000, History::power);
}
