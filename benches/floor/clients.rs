//! The WebSocket clients: their topics, their queued frames, and the writes.

use std::{
    io::IoSlice,
    mem,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
};

use rustix::io::{Errno, read, write, writev};
use sidewire_protocol::frame::{HEADER_BYTES_MAX, binary_header};

use crate::{
    counts::Counts,
    handshake::{self, Accepted},
    poll::{Poll, Source},
};

/// Maximum number of frames per write.
const FRAMES_PER_WRITE_MAX: usize = 64;

/// A frame, shared by all clients that receive it.
type Frame = Rc<[u8]>;

#[derive(Default)]
pub(crate) struct Clients {
    /// Clients by descriptor.
    clients: Vec<Option<Client>>,
    /// The descriptors of the clients, by topic number.
    topics: Vec<Vec<RawFd>>,
    /// Clients with frames to write and a socket that is not known to be full.
    dirty: Vec<RawFd>,
    /// Buffer in which a frame is assembled.
    scratch: Vec<u8>,
}

impl Clients {
    pub(crate) fn add(&mut self, socket: OwnedFd, poll: &Poll) {
        let fd = socket.as_raw_fd();
        poll.add(&socket, Source::Client(fd));
        *slot(&mut self.clients, index(fd)) = Some(Client::new(socket));
    }

    /// Reads the client's handshake; later input is discarded.
    pub(crate) fn read(&mut self, fd: RawFd, buffer: &mut [u8], counts: &mut Counts) {
        let Some(client) = slot(&mut self.clients, index(fd)) else {
            return;
        };
        counts.client_reads += 1;
        match read(&client.socket, &mut *buffer) {
            Ok(1..) if client.topic.is_some() => {}
            Ok(len @ 1..) => match client.shake_hands(&buffer[..len]) {
                Ok(Some(topic)) => slot(&mut self.topics, topic).push(fd),
                Ok(None) => {}
                Err(_gone) => self.remove(fd),
            },
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => self.remove(fd),
        }
    }

    /// Queues an envelope to the clients of a topic.
    pub(crate) fn publish(&mut self, topic: usize, envelope: &[u8]) {
        let fds = slot(&mut self.topics, topic);
        if fds.is_empty() {
            return;
        }
        let frame = frame(envelope, &mut self.scratch);
        for &fd in &*fds {
            let Some(client) = &mut self.clients[index(fd)] else {
                continue;
            };
            if client.pending.is_empty() {
                self.dirty.push(fd);
            }
            client.pending.push(Rc::clone(&frame));
        }
    }

    /// Returns true if some client can be written to at once.
    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Handles a socket that was full and has room again.
    pub(crate) fn unblock(&mut self, fd: RawFd, poll: &Poll) {
        if let Some(client) = slot(&mut self.clients, index(fd)) {
            poll.no_more_await_room(&client.socket, Source::Client(fd));
            self.dirty.push(fd);
        }
    }

    /// Makes one write to each client with queued frames.
    pub(crate) fn flush(&mut self, poll: &Poll, counts: &mut Counts) {
        let mut dirty = mem::take(&mut self.dirty);
        dirty.retain(|&fd| self.flush_one(fd, poll, counts));
        self.dirty = dirty;
    }

    /// Returns true if the client can take more at once.
    fn flush_one(&mut self, fd: RawFd, poll: &Poll, counts: &mut Counts) -> bool {
        // The client may be gone by now, and its descriptor reused.
        let Some(client) = slot(&mut self.clients, index(fd)) else {
            return false;
        };
        if client.pending.is_empty() {
            return false;
        }
        counts.client_writes += 1;
        match client.write(counts) {
            Ok(true) => !client.pending.is_empty(),
            Ok(false) => {
                poll.await_room(&client.socket, Source::Client(fd));
                false
            }
            Err(_gone) => {
                self.remove(fd);
                false
            }
        }
    }

    fn remove(&mut self, fd: RawFd) {
        let client = slot(&mut self.clients, index(fd)).take();
        if let Some(topic) = client.and_then(|client| client.topic) {
            let fds = slot(&mut self.topics, topic);
            let place = fds.iter().position(|&it| it == fd).unwrap();
            fds.swap_remove(place);
        }
    }
}

struct Client {
    socket: OwnedFd,
    /// Topic number, once the handshake is complete.
    topic: Option<usize>,
    /// Beginning of a handshake that arrived in parts.
    head: Vec<u8>,
    pending: Vec<Frame>,
    /// Bytes already written of the first queued frame.
    begun_bytes: usize,
}

impl Client {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            topic: None,
            head: Vec::new(),
            pending: Vec::new(),
            begun_bytes: 0,
        }
    }

    /// Returns the topic once the whole handshake has arrived.
    fn shake_hands(&mut self, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        let bytes = if self.head.is_empty() {
            bytes
        } else {
            self.head.extend_from_slice(bytes);
            &self.head
        };
        match handshake::answer(bytes) {
            Some(Accepted { topic, answer }) => {
                write(&self.socket, &answer)?;
                self.topic = Some(topic);
                self.head = Vec::new();
            }
            None if self.head.is_empty() => self.head = bytes.to_vec(),
            None => {}
        }
        Ok(self.topic)
    }

    /// Writes the queued frames, or as many as fit into one write. Returns true if the
    /// socket took all of that.
    fn write(&mut self, counts: &mut Counts) -> Result<bool, Errno> {
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE_MAX];
        let mut offered_bytes = 0;
        let mut skip_bytes = self.begun_bytes;
        for (slice, frame) in slices.iter_mut().zip(&self.pending) {
            let bytes = &frame[mem::take(&mut skip_bytes)..];
            *slice = IoSlice::new(bytes);
            offered_bytes += bytes.len();
        }
        let offered = self.pending.len().min(FRAMES_PER_WRITE_MAX);
        match writev(&self.socket, &slices[..offered]) {
            Ok(written_bytes) if written_bytes == offered_bytes => {
                self.forget(offered, counts);
                self.begun_bytes = 0;
                Ok(true)
            }
            Ok(written_bytes) => {
                self.forget_part(written_bytes, counts);
                Ok(false)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(gone) => Err(gone),
        }
    }

    /// Removes the first `frames` frames, which are written.
    fn forget(&mut self, frames: usize, counts: &mut Counts) {
        counts.frames += frames as u64;
        self.pending.drain(..frames);
    }

    fn forget_part(&mut self, written_bytes: usize, counts: &mut Counts) {
        self.begun_bytes += written_bytes;
        let mut frames = 0;
        while let Some(rest) = self.begun_bytes.checked_sub(self.pending[frames].len()) {
            self.begun_bytes = rest;
            frames += 1;
        }
        self.forget(frames, counts);
    }
}

/// Returns a server's binary frame.
fn frame(envelope: &[u8], scratch: &mut Vec<u8>) -> Frame {
    let (header, header_len) = binary_header(envelope.len());
    scratch.clear();
    scratch.extend_from_slice(&header[HEADER_BYTES_MAX - header_len..]);
    scratch.extend_from_slice(envelope);
    Rc::from(scratch.as_slice())
}

/// Returns a slot of a flat array, which grows as needed.
pub(crate) fn slot<T: Default>(array: &mut Vec<T>, index: usize) -> &mut T {
    if array.len() <= index {
        array.resize_with(index + 1, T::default);
    }
    &mut array[index]
}

pub(crate) fn index(fd: RawFd) -> usize {
    usize::try_from(fd).expect("descriptors are not negative")
}
