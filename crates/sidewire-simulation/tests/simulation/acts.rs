//! The actions of a client on a connection, many of them disruptive.

use tokio::{
    task::spawn_local,
    time::{Instant, sleep},
};

use std::time::Duration;

use prost::Message;
use sidewire_testing::websocket::{BINARY, TEXT};

use super::{
    client_messages::{WirePresence, WireTyping},
    messages::{CommentDeleted, EventPlace, WireEnvelope, WirePing, WirePosition, WireTopics},
    pipe::{LinkKind, link},
    record::{ConnectionEnd, RequestKind, SentRequest},
    session::ClientSession,
    socket::ClientSocket,
    stage::StagePhase,
    topics::TopicBits,
};

impl ClientSession<'_> {
    /// Performs a random action. Returns true if it ended the connection.
    pub(super) fn perform_act(&mut self) -> bool {
        if self.phase != StagePhase::Chaos || self.has_closed {
            self.next_act = Instant::now() + Duration::from_hours(1);
            return false;
        }
        if self.client.is_restless {
            self.next_act = Instant::now() + self.client.dice.millis(5..50);
            if self.client.should_flee() {
                self.client
                    .history
                    .record_end(self.connection, ConnectionEnd::Left);
                return true;
            }
            if self.client.dice.percent(90) {
                return false;
            }
        } else {
            self.next_act = Instant::now() + self.client.dice.millis(10..1500);
        }
        let dice = &self.client.dice;
        match dice.weighted(&[30, 10, 12, 8, 10, 6, 2, 4, 4, 18, 14, 18, 10]) {
            0 => self.subscribe_to_some(),
            1 => self.resume_from_anywhere(TopicBits::drawn(dice, dice.below(4))),
            2 => self.unsubscribe(TopicBits::drawn(dice, dice.within(1..4))),
            3 => self.ping(),
            4 => self.stalled_until = Instant::now() + dice.millis(100..5000),
            5 => self.partition(),
            6 => self.burst(),
            7 => self.ask_for_too_much(),
            8 => self.send_events(),
            9 => return self.leave(),
            10 => self.type_to_others(),
            11 => self.show_presence(),
            _ => self.renew_token(),
        }
        false
    }

    pub(super) fn request(&mut self, envelope: WireEnvelope, what: RequestKind) {
        let history = &self.client.history;
        let sent = SentRequest {
            id: envelope.message_id.clone(),
            sent: history.now(),
            what,
        };
        history.connection(self.connection).sent.push(sent);
        if self.client.speaks_json {
            let json = envelope.to_client_json().to_string();
            self.send(TEXT, json.as_bytes());
        } else if let Some(forged) = self.forged_bytes(&envelope) {
            self.send(BINARY, &forged);
        } else {
            self.send(BINARY, &envelope.encode_to_vec());
        }
    }

    pub(super) fn next_id(&mut self) -> String {
        self.requests += 1;
        format!("{}.{}", self.connection, self.requests)
    }

    pub(super) fn subscribe(&mut self, topics: TopicBits, resume_from: Option<EventPlace>) {
        let message_id = self.next_id();
        let known = &mut self.client.known;
        known.subscribing(&message_id, topics, resume_from);
        let mut asked = WireTopics::drawn(topics, &self.client.dice);
        asked.position = resume_from.map(Into::into);
        let envelope = WireEnvelope {
            message_id,
            subscribe: Some(asked.clone()),
            ..WireEnvelope::default()
        };
        self.request(envelope, RequestKind::Subscribe(asked));
    }

    pub(super) fn subscribe_to_some(&mut self) {
        let dice = &self.client.dice;
        self.subscribe(TopicBits::drawn(dice, dice.below(4)), None);
    }

    /// Resumes from a random position, which the client may never have had.
    pub(super) fn resume_from_anywhere(&mut self, topics: TopicBits) {
        let dice = &self.client.dice;
        let known = self.client.known.groups.first().map(|group| group.at);
        let Some(mut place) = known else {
            return self.subscribe(topics, None);
        };
        match dice.below(6) {
            0 => place.epoch ^= 1,
            1 => place.offset += 1_000_000,
            2 => place.offset = 0,
            _ => place.offset = place.offset.saturating_sub(dice.below(60) as u64),
        }
        self.subscribe(topics, Some(place));
    }

    fn unsubscribe(&mut self, topics: TopicBits) {
        let had = self.client.known.unsubscribing(topics);
        self.client.claim(had);
        let asked = WireTopics::drawn(topics, &self.client.dice);
        let envelope = WireEnvelope {
            message_id: self.next_id(),
            unsubscribe: Some(asked.clone()),
            ..WireEnvelope::default()
        };
        self.request(envelope, RequestKind::Unsubscribe(asked));
    }

    fn ping(&mut self) {
        let timestamp = self.client.dice.below(1_000_000) as i64;
        let envelope = WireEnvelope {
            message_id: self.next_id(),
            ping: Some(WirePing {
                timestamp,
                ..WirePing::default()
            }),
            ..WireEnvelope::default()
        };
        self.request(envelope, RequestKind::Ping(timestamp));
    }

    /// Holds up the link in both directions for a while.
    fn partition(&mut self) {
        self.link.hold();
        let history = &self.client.history;
        history.connection(self.connection).is_held = true;
        let (link, pause) = (self.link.clone(), self.client.dice.millis(100..4000));
        spawn_local(async move {
            sleep(pause).await;
            link.release();
        });
    }

    /// Sends more requests at once than may wait for a replay.
    fn burst(&mut self) {
        let dice = &self.client.dice;
        self.resume_from_anywhere(TopicBits::drawn(dice, dice.below(4)));
        for _ in 0..self.client.dice.within(2..24) {
            let dice = &self.client.dice;
            match dice.below(3) {
                0 => self.subscribe(TopicBits::drawn(dice, dice.below(3)), None),
                1 => self.unsubscribe(TopicBits::drawn(dice, 1)),
                _ => self.ping(),
            }
        }
    }

    /// Sends several events, which only backends may send.
    fn send_events(&mut self) {
        for _ in 0..self.client.dice.within(1..6) {
            let envelope = WireEnvelope {
                message_id: self.next_id(),
                event: Some(CommentDeleted::default()),
                ..WireEnvelope::default()
            };
            self.request(envelope, RequestKind::Event);
        }
    }

    /// Sends several events to other clients.
    fn type_to_others(&mut self) {
        for _ in 0..self.client.dice.within(1..5) {
            let topics = self.client.known.subscribed_topics();
            let typing = WireTyping::drawn(topics, &self.client.dice);
            let envelope = WireEnvelope {
                message_id: self.next_id(),
                typing: Some(typing.clone()),
                position: self.forged_position(),
                ..WireEnvelope::default()
            };
            self.request(envelope, RequestKind::Typing(typing));
        }
    }

    /// Sends a presence message, mostly followed by a Ping, whose answer says that it was taken.
    fn show_presence(&mut self) {
        self.has_shown = true;
        let topics = self.client.known.subscribed_topics();
        let presence = WirePresence::drawn(topics, &self.client.dice);
        let envelope = WireEnvelope {
            message_id: self.next_id(),
            presence: Some(presence.clone()),
            position: self.forged_position(),
            ..WireEnvelope::default()
        };
        self.request(envelope, RequestKind::Presence(presence));
        if self.client.dice.percent(70) {
            self.ping();
        }
    }

    /// Shows the client's presence when its subscriptions are confirmed after a reconnect, as many
    /// clients do.
    pub(super) fn show_presence_again(&mut self) {
        if !self.has_shown && self.phase != StagePhase::Drain && self.client.dice.percent(60) {
            self.show_presence();
        }
        self.has_shown = true;
    }

    /// A position, which only the relay may set.
    fn forged_position(&self) -> Option<WirePosition> {
        self.client.dice.percent(20).then(WirePosition::default)
    }

    /// Returns some of the client events with a second sender in the payload, and a field that the
    /// schema does not know.
    fn forged_bytes(&self, envelope: &WireEnvelope) -> Option<Vec<u8>> {
        let (number, payload) = match envelope {
            WireEnvelope {
                typing: Some(typing),
                ..
            } => (45, typing.encode_to_vec()),
            WireEnvelope {
                presence: Some(presence),
                ..
            } => (7, presence.encode_to_vec()),
            _ => return None,
        };
        if !self.client.dice.percent(30) {
            return None;
        }
        let forged = WirePresence {
            user: "u2".to_owned(),
            ..WirePresence::default()
        };
        let payload = [payload, forged.encode_to_vec()].concat();
        let bare = WireEnvelope {
            typing: None,
            presence: None,
            topics: vec!["project:p0".to_owned()],
            ..envelope.clone()
        };
        let mut bytes = bare.encode_to_vec();
        prost::encoding::bytes::encode(number, &payload, &mut bytes);
        prost::encoding::uint32::encode(2_000, &7, &mut bytes);
        Some(bytes)
    }

    /// Subscribes to allowed topics and one that no client may subscribe to.
    fn ask_for_too_much(&mut self) {
        let dice = &self.client.dice;
        let refused = *dice.pick(&["tenant:*", "user:u1", "user:*", "nothing"]);
        let mut asked = WireTopics::drawn(TopicBits::drawn(dice, 2), dice);
        asked.topics.push(refused.to_owned());
        let envelope = WireEnvelope {
            message_id: self.next_id(),
            subscribe: Some(asked.clone()),
            ..WireEnvelope::default()
        };
        self.request(envelope, RequestKind::Subscribe(asked));
    }

    /// Ends the connection in a random way. Returns true if it is over at once.
    fn leave(&mut self) -> bool {
        let client = &self.client;
        match client.dice.weighted(&[20, 50, 15, 15]) {
            0 => {
                client
                    .history
                    .record_end(self.connection, ConnectionEnd::Left);
                self.close(1000);
                return false;
            }
            1 => {
                // Data in flight arrives up to some byte, mostly within a frame.
                let under_way = self.link.bytes_back();
                self.link.cut(client.dice.below(under_way + 1));
                self.stalled_until = Instant::now();
                client.history.connection(self.connection).is_cut = true;
                return false;
            }
            2 => {
                client
                    .history
                    .record_end(self.connection, ConnectionEnd::Left);
                self.vanish();
            }
            _ => client
                .history
                .record_end(self.connection, ConnectionEnd::Left),
        }
        true
    }

    /// Disappears silently; the relay's kernel notices after a while.
    fn vanish(&mut self) {
        let (wire, _, link) = link(LinkKind::drawn(&self.client.dice, self.client.is_restless));
        drop(link);
        let socket = std::mem::replace(&mut self.socket, ClientSocket::new(wire, 1));
        let (link, pause) = (self.link.clone(), self.client.dice.millis(1000..15_000));
        spawn_local(async move {
            sleep(pause).await;
            link.cut(0);
            drop(socket);
        });
    }
}
