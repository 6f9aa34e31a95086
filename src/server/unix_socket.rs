//! Unix sockets that listen at a path. A socket appears at its path only with its mode and group
//! set, and is removed when it is dropped. Knows no protocol.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Access rights of a socket's file.
#[derive(Debug, Clone, Copy)]
pub(super) struct SocketAccess {
    /// Mode bits, as in chmod(1).
    pub(super) mode: u32,
    /// Group id; `None` for the relay's own group.
    pub(super) group: Option<u32>,
}

/// A listening Unix socket. Dropping it removes its file, unless the socket is inherited.
#[derive(Debug)]
pub(super) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The file, removed on drop; `None` for an inherited socket.
    _file: Option<SocketFile>,
}

/// The file of a socket. Dropping it removes the file if it still has the same inode.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl UnixSocket {
    /// Listens at the path. Replaces an existing socket if no process listens on it.
    pub(super) fn bind(path: &Path, access: SocketAccess, backlog: i32) -> io::Result<Self> {
        check_replaceable(path)?;
        // It gets its mode and group under another name, where nobody can connect since it is
        // not listening yet.
        let number = getrandom::u32().map_err(io::Error::other)?;
        let hidden = path.with_file_name(format!(".{number:08x}"));
        let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(&hidden)?)?;
        let mut file = SocketFile::new(hidden)?;
        if access.group.is_some() {
            lchown(&file.path, None, access.group).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot change its group: {error}"))
            })?;
        }
        fs::set_permissions(&file.path, fs::Permissions::from_mode(access.mode))?;
        socket.listen(backlog)?;
        fs::rename(&file.path, path)?;
        file.path = path.to_owned();
        Ok(Self {
            listener: socket.into(),
            path: path.to_owned(),
            _file: Some(file),
        })
    }

    /// Takes over a listening socket. Its file belongs to the process that opened it.
    pub(super) fn inherit(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // An abstract socket has neither mode nor group, so every local user could connect.
        let path = address.as_pathname().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "it has no path, so every user of this machine could connect",
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            _file: None,
        })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsRawFd for UnixSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl SocketFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let found = fs::symlink_metadata(&path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            path,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours {
            // If this fails, the next relay replaces the file.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Checks that the path is free, or holds a socket on which no process listens.
fn check_replaceable(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is not a socket exists at this path",
        ));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    // A blocking connect would wait if the listener's queue is full.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Another process listens, or may listen.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use tempfile::TempDir;

    use super::*;

    const ACCESS: SocketAccess = SocketAccess {
        mode: 0o640,
        group: None,
    };

    fn bind(path: &Path) -> io::Result<UnixSocket> {
        UnixSocket::bind(path, ACCESS, 16)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_socket_has_the_requested_mode_and_group_and_is_removed_with_its_listener() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("relay.sock");
        let group = rustix::process::getgid().as_raw();
        let access = SocketAccess {
            mode: 0o606,
            group: Some(group),
        };
        let socket = UnixSocket::bind(&path, access, 16).unwrap();
        assert_eq!(
            (mode(&path), fs::metadata(&path).unwrap().gid()),
            (0o606, group)
        );
        assert_eq!(socket.path(), path);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(socket.listener().accept().is_ok());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        drop(socket);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn a_path_with_an_active_listener_is_left_alone() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("relay.sock");
        let first = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok());
        drop(first);
        assert!(bind(&path).is_ok());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_any_other_file_is_not() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("relay.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves it");
        let socket = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);

        fs::write(&path, "precious").unwrap();
        let refused = bind(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_listener_does_not_remove_the_socket_of_its_successor() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("relay.sock");
        let first = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
    }

    #[test]
    fn a_failed_bind_leaves_nothing_behind() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(bind(&path).is_err());
        // Only root can give files to another group.
        if !rustix::process::getuid().is_root() {
            let access = SocketAccess {
                group: Some(u32::MAX - 7),
                ..ACCESS
            };
            let path = directory.path().join("relay.sock");
            assert!(UnixSocket::bind(&path, access, 16).is_err());
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn an_inherited_socket_is_not_removed() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("relay.sock");
        let socket = UnixSocket::inherit(UnixListener::bind(&path).unwrap()).unwrap();
        assert_eq!(socket.path(), path);
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_socket_without_a_path_is_not_inherited() {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};

        let name = format!("sidewire-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let refused = UnixSocket::inherit(UnixListener::bind_addr(&address).unwrap());
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
