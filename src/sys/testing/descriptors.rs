//! Descriptors that go from one process to another through a socket (`SCM_RIGHTS`).
//!
//! Floor: sys. Present only with the feature `testing`.
//!
//! Failure: `io::Error` as the kernel gave it; `InvalidData` for a message without them.
#![allow(unsafe_code, reason = "raw system calls")]
#![allow(unreachable_pub, reason = "public for the integration tests, through the crate root")]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::sys::{descriptor, file_calls, seals};

const COUNT: usize = 2;
const FD_BYTES: usize = size_of::<libc::c_int>();

/// Room for the ancillary data of a message, aligned for its header.
type Ancillary = [u64; 8];

/// Calls `call` with a message of one byte, with room for ancillary data.
fn with_message<T>(byte: &mut u8, ancillary: &mut Ancillary, call: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut part = libc::iovec { iov_base: std::ptr::from_mut(byte).cast(), iov_len: 1 };
    // SAFETY: `msghdr` is plain integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = ancillary.as_mut_ptr().cast();
    message.msg_controllen = std::mem::size_of_val(ancillary) as _;
    call(&mut message)
}

/// Sends two descriptors.
pub fn send_descriptors(socket: &UnixStream, sent: [BorrowedFd<'_>; COUNT]) -> io::Result<()> {
    let (mut byte, mut ancillary) = (b'd', Ancillary::default());
    let sent = sent.map(|descriptor| descriptor.as_raw_fd());
    let done = with_message(&mut byte, &mut ancillary, |message| {
        // SAFETY: computes a length.
        message.msg_controllen = unsafe { libc::CMSG_SPACE((COUNT * FD_BYTES) as u32) } as _;
        // SAFETY: bounds: the buffer has room for a header and two descriptors, and lives through
        // the call.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN((COUNT * FD_BYTES) as u32) as _;
            std::ptr::copy_nonoverlapping(sent.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), COUNT * FD_BYTES);
            libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_NOSIGNAL)
        }
    });
    if done == 1 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Receives two descriptors, close-on-exec.
pub fn receive_descriptors(socket: &UnixStream) -> io::Result<[OwnedFd; COUNT]> {
    let (mut byte, mut ancillary) = (0, Ancillary::default());
    with_message(&mut byte, &mut ancillary, |message| {
        // SAFETY: the message and its parts live through the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) };
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has filled the message.
        let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() };
        // SAFETY: computes a length.
        let len = unsafe { libc::CMSG_LEN((COUNT * FD_BYTES) as u32) };
        let is_whole =
            |header: &&libc::cmsghdr| header.cmsg_type == libc::SCM_RIGHTS && header.cmsg_len as u64 == u64::from(len);
        let header = header.filter(is_whole).ok_or(io::ErrorKind::InvalidData)?;
        let mut descriptors: [libc::c_int; COUNT] = [-1; COUNT];
        // SAFETY: bounds: the header says that two descriptors follow it.
        unsafe {
            std::ptr::copy_nonoverlapping(libc::CMSG_DATA(header), descriptors.as_mut_ptr().cast(), COUNT * FD_BYTES);
        }
        // SAFETY: the kernel has just made them for this process.
        Ok(descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }))
    })
}

/// A file in memory with some seals: ours, or against changes, or none.
pub fn memory_with_seals(ours: bool, against_changes: bool) -> io::Result<File> {
    let file = descriptor::memory_file_to_seal()?;
    file_calls::set_len(&file, 1 << 16)?;
    if against_changes {
        // SAFETY: a call on a descriptor that `file` keeps open, without pointers.
        super::checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) })?;
    }
    if ours {
        seals::seal(&file)?;
    }
    Ok(file)
}
