//! Tests of the codecs: names, exact bytes, order, round trips, and bytes that no codec writes.

use std::cmp::Ordering;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Codec, CodecError, Encoded, KeyCodec, PrefixCodec};
use crate::error::ErrorKind;

pub(super) fn bytes_of<C: Codec>(item: &C::Item<'_>) -> Vec<u8> {
    C::encode(item).expect("encodes").to_vec()
}

/// Checks that decoding the encoded bytes returns the item, borrowed and owned.
pub(super) fn round_trip<C>(item: C::Owned)
where
    C: for<'a> Codec<Item<'a> = <C as Codec>::Owned>,
    C::Owned: PartialEq + Debug + Clone,
{
    let bytes = bytes_of::<C>(&item);
    let found = C::decode(&bytes).expect("decodes");
    assert_eq!(found, item);
    assert_eq!(C::to_owned(found), item);
}

/// Checks that the encoded bytes sort like the items, by `compare`.
pub(super) fn same_order<C>(a: &C::Owned, b: &C::Owned, compare: impl Fn(&C::Owned, &C::Owned) -> Ordering)
where
    C: for<'a> KeyCodec<Item<'a> = <C as Codec>::Owned>,
    C::Owned: Debug,
{
    assert_eq!(bytes_of::<C>(a).cmp(&bytes_of::<C>(b)), compare(a, b), "{a:?} and {b:?}");
}

/// Bytes with many 0x00, 0x01 and 0xFF, the values that matter for the escape.
pub(super) fn nasty() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0u8), Just(0), Just(1), Just(0xFE), Just(0xFF), any::<u8>()], 0..6)
}

pub(super) fn nasty_text() -> impl Strategy<Value = String> {
    vec(prop_oneof![Just('\0'), Just('\0'), Just('\u{1}'), Just('a'), Just('\u{10FFFF}'), any::<char>()], 0..6)
        .prop_map(String::from_iter)
}

macro_rules! scalar_properties {
    ($($test:ident $type:ty, $strategy:expr;)*) => {
        proptest! { $(
            #[test]
            fn $test(a in $strategy, b in $strategy) {
                round_trip::<$type>(a.clone());
                same_order::<$type>(&a, &b, Ord::cmp);
                round_trip::<($type, $type)>((a.clone(), b.clone()));
                same_order::<($type, u8)>(&(a.clone(), 0xFF), &(b.clone(), 0), Ord::cmp);
            }
        )* }
    };
}

scalar_properties! {
    u8_items u8, any::<u8>();
    u16_items u16, any::<u16>();
    u32_items u32, any::<u32>();
    u64_items u64, any::<u64>();
    u128_items u128, any::<u128>();
    i8_items i8, any::<i8>();
    i16_items i16, any::<i16>();
    i32_items i32, any::<i32>();
    i64_items i64, any::<i64>();
    i128_items i128, any::<i128>();
    bool_items bool, any::<bool>();
    char_items char, any::<char>();
    array_items [u8; 3], any::<[u8; 3]>();
    empty_array_items [u8; 0], any::<[u8; 0]>();
    string_items String, nasty_text();
    bytes_items Vec<u8>, nasty();
}

