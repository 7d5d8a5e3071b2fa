//! Starts a child (this program with a hidden verb), reads its output and ends it.
//!
//! A thread reads the child's output, so that the parent can wait with a time limit and notice
//! SIGINT meanwhile. A child has its own process group: SIGINT of the terminal goes only to the
//! parent.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::{best_effort, Exit, Failure};
use crate::terminal::interrupt;

/// Pause between two checks for SIGINT during a wait.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A child whose standard output is a pipe. Drop kills it.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<(String, Instant)>,
}

/// The result of waiting for a line.
pub(crate) enum Event {
    Line(String, Instant),
    /// The child closed its standard output, so it has ended or is about to.
    End,
    /// The child printed nothing within the time limit.
    Timeout,
    /// SIGINT came.
    Interrupted,
}

/// Describes how a child ended; `None` for success.
pub(crate) fn ending(status: std::process::ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(101), _) => Some("it panicked".to_string()),
        (Some(code), _) => Some(format!("it ended with exit code {code}")),
        (None, Some(signal)) => Some(format!("it died of signal {signal}")),
        (None, None) => Some("it ended in an unknown way".to_string()),
    }
}

fn failed(problem: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Io, format!("torture: {problem}: {error}"))
}

impl Process {
    /// Starts a child with these arguments after the hidden verb.
    pub(crate) fn start(arguments: &[&OsStr]) -> Result<Process, Failure> {
        let program = std::env::current_exe().map_err(|error| failed("this program is not found", &error))?;
        let mut command = Command::new(program);
        command.arg("torture-child").args(arguments).process_group(0);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed("a child cannot be started", &error))?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send((line, Instant::now())).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Process { child, lines })
    }

    /// Waits for the next line, for at most `limit`.
    pub(crate) fn line(&mut self, limit: Duration) -> Event {
        let until = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(POLL_INTERVAL) {
                Ok((line, time)) => return Event::Line(line, time),
                Err(RecvTimeoutError::Disconnected) => return Event::End,
                Err(RecvTimeoutError::Timeout) if interrupt::requested() => return Event::Interrupted,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Event::Timeout,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Kills the child. Returns its remaining lines, and how it ended if it did so before the kill.
    pub(crate) fn kill(mut self) -> (Vec<String>, Option<String>) {
        best_effort(self.child.kill());
        let status = self.child.wait();
        let rest = self.lines.iter().map(|(line, _)| line).collect();
        let killed = status.as_ref().is_ok_and(|status| status.signal() == Some(9));
        (rest, status.ok().filter(|_| !killed).map(|status| ending(status).unwrap_or_else(|| "it ended".to_string())))
    }

    /// Waits for the end of a child that has closed its standard output. Describes how it ended;
    /// `None` for success.
    pub(crate) fn finish(mut self) -> Option<String> {
        self.child.wait().ok().and_then(ending)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Most often, the child has ended already.
        best_effort(self.child.kill());
        best_effort(self.child.wait());
    }
}
