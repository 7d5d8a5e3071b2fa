//! Multimap tables: several values for each key, in order.
//!
//! Floor: table.
//!
//! ```text
//! read     handles of read transactions
//! handle   handles of write transactions that read
//! write    handles of write transactions that write
//! readable the trait of all handles
//! range    iterators over values and pairs
//! owned    iterators that hold their transaction
//! load     bulk load
//! cursor   cursors that write, and pairs at the ends of a table
//! remove   removing many pairs that a predicate rejects or matches
//! ```
//!
//! Failure: as in `table`.

mod cursor;
mod handle;
mod load;
mod owned;
mod range;
mod read;
mod readable;
mod remove;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use crate::table::codec::{Codec, KeyCodec};

pub use cursor::{MultiCursorMut, MultiPosition};
pub use handle::MultiTableRef;
pub use load::MultiLoader;
pub use owned::{CopiedPairs, CopiedValues, PairsOwned, ValuesOwned};
pub use range::{MultiRange, Values};
pub use read::ReadMultiTable;
pub use readable::ReadableMultiTable;
pub use remove::MultiExtractIf;
pub use write::MultiTableMut;

/// The name of a multimap table and the types of its keys and values. Each key has one or more
/// values, each value once, in the order of their encoded bytes. `V` is a [`KeyCodec`], so that
/// this is the order of the values.
///
/// Few values of a key lie beside it; many lie in a tree of their own. Values whose codec has a
/// [fixed size](Codec::fixed_bytes), such as numbers, are packed without anything between them. A
/// key may have 65,536 bytes, a value a quarter page minus 24 bytes (1,000 with pages of 4 KiB).
///
/// ```
/// use mapleaf::{Db, MultiTable};
///
/// const TAGS: MultiTable<&str, u64> = MultiTable::new("tags");
///
/// let db = Db::in_memory()?;
/// db.write(|txn| {
///     let mut tags = txn.multi_table(TAGS)?;
///     assert!(tags.insert("red", 7)?);
///     assert!(tags.insert("red", 3)?);
///     assert!(!tags.insert("red", 7)?, "it is there");
///     tags.insert("blue", 3)
/// })?;
/// let tags = db.begin_read()?.multi_table(TAGS)?;
/// assert_eq!(tags.values("red")?.collect::<Result<Vec<_>, _>>()?, [3, 7]);
/// assert_eq!((tags.count("red")?, tags.key_count(), tags.len()), (2, 2, 3));
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct MultiTable<K, V> {
    name: Cow<'static, str>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyCodec, V: KeyCodec> MultiTable<K, V> {
    /// A multimap table of this name, of up to 255 bytes.
    pub const fn new(name: &'static str) -> MultiTable<K, V> {
        MultiTable { name: Cow::Borrowed(name), types: PhantomData }
    }

    /// A multimap table whose name is known only when the program runs.
    pub fn named(name: impl Into<String>) -> MultiTable<K, V> {
        MultiTable { name: Cow::Owned(name.into()), types: PhantomData }
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<K, V> Clone for MultiTable<K, V> {
    fn clone(&self) -> MultiTable<K, V> {
        MultiTable { name: self.name.clone(), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for MultiTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MultiTable").field(&self.name).finish()
    }
}

/// The fixed size of the values of a codec, as the flags of a table name it. Values without any
/// bytes, and longer ones than a page can have, have none.
fn fixed_bytes<V: Codec>() -> Option<u16> {
    V::fixed_bytes().and_then(|bytes| u16::try_from(bytes).ok()).filter(|&bytes| bytes > 0)
}
