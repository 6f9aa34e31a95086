//! A client of the target, from the first packet on: connects, asks for its
//! WebSocket and its topic, and then does nothing but read, as fast as it can.

use std::{io, time::Instant};

use prost::Message as _;

use super::{
    event::Run,
    frames::{BINARY, CLOSE, Frame, Frames, PING, PONG, TEXT, masked},
    latency::Latencies,
    link::{Buffer, Came, Link},
    tally::{Tally, Track},
};
use crate::{
    client::{Control, Envelope},
    protocol::Encoding,
};

/// Many more than an answer to a handshake has.
const HEADERS_MAX: usize = 32;

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) link: Link,
    stage: Stage,
    track: Track,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Upgrading,
    Subscribing,
    Subscribed,
}

/// What the client says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    pub(super) channel: usize,
    pub(super) handshake: &'a [u8],
    /// None where the handshake says it all.
    pub(super) subscribe: Option<&'a [u8]>,
}

/// What the clients share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) buffer: Buffer,
    pub(super) tally: Tally,
    pub(super) latencies: Latencies,
    /// Whether latencies are recorded now.
    pub(super) is_measuring: bool,
    pub(super) run: Run,
    /// How the clients get their events.
    pub(super) encoding: Encoding,
    /// Where in an event's JSON its message_id was found last.
    pub(super) id_at: usize,
    /// The bytes of the last event that a client received, without the frame's header.
    pub(super) received_bytes: usize,
    /// What times are counted from.
    pub(super) epoch: Instant,
}

impl Shared {
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Why a connection is none, or none any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the target closed it")]
    Eof,
    #[error("the target closed it with {0} {1}")]
    Closed(u16, String),
    #[error("the handshake was refused with {0}: {1}")]
    Handshake(u16, String),
    #[error("the subscription was refused with {0}: {1}")]
    Subscribe(String, String),
    #[error("it is not answered as a relay does: {0}")]
    Protocol(String),
    #[error("it was not subscribed within {0} s")]
    TimedOut(u64),
}

impl Client {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            stage: Stage::Connecting,
            track: Track::default(),
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.stage == Stage::Subscribed
    }

    pub(super) fn track(&self) -> &Track {
        &self.track
    }

    /// The socket can be written to.
    pub(super) fn on_writable(&mut self, lines: Lines<'_>) -> Result<(), Ended> {
        if self.stage == Stage::Connecting {
            self.link.connected()?;
            self.link.write_whole(lines.handshake)?;
            self.stage = Stage::Upgrading;
        }
        Ok(self.link.flush()?)
    }

    /// There is something to read, or, with `to_the_end`, there will not be more.
    pub(super) fn on_readable(
        &mut self,
        lines: Lines<'_>,
        shared: &mut Shared,
        to_the_end: bool,
    ) -> Result<(), Ended> {
        loop {
            let mut buffer = std::mem::take(&mut shared.buffer);
            let came = self.link.read(&mut buffer);
            let outcome = self.take(came, lines, shared);
            shared.buffer = buffer;
            let goes_on = outcome?;
            if !goes_on && !to_the_end {
                return Ok(());
            }
        }
    }

    /// Whether there may be more to read.
    fn take(
        &mut self,
        came: io::Result<Came<'_>>,
        lines: Lines<'_>,
        shared: &mut Shared,
    ) -> Result<bool, Ended> {
        match came? {
            Came::Bytes { bytes, is_full } => {
                let rest = self.take_bytes(bytes, lines, shared)?;
                self.link.keep(rest);
                Ok(is_full)
            }
            Came::Nothing => Ok(false),
            Came::End => Err(Ended::Eof),
        }
    }

    fn take_bytes<'b>(
        &mut self,
        mut bytes: &'b [u8],
        lines: Lines<'_>,
        shared: &mut Shared,
    ) -> Result<&'b [u8], Ended> {
        if self.stage == Stage::Upgrading {
            let Some(rest) = upgraded(bytes)? else {
                return Ok(bytes);
            };
            bytes = rest;
            self.ask(lines, shared)?;
        }
        let mut frames = Frames::new(bytes);
        let now_ns = shared.now_ns();
        let data = data_kind(shared.encoding);
        loop {
            match frames.next() {
                Ok(Some(frame)) if frame.kind == data && self.stage == Stage::Subscribed => {
                    self.take_event(frame.payload, now_ns, shared);
                }
                Ok(Some(frame)) => self.take_other(frame, lines, shared)?,
                Ok(None) => return Ok(frames.rest()),
                Err(error) => return Err(Ended::Protocol(error.to_string())),
            }
        }
    }

    #[inline]
    fn take_event(&mut self, envelope: &[u8], now_ns: u64, shared: &mut Shared) {
        let number = shared
            .run
            .number_in(shared.encoding, envelope, &mut shared.id_at);
        let Some(number) = number else {
            return shared.tally.foreign();
        };
        shared.received_bytes = envelope.len();
        let delivery = shared.tally.receive(&mut self.track, number);
        if let Some(delivery) = delivery
            && shared.is_measuring
        {
            let latency_ns = now_ns.saturating_sub(delivery.posted_ns);
            shared.latencies.each.saturating_record(latency_ns);
            if delivery.is_last {
                shared.latencies.last.saturating_record(latency_ns);
            }
        }
    }

    fn ask(&mut self, lines: Lines<'_>, shared: &mut Shared) -> Result<(), Ended> {
        match lines.subscribe {
            Some(frame) => {
                self.link.write_whole(frame)?;
                self.stage = Stage::Subscribing;
            }
            None => self.begin(lines, shared),
        }
        Ok(())
    }

    fn begin(&mut self, lines: Lines<'_>, shared: &mut Shared) {
        self.stage = Stage::Subscribed;
        self.track = shared.tally.join(lines.channel);
    }

    /// A control frame, or a frame before the confirmation.
    #[cold]
    fn take_other(
        &mut self,
        frame: Frame<'_>,
        lines: Lines<'_>,
        shared: &mut Shared,
    ) -> Result<(), Ended> {
        match frame.kind {
            PING => Ok(self.link.write_whole(&masked(PONG, frame.payload))?),
            CLOSE => Err(closed(frame.payload)),
            PONG => Ok(()),
            _ => {
                let confirmed = match shared.encoding {
                    Encoding::Protobuf => is_confirmed(frame.payload)?,
                    Encoding::Json => is_confirmed_in_json(frame.payload)?,
                };
                if confirmed {
                    self.begin(lines, shared);
                } else {
                    shared.tally.foreign();
                }
                Ok(())
            }
        }
    }
}

