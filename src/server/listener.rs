//! Listening sockets: how they are opened or taken over, and how connections are
//! accepted from them without ever giving up.

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

use super::unix_socket::{Access, UnixSocket};
use crate::config::Listen;

/// How many connections the kernel holds for us; it takes the lower of this and
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long to wait when no connection can be accepted: at first, and at most.
/// Without a pause, a process that is out of descriptors would spin.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Without a word from the other end for so long, the kernel asks whether it is
/// still there, and gives up when it does not answer.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4)
}

/// What the kernel holds of a connection, each way, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buffers {
    pub(super) send: usize,
    pub(super) receive: usize,
}

/// What connections can be accepted from.
pub(super) trait Source: AsRawFd + AsFd {
    /// A connection, and from where it is.
    type Accepted;

    /// Takes the next one, without waiting.
    fn accept(&self) -> io::Result<Self::Accepted>;
}

impl Source for TcpListener {
    type Accepted = (TcpStream, IpAddr);

    fn accept(&self) -> io::Result<Self::Accepted> {
        let (stream, peer) = self.accept()?;
        stream.set_nonblocking(true)?;
        Ok((stream, peer.ip()))
    }
}

impl Source for UnixSocket {
    type Accepted = UnixStream;

    fn accept(&self) -> io::Result<Self::Accepted> {
        let (stream, _) = self.listener().accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

/// A socket that connections come from.
#[derive(Debug)]
pub(super) struct Listener<S: Source = TcpListener> {
    socket: AsyncFd<S>,
}

/// A listener of the machine's own side.
#[derive(Debug)]
pub(super) enum LocalListener {
    Tcp(Listener),
    Unix(Listener<UnixSocket>),
}

/// A connection to one of these.
#[derive(Debug)]
pub(super) enum LocalStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens. What is accepted inherits `TCP_NODELAY`, the keepalive and, where
    /// they are given, the kernel's buffers.
    pub(super) fn bind(address: SocketAddr, buffers: Option<Buffers>) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        // The buffers before it listens, since they decide on the window that is
        // offered.
        set_options(&SockRef::from(&socket), buffers)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Self::new(socket.into())
    }

    /// Takes over a socket that listens already.
    pub(super) fn inherit(socket: TcpListener, buffers: Option<Buffers>) -> io::Result<Self> {
        set_options(&SockRef::from(&socket), buffers)?;
        Self::new(socket)
    }

    fn new(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        register(socket)
    }

    /// Where it listens: with port 0, what the kernel chose.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }
}

fn set_options(socket: &SockRef<'_>, buffers: Option<Buffers>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    if let Some(buffers) = buffers {
        socket.set_send_buffer_size(buffers.send)?;
        socket.set_recv_buffer_size(buffers.receive)?;
    }
    Ok(())
}

impl LocalListener {
    /// Listens; who may connect to a Unix socket, `access` says.
    pub(super) fn bind(listen: &Listen, access: Access) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => Listener::bind(*address, None).map(Self::Tcp),
            Listen::Unix(path) => Self::unix(UnixSocket::bind(path, access, BACKLOG)?),
        }
    }

    /// Takes over a socket that listens already.
    pub(super) fn inherit_tcp(socket: TcpListener) -> io::Result<Self> {
        Listener::inherit(socket, None).map(Self::Tcp)
    }

    /// Takes over a Unix socket that listens already.
    pub(super) fn inherit_unix(socket: UnixListener) -> io::Result<Self> {
        Self::unix(UnixSocket::inherit(socket)?)
    }

    fn unix(socket: UnixSocket) -> io::Result<Self> {
        register(socket).map(Self::Unix)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.address().map(Listen::Tcp),
            Self::Unix(listener) => Ok(Listen::Unix(listener.socket.get_ref().path().to_owned())),
        }
    }

    /// The next connection, as [`Listener::accept`].
    pub(super) async fn accept(&self, failed: impl FnMut(&io::Error)) -> LocalStream {
        match self {
            Self::Tcp(listener) => LocalStream::Tcp(listener.accept(failed).await.0),
            Self::Unix(listener) => LocalStream::Unix(listener.accept(failed).await),
        }
    }
}

impl<S: Source> Listener<S> {
    /// The next connection. `failed` is told of each attempt that failed for want
    /// of something of ours; then a pause is made. Cancel-safe.
    pub(super) async fn accept(&self, mut failed: impl FnMut(&io::Error)) -> S::Accepted {
        let mut pause = PAUSE_MIN;
        loop {
            match self.try_accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_the_peers(&error) => {}
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
            // Not tokio's own accept: that would register the connection with
            // this thread's runtime, and it belongs to a shard's.
            if let Ok(accepted) = ready.try_io(|socket| socket.get_ref().accept()) {
                return accepted;
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its fault is that of types whose descriptor is not their own, and this one's is"
)]
fn register<S: Source>(socket: S) -> io::Result<Listener<S>> {
    AsyncFd::new(socket).map(|socket| Listener { socket })
}

/// Whether the connection failed before it was accepted, which is none of our
/// trouble: the next one may be fine (accept(2)).
fn is_the_peers(error: &io::Error) -> bool {
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

    const BUFFERS: Buffers = Buffers {
        send: 64 * 1024,
        receive: 32 * 1024,
    };

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    async fn check_what_is_accepted(listener: Listener) {
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
    async fn what_is_accepted_has_no_delay_and_the_buffers_that_were_asked_for() {
        check_what_is_accepted(Listener::bind(any_port(), Some(BUFFERS)).unwrap()).await;
    }

    #[tokio::test]
    async fn so_has_what_is_accepted_from_a_socket_that_was_taken_over() {
        let socket = TcpListener::bind(any_port()).unwrap();
        check_what_is_accepted(Listener::inherit(socket, Some(BUFFERS)).unwrap()).await;
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_an_error() {
        let first = Listener::bind(any_port(), None).unwrap();
        let second = Listener::bind(first.address().unwrap(), None);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
