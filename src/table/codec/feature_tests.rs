//! Tests of the codecs that optional features add: names, exact bytes, order, round trips, and
//! bytes that no codec writes.

#![allow(unused_imports, reason = "each feature uses some")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::compound_tests::{is_key, part_of};
use super::tests::{bytes_of, nasty, refusal, round_trip};
use super::*;
use crate::error::ErrorKind;
use std::cmp::Reverse;

/// Bytes that decode are the bytes of the item.
#[allow(dead_code, reason = "no key codec without a feature")]
fn canonical<C: Codec>(bytes: &[u8]) {
    if let Ok(item) = C::decode(bytes) {
        assert_eq!(bytes_of::<C>(&item), bytes, "{}", C::name());
    }
}

/// Seconds and nanoseconds at and near the limits of the types, with leap seconds.
#[allow(dead_code, reason = "for dates and times only")]
fn moments() -> impl Strategy<Value = (i64, u32)> {
    let seconds = prop_oneof![
        any::<i64>(),
        -100_000_000_000..100_000_000_000i64,
        -2..2i64,
        Just(59),
        Just(253_402_300_799),
        Just(253_402_300_800),
        Just(-377_705_116_800),
        Just(-377_705_116_801),
    ];
    (seconds, prop_oneof![0..2_100_000_000u32, 999_999_998..1_000_000_002u32, Just(0)])
}

#[cfg(feature = "uuid")]
mod of_uuid {
    use super::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn uuids_are_keys_of_every_kind(a: u128, b: u128, same: bool) {
            let b = if same { a ^ 1 } else { b };
            is_key::<Uuid>(&Uuid::from_u128(a), &Uuid::from_u128(b));
            is_key::<Reverse<Uuid>>(&Reverse(Uuid::from_u128(a)), &Reverse(Uuid::from_u128(b)));
        }
    }

    #[test]
    fn name_and_bytes_of_uuids_never_change() {
        assert_eq!(Uuid::name(), "uuid");
        let uuid = Uuid::from_u128(0x0102_0304_0506_0708_090A_0B0C_0D0E_0F10);
        assert_eq!(bytes_of::<Uuid>(&uuid), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(refusal::<Uuid>(b"ada"), "3 bytes where uuid has 16");
    }
}

#[cfg(feature = "chrono")]
mod of_chrono {
    use super::*;
    use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

    fn stamps() -> impl Strategy<Value = DateTime<Utc>> {
        moments().prop_filter_map("a time", |(seconds, nanoseconds)| DateTime::from_timestamp(seconds, nanoseconds))
    }

    fn deltas() -> impl Strategy<Value = TimeDelta> {
        moments().prop_filter_map("a duration", |(seconds, nanoseconds)| TimeDelta::new(seconds, nanoseconds))
    }

    proptest! {
        #[test]
        fn chrono_types_are_keys_of_every_kind(a in stamps(), b in stamps(), c in deltas(), d in deltas()) {
            is_key::<DateTime<Utc>>(&a, &b);
            is_key::<NaiveDateTime>(&a.naive_utc(), &b.naive_utc());
            is_key::<NaiveDate>(&a.date_naive(), &b.date_naive());
            is_key::<NaiveTime>(&a.time(), &b.time());
            is_key::<TimeDelta>(&c, &d);
            is_key::<Reverse<(NaiveDate, NaiveTime)>>(
                &Reverse((a.date_naive(), a.time())),
                &Reverse((b.date_naive(), b.time())),
            );
        }

        #[test]
        fn what_decodes_as_chrono_types_encodes_to_the_same_bytes((seconds, nanoseconds) in moments(), raw in nasty(), days: i32) {
            let bytes = calendar::seconds(seconds, nanoseconds);
            canonical::<DateTime<Utc>>(&bytes);
            canonical::<NaiveDateTime>(&bytes);
            canonical::<TimeDelta>(&bytes);
            canonical::<NaiveTime>(&calendar::time_of_day(seconds as u32, nanoseconds));
            canonical::<NaiveTime>(&calendar::time_of_day(seconds.rem_euclid(90_000) as u32, nanoseconds));
            canonical::<NaiveDate>(&calendar::days(days));
            canonical::<NaiveDate>(&raw);
        }
    }

