//! Values of any `serde` type in the format of postcard, with the feature `serde`.
//!
//! Floor: table.
//!
//! Failure: bytes that are not a value of the type, or more bytes than the value has.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::Serialize;

use super::{Codec, CodecError, Encoded, Named};
use crate::error::{Error, Result};

/// Values of a type that implements serde's `Serialize` and `Deserialize`, in the format of
/// [postcard](https://docs.rs/postcard). With the feature `serde`.
///
/// The format is compact and has no names of fields: a type with other fields reads old bytes
/// wrongly or not at all, so give it another [name](Named).
///
/// Postcard values are no keys, because their bytes do not sort like the items; of a tuple, they
/// can only be the last component.
///
/// Limits: decoding uses stack for each level of a recursive type, such as a list of boxes. A file
/// from elsewhere could hold a value of any depth, so do not use recursive types for such files,
/// nor collections whose elements have no bytes, whose length in the file could be any number.
///
/// ```
/// use mapleaf::codec::{Named, Postcard};
/// use mapleaf::Table;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct Order {
///     customer: String,
///     items: Vec<(u32, u16)>,
/// }
///
/// impl Named for Order {
///     fn stored_name() -> String {
///         "acme.order.v1".to_string()
///     }
/// }
///
/// const ORDERS: Table<u64, Postcard<Order>> = Table::new("orders");
///
/// let db = mapleaf::Db::in_memory()?;
/// let order = || Order { customer: "ada".to_string(), items: vec![(1815, 2)] };
/// db.write(|txn| txn.table(ORDERS)?.insert(1, order()))?;
/// assert_eq!(db.begin_read()?.table(ORDERS)?.get(1)?, Some(order()));
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct Postcard<T>(PhantomData<fn() -> T>);

impl<T> std::fmt::Debug for Postcard<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Postcard")
    }
}

impl<T: Serialize + DeserializeOwned + Named + 'static> Codec for Postcard<T> {
    type Item<'a> = T;
    type Owned = T;

    fn name() -> String {
        format!("postcard<{}>", T::stored_name())
    }

    fn encode<'a>(item: &'a T) -> Result<Encoded<'a>> {
        let refused = |e| Error::usage(format!("an item of {} cannot be encoded: {e}", Self::name()));
        Ok(Encoded::Heap(postcard::to_allocvec(item).map_err(refused)?))
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        match postcard::take_from_bytes(bytes) {
            Ok((item, [])) => Ok(item),
            Ok((_, rest)) => Err(CodecError::new(format!("{} bytes after {}", rest.len(), Self::name()))),
            Err(e) => Err(CodecError::new(e.to_string())),
        }
    }

    fn to_owned(item: T) -> T {
        item
    }
}
