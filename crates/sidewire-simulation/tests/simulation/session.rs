//! A connection of a client: reads frames, acts, and records the end.

use std::{rc::Rc, time::Duration};

use prost::Message;
use sidewire_testing::websocket::{BINARY, CLOSE, Frame, PING, PONG, TEXT};
use tokio::time::{Instant, sleep_until};

use super::{
    client::SimulatedClient,
    events::{Serial, SimulatedEvent},
    messages::{WireEnvelope, WirePosition},
    pipe::LinkControl,
    record::{Confirmation, ConnectionEnd, FrameContent, ScarceResource},
    schemas::REVISIONS,
    socket::{ClientSocket, SocketRead},
    stage::StagePhase,
    topics::TopicBits,
};

/// Time within which a client that connects is served completely while nothing goes wrong.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// An open connection of a client.
pub(super) struct ClientSession<'a> {
    pub(super) client: &'a mut SimulatedClient,
    pub(super) socket: ClientSocket,
    pub(super) link: LinkControl,
    pub(super) connection: usize,
    pub(super) requests: usize,
    pub(super) stalled_until: Instant,
    /// Pause after each read.
    pub(super) pause: Duration,
    pub(super) next_act: Instant,
    pub(super) has_closed: bool,
    /// True once the client may have sent its presence.
    pub(super) has_shown: bool,
    pub(super) phase: StagePhase,
}

impl SimulatedClient {
    /// Checks that the envelope holds the posted event: completely, or as JSON shows it under some
    /// schemas. Returns the first and the last revision of these.
    fn shown_by(&self, serial: Serial, envelope: &WireEnvelope) -> Option<(usize, usize)> {
        let events = self.history.events.borrow();
        let posted = events[serial].envelope.event.as_ref().unwrap();
        let shown = envelope.event.as_ref().unwrap();
        if !self.speaks_json {
            assert_eq!(shown, posted, "an event has changed");
            return None;
        }
        let is_by = |revision: &usize| posted.under(*revision) == *shown;
        let first = (0..REVISIONS).find(is_by);
        let first = first.unwrap_or_else(|| panic!("{posted:?} is shown as {shown:?}"));
        let last = (0..REVISIONS).rev().find(is_by);
        self.note_size(&events[serial]);
        Some((first, last.unwrap_or(first)))
    }

    fn note_size(&self, event: &SimulatedEvent) {
        let (json, bytes) = (event.json_len(), event.envelope.encoded_len());
        let limit = self.world.relay.live().config.limits.outbox_bytes;
        let history = &self.history;
        for (what, occurs) in [
            (
                "an event with three times its bytes in JSON",
                json > bytes * 3,
            ),
            (
                "an event with twenty times its bytes in JSON",
                json > bytes * 20,
            ),
            ("an event whose JSON is larger than an outbox", json > limit),
        ] {
            if occurs {
                history.count(what);
            }
        }
    }
}

