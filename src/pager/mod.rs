//! Pages by id: reading, allocating, freeing, and free space in memory.
//!
//! Floor: pager. The floors above see pages through two small traits: [`PageRead`] can only read,
//! [`PageWrite`] can also allocate. A read path therefore cannot allocate, and a tree is tested
//! over a `Vec` of pages.
//!
//! ```text
//! traits                  PageRead and PageWrite
//! read/snapshot_pages     pages of a committed state, verified on first touch
//! read/residency          which pages are in memory; read-ahead and releasing memory
//! read/file_pages         pages of a damaged file, read without a mapping
//! read/page_map           a set of page ids, for walks over a whole state
//! write/txn_pages         pages of the running write transaction: claim, change, free, seal
//! write/free_space        usable, pending and freed pages: when a page may be reused (R5)
//! write/prefault          a thread that prefaults fresh pages ahead of the writer
//! write/append_buffer     the page that appends fill, in private memory
//! write/write_queue       pages built in private memory, written by a thread with `pwrite`
//! write/overflow_writer   long values, written by `pwrite`
//! ```

pub(crate) mod read;
mod traits;
pub(crate) mod write;

pub(crate) use read::residency::{Around, Residency};
pub(crate) use traits::{PageRead, PageWrite};