/// What follows the answer to the handshake, once that is there whole.
fn upgraded(bytes: &[u8]) -> Result<Option<&[u8]>, Ended> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(bytes)
        .map_err(|error| Ended::Protocol(error.to_string()))?;
    let httparse::Status::Complete(head_bytes) = parsed else {
        return Ok(None);
    };
    let rest = bytes.get(head_bytes..).unwrap_or_default();
    match response.code {
        Some(101) => Ok(Some(rest)),
        code => Err(Ended::Handshake(
            code.unwrap_or_default(),
            String::from_utf8_lossy(rest).into_owned(),
        )),
    }
}

/// Whether it is the confirmation. An event for the whole tenant may come first.
fn is_confirmed(envelope: &[u8]) -> Result<bool, Ended> {
    match Envelope::decode(envelope).map(|envelope| envelope.control) {
        Ok(Some(Control::SubscriptionConfirmed(_))) => Ok(true),
        Ok(Some(Control::Error(error))) => {
            Err(Ended::Subscribe(error.error_code, error.error_message))
        }
        Ok(None) => Ok(false),
        _ => Err(Ended::Protocol("no confirmation came".to_owned())),
    }
}

/// Whether the JSON is that of the confirmation.
fn is_confirmed_in_json(envelope: &[u8]) -> Result<bool, Ended> {
    let envelope: serde_json::Value =
        serde_json::from_slice(envelope).map_err(|error| Ended::Protocol(error.to_string()))?;
    if envelope.get("subscriptionConfirmed").is_some() {
        return Ok(true);
    }
    let Some(error) = envelope.get("error") else {
        return Ok(false);
    };
    let text = |name: &str| {
        let value = error.get(name).and_then(serde_json::Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    Err(Ended::Subscribe(text("errorCode"), text("errorMessage")))
}

/// The opcode of the frames that carry envelopes.
pub(super) fn data_kind(encoding: Encoding) -> u8 {
    match encoding {
        Encoding::Protobuf => BINARY,
        Encoding::Json => TEXT,
    }
}

fn closed(payload: &[u8]) -> Ended {
    match payload.split_first_chunk() {
        Some((code, reason)) => Ended::Closed(
            u16::from_be_bytes(*code),
            String::from_utf8_lossy(reason).into_owned(),
        ),
        None => Ended::Eof,
    }
}
