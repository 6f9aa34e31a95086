//! Listening sockets: how they are opened, and how connections are accepted from
//! them without ever giving up.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{io::unix::AsyncFd, time::sleep};

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

/// A socket that connections come from.
#[derive(Debug)]
pub(super) struct Listener {
    socket: AsyncFd<TcpListener>,
    address: SocketAddr,
}

impl Listener {
    /// Listens. What is accepted inherits `TCP_NODELAY`, the keepalive and, where
    /// they are given, the kernel's buffers.
    pub(super) fn bind(address: SocketAddr, buffers: Option<Buffers>) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&keepalive())?;
        if let Some(buffers) = buffers {
            socket.set_send_buffer_size(buffers.send)?;
            // Before it listens, since it decides on the window that is offered.
            socket.set_recv_buffer_size(buffers.receive)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from(socket);
        Ok(Self {
            address: socket.local_addr()?,
            socket: register(socket)?,
        })
    }

    /// Where it listens: with port 0, what the kernel chose.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, and from where it comes. `failed` is told of each attempt that failed for want
    /// of something of ours; then a pause is made.
    pub(super) async fn accept(&self, mut failed: impl FnMut(&io::Error)) -> (TcpStream, IpAddr) {
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

    async fn try_accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        loop {
            let mut ready = self.socket.readable().await?;
            // Not tokio's own accept: that would register the connection with
            // this thread's runtime, and it belongs to a shard's.
            let accepted = ready.try_io(|socket| {
                let (stream, from) = socket.get_ref().accept()?;
                stream.set_nonblocking(true)?;
                Ok((stream, from.ip()))
            });
            if let Ok(accepted) = accepted {
                return accepted;
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its fault is that of types whose descriptor is not their own, and this one's is"
)]
fn register(socket: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    AsyncFd::new(socket)
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

    #[tokio::test]
    async fn what_is_accepted_has_no_delay_and_the_buffers_that_were_asked_for() {
        let buffers = Buffers {
            send: 64 * 1024,
            receive: 32 * 1024,
        };
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Some(buffers)).unwrap();
        let _client = TcpStream::connect(listener.address()).unwrap();
        let (accepted, from) = listener.accept(|_| ()).await;
        assert_eq!(from, listener.address().ip());
        let accepted = Socket::from(accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        // The kernel doubles what it is asked for (socket(7)).
        assert_eq!(accepted.send_buffer_size().unwrap(), 128 * 1024);
        assert_eq!(accepted.recv_buffer_size().unwrap(), 64 * 1024);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_an_error() {
        let first = Listener::bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let second = Listener::bind(first.address(), None);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
