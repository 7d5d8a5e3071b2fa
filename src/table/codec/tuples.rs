//! Tuples of 2 to 6 components, as keys and as values.
//!
//! Floor: table. Every component except the last is written as a `Part`, whose bytes show where it
//! ends; the last one takes the remaining bytes. A tuple that is such a component itself writes its
//! last component as a `Part` too. Tuples sort by the first component, then the second, and so on,
//! because no encoded part is a prefix of another.

use super::{Codec, CodecError, Encoded, KeyCodec, Leading, Part, PrefixCodec};
use crate::error::Result;

/// Implements tuples of one length: first component, middle components, last component.
macro_rules! tuple {
    ($first:ident $first_item:ident, $($part:ident $item:ident $number:literal,)* ; $last:ident $last_item:ident $count:literal) => {
        impl<$first: Part, $($part: Part,)* $last: Codec> Codec for ($first, $($part,)* $last) {
            type Item<'a> = ($first::Item<'a>, $($part::Item<'a>,)* $last::Item<'a>);
            type Owned = ($first::Owned, $($part::Owned,)* $last::Owned);

            fn name() -> String {
                let names = [$first::name(), $($part::name(),)* $last::name()];
                format!("({})", names.join(","))
            }

            #[inline]
            fn encode<'a>(item: &'a Self::Item<'_>) -> Result<Encoded<'a>> {
                let ($first_item, $($item,)* $last_item) = item;
                let mut out = Encoded::new();
                $first::put($first_item, &mut out)?;
                $($part::put($item, &mut out)?;)*
                out.push(&$last::encode($last_item)?);
                Ok(out)
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<Self::Item<'_>, CodecError> {
                let mut rest = bytes;
                let at = |number| move |e: CodecError| e.in_component(number, &Self::name());
                Ok((
                    $first::take(&mut rest).map_err(at(1))?,
                    $($part::take(&mut rest).map_err(at($number))?,)*
                    $last::decode(rest).map_err(at($count))?,
                ))
            }

            fn to_owned(item: Self::Item<'_>) -> Self::Owned {
                let ($first_item, $($item,)* $last_item) = item;
                ($first::to_owned($first_item), $($part::to_owned($item),)* $last::to_owned($last_item))
            }

            fn fixed_bytes() -> Option<usize> {
                let parts = [$first::fixed_bytes(), $($part::fixed_bytes(),)* $last::fixed_bytes()];
                parts.into_iter().sum()
            }
        }

        impl<$first: Part, $($part: Part,)* $last: Part> Part for ($first, $($part,)* $last) {
            #[inline]
            fn put(item: &Self::Item<'_>, out: &mut Encoded<'_>) -> Result<()> {
                let ($first_item, $($item,)* $last_item) = item;
                $first::put($first_item, out)?;
                $($part::put($item, out)?;)*
                $last::put($last_item, out)
            }

            #[inline]
            fn take<'a>(bytes: &mut &'a [u8]) -> Result<Self::Item<'a>, CodecError> {
                let at = |number| move |e: CodecError| e.in_component(number, &Self::name());
                Ok((
                    $first::take(bytes).map_err(at(1))?,
                    $($part::take(bytes).map_err(at($number))?,)*
                    $last::take(bytes).map_err(at($count))?,
                ))
            }
        }

        impl<$first: Part + KeyCodec, $($part: Part + KeyCodec,)* $last: KeyCodec> KeyCodec
            for ($first, $($part,)* $last)
        {
            type Key<'a> = Self::Item<'a>;

            #[inline]
            fn encode_key<'a>(key: &'a Self::Key<'_>) -> Result<Encoded<'a>> {
                Self::encode(key)
            }
        }

        impl<$first: Part + KeyCodec, $($part: Part + KeyCodec,)* $last: KeyCodec> PrefixCodec
            for ($first, $($part,)* $last)
        {
            type Prefix<'a> = $first::Item<'a>;

            #[inline]
            fn encode_prefix<'a>(prefix: &'a Self::Prefix<'_>) -> Result<Encoded<'a>> {
                let mut out = Encoded::new();
                $first::put(prefix, &mut out)?;
                Ok(out)
            }
        }

        leading!(($first $($part)*; $last),; $first $first_item $($part $item)*);
    };
}

/// Implements `Leading` for one, two, and so on of the components before the last one.
macro_rules! leading {
    ($tuple:tt, $($done:ident $item:ident)*;) => {};
    ($tuple:tt, $($done:ident $item:ident)*; $next:ident $next_item:ident $($rest:tt)*) => {
        leading!(@some $tuple, $($done $item)* $next $next_item);
        leading!($tuple, $($done $item)* $next $next_item; $($rest)*);
    };
    (@some ($($part:ident)*; $last:ident), $($done:ident $item:ident)*) => {
        impl<'k, $($part: Part + KeyCodec,)* $last: KeyCodec> Leading<($($done::Item<'k>,)*)> for ($($part,)* $last) {
            fn encode_leading(components: &($($done::Item<'k>,)*)) -> Result<Encoded<'static>> {
                let ($($item,)*) = components;
                let mut out = Encoded::new();
                $($done::put($item, &mut out)?;)*
                Ok(out)
            }
        }
    };
}

tuple!(A a,; Z z 2);
tuple!(A a, B b 2,; Z z 3);
tuple!(A a, B b 2, C c 3,; Z z 4);
tuple!(A a, B b 2, C c 3, D d 4,; Z z 5);
tuple!(A a, B b 2, C c 3, D d 4, E e 5,; Z z 6);
