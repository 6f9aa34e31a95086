//! The floor: a minimal server that forwards a publisher's messages to its WebSocket
//! clients. Sidewire's cost is reported as a multiple of the floor's cost in the same run;
//! `scripts/bench` starts both.
//! It knows no tenants, tokens, schemas, positions, bounds or deadlines, and trusts
//! It has no tenants, tokens, schemas, positions, bounds or deadlines, and trusts its
//! peers. It uses one thread, level-triggered epoll, and sockets in flat arrays. Messages
//! published in one wake-up are first queued to their clients, then each client gets one
//! `writev`; there is no other system call for a delivery.
//! `floor [--ingest raw|http]` prints where it listens as a line of JSON, and at
//! SIGTERM what it has counted as another. Whoever connects to `stats` gets the
//! latter as well.
//!
//! ```text
//!  publisher ──▶ publishers ─(raw, http)─▶ clients: topic ▶ pending ▶ writev ──▶ client
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark may fail loudly, and its result is what it prints"
)]

mod clients;
mod counts;
mod handshake;
mod http;
mod listen;
mod poll;
mod publishers;
mod raw;
mod stop;

use std::{env, io::Write, net::TcpListener, os::unix::net::UnixStream};

use crate::{
    clients::Clients,
    counts::Counts,
    listen::listen,
    poll::{Poll, Source},
    publishers::{Protocol, Publishers},
};

/// Maximum bytes of one read. One buffer serves all sockets.
const READ_BYTES_MAX: usize = 64 * 1024;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let protocol = match arguments[..] {
        [] | ["--ingest", "raw"] => Protocol::Raw,
        ["--ingest", "http"] => Protocol::Http,
        // `cargo bench` passes this to each benchmark.
        ["--bench"] => return eprintln!("the floor is a server; scripts/bench runs it"),
        _ => panic!("usage: floor [--ingest raw|http]"),
    };
    let stop = stop::at_sigterm();
    listen::raise_descriptor_limit();
    let mut floor = Floor::listen(protocol, stop);
    println!("{}", floor.addresses());
    floor.run();
    println!("{}", floor.counts.to_json());
}

struct Floor {
    poll: Poll,
    client_listener: TcpListener,
    ingest_listener: TcpListener,
    stats_listener: TcpListener,
    clients: Clients,
    publishers: Publishers,
    counts: Counts,
    /// Read buffer for all sockets.
    buffer: Vec<u8>,
    /// Its other end is closed when it is time to stop.
    _stop: UnixStream,
}

impl Floor {
    fn listen(protocol: Protocol, stop: UnixStream) -> Self {
        let poll = Poll::new();
        let [client_listener, ingest_listener, stats_listener] = [(); 3].map(|()| listen());
        poll.add(&client_listener, Source::ClientListener);
        poll.add(&ingest_listener, Source::IngestListener);
        poll.add(&stats_listener, Source::StatsListener);
        poll.add(&stop, Source::Stop);
        Self {
            poll,
            client_listener,
            ingest_listener,
            stats_listener,
            clients: Clients::default(),
            publishers: Publishers::new(protocol),
            counts: Counts::default(),
            buffer: vec![0; READ_BYTES_MAX],
            _stop: stop,
        }
    }

    fn addresses(&self) -> serde_json::Value {
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        serde_json::json!({
            "client": address(&self.client_listener),
            "ingest": address(&self.ingest_listener),
            "stats": address(&self.stats_listener),
        })
    }

    /// Serves until it is asked to stop.
    fn run(&mut self) {
        let mut ready = Vec::with_capacity(1024);
        loop {
            // More frames are queued than one write takes, so do not block.
            self.poll.wait(&mut ready, self.clients.has_dirty());
            self.counts.waits += 1;
            for (source, writable) in ready.drain(..).map(poll::source_of) {
                match source {
                    Source::Client(fd) if writable => self.clients.unblock(fd, &self.poll),
                    Source::Client(fd) => {
                        self.clients.read(fd, &mut self.buffer, &mut self.counts);
                    }
                    Source::Publisher(fd) => self.publishers.read(
                        fd,
                        &mut self.buffer,
                        &mut self.clients,
                        &mut self.counts,
                    ),
                    Source::ClientListener => self.accept_clients(),
                    Source::IngestListener => self.accept_publishers(),
                    Source::StatsListener => self.tell_counts(),
                    Source::Stop => return,
                }
            }
            self.clients.flush(&self.poll, &mut self.counts);
        }
    }

    fn accept_clients(&mut self) {
        while let Some(socket) = listen::accept(&self.client_listener) {
            self.counts.accepts += 1;
            self.clients.add(socket, &self.poll);
        }
    }

    fn accept_publishers(&mut self) {
        while let Some(socket) = listen::accept(&self.ingest_listener) {
            self.counts.accepts += 1;
            self.publishers.add(socket, &self.poll);
        }
    }

    fn tell_counts(&self) {
        if let Ok((mut stream, _)) = self.stats_listener.accept() {
            // A peer that has closed the connection does not need the answer.
            writeln!(stream, "{}", self.counts.to_json()).ok();
        }
    }
}