proptest! {
    #[test]
    fn f64_round_trips_and_sorts_by_total_order(a: u64, b: u64) {
        let (a, b) = (f64::from_bits(a), f64::from_bits(b));
        prop_assert_eq!(f64::decode(&bytes_of::<f64>(&a)).expect("decodes").to_bits(), a.to_bits());
        same_order::<f64>(&a, &b, f64::total_cmp);
    }

    #[test]
    fn f32_round_trips_and_sorts_by_total_order(a: u32, b: u32) {
        let (a, b) = (f32::from_bits(a), f32::from_bits(b));
        prop_assert_eq!(f32::decode(&bytes_of::<f32>(&a)).expect("decodes").to_bits(), a.to_bits());
        same_order::<f32>(&a, &b, f32::total_cmp);
    }

    #[test]
    fn tuples_of_text_and_bytes_round_trip_and_sort(a in (nasty_text(), nasty(), nasty_text()), b in (nasty_text(), nasty(), nasty_text())) {
        type Key = (String, Vec<u8>, String);
        round_trip::<Key>(a.clone());
        same_order::<Key>(&a, &b, Ord::cmp);
    }

    #[test]
    fn tuples_with_a_common_beginning_round_trip_and_sort(start in nasty(), a in nasty(), b in nasty(), x: u8, y: u8) {
        type Key = (Vec<u8>, u8, Vec<u8>);
        let one = ([start.clone(), a.clone()].concat(), x, b.clone());
        let two = ([start, b].concat(), y, a);
        round_trip::<Key>(one.clone());
        same_order::<Key>(&one, &two, Ord::cmp);
    }

    #[test]
    fn tuples_of_six_round_trip_and_sort(
        a in (any::<u8>(), nasty_text(), any::<bool>(), nasty(), any::<i16>(), nasty()),
        b in (any::<u8>(), nasty_text(), any::<bool>(), nasty(), any::<i16>(), nasty()),
    ) {
        type Key = (u8, String, bool, Vec<u8>, i16, Vec<u8>);
        round_trip::<Key>(a.clone());
        same_order::<Key>(&a, &b, Ord::cmp);
    }

    #[test]
    fn a_tuple_that_ends_with_a_tuple_round_trips_and_sorts(a in (nasty(), (nasty(), any::<u32>())), b in (nasty(), (nasty(), any::<u32>()))) {
        type Key = (Vec<u8>, (Vec<u8>, u32));
        round_trip::<Key>(a.clone());
        same_order::<Key>(&a, &b, Ord::cmp);
    }

    #[test]
    fn borrowed_components_encode_like_owned_ones_or_are_refused(text in nasty_text(), bytes in nasty(), number: u64) {
        let owned = bytes_of::<(String, Vec<u8>, u64)>(&(text.clone(), bytes.clone(), number));
        let borrowed = <(&str, &[u8], u64)>::encode(&(&text, &bytes, number)).map(|encoded| encoded.to_vec());
        let read = <(&str, &[u8], u64)>::decode(&owned);
        if text.contains('\0') || bytes.contains(&0) {
            prop_assert_eq!(borrowed.expect_err("refuses").kind(), ErrorKind::Usage);
            prop_assert!(read.is_err());
        } else {
            prop_assert_eq!(borrowed.expect("encodes"), owned.clone());
            prop_assert_eq!(read.expect("decodes"), (text.as_str(), bytes.as_slice(), number));
        }
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in nasty()) {
        fn canonical<C: Codec>(bytes: &[u8]) {
            if let Ok(item) = C::decode(bytes) {
                assert_eq!(bytes_of::<C>(&item), bytes, "{}", C::name());
            }
        }
        canonical::<String>(&bytes);
        canonical::<bool>(&bytes);
        canonical::<char>(&bytes);
        canonical::<f32>(&bytes);
        canonical::<[u8; 2]>(&bytes);
        canonical::<(Vec<u8>, Vec<u8>)>(&bytes);
        canonical::<(&[u8], &[u8])>(&bytes);
        canonical::<(String, bool, Vec<u8>)>(&bytes);
        canonical::<(&str, char, &[u8; 1])>(&bytes);
        canonical::<(Vec<u8>, ())>(&bytes);
    }

    #[test]
    fn a_prefix_selects_exactly_its_keys(first in nasty(), other in nasty(), rest in nasty()) {
        type Key = (Vec<u8>, Vec<u8>);
        let prefix = Key::encode_prefix(&first).expect("encodes").to_vec();
        let key = bytes_of::<Key>(&(other.clone(), rest));
        prop_assert_eq!(key.starts_with(&prefix), other == first);
    }

    #[test]
    fn pushed_bytes_come_out_in_order(chunks in vec(vec(any::<u8>(), 0..20), 0..6)) {
        let mut all = Encoded::new();
        for chunk in &chunks {
            all.push(chunk);
        }
        prop_assert_eq!(all.to_vec(), chunks.concat());
    }
}

/// Names are stored in files: changing one makes tables unreadable.
#[test]
fn names_of_codecs_never_change() {
    let names = [
        (<&str>::name(), "str"),
        (String::name(), "str"),
        (<&[u8]>::name(), "bytes"),
        (Vec::<u8>::name(), "bytes"),
        (<[u8; 16]>::name(), "[u8;16]"),
        (<&[u8; 16]>::name(), "[u8;16]"),
        (u8::name(), "u8"),
        (u16::name(), "u16"),
        (u32::name(), "u32"),
        (u64::name(), "u64"),
        (u128::name(), "u128"),
        (i8::name(), "i8"),
        (i16::name(), "i16"),
        (i32::name(), "i32"),
        (i64::name(), "i64"),
        (i128::name(), "i128"),
        (f32::name(), "f32"),
        (f64::name(), "f64"),
        (bool::name(), "bool"),
        (char::name(), "char"),
        (<()>::name(), "()"),
        (<(&str, u64)>::name(), "(str,u64)"),
        (<(String, Vec<u8>, i8, bool, char, [u8; 2])>::name(), "(str,bytes,i8,bool,char,[u8;2])"),
        (<(u8, (u8, &str))>::name(), "(u8,(u8,str))"),
    ];
    for (name, expected) in names {
        assert_eq!(name, expected);
    }
}

