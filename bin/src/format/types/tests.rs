//! Converts items of every built-in codec to text and back.

use std::cmp::Reverse;

use mapleaf::codec::Codec;
use proptest::prelude::*;

use super::*;

fn text_of(name: &str, stored: &[u8]) -> Result<String, String> {
    let mut text = Vec::new();
    Type::of(name).show(stored, &mut text)?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

/// Converts an item to its text and back.
fn both_ways<C: Codec>(item: &C::Item<'_>) -> Result<(), TestCaseError> {
    let stored = C::encode(item).unwrap().to_vec();
    let of = Type::of(&C::name());
    let mut text = Vec::new();
    of.show(&stored, &mut text).unwrap();
    let shown = String::from_utf8_lossy(&text).into_owned();
    prop_assert_eq!(of.read(&text).map_err(|what| format!("{shown}: {what}")), Ok(stored.clone()));
    prop_assert!(of.check(&stored).is_ok());
    Ok(())
}

/// Bytes have a text exactly if the codec decodes them; parsing this text returns the same bytes.
fn any_bytes<C: Codec>(stored: &[u8]) -> Result<(), TestCaseError> {
    let of = Type::of(&C::name());
    let mut text = Vec::new();
    let shown = of.show(stored, &mut text);
    prop_assert_eq!(shown.is_ok(), C::decode(stored).is_ok(), "{} {:?}", C::name(), stored);
    prop_assert_eq!(of.check(stored).is_ok(), shown.is_ok());
    if shown.is_ok() {
        prop_assert_eq!(of.read(&text), Ok(stored.to_vec()));
    }
    Ok(())
}

/// Parsing any text returns an item or an error. The text of the item parses to the same bytes.
fn any_text<C: Codec>(text: &[u8]) -> Result<(), TestCaseError> {
    let of = Type::of(&C::name());
    if let Ok(stored) = of.read(text) {
        prop_assert!(C::decode(&stored).is_ok(), "{} {:?}", C::name(), text);
        let mut shown = Vec::new();
        of.show(&stored, &mut shown).unwrap();
        prop_assert_eq!(of.read(&shown), Ok(stored));
    }
    Ok(())
}

type Deep = (u8, (String, (Vec<u8>, f32)));
type Wide = (Vec<u8>, char, bool, [u8; 2], f64, String);
type Nested = ((u8, String), Option<(Vec<u8>, bool)>, Vec<Option<String>>, Option<Option<()>>);
type Lists = (Vec<(String, u16)>, Vec<Vec<Vec<u8>>>, Reverse<Vec<(u8, Vec<u8>)>>, Vec<[u8; 1]>, u8);
type Descending = Reverse<(String, Option<Reverse<Option<Vec<u8>>>>)>;

macro_rules! all {
    ($check:ident, $argument:expr; $($type:ty)*) => { $( $check::<$type>($argument)?; )* };
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let few = prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(0xFF), any::<u8>()];
    prop::collection::vec(few, 0..20)
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![any::<i64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| format!("{n:?}"))];
    let word = prop::sample::select(vec!["NaN", "inf", "-0", "007", "+1", "1e999", "NaN(0x7ff8000000000001)", "true"]);
    let array = prop::sample::select(vec![
        "[1, 2]",
        "[\"a\", 7]",
        "[1,[\"a\",[\"b\",1.5]]]",
        "[]",
        "[1,[\"\\u0000\",[{\"b64\":\"/w\"},\"NaN\"]]]",
        "null",
        "[null]",
        "[[null]]",
        "[[1, \"a\"], null, [null, \"b\"], [null]]",
        "[[[\"a\", 1]], [[], [\"b\"]], [[1, \"c\"]], [\"\"], 7]",
    ]);
    prop_oneof![
        bytes(),
        number.prop_map(String::into_bytes),
        word.prop_map(|text| text.as_bytes().to_vec()),
        array.prop_map(|text| text.as_bytes().to_vec()),
    ]
}

