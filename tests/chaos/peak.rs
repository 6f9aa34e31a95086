//! Many calls at the same time whose bodies take much memory, and which then all end.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use sidewire_testing::relay::{INGEST_KEY, Relay};

use crate::{kernel::resident, site::files};

const MIB: u64 = 1024 * 1024;
const BODY_BYTES: usize = 8 * MIB as usize;
const BODIES: u64 = 48;

/// An allocator may return the memory mapped for the first large bodies but keep its grown
/// heap for the next ones.
const PEAKS: usize = 2;

/// Sending the bodies takes a while on a busy machine.
const PEAK_TIMEOUT: Duration = Duration::from_secs(60);

const LEFT_MAX: u64 = 64 * MIB;
const RETURN_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Starts a call with a body that lacks its last byte.
fn begin_call(ingest: SocketAddr, body: &[u8]) -> TcpStream {
    let mut call = TcpStream::connect(ingest).unwrap();
    call.set_write_timeout(Some(PEAK_TIMEOUT)).unwrap();
    let head = format!(
        "POST /v1/tenants/acme/events:batch HTTP/1.1\r\nHost: localhost\r\n\
         Authorization: Bearer {INGEST_KEY}\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: {BODY_BYTES}\r\n\r\n"
    );
    call.write_all(head.as_bytes()).unwrap();
    call.write_all(body).unwrap();
    call
}

/// Waits until the relay's resident memory satisfies `is_reached`. Returns how long that took.
fn wait_for_memory(relay: &Relay, timeout: Duration, is_reached: impl Fn(u64) -> bool) -> Duration {
    let began = Instant::now();
    loop {
        let now = resident(relay.process.id());
        if is_reached(now) {
            return began.elapsed();
        }
        let waited = began.elapsed();
        assert!(waited < timeout, "{} MiB after {waited:?}", now / MIB);
        sleep(LOOK_EVERY);
    }
}

#[test]
fn memory_is_returned_to_the_system_after_a_peak_of_large_bodies() {
    let relay = Relay::serve(files("", "memory_max = \"6GiB\"", ""));
    let at_start = resident(relay.process.id());
    let body = vec![b'x'; BODY_BYTES - 1];
    for peak in 1..=PEAKS {
        let calls: Vec<_> = (0..BODIES)
            .map(|_| begin_call(relay.ingest, &body))
            .collect();
        let at_peak = at_start + BODIES * (BODY_BYTES as u64 - MIB);
        wait_for_memory(&relay, PEAK_TIMEOUT, |now| now >= at_peak);
        drop(calls);
        let took = wait_for_memory(&relay, RETURN_TIMEOUT, |now| now <= at_start + LEFT_MAX);
        println!("peak {peak}: the memory was returned after {took:?}");
    }
}
