//! What a mapping needs for stores alone, made before the first of them; and the byte that shows
//! that a file was cut.
//!
//! Floor: mapping. Most openings for writing are soon followed by a read, and many by nothing else.
//! So a file is mapped as if it was only read: its last byte that is not zero is the sentinel
//! (`window`), its length stays, and of the writable mapping there is address space alone. What
//! stores need besides comes with [`Mapping::ready_to_write`]: the writable mapping, the page of
//! the sentinel behind the end, and a look at the blocks of the file.
//!
//! Invariants:
//!   READY-1  a file that lost its end since it was mapped is not made longer.
//!   READY-2  the sentinel moves when its new place is marked and the old one was found whole: what
//!       was cut before is seen at the old place, what is cut later at the new one. While it moves
//!       it has to be there and no more.
//!
//! Failure: errors of the system, and the file goes on as it was, but maybe longer.

use crate::hooks::{self, Moment};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use super::window::{self, Window};
use crate::mapping::{budget, lock, Mapping};
use crate::sys::{extents, file_calls, os, refused};

impl Mapping {
    /// Whether the mapping can be stored to.
    pub(crate) fn is_ready_to_write(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Makes a writable mapping one that can be stored to. Readers go on meanwhile.
    pub(crate) fn ready_to_write(&self) -> io::Result<()> {
        assert!(self.writable, "stores to a read-only mapping");
        let _resizing = lock(&self.resizing);
        if self.is_ready_to_write() {
            return Ok(());
        }
        let window = self.window();
        let used = window.mapped();
        if !self.has_whole(used)? {
            return Err(io::Error::other("the file was cut, or an access to it failed"));
        }
        let mapped_to = with_sentinel(used)?;
        window.extend(&self.file, mapped_to).map_err(|e| budget::explain(e, mapped_to))?;
        self.look_at_blocks(used)?;
        let verified = lengthen_for_sentinel(&self.file, used)?;
        if !window.all_served() {
            return Err(io::Error::other("the file was cut while it was made ready for writing"));
        }
        window.retire();
        if verified {
            window.watch_byte(window::sentinel_offset(used), window::SENTINEL);
        }
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Finds out whether stores can meet a full disk.
    fn look_at_blocks(&self, used: u64) -> io::Result<()> {
        if self.anonymous {
            return Ok(());
        }
        let copies = extents::is_copy_on_write(&self.file);
        self.prefault_first.store(copies, Ordering::Relaxed);
        let lacks = !copies && !extents::has_all_blocks(&self.file, used)?;
        self.lacks_blocks.store(lacks, Ordering::Relaxed);
        Ok(())
    }
}

/// The length of a file of which `used` bytes are used, with room for the sentinel.
pub(super) fn with_sentinel(used: u64) -> io::Result<u64> {
    let system = os::page_bytes();
    window::round_up(used, system)?.checked_add(system).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

/// Stores the sentinel behind what is used of a file that is long enough.
pub(super) fn write_sentinel(file: &File, used: u64) -> io::Result<()> {
    file_calls::write_at(file, &[window::SENTINEL], window::sentinel_offset(used))
}

/// Makes a file long enough for the sentinel and stores it. `false` where that cannot be, for want
/// of room: what is used goes on without. The file gets longer all the same if it may: that takes
/// no room, and whoever opens it next sees that it was not closed in order.
fn lengthen_for_sentinel(file: &File, used: u64) -> io::Result<bool> {
    hooks::reach(Moment::Lengthening);
    let (len, wanted) = (file_calls::end_of(file)?, with_sentinel(used)?);
    if file_calls::within_size_limit(wanted).is_err() {
        return Ok(false);
    }
    let backed = file_calls::reserve_blocks(file, used, wanted - used).is_ok();
    let lengthened = if len < wanted { file_calls::set_len(file, wanted) } else { Ok(()) };
    if !backed {
        return Ok(false);
    }
    lengthened?;
    Ok(write_sentinel(file, used).is_ok())
}

/// Zeros at the end of a file that are looked through for a byte to watch.
const ZEROS_MAX_BYTES: u64 = 1 << 20;

/// Makes the last byte that is not zero the sentinel of a file that is only read so far: if the
/// file is cut behind it, zeros are lost, which reading shows all the same. Looks through the last
/// MiB; where that is all zeros, being there is what counts.
pub(super) fn watch_last_byte(file: &File, window: &Window, used: u64) -> io::Result<()> {
    let mut end = used;
    let least = used.saturating_sub(ZEROS_MAX_BYTES);
    while end > least {
        let start = (end - 1) & !(os::page_bytes() - 1);
        let mut bytes = vec![0; (end - start) as usize];
        // A page that cannot be read is an error of those who need it.
        match file.read_exact_at(&mut bytes, start) {
            Err(error) if refused::is(&error) => return Err(refused::by("pread")(error)),
            Err(_) => break,
            Ok(()) => {}
        }
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            window.watch_byte(start + last as u64, bytes[last]);
            break;
        }
        end = start;
    }
    Ok(())
}
