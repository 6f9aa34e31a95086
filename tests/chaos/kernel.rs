//! Kernel figures of a process and its sockets: resident memory, and the memory that each
//! socket takes.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
};

use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
/// NLM_F_REQUEST and NLM_F_DUMP.
const REQUEST_DUMP: u16 = 0x301;
const INET_DIAG_SKMEMINFO: u16 = 7;
const HEADER_BYTES: usize = 16;
/// The header is followed by `struct inet_diag_msg`, then by attributes.
const MESSAGE_BYTES: usize = HEADER_BYTES + 72;

/// Returns the resident memory of a process, in bytes.
pub(crate) fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().trim().strip_suffix(" kB").unwrap();
    resident.parse::<u64>().unwrap() * 1024
}

/// Returns the CPU time that a process has used, in seconds. The kernel counts it in hundredths.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Skip the name, which may hold anything; utime and stime are the 12th and 13th fields
    // after it.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.map(|it| it.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

/// Returns the kernel memory of each socket that a listener has accepted, in bytes,
/// including the listener's own (sock_diag(7)).
pub(crate) fn of_sockets(listener: SocketAddr) -> Vec<u64> {
    let protocol = Protocol::from(NETLINK_SOCK_DIAG);
    let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(protocol)).unwrap();
    socket.write_all(&request(listener.port())).unwrap();
    let mut sizes = Vec::new();
    let mut answer = vec![0; 64 * 1024];
    loop {
        let read = socket.read(&mut answer).unwrap();
        let mut rest = &answer[..read];
        while rest.len() >= HEADER_BYTES {
            let length = number_32(rest, 0) as usize;
            let (message, later) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
            match number_16(message, 4) {
                NLMSG_DONE => return sizes,
                NLMSG_ERROR => panic!("sock_diag: {message:?}"),
                _ => sizes.extend(size(message)),
            }
            rest = later;
        }
    }
}

/// Requests all TCP sockets over IPv4 with this local port, in any state.
fn request(port: u16) -> Vec<u8> {
    const REQUEST_BYTES: u32 = 72;
    let mut request = Vec::new();
    request.extend(REQUEST_BYTES.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    // Sequence number and port; the request cannot be confused with another.
    request.extend([0; 8]);
    // AF_INET, IPPROTO_TCP, the attributes wanted, padding.
    request.extend([2, 6, 1 << (INET_DIAG_SKMEMINFO - 1), 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(port.to_be_bytes());
    request.resize(REQUEST_BYTES as usize, 0);
    request
}

/// Returns the memory of one socket: received, queued to send, forward-allocated, options,
/// backlog.
fn size(message: &[u8]) -> Option<u64> {
    let mut attributes = message.get(MESSAGE_BYTES..)?;
    while attributes.len() >= 4 {
        let length = usize::from(number_16(attributes, 0));
        if number_16(attributes, 2) == INET_DIAG_SKMEMINFO {
            let part = |place: usize| u64::from(number_32(attributes, 4 + 4 * place));
            return Some([0, 4, 5, 6, 7].into_iter().map(part).sum());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn number_16(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn number_32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}
