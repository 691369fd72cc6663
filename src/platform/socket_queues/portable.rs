//! The queues of a socket by POSIX alone: only what has arrived can be counted.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use socket2::SockRef;

use super::unread_limit::UNREAD_COUNTED;

pub(super) fn bytes_acked(_socket: &impl AsFd) -> Option<u64> {
    None
}

pub(super) fn untransmitted(_socket: &impl AsFd) -> Option<u64> {
    None
}

pub(super) fn unacked(_socket: &impl AsFd) -> Option<u64> {
    None
}

pub(super) fn unread(socket: &impl AsFd) -> Option<u64> {
    let mut peeked = [MaybeUninit::uninit(); UNREAD_COUNTED];
    match SockRef::from(socket).peek(&mut peeked) {
        Ok(bytes) => Some(bytes as u64),
        Err(error) if error.kind() == ErrorKind::Interrupted => None,
        // Nothing has arrived, or the connection is broken and nothing will.
        Err(_) => Some(0),
    }
}
