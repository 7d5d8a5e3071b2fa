//! Structs that are read where they lie, with the feature `zerocopy`.
//!
//! Floor: table. Borrowed bytes may start at any address, so only types without alignment are
//! possible. Aligned ones would be possible only for values that are sure to be longer than a
//! quarter page; to read such a value in place, take its bytes and cast them.
//!
//! Failure: bytes of another length, and bytes that are no value of the type.

use std::marker::PhantomData;

use zerocopy::error::TryCastError;
use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes, Unaligned};

use super::{Codec, CodecError, Encoded, Named, Part};
use crate::error::Result;

/// Structs that are read where they lie in the file, as `&T`. With the feature `zerocopy`.
///
/// `T` is a struct of fixed layout without alignment: `#[repr(C)]`, with fields such as `[u8; 4]`
/// or `zerocopy::little_endian::U32`. `zerocopy` derives the traits, and checks `bool` and enum
/// fields when a value is read. The bytes are those of the struct in memory. `InPlace<[T]>` reads a
/// slice. Types with an alignment do not compile, because values may start at any address.
///
/// In-place values are no keys, because their bytes need not sort like the items.
///
/// ```
/// use mapleaf::codec::{InPlace, Named};
/// use mapleaf::Table;
/// use zerocopy::little_endian::{F32, U32};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
///
/// #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone)]
/// #[repr(C)]
/// struct Sample {
///     at: U32,
///     heat: F32,
/// }
///
/// impl Named for Sample {
///     fn stored_name() -> String {
///         "acme.sample.v1".to_string()
///     }
/// }
///
/// const LAST: Table<&str, InPlace<Sample>> = Table::new("last");
/// const DAYS: Table<u32, InPlace<[Sample]>> = Table::new("days");
///
/// let db = mapleaf::Db::in_memory()?;
/// let sample = Sample { at: 3600.into(), heat: 21.5.into() };
/// db.write(|txn| {
///     txn.table(LAST)?.insert("roof", &sample)?;
///     txn.table(DAYS)?.insert(1, &[sample.clone(), sample.clone()])
/// })?;
/// let txn = db.begin_read()?;
/// let last = txn.table(LAST)?;
/// let found: &Sample = last.get("roof")?.expect("found");
/// assert_eq!((found.at.get(), found.heat.get()), (3600, 21.5));
/// assert_eq!(txn.table(DAYS)?.get(1)?.map(<[Sample]>::len), Some(2));
/// # Ok::<(), mapleaf::Error>(())
/// ```
///
/// ```compile_fail,E0277
/// // A `u32` must be aligned.
/// const AGES: mapleaf::Table<&str, mapleaf::codec::InPlace<u32>> = mapleaf::Table::new("ages");
/// ```
pub struct InPlace<T: ?Sized>(PhantomData<fn() -> Box<T>>);

impl<T: ?Sized> std::fmt::Debug for InPlace<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InPlace")
    }
}

#[cold]
fn refused<S, T: ?Sized + TryFromBytes>(e: &TryCastError<S, T>, found: usize, name: &str) -> CodecError {
    CodecError::new(match e {
        TryCastError::Validity(_) => format!("the bytes are no {name}: a field has a value that its type lacks"),
        _ => format!("{found} bytes do not fit {name}"),
    })
}

fn name_of<T: Named>() -> String {
    format!("inplace<{}>", T::stored_name())
}

impl<T> Codec for InPlace<T>
where
    T: TryFromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Clone + Named + 'static,
{
    type Item<'a> = &'a T;
    type Owned = T;

    fn name() -> String {
        name_of::<T>()
    }

    #[inline]
    fn encode<'a>(item: &'a &T) -> Result<Encoded<'a>> {
        Ok(Encoded::Borrowed(item.as_bytes()))
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<&T, CodecError> {
        T::try_ref_from_bytes(bytes).map_err(|e| refused(&e, bytes.len(), &name_of::<T>()))
    }

    fn to_owned(item: &T) -> T {
        item.clone()
    }
}

impl<T> Part for InPlace<T>
where
    T: TryFromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Clone + Named + 'static,
{
    fn put(item: &&T, out: &mut Encoded<'_>) -> Result<()> {
        out.push(item.as_bytes());
        Ok(())
    }

    fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a T, CodecError> {
        let found = bytes.len();
        let (item, rest) = T::try_ref_from_prefix(bytes).map_err(|e| refused(&e, found, &name_of::<T>()))?;
        *bytes = rest;
        Ok(item)
    }
}

impl<T> Codec for InPlace<[T]>
where
    T: TryFromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Clone + Named + 'static,
{
    type Item<'a> = &'a [T];
    type Owned = Vec<T>;

    fn name() -> String {
        format!("inplace<[{}]>", T::stored_name())
    }

    #[inline]
    fn encode<'a>(item: &'a &[T]) -> Result<Encoded<'a>> {
        Ok(Encoded::Borrowed(item.as_bytes()))
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<&[T], CodecError> {
        <[T]>::try_ref_from_bytes(bytes).map_err(|e| refused(&e, bytes.len(), &Self::name()))
    }

    fn to_owned(item: &[T]) -> Vec<T> {
        item.to_vec()
    }
}

macro_rules! numbers {
    ($($type:ty, $name:literal;)*) => { $(
        impl Named for $type {
            fn stored_name() -> String {
                $name.to_string()
            }
        }
    )* };
}

// The numbers of zerocopy that have no alignment, by which slices of numbers are read in place.
numbers! {
    zerocopy::little_endian::U16, "u16le";
    zerocopy::little_endian::U32, "u32le";
    zerocopy::little_endian::U64, "u64le";
    zerocopy::little_endian::U128, "u128le";
    zerocopy::little_endian::I16, "i16le";
    zerocopy::little_endian::I32, "i32le";
    zerocopy::little_endian::I64, "i64le";
    zerocopy::little_endian::I128, "i128le";
    zerocopy::little_endian::F32, "f32le";
    zerocopy::little_endian::F64, "f64le";
}
