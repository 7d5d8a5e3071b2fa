//! Test hooks: how tests observe, stop and falsify what Mapleaf does.
//!
//! Floor: hooks, below everything. The types of events are always compiled. The functions are those
//! of `active` with the feature `testing`. Without it they are those of `empty`, which do nothing
//! and cost nothing.
//!
//! ```text
//! reach, at_moments      a thread reaches a *moment* between two steps; a test acts there
//! waits, note, scheduled a scheduler of a test decides which thread goes on, and sees what they wait for
//! is, set_mutant         a *mutant*: a step done wrong on purpose, to prove that a test fails then
//! count_step             counts steps, so that a test compares costs without a clock
//! MappingHooks, Hooks    a test sees flushes, growth and writes of a mapping, and makes them fail
//! creating, recovering   a test sees the steps of creating and of repairing a file
//! move_fails             the next move of a mapping fails
//! file_system, has_attributes    what the kernel says of the file system of a file
//! is_strict              the processor forbids stores to pages that are not claimed
//! ```
//!
//! Moments, mutants and counts belong to a thread, so that tests which run at the same time do not
//! affect each other.
//!
//! Failure: none of its own. A hook may return an error, which the caller treats like one of the
//! kernel.
#![allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]
#![cfg_attr(not(feature = "testing"), allow(dead_code, reason = "only `active` reads what the hooks are given"))]

#[cfg(feature = "testing")]
mod active;
#[cfg(not(feature = "testing"))]
mod empty;

#[cfg(feature = "testing")]
pub use active::*;
#[cfg(not(feature = "testing"))]
pub(crate) use empty::*;

/// The mapped bytes of a file, for the hook of a flush.
pub(crate) trait Mapped {
    /// Length of the file now, in bytes.
    fn file_len(&self) -> std::io::Result<u64>;
    /// Bytes of the file that can be read.
    fn mapped_len(&self) -> u64;
    /// Copies bytes. `false`, and nothing copied, if not all of them are mapped.
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> bool;
}

/// The name of a lock. Threads take locks in the order of these names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LockName {
    /// One write transaction at a time; belongs to the environment, not to a thread.
    Writer,
    /// One checkpoint at a time.
    Checkpoint,
    /// One leader at a time.
    Flush,
}

/// The kind of pages that a flush makes durable. All kinds are flushed in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FlushKind {
    /// Pages of trees.
    Tree,
    /// A meta page.
    MetaPage,
    /// A range of the commit log.
    Log,
}

/// A step that is done wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// The pages are not flushed.
    NoPageFlush,
    /// The meta page is not flushed.
    NoMetaFlush,
    /// The meta page is written and flushed before the pages.
    MetaFirst,
    /// The meta page is written over the durable one.
    SameSlot,
    /// A page that a transaction frees is used again by the same transaction, although the state of
    /// the durable meta page still reaches it.
    EarlyReuse,
    /// Only the latest state and the snapshots are kept: the writer uses pages again that the state
    /// of the durable meta page reaches.
    EarlyReclaim,
    /// Checksums omit the last byte of a page, in sealing and in verifying.
    ShortChecksum,
    /// A page is accepted if its own checksum is right, whatever checksum the pointer to it has.
    PointerUnchecked,
    /// An overflow extent, which holds a long key or value, is accepted whatever bytes it has.
    LongKeyUnchecked,
    /// The extent of a long key or separator is not freed when its entry goes.
    LongKeyNotFreed,
    /// The directory is not flushed after a file was created.
    NoDirectoryFlush,
    /// A new file is not flushed before it gets its name.
    NoCreationFlush,
    /// The flush of pages does not make the length of the file durable.
    NoLengthFlush,
    /// A record is named, and then filled (P5).
    NamedBeforeWhole,
    /// A txn passes the published one by more than the ring holds (P5).
    RingOverrun,
    /// Pages are used again that states between the published and the latest one reach (P7).
    UnpublishedReused,
    /// A leader does not wait for the record that is being appended (P8).
    AppenderNotAwaited,
    /// A meta page in doubt is not finished before the next commit or checkpoint (P13).
    MetaUnfinished,
    /// The epoch changes in a commit by log (P14).
    EpochByRecord,
    /// The meta page in doubt does not count for reclaim, and the state of a checkpoint is pinned
    /// only until its meta page is written (P15).
    UnpinnedEarly,
    /// A checkpoint does not read the published state again after it has pinned one.
    PinNotReread,
    /// A checkpoint counts its state as durable before it is flushed (P10).
    DurableBeforeFlush,
    /// Records overwrite those that the durable meta page needs (P16).
    LogSpaceIgnored,
    /// A waiter waits for the flush lock, and not for the published state.
    WaitsForFlushLock,
    /// A failed flush does not poison the database (R9).
    PoisonForgotten,
    /// Records are appended after one whose append failed (P9).
    OrphanStays,
    /// A record begins in a page of the log whose flush has begun (P8).
    FlushedPageRewritten,
    /// A transaction is acknowledged before its record is flushed.
    AcknowledgedEarly,
    /// The meta page of a checkpoint beside writers is written without a flush of its pages.
    MetaBeforeData,
    /// A sole commit is made although records before it are not flushed.
    SoleAfterUnflushed,
    /// An `Eventual` commit is published before the `Immediate` ones before it are durable (P12).
    LastImmediateIgnored,
    /// Neither mark of an epoch counts: checksums do not depend on it, and its first record may
    /// chain on anything.
    StaleEpoch,
    /// A record may chain on anything.
    ChainUnchecked,
    /// A transaction whose append fails is aborted, and its epoch goes on (P9).
    OrphanAborted,
    /// A leader publishes its state before it flushes the log (P10).
    PublishedEarly,
    /// The transaction that makes a log is committed by its record in that log (P14).
    LogChangedBesideWriters,
    /// The log shares the file description of the mapping (P1).
    OneDescription,
    /// The meta page of a checkpoint beside writers says that the log starts one record late.
    LogStartLate,
    /// A commit by checkpoint whose meta page may be on the disk fails, and the next transaction
    /// goes on from the state before it (P13).
    NewerMetaUnfinished,
    /// Tasks are woken by a thread that may hold locks.
    WakersUnderLocks,
    /// What was noted of a leaf when it was sealed counts, although the leaf is dirty again.
    StaleLeafFact,
    /// A transaction that goes back to a savepoint forgets which pages it has allocated since.
    TakenNotRolledBack,
    /// A transaction that goes back to a savepoint leaves pages freed that it has freed since.
    FreedNotRolledBack,
    /// A transaction that goes back to a savepoint keeps the operations since in its record.
    RecordNotRolledBack,
    /// An opening does not heed that the lock file says that a flush has failed (P20).
    LockFilePoisonIgnored,
    /// A named snapshot does not count as a state that is needed (R5).
    SnapshotsLeftOut,
    /// A process that joined while a mark was odd does not compare the page cache with the disk
    /// (P18).
    ProofSkipped,
    /// The checksum of the root of a value tree is not stored in its entry.
    ValueTreeUnsealed,
    /// A check does not enter value trees.
    ValueTreeUnchecked,
    /// The pages of a value tree are not freed.
    ValueTreeNotFreed,
}

