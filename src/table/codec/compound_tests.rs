//! Tests of the codecs that are made of other codecs: options, lists, descending order, and tuples
//! in tuples. Names, exact bytes, order, round trips, and bytes that no codec writes.

use std::cmp::Reverse;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::tests::{bytes_of, nasty, nasty_text, refusal, round_trip, same_order};
use super::{Codec, Encoded, KeyCodec, Leading, Part, PrefixCodec};
use crate::error::ErrorKind;

/// The bytes of an item as a component before the last one.
pub(super) fn part_of<C: Part>(item: &C::Item<'_>) -> Vec<u8> {
    let mut out = Encoded::new();
    C::put(item, &mut out).expect("can be a component");
    out.to_vec()
}

/// Checks the properties of a key codec for two items: by themselves, as the first component of a
/// tuple and as the last one.
pub(super) fn is_key<C>(a: &C::Owned, b: &C::Owned)
where
    C: Part + for<'a> KeyCodec<Item<'a> = <C as Codec>::Owned>,
    C::Owned: Ord + Debug + Clone,
{
    for item in [a, b] {
        round_trip::<C>(item.clone());
        round_trip::<(C, u8)>((item.clone(), 7));
        round_trip::<(u8, C)>((7, item.clone()));
        // The item ends where its bytes say, and nothing after it is looked at.
        let part = part_of::<C>(item);
        for after in [&b""[..], b"\0", b"\xFF\xFF", b"\x01\0"] {
            let bytes = [&part, after].concat();
            let mut rest = &bytes[..];
            assert_eq!(&C::take(&mut rest).expect("decodes"), item);
            assert_eq!(rest, after);
        }
        for len in 0..part.len() {
            assert!(C::take(&mut &part[..len]).is_err(), "{item:?} cut to {len} bytes");
        }
    }
    same_order::<C>(a, b, Ord::cmp);
    same_order::<(C, u8)>(&(a.clone(), 0xFF), &(b.clone(), 0), Ord::cmp);
    same_order::<(u8, C)>(&(7, a.clone()), &(7, b.clone()), Ord::cmp);
    assert_eq!(part_of::<C>(b).starts_with(&part_of::<C>(a)), a == b, "{a:?} {b:?}");
}

macro_rules! keys {
    ($($test:ident $type:ty, $strategy:expr;)*) => {
        proptest! { $(
            #[test]
            fn $test(a in $strategy, b in $strategy) {
                is_key::<$type>(&a, &b);
                is_key::<Reverse<$type>>(&Reverse(a.clone()), &Reverse(b.clone()));
                is_key::<Option<$type>>(&Some(a.clone()), &Some(b.clone()));
                is_key::<Option<$type>>(&Some(a.clone()), &None);
                is_key::<Vec<$type>>(&vec![a.clone(), b.clone()], &vec![b.clone()]);
                is_key::<Vec<$type>>(&vec![a.clone()], &vec![a.clone(), b.clone()]);
                is_key::<($type, $type)>(&(a.clone(), b.clone()), &(a.clone(), a));
            }
        )* }
    };
}

