//! Codecs: how keys and values are encoded as bytes, and decoded.
//!
//! A table is declared as `Table<K, V>`; `K` and `V` are types that implement [`Codec`], and `K`
//! also [`KeyCodec`]. Trees compare keys bytewise, so a key codec writes bytes that sort as the
//! items do.
//!
//! | types | name | bytes |
//! |---|---|---|
//! | `&str`, `String` | `str` | the UTF-8 bytes |
//! | `&[u8]`, `Vec<u8>`, `Box<[u8]>` | `bytes` | the bytes |
//! | `[u8; N]`, `&[u8; N]` | `[u8;N]` | the N bytes |
//! | `u8` to `u128` | `u8` to `u128` | big-endian |
//! | `i8` to `i128` | `i8` to `i128` | big-endian, sign bit flipped |
//! | `f32`, `f64` | `f32`, `f64` | big-endian, in the order of `total_cmp` |
//! | `bool` | `bool` | one byte, 0 or 1 |
//! | `char` | `char` | the code point, 4 bytes big-endian |
//! | `()` (values only) | `()` | none |
//! | tuples of 2 to 6 of these | `(str,u64)` | see [Tuples](#tuples) |
//! | `Option<T>` | `Option<u64>` | 0 for `None`; 1, then the item |
//! | `Vec<T>` | `Vec<u64>` | see [Lists](#lists) |
//! | [`Reverse<T>`](std::cmp::Reverse) | `Reverse<u64>` | inverted, so that they sort in descending order |
//!
//! With a [feature](#features) of the crate:
//!
//! | feature | types | name | bytes |
//! |---|---|---|---|
//! | `uuid` | `Uuid` | `uuid` | the 16 bytes |
//! | `chrono` | `DateTime<Utc>` | `timestamp` | seconds since 1970 as `i64`, nanoseconds as `u32` |
//! | | `NaiveDate` | `date` | days since 1970-01-01 as `i32` |
//! | | `NaiveTime` | `time` | seconds since midnight and nanoseconds, as `u32` |
//! | | `NaiveDateTime` | `datetime` | a `date`, then a `time` |
//! | | `TimeDelta` | `duration` | seconds as `i64`, rounded down, nanoseconds as `u32` |
//! | `time` | `UtcDateTime`, `OffsetDateTime` | `timestamp` | as above |
//! | | `Date`, `Time`, `PrimitiveDateTime`, `Duration` | `date`, `time`, `datetime`, `duration` | as above |
//! | `serde` | `Postcard<T>` (values only) | `postcard<acme.order.v1>`, see [`Named`] | postcard |
//! | `json` | `Json<T>` (values only) | `json<acme.order.v1>`, `json<any>` | JSON text |
//! | `zerocopy` | `InPlace<T>`, `InPlace<[T]>` (values only) | `inplace<acme.sample.v1>` | those in memory |
//!
//! Types that share a name share their bytes: a table that was written as `Table<String, u64>` may
//! be opened as `Table<&str, u64>`. `usize` and `isize` have no codec, because their width depends
//! on the machine: a file would not open on another one. Use `u64` and `i64`.
//!
//! ```compile_fail,E0277
//! const COUNTS: mapleaf::Table<&str, usize> = mapleaf::Table::new("counts");
//! ```
//!
//! # Borrowed and owned
//!
//! `&str`, `&[u8]` and `&[u8; N]` decode without a copy: the result borrows the transaction.
//! `String` and `Vec<u8>` decode to owned values. Lookups in a table with such keys take `&str` and
//! `&[u8]`.
//!
//! ```
//! use mapleaf::codec::Codec;
//!
//! assert_eq!(*<&str>::encode(&"ada")?, *b"ada");
//! assert_eq!(<&str>::decode(b"ada")?, "ada");
//! assert_eq!(*u32::encode(&1)?, [0, 0, 0, 1]);
//! assert!(u32::decode(b"ada").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Alignment
//!
//! Borrowed bytes may start at any address. Only a value of more than a quarter page starts at a
//! multiple of 32. To view bytes as numbers or structs, copy them, or use a checked cast (such as
//! `bytemuck::try_cast_slice`).
//!
//! # Tuples
//!
//! A tuple sorts by its first component, then by its second, and so on. Components of fixed length
//! are stored one after the other. A `str` or `bytes` component before the last ends with two zero
//! bytes, and each zero byte in it is followed by 0xFF; the last component is stored unchanged.
//! (This is the escape of FoundationDB's tuple layer, which ends a component with a single zero
//! because a type code follows; here any byte may follow, so there are two.)
//!
//! Before the last component, `&str` and `&[u8]` refuse an item with a zero byte, because they must
//! return the stored bytes unchanged. `String` and `Vec<u8>` take any content.
//!
//! ```
//! use mapleaf::codec::Codec;
//!
//! assert_eq!(*<(&str, u16)>::encode(&("ab", 7))?, *b"ab\0\0\x00\x07");
//! assert_eq!(*<(String, u16)>::encode(&("a\0b".into(), 7))?, *b"a\0\xFFb\0\0\x00\x07");
//! assert!(<(&str, u16)>::encode(&("a\0b", 7)).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A tuple may hold tuples. One that is the last component is stored like a tuple; before that, its
//! last component is stored like the others.
//!
//! [`starting_with`](crate::ReadTable::starting_with) selects keys by their first components:
//!
//! ```
//! # use mapleaf::{Db, Table};
//! const READINGS: Table<(&str, u16, u64), f64> = Table::new("readings");
//!
//! let db = Db::in_memory()?;
//! db.write(|txn| txn.table(READINGS)?.insert(("roof", 2, 1_700_000_000), 21.5))?;
//! let readings = db.begin_read()?.table(READINGS)?;
//! assert_eq!(readings.prefix("roof")?.count(), 1);
//! assert_eq!(readings.starting_with(("roof", 2))?.count(), 1);
//! assert_eq!(readings.starting_with(("roof", 3))?.count(), 0);
//! # Ok::<(), mapleaf::Error>(())
//! ```
//!
//! # Lists
//!
//! A `Vec<T>` is its elements, one after the other, each stored like a component before the last
//! one of a tuple. It sorts by its first elements, then by its second, and so on. As a component
//! before the last one, it has a byte 1 before each element and a byte 0 at its end. `Vec<u8>` is
//! no such list; it is the codec `bytes`.
//!
//! Elements without any bytes, such as `[u8; 0]`, are refused, because their number would be lost.
//! Decoding a list takes the size of an item in memory for each element.
//!
//! ```
//! use mapleaf::codec::Codec;
//!
//! assert_eq!(*Vec::<u16>::encode(&vec![1, 2])?, [0, 1, 0, 2]);
//! assert_eq!(*<(Vec<u16>, u8)>::encode(&(vec![1, 2], 9))?, [1, 0, 1, 1, 0, 2, 0, 9]);
//! assert_eq!(*Vec::<Option<&str>>::encode(&vec![None, Some("a")])?, *b"\0\x01a\0\0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Structs as keys
//!
//! [`key_struct!`](crate::key_struct) declares a struct whose bytes and name are those of the tuple
//! of its fields.
//!
//! # Features
//!
//! The crate has the features `chrono`, `json`, `serde`, `time`, `uuid` and `zerocopy`. None of
//! them is on by default, and each adds only the crate that it names (`serde` also postcard, `json`
//! serde and serde_json). A file does not depend on them: a program without a feature can copy,
//! check and compact its tables, and open them as bytes.
//!
//! # Bytes and types
//!
//! A table stores the names of its two codecs, or none: a table created by
//! [`WriteTxn::bytes_table`](crate::WriteTxn::bytes_table) or `kvctl put` has no types. Keys and
//! values without a type are arbitrary bytes, and can be opened only as text (`&str`, `String`) or
//! bytes (`&[u8]`, `Vec<u8>`). The types of a table never change.
//!
//! A program that writes raw bytes can store entries that the codecs cannot decode. Reading such an
//! entry is an error of kind [`Decode`](crate::ErrorKind::Decode); other entries are not affected,
//! and iterators go on after it. [`insert`](crate::TableMut::insert) and
//! [`put`](crate::TableMut::put) replace such a value, and [`remove`](crate::TableMut::remove)
//! deletes the entry. To reach an entry whose key does not decode, open the table as bytes.
//!
//! # Limits
//!
//! An encoded key may have 65,536 bytes, an encoded value 2^40 bytes. Writing a longer one is an
//! error of kind `TooLarge`. Of a key of more than a quarter page minus 24 bytes (1,000 bytes with
//! pages of 4 KiB), the page holds only the first bytes, and the key has a page or more of its own.
//!
//! # Codecs of your own
//!
//! Implement [`Codec`] for your type, and [`KeyCodec`] if its bytes sort like its items. Choose a
//! name with your own prefix, such as `"acme.invoice.v1"`: the table stores it and compares it at
//! every open. Such a codec can be the last component of a tuple; with [`Part`] it can be any
//! component.
//!
//! A struct as key, ordered by year and then by number:
//!
//! ```
//! use mapleaf::codec::{Codec, CodecError, Encoded, KeyCodec};
//! use mapleaf::{Db, Table};
//!
//! #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
//! struct Invoice {
//!     year: u16,
//!     number: u32,
//! }
//!
//! impl Codec for Invoice {
//!     type Item<'a> = Invoice;
//!     type Owned = Invoice;
//!
//!     fn name() -> String {
//!         "acme.invoice.v1".to_string()
//!     }
//!
//!     // Big-endian numbers sort bytewise like the numbers; fields are in the order of comparison.
//!     fn encode<'a>(item: &'a Invoice) -> mapleaf::Result<Encoded<'a>> {
//!         let mut bytes = Encoded::new();
//!         bytes.push(&item.year.to_be_bytes());
//!         bytes.push(&item.number.to_be_bytes());
//!         Ok(bytes)
//!     }
//!
//!     fn decode(bytes: &[u8]) -> Result<Invoice, CodecError> {
//!         let (year, number) = bytes.split_first_chunk().ok_or(CodecError::new("an invoice has 6 bytes"))?;
//!         let number = number.try_into().map_err(|_| CodecError::new("an invoice has 6 bytes"))?;
//!         Ok(Invoice { year: u16::from_be_bytes(*year), number: u32::from_be_bytes(number) })
//!     }
//!
//!     fn to_owned(item: Invoice) -> Invoice {
//!         item
//!     }
//! }
//!
//! impl KeyCodec for Invoice {
//!     type Key<'a> = Invoice;
//!
//!     fn encode_key<'a>(key: &'a Invoice) -> mapleaf::Result<Encoded<'a>> {
//!         Self::encode(key)
//!     }
//! }
//!
//! const TOTALS: Table<Invoice, u64> = Table::new("totals");
//!
//! let db = Db::in_memory()?;
//! db.write(|txn| {
//!     let mut totals = txn.table(TOTALS)?;
//!     totals.insert(Invoice { year: 2024, number: 900 }, 75)?;
//!     totals.insert(Invoice { year: 2025, number: 1 }, 120)?;
//!     Ok::<_, mapleaf::Error>(())
//! })?;
//! let totals = db.begin_read()?.table(TOTALS)?;
//! let from_2025 = totals.range(Invoice { year: 2025, number: 0 }..)?.next().transpose()?;
//! assert_eq!(from_2025, Some((Invoice { year: 2025, number: 1 }, 120)));
//! # Ok::<(), mapleaf::Error>(())
//! ```