/// Encoded bytes are stored in files: changing them makes tables unreadable.
#[test]
fn encoded_bytes_never_change() {
    assert_eq!(bytes_of::<&str>(&"ada"), b"ada");
    assert_eq!(bytes_of::<&[u8]>(&&[0u8, 255][..]), [0, 255]);
    assert_eq!(bytes_of::<[u8; 2]>(&[7, 0]), [7, 0]);
    assert_eq!(bytes_of::<&[u8; 2]>(&&[7, 0]), [7, 0]);
    assert_eq!(bytes_of::<u32>(&0x0102_0304), [1, 2, 3, 4]);
    assert_eq!(bytes_of::<u128>(&1)[14..], [0, 1]);
    assert_eq!(bytes_of::<i16>(&-1), [0x7F, 0xFF]);
    assert_eq!(bytes_of::<i16>(&i16::MIN), [0, 0]);
    assert_eq!(bytes_of::<i16>(&1), [0x80, 1]);
    assert_eq!(bytes_of::<f32>(&1.0), [0xBF, 0x80, 0, 0]);
    assert_eq!(bytes_of::<f32>(&-1.0), [0x40, 0x7F, 0xFF, 0xFF]);
    assert_eq!(bytes_of::<bool>(&true), [1]);
    assert_eq!(bytes_of::<char>(&'\u{1F980}'), [0, 1, 0xF9, 0x80]);
    assert_eq!(bytes_of::<()>(&()), b"");
    assert_eq!(bytes_of::<(&str, u16)>(&("ab", 7)), b"ab\0\0\x00\x07");
    assert_eq!(bytes_of::<(Vec<u8>, Vec<u8>)>(&(vec![0, 1], vec![0])), b"\0\xFF\x01\0\0\0");
}

#[test]
fn short_items_are_encoded_without_an_allocation() {
    assert!(matches!(<&str>::encode(&"any length of text at all"), Ok(Encoded::Borrowed(_))));
    assert!(matches!(<&[u8]>::encode(&&[0u8; 99][..]), Ok(Encoded::Borrowed(_))));
    assert!(matches!(<[u8; 99]>::encode(&[0; 99]), Ok(Encoded::Borrowed(_))));
    assert!(matches!(u128::encode(&1), Ok(Encoded::Inline(_, 16))));
    assert!(matches!(<(u64, u64)>::encode(&(1, 2)), Ok(Encoded::Inline(_, 16))));
    assert!(matches!(<(u64, u64, u8)>::encode(&(1, 2, 3)), Ok(Encoded::Heap(_))));
}

#[test]
fn floats_sort_by_total_order() {
    let sorted = [-f64::NAN, f64::NEG_INFINITY, -1.5, -0.0, 0.0, f64::MIN_POSITIVE, 2.0, f64::INFINITY, f64::NAN];
    let keys: Vec<_> = sorted.iter().map(bytes_of::<f64>).collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
}

pub(super) fn refusal<C: Codec>(bytes: &[u8]) -> String {
    C::decode(bytes).err().as_ref().map(CodecError::to_string).unwrap_or_else(|| "accepted".to_string())
}

#[test]
fn invalid_bytes_are_refused_with_a_reason() {
    assert_eq!(refusal::<u64>(b"ada"), "3 bytes where u64 has 8");
    assert_eq!(refusal::<[u8; 4]>(b"ada"), "3 bytes where [u8;4] has 4");
    assert_eq!(refusal::<&[u8; 2]>(b"ada"), "3 bytes where [u8;2] has 2");
    assert_eq!(refusal::<()>(b"a"), "1 bytes where () has 0");
    assert_eq!(refusal::<bool>(&[2]), "2 is not a bool (0 or 1)");
    assert_eq!(refusal::<char>(&[0, 0, 0xD8, 0]), "0xd800 is not a char");
    assert_eq!(refusal::<&str>(b"ab\xFF"), "not text: no valid UTF-8 from byte 2");
    assert_eq!(refusal::<(&str, u8)>(b"ab"), "component 1 of (str,u8): the component does not end");
    assert_eq!(refusal::<(&str, u8)>(b"ab\0"), "component 1 of (str,u8): the component does not end");
    assert_eq!(refusal::<(&str, u8)>(b"ab\0\0"), "component 2 of (str,u8): 0 bytes where u8 has 1");
    assert_eq!(refusal::<(u16, u8)>(b"a"), "component 1 of (u16,u8): 1 bytes where u16 has 2");
    assert_eq!(refusal::<(u8, u8)>(b"abc"), "component 2 of (u8,u8): 2 bytes where u8 has 1");
    assert_eq!(
        refusal::<(String, u8)>(b"a\0\x01\0\0x"),
        "component 1 of (str,u8): a zero byte is followed by 0x01, expected 0x00 or 0xff"
    );
    assert_eq!(
        refusal::<(&[u8], u8)>(b"a\0\xFF\0\0x"),
        "component 1 of (bytes,u8): it holds a zero byte, which only Vec<u8> can read"
    );
}

#[test]
fn a_zero_byte_in_a_borrowed_component_names_the_remedy() {
    let error = <(&str, u8)>::encode(&("a\0b", 1)).expect_err("refuses");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("declare the component as String"), "{error}");
    let error = <(u8, &[u8], u8)>::encode(&(1, b"\0", 1)).expect_err("refuses");
    assert!(error.to_string().contains("declare the component as Vec<u8>"), "{error}");
    assert_eq!(bytes_of::<(u8, &str)>(&(1, "a\0b")), b"\x01a\0b");
}
