//! Processes and sockets by /proc (`proc_pid_stat(5)`, `proc_pid_environ(5)`, `proc_pid_fd(5)`, `proc_pid_net(5)`), orphans
//! by a subreaper (prctl(2), `PR_SET_CHILD_SUBREAPER`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use procfs::net::{self, TcpState, UnixState};
use procfs::process::{FDTarget, Process, Stat, all_processes};
use rustix::process::{child_subreaper, getpid, set_child_subreaper};

use super::MARK;
use super::snapshot::{FamilyMember, FamilySnapshot, ListeningSocket, ZombieChild};

pub(super) fn adopt_orphans() -> bool {
    set_child_subreaper(Some(getpid())).is_ok()
}

pub(super) fn read(leader: i32) -> Option<FamilySnapshot> {
    let all = processes()?;
    let own = own_id();
    let mut children: BTreeMap<i32, Vec<&Stat>> = BTreeMap::new();
    for process in &all {
        children.entry(process.ppid).or_default().push(process);
    }
    let of_own = children.get(&own).into_iter().flatten();
    let mut open: Vec<&Stat> = of_own.filter(|child| child.pid == leader || !is_aside(child.pid)).copied().collect();
    if !adopts_orphans() {
        // Others that its group tells are elsewhere in the tree. Nobody else can have the group's id while it exists.
        open.extend(all.iter().filter(|process| process.pgrp == leader && process.ppid != own));
    }
    let mut family = FamilySnapshot::new();
    let mut seen = BTreeSet::new();
    while let Some(process) = open.pop() {
        if !seen.insert(process.pid) {
            continue;
        }
        open.extend(children.get(&process.pid).into_iter().flatten());
        if !has_ended(process) {
            family.insert(process.pid, member(process));
        }
    }
    Some(family)
}

pub(super) fn listening(family: &FamilySnapshot) -> Vec<ListeningSocket> {
    let processes = family.keys().filter_map(|id| Process::new(*id).ok());
    let sockets: BTreeSet<u64> = processes.flat_map(|process| sockets(&process)).collect();
    let tcp = tcp_listeners().filter(|(_, inode)| sockets.contains(inode));
    let unix = unix_listeners().filter(|(_, inode)| sockets.contains(inode));
    let all =
        tcp.map(|(address, _)| ListeningSocket::Tcp(address)).chain(unix.map(|(path, _)| ListeningSocket::Unix(path)));
    let mut listening: Vec<ListeningSocket> = Vec::new();
    for socket in all {
        if !listening.contains(&socket) {
            listening.push(socket);
        }
    }
    listening
}

pub(super) fn zombies() -> Option<Vec<ZombieChild>> {
    let own = own_id();
    let all = processes()?;
    let session = all.iter().find(|process| process.pid == own)?.session;
    let zombies = all.iter().filter(|process| process.ppid == own && has_ended(process));
    let leads_group = |process: &Stat| process.pgrp == process.pid && process.session == session;
    Some(zombies.map(|process| ZombieChild { id: process.pid, leads_group: leads_group(process) }).collect())
}

pub(super) fn tcp_owner(addresses: &[SocketAddr]) -> Option<(i32, FamilyMember)> {
    let is_one = |listener: SocketAddr| {
        addresses.iter().any(|address| {
            listener.port() == address.port() && (listener.ip() == address.ip() || listener.ip().is_unspecified())
        })
    };
    owner(&tcp_listeners().filter(|(listener, _)| is_one(*listener)).map(|(_, inode)| inode).collect())
}

pub(super) fn unix_owner(path: &Path) -> Option<(i32, FamilyMember)> {
    owner(&unix_listeners().filter(|(listener, _)| listener == path).map(|(_, inode)| inode).collect())
}

/// Returns the process with one of these sockets.
fn owner(inodes: &BTreeSet<u64>) -> Option<(i32, FamilyMember)> {
    let mut processes = all_processes().ok()?.flatten();
    let owner = processes.find(|process| sockets(process).iter().any(|inode| inodes.contains(inode)))?;
    Some((owner.pid, member(&owner.stat().ok()?)))
}

/// Returns all processes; one that ends meanwhile may be missing.
fn processes() -> Option<Vec<Stat>> {
    Some(all_processes().ok()?.flatten().filter_map(|process| process.stat().ok()).collect())
}

fn own_id() -> i32 {
    getpid().as_raw_nonzero().get()
}

fn adopts_orphans() -> bool {
    getpid().is_init() || matches!(child_subreaper(), Ok(Some(_)))
}

fn has_ended(process: &Stat) -> bool {
    matches!(process.state, 'Z' | 'X' | 'x')
}

