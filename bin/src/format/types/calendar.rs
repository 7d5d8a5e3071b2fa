//! Text of dates and times: ISO 8601, with the crates' limits of years lifted.
//!
//! A year before 0 or after 9999 has a sign and at least four digits. A leap second is the second
//! 60. The fraction of a second has up to nine digits, and no zero at its end when it is shown.
//!
//! Failure: `None`, or a description, for what is no date or time.

/// Nanoseconds of a second.
const SECOND: u32 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// The stored form of seconds, and nanoseconds after them.
fn stored(seconds: i64, nanoseconds: u32) -> Vec<u8> {
    [&(seconds ^ i64::MIN).to_be_bytes()[..], &nanoseconds.to_be_bytes()].concat()
}

fn stored_date(days: i64) -> Option<Vec<u8>> {
    Some((i32::try_from(days).ok()? ^ i32::MIN).to_be_bytes().to_vec())
}

/// The first numbers of stored bytes: `i64` or `i32` of which the sign bit is inverted, or `u32`.
fn i64_at(bytes: &[u8]) -> Result<i64, String> {
    let number = bytes.first_chunk().map(|bytes| i64::from_be_bytes(*bytes) ^ i64::MIN);
    number.ok_or_else(|| format!("{} bytes, expected 12", bytes.len()))
}

fn i32_at(bytes: &[u8]) -> Result<i32, String> {
    let number = bytes.first_chunk().map(|bytes| i32::from_be_bytes(*bytes) ^ i32::MIN);
    number.ok_or_else(|| format!("{} bytes, expected 4", bytes.len()))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let number = bytes.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_be_bytes(*bytes));
    number.ok_or_else(|| format!("{} bytes, expected {}", bytes.len(), at + 4))
}

fn ends_at(bytes: &[u8], length: usize) -> Result<(), String> {
    if bytes.len() == length {
        return Ok(());
    }
    Err(format!("{} bytes, expected {length}", bytes.len()))
}

/// Year, month and day of a number of days since 1970-01-01. The years of this computation begin
/// in March, so that the leap day is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_month)
}

/// Days since 1970-01-01; `None` for a day that does not exist.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    // Years that `i64` days cannot count are none.
    let early = i64::from(month <= 2);
    let (era, of_era) = ((year - early).div_euclid(400), (year - early).rem_euclid(400));
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = era.checked_mul(146_097)? + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    (civil(days) == (year, month, day)).then_some(days)
}

fn show_days(days: i64) -> String {
    let (year, month, day) = civil(days);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{}{:04}-{month:02}-{day:02}", if year < 0 { '-' } else { '+' }, year.unsigned_abs()),
    }
}

/// Decimal digits, from `least` to `most`.
fn digits(text: &str, least: usize, most: usize) -> Option<i64> {
    let fits = (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits {
        text.parse().ok()
    } else {
        None
    }
}

fn read_days(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (0, text),
    };
    let (date, day) = rest.rsplit_once('-')?;
    let (year, month) = date.rsplit_once('-')?;
    let year = digits(year, 4, if sign == 0 { 4 } else { 12 })?;
    let year = if sign < 0 { -year } else { year };
    days_of(year, digits(month, 2, 2)?, digits(day, 2, 2)?)
}

/// The fraction of a second, with a point before it, or nothing.
fn show_fraction(nanoseconds: u32) -> String {
    match nanoseconds {
        0 => String::new(),
        _ => format!(".{nanoseconds:09}").trim_end_matches('0').to_string(),
    }
}

/// Splits a fraction off, in nanoseconds.
fn split_fraction(text: &str) -> Option<(&str, u32)> {
    let Some((whole, fraction)) = text.split_once('.') else { return Some((text, 0)) };
    let number = u32::try_from(digits(fraction, 1, 9)?).ok()?;
    Some((whole, number * 10u32.pow(9 - fraction.len() as u32)))
}

/// The time of a day of seconds since midnight and nanoseconds.
fn show_clock(seconds: i64, nanoseconds: u32) -> Result<String, String> {
    let is_leap = nanoseconds >= SECOND;
    if !(0..DAY_SECONDS).contains(&seconds) || nanoseconds >= 2 * SECOND || (is_leap && seconds % 60 != 59) {
        return Err(format!("{seconds} s and {nanoseconds} ns are no time of a day"));
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60 + i64::from(is_leap));
    Ok(format!("{hour:02}:{minute:02}:{second:02}{}", show_fraction(nanoseconds % SECOND)))
}

