//! An in-memory network: pipes with limited capacity and latency, which can be held up and break
//! at any byte.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use sidewire::connection::Transport;

use super::dice::Dice;

/// The properties of a link, in both directions.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkKind {
    /// Maximum number of bytes in flight.
    pub(super) room_bytes: usize,
    pub(super) latency: Duration,
    /// Maximum number of bytes of a write.
    pub(super) piece_bytes: usize,
}

impl LinkKind {
    /// Draws a kind of link, which `is_prompt` if it must have no latency.
    pub(super) fn drawn(dice: &Dice, is_prompt: bool) -> Self {
        Self {
            room_bytes: *dice.pick(&[150, 600, 4_000, 64 * 1024]),
            latency: match dice.percent(50) || is_prompt {
                true => Duration::ZERO,
                false => dice.millis(1..60),
            },
            piece_bytes: *dice.pick(&[7, 100, 64 * 1024, 64 * 1024]),
        }
    }
}

/// A direction of a link.
#[derive(Debug)]
struct PipeState {
    kind: LinkKind,
    /// The data in flight, with its times of arrival.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// True while nothing arrives.
    is_held: bool,
    end: Option<PipeEnd>,
    is_reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PipeEnd {
    /// The stream ends after the last byte.
    Finished,
    Reset,
}

type SharedPipe = Arc<Mutex<PipeState>>;

/// An end of a link.
#[derive(Debug)]
pub(super) struct PipeStream {
    incoming: SharedPipe,
    outgoing: SharedPipe,
    arrival: Option<Pin<Box<Sleep>>>,
}

/// A handle for disturbing a link.
#[derive(Debug, Clone)]
pub(super) struct LinkControl([SharedPipe; 2]);

/// Creates a link. Returns its two ends and its handle.
pub(super) fn link(kind: LinkKind) -> (PipeStream, PipeStream, LinkControl) {
    let [there, back] = [(); 2].map(|()| PipeState::new(kind));
    let wire = |incoming: &SharedPipe, outgoing: &SharedPipe| PipeStream {
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        arrival: None,
    };
    let (ours, theirs) = (wire(&back, &there), wire(&there, &back));
    (ours, theirs, LinkControl([there, back]))
}

impl LinkControl {
    /// Holds up both directions, without any error at the ends.
    pub(super) fn hold(&self) {
        for pipe in &self.0 {
            lock(pipe).is_held = true;
        }
    }

    /// Lets the data arrive that was held up.
    pub(super) fn release(&self) {
        for pipe in &self.0 {
            let mut pipe = lock(pipe);
            pipe.is_held = false;
            pipe.wake_reader();
        }
    }

    /// Breaks the link. Of the data in flight to the end that opened it, `still_arriving` bytes
    /// still arrive; in the other direction, none.
    pub(super) fn cut(&self, still_arriving: usize) {
        let [there, back] = &self.0;
        lock(there).reset(0);
        lock(back).reset(still_arriving);
    }

    /// Returns the number of bytes in flight to the end that opened it.
    pub(super) fn bytes_back(&self) -> usize {
        lock(&self.0[1]).bytes
    }
}

fn lock(pipe: &SharedPipe) -> MutexGuard<'_, PipeState> {
    pipe.lock().unwrap()
}

