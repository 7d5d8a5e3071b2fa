//! What can go wrong in the storage of a node.
//!
//! openraft stops a node after any error of its storage; the node says why until it is started
//! again. The text of the error is what an operator sees, so it names file and remedy.

use std::io;
use std::path::{Path, PathBuf};

/// The result of a storage operation.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A Mapleaf file cannot be used. Its text says what to do.
    #[error("{0}")]
    Store(#[from] mapleaf::Error),
    /// The kernel refused to change the directory of the node.
    #[error("{what} {}: {source}", path.display())]
    Files {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A record of the log or of the state machine has bytes that this release cannot decode.
    #[error("{what} cannot be decoded ({source}); the file was written by another program or release")]
    Decode {
        /// The record.
        what: String,
        /// Why.
        source: postcard::Error,
    },
    /// A snapshot that was received is incomplete or damaged. It was not installed; the leader
    /// sends another one.
    #[error("the snapshot was not installed: {0}")]
    Snapshot(String),
    /// openraft asked for something that would break a promise of the log or the state machine.
    #[error("{0}")]
    Refused(String),
    /// An earlier write failed. Start the node again.
    #[error("the log takes no more changes since a write failed ({0}); start the node again")]
    Stopped(String),
}

impl Error {
    /// Turns an error of the kernel about a path into one of these.
    pub(crate) fn files(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Files { what, path, source }
    }

    /// Turns an error of decoding into one of these.
    pub(crate) fn decode(what: impl Into<String>) -> impl FnOnce(postcard::Error) -> Error {
        let what = what.into();
        move |source| Error::Decode { what, source }
    }
}
