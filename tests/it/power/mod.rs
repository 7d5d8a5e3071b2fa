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
pub(crate) mod image;
mod judge;
mod keep;
mod mutants;
mod recorder;
mod run;
mod setting;
mod snapshots;
mod two;

use events::Events;
use image::{Tally, SECTOR, WORD};
use run::Run;
use setting::{Log, Mode, Often, Setting};

use crate::support;
use crate::workload::{fast_dir, History};

/// Runs with seeds from `MAPLEAF_SEED` on until there are this many images, times `MAPLEAF_LONG`,
/// and each kind of event has occurred, but not for more than four times as many images.
fn runs(test: &str, setting: Setting, images: u64, history: fn(u64) -> History) {
    let wanted = images * u64::from(support::long());
    let has_all = |events: &Events| {
        let kinds = [events.reopened, events.aborts, events.kills, events.crashes, events.crashes_twice];
        let without_overlaps = [events.eventual, events.checkpoints].iter().all(|&count| count > 0);
        kinds.iter().chain([&events.cuts_of_length, &events.cuts_of_versions]).all(|&count| count > 0)
            && if setting.overlaps { events.overlaps > 0 } else { without_overlaps }
            // One run in four makes no log.
            && events.log.distinct > images / 3
    };
    let is_power = setting.mode == Mode::Power;
    let events = run_until(test, setting, history, |distinct, events| {
        distinct >= wanted && (!is_power || has_all(events)) || distinct >= 4 * wanted
    });
    assert!(!is_power || has_all(&events), "{events:?}");
    if setting.mode == Mode::Lying {
        assert!(events.refused > 0 && events.newest > 0 && events.older > 0, "{events:?}");
    }
}

/// The same for images with a log, but not for more than eight times as many. Everything has to
/// occur that the setting is about.
fn runs_with_log(test: &str, setting: Setting, images: u64) {
    let images = images * u64::from(support::long());
    let missing = |events: &Events| {
        let log = if setting.flush_fails { events.log.missing_of_failed() } else { events.log.missing_of_log() };
        let two = if setting.two { events.missing_of_two() } else { None };
        log.or(two)
    };
    let events = run_until(test, setting, History::power, |_, events| {
        let distinct = events.log.distinct;
        distinct >= images && missing(events).is_none() || distinct >= 8 * images
    });
    if let Some(missing) = missing(&events) {
        panic!("{test}: {missing} in {} images: {events:?}", events.log.distinct);
    }
}

/// Runs with seeds from `MAPLEAF_SEED` on until there are enough distinct images.
fn run_until(
    test: &str,
    setting: Setting,
    history: fn(u64) -> History,
    is_enough: impl Fn(u64, &Events) -> bool,
) -> Events {
    let (mut seed, mut distinct, mut opened) = (support::seed(test), 0, 0);
    let mut events = Events::default();
    while !is_enough(distinct, &events) {
        let dir = fast_dir();
        let history = history(seed);
        let mut run = Run::new(setting, &history, dir.path());
        let found = run.all();
        found.unwrap_or_else(|e| panic!("{test}: after {distinct} images: {e}"));
        assert!(run.opened > 20 * setting.commits || setting.flush_fails, "seed {seed}: only {} images", run.opened);
        events.add(&run.events);
        (distinct, opened, seed) = (distinct + run.distinct, opened + run.opened, seed.wrapping_add(1));
    }
    println!("{test}: {events:?}\n{}", events.log.told(test));
    told(test, setting.mode, distinct, opened);
    events
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
    let setting = Setting { overlaps: true, log: Log::Always, ..Setting::power(4096) };
    runs("every_cut_overlapping", setting, 2000, History::power);
}

/// Tables are loaded: pages are built in memory and written by `pwrite`, in one pass and in
/// several.
#[test]
fn every_cut_of_loads_leaves_a_committed_state() {
    runs("every_cut_loads", Setting { log: Log::Always, ..Setting::power(4096) }, 4000, History::loads);
}

#[test]
fn every_cut_of_multimaps_leaves_a_committed_state() {
    runs("every_cut_multimaps", Setting { log: Log::Always, ..Setting::power(4096) }, 1500, History::pairs);
}

#[test]
fn every_cut_of_long_keys_leaves_a_committed_state() {
    let setting = Setting { log: Log::Always, ..Setting::power(4096) };
    runs("every_cut_long_keys", setting, 1500, History::long_keys);
}

/// Commits at both levels, by one thread and by several that wait together, with appends that fail
/// and checkpoints beside them.
#[test]
fn every_cut_of_mixed_commits_leaves_a_prefix_of_them_4k() {
    runs_with_log("mixed_4k", Setting { samples: 12, ..mutants::mixed(None) }, 4000);
}

#[test]
fn every_cut_of_mixed_commits_leaves_a_prefix_of_them_16k() {
    let setting = Setting { page_size: 16384, samples: 8, often: Often::Group, ..mutants::mixed(None) };
    runs_with_log("mixed_16k", setting, 3000);
}

#[test]
fn every_cut_of_mixed_commits_leaves_a_prefix_of_them_8k_torn_at_8_bytes() {
    let setting =
        Setting { page_size: 8192, samples: 12, grain: WORD, often: Often::OrphanRecord, ..mutants::mixed(None) };
    runs_with_log("mixed_8k_8_bytes", setting, 3000);
}

/// Pages of a checkpoint cannot be written while others commit, and flushes of meta pages fail:
/// nothing is acknowledged after that.
#[test]
fn every_cut_after_a_failed_flush_leaves_a_prefix_of_the_commits() {
    runs_with_log("failed_flushes", Setting { samples: 12, ..mutants::failing(None) }, 2500);
}

/// Two processes take turns to commit at both levels, wait for each other's flushes, make
/// checkpoints beside each other, follow each other's growth, leave and join.
#[test]
fn every_cut_of_two_processes_that_commit_in_turns_leaves_a_prefix_of_them_4k() {
    let setting = Setting { samples: 12, two: true, ..mutants::mixed(None) };
    runs_with_log("two_4k", setting, 2500);
}

#[test]
fn every_cut_of_two_processes_that_commit_in_turns_leaves_a_prefix_of_them_16k() {
    let setting = Setting { page_size: 16384, samples: 8, often: Often::Group, two: true, ..mutants::mixed(None) };
    runs_with_log("two_16k", setting, 2000);
}

/// Without a log each commit is by checkpoint.
#[test]
fn every_cut_of_two_processes_without_a_log_leaves_a_committed_state() {
    let setting = Setting { log: Log::Never, two: true, ..Setting::power(4096) };
    let images = 1500 * u64::from(support::long());
    let has_all = |events: &Events| {
        let kinds = [events.turns, events.joined, events.kills, events.crashes];
        kinds.iter().all(|&count| count > 0)
    };
    let events = run_until("two_without_log", setting, History::power, |distinct, events| {
        distinct >= images && has_all(events) || distinct >= 8 * images
    });
    assert!(has_all(&events), "{events:?}");
}

#[test]
fn a_lying_disk_gives_a_refusal_or_an_older_commit() {
    let setting = Setting { mode: Mode::Lying, commits: 24, samples: 40, ..Setting::power(4096) };
    runs("lying_disk", setting, 3000, History::power);
}
