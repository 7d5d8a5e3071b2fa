//! A process that has a database open, as the first process sees it.
//!
//! Orders go down a pipe and answers come back up another (`child.rs`): `tell` several members, then take each `answer`,
//! and they have worked at the same time. A member that is dropped is killed.

use super::child::CHILD;
use crate::measure::Run;
use crate::Res;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// How an engine is opened.
#[derive(Clone, Copy)]
pub(super) struct Variant {
    /// The row of a figure.
    pub(super) name: &'static str,
    pub(super) engine: &'static str,
    /// What `child.rs` knows, with commas between.
    pub(super) flags: &'static str,
}

pub(super) const SHARED: Variant = Variant { name: "mapleaf", engine: "mapleaf", flags: "-" };
pub(super) const EXCLUSIVE: Variant = Variant { name: "mapleaf-exclusive", engine: "mapleaf", flags: "exclusive" };
pub(super) const LMDB: Variant = Variant { name: "lmdb", engine: "lmdb", flags: "-" };

pub(super) struct Member {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Nanoseconds of opening and a first get.
    pub(super) opening: f64,
}

impl Member {
    /// Starts a process, which opens the file and looks the entry at `place` up.
    pub(super) fn open(run: &Run<'_>, variant: Variant, path: &Path, place: u32) -> Res<Member> {
        Member::open_of(run, variant, path, place, run.data.entries)
    }

    /// The same with a file of so many entries.
    pub(super) fn open_of(run: &Run<'_>, variant: Variant, path: &Path, place: u32, entries: u32) -> Res<Member> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([CHILD, variant.engine, variant.flags, run.data.shape.name(), &entries.to_string()])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err("a process without pipes".into()) };
        let output = BufReader::new(output);
        let mut member = Member { name: variant.name, child, input, output, opening: 0.0 };
        member.opening = member.ask(&format!("open {place}"))?[0];
        Ok(member)
    }

    pub(super) fn tell(&mut self, order: &str) -> Res<()> {
        writeln!(self.input, "{order}").map_err(|e| format!("{}: {order}: {e}", self.name).into())
    }

    pub(super) fn answer(&mut self) -> Res<Vec<f64>> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            return Err(format!("{}: the process ended: {}", self.name, self.child.wait()?).into());
        }
        if let Some(error) = line.strip_prefix("error ") {
            return Err(format!("{}: {}", self.name, error.trim()).into());
        }
        Ok(line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    }

    pub(super) fn ask(&mut self, order: &str) -> Res<Vec<f64>> {
        self.tell(order)?;
        self.answer().map_err(|e| format!("{order}: {e}").into())
    }

    /// Closes the database and ends the process.
    pub(super) fn close(mut self) -> Res<()> {
        self.ask("close").map(|_| ())
    }

    /// Sends SIGKILL, and returns before the process is gone.
    pub(super) fn kill(&mut self) -> Res<()> {
        Ok(self.child.kill()?)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has all members do the same at the same time.
pub(super) fn together(members: &mut [Member], order: impl Fn(usize) -> String) -> Res<Vec<Vec<f64>>> {
    for (i, member) in members.iter_mut().enumerate() {
        member.tell(&order(i))?;
    }
    // All answers are taken, so that none is left for the next order.
    let answers: Vec<Res<Vec<f64>>> = members.iter_mut().map(Member::answer).collect();
    answers.into_iter().collect()
}