#[macro_use]
mod key_struct;

#[cfg(any(feature = "chrono", feature = "time"))]
mod calendar;
#[cfg(feature = "chrono")]
mod chrono_types;
#[cfg(test)]
mod compound_tests;
mod encoded;
#[cfg(test)]
mod feature_tests;
mod fixed;
#[cfg(feature = "zerocopy")]
mod in_place;
#[cfg(feature = "json")]
mod json_values;
mod list;
mod named;
mod option;
#[cfg(feature = "serde")]
mod postcard_values;
mod reverse;
mod scalars;
#[cfg(test)]
mod tests;
mod text;
#[cfg(feature = "time")]
mod time_types;
mod tuples;
#[cfg(feature = "uuid")]
mod uuids;

use crate::error::Result;

pub use encoded::{CodecError, Encoded};
#[cfg(feature = "zerocopy")]
pub use in_place::InPlace;
#[cfg(feature = "json")]
pub use json_values::Json;
pub use named::Named;
#[cfg(feature = "serde")]
pub use postcard_values::Postcard;

/// Encodes items as bytes and decodes them.
///
/// Implemented for a marker type, which for the built-in codecs is the item type itself.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no codec, so it cannot be the key or the value of a table",
    note = "`usize` and `isize` have none because their width depends on the machine: use `u64` or `i64`",
    note = "see `mapleaf::codec` for the types that have one, and for a codec of your own"
)]
pub trait Codec {
    /// The type that is written and read. For `&str` it is `&'a str`, which borrows the stored
    /// bytes.
    type Item<'a>;

