//! The actions of a client on a connection, many of them disruptive.

use tokio::{
    task::spawn_local,
    time::{Instant, sleep},
};

use std::time::Duration;

use prost::Message;

use super::{
    history::{Asked, End, Request},
    messages::{CommentDeleted, Envelope, Ping, Place, Topics},
    pipe::link,
    session::Session,
    socket::{BINARY, Socket, TEXT},
    stage::Phase,
    topics::TopicSet,
};

impl Session<'_> {
    /// Performs a random action. Returns true if it ended the connection.
    pub(super) fn act(&mut self) -> bool {
        if self.phase != Phase::Chaos || self.has_closed {
            self.next_act = Instant::now() + Duration::from_hours(1);
            return false;
        }
        if self.client.is_restless {
            self.next_act = Instant::now() + self.client.dice.millis(5..80);
            if self.client.is_to_flee() {
                self.client.history.end(self.connection, End::Left);
                return true;
            }
            if self.client.dice.percent(90) {
                return false;
            }
        } else {
            self.next_act = Instant::now() + self.client.dice.millis(10..1500);
        }
        let dice = &self.client.dice;
        match dice.weighted(&[30, 10, 12, 8, 10, 6, 2, 4, 4, 18]) {
            0 => self.subscribe(TopicSet::drawn(dice, dice.below(4)), None),
            1 => self.resume_from_anywhere(),
            2 => self.unsubscribe(TopicSet::drawn(dice, dice.within(1..4))),
            3 => self.ping(),
            4 => self.stalled_until = Instant::now() + dice.millis(100..5000),
            5 => self.partition(),
            6 => self.burst(),
            7 => self.ask_for_too_much(),
            8 => self.send_events(),
            _ => return self.leave(),
        }
        false
    }

    fn request(&mut self, envelope: Envelope, what: Asked) {
        let history = &self.client.history;
        let sent = Request {
            id: envelope.message_id.clone(),
            sent: history.now(),
            what,
        };
        history.connection(self.connection).sent.push(sent);
        if self.client.speaks_json {
            let json = envelope.to_client_json().to_string();
            self.send(TEXT, json.as_bytes());
        } else {
            self.send(BINARY, &envelope.encode_to_vec());
        }
    }

    fn next_id(&mut self) -> String {
        self.requests += 1;
        format!("{}.{}", self.connection, self.requests)
    }

    pub(super) fn subscribe(&mut self, topics: TopicSet, resume_from: Option<Place>) {
        let message_id = self.next_id();
        let known = &mut self.client.known;
        known.subscribing(&message_id, topics, resume_from);
        let mut asked = Topics::drawn(topics, &self.client.dice);
        asked.position = resume_from.map(Into::into);
        let envelope = Envelope {
            message_id,
            subscribe: Some(asked.clone()),
            ..Envelope::default()
        };
        self.request(envelope, Asked::Subscribe(asked));
    }

    /// Resumes from a random position, which the client may never have had.
    fn resume_from_anywhere(&mut self) {
        let dice = &self.client.dice;
        let topics = TopicSet::drawn(dice, dice.below(4));
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

    fn unsubscribe(&mut self, topics: TopicSet) {
        let had = self.client.known.unsubscribing(topics);
        self.client.claim(had);
        let asked = Topics::drawn(topics, &self.client.dice);
        let envelope = Envelope {
            message_id: self.next_id(),
            unsubscribe: Some(asked.clone()),
            ..Envelope::default()
        };
        self.request(envelope, Asked::Unsubscribe(asked));
    }

    fn ping(&mut self) {
        let timestamp = self.client.dice.below(1_000_000) as i64;
        let envelope = Envelope {
            message_id: self.next_id(),
            ping: Some(Ping {
                timestamp,
                ..Ping::default()
            }),
            ..Envelope::default()
        };
        self.request(envelope, Asked::Ping(timestamp));
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
        self.resume_from_anywhere();
        for _ in 0..self.client.dice.within(2..24) {
            let dice = &self.client.dice;
            match dice.below(3) {
                0 => self.subscribe(TopicSet::drawn(dice, dice.below(3)), None),
                1 => self.unsubscribe(TopicSet::drawn(dice, 1)),
                _ => self.ping(),
            }
        }
    }

    /// Sends several events, which only backends may send.
    fn send_events(&mut self) {
        for _ in 0..self.client.dice.within(1..6) {
            let envelope = Envelope {
                message_id: self.next_id(),
                event: Some(CommentDeleted::default()),
                ..Envelope::default()
            };
            self.request(envelope, Asked::Event);
        }
    }

    /// Subscribes to allowed topics and one that no client may subscribe to.
    fn ask_for_too_much(&mut self) {
        let dice = &self.client.dice;
        let refused = *dice.pick(&["tenant:*", "user:u1", "project:*", "nothing"]);
        let mut asked = Topics::drawn(TopicSet::drawn(dice, 2), dice);
        asked.topics.push(refused.to_owned());
        let envelope = Envelope {
            message_id: self.next_id(),
            subscribe: Some(asked.clone()),
            ..Envelope::default()
        };
        self.request(envelope, Asked::Subscribe(asked));
    }

    /// Ends the connection in a random way. Returns true if it is over at once.
    fn leave(&mut self) -> bool {
        let client = &self.client;
        match client.dice.weighted(&[20, 50, 15, 15]) {
            0 => {
                client.history.end(self.connection, End::Left);
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
                client.history.end(self.connection, End::Left);
                self.vanish();
            }
            _ => client.history.end(self.connection, End::Left),
        }
        true
    }

    /// Disappears silently; the relay's kernel notices after a while.
    fn vanish(&mut self) {
        let (wire, _, link) = link(self.client.link_kind());
        drop(link);
        let socket = std::mem::replace(&mut self.socket, Socket::new(wire, 1));
        let (link, pause) = (self.link.clone(), self.client.dice.millis(1000..15_000));
        spawn_local(async move {
            sleep(pause).await;
            link.cut(0);
            drop(socket);
        });
    }
}
