//! One TCP connection that is read without waiting, into a buffer that all share.
//! Only what was read of something unfinished is kept with it.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// At least so much is read at once.
const READ_BYTES_MIN: usize = 64 * 1024;

/// How many connections have one source address, where there are several: each
/// has about 28,000 ports for them.
pub(super) const CONNECTIONS_PER_ADDRESS: usize = 10_000;

/// The first address of the loopback network that connections come from, the one
/// after the usual, and how many follow.
const FIRST_SOURCE: [u8; 4] = [127, 0, 0, 2];
const SOURCES: usize = 250;

/// Where everything is read into.
pub(super) type Buffer = Vec<u8>;

/// A connection, and the unfinished rest of what was read of it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: TcpStream,
    left: Vec<u8>,
}

/// What came of a read.
#[derive(Debug)]
pub(super) enum Came<'b> {
    /// What was left, and what is new behind it.
    Bytes {
        bytes: &'b [u8],
        /// Whether there may be more to read at once.
        is_full: bool,
    },
    Nothing,
    End,
}

impl Link {
    /// Begins to connect. `number` decides which source address it has, where the
    /// target is this machine.
    pub(super) fn open(target: SocketAddr, number: usize) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Closed by a reset, so that no port stays taken for a minute afterwards.
        socket.set_linger(Some(Duration::ZERO))?;
        if target.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            socket.bind(&SocketAddr::from((source(number), 0)).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if !is_under_way(&error) => Err(error),
            _ => Ok(Self {
                stream: TcpStream::from_std(socket.into()),
                left: Vec::new(),
            }),
        }
    }

    /// How the attempt to connect has ended.
    pub(super) fn connected(&self) -> io::Result<()> {
        match self.stream.take_error()? {
            Some(error) => Err(error),
            None => self.stream.peer_addr().map(drop),
        }
    }

    /// Reads once.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut Buffer) -> io::Result<Came<'b>> {
        let start = self.left.len();
        if buffer.len() < start + READ_BYTES_MIN {
            buffer.resize(start + READ_BYTES_MIN, 0);
        }
        let (before, free) = buffer.split_at_mut(start);
        before.copy_from_slice(&self.left);
        let read = loop {
            match self.stream.read(free) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => Ok(Came::End),
            Ok(read) => Ok(Came::Bytes {
                is_full: read == free.len(),
                bytes: buffer.get(..start + read).unwrap_or_default(),
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Came::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Keeps the unfinished rest of what was read until the next time.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.left.clear();
        self.left.extend_from_slice(rest);
    }

    /// Writes as much as goes out at once; how much that is.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                written => return written,
            }
        }
    }

    /// Writes what is little enough to go out at once.
    pub(super) fn write_whole(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.write(bytes)? == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

fn source(number: usize) -> Ipv4Addr {
    let step = (number / CONNECTIONS_PER_ADDRESS) % SOURCES;
    let first = Ipv4Addr::from(FIRST_SOURCE);
    Ipv4Addr::from_bits(first.to_bits() + u32::try_from(step).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_change_before_their_ports_run_out() {
        for (number, address) in [
            (0, [127, 0, 0, 2]),
            (9_999, [127, 0, 0, 2]),
            (10_000, [127, 0, 0, 3]),
            (2_499_999, [127, 0, 0, 251]),
            (2_500_000, [127, 0, 0, 2]),
        ] {
            assert_eq!(source(number), Ipv4Addr::from(address), "{number}");
        }
    }
}
