//! Tests the power cut tests: they must find each deliberate mistake within few images, and nothing
//! without a mistake.

use mapleaf::testing::Mutant;

use super::image::SECTOR;
use super::recorder::Recorder;
use super::run::{Run, Start};
use super::setting::{Content, Log, Mode, Often, Setting};
use crate::workload::{fast_dir, History};

/// A mutant must be found within this many images.
pub(super) const WITHIN: u64 = 2000;

/// The seed of the first run: `MAPLEAF_SEED`, else always the same.
fn first_seed() -> u64 {
    std::env::var("MAPLEAF_SEED").map_or(0, |seed| seed.parse().expect("MAPLEAF_SEED is a number"))
}

/// Runs with a setting until there is a violation. Returns the number of images and the violation.
fn hunt(setting: Setting) -> (u64, Option<String>) {
    hunt_within(setting, WITHIN)
}

/// The same with another bound on images.
fn hunt_within(setting: Setting, within: u64) -> (u64, Option<String>) {
    let mut images = 0;
    for seed in first_seed().. {
        let dir = fast_dir();
        let history = setting.content.history(seed);
        let mut run = Run::new(setting, &history, dir.path());
        run.limit = within - images;
        let found = run.all();
        images += run.opened;
        if found.is_err() || images >= within {
            return (images, found.err());
        }
    }
    unreachable!("there is always a next seed")
}

fn setting(mode: Mode, mutant: Option<Mutant>) -> Setting {
    Setting { mode, mutant, ..Setting::power(4096) }
}

/// Finds a mutant. Prints the violation, which must be due to the mutant.
fn found(mode: Mode, mutant: Mutant) -> String {
    found_with(setting(mode, Some(mutant)))
}

fn found_with(setting: Setting) -> String {
    let (mutant, mode) = (setting.mutant.expect("a mutant"), setting.mode);
    let (images, said) = hunt(setting);
    println!("mutant {mutant:?}: found after {images} images ({mode:?}): {said:?}");
    let said = said.unwrap_or_else(|| panic!("{mutant:?} was not found in {images} images"));
    assert!(said.contains("shrunk to"), "an image shows it, not the run itself: {said}");
    said
}

/// Without the flush of pages, the length is not durable either, and the test would notice that
/// first. Here the length is always durable, so that the test must notice the pages.
fn by_pages(mutant: Mutant) -> Setting {
    Setting { keeps_length: true, ..setting(Mode::Power, Some(mutant)) }
}

#[test]
fn a_checkpoint_without_the_flush_of_its_pages_is_caught() {
    let said = found_with(by_pages(Mutant::NoPageFlush));
    assert!(said.contains("checksum mismatch"), "{said}");
}

#[test]
fn a_checkpoint_without_the_flush_of_its_meta_is_caught() {
    let said = found(Mode::Power, Mutant::NoMetaFlush);
    assert!(said.contains("acknowledged"), "{said}");
}

#[test]
fn a_meta_written_before_its_pages_is_caught() {
    let said = found_with(by_pages(Mutant::MetaFirst));
    assert!(said.contains("checksum mismatch"), "{said}");
}

#[test]
fn a_meta_written_over_the_durable_one_is_caught() {
    found(Mode::Power, Mutant::SameSlot);
}

#[test]
fn a_page_reused_one_transaction_early_is_caught() {
    let said = found(Mode::Power, Mutant::EarlyReuse);
    assert!(said.contains("checksum mismatch"), "{said}");
}

/// The state of the durable meta page still needs pages that newer ones do not: replay begins
/// there.
#[test]
fn a_page_reused_that_the_durable_meta_page_needs_is_caught() {
    let said = found_with(Setting { log: Log::Always, ..setting(Mode::Power, Some(Mutant::EarlyReclaim)) });
    assert!(said.contains("checksum mismatch"), "{said}");
}

#[test]
fn a_flush_without_the_length_is_caught() {
    found(Mode::Power, Mutant::NoLengthFlush);
}

/// The control of these three is that of all.
#[test]
fn a_savepoint_that_keeps_the_tail_of_the_record_is_caught() {
    let said = found_with(logged(Mutant::RecordNotRolledBack));
    assert!(said.contains("txn"), "{said}");
}

#[test]
fn a_rollback_that_forgets_which_pages_were_allocated_is_caught() {
    let said = found(Mode::Power, Mutant::TakenNotRolledBack);
    assert!(said.contains("neither in use nor free"), "{said}");
}

#[test]
fn a_rollback_that_leaves_pages_freed_is_caught() {
    let said = found(Mode::Power, Mutant::FreedNotRolledBack);
    let damage = ["used twice", "both in use and free", "overlaps another free extent", "checksum"];
    assert!(damage.iter().any(|what| said.contains(what)), "{said}");
}