proptest! {
    #[test]
    fn items_survive_a_round_trip_through_text(
        whole in any::<(u8, u16, u32, u64, u128)>(),
        signed in any::<(i8, i16, i32, i64, i128)>(),
        other in any::<(bool, char, String, [u8; 5])>(),
        bits in any::<(u32, u64)>(),
        raw in bytes(),
        options in any::<(Option<Option<u8>>, Option<String>, Option<Option<()>>)>(),
        lists in any::<(Vec<u16>, Vec<(String, u16)>, Vec<Option<String>>)>(),
    ) {
        let ((x, y, z), (r, s, t)) = (options, lists);
        both_ways::<Option<Option<u8>>>(&x)?;
        both_ways::<Option<String>>(&y)?;
        both_ways::<Vec<u16>>(&r)?;
        both_ways::<Reverse<Vec<(String, u16)>>>(&Reverse(s.clone()))?;
        both_ways::<Nested>(&((7, "a\0".into()), x.flatten().map(|n| (vec![n, 0], true)), t, z))?;
        both_ways::<Lists>(&(s, vec![vec![raw.clone()], vec![]], Reverse(vec![(1, raw.clone())]), vec![[7]; 2], 7))?;
        both_ways::<Descending>(&Reverse((y.unwrap_or_default(), Some(Reverse(Some(raw.clone()))))))?;
        let ((a, b, c, d, e), (f, g, h, i, j), (k, l, m, n)) = (whole, signed, other);
        let (float, double) = (f32::from_bits(bits.0), f64::from_bits(bits.1));
        both_ways::<u8>(&a)?;
        both_ways::<u16>(&b)?;
        both_ways::<u32>(&c)?;
        both_ways::<u64>(&d)?;
        both_ways::<u128>(&e)?;
        both_ways::<i8>(&f)?;
        both_ways::<i16>(&g)?;
        both_ways::<i32>(&h)?;
        both_ways::<i64>(&i)?;
        both_ways::<i128>(&j)?;
        both_ways::<bool>(&k)?;
        both_ways::<char>(&l)?;
        both_ways::<String>(&m)?;
        both_ways::<[u8; 5]>(&n)?;
        both_ways::<f32>(&float)?;
        both_ways::<f64>(&double)?;
        both_ways::<Vec<u8>>(&raw)?;
        both_ways::<()>(&())?;
        both_ways::<(u128, i8)>(&(e, f))?;
        both_ways::<(String, ())>(&(m.clone(), ()))?;
        both_ways::<Deep>(&(a, (m.clone(), (raw.clone(), float))))?;
        both_ways::<Wide>(&(raw, l, k, [a, a], double, m))?;
    }

    #[test]
    fn bytes_that_decode_survive_a_round_trip_through_text(stored in bytes()) {
        all!(any_bytes, &stored; () u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char String Vec<u8>);
        all!(any_bytes, &stored; [u8; 0] [u8; 3] (u8, u8) (String, Vec<u8>) (Vec<u8>, String, u8) (String, ()) Deep Wide);
        all!(any_bytes, &stored; Option<u8> Option<()> Option<Option<String>> Vec<bool> Vec<String> Vec<Vec<Vec<u8>>> Vec<[u8; 1]>);
        all!(any_bytes, &stored; Reverse<u8> Reverse<String> Reverse<Reverse<Vec<u8>>> Nested Lists Descending);
    }

    #[test]
    fn parsed_text_is_a_valid_item(text in texts()) {
        all!(any_text, &text; () u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char String Vec<u8>);
        all!(any_text, &text; [u8; 0] [u8; 3] (u8, u8) (String, Vec<u8>) (Vec<u8>, String, u8) (String, ()) Deep Wide);
        all!(any_text, &text; Option<u8> Option<()> Option<Option<String>> Vec<bool> Vec<String> Vec<Vec<Vec<u8>>> Vec<[u8; 1]>);
        all!(any_text, &text; Reverse<u8> Reverse<String> Reverse<Reverse<Vec<u8>>> Nested Lists Descending);
    }
}

