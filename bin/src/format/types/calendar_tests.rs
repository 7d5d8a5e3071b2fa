//! Converts dates and times to text and back.

use proptest::prelude::*;

use super::Type;

fn text_of(name: &str, stored: &[u8]) -> Result<String, String> {
    let mut text = Vec::new();
    Type::of(name).show(stored, &mut text)?;
    String::from_utf8(text).map_err(|error| error.to_string())
}

/// The stored form of seconds and nanoseconds.
fn stored(seconds: i64, nanoseconds: u32) -> Vec<u8> {
    [&(seconds ^ i64::MIN).to_be_bytes()[..], &nanoseconds.to_be_bytes()].concat()
}

fn both_ways(name: &str, stored: &[u8], has_text: bool) -> Result<(), TestCaseError> {
    let text = text_of(name, stored);
    prop_assert_eq!(text.is_ok(), has_text, "{} {:?}: {:?}", name, stored, text);
    if let Ok(text) = text {
        prop_assert_eq!(Type::of(name).read(text.as_bytes()), Ok(stored.to_vec()), "{} {}", name, text);
    }
    Ok(())
}

proptest! {
    #[test]
    fn moments_survive_a_round_trip_through_text(
        seconds in prop_oneof![any::<i64>(), -200_000..200_000i64, Just(i64::MIN), Just(i64::MAX)],
        nanoseconds in prop_oneof![0..2_100_000_000u32, 999_999_999..1_000_000_001u32, Just(500_000_000), Just(0)],
        days: i32,
    ) {
        let is_second = nanoseconds < 1_000_000_000;
        let is_time = is_second || (nanoseconds < 2_000_000_000 && seconds.rem_euclid(60) == 59);
        both_ways("timestamp", &stored(seconds, nanoseconds), is_time)?;
        both_ways("duration", &stored(seconds, nanoseconds), is_second)?;
        let of_day = seconds.rem_euclid(86_400) as u32;
        let time = [of_day.to_be_bytes(), nanoseconds.to_be_bytes()].concat();
        both_ways("time", &time, is_time)?;
        both_ways("time", &[86_400u32.to_be_bytes(), [0; 4]].concat(), false)?;
        let date = (days ^ i32::MIN).to_be_bytes();
        both_ways("date", &date, true)?;
        both_ways("datetime", &[&date[..], &time].concat(), is_time)?;
    }
}

#[test]
fn moments_have_their_documented_text() {
    for (name, stored, text) in [
        ("timestamp", stored(0, 0), "1970-01-01T00:00:00Z"),
        ("timestamp", stored(-1, 500_000_000), "1969-12-31T23:59:59.5Z"),
        ("timestamp", stored(1_709_208_000, 1), "2024-02-29T12:00:00.000000001Z"),
        ("timestamp", stored(1_483_228_799, 1_000_000_000), "2016-12-31T23:59:60Z"),
        ("timestamp", stored(253_402_300_800, 0), "+10000-01-01T00:00:00Z"),
        ("timestamp", stored(-62_198_755_200, 0), "-0001-01-01T00:00:00Z"),
        ("duration", stored(0, 0), "0"),
        ("duration", stored(-2, 500_000_000), "-1.5"),
        ("duration", stored(-1, 999_999_999), "-0.000000001"),
        ("date", vec![0x80, 0, 0x4D, 0x55], "2024-03-15"),
    ] {
        assert_eq!(text_of(name, &stored).as_deref(), Ok(text), "{name}");
        assert_eq!(Type::of(name).read(text.as_bytes()), Ok(stored), "{name} {text}");
    }
}

#[test]
fn text_that_is_no_moment_is_refused() {
    for (name, texts) in [
        (
            "date",
            &["2023-02-29", "2024-13-01", "2024-00-01", "2024-1-1", "24-01-01", "2024-01-01 ", "10000-01-01", ""][..],
        ),
        ("date", &["+999999999999-01-01", "+9999999999999-01-01", "-", "--", "2024--01-01"]),
        (
            "time",
            &[
                "24:00:00",
                "12:60:00",
                "12:00:61",
                "12:00:60.5x",
                "12:00",
                "12:00:00:00",
                "12:00:00.",
                "12:00:00.0000000001",
            ],
        ),
        ("datetime", &["2024-02-29 12:00:00", "2024-02-29T12:00:00Z", "2024-02-29"]),
        ("timestamp", &["2024-02-29T12:00:00", "2024-02-29T12:00:00+01:00", "+999999999999-01-01T00:00:00Z"]),
        ("duration", &["", "-", ".5", "+1", "1.", "--1", "1e3", "9223372036854775808", "1s"]),
    ] {
        for text in texts {
            assert!(Type::of(name).read(text.as_bytes()).is_err(), "{name} {text}");
        }
    }
    // A leap second can only be the last one of a minute, which it always is in text.
    assert!(Type::of("time").read(b"12:00:60").is_ok());
    for (name, length) in
        [("timestamp", 12), ("datetime", 12), ("date", 4), ("time", 8), ("duration", 12), ("uuid", 16)]
    {
        for wrong in [0, length - 1, length + 1] {
            assert!(text_of(name, &vec![0x80; wrong]).is_err(), "{name} {wrong}");
        }
    }
}
