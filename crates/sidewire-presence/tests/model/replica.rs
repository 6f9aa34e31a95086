//! What a shard has applied, as a copy, and what it has to apply next.

use std::collections::{BTreeMap, VecDeque};

use sidewire_presence::{EntryList, PresenceKey, entry_bytes};

use crate::{
    message::Message,
    schedule::{PAYLOADS, user},
    truth::{Record, Truth},
    world::{Outcome, same},
};

#[derive(Debug)]
pub(crate) struct Replica {
    keys: BTreeMap<PresenceKey, Vec<Record>>,
    /// The keys that have changed since, in the order in which they have to be applied.
    pub(crate) changed: VecDeque<PresenceKey>,
}

impl Replica {
    pub(crate) fn of(truth: &Truth) -> Self {
        Self {
            keys: all_keys()
                .map(|key| (key.clone(), truth.of_key(&key)))
                .collect(),
            changed: VecDeque::new(),
        }
    }

    pub(crate) fn records(&self, key: &PresenceKey) -> &[Record] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }

    /// Notes that a key has changed, and whether it has any messages now.
    pub(crate) fn note_change(&mut self, key: &PresenceKey, is_empty: bool) {
        if is_empty && self.records(key).is_empty() {
            self.changed.retain(|changed| changed != key);
        } else if !self.changed.contains(key) {
            self.changed.push_back(key.clone());
        }
    }

    /// Takes over the records of a key. Returns those of before.
    pub(crate) fn apply(&mut self, key: &PresenceKey, after: &[Record]) -> Vec<Record> {
        self.keys
            .insert(key.clone(), after.to_vec())
            .unwrap_or_default()
    }
}

pub(crate) fn all_keys() -> impl Iterator<Item = PresenceKey> {
    let users = ["ann", "bob", "cem", "dan"].into_iter();
    users.flat_map(|name| {
        PAYLOADS.map(|payload| PresenceKey {
            user: user(name),
            payload,
        })
    })
}

pub(crate) fn same_entries(
    what: &str,
    entries: &EntryList<Message>,
    records: &[Record],
) -> Outcome {
    let recorded = entries.iter().map(|entry| Record {
        number: entry.message.number,
        connection: entry.connection,
        key: entry.message.key.clone(),
        topics: entry.topics.iter().cloned().collect(),
        named: entry.named.iter().cloned().collect(),
        lingers: entry.lingers,
        since: entry.since,
        message_bytes: entry.bytes - entry_bytes(0, &entry.named),
    });
    same(what, &recorded.collect::<Vec<_>>(), &records.to_vec())
}
