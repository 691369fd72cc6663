//! The sockets of the two listeners, opened before any client is served.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::accept;
use crate::config::AdminSocket;
use crate::platform::file_identity::FileIdentity;
use crate::telemetry::Chain;

/// The accept backlog, in connections.
const BACKLOG: i32 = 128;
/// The mode of the unix socket: only the program's own user may connect.
const OWNER_ONLY: u32 = 0o600;

/// The listeners with their ports open; connections wait in the kernel's queue.
#[derive(Debug)]
pub struct BoundListeners {
    pub(super) handshake: Duration,
    pub(super) health: Option<HealthListener>,
    pub(super) administration: Option<Administration>,
}

/// A listener that could not be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// The health port could not be opened.
    #[error("cannot serve health and metrics on {address} (admin.health): {source}{}", accept::port_remedy(source))]
    Health {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The admin port could not be opened.
    #[error("cannot open the admin port {address} (admin.socket): {source}{}", accept::port_remedy(source))]
    Port {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The unix socket could not be opened.
    #[error("cannot open the admin socket {} (admin.socket): {source}{}", path.display(), folder_remedy(path, source))]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A running program listens on the socket.
    #[error("the admin socket {} (admin.socket) is in use by a running program; end it or use another path", path.display())]
    InUse {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The path exists and is no socket, so it is not removed.
    #[error("{} (admin.socket) exists and is no socket; remove it or use another path", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
}

/// Returns the remedy for a missing or read-only folder of the socket, as the end of a sentence.
fn folder_remedy(path: &Path, error: &io::Error) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("; make its folder {folder}, or set admin.socket = \"off\""),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("; let the user that pulsegate runs as write to {folder}, or set admin.socket = \"off\"")
        }
        _ => String::new(),
    }
}

/// The open listener of health and metrics.
#[derive(Debug)]
pub(super) struct HealthListener {
    pub(super) listener: TcpListener,
    pub(super) address: SocketAddr,
}

impl HealthListener {
    pub(super) fn open(address: SocketAddr) -> Result<Self, BindError> {
        let (listener, address) = open_port(address).map_err(|source| BindError::Health { address, source })?;
        Ok(Self { listener, address })
    }
}

/// The open admin listener.
#[derive(Debug)]
pub(super) struct Administration {
    pub(super) listener: AdminListener,
    /// The configured socket, with the real port.
    pub(super) socket: AdminSocket,
}

#[derive(Debug)]
pub(super) enum AdminListener {
    Unix(UnixListener, SocketFile),
    Tcp { listener: TcpListener, tls: bool },
}

impl Administration {
    /// Opens `socket`. A default unix socket (`required` not set) that cannot be opened is logged and gives `None`.
    pub(super) fn open(socket: &AdminSocket, tls: bool) -> Result<Option<Self>, BindError> {
        match socket {
            AdminSocket::Tcp(address) => {
                let (listener, real) =
                    open_port(*address).map_err(|source| BindError::Port { address: *address, source })?;
                Ok(Some(Self { listener: AdminListener::Tcp { listener, tls }, socket: AdminSocket::Tcp(real) }))
            }
            AdminSocket::Unix { path, required } => match open_unix(path) {
                Ok((listener, file)) => {
                    Ok(Some(Self { listener: AdminListener::Unix(listener, file), socket: socket.clone() }))
                }
                Err(error) if *required => Err(error),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "no admin socket");
                    Ok(None)
                }
            },
        }
    }
}

fn open_port(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = accept::listeners(address, NonZeroUsize::MIN)?.swap_remove(0);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Opens the socket at `path`; replaces a socket file left by a program that no longer runs.
fn open_unix(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| BindError::Socket { path: path.into(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NoSocket { path: path.into() }),
        Ok(_) if is_in_use(path).map_err(failed)? => return Err(BindError::InUse { path: path.into() }),
        Ok(_) => fs::remove_file(path).map_err(failed)?,
    }
    listen(path).map_err(failed)
}

/// Returns whether a program listens at `path`. Does not wait: a full accept queue counts as a running program.
fn is_in_use(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
        Ok(()) => Ok(true),
    }
}

fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Before `listen`: until then no connection is accepted, whatever mode the umask has left.
    fs::set_permissions(path, fs::Permissions::from_mode(OWNER_ONLY))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// The file of a unix socket; removed on drop, unless another file has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: FileIdentity,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), identity: FileIdentity::of(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_at(&self.path).unwrap_or(false) {
            // A file left behind is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_the_owners_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        let (listener, file) = open_unix(&path).expect("a free path");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        assert!(matches!(open_unix(&path), Err(BindError::InUse { .. })));
        assert!(path.exists(), "whoever is refused removes nothing");

        drop(listener);
        let (_listener, successor) = open_unix(&path).expect("a dead program's socket is replaced");
        drop(file);
        assert!(path.exists(), "the socket of a successor is not ours to remove");
        drop(successor);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.sock");
        fs::write(&path, "precious").expect("write a file");
        assert!(matches!(open_unix(&path), Err(BindError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
        let error = open_unix(&dir.path().join("none/admin.sock")).expect_err("no such folder");
        assert!(error.to_string().contains("none/admin.sock (admin.socket): No such file"), "{error}");
    }

    #[test]
    fn only_a_socket_that_nobody_asked_for_may_be_missing() {
        let path = PathBuf::from("/nowhere/admin.sock");
        let open = |required| Administration::open(&AdminSocket::Unix { path: path.clone(), required }, false);
        assert!(open(false).expect("a warning").is_none());
        assert!(open(true).is_err());
    }
}
