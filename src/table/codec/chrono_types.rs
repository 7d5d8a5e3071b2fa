//! Dates and times of the crate `chrono`, with the feature `chrono`.
//!
//! Floor: table. `calendar` has the bytes.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};

use super::calendar::{
    both, days, floor, no_such, out_of_range, read_both, read_days, read_seconds, read_time_of_day, seconds,
    time_of_day, SECOND,
};
use super::fixed::{exactly, fixed, split};
use super::{Codec, CodecError, Encoded, KeyCodec, Part};
use crate::error::Result;

/// 1970-01-01 as `num_days_from_ce` counts.
const EPOCH_DAYS: i32 = 719_163;

fn date_bytes(date: NaiveDate) -> [u8; 4] {
    days(date.num_days_from_ce() - EPOCH_DAYS)
}

fn date_of(bytes: [u8; 4]) -> Result<NaiveDate, CodecError> {
    let days = read_days(bytes);
    let date = days.checked_add(EPOCH_DAYS).and_then(NaiveDate::from_num_days_from_ce_opt);
    date.ok_or_else(|| no_such("date", "NaiveDate", days.into(), 0))
}

fn time_bytes(time: NaiveTime) -> [u8; 8] {
    time_of_day(time.num_seconds_from_midnight(), time.nanosecond())
}

fn time_of(bytes: [u8; 8]) -> Result<NaiveTime, CodecError> {
    let (seconds, nanoseconds) = read_time_of_day(bytes);
    NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanoseconds)
        .ok_or_else(|| no_such("time", "NaiveTime", seconds.into(), nanoseconds))
}

fixed!(
    /// With the feature `chrono`. Seconds since 1970 and nanoseconds, 12 bytes.
    ///
    /// Shares its name and bytes with the types `UtcDateTime` and `OffsetDateTime` of the crate
    /// `time`, which cannot read leap seconds.
    ///
    /// ```
    /// use chrono::{DateTime, Utc};
    /// use mapleaf::Table;
    ///
    /// const SEEN: Table<(DateTime<Utc>, u32), &str> = Table::new("seen");
    ///
    /// let db = mapleaf::Db::in_memory()?;
    /// let noon: DateTime<Utc> = "2024-02-29T12:00:00Z".parse().expect("a time");
    /// db.write(|txn| txn.table(SEEN)?.insert((noon, 1), "heron"))?;
    /// let seen = db.begin_read()?.table(SEEN)?;
    /// assert_eq!(seen.range((noon, 0)..)?.next().transpose()?, Some(((noon, 1), "heron")));
    /// # Ok::<(), mapleaf::Error>(())
    /// ```
    DateTime<Utc>, "timestamp", 12,
    |item| seconds(item.timestamp(), item.timestamp_subsec_nanos()),
    |bytes| {
        let (seconds, nanoseconds) = read_seconds(bytes);
        DateTime::from_timestamp(seconds, nanoseconds)
            .ok_or_else(|| no_such("timestamp", "DateTime<Utc>", seconds, nanoseconds))
    }
);

fixed!(
    /// With the feature `chrono`. A date and a time of day, 12 bytes.
    NaiveDateTime, "datetime", 12,
    |item| both(date_bytes(item.date()), time_bytes(item.time())),
    |bytes| {
        let (date, time) = read_both(bytes);
        Ok(date_of(date)?.and_time(time_of(time)?))
    }
);

fixed!(
    /// With the feature `chrono`. Days since 1970-01-01, 4 bytes.
    NaiveDate, "date", 4, |item| date_bytes(item), |bytes| date_of(bytes)
);

fixed!(
    /// With the feature `chrono`. Seconds since midnight and nanoseconds, 8 bytes.
    NaiveTime, "time", 8, |item| time_bytes(item), |bytes| time_of(bytes)
);

fixed!(
    /// With the feature `chrono`. Seconds and nanoseconds, 12 bytes.
    TimeDelta, "duration", 12,
    |item| {
        let (whole, nanoseconds) =
            floor(item.num_seconds(), item.subsec_nanos()).ok_or_else(|| out_of_range("duration"))?;
        seconds(whole, nanoseconds)
    },
    |bytes| {
        let (seconds, nanoseconds) = read_seconds(bytes);
        let delta = TimeDelta::new(seconds, nanoseconds).filter(|_| nanoseconds < SECOND);
        delta.ok_or_else(|| no_such("duration", "TimeDelta", seconds, nanoseconds))
    }
);
