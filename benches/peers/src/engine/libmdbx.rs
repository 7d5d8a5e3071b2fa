//! libmdbx through its C interface: the default mode (MDBX_SYNC_DURABLE), one file, the unnamed table, geometry left to
//! it but for an upper bound of 64 GiB, as LMDB's map. `MDBX_APPEND` stands for the sorted load.
//!
//! The few wrappers here hold what the C interface asks for: a transaction ends once, a cursor is closed before its
//! transaction ends, and memory that a read points at is used before its transaction ends.

use super::{Direction, Order, Store, Tuning};
use crate::data::{entry_sum, Pairs, Probes, Seeks, Tally, Verifier};
use crate::workload::{self, Single, Workload};
use crate::Res;
use signet_mdbx_sys as ffi;
use std::ffi::{c_int, CStr, CString};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

const MAP_BYTES: isize = 64 << 30;

struct Libmdbx {
    env: *mut ffi::MDBX_env,
    table: ffi::MDBX_dbi,
}

// SAFETY: an environment may be used by all threads; each of our transactions stays in the thread that began it.
unsafe impl Send for Libmdbx {}
// SAFETY: as above.
unsafe impl Sync for Libmdbx {}

fn check(code: c_int) -> Res<()> {
    if code == ffi::MDBX_SUCCESS {
        return Ok(());
    }
    // SAFETY: the library returns a string that lives as long as itself, or in this thread until the next call.
    let text = unsafe { CStr::from_ptr(ffi::mdbx_strerror(code)) };
    Err(format!("libmdbx: {} ({code})", text.to_string_lossy()).into())
}

/// False if there is no such entry.
fn found(code: c_int) -> Res<bool> {
    if code == ffi::MDBX_NOTFOUND {
        return Ok(false);
    }
    check(code).map(|()| true)
}

fn text(path: &Path) -> Res<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn val(bytes: &[u8]) -> ffi::MDBX_val {
    ffi::MDBX_val { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() }
}

const EMPTY: ffi::MDBX_val = ffi::MDBX_val { iov_base: ptr::null_mut(), iov_len: 0 };

pub(super) fn open(path: &Path, _: Tuning) -> Res<Box<dyn Store>> {
    let path = text(path)?;
    let mut env = ptr::null_mut();
    // SAFETY: `env` takes the new environment.
    check(unsafe { ffi::mdbx_env_create(&mut env) })?;
    let mut store = Libmdbx { env, table: 0 };
    // SAFETY: the environment is not open yet; -1 leaves a value to the library.
    check(unsafe { ffi::mdbx_env_set_geometry(env, -1, -1, MAP_BYTES, -1, -1, -1) })?;
    let flags = ffi::MDBX_SYNC_DURABLE | ffi::MDBX_NOSUBDIR;
    // SAFETY: the path is a C string; the file is opened once in this process.
    check(unsafe { ffi::mdbx_env_open(env, path.as_ptr(), flags, 0o644) })?;
    let txn = Txn::begin(&store, ffi::MDBX_TXN_RDONLY)?;
    let mut table = 0;
    // SAFETY: the transaction is running; no name means the unnamed table.
    check(unsafe { ffi::mdbx_dbi_open(txn.txn, ptr::null(), ffi::MDBX_DB_DEFAULTS, &mut table) })?;
    drop(txn);
    store.table = table;
    Ok(Box::new(store))
}

impl Drop for Libmdbx {
    fn drop(&mut self) {
        // SAFETY: nothing borrows the environment any more, so that no transaction is running.
        let code = unsafe { ffi::mdbx_env_close_ex(self.env, false) };
        if let Err(e) = check(code) {
            eprintln!("closing: {e}");
        }
    }
}

/// A transaction; aborted unless it is committed.
struct Txn<'e> {
    txn: *mut ffi::MDBX_txn,
    table: ffi::MDBX_dbi,
    env: PhantomData<&'e Libmdbx>,
}

