//! Draws the progress line on standard error, in place, and only on a terminal.
//!
//! The line is always shorter than the terminal's width: it never wraps, so one erase sequence
//! removes it. All other output to the terminal erases it first ([`clear`]). After an error, no
//! line is drawn ([`end`]).

use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::exit::best_effort;

/// Minimum time between two drawings.
const REDRAW: Duration = Duration::from_millis(100);
/// Widest and narrowest bar, in columns, including its brackets.
const BAR_COLUMNS_MAX: usize = 30;
const BAR_COLUMNS_MIN: usize = 10;

static LINE: Mutex<Line> = Mutex::new(Line { drawn: false, ended: false });

/// The state of the terminal's last line.
struct Line {
    /// The line of the cursor shows progress.
    drawn: bool,
    /// Progress is no longer drawn.
    ended: bool,
}

fn line() -> MutexGuard<'static, Line> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            best_effort(io::stderr().lock().write_all(b"\r\x1b[K"));
        }
    }
}

/// Erases the progress line, before other output.
pub(crate) fn clear() {
    line().clear();
}

/// Erases the progress line and draws none from here on.
pub(crate) fn end() {
    let mut line = line();
    line.clear();
    line.ended = true;
}

/// Makes the first output erase a progress line that the parent process may have drawn on the same
/// terminal.
pub(crate) fn expect_line_of_parent() {
    line().drawn = is_shown();
}

fn is_shown() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|name| name != "dumb")
}

/// The unit of the counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Bytes,
    Items(&'static str),
}

/// Progress of one verb. Clones share the counts.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Mutex<Counts>>);

/// The counts of a verb, and the state of its drawing.
struct Counts {
    unit: Unit,
    done: u64,
    all: Option<u64>,
    /// Shown after the counts.
    note: String,
    started: Instant,
    /// The time of the last drawing.
    drawn: Option<Instant>,
    /// Whether standard error is a terminal that can show the line.
    shown: bool,
}

impl Progress {
    /// Progress from 0 to `all`, if the total is known already.
    pub(crate) fn new(unit: Unit, all: Option<u64>) -> Progress {
        let (started, note) = (Instant::now(), String::new());
        Progress(Arc::new(Mutex::new(Counts { unit, done: 0, all, note, started, drawn: None, shown: is_shown() })))
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let due = state.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW);
        if state.shown && due {
            state.drawn = Some(Instant::now());
            draw(&state.text(console::Term::stderr().size().1.into(), state.started.elapsed()));
        }
    }

    /// Sets the finished count and the total.
    pub(crate) fn set(&self, done: u64, all: u64) {
        self.change(|state| (state.done, state.all) = (done, Some(all)));
    }

    /// Adds to the finished count.
    pub(crate) fn add(&self, done: u64) {
        self.change(|state| state.done += done);
    }

    /// Sets the note that is shown after the counts.
    pub(crate) fn set_note(&self, note: String) {
        self.change(|state| state.note = note);
    }
}

fn draw(text: &str) {
    let mut line = line();
    if !line.ended {
        line.drawn = true;
        best_effort(io::stderr().lock().write_all(format!("\r{text}\x1b[K").as_bytes()));
    }
}

impl Counts {
    /// The line for a terminal of this width: the most important parts that fit, and a bar if there
    /// is room. ASCII only.
    fn text(&self, columns: usize, elapsed: Duration) -> String {
        let room = columns.saturating_sub(1);
        let mut text = String::new();
        for part in self.parts(elapsed) {
            if text.is_empty() {
                text.extend(part.chars().take(room));
            } else if text.len() + 2 + part.len() <= room {
                text = format!("{text}  {part}");
            }
        }
        let left = room.saturating_sub(text.len() + 2).min(BAR_COLUMNS_MAX);
        match self.share() {
            Some(share) if left >= BAR_COLUMNS_MIN => {
                let full = ((left - 2) as f64 * share) as usize;
                format!("[{}{}]  {text}", "=".repeat(full), " ".repeat(left - 2 - full))
            }
            _ => text,
        }
    }

    fn share(&self) -> Option<f64> {
        let all = self.all.filter(|all| *all > 0)?;
        Some((self.done as f64 / all as f64).min(1.0))
    }

    fn parts(&self, elapsed: Duration) -> Vec<String> {
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let mut parts: Vec<String> = self.share().map(|share| format!("{:>3.0}%", share * 100.0)).into_iter().collect();
        match (self.unit, self.all) {
            (Unit::Bytes, _) => parts.push(mebibytes(self.done as f64)),
            (Unit::Items(what), Some(all)) => parts.push(format!("{} of {all} {what}", self.done)),
            (Unit::Items(_), None) => {}
        }
        parts.extend((!self.note.is_empty()).then(|| self.note.clone()));
        if matches!(self.unit, Unit::Bytes) {
            parts.push(format!("{}/s", mebibytes(self.done as f64 / seconds)));
        }
        if let Some(share) = self.share().filter(|share| *share > 0.0) {
            parts.push(format!("{:.0}s left", seconds / share - seconds));
        }
        parts
    }
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

/// A reader that adds the bytes it reads to the progress.
pub(crate) struct CountingReader<R>(pub(crate) R, pub(crate) Progress);

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read(buffer)?;
        self.1.add(bytes as u64);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress_never_fills_the_width() {
        let started = Instant::now();
        for (unit, all) in [(Unit::Bytes, None), (Unit::Bytes, Some(u64::MAX)), (Unit::Items("entries"), Some(1 << 50))]
        {
            let done = 1 << 49;
            let note = "1000000 rows".to_string();
            let state = Counts { unit, done, all, note, started, drawn: None, shown: true };
            for columns in 0..200 {
                let text = state.text(columns, Duration::from_secs(7));
                assert!(text.is_ascii() && text.len() <= columns.saturating_sub(1), "{columns}: {text}");
            }
        }
    }

    #[test]
    fn a_narrow_line_leaves_out_the_least_important_parts() {
        let (unit, all, started) = (Unit::Bytes, Some(4 << 20), Instant::now());
        let state = Counts { unit, done: 1 << 20, all, note: "9 rows".to_string(), started, drawn: None, shown: true };
        let bar = format!("[{}{}]", "=".repeat(7), " ".repeat(21));
        for (columns, text) in [
            (80, format!("{bar}   25%  1.0 MiB  9 rows  1.0 MiB/s  3s left").as_str()),
            (50, " 25%  1.0 MiB  9 rows  1.0 MiB/s  3s left"),
            (24, " 25%  1.0 MiB  9 rows"),
            (12, " 25%"),
            (3, " 2"),
        ] {
            assert_eq!(state.text(columns, Duration::from_secs(1)), text, "{columns}");
        }
    }
}