    /// An owned item: `String` for `&str`.
    type Owned: 'static;

    /// The name that is stored with a table and compared when the table is opened. It must not
    /// change once files with it exist, and codecs that write different bytes must have different
    /// names.
    fn name() -> String;

    /// Encodes an item.
    ///
    /// # Errors
    /// Kind `Usage` for an item that the codec cannot represent.
    fn encode<'a>(item: &'a Self::Item<'_>) -> Result<Encoded<'a>>;

    /// Decodes an item.
    ///
    /// # Errors
    /// For any bytes that `encode` does not write. Must not panic: the bytes come from a file.
    fn decode(bytes: &[u8]) -> Result<Self::Item<'_>, CodecError>;

    /// Makes an owned value of an item.
    fn to_owned(item: Self::Item<'_>) -> Self::Owned;

    /// The number of bytes of every encoded item, if all items have the same. Then a
    /// [`MultiTable`](crate::MultiTable) packs its values without anything between them. If the
    /// codec is a [`Part`], `put` must write as many bytes. Must not change once files with such a
    /// table exist.
    fn fixed_bytes() -> Option<usize> {
        None
    }
}

/// A codec whose bytes sort like its items, so that ranges of keys are ranges of items.
///
/// For all items `a` and `b`: `a < b` if and only if `encode(a) < encode(b)`, compared bytewise;
/// equal items have equal bytes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a table",
    note = "keys may be strings, bytes, integers, floats, bool, char, `[u8; N]`, and tuples of 2 to 6, `Option`, `Vec` and \
            `Reverse` of these"
)]
pub trait KeyCodec: Codec {
    /// The type that lookups take: the borrowed form for `String`, lists (`&[T]` for `Vec<T>`) and
    /// options of these; the item itself for all others.
    type Key<'a>;

