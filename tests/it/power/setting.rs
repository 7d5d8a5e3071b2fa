//! The parameters of runs: how the disk behaves, which logs there are, what is done wrong.

use mapleaf::testing::Mutant;

use super::image::SECTOR;
use crate::workload::History;

/// How the disk behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It keeps flushed data.
    Power,
    /// The newest writes may be missing, flushed or not.
    Lying,
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) page_size: usize,
    pub(super) commits: u64,
    /// Images per cut when there are too many choices to try all.
    pub(super) samples: usize,
    /// The disk's atomic unit.
    pub(super) grain: usize,
    pub(super) mode: Mode,
    pub(super) mutant: Option<Mutant>,
    /// Flushes that the recorder ignores.
    pub(super) deaf: u64,
    /// The length of the file is always durable.
    pub(super) keeps_length: bool,
    /// During some commits, others begin and end while the first flushes its record, and
    /// others end during checkpoints.
    pub(super) overlaps: bool,
    /// Half of the commits are `Eventual`, some appends fail, and `Db::sync` is called.
    pub(super) mixed: bool,
    /// What mixed runs do most often after a commit that is not durable.
    pub(super) often: Often,
    /// Some pages of a checkpoint cannot be written, and others commit meanwhile; or the flush of a
    /// meta page fails. The run ends there.
    pub(super) flush_fails: bool,
    /// When a commit log is made.
    pub(super) log: Log,
    /// Two processes have the file open, and take turns.
    pub(super) two: bool,
    pub(super) content: Content,
}

/// What the transactions of a run change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// Tables with short keys.
    Plain,
    /// Half of the operations change multimaps.
    Pairs,
    /// Half of the keys are long, and all values are short.
    LongKeys,
}

impl Content {
    pub(super) fn history(self, seed: u64) -> History {
        match self {
            Content::Plain => History::power(seed),
            Content::Pairs => History::pairs(seed),
            Content::LongKeys => History::long_keys(seed),
        }
    }
}

/// What a mixed run does most often after a commit that is not durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Often {
    Anything,
    /// An append fails when the whole record is written.
    OrphanRecord,
    /// Several threads commit while one of them flushes.
    Group,
}

/// When a commit log is made, and how large it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Log {
    /// By most seeds at the second commit, with few pages, so that it wraps around soon.
    BySeed,
    /// At the second commit.
    Always,
    Never,
}

impl Log {
    pub(super) fn shape(self, seed: u64, page_size: usize) -> Option<(u64, u64)> {
        const PAGES: [u64; 4] = [u64::MAX, 12, 20, 64];
        let pages = match self {
            Log::BySeed => PAGES[seed as usize % 4],
            Log::Always => PAGES[1 + seed as usize % 3],
            Log::Never => u64::MAX,
        };
        match pages {
            u64::MAX => Some((u64::MAX, 0)),
            pages => Some((1, pages * page_size as u64)),
        }
    }
}

/// Mutants that also affect the judge.
pub(super) const JUDGING: [Mutant; 6] = [
    Mutant::ShortChecksum,
    Mutant::PointerUnchecked,
    Mutant::StaleEpoch,
    Mutant::ChainUnchecked,
    Mutant::ValueTreeUnchecked,
    Mutant::LongKeyUnchecked,
];

impl Setting {
    pub(super) fn power(page_size: usize) -> Setting {
        Setting {
            page_size,
            commits: 16,
            samples: 24,
            grain: SECTOR,
            mode: Mode::Power,
            mutant: None,
            deaf: 0,
            keeps_length: false,
            overlaps: false,
            mixed: false,
            often: Often::Anything,
            flush_fails: false,
            log: Log::BySeed,
            two: false,
            content: Content::Plain,
        }
    }

    /// The mutant, if it also affects the judge.
    pub(super) fn judges_with(&self) -> Option<Mutant> {
        self.mutant.filter(|mutant| JUDGING.contains(mutant))
    }
}
