//! `key_struct!`: structs as keys, by their fields.
//!
//! Floor: table. A macro by example and not a derive, so that no further crate has to be built. It
//! writes the fields one after the other, and leaves everything else to the tuple of their types.

/// Makes a struct of 2 to 6 fields a key, and a value: it is stored like the tuple of its fields,
/// and has the name of this tuple. So a table of the struct may also be opened with the tuple, and
/// `kvctl` shows its keys.
///
/// The types of the fields must be owned codecs: `String` instead of `&str`. For fields before the
/// last one they must be [parts](crate::codec::Part). The order is that of the fields, as
/// `#[derive(PartialOrd, Ord)]` makes it. The struct has no type parameters. To reorder fields, or
/// to change a type, is to declare another key.
///
/// The struct can be a component of a tuple; `prefix` and `starting_with` take its first fields.
///
/// ```
/// use std::cmp::Reverse;
/// use mapleaf::codec::Codec;
/// use mapleaf::{Db, Table};
///
/// mapleaf::key_struct! {
///     /// The newest invoice of a customer comes first.
///     #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
///     pub struct Invoice {
///         pub customer: String,
///         pub year: Reverse<u16>,
///         pub number: u32,
///     }
/// }
///
/// const TOTALS: Table<Invoice, u64> = Table::new("totals");
/// assert_eq!(Invoice::name(), "(str,Reverse<u16>,u32)");
///
/// let invoice = |year, number| Invoice { customer: "ada".to_string(), year: Reverse(year), number };
/// let db = Db::in_memory()?;
/// db.write(|txn| {
///     let mut totals = txn.table(TOTALS)?;
///     totals.insert(invoice(2024, 900), 75)?;
///     totals.insert(invoice(2025, 1), 120)?;
///     Ok::<_, mapleaf::Error>(())
/// })?;
/// let totals = db.begin_read()?.table(TOTALS)?;
/// assert_eq!(totals.first()?, Some((invoice(2025, 1), 120)));
/// assert_eq!(totals.starting_with(("ada".to_string(), Reverse(2024)))?.count(), 1);
/// # Ok::<(), mapleaf::Error>(())
/// ```
#[macro_export]
macro_rules! key_struct {
    (
        $(#[$meta:meta])*
        $visible:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_visible:vis $field:ident: $type:ty),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $visible struct $name {
            $($(#[$field_meta])* $field_visible $field: $type,)+
        }

        const _: () = {
            use $crate::codec::{Codec, CodecError, Encoded, KeyCodec, Leading, Part, PrefixCodec};

            type Tuple = ($($type,)+);

            impl Codec for $name {
                type Item<'a> = $name;
                type Owned = $name;

                fn name() -> ::std::string::String {
                    <Tuple as Codec>::name()
                }

                fn encode<'a>(item: &'a $name) -> $crate::Result<Encoded<'a>> {
                    let mut out = Encoded::new();
                    $crate::key_struct!(@encode out, item, $($field: $type,)+);
                    Ok(out)
                }

                fn decode(bytes: &[u8]) -> $crate::Result<$name, CodecError> {
                    let ($($field,)+) = <Tuple as Codec>::decode(bytes)?;
                    Ok($name { $($field,)+ })
                }

                fn to_owned(item: $name) -> $name {
                    item
                }

                fn fixed_bytes() -> ::std::option::Option<usize> {
                    <Tuple as Codec>::fixed_bytes()
                }
            }

            impl Part for $name {
                fn put(item: &$name, out: &mut Encoded<'_>) -> $crate::Result<()> {
                    $(<$type as Part>::put(&item.$field, out)?;)+
                    Ok(())
                }

                fn take(bytes: &mut &[u8]) -> $crate::Result<$name, CodecError> {
                    let ($($field,)+) = <Tuple as Part>::take(bytes)?;
                    Ok($name { $($field,)+ })
                }
            }

            impl KeyCodec for $name {
                type Key<'a> = $name;

                fn encode_key<'a>(key: &'a $name) -> $crate::Result<Encoded<'a>> {
                    <$name as Codec>::encode(key)
                }
            }

            impl PrefixCodec for $name {
                type Prefix<'a> = <Tuple as PrefixCodec>::Prefix<'a>;

                fn encode_prefix<'a>(prefix: &'a Self::Prefix<'_>) -> $crate::Result<Encoded<'a>> {
                    <Tuple as PrefixCodec>::encode_prefix(prefix)
                }
            }

            impl<P> Leading<P> for $name
            where
                Tuple: Leading<P>,
            {
                fn encode_leading(fields: &P) -> $crate::Result<Encoded<'static>> {
                    <Tuple as Leading<P>>::encode_leading(fields)
                }
            }
        };
    };
    (@encode $out:ident, $item:ident, $field:ident: $type:ty,) => {
        $out.push(&<$type as Codec>::encode(&$item.$field)?);
    };
    (@encode $out:ident, $item:ident, $field:ident: $type:ty, $($rest:tt)+) => {
        <$type as Part>::put(&$item.$field, &mut $out)?;
        $crate::key_struct!(@encode $out, $item, $($rest)+);
    };
}
