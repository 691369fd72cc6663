//! System calls of Linux that no safe crate offers. The only module with unsafe code.
#![expect(unsafe_code, reason = "one getsockopt, one setsockopt, one ioctl and one step after fork, audited below")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Returns what the kernel knows of a TCP connection (`TCP_INFO`), if that reaches as far as `needed` bytes.
pub(super) fn tcp_info(socket: &impl AsFd, needed: usize) -> Option<libc::tcp_info> {
    let fd = socket.as_fd();
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: `fd` borrows an open descriptor for the whole call. `info` is writable memory of `length` bytes; the
    // kernel writes at most that many and stores in `length` the number written. Both outlive the call.
    let status = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    // A kernel before 4.1 knows a shorter structure; a socket that is not TCP returns an error.
    if status != 0 || usize::try_from(length).ok()? < needed {
        return None;
    }
    // SAFETY: every field is an integer, for which the initial zeros are a valid value, whatever the kernel has
    // overwritten.
    Some(unsafe { info.assume_init() })
}

/// Returns the bytes in the send queue of a socket (`SIOCOUTQ`).
pub(super) fn send_queue(socket: &impl AsFd) -> Option<u64> {
    let fd = socket.as_fd();
    let mut bytes: libc::c_int = 0;
    // SAFETY: `fd` borrows an open descriptor for the whole call. SIOCOUTQ, which equals TIOCOUTQ, stores one int at
    // its argument, and `bytes` is a writable int that outlives the call.
    let status = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if status == 0 { u64::try_from(bytes).ok() } else { None }
}

/// Sets `IP_BIND_ADDRESS_NO_PORT` (ip(7)), which IPv6 sockets have too.
pub(super) fn set_bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let fd = socket.as_fd();
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: `fd` borrows an open descriptor for the whole call. The kernel reads one int where the fourth argument
    // points to, and `on` is an int that outlives the call; `length` is its size.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the program of `command` get SIGTERM when the thread that starts it ends (`PR_SET_PDEATHSIG`, prctl(2)).
pub(super) fn terminate_with_parent(command: &mut impl CommandExt) {
    let parent = getpid();
    let step = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // A parent that has ended before that call sends no signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: `step` runs in the child between fork and exec, where only async-signal-safe functions may be called. It makes
    // two system calls, allocates nothing, takes no lock, and its errors are plain numbers.
    unsafe { command.pre_exec(step) };
}
