//! Read transactions, and what the reader slots cache for them.
//!
//! Floor: txn. Beginning a read must not write a cache line that another reader writes. So readers
//! share no counter: each takes a slot of its own, and the slot caches what its next reader needs.
//!
//! The path of `Db::begin_read`, with the type at each step:
//!
//! ```text
//! 1 ReadPool     of the handle: loads the published txn
//! 2 Readers      of the environment: finds a free slot, first the one this thread took last
//! 3 PooledSlot   in the pool: leads to the slot, keeps the environment open
//! 4 CellOwner    takes the slot by one compare-and-swap, which shows the txn to the writer
//! 5 SlotCache    in the slot: the state, its pages and tables, replaced only if out of date
//!   ReadTxn      result: a handle whose clones share the CellOwner (SharedOwner)
//! ```
//!
//! How the types refer to each other; all these references are counted (`Arc`):
//!
//! ```text
//! Db ------> ReadPool -----> PooledSlot ---> Env, whose Readers list the slots for the writer
//!                               ^   \                     |
//!                               |    \                    v
//! ReadTxn ----------------------+     +------------> ReaderSlot = OwnedCell<SlotCache>
//! (SharedOwner)                                      a word, FREE or a txn, the cache, and
//!                                                    the number of clones
//! ```
//!
//! A pool makes one `PooledSlot` for each reader slot, once. To begin and end a read costs no
//! allocation, and three locked instructions: the compare-and-swap, and the counter of the
//! `PooledSlot` up and down. No other reader writes these cache lines. When the last clone of a
//! `ReadTxn` is dropped, its `CellOwner` stores FREE into the slot.
//!
//! ```text
//! snapshot      ReadPool, PooledSlot, ReadTxn: begins and ends a read
//! readers       Readers: which snapshots are in use, which slots are free
//! reader_pages  where slots lie, and which process owns them
//! slot          ReaderSlot, SlotCache: what a slot keeps for its next reader
//! open_table    tables that a slot has opened, cached for later transactions of the same state
//! flat_indexes  flat indexes that all readers of a database share
//! index_builder the thread that builds large flat indexes
//! ```
//!
//! Failure: `Poisoned`, `Busy`, `Corrupt` from the catalog.

pub(crate) mod flat_indexes;
mod index_builder;
pub(crate) mod open_table;
mod reader_pages;
pub(crate) mod readers;
mod slot;
pub(crate) mod snapshot;