#[test]
fn each_type_has_its_documented_text() {
    for (name, stored, text) in [
        ("u64", u64::encode(&1815).unwrap().to_vec(), "1815"),
        ("i8", i8::encode(&-128).unwrap().to_vec(), "-128"),
        ("f64", f64::encode(&1.0).unwrap().to_vec(), "1.0"),
        ("f64", f64::encode(&-2e300).unwrap().to_vec(), "-2e300"),
        ("f32", f32::encode(&f32::NEG_INFINITY).unwrap().to_vec(), "-inf"),
        ("f64", f64::encode(&f64::NAN).unwrap().to_vec(), "NaN"),
        ("f64", f64::encode(&-f64::NAN).unwrap().to_vec(), "NaN(0xfff8000000000000)"),
        ("bool", vec![1], "true"),
        ("char", char::encode(&'\u{e4}').unwrap().to_vec(), "\u{e4}"),
        ("[u8;3]", vec![0, 0xAB, 9], "00ab09"),
        ("()", vec![], ""),
        ("", b"any".to_vec(), "any"),
        ("(str,u64)", <(&str, u64)>::encode(&("a\"", 7)).unwrap().to_vec(), "[\"a\\\"\", 7]"),
        ("(bytes,bytes)", b"a\0\0\xff".to_vec(), "[\"a\", {\"b64\": \"/w==\"}]"),
        ("(bool,f64)", <(bool, f64)>::encode(&(true, f64::INFINITY)).unwrap().to_vec(), "[true, \"inf\"]"),
        ("(u8,([u8;2],char))", [&[1, 2, 3][..], &char::encode(&'x').unwrap()].concat(), "[1, [\"0203\", \"x\"]]"),
        ("(u8,())", vec![1], "[1, null]"),
        ("((u8,str),str)", b"\x01a\0\0b".to_vec(), "[[1, \"a\"], \"b\"]"),
        ("Option<u8>", vec![0], "null"),
        ("Option<u8>", vec![1, 7], "7"),
        ("Option<str>", b"\x01null".to_vec(), "\"null\""),
        ("Option<Option<u8>>", vec![1, 0], "[null]"),
        ("Option<Option<u8>>", vec![1, 1, 7], "[7]"),
        ("Option<Reverse<Option<u8>>>", vec![1, 0xFF], "[null]"),
        ("Option<json<any>>", b"\x01null".to_vec(), "[null]"),
        ("Vec<u16>", vec![0, 1, 0, 2], "[1, 2]"),
        ("Vec<str>", b"a\0\0b\0\xFFc\0\0".to_vec(), "[\"a\", \"b\\u0000c\"]"),
        ("(Vec<u16>,u8)", vec![1, 0, 7, 0, 9], "[[7], 9]"),
        ("Reverse<u16>", vec![0xFF, 0xF8], "7"),
        ("(str,Reverse<str>)", [b"a\0\0", &[!b'b', 0xFF, 0xFF][..]].concat(), "[\"a\", \"b\"]"),
        ("json<acme.v1>", b"{\"a\": [1]}".to_vec(), "{\"a\": [1]}"),
        ("(u8,json<any>)", b"\x07[1,null]".to_vec(), "[7, [1,null]]"),
        ("uuid", (1..=16).collect(), "01020304-0506-0708-090a-0b0c0d0e0f10"),
        ("(u8,date)", vec![7, 0x7F, 255, 255, 255], "[7, \"1969-12-31\"]"),
    ] {
        assert_eq!(text_of(name, &stored).as_deref(), Ok(text), "{name}");
        assert_eq!(Type::of(name).read(text.as_bytes()), Ok(stored), "{name} {text}");
    }
}

#[test]
fn wrong_text_is_refused_with_the_expected_form() {
    for (name, text, what) in [
        ("u64", "x", "expected a whole number from 0 to 18446744073709551615"),
        ("u8", "256", "expected a whole number from 0 to 255"),
        ("u8", "-1", "expected a whole number from 0 to 255"),
        ("u8", "+1", "expected"),
        ("u8", " 1", "expected"),
        ("u8", "1\n", "expected"),
        ("u8", "1.0", "expected"),
        ("u8", "", "expected"),
        ("i8", "-129", "expected a whole number from -128 to 127"),
        ("f64", "1e999", "expected a number"),
        ("f32", "1e39", "expected a number"),
        ("f64", "infinity", "expected a number"),
        ("f64", "nan", "expected a number"),
        ("f64", "1,5", "expected a number"),
        ("bool", "1", "expected true or false"),
        ("char", "ab", "expected one character"),
        ("char", "", "expected one character"),
        ("str", "", ""),
        ("()", "x", "expected nothing"),
        ("[u8;2]", "00ff0", "expected 4 hexadecimal digits"),
        ("[u8;2]", "00ff00", "expected 4 hexadecimal digits"),
        ("(str,u64)", "a 7", "expected a JSON array"),
        ("(str,u64)", "[\"a\"]", "expected a JSON array of 2 items, not 1"),
        ("(str,u64)", "[\"a\", 7] x", "expected a JSON array"),
        ("(str,u64)", "[\"a\", \"7\"]", "item 2: expected a whole number"),
        ("(str,u64)", "[7, 7]", "item 1: expected a JSON string: text in UTF-8"),
        ("(u8,u8)", "[1, 256]", "item 2: expected a whole number from 0 to 255"),
        ("(u8,bool)", "[1, 1]", "item 2: expected true or false"),
        ("(u8,f64)", "[1, \"1.5\"]", "item 2: expected a number"),
        ("(u8,bytes)", "[1, {\"b64\": \"*\"}]", "item 2: expected a JSON string, or"),
        ("(u8,())", "[1, 2]", "item 2: expected nothing"),
        ("Option<u8>", "x", "expected null or a JSON value"),
        ("Option<u8>", "256", "expected a whole number from 0 to 255"),
        ("Option<Option<u8>>", "7", "expected a JSON array"),
        ("Option<Option<u8>>", "[7, 7]", "expected null or a JSON array of one item"),
        ("Vec<u8>", "[1]", "expected bytes"),
        ("Vec<u16>", "7", "expected a JSON array"),
        ("Vec<u16>", "[1, 65536]", "item 2: expected a whole number"),
        ("Reverse<u8>", "256", "expected a whole number from 0 to 255"),
        ("json<any>", "{} {}", "expected JSON"),
        ("uuid", "0102030405060708090a0b0c0d0e0f10", "expected a UUID"),
        ("uuid", "01020304-0506-0708-090a-0b0c0d0e0f1g", "expected a UUID"),
    ] {
        match Type::of(name).read(text.as_bytes()) {
            Ok(_) => assert_eq!(what, "", "{name} {text}"),
            Err(found) => assert!(!what.is_empty() && found.starts_with(what), "{name} {text}: {found}"),
        }
    }
    assert!(Type::of("str").read(b"\xff").is_err());
}

