//! Adds numbers that are given as text.
//!
//! Failure: `None` for a sum that no type can hold. A store checks whether the sum fits the type of
//! its table.

/// The kind of numbers that a type has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NumberKind {
    Whole,
    F32,
    F64,
}

/// A number of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    /// Below zero.
    Negative(i128),
    Positive(u128),
    F32(f32),
    F64(f64),
}

impl NumberKind {
    /// The kind of a scalar type.
    pub(super) fn of(name: &str) -> Option<NumberKind> {
        match name {
            "f32" => Some(NumberKind::F32),
            "f64" => Some(NumberKind::F64),
            "bool" | "char" => None,
            _ => Some(NumberKind::Whole),
        }
    }

    /// Describes the numbers, for errors.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            NumberKind::Whole => "a whole number of at most 38 digits, without a plus sign",
            NumberKind::F32 | NumberKind::F64 => "a number such as 1.5, within the range of the type",
        }
    }

    /// Parses a text.
    pub(crate) fn parse(self, text: &[u8]) -> Option<Number> {
        let text = std::str::from_utf8(text).ok()?;
        match self {
            NumberKind::Whole if text.starts_with('+') => None,
            NumberKind::Whole => {
                let positive = text.parse().ok().map(Number::Positive);
                positive.or_else(|| text.parse().ok().map(Number::of_signed))
            }
            // A text beyond the range parses as infinity, to which nothing can be added.
            NumberKind::F32 => text.parse().ok().filter(|number: &f32| number.is_finite()).map(Number::F32),
            NumberKind::F64 => text.parse().ok().filter(|number: &f64| number.is_finite()).map(Number::F64),
        }
    }
}

impl Number {
    fn of_signed(number: i128) -> Number {
        u128::try_from(number).map_or(Number::Negative(number), Number::Positive)
    }

    /// The text of the sum. Both numbers are of one kind.
    pub(crate) fn plus(self, other: Number) -> Option<String> {
        match (self, other) {
            (Number::F32(a), Number::F32(b)) => Some(a + b).filter(|sum| sum.is_finite()).map(|sum| format!("{sum:?}")),
            (Number::F64(a), Number::F64(b)) => Some(a + b).filter(|sum| sum.is_finite()).map(|sum| format!("{sum:?}")),
            (Number::Positive(a), Number::Positive(b)) => a.checked_add(b).map(|sum| sum.to_string()),
            (Number::Negative(a), Number::Negative(b)) => a.checked_add(b).map(|sum| sum.to_string()),
            (Number::Positive(a), Number::Negative(b)) | (Number::Negative(b), Number::Positive(a)) => {
                let below = b.unsigned_abs();
                match a.checked_sub(below) {
                    Some(sum) => Some(sum.to_string()),
                    // Not above 2^127, as `below` is not.
                    None => Some(format!("-{}", below - a)),
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(kind: NumberKind, a: &str, b: &str) -> Option<String> {
        kind.parse(a.as_bytes())?.plus(kind.parse(b.as_bytes())?)
    }

    #[test]
    fn whole_numbers_are_added_over_the_ranges_of_all_types() {
        let (most, least) = (u128::MAX.to_string(), i128::MIN.to_string());
        for (a, b, expected) in [
            ("2", "3", Some("5")),
            ("2", "-3", Some("-1")),
            ("-2", "3", Some("1")),
            ("-2", "-3", Some("-5")),
            ("0", "-0", Some("0")),
            (&most, "-1", Some("340282366920938463463374607431768211454")),
            (&most, "1", None),
            (&least, "-1", None),
            (&least, "1", Some("-170141183460469231731687303715884105727")),
            ("0", &least, Some(least.as_str())),
            (&least, &most, Some("170141183460469231731687303715884105727")),
        ] {
            assert_eq!(sum(NumberKind::Whole, a, b).as_deref(), expected, "{a} + {b}");
        }
        for text in ["", "x", "1.5", "+1", " 1", "1e3", "0x1"] {
            assert!(NumberKind::Whole.parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn floats_are_added_with_the_precision_of_their_type() {
        assert_eq!(sum(NumberKind::F64, "0.1", "0.2").as_deref(), Some("0.30000000000000004"));
        assert_eq!(sum(NumberKind::F32, "0.1", "0.2").as_deref(), Some("0.3"));
        assert_eq!(sum(NumberKind::F32, "16777216", "1").as_deref(), Some("16777216.0"));
        assert_eq!(sum(NumberKind::F64, "-1.5", "1").as_deref(), Some("-0.5"));
        for (kind, most) in [(NumberKind::F64, "1e308"), (NumberKind::F32, "3e38")] {
            assert_eq!(sum(kind, most, most), None);
            for text in ["inf", "-inf", "nan", "1e309"] {
                assert!(kind.parse(text.as_bytes()).is_none(), "{text}");
            }
        }
    }
}