    /// Encodes a key for a lookup, to the same bytes as [`encode`](Codec::encode) for the item.
    ///
    /// # Errors
    /// Kind `Usage` for a key that the codec cannot represent.
    fn encode_key<'a>(key: &'a Self::Key<'_>) -> Result<Encoded<'a>>;
}

/// A key codec that supports prefixes.
///
/// For text and bytes a prefix is the beginning of the key. For a tuple it is the whole first
/// component: the prefix `"t017"` of a `(&str, u64)` table selects the keys whose first component
/// is exactly `"t017"`.
pub trait PrefixCodec: KeyCodec {
    /// The type of a prefix.
    type Prefix<'a>;

    /// Encodes a prefix: all selected keys begin with these bytes, and no others do.
    ///
    /// # Errors
    /// Kind `Usage` for a prefix that the codec cannot represent.
    fn encode_prefix<'a>(prefix: &'a Self::Prefix<'_>) -> Result<Encoded<'a>>;
}

/// A key codec whose keys can be selected by their first components, of the types in `P`.
///
/// Implemented for tuples, with tuples of one to all but one of their components: `(&str, u16,
/// u64)` has `Leading<(&str,)>` and `Leading<(&str, u16)>`.
#[diagnostic::on_unimplemented(
    message = "`{P}` are not the leading components of the key `{Self}`",
    note = "give a tuple of one or more components, but not of all: `(\"t017\",)` or `(\"t017\", 5)`"
)]
pub trait Leading<P>: KeyCodec {
    /// Encodes the components: all keys that begin with them begin with these bytes, and no others
    /// do.
    ///
    /// # Errors
    /// Kind `Usage` for a component that its codec cannot represent.
    fn encode_leading(components: &P) -> Result<Encoded<'static>>;
}

/// A codec that can be used before the last component of a tuple, because its bytes show where an
/// item ends.
///
/// No encoded item may be a prefix of another one. If the codec is a [`KeyCodec`], the bytes must
/// sort like the items. To decode an item, `take` looks only at the bytes of the item.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand before the last component of a tuple, in a `Vec` or in a `Reverse`",
    note = "its bytes do not show where an item ends; see `mapleaf::codec::Part`"
)]
pub trait Part: Codec {
    /// Appends the item, and a terminator if it needs one, to `out`.
    ///
    /// # Errors
    /// Kind `Usage` for an item that cannot be represented before the last component.
    fn put(item: &Self::Item<'_>, out: &mut Encoded<'_>) -> Result<()>;

    /// Decodes one item at the start of `bytes` and removes it from `bytes`.
    ///
    /// # Errors
    /// For any bytes that `put` does not write. Must not panic: the bytes come from a file.
    fn take<'a>(bytes: &mut &'a [u8]) -> Result<Self::Item<'a>, CodecError>;

    // The codec of `Vec<Self>`, so that `Vec<u8>` can be `bytes`. Only `u8` overrides these.
    #[doc(hidden)]
    fn list_name() -> String {
        format!("Vec<{}>", Self::name())
    }

    #[doc(hidden)]
    fn encode_list<'a>(items: &'a [Self::Item<'_>]) -> Result<Encoded<'a>> {
        list::encode::<Self>(items)
    }

    #[doc(hidden)]
    fn decode_list(bytes: &[u8]) -> Result<Vec<Self::Item<'_>>, CodecError> {
        list::decode::<Self>(bytes)
    }

    #[doc(hidden)]
    fn put_list(items: &[Self::Item<'_>], out: &mut Encoded<'_>) -> Result<()> {
        list::put::<Self>(items, out)
    }

    #[doc(hidden)]
    fn take_list<'a>(bytes: &mut &'a [u8]) -> Result<Vec<Self::Item<'a>>, CodecError> {
        list::take::<Self>(bytes)
    }
}