fn read_clock(text: &str) -> Option<(i64, u32)> {
    let (whole, nanoseconds) = split_fraction(text)?;
    let mut numbers = whole.split(':').map(|number| digits(number, 2, 2));
    let (hour, minute, second) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if numbers.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let is_leap = second == 60;
    let seconds = (hour * 60 + minute) * 60 + second - i64::from(is_leap);
    Some((seconds, nanoseconds + if is_leap { SECOND } else { 0 }))
}

pub(super) fn show_date(bytes: &[u8]) -> Result<String, String> {
    ends_at(bytes, 4)?;
    Ok(show_days(i32_at(bytes)?.into()))
}

pub(super) fn read_date(text: &str) -> Option<Vec<u8>> {
    stored_date(read_days(text)?)
}

pub(super) fn show_time(bytes: &[u8]) -> Result<String, String> {
    ends_at(bytes, 8)?;
    show_clock(u32_at(bytes, 0)?.into(), u32_at(bytes, 4)?)
}

pub(super) fn read_time(text: &str) -> Option<Vec<u8>> {
    let (seconds, nanoseconds) = read_clock(text)?;
    Some([(seconds as u32).to_be_bytes(), nanoseconds.to_be_bytes()].concat())
}

pub(super) fn show_datetime(bytes: &[u8]) -> Result<String, String> {
    ends_at(bytes, 12)?;
    Ok(format!("{}T{}", show_days(i32_at(bytes)?.into()), show_time(&bytes[4..])?))
}

pub(super) fn read_datetime(text: &str) -> Option<Vec<u8>> {
    let (date, time) = text.split_once('T')?;
    Some([read_date(date)?, read_time(time)?].concat())
}

pub(super) fn show_timestamp(bytes: &[u8]) -> Result<String, String> {
    ends_at(bytes, 12)?;
    utc_text(i64_at(bytes)?, u32_at(bytes, 8)?)
}

/// A time as text: seconds since 1970, and nanoseconds.
pub(crate) fn utc_text(seconds: i64, nanoseconds: u32) -> Result<String, String> {
    let clock = show_clock(seconds.rem_euclid(DAY_SECONDS), nanoseconds)?;
    Ok(format!("{}T{clock}Z", show_days(seconds.div_euclid(DAY_SECONDS))))
}

pub(super) fn read_timestamp(text: &str) -> Option<Vec<u8>> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (seconds, nanoseconds) = read_clock(time)?;
    let all = i128::from(read_days(date)?) * i128::from(DAY_SECONDS) + i128::from(seconds);
    Some(stored(i64::try_from(all).ok()?, nanoseconds))
}

pub(super) fn show_duration(bytes: &[u8]) -> Result<String, String> {
    ends_at(bytes, 12)?;
    let (seconds, nanoseconds) = (i64_at(bytes)?, u32_at(bytes, 8)?);
    if nanoseconds >= SECOND {
        return Err(format!("{nanoseconds} ns are a second or more"));
    }
    let all = i128::from(seconds) * i128::from(SECOND) + i128::from(nanoseconds);
    let (whole, fraction) = (all.unsigned_abs() / u128::from(SECOND), (all.unsigned_abs() % u128::from(SECOND)) as u32);
    Ok(format!("{}{whole}{}", if all < 0 { "-" } else { "" }, show_fraction(fraction)))
}

pub(super) fn read_duration(text: &str) -> Option<Vec<u8>> {
    let (whole, fraction) = split_fraction(text.strip_prefix('-').unwrap_or(text))?;
    let is_number = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
    let all = whole.parse::<i128>().ok().filter(|_| is_number)?.checked_mul(SECOND.into())? + i128::from(fraction);
    let all = if text.starts_with('-') { -all } else { all };
    let seconds = i64::try_from(all.div_euclid(SECOND.into())).ok()?;
    Some(stored(seconds, all.rem_euclid(SECOND.into()) as u32))
}
