//! Shared parts of the tests: running `kvctl`, and temporary folders.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The output of a run, and its exit code.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `kvctl` without standard input.
pub(crate) fn kvctl(args: &[&str]) -> Ran {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kvctl"));
    Ran::from(command.args(args).stdin(Stdio::null()).output().unwrap())
}

/// Runs `kvctl` with this on standard input.
pub(crate) fn kvctl_with(args: &[&str], stdin: &[u8]) -> Ran {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("kvctl"));
    command.args(args);
    Ran::from(assert_cmd::Command::from_std(command).write_stdin(stdin).output().unwrap())
}

impl From<Output> for Ran {
    fn from(ran: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
    }
}

/// A temporary folder of a test.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    /// The names of its files, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names_beside_locks(self.0.path(), &[])
    }

    /// The same without the lock files of these databases.
    pub(crate) fn names_beside_locks(&self, databases: &[&str]) -> Vec<String> {
        names_beside_locks(self.0.path(), databases)
    }
}

/// The names in a folder, sorted, without the lock files of these databases: a lock file stays when
/// its database is closed.
pub(crate) fn names_beside_locks(folder: &Path, databases: &[&str]) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_lock_file = |name: &str| name.strip_suffix("-lock").is_some_and(|of| databases.contains(&of));
    let mut names: Vec<String> = names.filter(|name| !is_lock_file(name)).collect();
    names.sort();
    names
}
