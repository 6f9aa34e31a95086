//! A client of the target: it connects, upgrades to a WebSocket, subscribes to its topic,
//! and then only reads, as fast as it can.

use std::{io, time::Instant};

use prost::Message as _;
use sidewire_client::{ControlMessage, Envelope};
use sidewire_protocol::{
    EnvelopeEncoding,
    frame::{BINARY, CLOSE, PING, PONG, TEXT, client_frame},
};

use super::{
    event::RunId,
    frames::{FrameWalker, ServerFrame},
    latency::LatencyHistograms,
    link::{ReadBuffer, ReadOutcome, TargetLink},
    tally::{DeliveryTally, DeliveryTrack},
};

/// The most headers of a handshake's answer, many more than it has.
const HEADERS_MAX: usize = 32;

/// A client and its connection.
#[derive(Debug)]
pub(super) struct BenchClient {
    pub(super) link: TargetLink,
    stage: ClientStage,
    track: DeliveryTrack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientStage {
    Connecting,
    Upgrading,
    Subscribing,
    Subscribed,
}

/// The bytes that a client sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientScript<'a> {
    pub(super) channel: usize,
    pub(super) handshake: &'a [u8],
    /// The Subscribe frame; `None` if the handshake names the topic.
    pub(super) subscribe: Option<&'a [u8]>,
}

/// The state that all clients share.
#[derive(Debug)]
pub(super) struct BenchState {
    pub(super) buffer: ReadBuffer,
    pub(super) tally: DeliveryTally,
    pub(super) latencies: LatencyHistograms,
    /// True while latencies are recorded.
    pub(super) is_measuring: bool,
    pub(super) run: RunId,
    /// The encoding of the received events.
    pub(super) encoding: EnvelopeEncoding,
    /// The offset in an event's JSON at which its message_id was last found.
    pub(super) id_at: usize,
    /// The size in bytes of the last received event, without the frame's header.
    pub(super) received_bytes: usize,
    /// The origin of all times.
    pub(super) epoch: Instant,
}

impl BenchState {
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Why a client failed to connect or was disconnected.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientFailure {
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

impl BenchClient {
    pub(super) fn new(link: TargetLink) -> Self {
        Self {
            link,
            stage: ClientStage::Connecting,
            track: DeliveryTrack::default(),
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.stage == ClientStage::Subscribed
    }

    pub(super) fn track(&self) -> &DeliveryTrack {
        &self.track
    }

    /// Continues when the socket is writable.
    pub(super) fn on_writable(&mut self, lines: ClientScript<'_>) -> Result<(), ClientFailure> {
        if self.stage == ClientStage::Connecting {
            self.link.check_connected()?;
            self.link.write_whole(lines.handshake)?;
            self.stage = ClientStage::Upgrading;
        }
        Ok(self.link.flush()?)
    }

    /// Reads what the socket has; with `to_the_end` until the connection ends.
    pub(super) fn on_readable(
        &mut self,
        lines: ClientScript<'_>,
        shared: &mut BenchState,
        to_the_end: bool,
    ) -> Result<(), ClientFailure> {
        loop {
            let mut buffer = std::mem::take(&mut shared.buffer);
            let came = self.link.read(&mut buffer);
            let outcome = self.handle_read(came, lines, shared);
            shared.buffer = buffer;
            let goes_on = outcome?;
            if !goes_on && !to_the_end {
                return Ok(());
            }
        }
    }

    /// Handles the result of a read. Returns true if there may be more to read.
    fn handle_read(
        &mut self,
        came: io::Result<ReadOutcome<'_>>,
        lines: ClientScript<'_>,
        shared: &mut BenchState,
    ) -> Result<bool, ClientFailure> {
        match came? {
            ReadOutcome::Bytes { bytes, is_full } => {
                let rest = self.handle_bytes(bytes, lines, shared)?;
                self.link.keep_rest(rest);
                Ok(is_full)
            }
            ReadOutcome::Nothing => Ok(false),
            ReadOutcome::End => Err(ClientFailure::Eof),
        }
    }

    fn handle_bytes<'b>(
        &mut self,
        mut bytes: &'b [u8],
        lines: ClientScript<'_>,
        shared: &mut BenchState,
    ) -> Result<&'b [u8], ClientFailure> {
        if self.stage == ClientStage::Upgrading {
            let Some(rest) = parse_upgrade(bytes)? else {
                return Ok(bytes);
            };
            bytes = rest;
            self.send_subscribe(lines, shared)?;
        }
        let mut frames = FrameWalker::new(bytes);
        let now_ns = shared.now_ns();
        let data = data_kind(shared.encoding);
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) if frame.kind == data && self.stage == ClientStage::Subscribed => {
                    self.record_event(frame.payload, now_ns, shared);
                }
                Ok(Some(frame)) => self.handle_other(frame, lines, shared)?,
                Ok(None) => return Ok(frames.rest()),
                Err(error) => return Err(ClientFailure::Protocol(error.to_string())),
            }
        }
    }

    #[inline]
    fn record_event(&mut self, envelope: &[u8], now_ns: u64, shared: &mut BenchState) {
        let number = shared
            .run
            .number_in(shared.encoding, envelope, &mut shared.id_at);
        let Some(number) = number else {
            return shared.tally.record_foreign();
        };
        shared.received_bytes = envelope.len();
        let delivery = shared.tally.record_delivery(&mut self.track, number);
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

    fn send_subscribe(
        &mut self,
        lines: ClientScript<'_>,
        shared: &mut BenchState,
    ) -> Result<(), ClientFailure> {
        match lines.subscribe {
            Some(frame) => {
                self.link.write_whole(frame)?;
                self.stage = ClientStage::Subscribing;
            }
            None => self.start_receiving(lines, shared),
        }
        Ok(())
    }

    fn start_receiving(&mut self, lines: ClientScript<'_>, shared: &mut BenchState) {
        self.stage = ClientStage::Subscribed;
        self.track = shared.tally.join_channel(lines.channel);
    }

    /// Handles a control frame, or a frame before the confirmation.
    #[cold]
    fn handle_other(
        &mut self,
        frame: ServerFrame<'_>,
        lines: ClientScript<'_>,
        shared: &mut BenchState,
    ) -> Result<(), ClientFailure> {
        match frame.kind {
            PING => Ok(self.link.write_whole(&client_frame(PONG, frame.payload))?),
            CLOSE => Err(close_failure(frame.payload)),
            PONG => Ok(()),
            _ => {
                let confirmed = match shared.encoding {
                    EnvelopeEncoding::Protobuf => is_confirmed(frame.payload)?,
                    EnvelopeEncoding::Json => is_confirmed_in_json(frame.payload)?,
                };
                if confirmed {
                    self.start_receiving(lines, shared);
                } else {
                    shared.tally.record_foreign();
                }
                Ok(())
            }
        }
    }
}

