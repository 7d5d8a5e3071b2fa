//! Handles SIGINT for verbs that write: the verb ends after its current batch, and all committed
//! batches stay.
//!
//! The handler runs on its own thread and sets a flag, which the verb checks between batches. A
//! verb that waits for input may never reach the check: if it is still inside a read after
//! [`GRACE`], the handler ends the process. No commit is lost, because the batch was not committed.
//!
//! Invariants:
//!   SIGINT-1  the handler ends the process only while it holds the lock of [`STATE`] and `reading`
//!             is set. The verb cannot leave the read meanwhile, so the printed number of rows is
//!             right.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::exit::{best_effort, Exit, Failure};
use crate::terminal::output;

/// Time for the verb to finish its batch before the handler may drop it.
const GRACE: Duration = Duration::from_millis(500);
/// Pause before the handler checks again whether the verb waits for input.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

static REQUESTED: AtomicBool = AtomicBool::new(false);
static STATE: Mutex<HandlerState> = Mutex::new(HandlerState { reading: false, summary: String::new(), remove: None });

/// The data that the verb and the handler share.
struct HandlerState {
    /// The verb is inside a read of its input.
    reading: bool,
    /// Tells the user how much the verb has committed so far.
    summary: String,
    /// The file to remove if the process ends now, because nothing is committed to it.
    remove: Option<PathBuf>,
}

fn state() -> MutexGuard<'static, HandlerState> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on, SIGINT sets a flag and does not kill the process.
pub(crate) fn handle_sigint() -> Result<(), Failure> {
    ctrlc::set_handler(on_signal).map_err(|error| Failure::new(Exit::Io, format!("SIGINT cannot be handled: {error}")))
}

fn on_signal() {
    REQUESTED.store(true, Ordering::SeqCst);
    std::thread::sleep(GRACE);
    loop {
        let state = state();
        // SIGINT-1: this thread holds the lock, so the verb stays in its read.
        if state.reading {
            if let Some(path) = &state.remove {
                best_effort(std::fs::remove_file(path));
            }
            output::error(&text(&state.summary));
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        drop(state);
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Whether SIGINT came: the verb should end.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Sets the text that tells the user how much is committed if the process ends now.
pub(crate) fn set_summary(summary: String) {
    state().summary = summary;
}

/// Sets the file to remove if the process ends now.
pub(crate) fn remove_on_exit(path: Option<PathBuf>) {
    state().remove = path;
}

/// The failure of a verb that ends because of SIGINT.
pub(crate) fn failure() -> Failure {
    Failure::new(Exit::Interrupted, text(&state().summary))
}

fn text(summary: &str) -> String {
    if summary.is_empty() {
        "interrupted".to_string()
    } else {
        format!("interrupted; {summary}")
    }
}

/// A reader that sets `reading` while it waits for input.
pub(crate) struct InterruptibleReader<R>(pub(crate) R);

impl<R: Read> Read for InterruptibleReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        state().reading = true;
        let result = self.0.read(buffer);
        state().reading = false;
        result
    }
}
