//! The hooks with the feature `testing`: each thread has its own, and a mapping takes those that
//! were set for the next mapping of its thread.
//!
//! Floor: hooks.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Creation, FlushKind, Mapped, Moment, Mutant, Recovery};

/// A flush that is about to run or has run.
pub struct FlushEvent<'a> {
    /// The kind of the flushed pages.
    pub kind: FlushKind,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes of the range.
    pub len: u64,
    /// Whether the flush also makes the length of the file durable, like a flush of data after the
    /// old end.
    pub carries_length: bool,
    /// Whether the flush goes through the file description of the log (P1).
    pub by_log_file: bool,
    /// Length of the file now.
    pub file_len: u64,
    /// Bytes of the file that can be read through [`FlushEvent::read`].
    pub mapped_len: u64,
    pub(crate) mapped: &'a dyn Mapped,
}

impl FlushEvent<'_> {
    /// Copies the present bytes of the mapping. `false`, and nothing copied, if not all of them are
    /// mapped.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        self.mapped.copy_out(offset, into)
    }
}

impl fmt::Debug for FlushEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flush {:?} {}+{} of {}", self.kind, self.offset, self.len, self.file_len)
    }
}

/// Callbacks of a test for the events of one mapping.
pub trait Hooks: Send + Sync {
    /// Before a flush. If this returns an error, so does the flush, and flushes nothing.
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()>;

