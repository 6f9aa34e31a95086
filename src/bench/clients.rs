//! A client of the target: it connects, upgrades to a WebSocket, subscribes to its topic,
//! and then only reads, as fast as it can.

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

/// The most headers of a handshake's answer, many more than it has.
const HEADERS_MAX: usize = 32;

/// A client and its connection.
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

/// The bytes that a client sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    pub(super) channel: usize,
    pub(super) handshake: &'a [u8],
    /// The Subscribe frame; `None` if the handshake names the topic.
    pub(super) subscribe: Option<&'a [u8]>,
}

/// The state that all clients share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) buffer: Buffer,
    pub(super) tally: Tally,
    pub(super) latencies: Latencies,
    /// True while latencies are recorded.
    pub(super) is_measuring: bool,
    pub(super) run: Run,
    /// The encoding of the received events.
    pub(super) encoding: Encoding,
    /// The offset in an event's JSON at which its message_id was last found.
    pub(super) id_at: usize,
    /// The size in bytes of the last received event, without the frame's header.
    pub(super) received_bytes: usize,
    /// The origin of all times.
    pub(super) epoch: Instant,
}

impl Shared {
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Why a client failed to connect or was disconnected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the target closed the connection")]
    Eof,
    #[error("the target closed the connection with {0} {1}")]
    Closed(u16, String),
    #[error("the handshake was refused with {0}: {1}")]
    Handshake(u16, String),
    #[error("the subscription was refused with {0}: {1}")]
    Subscribe(String, String),
    #[error("the target does not answer as a relay does: {0}")]
    Protocol(String),
    #[error("the client was not subscribed within {0} s")]
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

    /// Continues when the socket is writable.
    pub(super) fn on_writable(&mut self, lines: Lines<'_>) -> Result<(), Ended> {
        if self.stage == Stage::Connecting {
            self.link.connected()?;
            self.link.write_whole(lines.handshake)?;
            self.stage = Stage::Upgrading;
        }
        Ok(self.link.flush()?)
    }

    /// Reads what the socket has; with `to_the_end` until the connection ends.
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

    /// Handles the result of a read. Returns true if there may be more to read.
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

    /// Handles a control frame, or a frame before the confirmation.
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

/// Returns the bytes after the answer to the handshake; `None` while that is incomplete.
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

/// Returns true for the confirmation. An event for the whole tenant may come first.
fn is_confirmed(envelope: &[u8]) -> Result<bool, Ended> {
    match Envelope::decode(envelope).map(|envelope| envelope.control) {
        Ok(Some(Control::SubscriptionConfirmed(_))) => Ok(true),
        Ok(Some(Control::Error(error))) => {
            Err(Ended::Subscribe(error.error_code, error.error_message))
        }
        Ok(None) => Ok(false),
        _ => Err(Ended::Protocol(
            "it did not confirm the subscription".to_owned(),
        )),
    }
}

/// Returns true if the JSON is the confirmation.
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

/// Returns the first byte of frames that carry envelopes.
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