fn logged(mutant: Mutant) -> Setting {
    Setting { log: Log::Always, ..setting(Mode::Power, Some(mutant)) }
}

/// Half of the operations change multimaps.
fn pairs(mutant: Option<Mutant>) -> Setting {
    Setting { content: Content::Pairs, ..setting(Mode::Power, mutant) }
}

/// The run itself meets the pages without a checksum, before or after an image shows them.
#[test]
fn a_value_tree_forgotten_in_seal_is_caught() {
    let (images, said) = hunt(pairs(Some(Mutant::ValueTreeUnsealed)));
    println!("found after {images} images: {said:?}");
    assert!(said.is_some_and(|said| said.contains("checksum")), "not found in {images} images");
}

#[test]
fn a_value_tree_forgotten_in_check_is_caught() {
    let said = found_with(pairs(Some(Mutant::ValueTreeUnchecked)));
    assert!(said.contains("neither in use nor free"), "{said}");
}

#[test]
fn a_value_tree_forgotten_in_free_is_caught() {
    let said = found_with(pairs(Some(Mutant::ValueTreeNotFreed)));
    assert!(said.contains("neither in use nor free"), "{said}");
}

/// Half of the keys are long.
fn long_keys(mode: Mode, mutant: Option<Mutant>) -> Setting {
    Setting { content: Content::LongKeys, ..setting(mode, mutant) }
}

/// On an honest disk every extent of a durable state is whole. A lying disk loses the pages of an
/// extent after the first, which hold the tail of a key.
#[test]
fn an_unchecked_tail_of_a_long_key_is_caught_on_a_lying_disk() {
    let said = found_with(long_keys(Mode::Lying, Some(Mutant::LongKeyUnchecked)));
    assert!(said.contains("wrong entry") || said.contains("wrong value"), "{said}");
}

/// The extent belongs to an entry, or to a separator of a branch.
#[test]
fn an_extent_of_a_long_key_that_is_not_freed_is_caught() {
    let said = found_with(long_keys(Mode::Power, Some(Mutant::LongKeyNotFreed)));
    assert!(said.contains("neither in use nor free"), "{said}");
}

/// Commits of several threads at both levels, failed appends, and commits beside checkpoints. Few
/// images of each cut, so that there are many commits.
pub(super) fn mixed(mutant: Option<Mutant>) -> Setting {
    Setting { log: Log::Always, overlaps: true, mixed: true, samples: 4, ..setting(Mode::Power, mutant) }
}

/// Records of an earlier epoch, written after one that was lost, lie where the new epoch begins.
#[test]
fn records_of_an_earlier_epoch_that_are_accepted_are_caught() {
    let setting = Setting { page_size: 16384, often: Often::Group, ..mixed(Some(Mutant::StaleEpoch)) };
    let said = found_with(setting);
    assert!(said.contains("after a kill"), "{said}");
}

/// Only where an epoch number is used twice does the chain decide: a lying disk loses the meta page
/// of an epoch and keeps its records, and the next recovery begins an epoch with that number.
#[test]
fn records_that_chain_on_anything_are_caught_on_a_lying_disk() {
    let lying = Setting { mode: Mode::Lying, overlaps: false, samples: 6, ..mixed(Some(Mutant::ChainUnchecked)) };
    let said = found_with(lying);
    assert!(said.contains("after a kill"), "{said}");
}

#[test]
fn a_record_of_an_aborted_transaction_that_stays_is_caught() {
    found_with(Setting { often: Often::OrphanRecord, ..mixed(Some(Mutant::OrphanAborted)) });
}

#[test]
fn an_eventual_commit_that_shows_an_immediate_one_too_early_is_caught() {
    let said = found_with(mixed(Some(Mutant::LastImmediateIgnored)));
    assert!(said.contains("acknowledged"), "{said}");
}

#[test]
fn a_log_that_changes_beside_writers_is_caught() {
    let said = found_with(mixed(Some(Mutant::LogChangedBesideWriters)));
    assert!(said.contains("acknowledged"), "{said}");
}

#[test]
fn a_state_published_before_it_is_durable_is_caught() {
    let said = found_with(mixed(Some(Mutant::PublishedEarly)));
    assert!(said.contains("acknowledged"), "{said}");
}

/// Flushes of pages and of meta pages fail.
pub(super) fn failing(mutant: Option<Mutant>) -> Setting {
    Setting { flush_fails: true, ..mixed(mutant) }
}

/// The flush of the log takes the error that a checkpoint has to see.
#[test]
fn a_log_on_the_file_description_of_the_checkpoint_is_caught() {
    found_with(failing(Some(Mutant::OneDescription)));
}