impl PipeState {
    fn new(kind: LinkKind) -> SharedPipe {
        Arc::new(Mutex::new(Self {
            kind,
            pieces: VecDeque::new(),
            bytes: 0,
            is_held: false,
            end: None,
            is_reader_gone: false,
            reader: None,
            writer: None,
        }))
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    fn reset(&mut self, keep: usize) {
        if self.end == Some(PipeEnd::Reset) {
            return;
        }
        self.is_held = false;
        self.end = Some(PipeEnd::Reset);
        self.bytes = self.bytes.min(keep);
        let mut room = keep;
        for (_, piece) in &mut self.pieces {
            piece.truncate(room);
            room -= piece.len();
        }
        self.pieces.retain(|(_, piece)| !piece.is_empty());
        self.wake_reader();
        self.wake_writer();
    }

    /// Returns the number of bytes that have arrived.
    fn arrived(&self) -> usize {
        if self.is_held {
            return 0;
        }
        let now = Instant::now();
        let arrived = self.pieces.iter().take_while(|(at, _)| *at <= now);
        arrived.map(|(_, piece)| piece.len()).sum()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_reader_gone || self.end == Some(PipeEnd::Reset) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let room = self.kind.room_bytes - self.bytes;
        let taken = bytes.len().min(room).min(self.kind.piece_bytes);
        if taken > 0 {
            let soon = Instant::now() + self.kind.latency;
            let arrives = self.pieces.back().map_or(soon, |(last, _)| soon.max(*last));
            self.pieces.push_back((arrives, bytes[..taken].to_vec()));
            self.bytes += taken;
            self.wake_reader();
        }
        Ok(taken)
    }

    /// Reads the bytes or the end that have arrived, or returns when the next bytes arrive.
    fn take(&mut self, buffer: &mut ReadBuf<'_>) -> TakenBytes {
        if self.is_held {
            return TakenBytes::NotYet(None);
        }
        match self.pieces.front_mut() {
            Some((at, _)) if *at > Instant::now() => TakenBytes::NotYet(Some(*at)),
            Some((_, piece)) => {
                let taken = piece.len().min(buffer.remaining());
                buffer.put_slice(&piece[..taken]);
                piece.drain(..taken);
                self.bytes -= taken;
                if piece.is_empty() {
                    self.pieces.pop_front();
                }
                self.wake_writer();
                TakenBytes::Read(Ok(()))
            }
            None => match self.end {
                Some(PipeEnd::Finished) => TakenBytes::Read(Ok(())),
                Some(PipeEnd::Reset) => {
                    TakenBytes::Read(Err(io::ErrorKind::ConnectionReset.into()))
                }
                None => TakenBytes::NotYet(None),
            },
        }
    }
}

enum TakenBytes {
    Read(io::Result<()>),
    /// Nothing has arrived. Contains the time of the next arrival, if known.
    NotYet(Option<Instant>),
}

impl PipeStream {
    fn poll_arrival(&mut self, context: &mut Context<'_>, at: Instant) -> bool {
        let arrival = self
            .arrival
            .get_or_insert_with(|| Box::pin(sleep_until(at)));
        arrival.as_mut().reset(at);
        arrival.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for PipeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut incoming = lock(&self.incoming);
            let next = match incoming.take(buffer) {
                TakenBytes::Read(read) => return Poll::Ready(read),
                TakenBytes::NotYet(next) => next,
            };
            incoming.reader = Some(context.waker().clone());
            drop(incoming);
            let arrived = next.is_some_and(|at| self.poll_arrival(context, at));
            if !arrived {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for PipeStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut outgoing = lock(&self.outgoing);
        match outgoing.put(bytes) {
            Ok(0) if !bytes.is_empty() => {
                outgoing.writer = Some(context.waker().clone());
                Poll::Pending
            }
            taken => Poll::Ready(taken),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = slices.iter().flat_map(|it| it.iter().copied()).collect();
        self.poll_write(context, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = lock(&self.outgoing);
        outgoing.end.get_or_insert(PipeEnd::Finished);
        outgoing.wake_reader();
        Poll::Ready(Ok(()))
    }
}

impl Transport for PipeStream {
    /// Resets both directions and drops the data in flight.
    fn reset(&self) {
        let mut outgoing = lock(&self.outgoing);
        let arrived = outgoing.arrived();
        outgoing.reset(arrived);
        drop(outgoing);
        lock(&self.incoming).reset(0);
    }
}

impl Drop for PipeStream {
    /// Closes as a kernel does: if there is unread data, the other end is reset.
    fn drop(&mut self) {
        let mut incoming = lock(&self.incoming);
        let is_unread = incoming.bytes > 0;
        incoming.is_reader_gone = true;
        incoming.wake_writer();
        drop(incoming);
        if is_unread {
            self.reset();
        } else {
            let mut outgoing = lock(&self.outgoing);
            outgoing.end.get_or_insert(PipeEnd::Finished);
            outgoing.wake_reader();
        }
    }
}
