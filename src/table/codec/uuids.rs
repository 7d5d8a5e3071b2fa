//! `uuid::Uuid`, with the feature `uuid`.
//!
//! Floor: table. The 16 bytes, which sort like the items.

use super::fixed::{exactly, fixed, split};
use super::{Codec, CodecError, Encoded, KeyCodec, Part};
use crate::error::Result;

fixed!(
    /// With the feature `uuid`. The 16 bytes of the UUID; it sorts by them.
    ///
    /// ```
    /// use mapleaf::Table;
    /// use uuid::Uuid;
    ///
    /// const ORDERS: Table<Uuid, &str> = Table::new("orders");
    ///
    /// let db = mapleaf::Db::in_memory()?;
    /// let order = Uuid::from_u128(0x67e55044_10b1_426f_9247_bb680e5fe0c8);
    /// db.write(|txn| txn.table(ORDERS)?.insert(order, "two pears"))?;
    /// assert_eq!(db.begin_read()?.table(ORDERS)?.get(order)?, Some("two pears"));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    uuid::Uuid, "uuid", 16, |item| item.into_bytes(), |bytes| Ok(uuid::Uuid::from_bytes(bytes))
);
