//! The registry of databases that are open in this process, and what another handle to one needs.
//!
//! Floor: txn. A thread that opens or closes a database, and perhaps waits for other processes
//! meanwhile, does not hold the lock on the registry: other databases can be opened and closed.
//!
//! Failure: `Locked` and `Usage` for a handle that does not fit the first one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::{Error, Result};
use crate::sys::fork::PerProcess;
use crate::txn::env::Env;
use crate::txn::open::OpenSpec;
use crate::txn::processes::presence::{FileId, FileLock};

/// A database of this process: its file, and whether it is open read-only. Both may be open, as two
/// members.
type Key = (FileId, bool);

/// What the registry has of a database.
enum Registered {
    /// A thread is opening it.
    Opening,
    /// It is open, or its last handle is being dropped.
    Open(Weak<Env>),
}

/// Databases that are open in this process. A child after `fork` gets an empty registry, so that it
/// opens again what its parent has open.
static REGISTRY: PerProcess<Mutex<HashMap<Key, Registered>>> = PerProcess::new();

fn registry() -> MutexGuard<'static, HashMap<Key, Registered>> {
    REGISTRY.get().lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileLock {
    /// Releases the lock, then removes the environment from the registry (OPEN-3).
    pub(crate) fn release(self, read_only: bool) {
        let mut registry = registry();
        let id = self.id();
        drop(self);
        registry.remove(&(id, read_only));
    }
}

/// A thread opens a database. Dropping this tells other threads that it is not open.
pub(super) struct OpeningMark(Key);

impl OpeningMark {
    /// Tells other threads that the database is open.
    pub(super) fn opened(&self, env: &Arc<Env>) {
        registry().insert(self.0, Registered::Open(Arc::downgrade(env)));
    }
}

impl Drop for OpeningMark {
    fn drop(&mut self) {
        let mut registry = registry();
        if matches!(registry.get(&self.0), Some(Registered::Opening)) {
            registry.remove(&self.0);
        }
    }
}

/// What a thread that wants to open a database finds in the registry.
pub(super) enum Lookup {
    Open(Arc<Env>),
    /// Another thread opens or closes it.
    Changing,
    /// The thread may open it.
    Free(OpeningMark),
}

pub(super) fn look_up(id: FileId, read_only: bool) -> Lookup {
    let mut registry = registry();
    // A read-only handle shares a database that is open for writing.
    let keys = if read_only { vec![(id, false), (id, true)] } else { vec![(id, false)] };
    for key in keys {
        match registry.get(&key) {
            None => {}
            Some(Registered::Opening) => return Lookup::Changing,
            Some(Registered::Open(env)) => return env.upgrade().map_or(Lookup::Changing, Lookup::Open),
        }
    }
    if let Some(Registered::Open(reading)) = registry.get(&(id, true)).filter(|_| !read_only) {
        match reading.upgrade() {
            // A plain reader has no live records that a writer could join.
            Some(env) if !env.is_member() => return Lookup::Open(env),
            Some(_) => {}
            None => return Lookup::Changing,
        }
    }
    registry.insert((id, read_only), Registered::Opening);
    Lookup::Free(OpeningMark((id, read_only)))
}

/// Returns another handle to a database that this process has open.
pub(super) fn share(env: Arc<Env>, spec: &OpenSpec) -> Result<Arc<Env>> {
    if spec.exclusive && env.is_member() {
        return Err(Error::Locked {
            path: env.path().to_path_buf(),
            by: "this process has it open and shares it; close that handle, or open it without `exclusive`".into(),
        });
    }
    if env.read_only && !spec.read_only {
        return Err(Error::Locked {
            path: env.path().to_path_buf(),
            by: "this process has it open read-only; close that handle, or open read-only here too".into(),
        });
    }
    if spec.recover {
        let what = "recovery works only on a closed database, and this process has it open";
        let remedy = "drop all its handles and transactions first, or open it without recovery";
        return Err(Error::usage(format!("{}: {what}; {remedy}", env.path().display())));
    }
    agree(&env, "fault_guard", spec.fault_guard, env.opened.fault_guard.unwrap_or(true))?;
    agree(&env, "read_ahead", spec.read_ahead, env.opened.read_ahead.unwrap_or_default())?;
    env.check_poison()?;
    Ok(env)
}

/// Refuses an option whose value differs from the one that the database is open with.
fn agree<T: PartialEq + std::fmt::Debug>(env: &Env, option: &str, asked: Option<T>, is: T) -> Result<()> {
    match asked {
        Some(asked) if asked != is => Err(Error::usage(format!(
            "{}: this process has it open with {option} {is:?}, so it cannot be opened with {asked:?}; leave the option \
             out, or close every handle first",
            env.path().display()
        ))),
        _ => Ok(()),
    }
}
