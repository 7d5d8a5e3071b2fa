//! Which pages of a read-only mapping are in memory, and letting go of them.
//!
//! Floor: mapping.
//!
//! Failure: none. Where the system cannot say, pages are in memory; advice that it does not take
//! changes nothing.
#![allow(unsafe_code, reason = "addresses of mappings")]

use crate::mapping::window::ReadMap;
use crate::sys::os;

impl ReadMap {
    /// Whether a range of the file can be read without waiting for the disk. Where this process may
    /// not ask, as it could not write to the file, the system says that it can.
    pub(crate) fn is_at_hand(&self, offset: u64, len: u64) -> bool {
        let read_map = self.window().read_map();
        let start = offset & !(os::page_bytes() - 1);
        let end = offset.saturating_add(len).min(read_map.covered());
        // SAFETY: inside what is mapped of the read-only mapping, which the pin keeps.
        start >= end || unsafe { os::all_resident(read_map.at(start), end - start) }.unwrap_or(true)
    }

    /// Lets go of a range of the file: its pages leave memory unless somebody else has them mapped
    /// or stores to them. They can be read as before.
    pub(crate) fn give_back(&self, offset: u64, len: u64) {
        let (read_map, system) = (self.window().read_map(), os::page_bytes());
        let start = offset.next_multiple_of(system);
        let end = offset.saturating_add(len).min(read_map.covered()) & !(system - 1);
        if start < end && self.ahead().has_disk() {
            // SAFETY: inside what is mapped of the read-only mapping, a shared mapping of the file
            // that the pin keeps.
            let let_go = unsafe { os::let_go(read_map.at(start), end - start) };
            // Both are advice.
            let _stays = let_go.and_then(|()| self.ahead().drop_cache(start, end - start));
        }
    }
}
