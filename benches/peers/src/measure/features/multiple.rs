//! LMDB through its C interface, to read whole pages of the values of a key, which heed has no call for. Settings as in
//! `engine/lmdb.rs`.
//!
//! A cursor and its transaction end together, before the environment.

use crate::Res;
use lmdb_master_sys as ffi;
use std::ffi::{c_int, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

const MAP_BYTES: usize = 64 << 30;

/// An open file.
pub(super) struct Multiple {
    env: *mut ffi::MDB_env,
}

/// A cursor in a read transaction of its own.
pub(super) struct Cursor<'e> {
    txn: *mut ffi::MDB_txn,
    cursor: *mut ffi::MDB_cursor,
    _of: &'e Multiple,
}

fn check(code: c_int) -> Res<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the library returns a string that lives as long as itself, or in this thread until the next call.
    let text = unsafe { CStr::from_ptr(ffi::mdb_strerror(code)) };
    Err(format!("lmdb: {} ({code})", text.to_string_lossy()).into())
}

impl Multiple {
    pub(super) fn open(path: &Path) -> Res<Multiple> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut opened = Multiple { env: ptr::null_mut() };
        // SAFETY: `env` takes the new environment.
        check(unsafe { ffi::mdb_env_create(&mut opened.env) })?;
        // SAFETY: the environment is not open yet.
        check(unsafe { ffi::mdb_env_set_mapsize(opened.env, MAP_BYTES) })?;
        // SAFETY: the path is a C string; the file is opened once in this process.
        check(unsafe { ffi::mdb_env_open(opened.env, path.as_ptr(), ffi::MDB_NOSUBDIR, 0o644) })?;
        Ok(opened)
    }

    pub(super) fn cursor(&self) -> Res<Cursor<'_>> {
        let mut cursor = Cursor { txn: ptr::null_mut(), cursor: ptr::null_mut(), _of: self };
        let mut table = 0;
        // SAFETY: the environment is open; no parent.
        check(unsafe { ffi::mdb_txn_begin(self.env, ptr::null_mut(), ffi::MDB_RDONLY, &mut cursor.txn) })?;
        // SAFETY: the transaction is running; no name means the unnamed database.
        check(unsafe { ffi::mdb_dbi_open(cursor.txn, ptr::null(), 0, &mut table) })?;
        // SAFETY: the transaction is running.
        check(unsafe { ffi::mdb_cursor_open(cursor.txn, table, &mut cursor.cursor) })?;
        Ok(cursor)
    }
}

impl Cursor<'_> {
    fn get(&self, key: &[u8], op: ffi::MDB_cursor_op) -> Res<Option<&[u8]>> {
        let mut key = ffi::MDB_val { mv_size: key.len(), mv_data: key.as_ptr() as *mut _ };
        let mut found = ffi::MDB_val { mv_size: 0, mv_data: ptr::null_mut() };
        // SAFETY: the transaction of the cursor is running; the key lives through the call.
        let code = unsafe { ffi::mdb_cursor_get(self.cursor, &mut key, &mut found, op) };
        if code == ffi::MDB_NOTFOUND {
            return Ok(None);
        }
        check(code)?;
        // SAFETY: LMDB has just returned these bytes of the map, which last as long as the transaction.
        Ok(Some(unsafe { std::slice::from_raw_parts(found.mv_data.cast::<u8>(), found.mv_size) }))
    }

    /// Sum of the values of a key.
    pub(super) fn sum(&self, key: &[u8]) -> Res<u64> {
        self.get(key, ffi::MDB_SET)?.ok_or("a key is missing")?;
        let mut sum = 0u64;
        let mut op = ffi::MDB_GET_MULTIPLE;
        while let Some(values) = self.get(key, op)? {
            let numbers = values.as_chunks::<8>().0;
            sum = numbers.iter().fold(sum, |sum, &value| sum.wrapping_add(u64::from_be_bytes(value)));
            op = ffi::MDB_NEXT_MULTIPLE;
        }
        Ok(sum)
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        // SAFETY: both are open or null, which these calls accept, and not used again.
        unsafe {
            if !self.cursor.is_null() {
                ffi::mdb_cursor_close(self.cursor);
            }
            if !self.txn.is_null() {
                ffi::mdb_txn_abort(self.txn);
            }
        }
    }
}

impl Drop for Multiple {
    fn drop(&mut self) {
        // SAFETY: no transaction is running, and the handle is not used again; a null pointer is accepted.
        unsafe { ffi::mdb_env_close(self.env) };
    }
}