fn member(process: &Stat) -> FamilyMember {
    let is_stopped = matches!(process.state, 'T' | 't');
    // Since Linux 6.9 the code of a stopped process is the signal that has stopped it.
    let stopped_by = process.exit_code.filter(|signal| is_stopped && *signal > 0);
    FamilyMember { name: process.comm.clone(), group: process.pgrp, is_stopped, stopped_by }
}

/// Returns whether the environment of a process shows that the program has nothing to do with it: it is that of this
/// process, without the mark. A program may write over its environment, as daemons do to show a title; that shows nothing.
fn is_aside(id: i32) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{id}/environ")) else { return false };
    let Ok(own) = fs::read("/proc/self/environ") else { return false };
    let own: BTreeSet<&[u8]> = variables(&own).collect();
    let is_mark =
        |variable: &[u8]| variable.strip_prefix(MARK.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='));
    let is_marked = variables(&environment).any(|variable| is_mark(variable) && !own.contains(variable));
    !is_marked && variables(&environment).any(|variable| own.contains(variable))
}

fn variables(environment: &[u8]) -> impl Iterator<Item = &[u8]> {
    environment.split(|byte| *byte == 0).filter(|variable| variable.contains(&b'='))
}

/// Returns the inodes of a process's sockets.
fn sockets(process: &Process) -> Vec<u64> {
    let descriptors = process.fd().into_iter().flatten().flatten();
    let inodes = descriptors.filter_map(|descriptor| match descriptor.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    });
    inodes.collect()
}

fn tcp_listeners() -> impl Iterator<Item = (SocketAddr, u64)> {
    let tcp = net::tcp().into_iter().chain(net::tcp6()).flatten();
    tcp.filter(|socket| socket.state == TcpState::Listen).map(|socket| (socket.local_address, socket.inode))
}

fn unix_listeners() -> impl Iterator<Item = (PathBuf, u64)> {
    let unix = net::unix().into_iter().flatten().filter(|socket| socket.state == UnixState::UNCONNECTED);
    let unix = unix.filter_map(|socket| Some((socket.path?, socket.inode)));
    unix.filter(|(path, _)| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_sockets_of_this_process_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let six = TcpListener::bind("[::1]:0").expect("a port");
        let dir = tempfile::TempDir::new().expect("a folder");
        let path = dir.path().join("app.sock");
        let unix = UnixListener::bind(&path).expect("a socket");
        let own = own_id();
        let family: FamilySnapshot = [(own, FamilyMember::default())].into();
        let seen = listening(&family);
        let addresses = [&tcp, &six].map(|port| port.local_addr().expect("an address"));
        let wanted = addresses.map(ListeningSocket::Tcp);
        for socket in wanted.iter().chain([&ListeningSocket::Unix(path.clone())]) {
            assert!(seen.contains(socket), "{socket:?} is not in {seen:?}");
        }
        for address in addresses {
            assert_eq!(tcp_owner(&[address]).expect("it listens").0, own);
        }
        assert_eq!(unix_owner(&path).expect("it listens").0, own);
        drop((tcp, six, unix));
        let seen = listening(&family);
        assert!(wanted.iter().all(|socket| !seen.contains(socket)), "{seen:?}");
        assert!(unix_owner(&path).is_none_or(|(id, _)| id != own));
    }

    #[test]
    fn only_a_child_with_the_environment_of_its_parent_and_no_mark_is_aside() {
        use std::process::{Command, Stdio};

        let aside = |change: &dyn Fn(&mut Command)| {
            let mut command = Command::new("sleep");
            command.arg("60").stdin(Stdio::null());
            change(&mut command);
            let mut child = command.spawn().expect("sleep starts");
            let id = child.id().cast_signed();
            // Its environment is there once it runs: `sleep` sleeps then.
            let is_asleep = || Process::new(id).and_then(|process| process.stat()).is_ok_and(|stat| stat.state == 'S');
            let give_up = Instant::now() + Duration::from_secs(20);
            while !is_asleep() {
                assert!(Instant::now() < give_up, "it does not sleep");
                std::thread::sleep(Duration::from_millis(1));
            }
            let is_aside = is_aside(id);
            let is_member = read(0).expect("Linux has it").contains_key(&id);
            child.kill().and_then(|()| child.wait()).expect("it ends");
            assert_ne!(is_aside, is_member);
            is_aside
        };
        assert!(aside(&|_| {}));
        assert!(!aside(&|command| {
            command.env(MARK, "1");
        }));
        assert!(!aside(&|command| {
            command.env_clear();
        }));
    }
}