impl<'e> Txn<'e> {
    fn begin(store: &'e Libmdbx, flags: ffi::MDBX_txn_flags) -> Res<Txn<'e>> {
        let mut txn = ptr::null_mut();
        // SAFETY: the environment is open and lives for 'e; no parent, no context.
        let code = unsafe { ffi::mdbx_txn_begin_ex(store.env, ptr::null_mut(), flags as _, &mut txn, ptr::null_mut()) };
        check(code)?;
        Ok(Txn { txn, table: store.table, env: PhantomData })
    }

    fn read(store: &'e Libmdbx) -> Res<Txn<'e>> {
        Txn::begin(store, ffi::MDBX_TXN_RDONLY)
    }

    fn write(store: &'e Libmdbx) -> Res<Txn<'e>> {
        Txn::begin(store, ffi::MDBX_TXN_READWRITE)
    }

    #[inline]
    fn get(&self, key: &[u8]) -> Res<Option<&[u8]>> {
        let mut value = EMPTY;
        // SAFETY: the transaction is running; key and value are valid for the call.
        let code = unsafe { ffi::mdbx_get(self.txn, self.table, &val(key), &mut value) };
        // SAFETY: a value of this transaction, which the borrow keeps from being written to or ended.
        Ok(found(code)?.then(|| unsafe { bytes(&value) }))
    }

    #[inline]
    fn put(&mut self, key: &[u8], value: &[u8], flags: ffi::MDBX_put_flags) -> Res<()> {
        // SAFETY: the transaction is running; key and value are valid for the call, which copies them.
        check(unsafe { ffi::mdbx_put(self.txn, self.table, &val(key), &mut val(value), flags) })
    }

    fn delete(&mut self, key: &[u8]) -> Res<bool> {
        // SAFETY: the transaction is running; the key is valid for the call.
        found(unsafe { ffi::mdbx_del(self.txn, self.table, &val(key), ptr::null()) })
    }

    fn cursor(&self) -> Res<Cursor<'_>> {
        let mut cursor = ptr::null_mut();
        // SAFETY: the transaction is running and outlives the cursor.
        check(unsafe { ffi::mdbx_cursor_open(self.txn, self.table, &mut cursor) })?;
        Ok(Cursor { cursor, txn: PhantomData })
    }

    fn commit(mut self) -> Res<()> {
        let txn = std::mem::replace(&mut self.txn, ptr::null_mut());
        // SAFETY: the transaction is running, and is not used after.
        check(unsafe { ffi::mdbx_txn_commit_ex(txn, ptr::null_mut()) })
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        if !self.txn.is_null() {
            // SAFETY: the transaction is running, and is not used after. It fails only for a wrong handle.
            unsafe { ffi::mdbx_txn_abort(self.txn) };
        }
    }
}

/// # Safety
/// `value` was filled in by a transaction that runs, unchanged, for 'v.
#[inline]
unsafe fn bytes<'v>(value: &ffi::MDBX_val) -> &'v [u8] {
    if value.iov_len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(value.iov_base.cast(), value.iov_len) }
}

struct Cursor<'t> {
    cursor: *mut ffi::MDBX_cursor,
    txn: PhantomData<&'t ()>,
}

impl<'t> Cursor<'t> {
    #[inline]
    fn step(&mut self, key: &[u8], op: ffi::MDBX_cursor_op) -> Res<Option<(&'t [u8], &'t [u8])>> {
        let (mut key, mut value) = (val(key), EMPTY);
        // SAFETY: the cursor is open and its transaction running; key and value are valid for the call.
        let code = unsafe { ffi::mdbx_cursor_get(self.cursor, &mut key, &mut value, op) };
        // SAFETY: an entry of the transaction, which lives for 't and is not written to meanwhile.
        Ok(found(code)?.then(|| unsafe { (bytes(&key), bytes(&value)) }))
    }

    /// Shows at most `count` entries, from the first one not below `key` on.
    #[inline]
    fn from(&mut self, key: &[u8], count: usize, mut see: impl FnMut(&[u8], &[u8])) -> Res<()> {
        let mut at = self.step(key, ffi::MDBX_SET_RANGE)?;
        for left in (0..count).rev() {
            let Some((key, value)) = at else { break };
            see(key, value);
            if left > 0 {
                at = self.step(&[], ffi::MDBX_NEXT)?;
            }
        }
        Ok(())
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        // SAFETY: the cursor is open, its transaction has not ended.
        unsafe { ffi::mdbx_cursor_close(self.cursor) };
    }
}

