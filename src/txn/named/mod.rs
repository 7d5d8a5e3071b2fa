//! Named snapshots: states that stay readable under a name until they are dropped.
//!
//! Floor: txn. A record in the tree of named snapshots (`catalog::snapshots`) has the txn and the
//! catalog of the state that it keeps. The root of that tree is part of the state, and it changes
//! only in commits by checkpoint: the commit log says nothing of it.
//!
//! ```text
//! mod      the states that named snapshots keep (R5)
//! change   creates and drops
//! restore  makes the state of a snapshot the newest one
//! open     begins to read a snapshot
//! ```
//!
//! A snapshot keeps the pages of its state as a reader does: the writer counts its txn as needed
//! (`Env::live_states`), so a page with born <= txn < freed stays pending. Of the state, only the
//! catalog and the tables are ever read again.
//!
//! Invariants:
//!   STATES-1  a transaction counts the snapshots of the state that it builds on, also those that
//!           another process has created.
//!   STATES-2  while a record cannot be read, no pending page is used again.
//!
//! Failure: `Usage` for a name that is taken or missing; `Corrupt` for a damaged record.

mod change;
mod open;
mod restore;

use std::sync::Arc;

use crate::catalog::snapshots;
use crate::ids::TxnId;
use crate::page::meta::TreeRoot;
use crate::pager::PageRead;
use crate::txn::env::{Env, Writer};
use crate::txn::state::{Basis, State};

/// The states that named snapshots keep.
#[derive(Debug, Default)]
pub(crate) struct NamedStates {
    pub(crate) txns: Vec<TxnId>,
    /// Whether these are all: not if a record cannot be read.
    pub(crate) are_all: bool,
}

impl NamedStates {
    fn read<P: PageRead>(pages: &P, root: &TreeRoot, holder: TxnId) -> NamedStates {
        let Ok(records) = snapshots::list(pages, root, holder) else { return NamedStates::default() };
        let are_all = records.iter().all(|(_, record)| record.is_ok());
        NamedStates { txns: records.iter().flat_map(|(_, record)| record).map(|record| record.txn).collect(), are_all }
    }
}

/// The states that the snapshots of one tree keep.
#[derive(Debug, Default)]
pub(crate) struct NamedCache {
    root: TreeRoot,
    states: Option<Arc<NamedStates>>,
}

impl Writer {
    /// The basis of a transaction on a state. The transaction has begun on its pages.
    pub(crate) fn basis_of(&mut self, env: &Env, latest: State) -> Basis {
        if self.named.root != latest.snapshots {
            let states = match latest.snapshots.height {
                0 => None,
                _ => Some(Arc::new(NamedStates::read(&self.pages, &latest.snapshots, latest.txn))),
            };
            self.named = NamedCache { root: latest.snapshots, states };
        }
        let named = self.named.states.clone();
        Basis { latest, live: env.live_states(named.as_deref()), named }
    }
}
