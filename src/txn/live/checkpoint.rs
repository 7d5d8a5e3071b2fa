//! The checkpoint record: the durable meta page, the pinned state, the meta page in doubt.
//!
//! Floor: txn. Converts to and from words of the live records.
//!
//! Failure: none.

use super::layout::CHECKPOINT_WORDS;
use crate::ids::TxnId;
use crate::txn::state::{State, STATE_WORDS};

/// The durable meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct DurableMeta {
    /// The slot that holds it.
    pub(crate) slot: usize,
    pub(crate) txn: TxnId,
    /// Position in the log where replay from this meta page starts.
    pub(crate) log_start: u64,
    /// Pages that its state and all states before it have superseded.
    pub(crate) superseded: u64,
}

impl DurableMeta {
    /// Describes the meta page of a state, in a slot.
    pub(crate) fn of(state: &State, slot: usize) -> DurableMeta {
        DurableMeta { slot, txn: state.txn, log_start: state.log.start, superseded: state.superseded }
    }
}

/// The word that says whether a meta page is in doubt.
pub(super) const IN_DOUBT: usize = 5;

/// The checkpoint record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    pub(crate) durable_meta: DurableMeta,
    /// The state that a checkpoint is making durable.
    pub(crate) pinned: Option<TxnId>,
    /// The slot and state of a meta page that is being written.
    pub(crate) in_doubt: Option<(usize, State)>,
}

impl Checkpoint {
    pub(super) fn to_words(self) -> [u64; CHECKPOINT_WORDS] {
        let mut words = [0; CHECKPOINT_WORDS];
        let meta = self.durable_meta;
        words[..4].copy_from_slice(&[meta.slot as u64, meta.txn.0, meta.log_start, meta.superseded]);
        words[4] = self.pinned.map_or(0, |txn| txn.0 + 1);
        if let Some((slot, state)) = self.in_doubt {
            words[IN_DOUBT] = slot as u64 + 1;
            words[6..].copy_from_slice(&state.to_words());
        }
        words
    }

    pub(super) fn from_words(words: &[u64; CHECKPOINT_WORDS]) -> Checkpoint {
        let mut state = [0; STATE_WORDS];
        state.copy_from_slice(&words[6..]);
        Checkpoint {
            durable_meta: DurableMeta {
                slot: words[0] as usize & 1,
                txn: TxnId(words[1]),
                log_start: words[2],
                superseded: words[3],
            },
            pinned: words[4].checked_sub(1).map(TxnId),
            in_doubt: words[IN_DOUBT].checked_sub(1).map(|slot| (slot as usize & 1, State::from_words(&state))),
        }
    }
}