keys! {
    numbers_as_keys_of_every_kind u32, 0..3u32;
    signed_numbers_as_keys_of_every_kind i128, prop_oneof![any::<i128>(), -2..2i128];
    text_as_keys_of_every_kind String, nasty_text();
    bytes_as_keys_of_every_kind Vec<u8>, nasty();
    boxed_bytes_as_keys_of_every_kind Box<[u8]>, nasty().prop_map(Vec::into_boxed_slice);
    lists_of_numbers_as_keys_of_every_kind Vec<u16>, vec(prop_oneof![Just(0u16), Just(1), Just(256), any::<u16>()], 0..4);
    lists_of_text_as_keys_of_every_kind Vec<String>, vec(nasty_text(), 0..4);
    lists_of_lists_as_keys_of_every_kind Vec<Vec<i8>>, vec(vec(-2..2i8, 0..3), 0..3);
    options_as_keys_of_every_kind Option<Vec<u8>>, of(nasty());
    options_of_options_as_keys_of_every_kind Option<Option<bool>>, of(of(any::<bool>()));
    tuples_as_keys_of_every_kind (Vec<u8>, String), (nasty(), nasty_text());
    tuples_of_tuples_as_keys_of_every_kind ((u8, Vec<u8>), (Vec<u8>, bool)), ((0..2u8, nasty()), (nasty(), any::<bool>()));
    long_text_as_keys_of_every_kind String, "[a-b\u{0}]{0,3}|x{28,34}\u{0}?|x{120,140}|x{510,514}";
    descending_options_as_keys_of_every_kind Reverse<Option<String>>, of(nasty_text()).prop_map(Reverse);
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in vec(prop_oneof![Just(0u8), Just(1), Just(0xFE), Just(0xFF), any::<u8>()], 0..40)) {
        fn canonical<C: Codec>(bytes: &[u8]) {
            if let Ok(item) = C::decode(bytes) {
                assert_eq!(bytes_of::<C>(&item), bytes, "{}", C::name());
            }
        }
        canonical::<Option<u8>>(&bytes);
        canonical::<Option<&str>>(&bytes);
        canonical::<Option<()>>(&bytes);
        canonical::<Option<Option<Vec<u8>>>>(&bytes);
        canonical::<Vec<bool>>(&bytes);
        canonical::<Vec<&[u8]>>(&bytes);
        canonical::<Vec<Option<String>>>(&bytes);
        canonical::<Vec<Vec<Vec<u8>>>>(&bytes);
        canonical::<Vec<[u8; 0]>>(&bytes);
        canonical::<(Vec<[u8; 0]>, u8)>(&bytes);
        canonical::<Reverse<u8>>(&bytes);
        canonical::<Reverse<String>>(&bytes);
        canonical::<Reverse<Vec<Vec<u8>>>>(&bytes);
        canonical::<Reverse<Reverse<Vec<u8>>>>(&bytes);
        canonical::<((&[u8], Vec<u8>), Vec<u8>)>(&bytes);
        canonical::<(Option<(u8, u8)>, Reverse<bool>, Vec<bool>)>(&bytes);
        canonical::<Box<[u8]>>(&bytes);
    }

    #[test]
    fn borrowed_elements_encode_like_owned_ones(texts in vec("[a-c]{0,3}", 0..4)) {
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        let bytes = bytes_of::<Vec<&str>>(&borrowed);
        prop_assert_eq!(&bytes, &bytes_of::<Vec<String>>(&texts));
        prop_assert_eq!(Vec::<&str>::decode(&bytes).expect("decodes"), borrowed.clone());
        prop_assert_eq!(<Vec<&str> as Codec>::to_owned(borrowed.clone()), texts.clone());
        let part = part_of::<Vec<&str>>(&borrowed);
        prop_assert_eq!(&part, &part_of::<Vec<String>>(&texts));
        prop_assert_eq!(Vec::<&str>::take(&mut &part[..]).expect("decodes"), borrowed);
    }

    #[test]
    fn the_first_elements_of_a_list_select_its_keys(first in vec(nasty(), 0..3), other in vec(nasty(), 0..4)) {
        let prefix = Vec::<Vec<u8>>::encode_prefix(&&first[..]).expect("encodes").to_vec();
        let key = bytes_of::<Vec<Vec<u8>>>(&other);
        prop_assert_eq!(key.starts_with(&prefix), other.starts_with(&first));
        let looked_up = Vec::<Vec<u8>>::encode_key(&&other[..]).expect("encodes").to_vec();
        prop_assert_eq!(looked_up, key);
    }

    #[test]
    fn leading_components_select_exactly_their_keys(a in (nasty(), 0..2u8, nasty(), any::<bool>()), b in (nasty(), 0..2u8, nasty(), any::<bool>())) {
        type Key = (Vec<u8>, Reverse<u8>, Vec<u8>, bool);
        let key = bytes_of::<Key>(&(b.0.clone(), Reverse(b.1), b.2.clone(), b.3));
        let one = Key::encode_leading(&(a.0.clone(),)).expect("encodes").to_vec();
        prop_assert_eq!(key.starts_with(&one), a.0 == b.0);
        prop_assert_eq!(&one[..], &*Key::encode_prefix(&a.0).expect("encodes"));
        let two = Key::encode_leading(&(a.0.clone(), Reverse(a.1))).expect("encodes").to_vec();
        prop_assert_eq!(key.starts_with(&two), (&a.0, a.1) == (&b.0, b.1));
        let three = Key::encode_leading(&(a.0.clone(), Reverse(a.1), a.2.clone())).expect("encodes").to_vec();
        prop_assert_eq!(key.starts_with(&three), (&a.0, a.1, &a.2) == (&b.0, b.1, &b.2));
    }

    #[test]
    fn keys_of_options_are_looked_up_by_their_borrowed_form(text in of(nasty_text())) {
        let looked_up = Option::<String>::encode_key(&text.as_deref()).expect("encodes").to_vec();
        prop_assert_eq!(looked_up, bytes_of::<Option<String>>(&text));
    }
}

