//! Decodes keys and values in arguments, and writes them in answers: plain text, `--hex` or
//! `--base64`; `-` and `@PATH` for values.
//!
//! Failure: an argument that is not valid hex or base64 is a usage error that names the first wrong
//! position.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::PathBuf;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use base64::DecodeError;

use crate::exit::Failure;
use crate::format::files;

/// Base64 that is written with padding, and read with or without it.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(crate) const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// `--hex` and `--base64`: the notation of keys and values in arguments and answers.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct Encoding {
    /// Keys and values are hexadecimal, in arguments and in the answer
    #[arg(long, conflicts_with = "base64")]
    pub(crate) hex: bool,

    /// Keys and values are base64, in arguments and in the answer
    #[arg(long)]
    pub(crate) base64: bool,
}

impl Encoding {
    /// Whether arguments and answers are the digits of stored bytes, and not text of a type.
    pub(crate) fn is_digits(self) -> bool {
        self.hex || self.base64
    }

    /// The bytes of an argument.
    pub(crate) fn decode(self, argument: &OsStr) -> Result<Vec<u8>, Failure> {
        let bytes = argument.as_encoded_bytes();
        if self.hex {
            from_hex(bytes)
                .map_err(|problem| Failure::usage(format!("--hex: '{}': {problem}", argument.to_string_lossy())))
        } else if self.base64 {
            BASE64.decode(bytes).map_err(|error| {
                Failure::usage(format!("--base64: '{}': {}", argument.to_string_lossy(), not_base64(&error)))
            })
        } else {
            Ok(bytes.to_vec())
        }
    }

    /// The bytes of a VALUE argument. `-` reads standard input and `@path` a file, both without
    /// decoding.
    pub(crate) fn decode_value(self, argument: &OsStr) -> Result<Vec<u8>, Failure> {
        match argument.as_encoded_bytes() {
            b"-" => files::refuse_closed_stdin().and_then(|()| read_all("standard input", io::stdin().lock())),
            b"@" => Err(Failure::usage(
                "'@' needs the path of a file after it; the value '@' itself goes through standard input, as '-'",
            )),
            [b'@', ..] => {
                let path = after_at(argument);
                let name = path.display().to_string();
                read_all(&name, files::open_file(&path)?)
            }
            _ => self.decode(argument),
        }
    }

    /// Appends bytes to an answer: unchanged, or as digits.
    pub(crate) fn write(self, bytes: &[u8], line: &mut Vec<u8>) {
        if self.hex {
            write_hex(bytes, line);
        } else if self.base64 {
            line.extend(BASE64.encode(bytes).into_bytes());
        } else {
            line.extend_from_slice(bytes);
        }
    }
}

/// Describes a base64 error. Positions count from 1.
pub(crate) fn not_base64(error: &DecodeError) -> String {
    match *error {
        DecodeError::InvalidByte(index, byte) => {
            format!("'{}' at position {} is not a base64 digit (A-Z a-z 0-9 + /)", byte.escape_ascii(), index + 1)
        }
        DecodeError::InvalidLength(digits) => format!("{digits} digits are not whole bytes; is the end missing?"),
        DecodeError::InvalidLastSymbol(index, byte) => format!(
            "the last digit '{}' at position {} has bits that belong to no byte; is the end missing?",
            byte.escape_ascii(),
            index + 1
        ),
        DecodeError::InvalidPadding => "'=' may only pad the last four digits".to_string(),
    }
}

/// The path of `@path`.
#[cfg(unix)]
fn after_at(argument: &OsStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(&argument.as_bytes()[1..]).into()
}

/// The path of `@path`.
#[cfg(not(unix))]
fn after_at(argument: &OsStr) -> PathBuf {
    argument.to_string_lossy()[1..].into()
}

fn read_all(name: &str, mut input: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(|error| Failure::reading(name, &error))?;
    Ok(bytes)
}

/// Appends two hexadecimal digits for each byte.
pub(crate) fn write_hex(bytes: &[u8], line: &mut Vec<u8>) {
    for byte in bytes {
        line.extend([HEX_DIGITS[usize::from(byte >> 4)], HEX_DIGITS[usize::from(byte & 15)]]);
    }
}

/// The bytes of hexadecimal digits.
pub(crate) fn from_hex(digits: &[u8]) -> Result<Vec<u8>, String> {
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of digits, but each byte has two".to_string());
    }
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for (i, pair) in digits.chunks_exact(2).enumerate() {
        let (Some(high), Some(low)) = (hex_digit(pair[0]), hex_digit(pair[1])) else {
            return Err(format!("expected two hexadecimal digits at position {}", 2 * i + 1));
        };
        bytes.push(high << 4 | low);
    }
    Ok(bytes)
}

/// The value of a hexadecimal digit, either case.
pub(crate) fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: Encoding = Encoding { hex: true, base64: false };
    const B64: Encoding = Encoding { hex: false, base64: true };
    const TEXT: Encoding = Encoding { hex: false, base64: false };

    #[test]
    fn written_bytes_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], b"", b"a", b"ab", b"abc"] {
            for encoding in [HEX, B64] {
                let mut written = Vec::new();
                encoding.write(bytes, &mut written);
                let argument = String::from_utf8(written).unwrap();
                assert_eq!(encoding.decode(OsStr::new(&argument)).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn text_is_unchanged() {
        assert_eq!(TEXT.decode(OsStr::new("a\\t\t")).unwrap(), b"a\\t\t");
        let mut bare = Vec::new();
        TEXT.write(b"a\tb", &mut bare);
        assert_eq!(bare, b"a\tb");
    }

    #[test]
    fn bad_digits_are_usage_errors() {
        assert_eq!(HEX.decode(OsStr::new("C0ffee")).unwrap(), b"\xc0\xff\xee");
        assert_eq!(B64.decode(OsStr::new("YQ")).unwrap(), b"a");
        for (encoding, argument, what) in [
            (HEX, "abc", "--hex: 'abc': an odd number of digits, but each byte has two"),
            (HEX, "00g0", "--hex: '00g0': expected two hexadecimal digits at position 3"),
            (B64, "a*==", "--base64: 'a*==': '*' at position 2 is not a base64 digit (A-Z a-z 0-9 + /)"),
            (B64, "aaaaa", "--base64: 'aaaaa': 5 digits are not whole bytes; is the end missing?"),
            (
                B64,
                "aa",
                "--base64: 'aa': the last digit 'a' at position 2 has bits that belong to no byte; is the end missing?",
            ),
            (B64, "YQ==YQ==", "--base64: 'YQ==YQ==': '=' at position 3 is not a base64 digit (A-Z a-z 0-9 + /)"),
        ] {
            let failure = encoding.decode(OsStr::new(argument)).unwrap_err();
            assert_eq!((failure.exit.code(), failure.text.as_deref()), (2, Some(what)));
        }
    }
}