impl ClientSession<'_> {
    pub(super) async fn run(mut self) {
        for (topics, place) in self.client.known.reconnected() {
            self.subscribe(topics, Some(place));
        }
        if self.phase == StagePhase::Chaos && self.client.dice.percent(50) {
            self.stalled_until = Instant::now() + self.client.dice.millis(200..1500);
        }
        loop {
            let is_stalled = self.stalled_until > Instant::now();
            let stage = Rc::clone(&self.client.stage);
            tokio::select! {
                biased;
                () = stage.left(self.phase) => self.phase_changed(),
                () = sleep_until(self.next_act) => {
                    if self.perform_act() {
                        return;
                    }
                }
                () = sleep_until(self.stalled_until), if is_stalled => {}
                read = self.socket.next(is_stalled) => {
                    if self.has_read(read) {
                        return;
                    }
                }
            }
        }
    }

    fn phase_changed(&mut self) {
        self.link.release();
        self.stalled_until = Instant::now();
        self.pause = Duration::ZERO;
        self.phase = self.client.stage.phase();
        if self.phase == StagePhase::Over && !self.has_closed {
            let history = &self.client.history;
            let opened = history.connection(self.connection).opened.time;
            // One that has only just connected cannot have been served yet.
            let end = match history.now().time < opened + SETTLES_WITHIN {
                true => ConnectionEnd::Left,
                false => ConnectionEnd::Done,
            };
            history.record_end(self.connection, end);
            self.close(1000);
        }
    }

    /// Handles a read. Returns true if it was the last one.
    fn has_read(&mut self, read: SocketRead) -> bool {
        self.stalled_until = Instant::now() + self.pause;
        let (end, is_torn) = match read {
            SocketRead::Frame(frame) => {
                self.handle_frame(&frame);
                return false;
            }
            SocketRead::Part => return false,
            SocketRead::Ended { is_torn } => (ConnectionEnd::Ended { is_torn }, is_torn),
            SocketRead::Reset { is_torn } => (ConnectionEnd::Reset { is_torn }, is_torn),
        };
        let history = Rc::clone(&self.client.history);
        if is_torn && matches!(end, ConnectionEnd::Reset { .. }) {
            history.count("reset in mid-frame");
        }
        if history.connection(self.connection).end.is_none() {
            let end = if self.has_closed {
                ConnectionEnd::Closed
            } else {
                end
            };
            history.record_end(self.connection, end);
        }
        true
    }

    fn handle_frame(&mut self, frame: &Frame) {
        let said = match frame.opcode {
            TEXT if self.client.speaks_json => {
                self.frame_content(&WireEnvelope::from_json(&frame.payload))
            }
            BINARY if !self.client.speaks_json => {
                self.frame_content(&WireEnvelope::decode(&frame.payload[..]).expect("an envelope"))
            }
            CLOSE => self.closed_by_relay(&frame.payload),
            PING => {
                self.client.history.count("ping");
                self.send(PONG, &frame.payload);
                None
            }
            opcode => panic!("a frame with opcode {opcode}"),
        };
        if let Some(said) = said {
            let is_confirmation = matches!(said, FrameContent::Subscribed(_));
            self.client.history.record_frame(self.connection, said);
            if is_confirmation && self.client.known.is_answered() && !self.has_closed {
                self.show_presence_again();
            }
        }
    }

    fn frame_content(&mut self, envelope: &WireEnvelope) -> Option<FrameContent> {
        assert!(!envelope.message_id.is_empty() && envelope.timestamp != 0);
        assert!(envelope.topics.is_empty(), "field 18 is delivered");
        let known = &mut self.client.known;
        Some(match envelope {
            WireEnvelope { event: Some(_), .. } => {
                let place = envelope.position.as_ref().expect("a position").place();
                known.got(place);
                let (serial, tenant) = SimulatedEvent::recognise(envelope);
                let shown_by = self.client.shown_by(serial, envelope);
                FrameContent::Event {
                    serial,
                    tenant,
                    place,
                    shown_by,
                }
            }
            WireEnvelope {
                typing: Some(typing),
                ..
            } => {
                assert!(
                    envelope.position.is_none(),
                    "a client's event with a position"
                );
                FrameContent::Typing {
                    id: envelope.message_id.clone(),
                    typing: typing.clone(),
                }
            }
            WireEnvelope {
                presence: Some(presence),
                ..
            } => {
                assert!(envelope.position.is_none(), "presence with a position");
                FrameContent::Presence {
                    id: envelope.message_id.clone(),
                    presence: presence.clone(),
                }
            }
            WireEnvelope {
                subscribed: Some(topics),
                ..
            } if topics.request.is_empty() => FrameContent::Claimed(Confirmation(topics.clone())),
            WireEnvelope {
                subscribed: Some(topics),
                ..
            } => {
                let place = topics.position.as_ref().expect("a position").place();
                let (recovered, replayed) = (topics.recovered, topics.replayed);
                let lost = known.subscribed(&topics.request, place, recovered, replayed);
                self.client.claim(lost);
                FrameContent::Subscribed(Confirmation(topics.clone()))
            }
            WireEnvelope {
                unsubscribed: Some(topics),
                ..
            } if topics.request.is_empty() => {
                let revoked = topics.revoked();
                self.lose(revoked);
                FrameContent::Revoked(revoked)
            }
            WireEnvelope {
                unsubscribed: Some(topics),
                ..
            } => FrameContent::Unsubscribed(Confirmation(topics.clone())),
            WireEnvelope {
                authenticated: Some(said),
                ..
            } => {
                let revoked = TopicBits::of_distinct(&said.revoked_topics);
                self.lose(revoked);
                FrameContent::Authenticated {
                    request: said.request.clone(),
                    expires_at: said.expires_at,
                    revoked,
                }
            }
            WireEnvelope {
                pong: Some(pong), ..
            } => {
                let place = pong.position.as_ref().map(WirePosition::place);
                if let Some(place) = place {
                    known.stands_at(place);
                }
                FrameContent::Pong {
                    timestamp: pong.client_timestamp,
                    place,
                }
            }
            WireEnvelope {
                error: Some(error), ..
            } => {
                known.refused(&error.request);
                let is_limited = error.code == "RATE_LIMIT_EXCEEDED";
                let may_retry = is_limited || error.code == "INTERNAL_ERROR";
                assert_eq!(error.retry_after_ms.is_some_and(|it| it > 0), may_retry);
                FrameContent::Refused {
                    code: error.code.clone(),
                    request: error.request.clone(),
                    scarce: is_limited.then(|| match &error.message {
                        message if message.contains("may wait") => ScarceResource::Waiting,
                        message if message.contains("no memory") => ScarceResource::Memory,
                        message if message.contains("(presence.") => ScarceResource::Presence,
                        _ => ScarceResource::Rate,
                    }),
                }
            }
            other => panic!("a client is told {other:?}"),
        })
    }

    /// Notes that the client has lost subscriptions.
    fn lose(&mut self, topics: TopicBits) {
        let had = self.client.known.lost(topics);
        self.client.claim(had);
    }

    fn closed_by_relay(&mut self, payload: &[u8]) -> Option<FrameContent> {
        let (code, reason) = payload.split_first_chunk().expect("a code");
        let code = u16::from_be_bytes(*code);
        let reason = str::from_utf8(reason).unwrap().to_owned();
        if self.has_closed {
            return None;
        }
        self.close(code);
        Some(FrameContent::Close { code, reason })
    }

    pub(super) fn close(&mut self, code: u16) {
        self.has_closed = true;
        self.send(CLOSE, &code.to_be_bytes());
    }

    pub(super) fn send(&mut self, opcode: u8, payload: &[u8]) {
        let history = &self.client.history;
        let now = history.now().time;
        history.connection(self.connection).signs.push(now);
        self.socket.send(opcode, payload);
    }
}
