//! Changes that a test makes to a process of its own, for good: refuse its system calls, limit it,
//! interrupt it.
//!
//! Floor: sys. Present only with the feature `testing`. For children that a test starts, as
//! nothing here can be undone.
//!
//! Failure: errors of the kernel.
#![allow(unsafe_code, unreachable_pub, reason = "raw system calls, public for the integration tests")]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A condition on an argument of a call: the lower half of it, masked, is a value.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Which argument, from 0.
    pub index: u32,
    /// The bits of the argument to compare.
    pub mask: u32,
    /// The value that these bits must have.
    pub value: u32,
}

/// Calls of one number whose arguments meet all conditions.
#[derive(Clone, Copy, Debug)]
pub struct Matching<'a> {
    /// The number of the call.
    pub number: i64,
    /// Conditions on its arguments; if empty, all calls of that number match.
    pub arguments: &'a [Argument],
}

/// The kernel's answer to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It does what was asked.
    Obey,
    /// It refuses with this number.
    Refuse(i32),
    /// It ends the process.
    Kill,
}

impl Answer {
    fn code(self) -> u32 {
        match self {
            Answer::Obey => libc::SECCOMP_RET_ALLOW,
            Answer::Refuse(number) => libc::SECCOMP_RET_ERRNO | number as u32,
            Answer::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

fn step(code: u32, jump: [u8; 2], k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump[0], jf: jump[1], k }
}

/// Goes on with the next step if what was loaded is `value`, else `past` steps on.
fn unless(value: u32, past: usize) -> libc::sock_filter {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, [0, past as u8], value)
}

/// From now on the kernel gives `answer` to calls of this thread, and of those that it starts, that
/// match any of `calls`, and `otherwise` to all others.
pub fn answer_calls(calls: &[Matching<'_>], answer: Answer, otherwise: Answer) -> io::Result<()> {
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, [0, 0], at);
    let mut program = Vec::new();
    for call in calls {
        program.extend([load(0), unless(call.number as u32, 3 * call.arguments.len() + 1)]);
        for (at, argument) in call.arguments.iter().enumerate() {
            // The record of a call has its arguments, 8 bytes each, from byte 16 on. The lower half
            // comes first.
            program.push(load(16 + 8 * argument.index));
            program.push(step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, [0, 0], argument.mask));
            program.push(unless(argument.value, 3 * (call.arguments.len() - at - 1) + 1));
        }
        program.push(step(libc::BPF_RET | libc::BPF_K, [0, 0], answer.code()));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, [0, 0], otherwise.code()));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: a call without pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel copies the program, which lives through the call and is as long as it
    // says.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process by a signal after so many seconds, so that what hangs is a death.
pub fn die_after(seconds: u32) {
    // SAFETY: a call without pointers.
    unsafe { libc::alarm(seconds) };
}

/// From now on this process may give no file more bytes than that (the soft limit).
pub fn limit_file_size(bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a pointer that lives through the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE as _, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

static INTERRUPTIONS: AtomicU64 = AtomicU64::new(0);

static INTERRUPTIONS_MAX: AtomicU64 = AtomicU64::new(u64::MAX);

extern "C" fn count_interruption(_signal: libc::c_int) {
    if INTERRUPTIONS.fetch_add(1, Ordering::Relaxed) >= INTERRUPTIONS_MAX.load(Ordering::Relaxed) {
        // SAFETY: ends the process, as a signal handler may.
        unsafe { libc::abort() };
    }
}

/// From now on a signal interrupts the process at this interval, and the calls that it can
/// interrupt end with `EINTR`. More than `most` signals end the process.
pub fn interrupt_every(microseconds: i64, most: u64) -> io::Result<()> {
    INTERRUPTIONS_MAX.store(most, Ordering::Relaxed);
    // SAFETY: `sigaction` is integers, pointers and a bit set, for all of which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = count_interruption;
    action.sa_sigaction = handler as usize;
    let interval = libc::timeval { tv_sec: 0, tv_usec: microseconds as libc::suseconds_t };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: a handler that lives as long as the program and only adds to an atomic.
    if unsafe { libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a pointer that lives through the call.
    match unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Signals of [`interrupt_every`] until now.
pub fn interruptions() -> u64 {
    INTERRUPTIONS.load(Ordering::Relaxed)
}
