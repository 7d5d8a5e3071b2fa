//! Mapleaf: an embedded, persistent, ordered key-value store on a memory-mapped file.
#![allow(dead_code)]

mod error;
mod ids;
mod limits;
mod page;
mod pager;
mod tree;

pub use error::{Error, ErrorKind, Result};
pub use ids::PageId;
