//! Listening sockets: opens or inherits them, and accepts connections from them, retrying after
//! every error.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{io::unix::AsyncFd, time::sleep};

use super::unix_socket::{SocketAccess, UnixSocket};
use crate::config::ListenAddress;

/// Number of connections that the kernel queues for a listener. The kernel uses the lower of
/// this and `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Pause after a failed accept: at first, and at most. Without a pause, a process that is out of
/// descriptors would spin.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Returns the keepalive options: the kernel probes a peer that has been silent for 60 s every
/// 15 s, and gives up after 4 unanswered probes.
fn keepalive_options() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4)
}

/// Sizes of the kernel's buffers of a connection, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct SocketBuffers {
    pub(super) send: usize,
    pub(super) receive: usize,
}

/// A socket from which connections can be accepted.
pub(super) trait AcceptSource: AsRawFd + AsFd {
    /// An accepted connection, with the peer's address if there is one.
    type Accepted;

    /// Accepts the next connection without waiting.
    fn accept(&self) -> io::Result<Self::Accepted>;
}

impl AcceptSource for TcpListener {
    type Accepted = (TcpStream, IpAddr);

    fn accept(&self) -> io::Result<Self::Accepted> {
        let (stream, peer) = self.accept()?;
        stream.set_nonblocking(true)?;
        Ok((stream, peer.ip()))
    }
}

impl AcceptSource for UnixSocket {
    type Accepted = UnixStream;

    fn accept(&self) -> io::Result<Self::Accepted> {
        let (stream, _) = self.listener().accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

/// A listening socket, registered with the runtime.
#[derive(Debug)]
pub(super) struct SocketListener<S: AcceptSource = TcpListener> {
    socket: AsyncFd<S>,
}

/// A listener on a TCP or Unix socket, for backends or operators.
#[derive(Debug)]
pub(super) enum LocalListener {
    Tcp(SocketListener),
    Unix(SocketListener<UnixSocket>),
}

/// A connection accepted by a [`LocalListener`].
#[derive(Debug)]
pub(super) enum LocalStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl SocketListener {
    /// Binds and listens. Accepted connections inherit `TCP_NODELAY`, the keepalive options and,
    /// if given, the buffer sizes.
    pub(super) fn bind(address: SocketAddr, buffers: Option<SocketBuffers>) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        // The buffer sizes must be set before it listens, since they determine the window
        // scaling that is offered.
        set_options(&SockRef::from(&socket), buffers)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Self::new(socket.into())
    }

    /// Takes over a listening socket.
    pub(super) fn inherit(socket: TcpListener, buffers: Option<SocketBuffers>) -> io::Result<Self> {
        set_options(&SockRef::from(&socket), buffers)?;
        Self::new(socket)
    }

    fn new(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        register_with_runtime(socket)
    }

    /// Returns its address. For port 0, it has the port that the kernel chose.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }
}

fn set_options(socket: &SockRef<'_>, buffers: Option<SocketBuffers>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive_options())?;
    if let Some(buffers) = buffers {
        socket.set_send_buffer_size(buffers.send)?;
        socket.set_recv_buffer_size(buffers.receive)?;
    }
    Ok(())
}

impl LocalListener {
    /// Binds and listens. `access` applies to Unix sockets.
    pub(super) fn bind(listen: &ListenAddress, access: SocketAccess) -> io::Result<Self> {
        match listen {
            ListenAddress::Tcp(address) => SocketListener::bind(*address, None).map(Self::Tcp),
            ListenAddress::Unix(path) => Self::unix(UnixSocket::bind(path, access, BACKLOG)?),
        }
    }

    /// Takes over a listening TCP socket.
    pub(super) fn inherit_tcp(socket: TcpListener) -> io::Result<Self> {
        SocketListener::inherit(socket, None).map(Self::Tcp)
    }

    /// Takes over a listening Unix socket.
    pub(super) fn inherit_unix(socket: UnixListener) -> io::Result<Self> {
        Self::unix(UnixSocket::inherit(socket)?)
    }

    fn unix(socket: UnixSocket) -> io::Result<Self> {
        register_with_runtime(socket).map(Self::Unix)
    }

    /// Returns its address.
    pub(super) fn address(&self) -> io::Result<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.address().map(ListenAddress::Tcp),
            Self::Unix(listener) => Ok(ListenAddress::Unix(
                listener.socket.get_ref().path().to_owned(),
            )),
        }
    }

    /// Accepts the next connection, as [`SocketListener::accept`] does.
    pub(super) async fn accept(&self, failed: impl FnMut(&io::Error)) -> LocalStream {
        match self {
            Self::Tcp(listener) => LocalStream::Tcp(listener.accept(failed).await.0),
            Self::Unix(listener) => LocalStream::Unix(listener.accept(failed).await),
        }
    }
}

impl<S: AcceptSource> SocketListener<S> {
    /// Accepts the next connection. Errors of the process or system, such as a lack of
    /// descriptors, are passed to `failed` and followed by a pause; errors of the connection are
    /// skipped. Cancel-safe.
    pub(super) async fn accept(&self, mut failed: impl FnMut(&io::Error)) -> S::Accepted {
        let mut pause = PAUSE_MIN;
        loop {
            match self.try_accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_peer_error(&error) => {}
                Err(error) => {
                    failed(&error);
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<S::Accepted> {
        loop {
            let mut ready = self.socket.readable().await?;
            // tokio's accept would register the connection with this thread's runtime, but it
            // belongs to a shard's.
            if let Ok(accepted) = ready.try_io(|socket| socket.get_ref().accept()) {
                return accepted;
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "deprecated for types that do not own their descriptor, but this one does"
)]
fn register_with_runtime<S: AcceptSource>(socket: S) -> io::Result<SocketListener<S>> {
    AsyncFd::new(socket).map(|socket| SocketListener { socket })
}

/// Returns true if the error is the connection's, which failed before it was accepted: the next
/// one may be fine (accept(2)).
fn is_peer_error(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| {
        matches!(
            errno,
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTUNREACH
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFERS: SocketBuffers = SocketBuffers {
        send: 64 * 1024,
        receive: 32 * 1024,
    };

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    async fn check_what_is_accepted(listener: SocketListener) {
        let client = TcpStream::connect(listener.address().unwrap()).unwrap();
        let (accepted, peer) = listener.accept(|_| ()).await;
        assert_eq!(peer, client.local_addr().unwrap().ip());
        let accepted = Socket::from(accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        // The kernel doubles what it is asked for (socket(7)).
        assert_eq!(accepted.send_buffer_size().unwrap(), 128 * 1024);
        assert_eq!(accepted.recv_buffer_size().unwrap(), 64 * 1024);
    }

    #[tokio::test]
    async fn an_accepted_socket_has_no_delay_and_the_requested_buffers() {
        check_what_is_accepted(SocketListener::bind(any_port(), Some(BUFFERS)).unwrap()).await;
    }

    #[tokio::test]
    async fn a_socket_accepted_by_an_inherited_listener_has_the_same_options() {
        let socket = TcpListener::bind(any_port()).unwrap();
        check_what_is_accepted(SocketListener::inherit(socket, Some(BUFFERS)).unwrap()).await;
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error() {
        let first = SocketListener::bind(any_port(), None).unwrap();
        let second = SocketListener::bind(first.address().unwrap(), None);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
