//! Dates and times of the crate `time`, with the feature `time`.
//!
//! Floor: table. `calendar` has the bytes.

use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, Time, UtcDateTime};

use super::calendar::{
    both, days, floor, no_such, out_of_range, read_both, read_days, read_seconds, read_time_of_day, seconds,
    time_of_day, SECOND,
};
use super::fixed::{exactly, fixed, split};
use super::{Codec, CodecError, Encoded, KeyCodec, Part};
use crate::error::Result;

/// The Julian day of 1970-01-01.
const EPOCH_DAYS: i32 = 2_440_588;

fn date_bytes(date: Date) -> [u8; 4] {
    days(date.to_julian_day() - EPOCH_DAYS)
}

fn date_of(bytes: [u8; 4]) -> Result<Date, CodecError> {
    let days = read_days(bytes);
    let date = days.checked_add(EPOCH_DAYS).and_then(|day| Date::from_julian_day(day).ok());
    date.ok_or_else(|| no_such("date", "Date", days.into(), 0))
}

fn time_bytes(time: Time) -> [u8; 8] {
    let (hour, minute, second, nanosecond) = time.as_hms_nano();
    time_of_day((u32::from(hour) * 60 + u32::from(minute)) * 60 + u32::from(second), nanosecond)
}

fn time_of(bytes: [u8; 8]) -> Result<Time, CodecError> {
    let (seconds, nanoseconds) = read_time_of_day(bytes);
    let hour = u8::try_from(seconds / 3600).ok();
    let (minute, second) = ((seconds / 60 % 60) as u8, (seconds % 60) as u8);
    let time = hour.and_then(|hour| Time::from_hms_nano(hour, minute, second, nanoseconds).ok());
    time.ok_or_else(|| no_such("time", "Time", seconds.into(), nanoseconds))
}

fn utc_of(bytes: [u8; 12]) -> Result<UtcDateTime, CodecError> {
    let (seconds, nanoseconds) = read_seconds(bytes);
    let whole = UtcDateTime::from_unix_timestamp(seconds).ok();
    let time = whole.and_then(|whole| whole.replace_nanosecond(nanoseconds).ok());
    time.ok_or_else(|| no_such("timestamp", "UtcDateTime", seconds, nanoseconds))
}

fixed!(
    /// With the feature `time`. Seconds since 1970 and nanoseconds, 12 bytes.
    ///
    /// Shares its name and bytes with `OffsetDateTime`, and with `DateTime<Utc>` of the crate
    /// `chrono`.
    ///
    /// ```
    /// use mapleaf::Table;
    /// use time::UtcDateTime;
    ///
    /// const SEEN: Table<(UtcDateTime, u32), &str> = Table::new("seen");
    ///
    /// let db = mapleaf::Db::in_memory()?;
    /// let noon = UtcDateTime::from_unix_timestamp(1_709_208_000).expect("a time");
    /// db.write(|txn| txn.table(SEEN)?.insert((noon, 1), "heron"))?;
    /// let seen = db.begin_read()?.table(SEEN)?;
    /// assert_eq!(seen.range((noon, 0)..)?.next().transpose()?, Some(((noon, 1), "heron")));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    UtcDateTime, "timestamp", 12, |item| seconds(item.unix_timestamp(), item.nanosecond()), |bytes| utc_of(bytes)
);

fixed!(
    /// With the feature `time`. Only the moment is stored, by which the type also compares: it is
    /// read back in UTC. An item whose year in UTC is out of range is refused.
    OffsetDateTime, "timestamp", 12,
    |item| {
        UtcDateTime::from_unix_timestamp(item.unix_timestamp()).map_err(|_| out_of_range("time"))?;
        seconds(item.unix_timestamp(), item.nanosecond())
    },
    |bytes| utc_of(bytes).map(OffsetDateTime::from)
);

fixed!(
    /// With the feature `time`. A date and a time of day, 12 bytes.
    PrimitiveDateTime, "datetime", 12,
    |item| both(date_bytes(item.date()), time_bytes(item.time())),
    |bytes| {
        let (date, time) = read_both(bytes);
        Ok(PrimitiveDateTime::new(date_of(date)?, time_of(time)?))
    }
);

fixed!(
    /// With the feature `time`. Days since 1970-01-01, 4 bytes.
    Date, "date", 4, |item| date_bytes(item), |bytes| date_of(bytes)
);

fixed!(
    /// With the feature `time`. Seconds since midnight and nanoseconds, 8 bytes.
    Time, "time", 8, |item| time_bytes(item), |bytes| time_of(bytes)
);

fixed!(
    /// With the feature `time`. Seconds and nanoseconds, 12 bytes. `Duration::MIN`, and others less
    /// than a second away from it, are refused.
    Duration, "duration", 12,
    |item| {
        let (whole, nanoseconds) =
            floor(item.whole_seconds(), item.subsec_nanoseconds()).ok_or_else(|| out_of_range("duration"))?;
        seconds(whole, nanoseconds)
    },
    |bytes| {
        let (seconds, nanoseconds) = read_seconds(bytes);
        match i32::try_from(nanoseconds) {
            Ok(rest) if nanoseconds < SECOND => Ok(Duration::new(seconds, rest)),
            _ => Err(no_such("duration", "Duration", seconds, nanoseconds)),
        }
    }
);
