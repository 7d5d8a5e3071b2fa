//! LMDB through its C interface, for reads alone: one transaction that is renewed and reset around each of them, which is
//! the cheapest way that LMDB has. Settings as in `lmdb.rs`.
//!
//! The transaction is renewed or reset, never both, and is aborted before the environment is closed.

use crate::data::{Probes, Verifier};
use crate::Res;
use lmdb_master_sys as ffi;
use std::ffi::{c_int, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

const MAP_BYTES: usize = 64 << 30;

/// An open file and its only transaction, of the thread that opened it.
pub(crate) struct Renewing {
    env: *mut ffi::MDB_env,
    txn: *mut ffi::MDB_txn,
    table: ffi::MDB_dbi,
}

fn check(code: c_int) -> Res<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the library returns a string that lives as long as itself, or in this thread until the next call.
    let text = unsafe { CStr::from_ptr(ffi::mdb_strerror(code)) };
    Err(format!("lmdb: {} ({code})", text.to_string_lossy()).into())
}

impl Renewing {
    pub(crate) fn open(path: &Path) -> Res<Renewing> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut opened = Renewing { env: ptr::null_mut(), txn: ptr::null_mut(), table: 0 };
        // SAFETY: `env` takes the new environment.
        check(unsafe { ffi::mdb_env_create(&mut opened.env) })?;
        // SAFETY: the environment is not open yet.
        check(unsafe { ffi::mdb_env_set_mapsize(opened.env, MAP_BYTES) })?;
        // SAFETY: the path is a C string; the file is opened once in this process.
        check(unsafe { ffi::mdb_env_open(opened.env, path.as_ptr(), ffi::MDB_NOSUBDIR, 0o644) })?;
        let mut first = ptr::null_mut();
        // SAFETY: the environment is open; no parent.
        check(unsafe { ffi::mdb_txn_begin(opened.env, ptr::null_mut(), ffi::MDB_RDONLY, &mut first) })?;
        // SAFETY: the transaction is running; no name means the unnamed database.
        let found = unsafe { ffi::mdb_dbi_open(first, ptr::null(), 0, &mut opened.table) };
        // SAFETY: the transaction is running, and ends here whatever this returns; so the handle stays.
        let ended = unsafe { ffi::mdb_txn_commit(first) };
        check(found)?;
        check(ended)?;
        // SAFETY: the environment is open; no parent.
        check(unsafe { ffi::mdb_txn_begin(opened.env, ptr::null_mut(), ffi::MDB_RDONLY, &mut opened.txn) })?;
        // SAFETY: the transaction is running, and only reads.
        unsafe { ffi::mdb_txn_reset(opened.txn) };
        Ok(opened)
    }

    /// Looks each probe up between a renewal and a reset of the transaction, and verifies every value.
    pub(crate) fn get_each(&self, probes: &Probes) -> Res<()> {
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            let mut key = ffi::MDB_val { mv_size: key.len(), mv_data: key.as_ptr() as *mut _ };
            let mut value = ffi::MDB_val { mv_size: 0, mv_data: ptr::null_mut() };
            // SAFETY: the transaction has been reset.
            check(unsafe { ffi::mdb_txn_renew(self.txn) })?;
            // SAFETY: the transaction is running; key and value are valid for the call.
            let found = unsafe { ffi::mdb_get(self.txn, self.table, &mut key, &mut value) };
            let bytes = match found {
                // SAFETY: a value in the mapping, which no transaction changes until this one is reset.
                0 => Some(unsafe { std::slice::from_raw_parts(value.mv_data.cast::<u8>(), value.mv_size) }),
                _ => None,
            };
            verifier.check(bytes, expected);
            // SAFETY: the transaction is running, and the value is used no more.
            unsafe { ffi::mdb_txn_reset(self.txn) };
        }
        verifier.finish()
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        if !self.txn.is_null() {
            // SAFETY: begun by us and not ended.
            unsafe { ffi::mdb_txn_abort(self.txn) };
        }
        if !self.env.is_null() {
            // SAFETY: made by us; no transaction is left.
            unsafe { ffi::mdb_env_close(self.env) };
        }
    }
}
