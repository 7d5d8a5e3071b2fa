//! SIGINT for verbs that write: they end at the next batch, and what was committed stays.
//!
//! The handler runs on a thread of its own and only sets a flag, which the verb looks at between
//! batches. A verb that waits for input that does not come never reaches that point; when it still
//! reads after [`GRACE`], the handler ends the process itself. Nothing is lost by that: the batch
//! at hand was not committed.
//!
//! Invariant: the process is ended only while [`STATE`] is locked and says `reading`, and the verb
//! cannot leave the read meanwhile, so that what the last line says about rows is true.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::terminal::output;

/// How long a verb may take to reach the end of its batch before the batch is dropped.
const GRACE: Duration = Duration::from_millis(500);
/// How often the handler looks again whether the verb waits for input.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

static REQUESTED: AtomicBool = AtomicBool::new(false);
static STATE: Mutex<State> = Mutex::new(State { reading: false, stays: String::new(), remove: None });

struct State {
    /// The verb is inside a read of its input.
    reading: bool,
    /// What stays if the process ends now, in words.
    stays: String,
    /// A file that goes if the process ends now: nothing was committed to it.
    remove: Option<PathBuf>,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From here on SIGINT asks, and does not kill.
pub(crate) fn handle_sigint() -> Result<(), Failure> {
    ctrlc::set_handler(on_signal).map_err(|error| Failure::new(Exit::Io, format!("SIGINT cannot be handled: {error}")))
}

fn on_signal() {
    REQUESTED.store(true, Ordering::SeqCst);
    std::thread::sleep(GRACE);
    loop {
        let state = state();
        if state.reading {
            if let Some(path) = &state.remove {
                std::fs::remove_file(path).ok();
            }
            output::error(&text(&state.stays));
            std::process::exit(i32::from(Exit::Interrupted.code()));
        }
        drop(state);
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Whether the user wants the verb to end.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Notes what stays if the process ends now.
pub(crate) fn say_what_stays(stays: String) {
    state().stays = stays;
}

/// Notes which file goes if the process ends now.
pub(crate) fn remove_on_exit(path: Option<PathBuf>) {
    state().remove = path;
}

/// The failure that a verb ends with when [`requested`].
pub(crate) fn failure() -> Failure {
    Failure::new(Exit::Interrupted, text(&state().stays))
}

fn text(stays: &str) -> String {
    if stays.is_empty() {
        "interrupted".to_string()
    } else {
        format!("interrupted; {stays}")
    }
}

/// A reader that lets the handler know when it waits.
pub(crate) struct InterruptibleReader<R>(pub(crate) R);

impl<R: Read> Read for InterruptibleReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        state().reading = true;
        let result = self.0.read(buffer);
        state().reading = false;
        result
    }
}
