//! What tests may watch and fail in a mapping: flushes, stores of metas, changes of length, and how files are made; and the
//! strict canvas, in which only claimed pages can be stored to, so that a stray store is a signal at once. Between two steps
//! of a thread it lets tests have others act.
//!
//! Floor: mapping. Present with the feature `testing` alone.
#![allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::sys::descriptor;
use crate::mapping::file::Recovery;
use crate::mapping::window::Window;
use crate::mapping::FlushKind;
use crate::hooks::mutant::{self, Mutant};

/// A flush that is about to run or has run.
pub struct FlushEvent<'a> {
    /// What is flushed.
    pub kind: FlushKind,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes of the range.
    pub len: u64,
    /// Whether the flush makes the length of the file durable too, as a flush of data does that lies behind the old end.
    pub carries_length: bool,
    /// Length of the file now.
    pub file_len: u64,
    /// Bytes of the file that can be read through [`FlushEvent::read`].
    pub mapped_len: u64,
    pub(super) window: &'a Window,
}

impl FlushEvent<'_> {
    /// Copies the current contents of the mapping; `false`, and nothing copied, when not all of it is mapped.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        self.window.copy_out(offset, into)
    }
}

impl fmt::Debug for FlushEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flush {:?} {}+{} of {}", self.kind, self.offset, self.len, self.file_len)
    }
}

/// A step of making a file, when it has been done.
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

