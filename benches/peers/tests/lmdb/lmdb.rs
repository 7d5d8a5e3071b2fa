//! LMDB through its C interface, as far as the test needs it: transactions inside transactions and cursors, which no
//! safe binding has together. One thread uses it.
//!
//! Failure: an error of LMDB panics; "not found" is an answer.

use lmdb_master_sys as ffi;
use std::ffi::{c_int, c_uint, c_void, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

const MAP_BYTES: usize = 4 << 30;

pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Whether a call has found its entry.
#[track_caller]
fn found(code: c_int) -> bool {
    if code == ffi::MDB_NOTFOUND {
        return false;
    }
    // SAFETY: the library returns a string that lives as long as itself, or in this thread until the next call.
    let text = || unsafe { CStr::from_ptr(ffi::mdb_strerror(code)) }.to_string_lossy().into_owned();
    assert!(code == 0, "lmdb: {} ({code})", text());
    true
}

fn val(bytes: &[u8]) -> ffi::MDB_val {
    ffi::MDB_val { mv_size: bytes.len(), mv_data: bytes.as_ptr() as *mut c_void }
}

const NONE: ffi::MDB_val = ffi::MDB_val { mv_size: 0, mv_data: ptr::null_mut() };

fn bytes(val: &ffi::MDB_val) -> Vec<u8> {
    if val.mv_size == 0 {
        return Vec::new();
    }
    // SAFETY: LMDB has just returned this value; it is copied before the next call.
    unsafe { std::slice::from_raw_parts(val.mv_data.cast::<u8>(), val.mv_size) }.to_vec()
}

/// An environment with one database.
pub(crate) struct Lmdb {
    env: *mut ffi::MDB_env,
    dbi: ffi::MDB_dbi,
}

impl Lmdb {
    pub(crate) fn create(path: &Path) -> Lmdb {
        Lmdb::create_with(path, 0)
    }

    /// Values of a key in order; with `fixed_bytes`, all of one size.
    pub(crate) fn create_multi(path: &Path, fixed_bytes: bool) -> Lmdb {
        Lmdb::create_with(path, ffi::MDB_DUPSORT | if fixed_bytes { ffi::MDB_DUPFIXED } else { 0 })
    }

    fn create_with(path: &Path, kind: c_uint) -> Lmdb {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
        let mut lmdb = Lmdb { env: ptr::null_mut(), dbi: 0 };
        // SAFETY: `env` takes the new environment.
        assert!(found(unsafe { ffi::mdb_env_create(&mut lmdb.env) }));
        // SAFETY: the environment is not open yet.
        assert!(found(unsafe { ffi::mdb_env_set_mapsize(lmdb.env, MAP_BYTES) }));
        let flags = ffi::MDB_NOSUBDIR | ffi::MDB_NOSYNC;
        // SAFETY: the path is a C string; the file is new, and opened once.
        assert!(found(unsafe { ffi::mdb_env_open(lmdb.env, path.as_ptr(), flags, 0o644) }));
        let txn = lmdb.begin(None);
        // SAFETY: the transaction is running; no name means the unnamed database.
        assert!(found(unsafe { ffi::mdb_dbi_open(txn.txn, ptr::null(), ffi::MDB_CREATE | kind, &mut lmdb.dbi) }));
        txn.commit();
        lmdb
    }

    /// Begins a transaction, inside another one if there is a parent.
    pub(crate) fn begin(&self, parent: Option<&Txn>) -> Txn {
        let mut txn = ptr::null_mut();
        let parent = parent.map_or(ptr::null_mut(), |parent| parent.txn);
        // SAFETY: the environment is open, and the parent is running.
        assert!(found(unsafe { ffi::mdb_txn_begin(self.env, parent, 0, &mut txn) }));
        Txn { txn, dbi: self.dbi }
    }
}

impl Drop for Lmdb {
    fn drop(&mut self) {
        // SAFETY: no transaction is running, and the handle is not used again.
        unsafe { ffi::mdb_env_close(self.env) };
    }
}

/// A running transaction. Ended by `commit` or `abort`.
pub(crate) struct Txn {
    txn: *mut ffi::MDB_txn,
    dbi: ffi::MDB_dbi,
}

impl Txn {
    pub(crate) fn commit(self) {
        // SAFETY: the transaction is running, and not used again.
        assert!(found(unsafe { ffi::mdb_txn_commit(self.txn) }));
    }

    pub(crate) fn abort(self) {
        // SAFETY: the transaction is running, and not used again.
        unsafe { ffi::mdb_txn_abort(self.txn) };
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (mut key, mut value) = (val(key), NONE);
        // SAFETY: the transaction is running; the key lives through the call.
        found(unsafe { ffi::mdb_get(self.txn, self.dbi, &mut key, &mut value) }).then(|| bytes(&value))
    }

    pub(crate) fn put(&self, key: &[u8], value: &[u8]) {
        let (mut key, mut value) = (val(key), val(value));
        // SAFETY: the transaction is running; key and value live through the call, which does not change them.
        assert!(found(unsafe { ffi::mdb_put(self.txn, self.dbi, &mut key, &mut value, 0) }));
    }

    pub(crate) fn delete(&self, key: &[u8]) -> bool {
        let mut key = val(key);
        // SAFETY: the transaction is running; the key lives through the call.
        found(unsafe { ffi::mdb_del(self.txn, self.dbi, &mut key, ptr::null_mut()) })
    }

    /// Adds a pair. Returns whether it is new.
    pub(crate) fn add(&self, key: &[u8], value: &[u8]) -> bool {
        let (mut key, mut value) = (val(key), val(value));
        // SAFETY: the transaction is running; key and value live through the call, which does not change them.
        let code = unsafe { ffi::mdb_put(self.txn, self.dbi, &mut key, &mut value, ffi::MDB_NODUPDATA) };
        code != ffi::MDB_KEYEXIST && found(code)
    }

    /// Deletes one value of a key.
    pub(crate) fn delete_value(&self, key: &[u8], value: &[u8]) -> bool {
        let (mut key, mut value) = (val(key), val(value));
        // SAFETY: the transaction is running; key and value live through the call.
        found(unsafe { ffi::mdb_del(self.txn, self.dbi, &mut key, &mut value) })
    }

    /// Number of values of a key.
    pub(crate) fn count(&self, key: &[u8]) -> u64 {
        let (mut cursor, mut count) = (self.cursor(), 0);
        if cursor.go(Go::To(key)).is_some() {
            // SAFETY: the cursor stands at a key; `count` takes the answer.
            assert!(found(unsafe { ffi::mdb_cursor_count(cursor.cursor, &mut count) }));
        }
        count as u64
    }

    /// Removes all entries.
    pub(crate) fn clear(&self) {
        // SAFETY: the transaction is running and has no cursor; 0 keeps the database.
        assert!(found(unsafe { ffi::mdb_drop(self.txn, self.dbi, 0) }));
    }

    pub(crate) fn len(&self) -> u64 {
        // SAFETY: all fields are numbers, for which zeros are valid.
        let mut stat: ffi::MDB_stat = unsafe { std::mem::zeroed() };
        // SAFETY: the transaction is running; `stat` takes the answer.
        assert!(found(unsafe { ffi::mdb_stat(self.txn, self.dbi, &mut stat) }));
        stat.ms_entries as u64
    }

    pub(crate) fn cursor(&self) -> Cursor {
        let mut cursor = ptr::null_mut();
        // SAFETY: the transaction is running.
        assert!(found(unsafe { ffi::mdb_cursor_open(self.txn, self.dbi, &mut cursor) }));
        Cursor { cursor }
    }
}

/// Where a cursor goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Go<'k> {
    First,
    Last,
    Next,
    Prev,
    Stay,
    To(&'k [u8]),
    AtOrAfter(&'k [u8]),
    NextKey,
    PrevKey,
    ToPair(&'k [u8], &'k [u8]),
    /// To this value of a key, or to the next greater one of the same key.
    ValueAtOrAfter(&'k [u8], &'k [u8]),
}

/// A cursor, which is dropped before its transaction ends.
pub(crate) struct Cursor {
    cursor: *mut ffi::MDB_cursor,
}

impl Cursor {
    pub(crate) fn go(&mut self, go: Go<'_>) -> Option<Entry> {
        let (op, key, value) = match go {
            Go::First => (ffi::MDB_FIRST, None, None),
            Go::Last => (ffi::MDB_LAST, None, None),
            Go::Next => (ffi::MDB_NEXT, None, None),
            Go::Prev => (ffi::MDB_PREV, None, None),
            Go::Stay => (ffi::MDB_GET_CURRENT, None, None),
            Go::To(key) => (ffi::MDB_SET_KEY, Some(key), None),
            Go::AtOrAfter(key) => (ffi::MDB_SET_RANGE, Some(key), None),
            Go::NextKey => (ffi::MDB_NEXT_NODUP, None, None),
            Go::PrevKey => (ffi::MDB_PREV_NODUP, None, None),
            Go::ToPair(key, value) => (ffi::MDB_GET_BOTH, Some(key), Some(value)),
            Go::ValueAtOrAfter(key, value) => (ffi::MDB_GET_BOTH_RANGE, Some(key), Some(value)),
        };
        let (mut key, mut value) = (key.map_or(NONE, val), value.map_or(NONE, val));
        // SAFETY: the transaction of the cursor is running; key and value live through the call.
        found(unsafe { ffi::mdb_cursor_get(self.cursor, &mut key, &mut value, op) })
            .then(|| (bytes(&key), bytes(&value)))
    }

    /// Stores an entry and goes to it; with `current`, replaces the value of the entry at which the cursor stands.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], current: bool) {
        let (mut key, mut value) = (val(key), val(value));
        let flags: c_uint = if current { ffi::MDB_CURRENT } else { 0 };
        // SAFETY: as in `go`; the value lives through the call too.
        assert!(found(unsafe { ffi::mdb_cursor_put(self.cursor, &mut key, &mut value, flags) }));
    }

    /// Adds a pair and goes to it.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        let (mut key, mut value) = (val(key), val(value));
        // SAFETY: as in `put`.
        let code = unsafe { ffi::mdb_cursor_put(self.cursor, &mut key, &mut value, ffi::MDB_NODUPDATA) };
        assert!(code == ffi::MDB_KEYEXIST || found(code));
    }

    /// Deletes the key at which the cursor stands with all its values.
    pub(crate) fn delete_key(&mut self) {
        // SAFETY: the transaction of the cursor is running.
        assert!(found(unsafe { ffi::mdb_cursor_del(self.cursor, ffi::MDB_NODUPDATA) }));
    }

    /// Deletes the entry at which the cursor stands; `Next` then goes to the entry after it.
    pub(crate) fn delete(&mut self) {
        // SAFETY: the transaction of the cursor is running.
        assert!(found(unsafe { ffi::mdb_cursor_del(self.cursor, 0) }));
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: the transaction of the cursor is running, and the cursor is not used again.
        unsafe { ffi::mdb_cursor_close(self.cursor) };
    }
}
