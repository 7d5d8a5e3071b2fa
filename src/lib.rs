//! Mapleaf: an embedded, persistent, ordered key-value store on a memory-mapped file.
#![allow(dead_code)]

mod catalog;
mod db;
mod error;
mod ids;
mod limits;
mod mapping;
mod page;
mod pager;
mod table;
mod tree;
mod txn;

pub use error::{Error, ErrorKind, Result};
pub use ids::PageId;
pub use table::codec;