    #[test]
    fn names_and_bytes_of_chrono_types_never_change() {
        let names = [DateTime::<Utc>::name(), NaiveDateTime::name(), NaiveDate::name(), NaiveTime::name()];
        assert_eq!(names, ["timestamp", "datetime", "date", "time"]);
        assert_eq!(TimeDelta::name(), "duration");
        let stamp = DateTime::from_timestamp(1, 2).expect("a time");
        assert_eq!(bytes_of::<DateTime<Utc>>(&stamp), [0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(bytes_of::<NaiveDateTime>(&stamp.naive_utc()), [0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        let eve = NaiveDate::from_ymd_opt(1969, 12, 31).expect("a date");
        assert_eq!(bytes_of::<NaiveDate>(&eve), [0x7F, 0xFF, 0xFF, 0xFF]);
        let noon = NaiveTime::from_hms_nano_opt(12, 0, 0, 7).expect("a time");
        assert_eq!(bytes_of::<NaiveTime>(&noon), [0, 0, 0xA8, 0xC0, 0, 0, 0, 7]);
        let leap = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_000_000_000).expect("a leap second");
        assert_eq!(bytes_of::<NaiveTime>(&leap), [0, 1, 0x51, 0x7F, 0x3B, 0x9A, 0xCA, 0]);
        let delta = TimeDelta::nanoseconds(-1);
        assert_eq!(bytes_of::<TimeDelta>(&delta), [0x7F, 255, 255, 255, 255, 255, 255, 255, 0x3B, 0x9A, 0xC9, 255]);
    }

    #[test]
    fn the_first_and_last_items_of_chrono_types_are_keys() {
        is_key::<DateTime<Utc>>(&DateTime::<Utc>::MIN_UTC, &DateTime::<Utc>::MAX_UTC);
        is_key::<NaiveDateTime>(&NaiveDateTime::MIN, &NaiveDateTime::MAX);
        is_key::<NaiveDate>(&NaiveDate::MIN, &NaiveDate::MAX);
        is_key::<TimeDelta>(&TimeDelta::MIN, &TimeDelta::MAX);
        assert_eq!(refusal::<NaiveDate>(&[0; 4]), "-2147483648 and 0 ns is no date that NaiveDate can represent");
        assert_eq!(refusal::<NaiveDate>(&[255; 4]), "2147483647 and 0 ns is no date that NaiveDate can represent");
        assert!(refusal::<TimeDelta>(&calendar::seconds(1, 1_000_000_000)).contains("no duration"));
    }
}

#[cfg(feature = "time")]
mod of_time {
    use super::*;
    use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, Time, UtcDateTime, UtcOffset};

    fn stamps() -> impl Strategy<Value = UtcDateTime> {
        moments().prop_filter_map("a time", |(seconds, nanoseconds)| {
            UtcDateTime::from_unix_timestamp(seconds).ok()?.replace_nanosecond(nanoseconds).ok()
        })
    }

    fn durations() -> impl Strategy<Value = Duration> {
        moments().prop_map(|(seconds, nanoseconds)| Duration::new(seconds, (nanoseconds % 1_000_000_000) as i32))
    }

    proptest! {
        #[test]
        fn time_types_are_keys_of_every_kind(a in stamps(), b in stamps(), c in durations(), d in durations()) {
            is_key::<UtcDateTime>(&a, &b);
            is_key::<OffsetDateTime>(&a.into(), &b.into());
            let (x, y) = (PrimitiveDateTime::new(a.date(), a.time()), PrimitiveDateTime::new(b.date(), b.time()));
            is_key::<PrimitiveDateTime>(&x, &y);
            is_key::<Date>(&a.date(), &b.date());
            is_key::<Time>(&a.time(), &b.time());
            is_key::<Duration>(&c, &d);
        }

        #[test]
        fn what_decodes_as_time_types_encodes_to_the_same_bytes((seconds, nanoseconds) in moments(), raw in nasty(), days: i32) {
            let bytes = calendar::seconds(seconds, nanoseconds);
            canonical::<UtcDateTime>(&bytes);
            canonical::<OffsetDateTime>(&bytes);
            canonical::<PrimitiveDateTime>(&bytes);
            canonical::<Duration>(&bytes);
            canonical::<Time>(&calendar::time_of_day(seconds as u32, nanoseconds));
            canonical::<Time>(&calendar::time_of_day(seconds.rem_euclid(90_000) as u32, nanoseconds));
            canonical::<Date>(&calendar::days(days));
            canonical::<Date>(&raw);
        }

        #[test]
        fn an_offset_does_not_change_the_bytes_of_a_moment(stamp in stamps(), hours in -20..20i8) {
            let utc = OffsetDateTime::from(stamp);
            let offset = UtcOffset::from_hms(hours, 0, 0).expect("an offset");
            if let Some(local) = utc.checked_to_offset(offset) {
                prop_assert_eq!(bytes_of::<OffsetDateTime>(&local), bytes_of::<OffsetDateTime>(&utc));
                let found = OffsetDateTime::decode(&bytes_of::<OffsetDateTime>(&local)).expect("decodes");
                prop_assert_eq!((found, found.offset()), (local, UtcOffset::UTC));
            }
        }
    }

    #[test]
    fn names_and_bytes_of_time_types_never_change() {
        let names =
            [UtcDateTime::name(), OffsetDateTime::name(), PrimitiveDateTime::name(), Date::name(), Time::name()];
        assert_eq!(names, ["timestamp", "timestamp", "datetime", "date", "time"]);
        assert_eq!(Duration::name(), "duration");
        let stamp = UtcDateTime::from_unix_timestamp(1).expect("a time").replace_nanosecond(2).expect("a time");
        assert_eq!(bytes_of::<UtcDateTime>(&stamp), [0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(bytes_of::<OffsetDateTime>(&stamp.into()), [0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        let primitive = PrimitiveDateTime::new(stamp.date(), stamp.time());
        assert_eq!(bytes_of::<PrimitiveDateTime>(&primitive), [0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        let noon = Time::from_hms_nano(12, 0, 0, 7).expect("a time");
        assert_eq!(bytes_of::<Time>(&noon), [0, 0, 0xA8, 0xC0, 0, 0, 0, 7]);
        let eve = stamp.date().previous_day().expect("a date");
        assert_eq!(bytes_of::<Date>(&eve), [0x7F, 0xFF, 0xFF, 0xFF]);
        let less = Duration::nanoseconds(-1);
        assert_eq!(bytes_of::<Duration>(&less), [0x7F, 255, 255, 255, 255, 255, 255, 255, 0x3B, 0x9A, 0xC9, 255]);
    }

    #[test]
    fn items_of_time_types_that_have_no_bytes_are_refused() {
        is_key::<Date>(&Date::MIN, &Date::MAX);
        is_key::<Duration>(&Duration::new(i64::MIN, 0), &Duration::MAX);
        let refused = Duration::encode(&Duration::MIN).expect_err("refuses");
        assert_eq!(
            (refused.kind(), refused.to_string()),
            (ErrorKind::Usage, "this duration is too far away to be stored".to_string())
        );
        let last = PrimitiveDateTime::MAX.assume_offset(UtcOffset::from_hms(-1, 0, 0).expect("an offset"));
        assert_eq!(OffsetDateTime::encode(&last).expect_err("refuses").kind(), ErrorKind::Usage);
        assert!(refusal::<Duration>(&calendar::seconds(1, 1_000_000_000)).contains("no duration"));
        assert!(refusal::<Time>(&calendar::time_of_day(86_399, 1_000_000_000))
            .contains("86399 and 1000000000 ns is no time"));
    }
}

#[cfg(all(feature = "chrono", feature = "time"))]
proptest! {
    #[test]
    fn chrono_and_time_write_the_same_bytes((seconds, nanoseconds) in moments()) {
        let one = chrono::DateTime::from_timestamp(seconds, nanoseconds);
        let other = time::UtcDateTime::from_unix_timestamp(seconds).and_then(|whole| whole.replace_nanosecond(nanoseconds));
        if let (Some(one), Ok(other)) = (one, other) {
            prop_assert_eq!(bytes_of::<chrono::DateTime<chrono::Utc>>(&one), bytes_of::<time::UtcDateTime>(&other));
            let naive = time::PrimitiveDateTime::new(other.date(), other.time());
            prop_assert_eq!(bytes_of::<chrono::NaiveDateTime>(&one.naive_utc()), bytes_of::<time::PrimitiveDateTime>(&naive));
        }
    }
}

#[cfg(feature = "serde")]
mod of_postcard {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
    struct Order {
        customer: String,
        items: Vec<(u32, i8)>,
        paid: Option<bool>,
    }

    impl Named for Order {
        fn stored_name() -> String {
            "acme.order.v1".to_string()
        }
    }

    /// A type that serde cannot encode, because its length is not known.
    #[derive(Deserialize)]
    struct Endless;

    impl Serialize for Endless {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(std::iter::from_fn(|| Some(1u8)).take_while(|_| true))
        }
    }

    impl Named for Endless {
        fn stored_name() -> String {
            "acme.endless".to_string()
        }
    }

    proptest! {
        #[test]
        fn orders_round_trip_by_postcard(customer: String, items in vec((any::<u32>(), any::<i8>()), 0..5), paid: Option<bool>) {
            let order = Order { customer, items, paid };
            round_trip::<Postcard<Order>>(order.clone());
            round_trip::<(u8, Postcard<Order>)>((7, order.clone()));
            round_trip::<Option<Postcard<Order>>>(Some(order));
        }

        #[test]
        fn any_bytes_decode_by_postcard_or_are_refused(bytes in vec(any::<u8>(), 0..40)) {
            if let Ok(order) = Postcard::<Order>::decode(&bytes) {
                round_trip::<Postcard<Order>>(order);
            }
        }
    }

    #[test]
    fn name_and_bytes_of_postcard_values_never_change() {
        assert_eq!(Postcard::<Order>::name(), "postcard<acme.order.v1>");
        let order = Order { customer: "ada".into(), items: vec![(300, -1)], paid: Some(true) };
        assert_eq!(bytes_of::<Postcard<Order>>(&order), [3, b'a', b'd', b'a', 1, 0xAC, 2, 0xFF, 1, 1]);
    }

    #[test]
    fn postcard_bytes_that_are_too_short_or_too_long_are_refused_without_an_allocation() {
        let mut bytes = bytes_of::<Postcard<Order>>(&Order { customer: "ada".into(), items: vec![], paid: None });
        for len in 0..bytes.len() {
            assert!(Postcard::<Order>::decode(&bytes[..len]).is_err(), "cut to {len}");
        }
        bytes.push(0);
        assert_eq!(refusal::<Postcard<Order>>(&bytes), "1 bytes after postcard<acme.order.v1>");
        // A length of 2^62 would end the process if it were reserved.
        let endless = [0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
        assert_ne!(refusal::<Postcard<Order>>(&endless), "accepted");
    }

    #[test]
    fn an_item_that_postcard_cannot_encode_is_refused_with_its_name() {
        let error = Postcard::<Endless>::encode(&Endless).expect_err("refuses");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().starts_with("an item of postcard<acme.endless> cannot be encoded: "), "{error}");
    }
}

#[cfg(feature = "json")]
mod of_json {
    use super::*;
    use serde_json::{json, Value};
    use std::collections::BTreeMap;

    #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq, Clone)]
    struct Pairs(BTreeMap<Vec<u8>, u8>);

    impl Named for Pairs {
        fn stored_name() -> String {
            "acme.pairs".to_string()
        }
    }

    proptest! {
        #[test]
        fn values_round_trip_as_json(text: String, number: i64, flags in vec(any::<bool>(), 0..4)) {
            let value = json!({ "text": text, "number": number, "flags": flags, "none": null });
            round_trip::<Json<Value>>(value.clone());
            round_trip::<(String, Json<Value>)>((text, value));
        }

        #[test]
        fn any_bytes_decode_as_json_or_are_refused(bytes in "[\\[\\]{}:,\"a0-9.e-]{0,20}") {
            if let Ok(value) = Json::<Value>::decode(bytes.as_bytes()) {
                round_trip::<Json<Value>>(value);
            }
        }
    }

    #[test]
    fn name_and_bytes_of_json_values_never_change() {
        assert_eq!(Json::<Value>::name(), "json<any>");
        assert_eq!(Json::<Pairs>::name(), "json<acme.pairs>");
        assert_eq!(bytes_of::<Json<Value>>(&json!({"a": [1, "x", null]})), b"{\"a\":[1,\"x\",null]}");
    }

    #[test]
    fn json_that_is_too_deep_or_goes_on_is_refused() {
        assert_ne!(refusal::<Json<Value>>(b"{} {}"), "accepted");
        assert_ne!(refusal::<Json<Value>>(b""), "accepted");
        assert_ne!(refusal::<Json<Value>>(&[b'['; 1_000_000]), "accepted");
        let error = Json::<Pairs>::encode(&Pairs(BTreeMap::from([(vec![1], 1)]))).expect_err("keys are no text");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().starts_with("an item of json<acme.pairs> cannot be encoded: "), "{error}");
    }
}

#[cfg(feature = "zerocopy")]
mod of_zerocopy {
    use super::*;
    use zerocopy::little_endian::{U16, U32};
    use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes, Unaligned};

    #[derive(TryFromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Debug, PartialEq)]
    #[repr(C)]
    struct Sample {
        at: U32,
        kind: U16,
        valid: bool,
    }

    impl Named for Sample {
        fn stored_name() -> String {
            "acme.sample".to_string()
        }
    }

    fn sample(at: u32, kind: u16, valid: bool) -> Sample {
        Sample { at: at.into(), kind: kind.into(), valid }
    }

    #[test]
    fn names_and_bytes_of_structs_read_in_place_never_change() {
        assert_eq!(InPlace::<Sample>::name(), "inplace<acme.sample>");
        assert_eq!(InPlace::<[Sample]>::name(), "inplace<[acme.sample]>");
        assert_eq!(InPlace::<[U32]>::name(), "inplace<[u32le]>");
        let one = sample(1, 2, true);
        assert_eq!(bytes_of::<InPlace<Sample>>(&&one), [1, 0, 0, 0, 2, 0, 1]);
        assert_eq!(bytes_of::<InPlace<[U16]>>(&&[U16::new(1), U16::new(2)][..]), [1, 0, 2, 0]);
        assert_eq!(part_of::<InPlace<Sample>>(&&one), [1, 0, 0, 0, 2, 0, 1]);
    }

    proptest! {
        #[test]
        fn structs_are_read_at_every_address(at: u32, kind: u16, valid: bool, offset in 0..16usize) {
            let item = sample(at, kind, valid);
            let mut room = vec![0xAA; offset];
            room.extend(bytes_of::<InPlace<Sample>>(&&item));
            let found = InPlace::<Sample>::decode(&room[offset..]).expect("decodes");
            prop_assert_eq!(found, &item);
            prop_assert!(std::ptr::eq(found.as_bytes(), &room[offset..]));
            prop_assert_eq!(InPlace::<Sample>::to_owned(found), item.clone());
            let slice = InPlace::<[Sample]>::decode(&room[offset..]).expect("decodes");
            prop_assert_eq!(slice, &[item.clone()][..]);
            room.push(7);
            let pair = <(InPlace<Sample>, u8)>::decode(&room[offset..]).expect("decodes");
            prop_assert_eq!(pair, (&item, 7));
        }

        #[test]
        fn any_bytes_decode_as_a_struct_or_are_refused(bytes in vec(0..3u8, 0..9)) {
            canonical::<InPlace<Sample>>(&bytes);
            canonical::<InPlace<[Sample]>>(&bytes);
            canonical::<(InPlace<Sample>, Vec<u8>)>(&bytes);
            let fits = bytes.len() == 7 && bytes[6] < 2;
            prop_assert_eq!(InPlace::<Sample>::decode(&bytes).is_ok(), fits);
        }
    }

    #[test]
    fn bytes_that_do_not_fit_a_struct_are_refused_with_a_reason() {
        assert_eq!(refusal::<InPlace<Sample>>(b"ada"), "3 bytes do not fit inplace<acme.sample>");
        assert_eq!(refusal::<InPlace<[Sample]>>(b"ada"), "3 bytes do not fit inplace<[acme.sample]>");
        assert_eq!(
            refusal::<InPlace<Sample>>(&[9; 7]),
            "the bytes are no inplace<acme.sample>: a field has a value that its type lacks"
        );
        assert_eq!(
            refusal::<(InPlace<Sample>, u8)>(b"ada"),
            "component 1 of (inplace<acme.sample>,u8): 3 bytes do not fit inplace<acme.sample>"
        );
    }
}
