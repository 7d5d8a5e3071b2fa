//! Child processes: the test binary starts itself to run one test, which does nothing when it runs
//! otherwise.
//!
//! The parent passes instructions in the environment. The child answers with lines that begin with
//! `@`, to tell them from the output of the test harness.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use mapleaf::testing::die_after;

const ARGUMENTS: &str = "MAPLEAF_TEST_CHILD";

/// A child with pipes. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// The command that runs the child `test` with arguments. The caller may change it before the
/// start.
pub(crate) fn command(test: &str, arguments: &[&dyn AsRef<OsStr>]) -> Command {
    let mut joined = std::ffi::OsString::new();
    for argument in arguments {
        joined.push(argument.as_ref());
        joined.push("\n");
    }
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ARGUMENTS, joined);
    command
}

/// Starts a child.
pub(crate) fn start(mut command: Command) -> Process {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child");
    let stdout = BufReader::new(child.stdout.take().expect("stdout"));
    Process { stdin: child.stdin.take(), child, stdout }
}

impl Process {
    /// The process id.
    pub(crate) fn number(&self) -> u32 {
        self.child.id()
    }

    /// The next line of the child; `None` when it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).ok().filter(|&read| read > 0).is_none() || !line.ends_with('\n') {
                return None;
            }
            // The harness prints the name of the test before the child's first output.
            if let Some(at) = line.find('@') {
                return Some(line[at + 1..].trim_end().to_string());
            }
        }
    }

    /// Sends a line to the child.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("not closed");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("a child that listens");
    }

    /// Sends SIGKILL and waits until the child has died.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("to kill the child");
        self.child.wait().expect("a child that ends");
    }

    /// Sends SIGKILL. Returns what the child had said, and how it has ended, which may have been
    /// before.
    pub(crate) fn kill_and_hear(&mut self) -> (Vec<String>, ExitStatus) {
        self.child.kill().expect("to kill the child");
        let status = self.child.wait().expect("a child that ends");
        (std::iter::from_fn(|| self.line()).collect(), status)
    }

    /// Waits until the child has ended in any way.
    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().expect("a child that ends")
    }

    /// Waits for the end of the child and asserts that its test passes.
    pub(crate) fn finish(mut self) {
        drop(self.stdin.take());
        while self.line().is_some() {}
        assert!(self.child.wait().expect("a child that ends").success(), "the child failed");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Most often, the child has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Seconds that a watched child may take for one step.
pub(crate) const PATIENCE: u32 = 60;

/// In the child: it ends by a signal when it takes too long until the next [`progress`], and when
/// any of its threads panics.
pub(crate) fn watch() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
    progress();
}

/// In a watched child: begins the next step.
pub(crate) fn progress() {
    die_after(PATIENCE);
}

/// In a watched child: it may take any time for what comes, such as waiting for its parent.
pub(crate) fn rest() {
    die_after(0);
}

/// In the child: the arguments. `None` if this process is not a child.
pub(crate) fn arguments() -> Option<Vec<String>> {
    let joined = std::env::var(ARGUMENTS).ok()?;
    Some(joined.lines().map(str::to_string).collect())
}

/// In the child: sends a line to the parent.
pub(crate) fn answer(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{line}").and_then(|()| out.flush()).expect("a parent that listens");
}

/// In the child: waits for a line, or for the parent to close the pipe.
pub(crate) fn listen() -> Option<String> {
    let mut line = Vec::new();
    for byte in std::io::stdin().lock().bytes() {
        match byte {
            Ok(b'\n') | Err(_) => break,
            Ok(byte) => line.push(byte),
        }
    }
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}