/// A step of creating a file that has been completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Creation {
    /// All bytes are in the temporary file.
    Written,
    /// The temporary file was flushed.
    Flushed,
    /// The file has its name.
    Renamed,
    /// The directory was flushed.
    DirectoryFlushed,
}

/// A step of going back to a whole state that has been completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// The meta page of that state was written.
    MetaWritten,
    /// The meta page was flushed.
    MetaFlushed,
    /// The file was made longer by a page.
    Lengthened,
}

/// A moment between two steps of a thread. A test lets others act at this moment, which forces an
/// order of steps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Moment {
    /// The thread is about to take a lock. Under a scheduler it goes on only when the lock is free.
    Taking(LockName),
    /// A committer waits until a transaction is durable and visible. Under a scheduler it goes on
    /// when it is, or when the flush lock is free.
    AwaitingFlush(u64),
    /// A leader waits while the record of a transaction is appended.
    AwaitingAppender(u64),
    /// The writer has read the published state, and has not yet read the reader slots.
    Reclaiming,
    /// The writer has read the reader slots, and has not yet read the checkpoint record.
    SlotsRead,
    /// A read transaction that begins shows a state in its slot, and has not yet read the published
    /// state again.
    ReaderShown,
    /// A read transaction that begins has read the published state, and has no slot yet.
    ReaderBeginning,
    /// A reader of a named snapshot shows the snapshot in its slot, and has not yet looked at its
    /// record again.
    SnapshotShown,
    /// A read transaction that ends has read the id of the current window, and still has its slot.
    ReaderLeaving,
    /// The address of the sentinel has changed, and its expected value has not (SENT-1).
    SentinelMoving,
    /// The length of the file was checked, and the file is about to be made longer.
    Lengthening,
    /// A writer has set `appending`, and has not written its record.
    Appending,
    /// A writer has found where its record begins, and has not written it.
    RecordPlaced,
    /// A writer has written its record, and has not stored `latest`.
    Appended,
    /// A writer has stored `latest`.
    LatestStored,
    /// A writer has cleared `appending`, and has the writer lock.
    AppendingCleared,
    /// A writer has released the writer lock.
    WriterReleased,
    /// A leader has copied the latest state, and has not raised `closed`.
    LatestCopied,
    /// A leader has stored `flushed`, and has not stored `durable`.
    FlushedStored,
    /// A leader has raised `closed`, and has not flushed the log.
    LogClosed,
    /// A leader has stored `durable`, and has not stored `published`.
    Publishing,
    /// A checkpoint has stored which state it pins, and has not read again which one is published.
    Pinning,
    /// A part of the checkpoint record is filled.
    Filling,
    /// A meta page is in doubt, and has not been stored.
    InDoubt,
    /// The meta page is the durable one, and the records that follow have not been stored.
    MetaMoved,
    /// The new meta page is the durable one, and still counts as in doubt.
    Clearing,
    /// A checkpoint has pinned its state, and has not flushed it.
    Pinned,
    /// A transaction has committed, and its thread waits until it is durable.
    Waiting,
}
