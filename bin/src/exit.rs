//! Exit codes, and the failures that carry them.
//!
//! All verbs share one table of exit codes; `--help` prints it. A verb that fails returns a
//! [`Failure`]: the exit code, and one line of text that names the remedy. Not every error of the
//! library names a remedy; this module adds it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use mapleaf::{Error, ErrorKind};

/// Ignores a result: nothing depends on this call, and the user need not know that it failed.
pub(crate) fn best_effort<T, E>(_: Result<T, E>) {}

/// How a run of `kvctl` ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    No = 1,
    Usage = 2,
    File = 3,
    Loss = 4,
    Held = 5,
    Input = 65,
    NotFound = 66,
    Io = 74,
    Permission = 77,
    Interrupted = 130,
}

/// Every exit code with its meaning, in the order of `--help`.
const TABLE: [(Exit, &str); 11] = [
    (Exit::Done, "done (also if the reader of a pipe closed it)"),
    (Exit::No, "the answer is no: the key is absent, a check of txn or cas failed, or check found damage"),
    (Exit::Usage, "wrong arguments, or a key or value over its limit"),
    (
        Exit::File,
        "the file is not a Mapleaf database, or is newer, empty, cut or damaged; an entry does not decode; torture: a \
         violation",
    ),
    (Exit::Loss, "recover or salvage succeeded, and reported a loss"),
    (Exit::Held, "another process holds the database"),
    (Exit::Input, "malformed line in the input of load or txn"),
    (Exit::NotFound, "no such file, for verbs that only read, and for input files"),
    (Exit::Io, "the kernel reported an error, or the disk is full"),
    (Exit::Permission, "permission denied"),
    (Exit::Interrupted, "interrupted; committed transactions stay"),
];

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// The table of exit codes as `--help` shows it.
pub(crate) fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in TABLE {
        best_effort(writeln!(text, "  {:>3}  {meaning}", exit.code()));
    }
    text
}

/// The failure of a verb.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One line for standard error; `None` prints nothing.
    pub(crate) text: Option<String>,
}

/// The result of a verb.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Failure {
        Failure { exit, text: Some(text.into()) }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, text)
    }

    /// The kernel's error for creating a file. The text names a missing folder.
    pub(crate) fn creating(name: &str, path: &Path, error: &io::Error) -> Failure {
        match missing_folder(path, error) {
            Some(text) => Failure::new(Exit::Io, format!("{name}: {text}")),
            None => Failure::writing(name, error),
        }
    }

    /// The kernel's error for reading an input file (not a database).
    pub(crate) fn reading(name: &str, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{name}: no such file; check the path")),
            io::ErrorKind::PermissionDenied => Failure::new(Exit::Permission, denied(name)),
            _ => Failure::new(Exit::Io, format!("{name}: cannot be read: {error}")),
        }
    }

    /// The kernel's error for writing output. It is success if the reader of a pipe closed it.
    pub(crate) fn writing(name: &str, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { exit: Exit::Done, text: None },
            io::ErrorKind::PermissionDenied => Failure::new(Exit::Permission, denied(name)),
            io::ErrorKind::FileTooLarge => Failure::new(
                Exit::Io,
                format!("{name}: cannot be written: {error}; raise the limit on the size of files ('ulimit -f')"),
            ),
            io::ErrorKind::ReadOnlyFilesystem => Failure::new(
                Exit::Io,
                format!("{name}: cannot be written: {error}; choose a path elsewhere, or mount it for writing"),
            ),
            _ => Failure::new(Exit::Io, format!("{name}: cannot be written: {error}")),
        }
    }

    /// Puts the place of the failure before the text.
    pub(crate) fn prepend(mut self, place: &str) -> Failure {
        self.text = self.text.map(|text| format!("{place}: {text}"));
        self
    }

    /// Appends more to the text.
    pub(crate) fn append(mut self, more: &str) -> Failure {
        self.text = self.text.map(|text| format!("{text}; {more}"));
        self
    }

    /// The failure for an error of the library; adds the path if the error does not name it.
    pub(crate) fn of_database(error: Error, path: &Path) -> Failure {
        Failure::from(error).of_file(path)
    }

    /// Puts the path of a file before a text that does not name it.
    pub(crate) fn of_file(self, path: &Path) -> Failure {
        let shown = path.display().to_string();
        match &self.text {
            Some(text) if !text.contains(&shown) => self.prepend(&shown),
            _ => self,
        }
    }
}

/// The text for a file that cannot be created because a folder of its path does not exist.
fn missing_folder(path: &Path, error: &io::Error) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    let missing = folder.ancestors().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()).last()?;
    let text = format!("the folder '{}' does not exist; create it first, or choose another path", missing.display());
    (error.kind() == io::ErrorKind::NotFound).then_some(text)
}

fn denied(name: &str) -> String {
    format!("{name}: permission denied; check the owner and mode of the file and of its folder")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let text = with_verbs(&error.to_string());
        let has_no_meta = error.kind() == ErrorKind::Corrupt && text.contains("no meta page is usable");
        let failure = Failure::new(exit_of(error.kind()), text);
        let remedy = if has_no_meta { Some(SALVAGE) } else { remedy(error.kind()) };
        match remedy.filter(|_| !is_refused(&error)) {
            // A text that names a verb already has a remedy.
            Some(remedy) if failure.text.as_ref().is_none_or(|text| !text.contains("'kvctl ")) => {
                failure.append(remedy)
            }
            _ => failure,
        }
    }
}