    /// After a flush that succeeded.
    fn after_flush(&self, _event: &FlushEvent<'_>) {}

    /// After the length of the file was changed.
    fn resized(&self, _new_len: u64) {}

    /// After a meta page was stored, before it is flushed.
    fn stored_meta(&self, _slot: usize) {}

    /// After a step of creating the file.
    fn creating(&self, _step: Creation, _temporary: &Path, _path: &Path) {}

    /// After a step of going back to a whole state while opening.
    fn recovering(&self, _step: Recovery, _path: &Path) {}

    /// Before pages are written by `pwrite`. If this returns an error, so does the write, and
    /// writes nothing.
    fn writing(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Before a record is written to a page of the log. `Some`: only so many bytes of it are
    /// written, then the write fails.
    fn log_write_fails_after(&self, _offset: u64, _len: u64) -> Option<u64> {
        None
    }

    /// After pages were written by `pwrite`.
    fn wrote(&self, _offset: u64, _len: u64) {}

    /// After bytes were written to the commit log. If this returns an error, so does the write,
    /// although the bytes are there.
    fn wrote_log(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Before write-back is started early. If this returns an error, so does the start.
    fn writing_back(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Before the file grows. If this returns an error, so does growth, and changes nothing.
    fn growing(&self, _new_len: u64) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    static NEXT: RefCell<Option<Arc<dyn Hooks>>> = const { RefCell::new(None) };
}

/// Sets the hooks of the next mapping that this thread makes, and of the steps that create or
/// repair its file.
pub fn set_next_hooks(hooks: Option<Arc<dyn Hooks>>) {
    NEXT.set(hooks);
}

fn next() -> Option<Arc<dyn Hooks>> {
    NEXT.with_borrow(Clone::clone)
}

/// Reports a completed step of creating a file.
pub(crate) fn creating(step: Creation, temporary: &Path, path: &Path) {
    if let Some(hooks) = next() {
        hooks.creating(step, temporary, path);
    }
}

/// Reports a completed step of going back to a whole state.
pub(crate) fn recovering(step: Recovery, path: &Path) {
    if let Some(hooks) = next() {
        hooks.recovering(step, path);
    }
}

/// The hooks of one mapping.
#[derive(Default)]
pub(crate) struct MappingHooks {
    hooks: Mutex<Option<Arc<dyn Hooks>>>,
    flushes: AtomicU64,
}

impl MappingHooks {
    /// The hooks that were set for the next mapping of this thread.
    pub(crate) fn take_next() -> MappingHooks {
        MappingHooks { hooks: Mutex::new(NEXT.take()), flushes: AtomicU64::new(0) }
    }

    /// No hooks.
    pub(crate) fn none() -> MappingHooks {
        MappingHooks::default()
    }

    pub(crate) fn set(&self, hooks: Arc<dyn Hooks>) {
        *self.hooks.lock().unwrap_or_else(PoisonError::into_inner) = Some(hooks);
    }

    fn get(&self) -> Option<Arc<dyn Hooks>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether hooks are set.
    pub(crate) fn is_set(&self) -> bool {
        self.get().is_some()
    }

    /// Flushes that succeeded.
    pub(crate) fn flush_count(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    pub(crate) fn growing(&self, new_len: u64) -> io::Result<()> {
        self.get().map_or(Ok(()), |hooks| hooks.growing(new_len))
    }

    pub(crate) fn resized(&self, new_len: u64) {
        if let Some(hooks) = self.get() {
            hooks.resized(new_len);
        }
    }

    pub(crate) fn writing(&self, offset: u64, len: u64) -> io::Result<()> {
        self.get().map_or(Ok(()), |hooks| hooks.writing(offset, len))
    }

    pub(crate) fn log_write_fails_after(&self, offset: u64, len: u64) -> Option<u64> {
        self.get().and_then(|hooks| hooks.log_write_fails_after(offset, len))
    }

    pub(crate) fn wrote(&self, offset: u64, len: u64) {
        if let Some(hooks) = self.get() {
            hooks.wrote(offset, len);
        }
    }

    pub(crate) fn wrote_log(&self, offset: u64, len: u64) -> io::Result<()> {
        self.get().map_or(Ok(()), |hooks| hooks.wrote_log(offset, len))
    }

    pub(crate) fn writing_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.get().map_or(Ok(()), |hooks| hooks.writing_back(offset, len))
    }

    pub(crate) fn stored_meta(&self, slot: usize) {
        if let Some(hooks) = self.get() {
            hooks.stored_meta(slot);
        }
    }

    pub(crate) fn before_flush(&self, mapped: &dyn Mapped, kind: FlushKind, offset: u64, len: u64) -> io::Result<()> {
        match self.get() {
            Some(hooks) => hooks.before_flush(&event(mapped, kind, offset, len)?),
            None => Ok(()),
        }
    }

    pub(crate) fn after_flush(&self, mapped: &dyn Mapped, kind: FlushKind, offset: u64, len: u64) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if let Some(hooks) = self.get() {
            hooks.after_flush(&event(mapped, kind, offset, len)?);
        }
        Ok(())
    }
}

fn event(mapped: &dyn Mapped, kind: FlushKind, offset: u64, len: u64) -> io::Result<FlushEvent<'_>> {
    let carries_length = kind != FlushKind::Tree || !is(Mutant::NoLengthFlush);
    let (file_len, mapped_len) = (mapped.file_len()?, mapped.mapped_len());
    let by_log_file = kind == FlushKind::Log && !is(Mutant::OneDescription);
    Ok(FlushEvent { kind, offset, len, carries_length, by_log_file, file_len, mapped_len, mapped })
}

type Act = Rc<dyn Fn(Moment)>;

thread_local! {
    static ACT: RefCell<Option<Act>> = const { RefCell::new(None) };
}

/// Runs `run`, and calls `act` at every moment that this thread reaches meanwhile.
pub fn at_moments<T>(act: impl Fn(Moment) + 'static, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<Act>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACT.set(self.0.take());
        }
    }
    let _restore = Restore(ACT.replace(Some(Rc::new(act))));
    run()
}

/// This thread has reached a moment.
pub(crate) fn reach(moment: Moment) {
    // A thread that ends may have dropped its `ACT`.
    if let Ok(Some(act)) = ACT.try_with(|act| act.borrow().clone()) {
        act(moment);
    }
}

