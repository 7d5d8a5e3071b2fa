//! Recognises system calls that the kernel refuses: in a sandbox (seccomp, gVisor), or because it
//! does not know them.
//!
//! Floor: sys. The wrapper of a call omits a refused hint, and replaces a refused call by an
//! equivalent one if there is one. Otherwise the error names the call, because the name of the
//! operation ("growing the file") does not tell it.
//!
//! Failure: none of its own.

use std::fmt;
use std::io;

/// A refused call: the source of an `io::Error` whose kind belongs to the number of the error.
#[derive(Debug)]
struct Refused {
    call: &'static str,
    error: io::Error,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refused the call {}: {}; sandbox?", self.call, self.error)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Whether an error means that the kernel refuses a call, whatever its arguments are.
pub(crate) fn is(error: &io::Error) -> bool {
    let named = || error.get_ref().is_some_and(|inner| inner.is::<Refused>());
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) || named()
}

/// For `map_err`: adds the name of the call to an error that means a refusal. Other errors stay as
/// they are.
pub(crate) fn by(call: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| match is(&error) && error.raw_os_error().is_some() {
        true => io::Error::new(error.kind(), Refused { call, error }),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_is_named_once_with_its_number() {
        let refused = by("fallocate")(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(is(&refused));
        let text = by("outer")(refused).to_string();
        assert_eq!(text, "the kernel refused the call fallocate: Operation not permitted (os error 1); sandbox?");
        let unknown = by("madvise")(io::Error::from_raw_os_error(libc::ENOSYS));
        assert!(is(&unknown) && unknown.to_string().contains("(os error 38); sandbox?"), "{unknown}");
    }

    #[test]
    fn errors_other_than_refusals_are_unchanged() {
        for code in [libc::EACCES, libc::EIO, libc::ENOSPC, libc::EINVAL] {
            let error = by("open")(io::Error::from_raw_os_error(code));
            assert!(!is(&error));
            assert_eq!(error.raw_os_error(), Some(code));
        }
    }
}
