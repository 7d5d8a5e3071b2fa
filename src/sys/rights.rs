//! The rights of a file, read from one file and given to another that is made from it.
//!
//! Floor: sys. Mode, owner and group; a POSIX access list is not copied, it only makes the copy
//! stricter.
//!
//! Invariants:
//!   RIGHTS-1  a process that may not open the source may not open the copy, except as the copy's
//!       owner: where owner or group cannot be kept, or an access list says more than the mode, the
//!       bits that could let a stranger in are left out.
//!
//! Failure: `io::Error` where the file system does not keep modes and would let more users in.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{fchown, PermissionsExt as _};

use crate::sys::{file_calls, os};

/// The attribute that holds a POSIX access list.
const ACCESS_LIST: &CStr = c"system.posix_acl_access";

/// What users may do with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileRights {
    mode: u32,
    user: u32,
    group: u32,
    /// An access list says more than the mode.
    has_list: bool,
}

impl FileRights {
    /// The rights of an open file.
    pub(crate) fn of(file: &File) -> io::Result<FileRights> {
        let found = file_calls::status(file)?;
        let has_list = os::has_attribute(file, ACCESS_LIST);
        Ok(FileRights { mode: found.mode & 0o777, user: found.user, group: found.group, has_list })
    }

    /// Gives these rights to another file, or fewer (RIGHTS-1). Until the last step the file has
    /// the rights that it was made with, which let only its owner in.
    pub(crate) fn give_to(self, file: &File) -> io::Result<()> {
        let own = FileRights::of(file)?;
        if own.user != self.user {
            // Only the superuser may give a file away; another user's copy stays that user's.
            fchown(file, Some(self.user), None).ok();
        }
        let same_group = own.group == self.group || fchown(file, None, Some(self.group)).is_ok();
        if own.has_list {
            // The folder's default list, not the database's.
            os::remove_attribute(file, ACCESS_LIST)?;
        }
        let wanted = self.without_strangers(same_group);
        match file.set_permissions(Permissions::from_mode(wanted)) {
            // FAT and the like have one mode for all files.
            Err(_) if file_calls::status(file)?.mode & 0o666 & !wanted == 0 => Ok(()),
            set => set,
        }
    }

    /// The mode of a copy (RIGHTS-1).
    fn without_strangers(self, same_group: bool) -> u32 {
        if self.has_list {
            return self.mode & 0o700;
        }
        if same_group {
            return self.mode;
        }
        // Members of the lost group count as others now, and those of the new group counted as
        // others before.
        let both = (self.mode >> 3) & self.mode & 0o7;
        self.mode & 0o700 | both << 3 | both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(mode: u32, has_list: bool) -> FileRights {
        FileRights { mode, user: 1, group: 1, has_list }
    }

    #[test]
    fn a_copy_without_the_group_lets_no_stranger_in() {
        for (mode, same, other) in [
            (0o600, 0o600, 0o600),
            (0o640, 0o640, 0o600),
            (0o644, 0o644, 0o644),
            (0o664, 0o664, 0o644),
            (0o604, 0o604, 0o600),
            (0o666, 0o666, 0o666),
            (0o400, 0o400, 0o400),
        ] {
            assert_eq!(rights(mode, false).without_strangers(true), same, "{mode:o}");
            assert_eq!(rights(mode, false).without_strangers(false), other, "{mode:o}");
            assert_eq!(rights(mode, true).without_strangers(true), mode & 0o700, "{mode:o}");
        }
    }

    #[test]
    fn rights_read_back_as_given() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        for mode in [0o600, 0o640, 0o644, 0o400] {
            from.set_permissions(Permissions::from_mode(mode)).unwrap();
            FileRights::of(&from).unwrap().give_to(&to).unwrap();
            assert_eq!(FileRights::of(&to).unwrap(), FileRights::of(&from).unwrap());
        }
    }
}
