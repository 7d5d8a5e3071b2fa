//! Parses numbers in arguments of the command line, and writes counts with their noun. Errors name
//! the allowed range.

use std::ops::RangeInclusive;

/// Parses a whole number within bounds.
fn within(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let (least, most) = (*range.start(), *range.end());
    let number = text.parse::<u64>().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| match (least, most) {
        (0, u64::MAX) => "give a whole number, 0 or more".to_string(),
        (least, u64::MAX) => format!("give a whole number, {least} or more"),
        (least, most) => format!("give a whole number from {least} to {most}"),
    })
}

/// Parses a whole number, 0 or more.
pub(crate) fn whole(text: &str) -> Result<u64, String> {
    within(text, 0..=u64::MAX)
}

/// Parses a whole number, 1 or more.
pub(crate) fn positive(text: &str) -> Result<u64, String> {
    within(text, 1..=u64::MAX)
}

/// Parses a whole number from `LEAST` to `MOST`.
pub(crate) fn bounded<const LEAST: u64, const MOST: u64>(text: &str) -> Result<u64, String> {
    within(text, LEAST..=MOST)
}

/// Parses a size of at least `LEAST` bytes. The suffixes K, M and G are powers of 1024.
pub(crate) fn size<const LEAST: u64>(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((index, 'K' | 'k')) => (&text[..index], 1 << 10),
        Some((index, 'M' | 'm')) => (&text[..index], 1 << 20),
        Some((index, 'G' | 'g')) => (&text[..index], 1 << 30),
        _ => (text, 1),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let least = match LEAST {
        least if least >= 1 << 20 => format!("{}M", least >> 20),
        least => format!("{least} bytes"),
    };
    bytes.filter(|&bytes| bytes >= LEAST).ok_or_else(|| format!("give a size of at least {least}, as in 64M"))
}

/// A number with its noun in the right form: `1 row`, `2 rows`, `2 entries`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_errors_that_name_the_range() {
        assert_eq!((whole("0"), positive("7"), bounded::<8, 9>("9")), (Ok(0), Ok(7), Ok(9)));
        for wrong in ["-1", "", "x", "1.5", "99999999999999999999"] {
            assert_eq!(whole(wrong), Err("give a whole number, 0 or more".to_string()));
            assert_eq!(positive(wrong), Err("give a whole number, 1 or more".to_string()));
        }
        assert!(positive("0").is_err());
        assert_eq!(bounded::<8, 9>("7"), Err("give a whole number from 8 to 9".to_string()));
    }

    #[test]
    fn sizes_have_units_and_a_minimum() {
        assert_eq!(size::<{ 1 << 20 }>("1M"), Ok(1 << 20));
        assert_eq!(size::<{ 1 << 20 }>("2g"), Ok(2 << 30));
        assert_eq!(size::<{ 1 << 20 }>("2048k"), Ok(2 << 20));
        assert_eq!(size::<{ 1 << 20 }>("3000000"), Ok(3_000_000));
        for wrong in ["", "M", "1K", "-5M", "99999999999999999999", "99999999999G", "5\u{e4}"] {
            assert_eq!(size::<{ 1 << 20 }>(wrong), Err("give a size of at least 1M, as in 64M".to_string()), "{wrong}");
        }
    }
}