thread_local! {
    static SCHEDULED: Cell<bool> = const { Cell::new(false) };
    static NOTED: Cell<u64> = const { Cell::new(0) };
    static CHAIN: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Sets whether a scheduler decides when this thread goes on: then the thread never waits by
/// itself, and starts no other thread.
pub fn set_scheduled(scheduled: bool) {
    SCHEDULED.set(scheduled);
}

/// Whether a scheduler decides when this thread goes on.
pub(crate) fn is_scheduled() -> bool {
    SCHEDULED.try_with(Cell::get).unwrap_or(false)
}

/// This thread has to wait. Whether a scheduler has let it wait: then it looks again at once.
pub(crate) fn waits(moment: Moment) -> bool {
    let scheduled = is_scheduled();
    if scheduled {
        reach(moment);
    }
    scheduled
}

/// Notes a value that this thread has read from the records and keeps: it is part of the state that
/// a search is in.
pub(crate) fn note(value: u64) {
    let mixed = (NOTED.get() ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    NOTED.set(mixed ^ (mixed >> 29));
}

/// A hash of what this thread has noted since the last call.
pub fn take_noted() -> u64 {
    NOTED.replace(0)
}

/// Sets the number that epochs begin with, in place of a random one.
pub fn set_chain(chain: Option<u32>) {
    CHAIN.set(chain);
}

pub(crate) fn chain() -> Option<u32> {
    CHAIN.get()
}

thread_local! {
    /// How many moves succeed next, and how many fail after those.
    static MOVES: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    static OTHERS: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Of the next moves of mappings by this thread, `work` succeed and then `fail` fail late: after
/// the kernel has unmapped their target, and another mapping has taken its place.
#[cfg(test)]
pub(crate) fn fail_moves(work: u32, fail: u32) {
    MOVES.set((work, fail));
}

/// The other mappings, as pairs of address and length.
#[cfg(test)]
pub(crate) fn others() -> Vec<(usize, usize)> {
    OTHERS.take()
}

/// Whether the next move fails. Counts it.
pub(crate) fn move_fails() -> bool {
    let (work, fail) = MOVES.get();
    match work.checked_sub(1) {
        Some(work) => MOVES.set((work, fail)),
        None => MOVES.set((0, fail.saturating_sub(1))),
    }
    work == 0 && fail > 0
}

/// Records the address range of another mapping.
pub(crate) fn note_others(start: usize, len: usize) {
    OTHERS.with_borrow_mut(|others| others.push((start, len)));
}

thread_local! {
    static STRICT: Cell<bool> = const { Cell::new(false) };
}

/// Sets whether the processor permits stores only to claimed pages, in mappings that this thread
/// makes from now on.
pub fn strict_claims(strict: bool) {
    STRICT.set(strict);
}

pub(crate) fn is_strict() -> bool {
    STRICT.get()
}

thread_local! {
    static FILE_SYSTEM: Cell<Option<i64>> = const { Cell::new(None) };
    static ATTRIBUTES: Cell<bool> = const { Cell::new(true) };
}

/// Sets the type of file system that each file seems to be on, for this thread; `None`: its own.
pub fn set_file_system(kind: Option<i64>) {
    FILE_SYSTEM.set(kind);
}

pub(crate) fn file_system() -> Option<i128> {
    FILE_SYSTEM.get().map(i128::from)
}

/// Sets whether file systems have extended attributes, for this thread.
pub fn set_attributes(has: bool) {
    ATTRIBUTES.set(has);
}

pub(crate) fn has_attributes() -> bool {
    ATTRIBUTES.get()
}

thread_local! {
    static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Sets the step that this thread does wrong from now on, or none.
pub fn set_mutant(mutant: Option<Mutant>) {
    MUTANT.set(mutant);
}

/// The settings of this thread that the threads it starts inherit.
pub(crate) fn inheritance() -> Option<Mutant> {
    mutant()
}

/// Takes over the settings of the thread that started this one.
pub(crate) fn inherit(given: Option<Mutant>) {
    set_mutant(given);
}

/// The mutant of this thread.
pub(crate) fn mutant() -> Option<Mutant> {
    MUTANT.get()
}

/// Whether this thread has that mutant.
pub(crate) fn is(mutant: Mutant) -> bool {
    MUTANT.get() == Some(mutant)
}

thread_local! {
    static LOG_SHAPE: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// Sets after how many commits this thread makes a commit log, and its length in bytes. `None`: the
/// usual values.
pub fn set_log_shape(shape: Option<(u64, u64)>) {
    LOG_SHAPE.set(shape);
}

/// The values of [`set_log_shape`] for this thread.
pub(crate) fn log_shape() -> Option<(u64, u64)> {
    LOG_SHAPE.get()
}

thread_local! {
    static SOLE: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Sets whether this thread makes sole commits when it can, with one write for append and flush.
/// `None`: as if no test ran.
pub fn set_sole(sole: Option<bool>) {
    SOLE.set(sole);
}

/// The value of [`set_sole`] for this thread.
pub(crate) fn sole() -> Option<bool> {
    SOLE.get()
}

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Counts a step: one access to an open table, a reader slot or a free extent.
#[inline(always)]
pub(crate) fn count_step() {
    STEPS.set(STEPS.get() + 1);
}

/// Steps that this thread has counted so far.
pub(crate) fn steps() -> u64 {
    STEPS.get()
}
