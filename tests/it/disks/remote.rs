//! Drives a database in a child process, one command at a time, so that a crash of the child is a
//! result too.
//!
//! ```text
//! open          opens the database           ok
//! commit N      commits N transactions       ok LAST | failed KIND (TEXT) after LAST
//! judge         compares everything          state NUMBER | wrong WHAT
//! close         drops the handle             ok
//! ```

use std::path::Path;

use mapleaf::{Db, Options};

use crate::reexec;
use crate::workload::History;

/// A database in a child process.
pub(crate) struct Remote {
    child: reexec::Process,
}

impl Remote {
    pub(crate) fn start(path: &Path, seed: u64) -> Remote {
        Remote { child: reexec::start(reexec::command("disks::remote::remote_child", &[&path, &seed.to_string()])) }
    }

    /// Sends a command and waits for the answer; `died` if there is none.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.child.say(command);
        self.child.line().unwrap_or_else(|| "died".into())
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill();
    }
}

/// Commits this many transactions. Returns the last one, or the failure and the last one before it.
fn commit(db: &Db, history: &History, count: u64) -> String {
    let mut last = db.begin_read().and_then(|txn| history.step(&txn)).unwrap_or(0);
    for _ in 0..count {
        match history.commit_next(db) {
            Ok(txn) => last = txn,
            Err(error) => return format!("failed {:?} ({error}) after {last}", error.kind()),
        }
    }
    format!("ok {last}")
}

#[test]
fn remote_child() {
    let Some(arguments) = reexec::arguments() else { return };
    let history = History::small(arguments[1].parse().expect("a seed"));
    let mut db: Option<Db> = None;
    while let Some(command) = reexec::listen() {
        let answer = match (command.split_once(' '), &db) {
            (Some(("commit", count)), Some(db)) => commit(db, &history, count.parse().expect("a number")),
            (None, Some(db)) if command == "judge" => match history.judge(db) {
                Ok(number) => format!("state {number}"),
                Err(what) => format!("wrong {what}"),
            },
            (None, _) if command == "open" => match Options::new().open(&arguments[0]) {
                Ok(opened) => {
                    db = Some(opened);
                    "ok".into()
                }
                Err(error) => format!("failed {:?}: {error}", error.kind()),
            },
            (None, _) if command == "close" => {
                db = None;
                "ok".into()
            }
            _ => panic!("the command {command} does not fit"),
        };
        reexec::answer(&answer.replace('\n', " "));
    }
}