key_struct! {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Visit {
        place: String,
        day: Reverse<u16>,
        notes: Vec<String>,
    }
}

proptest! {
    #[test]
    fn structs_are_keys_like_the_tuples_of_their_fields(
        a in (nasty_text(), 0..3u16, vec(nasty_text(), 0..3)),
        b in (nasty_text(), 0..3u16, vec(nasty_text(), 0..3)),
    ) {
        type Tuple = (String, Reverse<u16>, Vec<String>);
        let visit = |(place, day, notes): (String, u16, Vec<String>)| Visit { place, day: Reverse(day), notes };
        let (x, y) = (visit(a.clone()), visit(b));
        is_key::<Visit>(&x, &y);
        let tuple: Tuple = (a.0, Reverse(a.1), a.2);
        prop_assert_eq!(bytes_of::<Visit>(&x), bytes_of::<Tuple>(&tuple));
        prop_assert_eq!(part_of::<Visit>(&x), part_of::<Tuple>(&tuple));
        prop_assert_eq!(&*Visit::encode_key(&x).expect("encodes"), bytes_of::<Visit>(&x));
        let place = (tuple.0.clone(),);
        prop_assert_eq!(&*Visit::encode_leading(&place).expect("encodes"), &*Tuple::encode_prefix(&tuple.0).expect("encodes"));
        prop_assert_eq!(&*Visit::encode_prefix(&tuple.0).expect("encodes"), &*Tuple::encode_prefix(&tuple.0).expect("encodes"));
    }
}

/// Names are stored in files: changing one makes tables unreadable.
#[test]
fn names_of_compound_codecs_never_change() {
    let names = [
        (Box::<[u8]>::name(), "bytes"),
        (Vec::<u8>::name(), "bytes"),
        (Option::<&str>::name(), "Option<str>"),
        (Option::<Option<(u8, String)>>::name(), "Option<Option<(u8,str)>>"),
        (Vec::<u64>::name(), "Vec<u64>"),
        (Vec::<&str>::name(), "Vec<str>"),
        (Vec::<Vec<u8>>::name(), "Vec<bytes>"),
        (Vec::<Vec<Option<i8>>>::name(), "Vec<Vec<Option<i8>>>"),
        (Reverse::<u64>::name(), "Reverse<u64>"),
        (Reverse::<(String, Reverse<u8>)>::name(), "Reverse<(str,Reverse<u8>)>"),
        (Visit::name(), "(str,Reverse<u16>,Vec<str>)"),
        (<((u8, &str), Vec<u16>)>::name(), "((u8,str),Vec<u16>)"),
    ];
    for (name, expected) in names {
        assert_eq!(name, expected);
    }
}

/// Encoded bytes are stored in files: changing them makes tables unreadable.
#[test]
fn bytes_of_compound_codecs_never_change() {
    assert_eq!(bytes_of::<Box<[u8]>>(&vec![0, 255].into()), [0, 255]);
    assert_eq!(part_of::<Box<[u8]>>(&vec![0, 255].into()), [0, 255, 255, 0, 0]);
    assert_eq!(bytes_of::<Option<u16>>(&None), [0]);
    assert_eq!(bytes_of::<Option<u16>>(&Some(7)), [1, 0, 7]);
    assert_eq!(bytes_of::<Option<&str>>(&Some("ab")), b"\x01ab");
    assert_eq!(part_of::<Option<&str>>(&Some("ab")), b"\x01ab\0\0");
    assert_eq!(bytes_of::<Option<Option<()>>>(&Some(Some(()))), [1, 1]);
    assert_eq!(bytes_of::<Vec<u16>>(&vec![]), b"");
    assert_eq!(bytes_of::<Vec<u16>>(&vec![1, 2]), [0, 1, 0, 2]);
    assert_eq!(part_of::<Vec<u16>>(&vec![]), [0]);
    assert_eq!(part_of::<Vec<u16>>(&vec![1, 2]), [1, 0, 1, 1, 0, 2, 0]);
    assert_eq!(bytes_of::<Vec<&str>>(&vec!["a", "", "b"]), b"a\0\0\0\0b\0\0");
    assert_eq!(bytes_of::<Vec<Vec<u8>>>(&vec![vec![0], vec![]]), [0, 255, 0, 0, 0, 0]);
    assert_eq!(bytes_of::<Vec<Vec<u16>>>(&vec![vec![], vec![3]]), [0, 1, 0, 3, 0]);
    assert_eq!(part_of::<Vec<[u8; 0]>>(&vec![[], []]), [1, 1, 0]);
    assert_eq!(bytes_of::<Reverse<u16>>(&Reverse(1)), [0xFF, 0xFE]);
    assert_eq!(bytes_of::<Reverse<i16>>(&Reverse(-1)), [0x80, 0]);
    assert_eq!(bytes_of::<Reverse<String>>(&Reverse("a".to_string())), [!b'a', 0xFF, 0xFF]);
    assert_eq!(bytes_of::<(&str, Reverse<u8>)>(&("a", Reverse(0))), [b'a', 0, 0, 0xFF]);
    assert_eq!(bytes_of::<((u8, &str), &str)>(&((1, "a"), "b")), b"\x01a\0\0b");
    assert_eq!(bytes_of::<(u8, (u8, &str))>(&(1, (2, "b"))), b"\x01\x02b");
}