impl Single for Libmdbx {
    fn get(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>)) -> Res<()> {
        see(Txn::read(self)?.get(key)?);
        Ok(())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        let mut txn = Txn::write(self)?;
        txn.put(key, value, ffi::MDBX_UPSERT)?;
        txn.commit()
    }

    fn modify(&self, key: &[u8], mut see: impl FnMut(Option<&[u8]>), value: &[u8]) -> Res<()> {
        let mut txn = Txn::write(self)?;
        see(txn.get(key)?);
        txn.put(key, value, ffi::MDBX_UPSERT)?;
        txn.commit()
    }

    fn scan_from(&self, key: &[u8], count: usize, see: impl FnMut(&[u8], &[u8])) -> Res<()> {
        let txn = Txn::read(self)?;
        let done = txn.cursor()?.from(key, count, see);
        done
    }
}

impl Store for Libmdbx {
    fn put_all(&mut self, pairs: &mut Pairs<'_>, order: Order) -> Res<()> {
        let flags = if order == Order::Append { ffi::MDBX_APPEND } else { ffi::MDBX_UPSERT };
        let mut txn = Txn::write(self)?;
        while let Some((key, value)) = pairs.next() {
            txn.put(key, value, flags)?;
        }
        txn.commit()
    }

    fn remove_all(&mut self, keys: &mut Pairs<'_>) -> Res<()> {
        let mut txn = Txn::write(self)?;
        while let Some((key, _)) = keys.next() {
            txn.delete(key)?;
        }
        txn.commit()
    }

    fn get_all(&self, probes: &Probes) -> Res<()> {
        let txn = Txn::read(self)?;
        let mut verifier = Verifier::default();
        for (key, expected) in probes.iter() {
            verifier.check(txn.get(key)?, expected);
        }
        verifier.finish()
    }

    fn put_each(&self, pairs: &mut Pairs<'_>) -> Res<()> {
        workload::put_each(self, pairs)
    }

    fn get_each(&self, probes: &Probes) -> Res<()> {
        workload::get_each(self, probes)
    }

    fn seek_all(&self, seeks: &Seeks) -> Res<()> {
        let txn = Txn::read(self)?;
        let mut cursor = txn.cursor()?;
        let mut verifier = Verifier::default();
        for (key, expected) in seeks.iter() {
            let mut sum = 0u64;
            cursor.from(key, seeks.length, |key, value| sum = sum.wrapping_add(entry_sum(key, value)))?;
            verifier.check_sum(sum, expected);
        }
        verifier.finish()
    }

    fn scan(&self, direction: Direction) -> Res<Tally> {
        let txn = Txn::read(self)?;
        let mut cursor = txn.cursor()?;
        let (first, next) = match direction {
            Direction::Forward => (ffi::MDBX_FIRST, ffi::MDBX_NEXT),
            Direction::Reverse => (ffi::MDBX_LAST, ffi::MDBX_PREV),
        };
        let mut tally = Tally::default();
        let mut at = cursor.step(&[], first)?;
        while let Some((key, value)) = at {
            tally.add(key, value);
            at = cursor.step(&[], next)?;
        }
        Ok(tally)
    }

    fn drive(&self, workload: &Workload) -> Res<()> {
        workload::drive(self, workload)
    }

    fn free_pages(&self) -> Res<Option<u64>> {
        Ok(None)
    }

    fn compact(self: Box<Self>, _path: &Path, to: &Path) -> Res<bool> {
        let to = text(to)?;
        // SAFETY: the environment is open, the path a C string.
        check(unsafe { ffi::mdbx_env_copy(self.env, to.as_ptr(), ffi::MDBX_CP_COMPACT) })?;
        Ok(true)
    }

    fn close(self: Box<Self>) -> Res<()> {
        drop(self);
        Ok(())
    }
}
