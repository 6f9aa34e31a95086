//! The publishers: one read takes their input, all complete requests in it are queued to
//! the clients, and one write answers them.

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use rustix::io::{Errno, read, write};

use crate::{
    clients::{Clients, index, slot},
    counts::Counts,
    http,
    poll::{Poll, Source},
    raw,
};

/// Protocol of the publishers.
#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    Raw,
    Http,
}

impl Protocol {
    fn first(self, bytes: &[u8]) -> Option<Published<'_>> {
        match self {
            Self::Raw => raw::published(bytes),
            Self::Http => http::published(bytes),
        }
    }

    fn answer(self) -> &'static [u8] {
        match self {
            Self::Raw => raw::ANSWER,
            Self::Http => http::ANSWER,
        }
    }
}

/// A message published in one request.
pub(crate) struct Published<'a> {
    pub(crate) topic: usize,
    pub(crate) envelope: &'a [u8],
    /// Bytes of the whole request.
    pub(crate) len: usize,
}

pub(crate) struct Publishers {
    protocol: Protocol,
    /// Publishers by descriptor.
    publishers: Vec<Option<Publisher>>,
    /// The answers to the requests of one read.
    answers: Vec<u8>,
}

struct Publisher {
    socket: OwnedFd,
    /// Beginning of a request that has not arrived completely.
    begun: Vec<u8>,
}

impl Publishers {
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            publishers: Vec::new(),
            answers: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, socket: OwnedFd, poll: &Poll) {
        let fd = socket.as_raw_fd();
        poll.add(&socket, Source::Publisher(fd));
        let begun = Vec::new();
        *slot(&mut self.publishers, index(fd)) = Some(Publisher { socket, begun });
    }

    pub(crate) fn read(
        &mut self,
        fd: RawFd,
        buffer: &mut [u8],
        clients: &mut Clients,
        counts: &mut Counts,
    ) {
        let place = slot(&mut self.publishers, index(fd));
        let Some(publisher) = place else {
            return;
        };
        counts.ingest_reads += 1;
        let len = match read(&publisher.socket, &mut *buffer) {
            Ok(len @ 1..) => len,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(0) | Err(_) => return *place = None,
        };
        self.answers.clear();
        publisher.take(&buffer[..len], self.protocol, clients, &mut self.answers);
        if !self.answers.is_empty() {
            counts.ingest_writes += 1;
            // A publisher that reads its answers so slowly that they do not fit is disconnected.
            if write(&publisher.socket, &self.answers) != Ok(self.answers.len()) {
                *place = None;
            }
        }
    }
}

impl Publisher {
    /// Queues complete requests and keeps the rest.
    fn take(
        &mut self,
        bytes: &[u8],
        protocol: Protocol,
        clients: &mut Clients,
        answers: &mut Vec<u8>,
    ) {
        let mut begun = mem::take(&mut self.begun);
        let mut rest = if begun.is_empty() {
            bytes
        } else {
            begun.extend_from_slice(bytes);
            &begun
        };
        while let Some(published) = protocol.first(rest) {
            clients.publish(published.topic, published.envelope);
            answers.extend_from_slice(protocol.answer());
            rest = &rest[published.len..];
        }
        self.begun = rest.to_vec();
    }
}
