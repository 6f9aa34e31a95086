//! A non-blocking connection, TCP or TLS over TCP. All connections read into one shared
//! buffer; each keeps only its unfinished rest.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mio::net::TcpStream;
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use sidewire_protocol::random::RandomSource;
use socket2::{Domain, Protocol, Socket, Type};

use super::target::TargetEndpoint;

/// Encrypted bytes per read: as many as rustls holds decrypted.
const ENCRYPTED_BYTES: usize = 16 * 1024;

/// The least free space for a read, in bytes.
const READ_BYTES_MIN: usize = 64 * 1024;

/// Number of connections per source address. An address has ports for many more, but the
/// kernel takes ever longer to find a free one, above all beside another generator.
const CONNECTIONS_PER_ADDRESS: usize = 2_000;

/// The source addresses of connections to loopback targets: 127.0.0.2 and following.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SOURCES: usize = 250;

/// The buffer that all connections read into.
pub(super) type ReadBuffer = Vec<u8>;

/// A connection and the unfinished rest of the bytes read from it.
#[derive(Debug)]
pub(super) struct TargetLink {
    pub(super) stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    left: Vec<u8>,
}

/// The result of a read.
#[derive(Debug)]
pub(super) enum ReadOutcome<'b> {
    /// The rest of the last read, followed by the new bytes.
    Bytes {
        bytes: &'b [u8],
        /// True if there may be more to read right away.
        is_full: bool,
    },
    Nothing,
    End,
}

impl TargetLink {
    /// Starts to connect. `number` selects the source address.
    pub(super) fn open(
        place: &TargetEndpoint,
        sources: SourceAddresses,
        number: usize,
    ) -> io::Result<Self> {
        let target = place.address;
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Close with a reset, so that no port stays in TIME_WAIT for a minute.
        socket.set_linger(Some(Duration::ZERO))?;
        if let Some(address) = sources.source_address(target, number) {
            socket.bind(&SocketAddr::from((address, 0)).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if !is_under_way(&error) => Err(error),
            _ => Ok(Self {
                stream: TcpStream::from_std(socket.into()),
                tls: place.tls.as_ref().map(tls_session).transpose()?,
                left: Vec::new(),
            }),
        }
    }

    /// Returns the outcome of the attempt to connect.
    pub(super) fn check_connected(&self) -> io::Result<()> {
        match self.stream.take_error()? {
            Some(error) => Err(error),
            None => self.stream.peer_addr().map(drop),
        }
    }

    /// Reads once.
    pub(super) fn read<'b>(&mut self, buffer: &'b mut ReadBuffer) -> io::Result<ReadOutcome<'b>> {
        let start = self.left.len();
        if buffer.len() < start + READ_BYTES_MIN {
            buffer.resize(start + READ_BYTES_MIN, 0);
        }
        let (before, free) = buffer.split_at_mut(start);
        before.copy_from_slice(&self.left);
        let read = match &mut self.tls {
            None => read_some(&mut self.stream, free),
            Some(tls) => read_encrypted(&mut self.stream, tls, free),
        };
        match read {
            Ok(0) => Ok(ReadOutcome::End),
            Ok(read) => Ok(ReadOutcome::Bytes {
                // Decrypted bytes may be read in several steps.
                is_full: read == free.len() || self.tls.is_some(),
                bytes: buffer.get(..start + read).unwrap_or_default(),
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ReadOutcome::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Keeps the unfinished rest of a read for the next one.
    pub(super) fn keep_rest(&mut self, rest: &[u8]) {
        self.left.clear();
        self.left.extend_from_slice(rest);
    }

    /// Writes as much as possible without waiting and returns the number of bytes. Encrypted
    /// bytes may wait for the next [flush](Self::flush).
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tls) = &mut self.tls {
            let taken = tls.writer().write(bytes)?;
            self.flush()?;
            return Ok(taken);
        }
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                written => return written,
            }
        }
    }

    /// Writes as many encrypted bytes as possible without waiting.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => flush_encrypted(&mut self.stream, tls),
            None => Ok(()),
        }
    }

    /// Writes bytes that are few enough to be written in one go.
    ///
    /// # Errors
    ///
    /// When not all of them could be written.
    pub(super) fn write_whole(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.write(bytes)? == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

fn tls_session(
    (config, host): &(Arc<ClientConfig>, ServerName<'static>),
) -> io::Result<Box<ClientConnection>> {
    ClientConnection::new(Arc::clone(config), host.clone())
        .map(Box::new)
        .map_err(io::Error::other)
}

fn read_some(stream: &mut TcpStream, free: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(free) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Reads decrypted bytes; fails with `WouldBlock` while there are none.
fn read_encrypted(
    stream: &mut TcpStream,
    tls: &mut ClientConnection,
    free: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.reader().read(free) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        // rustls itself would read only a few bytes at a time.
        let mut encrypted = [0; ENCRYPTED_BYTES];
        let read = read_some(stream, &mut encrypted)?;
        let mut encrypted = encrypted.get(..read).unwrap_or_default();
        loop {
            let taken = tls.read_tls(&mut encrypted)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            if taken == 0 || encrypted.is_empty() {
                break;
            }
        }
        flush_encrypted(stream, tls)?;
        if read == 0 {
            return Ok(0);
        }
    }
}

fn flush_encrypted(stream: &mut TcpStream, tls: &mut ClientConnection) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// The source addresses of the connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceAddresses {
    /// The index of the first one: random, so that two runs at a time use different ones.
    first: usize,
}

impl SourceAddresses {
    pub(super) fn new(random: &RandomSource) -> Self {
        let first = random.below(SOURCES as u64);
        Self {
            first: usize::try_from(first).unwrap_or_default(),
        }
    }

    /// Returns the source address of a connection; `None` to let the system choose.
    fn source_address(self, target: SocketAddr, number: usize) -> Option<Ipv4Addr> {
        let step = (self.first + number / CONNECTIONS_PER_ADDRESS) % SOURCES;
        let bits = FIRST_SOURCE.to_bits() + u32::try_from(step).unwrap_or_default();
        uses_many_source_addresses(target).then(|| Ipv4Addr::from_bits(bits))
    }
}

/// Returns true if connections to the target use several source addresses. On Linux
/// every machine has all addresses of 127.0.0.0/8.
pub(super) fn uses_many_source_addresses(target: SocketAddr) -> bool {
    cfg!(target_os = "linux") && matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn source_addresses_change_before_ports_run_out() {
        let here = SocketAddr::from(([127, 0, 0, 1], 80));
        let sources = SourceAddresses { first: 248 };
        for (number, last_byte) in [
            (0, 250),
            (1_999, 250),
            (2_000, 251),
            (4_000, 2),
            (499_999, 249),
            (500_000, 250),
        ] {
            let address = Ipv4Addr::new(127, 0, 0, last_byte);
            assert_eq!(
                sources.source_address(here, number),
                Some(address),
                "{number}"
            );
        }
    }

    #[test]
    fn the_system_chooses_the_source_address_for_another_machine() {
        let sources = SourceAddresses::new(&RandomSource::from_seed(1));
        for target in ["192.0.2.1:80", "[::1]:80"] {
            assert_eq!(sources.source_address(target.parse().unwrap(), 0), None);
        }
    }
}