#[test]
fn a_meta_page_whose_log_starts_one_record_late_is_caught() {
    found_with(Setting { page_size: 16384, ..mixed(Some(Mutant::LogStartLate)) });
}

/// The meta page of a commit that failed has the txn of a record that is appended after it, and
/// reaches pages that the next transaction takes.
#[test]
fn a_newer_meta_page_that_is_left_unfinished_is_caught() {
    found_with(failing(Some(Mutant::NewerMetaUnfinished)));
}

#[test]
fn a_commit_acknowledged_before_its_record_is_flushed_is_caught() {
    let said = found_with(logged(Mutant::AcknowledgedEarly));
    assert!(said.contains("acknowledged"), "{said}");
}

#[test]
fn a_record_written_into_a_flushed_page_is_caught() {
    let groups = Setting { page_size: 16384, often: Often::Group, ..mixed(None) };
    found_with(Setting { mutant: Some(Mutant::FlushedPageRewritten), ..groups });
}

#[test]
fn a_meta_page_that_does_not_wait_for_its_pages_beside_a_writer_is_caught() {
    let said = found_with(Setting { keeps_length: true, ..mixed(Some(Mutant::MetaBeforeData)) });
    assert!(said.contains("checksum mismatch"), "{said}");
}

/// One process publishes what another one has not flushed.
#[test]
fn a_state_published_before_it_is_durable_is_caught_with_two_processes() {
    let said = found_with(Setting { two: true, ..mixed(Some(Mutant::PublishedEarly)) });
    assert!(said.contains("acknowledged"), "{said}");
}

/// Every page of a durable state is whole, so a power cut on an honest disk cannot show this
/// mistake. A lying disk can.
#[test]
fn a_checksum_one_byte_short_is_caught_on_a_lying_disk() {
    found(Mode::Lying, Mutant::ShortChecksum);
}

/// A power cut on an honest disk never leaves an older page where a newer one was flushed. A lying
/// disk does.
#[test]
fn an_unchecked_pointer_is_caught_on_a_lying_disk() {
    found(Mode::Lying, Mutant::PointerUnchecked);
}

/// Data that a killed process left in the page cache must be durable before a commit builds on it.
/// Few images have a kill after which such data matter, so this search may take four times as many.
#[test]
fn an_opening_without_a_flush_is_caught() {
    let (images, said) = hunt_within(Setting { deaf: 1, ..setting(Mode::Power, None) }, 4 * WITHIN);
    println!("an opening without a flush: found after {images} images: {said:?}");
    assert!(said.is_some(), "not found in {images} images");
}

/// The control: right runs of the same length as the mutants', in both modes.
#[test]
fn without_a_mutant_nothing_is_caught() {
    for mode in [Mode::Power, Mode::Lying] {
        assert_eq!(hunt(setting(mode, None)), (WITHIN, None));
        assert_eq!(hunt(long_keys(mode, None)), (WITHIN, None));
    }
    for log in [Log::Always, Log::Never] {
        assert_eq!(hunt(Setting { overlaps: true, log, ..setting(Mode::Power, None) }), (WITHIN, None));
        assert_eq!(hunt(Setting { overlaps: true, log, ..pairs(None) }), (WITHIN, None));
    }
    let mixed_often = |often| Setting { page_size: 16384, often, ..mixed(None) };
    let lying = Setting { mode: Mode::Lying, overlaps: false, samples: 6, ..mixed(None) };
    let two = Setting { two: true, ..mixed_often(Often::Group) };
    for setting in [mixed_often(Often::Group), mixed_often(Often::OrphanRecord), failing(None), lying, two] {
        assert_eq!(hunt(setting), (WITHIN, None));
    }
}

/// The meta page of the newest state was written and not flushed when the process was killed. The
/// next process sees it in the page cache. If the power goes while it commits, the disk may hold
/// the older meta page: its pages must be whole.
#[test]
fn opening_makes_a_state_durable_before_commits_build_on_it() {
    for seed in 0..6 {
        let dir = fast_dir();
        let history = History::power(seed);
        let mut run =
            Run::new(Setting { grain: SECTOR, log: Log::Never, ..Setting::power(4096) }, &history, dir.path());
        let start = run.start();
        let path = run.path();
        super::image::Image::write(&super::run::fresh(4096), &path);
        let recorder = Recorder::new(&path, start.disk, 0);
        let db = run.open(&path, &recorder).expect("open");
        for _ in 0..12 {
            history.commit_next(&db).expect("commit");
        }
        let acknowledged = history.judge(&db).expect("judge") - 1;
        let killed = recorder.take_cuts().into_iter().rfind(|cut| cut.meta_flush).expect("a flush of a meta page");
        let start = Start { disk: killed.disk(), acknowledged };
        run.lineage(start, 3, 0).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}