#[test]
fn prefixes_are_beginnings_of_text_and_first_items_of_tuples() {
    let prefix = |name: &str, text: &str| Type::of(name).read_prefix(text.as_bytes());
    assert_eq!(prefix("", "ab"), Ok(b"ab".to_vec()));
    assert_eq!(prefix("str", "ab"), Ok(b"ab".to_vec()));
    assert_eq!(prefix("[u8;4]", "00ff"), Ok(vec![0, 0xFF]));
    assert_eq!(prefix("(str,u8,u8)", "[\"ab\"]"), Ok(b"ab\0\0".to_vec()));
    assert_eq!(prefix("(str,u8,u8)", "[\"ab\", 7]"), Ok(b"ab\0\0\x07".to_vec()));
    assert_eq!(prefix("(str,u8,u8)", "[]"), Ok(vec![]));
    assert_eq!(prefix("((str,u8),Reverse<u8>,u8)", "[[\"ab\", 7], 9]"), Ok(b"ab\0\0\x07\xF6".to_vec()));
    assert_eq!(prefix("Vec<u16>", "[1]"), Ok(vec![0, 1]));
    for (name, text) in [("u64", "1"), ("[u8;1]", "0000"), ("[u8;1]", "0"), ("(u8,u8)", "[1, 2]"), ("(u8,u8)", "1")] {
        assert!(prefix(name, text).is_err(), "{name} {text}");
    }
}

#[test]
fn names_that_are_not_built_in_codecs_are_unknown() {
    for name in ["acme.v1", "u7", "&str", "[u8;]", "[u8;04]", "[u8;+4]", "[u16;4]", "(u8)", "()x", "(u8,acme.v1)"] {
        assert!(!Type::of(name).is_known(), "{name}");
    }
    for name in
        ["(u8,u8,u8,u8,u8,u8,u8)", "(u8,)", "(,u8)", "((u8,()),u8)", "((),u8)", "(u8,(u8,u8)", "(u8),u8)", "( u8,u8)"]
    {
        assert!(!Type::of(name).is_known(), "{name}");
    }
    for name in [
        "Vec<u8>",
        "Vec<[u8;0]>",
        "Vec<([u8;0],Reverse<[u8;0]>)>",
        "Vec<(u8,())>",
        "Vec<>",
        "Vec<()>",
        "Vec<json<any>>",
        "Vec<acme.v1>",
        "Option<>",
        "Option<acme.v1>",
        "Reverse<()>",
    ] {
        assert!(!Type::of(name).is_known(), "{name}");
    }
    for name in ["postcard<acme.v1>", "inplace<[acme.v1]>", "json<>", "json<any", "Set<u8>", "(json<any>,u8)"] {
        assert!(!Type::of(name).is_known(), "{name}");
    }
    assert!(text_of("json<any>", b" {}").is_err() && text_of("json<any>", b"{").is_err());
    for name in ["Option<()>", "json<any>", "(u8,Option<()>)"] {
        assert!(!Type::of(name).is_of_keys(), "{name}");
    }
    assert!(Type::of("acme.v1").check(b"any").is_ok());
    assert!(Type::of("acme.v1").read(b"any").is_err() && text_of("acme.v1", b"any").is_err());
    assert_eq!(Type::named("( str, [u8; 4] )").map(|it| it.name().to_string()).as_deref(), Some("(str,[u8;4])"));
    assert!(Type::named("").is_none() && Type::named("string").is_none());
    assert!(!Type::of("()").is_of_keys() && !Type::of("(u8,())").is_of_keys() && Type::of("(u8,str)").is_of_keys());
}

#[test]
fn tuples_nested_too_deeply_are_unknown() {
    let nested = |depth: usize| format!("{}u8{}", "(u8,".repeat(depth), ")".repeat(depth));
    let stored: Vec<u8> = (0..=32).collect();
    let text = text_of(&nested(32), &stored).unwrap();
    assert_eq!(Type::of(&nested(32)).read(text.as_bytes()), Ok(stored));
    for depth in [33, 2000, 10_000] {
        assert!(!Type::of(&nested(depth)).is_known(), "{depth}");
        let options = format!("{}u8{}", "Option<".repeat(depth), ">".repeat(depth));
        assert!(!Type::of(&options).is_known(), "{depth}");
    }
}
