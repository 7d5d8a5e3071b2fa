//! Databases in memory that processes share: making one, and attaching to one.
//!
//! Floor: txn. As a file: a process that attaches joins (`open::join`). It reads the meta pages
//! only for what is the same in all of them.
//!
//! Failure: as in `processes::memory`; `Usage` for options that keep other processes out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::mapping::{MapOptions, Mapping};
use crate::txn::env::{Env, EnvParts};
use crate::txn::open::create::{first_meta, store_first_pages};
use crate::txn::open::newest_meta::newest_meta;
use crate::txn::open::registry::{look_up, share, Lookup, OpeningMark};
use crate::txn::open::{enter_joined, map_options, OpenSpec};
use crate::txn::processes::lock_file;
use crate::txn::processes::memory::{
    beside_no_commit, not_of_one_database, Descriptors, MemoryEntry, MemoryFiles, NAME,
};
use crate::txn::state::State;

fn io_error(op: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::io(op, Path::new(NAME), e)
}

/// Makes a database in memory that other processes may attach to.
pub(super) fn make(spec: &OpenSpec) -> Result<Arc<Env>> {
    let files = MemoryFiles::make()?;
    let Lookup::Free(mark) = look_up(files.id, false) else {
        let why = "this process has other memory with the same number; try again".into();
        return Err(Error::Busy { path: NAME.into(), why });
    };
    let guard = spec.fault_guard.unwrap_or(true);
    let (data, MemoryEntry { lock, live, gate }) = files.enter_first(guard)?;
    let (page_size, window_bytes) = (spec.page_size, spec.window_bytes);
    let options = MapOptions { page_size, window_bytes, fault_guard: guard, used_bytes: None };
    let mapping = Mapping::of_shared_memory(data, true, options, live.length(), false);
    let mapping = mapping.map_err(io_error("mapping memory"))?;
    mapping.ready_to_write().map_err(io_error("mapping memory for writing"))?;
    let meta = first_meta(spec.page_size)?;
    store_first_pages(&mapping, &meta).map_err(io_error("growing memory"))?;
    let live = live.begin(State::from_meta(&meta), 0);
    let parts = EnvParts { path: NAME.into(), meta, live, read_only: false, opened: spec.clone(), lock: Some(lock) };
    let env = Arc::new(Env::new(parts, mapping));
    env.claim_reader_slots()?;
    lock_file::begin_session(&env.live).map_err(io_error("reading random numbers"))?;
    mark.opened(&env);
    drop(gate);
    Ok(env)
}

/// Attaches to a database in memory. In a process that has it open, returns another handle.
pub(crate) fn attach(descriptors: Descriptors<'_>, spec: &OpenSpec) -> Result<Arc<Env>> {
    if spec.exclusive || spec.recover {
        return Err(Error::usage(format!(
            "{NAME}: shared memory cannot be opened exclusively or recovered: it is whole, and others may use it; leave \
             out Options::exclusive and Options::recover"
        )));
    }
    loop {
        let files = MemoryFiles::open(descriptors)?;
        match look_up(files.id, spec.read_only) {
            Lookup::Open(env) => {
                return match env.lock.as_ref().is_some_and(|lock| files.are_of(lock)) {
                    true => share(env, spec),
                    false => Err(not_of_one_database()),
                };
            }
            // Not `sleep`, which panics if a sandbox refuses its system call.
            Lookup::Changing => std::thread::park_timeout(Duration::from_millis(1)),
            Lookup::Free(mark) => return join(files, spec, &mark),
        }
    }
}

fn join(files: MemoryFiles, spec: &OpenSpec, mark: &OpeningMark) -> Result<Arc<Env>> {
    let (data, MemoryEntry { lock, live, gate }) = files.join(spec.fault_guard.unwrap_or(true), !spec.read_only)?;
    let (meta, _) = beside_no_commit(&lock, || newest_meta(Path::new(NAME), &data))?;
    let options = map_options(&meta, spec, None);
    let mapping = Mapping::of_shared_memory(data, !spec.read_only, options, live.length(), true);
    let mapping = mapping.map_err(io_error("mapping memory"))?;
    let (read_only, opened) = (spec.read_only, spec.clone());
    let parts = EnvParts { path: NAME.into(), meta, live, read_only, opened, lock: Some(lock) };
    let env = enter_joined(Env::new(parts, mapping), gate)?;
    mark.opened(&env);
    Ok(env)
}
