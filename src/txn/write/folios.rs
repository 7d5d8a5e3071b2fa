//! When a transaction looks for large folios in the page cache, and when it drops the cache.
//!
//! Floor: txn. Large folios make stores dirty more than their own pages. `txn.rs` acts on this.
//!
//! Failure: none.

use crate::sys::folios::Dirtied;

/// When to look next whether large folios in the page cache make stores dirty more than their own
/// pages.
#[derive(Debug)]
pub(super) struct FolioWatch {
    /// `None`: this transaction does not count yet what it dirties.
    pub(super) since: Option<Dirtied>,
    /// The number of pages of the transaction at which to look next.
    pub(super) next_pages: u64,
}

impl FolioWatch {
    /// Look first at 2 pages, then each time the transaction has `FACTOR` times as many.
    const FIRST_PAGES: u64 = 2;
    pub(super) const FACTOR: u64 = 8;
    /// Counting takes system calls. So only the first of this many transactions counts from its
    /// beginning, and the others if they get `LARGE_PAGES` pages.
    const ONE_OF: u64 = 8;
    const LARGE_PAGES: u64 = 64;

    /// For a transaction after so many that were committed. After one that counted and was aborted,
    /// the next one counts.
    pub(super) fn begin(committed: u64) -> FolioWatch {
        match committed % FolioWatch::ONE_OF {
            0 => FolioWatch { since: Some(Dirtied::until_now()), next_pages: FolioWatch::FIRST_PAGES },
            _ => FolioWatch { since: None, next_pages: FolioWatch::LARGE_PAGES },
        }
    }
}

/// When to drop the page cache again. While another process has its pages mapped and begins no
/// transaction, dropping it has no effect. So the pauses get longer.
#[derive(Debug, Default)]
pub(crate) struct FolioRepairs {
    /// Times that it was due.
    asked: u64,
    /// Times that it was dropped.
    made: u32,
}

impl FolioRepairs {
    /// The first repairs are made when they are due; after that, each when it was due twice as
    /// often as before.
    const UNPAUSED: u32 = 4;

    pub(super) fn is_due(&mut self) -> bool {
        self.asked += 1;
        let wanted = 1u64.checked_shl(self.made.saturating_sub(FolioRepairs::UNPAUSED)).unwrap_or(u64::MAX);
        let due = self.asked >= wanted;
        if due {
            (self.asked, self.made) = (0, (self.made + 1).min(16));
        }
        due
    }
}