#[test]
fn invalid_bytes_of_compound_codecs_are_refused_with_a_reason() {
    assert_eq!(refusal::<Option<u8>>(b""), "an Option has at least one byte, not 0");
    assert_eq!(refusal::<Option<u8>>(&[2, 0]), "an Option begins with 0x02, expected 0x00 or 0x01");
    assert_eq!(refusal::<Option<u8>>(&[0, 0]), "1 bytes after None");
    assert_eq!(refusal::<Option<u8>>(&[1]), "0 bytes where u8 has 1");
    assert_eq!(refusal::<Vec<u16>>(&[0, 1, 2]), "element 2 of Vec<u16>: 1 bytes where u16 has 2");
    assert_eq!(refusal::<Vec<[u8; 0]>>(b"ab"), "2 bytes where an element of Vec<[u8;0]> has none");
    assert_eq!(
        refusal::<(Vec<bool>, u8)>(&[1, 2, 0, 0]),
        "component 1 of (Vec<bool>,u8): element 1 of Vec<bool>: 2 is not a bool (0 or 1)"
    );
    assert_eq!(refusal::<(Vec<bool>, u8)>(&[1, 1]), "component 1 of (Vec<bool>,u8): the list does not end");
    assert_eq!(
        refusal::<(Vec<bool>, u8)>(&[7]),
        "component 1 of (Vec<bool>,u8): a list goes on with 0x07, expected 0x00 or 0x01"
    );
    assert_eq!(refusal::<Reverse<u16>>(&[1]), "1 bytes where u16 has 2");
    assert_eq!(refusal::<Reverse<u16>>(&[1, 2, 3]), "1 bytes after Reverse<u16>");
    assert_eq!(refusal::<Reverse<String>>(&[!b'a']), "the component does not end");
    assert_eq!(
        refusal::<((u8, bool), u8)>(&[1, 2, 3]),
        "component 1 of ((u8,bool),u8): component 2 of (u8,bool): 2 is not a bool (0 or 1)"
    );
}

#[test]
fn elements_without_bytes_are_refused_because_their_number_would_be_lost() {
    assert_eq!(bytes_of::<Vec<[u8; 0]>>(&vec![]), b"");
    let error = Vec::<[u8; 0]>::encode(&vec![[]]).expect_err("refuses");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("an element of Vec<[u8;0]> has no bytes"), "{error}");
}

/// Counts the bytes that it is shown.
struct Counting;

thread_local! {
    static SHOWN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Codec for Counting {
    type Item<'a> = u8;
    type Owned = u8;

    fn name() -> String {
        "test.counting".to_string()
    }

    fn encode<'a>(item: &'a u8) -> crate::error::Result<Encoded<'a>> {
        u8::encode(item)
    }

    fn decode(bytes: &[u8]) -> Result<u8, super::CodecError> {
        u8::decode(bytes)
    }

    fn to_owned(item: u8) -> u8 {
        item
    }
}

impl Part for Counting {
    fn put(item: &u8, out: &mut Encoded<'_>) -> crate::error::Result<()> {
        u8::put(item, out)
    }

    fn take(bytes: &mut &[u8]) -> Result<u8, super::CodecError> {
        SHOWN.set(SHOWN.get() + bytes.len());
        u8::take(bytes)
    }
}

#[test]
fn a_long_list_of_descending_elements_takes_time_in_proportion_to_its_length() {
    let bytes = vec![0xFE; 10_000];
    let items = Vec::<Reverse<Counting>>::decode(&bytes).expect("decodes");
    assert_eq!(items, vec![Reverse(1); 10_000]);
    assert!(SHOWN.get() <= 10_000 * super::reverse::FIRST_BYTES, "{} bytes were inverted", SHOWN.get());
}
