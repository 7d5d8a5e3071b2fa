//! The state that a commit leaves: everything that the next transaction or a reader needs to go on
//! from it (rule R12).
//!
//! Floor: txn. The ring `states` of the live records holds [`State`]s, and a meta page stores one.
//! A state converts to and from a fixed number of words, because the live records are arrays of
//! atomic words.
//!
//! Failure: none. The words come from this process, and `page::meta` checks meta pages.

use std::sync::Arc;

use crate::ids::{PageId, PagePtr, TreeId, TxnId};
use crate::page::meta::{ExtentPtr, LogDescriptor, MetaPage, TreeRoot};
use crate::pager::write::live_states::LiveStates;
use crate::txn::named::NamedStates;

/// Words of a state in a live record.
pub(crate) const STATE_WORDS: usize = 22;

/// A committed state of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct State {
    pub(crate) txn: TxnId,
    pub(crate) page_count: u64,
    pub(crate) catalog: TreeRoot,
    pub(crate) free_space: TreeRoot,
    /// The newest free-space records.
    pub(crate) free_list: ExtentPtr,
    pub(crate) next_tree: TreeId,
    /// The required features of this state: bits of `meta::features`, below 2^32.
    pub(crate) features: u64,
    /// The log, and where the first record after this state begins.
    pub(crate) log: LogDescriptor,
    /// The newest transaction up to this one that has to be durable before it is visible (P12).
    pub(crate) last_immediate: TxnId,
    /// Pages that transactions up to this one have superseded since the database was opened.
    pub(crate) superseded: u64,
    /// The tree of named snapshots. It changes only in commits by checkpoint.
    pub(crate) snapshots: TreeRoot,
}

impl State {
    /// The words of a live record.
    pub(crate) fn to_words(self) -> [u64; STATE_WORDS] {
        let mut words = [0; STATE_WORDS];
        words[0] = self.txn.0;
        words[1] = self.page_count;
        words[2..5].copy_from_slice(&root_words(&self.catalog));
        words[5..8].copy_from_slice(&root_words(&self.free_space));
        words[8] = self.free_list.ptr.id.0;
        words[9] = u64::from(self.free_list.ptr.crc);
        words[10] = self.free_list.pages;
        words[11] = u64::from(self.next_tree.0) | self.features << 32;
        words[12] = self.log.first.0;
        words[13] = self.log.pages;
        words[14] = self.log.epoch;
        words[15] = self.log.start;
        words[16] = u64::from(self.log.chain);
        words[17] = self.last_immediate.0;
        words[18] = self.superseded;
        words[19..22].copy_from_slice(&root_words(&self.snapshots));
        words
    }

    /// The state that [`to_words`](State::to_words) described.
    pub(crate) fn from_words(words: &[u64; STATE_WORDS]) -> State {
        State {
            txn: TxnId(words[0]),
            page_count: words[1],
            catalog: root_of([words[2], words[3], words[4]], TreeId::CATALOG),
            free_space: root_of([words[5], words[6], words[7]], TreeId::FREE_SPACE),
            free_list: ExtentPtr { ptr: PagePtr { id: PageId(words[8]), crc: words[9] as u32 }, pages: words[10] },
            next_tree: TreeId(words[11] as u32),
            features: words[11] >> 32,
            log: LogDescriptor {
                first: PageId(words[12]),
                pages: words[13],
                epoch: words[14],
                start: words[15],
                chain: words[16] as u32,
            },
            last_immediate: TxnId(words[17]),
            superseded: words[18],
            snapshots: root_of([words[19], words[20], words[21]], TreeId::SNAPSHOTS),
        }
    }

    /// The state that a meta page describes.
    pub(crate) fn from_meta(meta: &MetaPage) -> State {
        State {
            txn: meta.txn,
            page_count: meta.page_count,
            catalog: meta.catalog,
            free_space: meta.free_space,
            free_list: meta.free_list,
            next_tree: meta.next_tree,
            features: meta.required,
            log: meta.log,
            last_immediate: meta.txn,
            superseded: 0,
            snapshots: meta.snapshots,
        }
    }
}

/// The state that a write transaction builds on, and the states that bound its reuse of pages.
#[derive(Debug)]
pub(crate) struct Basis {
    /// The state that the transaction changes.
    pub(crate) latest: State,
    /// States whose pages the transaction must not reuse.
    pub(crate) live: LiveStates,
    /// The states of named snapshots, which are among those of `live`.
    pub(crate) named: Option<Arc<NamedStates>>,
}

fn root_words(root: &TreeRoot) -> [u64; 3] {
    [root.ptr.id.0 | u64::from(root.height) << 48, u64::from(root.ptr.crc), root.entries]
}

fn root_of(words: [u64; 3], tree: TreeId) -> TreeRoot {
    TreeRoot {
        ptr: PagePtr { id: PageId(words[0] & ((1 << 48) - 1)), crc: words[1] as u32 },
        height: (words[0] >> 48) as u8,
        entries: words[2],
        tree,
        ..TreeRoot::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_the_way_through_its_words() {
        let root = |tree, n: u64| TreeRoot {
            ptr: PagePtr { id: PageId((1 << 47) + n), crc: 0xdead_beef },
            height: 7,
            entries: u64::MAX - n,
            tree,
            ..TreeRoot::default()
        };
        let state = State {
            txn: TxnId(11),
            page_count: 1 << 40,
            catalog: root(TreeId::CATALOG, 1),
            free_space: root(TreeId::FREE_SPACE, 2),
            free_list: ExtentPtr { ptr: PagePtr { id: PageId(99), crc: 5 }, pages: 3 },
            next_tree: TreeId(77),
            features: u64::from(u32::MAX),
            log: LogDescriptor { first: PageId(2), pages: 3, epoch: 4, start: 5, chain: 6 },
            last_immediate: TxnId(9),
            superseded: 10,
            snapshots: root(TreeId::SNAPSHOTS, 3),
        };
        assert_eq!(State::from_words(&state.to_words()), state);
    }
}
