//! Starts a child (this program with a hidden verb), reads its output and ends it.
//!
//! A thread reads the child's output, so that the parent waits with a limit and notices SIGINT
//! meanwhile. A child has its own process group: SIGINT of the terminal goes only to the parent.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::exit::{Exit, Failure};
use crate::terminal::interrupt;

/// Pause between two checks for SIGINT during a wait.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A child whose standard output is a pipe. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<(String, Instant)>,
}

/// The result of waiting for a line.
pub(crate) enum Event {
    Line(String, Instant),
    /// The child closed its standard output: it has ended.
    End,
    /// The child printed nothing for too long.
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

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Io, format!("torture: {what}: {error}"))
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
                Ok((line, at)) => return Event::Line(line, at),
                Err(RecvTimeoutError::Disconnected) => return Event::End,
                Err(RecvTimeoutError::Timeout) if interrupt::requested() => return Event::Interrupted,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Event::Timeout,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Kills the child. Returns its remaining lines, and how it ended if it did so before the kill.
    pub(crate) fn kill(mut self) -> (Vec<String>, Option<String>) {
        self.child.kill().ok();
        let status = self.child.wait();
        let rest = self.lines.iter().map(|(line, _)| line).collect();
        let killed = status.as_ref().is_ok_and(|status| status.signal() == Some(9));
        (rest, status.ok().filter(|_| !killed).map(|status| ending(status).unwrap_or_else(|| "it ended".to_string())))
    }

    /// Waits until a child that has closed its standard output ends. Describes how; `None` for
    /// success.
    pub(crate) fn finish(mut self) -> Option<String> {
        self.child.wait().ok().and_then(ending)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Most often, the child has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