/// The only remedy if no meta page is usable: `check` and `recover` find no state then.
const SALVAGE: &str = "'kvctl salvage FILE OUT' copies what can be read";

/// Replaces the functions of the library in its texts by verbs of `kvctl`.
fn with_verbs(text: &str) -> String {
    const REPLACEMENTS: [(&str, &str); 4] = [
        (" or Options::recover", ""),
        (" or Db::salvage", ""),
        ("Options::read_only(true) or ", ""),
        ("Db::salvage copies", "'kvctl salvage FILE OUT' copies"),
    ];
    REPLACEMENTS.iter().fold(text.to_string(), |text, (function, verb)| text.replace(function, verb))
}

/// Whether the kernel refused a call for a reason other than owner and mode. The error's text names
/// the reason.
fn is_refused(error: &Error) -> bool {
    error.kind() == ErrorKind::Permission && !error.to_string().ends_with(": permission denied")
}

/// The exit code for a kind of error of the library.
fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Usage | ErrorKind::TooLarge => Exit::Usage,
        ErrorKind::NotADatabase
        | ErrorKind::NewerVersion
        | ErrorKind::EmptyFile
        | ErrorKind::Truncated
        | ErrorKind::Corrupt
        | ErrorKind::Decode
        | ErrorKind::Fault => Exit::File,
        ErrorKind::Locked | ErrorKind::Busy | ErrorKind::WouldBlock | ErrorKind::Poisoned => Exit::Held,
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::Permission => Exit::Permission,
        // Io, DiskFull, and kinds that a later release of the library adds.
        _ => Exit::Io,
    }
}

/// The remedy, for the kinds whose text in the library does not end with one.
fn remedy(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::TooLarge => Some("shorten it"),
        ErrorKind::NotADatabase => Some("check the path; the file was not touched"),
        ErrorKind::NewerVersion => Some("use the release that wrote the file, or a later one"),
        ErrorKind::Corrupt => Some(
            "'kvctl check FILE' lists all damage, 'kvctl recover FILE' goes back to an older state if that is whole, \
             'kvctl salvage FILE OUT' copies what can be read",
        ),
        ErrorKind::Fault => {
            Some("check the disk and the length of the file; 'kvctl salvage FILE OUT' copies what can be read")
        }
        ErrorKind::Busy => Some("try again"),
        ErrorKind::NotFound => Some("check the path"),
        ErrorKind::Permission => Some("check the owner and mode of the file and of its folder"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_exit_code_of_the_table() {
        for (kind, code) in [
            (ErrorKind::Usage, 2),
            (ErrorKind::TooLarge, 2),
            (ErrorKind::NotADatabase, 3),
            (ErrorKind::NewerVersion, 3),
            (ErrorKind::EmptyFile, 3),
            (ErrorKind::Truncated, 3),
            (ErrorKind::Corrupt, 3),
            (ErrorKind::Decode, 3),
            (ErrorKind::Fault, 3),
            (ErrorKind::Locked, 5),
            (ErrorKind::Busy, 5),
            (ErrorKind::WouldBlock, 5),
            (ErrorKind::Poisoned, 5),
            (ErrorKind::NotFound, 66),
            (ErrorKind::Io, 74),
            (ErrorKind::DiskFull, 74),
            (ErrorKind::Permission, 77),
        ] {
            assert_eq!(exit_of(kind).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn io_errors_have_their_exit_codes() {
        use io::ErrorKind as K;
        let reading = |kind| Failure::reading("x", &io::Error::from(kind)).exit;
        assert_eq!(reading(K::NotFound), Exit::NotFound);
        assert_eq!(reading(K::PermissionDenied), Exit::Permission);
        assert_eq!(reading(K::InvalidData), Exit::Io);
        let writing = |kind| Failure::writing("x", &io::Error::from(kind));
        assert_eq!(writing(K::NotFound).exit, Exit::Io);
        assert_eq!(writing(K::PermissionDenied).exit, Exit::Permission);
        assert_eq!(writing(K::BrokenPipe).exit, Exit::Done);
        assert_eq!(writing(K::BrokenPipe).text, None);
    }

    #[test]
    fn help_lists_every_code_once() {
        let text = help();
        for code in [0, 1, 2, 3, 4, 5, 65, 66, 74, 77, 130] {
            let rows = text.lines().filter(|line| line.starts_with(&format!("  {code:>3}  "))).count();
            assert_eq!(rows, 1, "{code}");
        }
    }

    #[test]
    fn a_refused_call_is_not_blamed_on_owner_and_mode() {
        let denied = |code| Error::Permission {
            op: "locking",
            path: "a.mapleaf".into(),
            source: io::Error::from_raw_os_error(code),
        };
        let (eperm, eacces) = (1, 13);
        let refused = Failure::from(denied(eperm));
        let text = refused.text.unwrap_or_default();
        assert!(text.contains("os error 1") && text.contains("sandbox") && !text.contains("owner"), "{text}");
        assert_eq!(refused.exit, Exit::Permission);
        assert!(Failure::from(denied(eacces)).text.is_some_and(|text| text.contains("check the owner and mode")));
    }

    #[test]
    fn a_database_failure_names_its_file_once() {
        let path = Path::new("a.mapleaf");
        let named = Failure::of_database(Error::EmptyFile { path: path.into() }, path);
        assert_eq!(named.text.map(|text| text.matches("a.mapleaf").count()), Some(1));
        let unnamed = Failure::of_database(Error::Usage { what: "no".into() }, path);
        assert_eq!(unnamed.text.as_deref(), Some("a.mapleaf: no"));
    }
}
