//! The page manager: pages by id, allocation, free space.
//!
//! Floor: pager.

mod traits;

pub(crate) use traits::{PageRead, PageWrite};
