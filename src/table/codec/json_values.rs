//! Values of any `serde` type as JSON, with the feature `json`.
//!
//! Floor: table.
//!
//! Failure: bytes that are not JSON, or not that of a value of the type.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::Serialize;

use super::{Codec, CodecError, Encoded, Named};
use crate::error::{Error, Result};

/// Values of a type that implements serde's `Serialize` and `Deserialize`, as JSON text without
/// spaces. With the feature `json`.
///
/// JSON has the names of the fields, so a type may get fields with `#[serde(default)]` and keep its
/// [name](Named). `serde_json::Value` has the name `any`. `kvctl` shows such values as they are.
///
/// JSON values are no keys; of a tuple, they can only be the last component.
///
/// Limits: JSON has no infinite numbers and no NaN; serde_json writes `null` instead, which a float
/// does not read. Values are nested to a depth of 127.
///
/// ```
/// use mapleaf::codec::{Codec, Json};
/// use mapleaf::Table;
/// use serde_json::{json, Value};
///
/// const EVENTS: Table<u64, Json<Value>> = Table::new("events");
///
/// let db = mapleaf::Db::in_memory()?;
/// db.write(|txn| txn.table(EVENTS)?.insert(1, json!({"kind": "rain", "mm": 12})))?;
/// assert_eq!(db.begin_read()?.table(EVENTS)?.get(1)?.expect("found")["mm"], 12);
/// assert_eq!(Json::<Value>::name(), "json<any>");
/// # Ok::<(), mapleaf::Error>(())
/// ```
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> std::fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Json")
    }
}

impl<T: Serialize + DeserializeOwned + Named + 'static> Codec for Json<T> {
    type Item<'a> = T;
    type Owned = T;

    fn name() -> String {
        format!("json<{}>", T::stored_name())
    }

    fn encode<'a>(item: &'a T) -> Result<Encoded<'a>> {
        let refused = |e| Error::usage(format!("an item of {} cannot be encoded: {e}", Self::name()));
        Ok(Encoded::Heap(serde_json::to_vec(item).map_err(refused)?))
    }

    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|e| CodecError::new(e.to_string()))
    }

    fn to_owned(item: T) -> T {
        item
    }
}

impl Named for serde_json::Value {
    fn stored_name() -> String {
        "any".to_string()
    }
}
