//! The published events. Their content identifies them, so that a receiver recognises an event
//! independently of what the relay adds. Some are many times larger as JSON.

use super::{
    dice::Dice,
    messages::{CommentDeleted, WireEnvelope},
    topics::{EVENT_TOPICS, EXACT, TENANTS, TOPICS, TopicBits},
};

/// Identifies an event within a simulation. An event that is posted twice keeps its serial.
pub(super) type Serial = usize;

/// An event as created by its backend.
#[derive(Debug, Clone)]
pub(super) struct SimulatedEvent {
    pub(super) serial: Serial,
    pub(super) tenant: usize,
    pub(super) topics: TopicBits,
    pub(super) envelope: WireEnvelope,
    /// True if it is always posted as JSON, false if always as Protocol Buffers.
    pub(super) is_json: bool,
}

impl SimulatedEvent {
    /// Creates a random event for one to three topics, occasionally for a user or for everyone.
    pub(super) fn drawn(serial: Serial, tenant: usize, is_json: bool, dice: &Dice) -> Self {
        let mut event = CommentDeleted {
            comment: label(serial, tenant),
            user: "x".repeat(*dice.pick(&[0, 0, 10, 40, 200, 500])),
            ..CommentDeleted::default()
        };
        event.blow_up(is_json, dice);
        if dice.percent(50) {
            event.work_item = format!("w{}", dice.below(4));
        }
        if dice.percent(60) {
            event.project = Some(format!("p{}", dice.below(3)));
        }
        let names_none = event.work_item.is_empty() && event.project.is_none();
        let mut topics = Vec::new();
        if names_none || dice.percent(30) {
            topics.push(TOPICS[dice.below(EXACT)].to_owned());
        }
        if dice.percent(12) {
            topics.push(TOPICS[dice.within(EXACT..EVENT_TOPICS)].to_owned());
        }
        let envelope = WireEnvelope {
            message_id: match dice.percent(80) {
                true => format!("m{serial}"),
                false => String::new(),
            },
            timestamp: if dice.percent(50) { 1_700_000_000 } else { 0 },
            topics,
            event: Some(event),
            ..WireEnvelope::default()
        };
        Self {
            serial,
            tenant,
            topics: topics_of(&envelope),
            envelope,
            is_json,
        }
    }

    /// Returns its length as JSON, in bytes, without what the relay adds.
    pub(super) fn json_len(&self) -> usize {
        self.envelope.to_json().to_string().len()
    }

    /// Returns the serial and the tenant of the event in an envelope that a client received.
    pub(super) fn recognise(envelope: &WireEnvelope) -> (Serial, usize) {
        let event = envelope.event.as_ref().expect("an event");
        let (tenant, serial) = event.comment.split_once('.').expect("a label");
        let tenant = TENANTS.iter().position(|name| *name == tenant).unwrap();
        (serial.parse().unwrap(), tenant)
    }

    /// Returns an upper bound of the event's cost in a log, in bytes. The relay adds an id, a
    /// timestamp, a position, and the overhead of its own records.
    pub(super) fn cost_max(&self) -> usize {
        let topics: usize = self.topics.names().map(|name| name.len() + 40).sum();
        prost::Message::encoded_len(&self.envelope) + topics + 400
    }
}

impl CommentDeleted {
    /// Gives some events content that is six or thirty times larger as JSON, and events that are
    /// posted in binary fields that the first schema does not know.
    fn blow_up(&mut self, is_json: bool, dice: &Dice) {
        match dice.below(10) {
            0 => self.user = "\u{1}".repeat(200),
            // JSON of a call is read on the shard up to 16 KiB.
            1 if is_json => self.blown = vec![0; 40],
            1 => self.blown = vec![0; *dice.pick(&[40, 150, 230])],
            _ => {}
        }
        if !is_json && dice.percent(50) {
            self.added_1 = Some("1".to_owned());
            self.added_2 = Some("2".to_owned());
        }
    }
}

fn label(serial: Serial, tenant: usize) -> String {
    format!("{}.{serial}", TENANTS[tenant])
}

/// Returns the topics that the event relates to by the contract.
fn topics_of(envelope: &WireEnvelope) -> TopicBits {
    let event = envelope.event.as_ref().unwrap();
    let work_item = format!("work_item:{}", event.work_item);
    let project = event.project.as_ref().map(|id| format!("project:{id}"));
    let named = (!event.work_item.is_empty()).then_some(work_item.as_str());
    let named = named.into_iter().chain(project.as_deref());
    named
        .chain(envelope.topics.iter().map(String::as_str))
        .collect()
}
