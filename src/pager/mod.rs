//! The page manager: pages by id, allocation, free space.
//!
//! Floor: pager. Outer floors see pages through two small traits: [`PageRead`] can only read, [`PageWrite`] can also
//! allocate, so that a read path cannot allocate and a tree is tested over a `Vec` of pages.
//!
//! ```text
//! traits          the two traits
//! snapshot_pages  pages of a committed state, verified on first touch
//! residence       which pages are in memory, and which are to be
//! txn_pages       pages of the running write transaction: the writable mapping and its claims
//! file_pages      pages of a file that nothing is mapped from, for damaged files
//! page_map        which pages were met
//! free_space      which pages may be handed out, in memory
//! prefault        faults of fresh pages, taken ahead of a large transaction
//! append buffer            a page that is filled by appends, in private memory
//! write queue          pages that are built in memory and written by calls
//! value_run       runs of values that are written by calls
//! ```

pub(crate) mod read;
mod traits;
pub(crate) mod write;

pub(crate) use read::residency::{Around, Residency};
pub(crate) use traits::{PageRead, PageWrite};