/// Returns the bytes after the answer to the handshake; `None` while that is incomplete.
fn parse_upgrade(bytes: &[u8]) -> Result<Option<&[u8]>, ClientFailure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response
        .parse(bytes)
        .map_err(|error| ClientFailure::Protocol(error.to_string()))?;
    let httparse::Status::Complete(head_bytes) = parsed else {
        return Ok(None);
    };
    let rest = bytes.get(head_bytes..).unwrap_or_default();
    match response.code {
        Some(101) => Ok(Some(rest)),
        code => Err(ClientFailure::Handshake(
            code.unwrap_or_default(),
            String::from_utf8_lossy(rest).into_owned(),
        )),
    }
}

/// Returns true for the confirmation. An event for the whole tenant may come first.
fn is_confirmed(envelope: &[u8]) -> Result<bool, ClientFailure> {
    match Envelope::decode(envelope).map(|envelope| envelope.control) {
        Ok(Some(ControlMessage::SubscriptionConfirmed(_))) => Ok(true),
        Ok(Some(ControlMessage::Error(error))) => Err(ClientFailure::Subscribe(
            error.error_code,
            error.error_message,
        )),
        Ok(None) => Ok(false),
        _ => Err(ClientFailure::Protocol(
            "it did not confirm the subscription".to_owned(),
        )),
    }
}

/// Returns true if the JSON is the confirmation.
fn is_confirmed_in_json(envelope: &[u8]) -> Result<bool, ClientFailure> {
    let envelope: serde_json::Value = serde_json::from_slice(envelope)
        .map_err(|error| ClientFailure::Protocol(error.to_string()))?;
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
    Err(ClientFailure::Subscribe(
        text("errorCode"),
        text("errorMessage"),
    ))
}

/// Returns the first byte of frames that carry envelopes.
pub(super) fn data_kind(encoding: EnvelopeEncoding) -> u8 {
    match encoding {
        EnvelopeEncoding::Protobuf => BINARY,
        EnvelopeEncoding::Json => TEXT,
    }
}

fn close_failure(payload: &[u8]) -> ClientFailure {
    match payload.split_first_chunk() {
        Some((code, reason)) => ClientFailure::Closed(
            u16::from_be_bytes(*code),
            String::from_utf8_lossy(reason).into_owned(),
        ),
        None => ClientFailure::Eof,
    }
}
