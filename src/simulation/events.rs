//! What is published: events whose content says which of all they are, so that
//! whoever gets one knows it whatever the relay says of it. Some have many times as many
//! bytes in JSON.

use super::{
    dice::Dice,
    messages::{CommentDeleted, Envelope},
    topics::{ASKABLE, TENANTS, TOPICS, TopicSet},
};

/// Names an event within a simulation. Two with the same are one event, posted
/// twice.
pub(super) type Serial = usize;

/// An event as its backend made it.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) serial: Serial,
    pub(super) tenant: usize,
    pub(super) topics: TopicSet,
    pub(super) envelope: Envelope,
    /// How it is posted, each time.
    pub(super) is_json: bool,
}

impl Event {
    /// A new one, for one to three topics and now and then for a user or for all.
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
            topics.push(TOPICS[dice.below(ASKABLE)].to_owned());
        }
        if dice.percent(12) {
            topics.push(TOPICS[dice.within(ASKABLE..TOPICS.len())].to_owned());
        }
        let envelope = Envelope {
            message_id: match dice.percent(80) {
                true => format!("m{serial}"),
                false => String::new(),
            },
            timestamp: if dice.percent(50) { 1_700_000_000 } else { 0 },
            topics,
            event: Some(event),
            ..Envelope::default()
        };
        Self {
            serial,
            tenant,
            topics: topics_of(&envelope),
            envelope,
            is_json,
        }
    }

    /// How many bytes it has as JSON, without what the relay adds.
    pub(super) fn json_len(&self) -> usize {
        self.envelope.to_json().to_string().len()
    }

    /// Which event an envelope holds that a client got, and of which tenant.
    pub(super) fn recognise(envelope: &Envelope) -> (Serial, usize) {
        let event = envelope.event.as_ref().expect("an event");
        let (tenant, serial) = event.comment.split_once('.').expect("a label");
        let tenant = TENANTS.iter().position(|name| *name == tenant).unwrap();
        (serial.parse().unwrap(), tenant)
    }

    /// The most that the event can count for in a log: what the relay adds to its
    /// bytes is an id, a time, a position, and what it reckons for its own records.
    pub(super) fn cost_max(&self) -> usize {
        let topics: usize = self.topics.names().map(|name| name.len() + 40).sum();
        prost::Message::encoded_len(&self.envelope) + topics + 400
    }
}

impl CommentDeleted {
    /// Gives some events what has six or thirty times the bytes in JSON, and those that are
    /// posted in binary what the first schema does not know.
    fn blow_up(&mut self, is_json: bool, dice: &Dice) {
        match dice.below(10) {
            0 => self.user = "\u{1}".repeat(200),
            // What a call has in JSON is read at once up to 16 KiB.
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

/// What the contract says that the event relates to.
fn topics_of(envelope: &Envelope) -> TopicSet {
    let event = envelope.event.as_ref().unwrap();
    let work_item = format!("work_item:{}", event.work_item);
    let project = event.project.as_ref().map(|id| format!("project:{id}"));
    let named = (!event.work_item.is_empty()).then_some(work_item.as_str());
    let named = named.into_iter().chain(project.as_deref());
    named
        .chain(envelope.topics.iter().map(String::as_str))
        .collect()
}
