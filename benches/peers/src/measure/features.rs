//! What the data model adds to single gets and puts, Mapleaf beside LMDB: each figure one part, `--part NAME`.
//!
//! The two are programmed against in each part's own file, LMDB through heed in its fastest form. They take turns within
//! a round, the first round is not counted, and ratios are taken round by round. Everything that is read or left over is
//! verified.

#[cfg(feature = "mapleaf")]
mod long_keys;
#[cfg(feature = "mapleaf")]
mod multiple;
#[cfg(feature = "mapleaf")]
mod nesting;
#[cfg(feature = "mapleaf")]
mod pairs;
#[cfg(feature = "mapleaf")]
mod removal;

use super::processes::Part;

/// The parts, if this build has Mapleaf.
#[cfg(not(feature = "mapleaf"))]
pub(crate) const PARTS: &[Part] = &[];

/// The parts.
#[cfg(feature = "mapleaf")]
pub(crate) const PARTS: &[Part] = &[
    Part { name: "multimap", about: "pairs: insert, scan of a key's values, size; DUPFIXED", take: pairs::figures },
    Part { name: "range", about: "half of all entries removed as a range, and one by one", take: removal::range },
    Part { name: "retain", about: "every second entry removed by retain, by key, by cursor", take: removal::retain },
    Part { name: "pop", about: "100,000 first entries popped", take: removal::pop },
    Part { name: "nested", about: "a transaction inside another, with one put", take: nesting::nested },
    Part { name: "savepoint", about: "a savepoint with 100,000 dirty pages", take: nesting::savepoint },
    Part { name: "long-keys", about: "gets of keys of 2,000 bytes and of 900", take: long_keys::gets },
];

#[cfg(feature = "mapleaf")]
mod shared {
    use crate::measure::processes::ratios;
    use crate::report::{Better, Figure, Row};
    use crate::{goals, Res};
    use heed::types::Bytes;
    use heed::{CommitOrAbort, Database, DatabaseFlags, Env, EnvFlags, EnvOpenOptions};
    use std::path::Path;

    const MAP_BYTES: usize = 64 << 30;

    /// LMDB, open, with its unnamed database.
    pub(super) struct Lmdb {
        pub(super) env: Env,
        pub(super) db: Database<'static, Bytes, Bytes>,
    }

    /// Opens or makes a file of LMDB, with the flags of its database if it is new.
    pub(super) fn lmdb(path: &Path, flags: DatabaseFlags) -> Res<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        // SAFETY: this flag only names the file.
        unsafe { options.flags(EnvFlags::NO_SUB_DIR) };
        // SAFETY: the files live in a folder of this run; nobody else changes them, and this process opens each once.
        let env = unsafe { options.open(path)? };
        let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
            let mut options = opener.database_options().types::<Bytes, Bytes>();
            options.flags(flags).create(txn).map(CommitOrAbort::<_, ()>::Commit)
        })?;
        let CommitOrAbort::Commit(db) = made else { return Err("the database was not made".into()) };
        Ok(Lmdb { env, db })
    }

    impl Lmdb {
        pub(super) fn close(self) {
            self.env.prepare_for_closing().wait();
        }
    }

    /// What a figure of a part is.
    #[derive(Clone, Copy)]
    pub(super) struct Of<'a> {
        pub(super) id: &'a str,
        pub(super) title: &'a str,
        pub(super) unit: &'a str,
        pub(super) better: Better,
        /// The row that ratios are taken to.
        pub(super) versus: &'a str,
        pub(super) entries: u64,
    }

    /// A figure with a row for each name.
    pub(super) fn figure(of: Of<'_>, names: &[&str], values: &[Vec<f64>]) -> Figure {
        let base = names.iter().position(|name| *name == of.versus).and_then(|at| values.get(at));
        let row = |(name, values): (&&str, &Vec<f64>)| Row {
            engine: (*name).into(),
            values: values.clone(),
            ratios: base.map(|base| ratios(values, base)).unwrap_or_default(),
            note: String::new(),
        };
        Figure {
            id: of.id.into(),
            title: of.title.into(),
            keys: "own".into(),
            entries: of.entries,
            unit: of.unit.into(),
            better: of.better,
            versus: of.versus.into(),
            goal: goals::of_feature(of.id),
            rows: names.iter().zip(values).map(row).collect(),
        }
    }
}
