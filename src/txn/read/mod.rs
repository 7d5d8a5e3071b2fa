//! Read transactions and what they share.
//!
//! Floor: txn. Beginning a read must not write a cache line that another reader writes. Therefore
//! no counter is shared: each slot owns what one transaction needs, and the types are nested.
//!
//! ```text
//! ReadPool    of one database handle: one Pin for each reader slot, made once
//!   Pin       keeps the environment and the slot alive; its Arc is cloned by one reader only
//!     ReaderSlot(OwnedCell<SlotCache>)   an atomic word: FREE, or the txn that the reader shows
//!       SlotCache                        pages, state and tables, kept for the next transaction
//! ReadTxn     Arc of a Snapshot, which the clones of a transaction share
//!   Snapshot(CellOwner<Pin, SlotCache>)  the right to the slot; dropping it frees the slot
//! ```
//!
//! `ReadPool::begin` takes a free slot by one compare-and-swap, which stores the published txn in
//! its word, and gets a `CellOwner`. That owns the `SlotCache` until the last clone of the
//! `ReadTxn` is dropped. Mostly the cache is already of this state, and nothing else is to be done.
//!
//! ```text
//! snapshot      ReadPool, ReadTxn: one state, held until the last clone is gone
//! readers       the reader slots of an environment: which snapshots are in use
//! open_table    tables that a slot has opened, kept for later transactions of the same state
//! flat_indexes  flat indexes that all readers of a database share
//! ```
//!
//! Failure: `Poisoned`, `Busy`, `Corrupt` from the catalog.

pub(crate) mod flat_indexes;
pub(crate) mod open_table;
pub(crate) mod readers;
pub(crate) mod snapshot;