/// Watches a mapping and makes its calls fail.
pub trait Seam: Send + Sync {
    /// Before a flush; an error is what the flush returns, and nothing is flushed.
    fn before_flush(&self, event: &FlushEvent<'_>) -> io::Result<()>;

    /// After a flush that succeeded.
    fn after_flush(&self, _event: &FlushEvent<'_>) {}

    /// After the file was given a new length.
    fn resized(&self, _new_len: u64) {}

    /// After a meta was stored, before it is flushed.
    fn stored_meta(&self, _slot: usize) {}

    /// After a step of making the file.
    fn creating(&self, _step: Creation, _temporary: &Path, _path: &Path) {}

    /// After a step of going back to a whole state while opening.
    fn recovering(&self, _step: Recovery, _path: &Path) {}

    /// Before pages are written by a call; an error is what writing returns, and nothing is written.
    fn writing(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// After pages were written by a call.
    fn wrote(&self, _offset: u64, _len: u64) {}

    /// Before write-back is started early; an error is what starting it returns.
    fn writing_back(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Before anything is done to grow the file; an error is what growing returns.
    fn growing(&self, _new_len: u64) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    static NEXT: RefCell<Option<Arc<dyn Seam>>> = const { RefCell::new(None) };
}

/// A moment between two steps of a thread. Tests let others act there, so that an order of steps is forced and not hoped for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// The writer has read which state is published, and has not looked at the reader slots.
    Reclaiming,
    /// A read transaction that begins knows which state is published, and has no slot.
    ReaderBeginning,
    /// A read transaction that ends knows which window is current, and still has its slot.
    ReaderLeaving,
    /// The sentinel is at its new place, and what it has to be there is not known.
    SentinelMoving,
    /// The file was found as long as it should be, and is about to be made longer.
    Lengthening,
}

type Act = Rc<dyn Fn(Moment)>;

thread_local! {
    static ACT: RefCell<Option<Act>> = const { RefCell::new(None) };
}

/// Has `act` run at every moment that this thread comes to while `run` runs.
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

/// This thread has come to a moment.
pub(crate) fn reach(moment: Moment) {
    // A thread that ends may have dropped its `ACT`.
    if let Ok(Some(act)) = ACT.try_with(|act| act.borrow().clone()) {
        act(moment);
    }
}

thread_local! {
    /// How many moves work, and how many fail after that.
    static MOVES: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    static OTHERS: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Of the moves of mappings that this thread makes next, `work` work and then `fail` fail late: the kernel has unmapped their
/// target by then, and memory of somebody else lies there at once.
#[cfg(test)]
pub(super) fn fail_moves(work: u32, fail: u32) {
    MOVES.set((work, fail));
}

/// Where memory of somebody else lies, as pairs of address and length.
#[cfg(test)]
pub(super) fn others() -> Vec<(usize, usize)> {
    OTHERS.take()
}

/// Gives such memory back.
#[cfg(test)]
#[allow(unsafe_code, reason = "memory that a test took")]
pub(super) fn unmap_others(start: usize, len: usize) {
    let start = std::ptr::NonNull::new(std::ptr::without_provenance_mut(start)).expect("an address");
    // SAFETY: private memory that `fail_late` mapped and nobody uses.
    unsafe { crate::sys::os::unmap(start, len as u64) };
}

/// Whether the next move is one that fails.
pub(super) fn move_fails() -> bool {
    let (work, fail) = MOVES.get();
    match work.checked_sub(1) {
        Some(work) => MOVES.set((work, fail)),
        None => MOVES.set((0, fail.saturating_sub(1))),
    }
    work == 0 && fail > 0
}

/// Notes where memory of somebody else lies.
pub(super) fn note_others(start: usize, len: usize) {
    OTHERS.with_borrow_mut(|others| others.push((start, len)));
}

thread_local! {
    static STRICT: Cell<bool> = const { Cell::new(false) };
}

/// Whether mappings that this thread makes from now on let nothing be stored to but claimed pages, by the processor.
pub fn strict_canvas(strict: bool) {
    STRICT.set(strict);
}

pub(super) fn is_strict() -> bool {
    STRICT.get()
}

/// Sets who watches the next mapping that this thread makes, from its first flush on, and before how its file is made.
pub fn set_next(seam: Option<Arc<dyn Seam>>) {
    NEXT.set(seam);
}

/// Whether a flush makes the length durable; a mutant says that it does not.
pub(super) fn carries_length(kind: FlushKind) -> bool {
    kind != FlushKind::Tree || !mutant::is(Mutant::NoLengthFlush)
}

/// Tells a step of making a file to who watches the next mapping.
pub(super) fn creating(step: Creation, temporary: &Path, path: &Path) {
    let seam = NEXT.with_borrow(Clone::clone);
    if let Some(seam) = seam {
        seam.creating(step, temporary, path);
    }
}

/// Tells a step of going back to who watches the next mapping.
pub(crate) fn recovering(step: Recovery, path: &Path) {
    let seam = NEXT.with_borrow(Clone::clone);
    if let Some(seam) = seam {
        seam.recovering(step, path);
    }
}

pub(super) fn take_next() -> Option<Arc<dyn Seam>> {
    NEXT.take()
}

/// Makes a file, maps it as any program may, cuts it, and reads what was cut: a fault that is not Mapleaf's.
#[allow(unsafe_code, reason = "an access that cannot be served")]
pub fn foreign_fault(path: &Path) -> io::Result<u8> {
    let file = descriptor::open(std::fs::File::options().read(true).write(true).create(true).truncate(true), path)?;
    file.write_all_at(&[1; 8192], 0)?;
    let map = memmap2::MmapOptions::new().map_raw_read_only(&file)?;
    file.set_len(0)?;
    // SAFETY: inside a mapping that lives; that the access brings a signal is what is asked for.
    Ok(unsafe { map.as_ptr().add(5000).read_volatile() })
}

/// Closes the standard descriptors, as some daemons do. For a process of its own.
#[allow(unsafe_code, reason = "descriptors of nobody")]
pub fn close_standard_descriptors() {
    for fd in 0..3 {
        // SAFETY: Rust's streams have these by number alone, and every use of them is checked.
        unsafe { libc::close(fd) };
    }
}

/// Writes to whatever the standard descriptors are.
#[allow(unsafe_code, reason = "descriptors of nobody")]
pub fn print_to_standard_descriptors(text: &str) {
    for fd in 0..3 {
        // SAFETY: bytes that live through the call. That it may fail, or reach a file, is what tests ask.
        unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
    }
}

/// Installs a handler for SIGBUS that asks to be called once, with SIGUSR1 blocked meanwhile, and says to standard output that
/// it was called so. For a process of its own.
#[allow(unsafe_code, reason = "a signal handler")]
pub fn handle_one_bus_error() {
    extern "C" fn say(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: zero is a value of a set of signals, and the calls fill and ask it, and write bytes that live.
        unsafe {
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut blocked);
            let said: &[u8] = match libc::sigismember(&blocked, libc::SIGUSR1) {
                1 => b"\n@called, SIGUSR1 blocked\n",
                _ => b"\n@called, SIGUSR1 not blocked\n",
            };
            libc::write(1, said.as_ptr().cast(), said.len());
        }
    }
    // SAFETY: zero is a value of `sigaction`; the handler is of the form that `SA_SIGINFO` asks for.
    unsafe {
        let mut once: libc::sigaction = std::mem::zeroed();
        once.sa_sigaction = say as extern "C" fn(_, _, _) as usize;
        once.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        libc::sigaddset(&mut once.sa_mask, libc::SIGUSR1);
        libc::sigaction(libc::SIGBUS, &once, std::ptr::null_mut());
    }
}

/// Forks: `None` in the child, which goes on from here and ends by [`end_child`]. For a process without other threads that hold
/// locks.
#[allow(unsafe_code, reason = "fork")]
pub fn fork() -> Option<i32> {
    // SAFETY: the caller's process has no other thread that could leave a lock held in the child.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no process: {}", io::Error::last_os_error());
    (child > 0).then_some(child)
}

/// Ends a child of [`fork`] without what its parent has registered for its own end.
#[allow(unsafe_code, reason = "the end of a child")]
pub fn end_child(in_order: bool) -> ! {
    // SAFETY: a call without pointers.
    unsafe { libc::_exit(i32::from(!in_order)) }
}

/// Waits for a child; whether it ended in order.
#[allow(unsafe_code, reason = "waits for a child")]
pub fn ends_in_order(child: i32) -> bool {
    let mut status = 0;
    // SAFETY: waits for a child of our own, with a pointer that lives through the call.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Runs something in a child after [`fork`] and waits for it. Whether it ended in order.
pub fn in_forked_child(run: impl FnOnce()) -> bool {
    match fork() {
        None => end_child(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok()),
        Some(child) => ends_in_order(child),
    }
}
