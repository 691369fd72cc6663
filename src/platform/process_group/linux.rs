//! Processes and sockets by /proc (`proc_pid_stat(5)`, `proc_pid_fd(5)`, `proc_pid_net(5)`).

use std::collections::BTreeSet;

use procfs::net::{self, TcpState, UnixState};
use procfs::process::{FDTarget, all_processes};

use super::snapshot::{GroupSnapshot, ListeningSocket};

pub(super) fn read(leader: i32) -> Option<GroupSnapshot> {
    // A process may end while it is read.
    let all: Vec<_> =
        all_processes().ok()?.filter_map(|process| process.ok().and_then(|it| Some((it.stat().ok()?, it)))).collect();
    let mut processes: BTreeSet<i32> = [leader].into();
    // Each round finds the children of the processes found so far.
    loop {
        let known = processes.len();
        let family = |id: &i32| processes.contains(id);
        let more: Vec<i32> = all
            .iter()
            .filter(|(stat, _)| stat.pgrp == leader || family(&stat.ppid))
            .map(|(stat, _)| stat.pid)
            .collect();
        processes.extend(more);
        if processes.len() == known {
            break;
        }
    }
    let living: Vec<_> = all.iter().filter(|(stat, _)| processes.contains(&stat.pid) && stat.state != 'Z').collect();
    let descriptors = living.iter().filter_map(|(_, process)| process.fd().ok()).flatten().flatten();
    let sockets: BTreeSet<u64> = descriptors
        .filter_map(|descriptor| match descriptor.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    let tcp = net::tcp().into_iter().chain(net::tcp6()).flatten();
    let tcp = tcp.filter(|socket| socket.state == TcpState::Listen && sockets.contains(&socket.inode));
    let tcp = tcp.map(|socket| ListeningSocket::Tcp(socket.local_address));
    let unix = net::unix().into_iter().flatten();
    let unix = unix.filter(|socket| socket.state == UnixState::UNCONNECTED && sockets.contains(&socket.inode));
    let unix = unix.filter_map(|socket| socket.path).filter(|path| path.is_absolute()).map(ListeningSocket::Unix);
    let mut listening: Vec<ListeningSocket> = Vec::new();
    for socket in tcp.chain(unix) {
        if !listening.contains(&socket) {
            listening.push(socket);
        }
    }
    Some(GroupSnapshot { processes: living.iter().map(|(stat, _)| stat.pid).collect(), listening })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_sockets_of_this_process_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let six = TcpListener::bind("[::1]:0").expect("a port");
        let dir = tempfile::TempDir::new().expect("a folder");
        let path = dir.path().join("app.sock");
        let unix = UnixListener::bind(&path).expect("a socket");
        let own = std::process::id().cast_signed();
        let seen = read(own).expect("Linux has it");
        assert!(seen.processes.contains(&own));
        let wanted = [&tcp, &six].map(|port| ListeningSocket::Tcp(port.local_addr().expect("an address")));
        for socket in wanted.iter().chain([&ListeningSocket::Unix(path)]) {
            assert!(seen.listening.contains(socket), "{socket:?} is not in {seen:?}");
        }
        drop((tcp, six, unix));
        let seen = read(own).expect("Linux has it");
        assert!(wanted.iter().all(|socket| !seen.listening.contains(socket)), "{seen:?}");
    }
}
