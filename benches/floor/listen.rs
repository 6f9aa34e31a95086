//! Listening and accepting, with as few system calls as possible.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use socket2::{Domain, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Returns a listener on a free port. Accepted sockets inherit TCP_NODELAY from it, so that
/// no call is needed for each.
pub(crate) fn listen() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    let any_port = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    socket.bind(&any_port.into()).unwrap();
    socket.listen(BACKLOG).unwrap();
    socket.into()
}

/// Returns the next waiting connection, if any.
pub(crate) fn accept(listener: &TcpListener) -> Option<OwnedFd> {
    loop {
        match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => return Some(socket),
            Err(Errno::AGAIN) => return None,
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(error) => panic!("cannot accept: {error}"),
        }
    }
}

pub(crate) fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}
