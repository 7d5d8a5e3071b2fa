//! The rights of a file, copied to another file that is made from it.
//!
//! Floor: sys. Rights are mode, owner and group. A POSIX access list is not copied; it only makes
//! the copy stricter.
//!
//! Invariants:
//!   RIGHTS-1  a process that may not open the source may not open the copy, unless it is the owner
//!       of the copy. If owner or group cannot be copied, or an access list exists, the copy gets
//!       no mode bit that could admit another user.
//!
//! Failure: `io::Error` if the file system does not keep modes and would admit more users.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{fchown, PermissionsExt as _};

use crate::error::best_effort;
use crate::sys::{attributes, file_calls};

/// The attribute that holds a POSIX access list.
const ACCESS_LIST: &CStr = c"system.posix_acl_access";

/// The access rights of a file: mode, owner and group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileRights {
    mode: u32,
    user: u32,
    group: u32,
    /// The file has an access list, which may say more than the mode.
    has_list: bool,
}

impl FileRights {
    /// The rights of an open file.
    pub(crate) fn of(file: &File) -> io::Result<FileRights> {
        let status = file_calls::status(file)?;
        let has_list = attributes::has(file, ACCESS_LIST);
        Ok(FileRights { mode: status.mode & 0o777, user: status.user, group: status.group, has_list })
    }

    /// Sets these rights on another file, or fewer rights (RIGHTS-1). Until the last step the file
    /// has the rights with which it was made, which admit only its owner.
    pub(crate) fn give_to(self, file: &File) -> io::Result<()> {
        let own = FileRights::of(file)?;
        if own.user != self.user {
            // Only the superuser may change the owner. The copy of another user stays that user's.
            best_effort(fchown(file, Some(self.user), None));
        }
        let same_group = own.group == self.group || fchown(file, None, Some(self.group)).is_ok();
        if own.has_list {
            // It comes from the directory, not from the database.
            attributes::remove(file, ACCESS_LIST)?;
        }
        let wanted = self.mode_of_copy(same_group);
        match file.set_permissions(Permissions::from_mode(wanted)) {
            // FAT and similar file systems have one mode for all files.
            Err(_) if file_calls::status(file)?.mode & 0o666 & !wanted == 0 => Ok(()),
            set => set,
        }
    }

    /// The mode of a copy (RIGHTS-1).
    fn mode_of_copy(self, same_group: bool) -> u32 {
        if self.has_list {
            return self.mode & 0o700;
        }
        if same_group {
            return self.mode;
        }
        // Members of the old group count as others now, and those of the new group counted as
        // others before. So both get only the rights that the old group and others both had.
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
    fn a_copy_with_another_group_gives_no_user_more_rights() {
        for (mode, same, other) in [
            (0o600, 0o600, 0o600),
            (0o640, 0o640, 0o600),
            (0o644, 0o644, 0o644),
            (0o664, 0o664, 0o644),
            (0o604, 0o604, 0o600),
            (0o666, 0o666, 0o666),
            (0o400, 0o400, 0o400),
        ] {
            assert_eq!(rights(mode, false).mode_of_copy(true), same, "{mode:o}");
            assert_eq!(rights(mode, false).mode_of_copy(false), other, "{mode:o}");
            assert_eq!(rights(mode, true).mode_of_copy(true), mode & 0o700, "{mode:o}");
        }
    }

    #[test]
    fn a_file_gets_the_rights_of_another() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        for mode in [0o600, 0o640, 0o644, 0o400] {
            from.set_permissions(Permissions::from_mode(mode)).unwrap();
            FileRights::of(&from).unwrap().give_to(&to).unwrap();
            assert_eq!(FileRights::of(&to).unwrap(), FileRights::of(&from).unwrap());
        }
    }
}
