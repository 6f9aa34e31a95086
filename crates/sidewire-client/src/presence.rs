//! The presence of a client over all its connections: the last message of each presence payload.
//! Knows nothing about the content of messages.

use std::collections::BTreeMap;

use bytes::Bytes;

/// The presence messages of a client, by the number of their payload.
#[derive(Debug, Default)]
pub(super) struct KeptPresence {
    messages: BTreeMap<u32, Bytes>,
    /// Messages and withdrawals to send on this connection.
    unsent: BTreeMap<u32, Bytes>,
}

impl KeptPresence {
    /// Replaces the message of this payload.
    pub(super) fn set(&mut self, payload: u32, envelope: Bytes) {
        self.messages.insert(payload, envelope.clone());
        self.unsent.insert(payload, envelope);
    }

    /// Forgets the message of this payload. `absent` tells the relay.
    pub(super) fn withdraw(&mut self, payload: u32, absent: Bytes) {
        self.messages.remove(&payload);
        self.unsent.insert(payload, absent);
    }

    /// Starts a connection, on which the relay knows of no presence.
    pub(super) fn on_connected(&mut self) {
        self.unsent.clone_from(&self.messages);
    }

    /// Takes out the next envelope to send.
    pub(super) fn next_envelope(&mut self) -> Option<Bytes> {
        self.unsent.pop_first().map(|(_, envelope)| envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(presence: &mut KeptPresence) -> Vec<Bytes> {
        std::iter::from_fn(|| presence.next_envelope()).collect()
    }

    #[test]
    fn the_last_message_of_each_payload_is_sent_once_on_each_connection() {
        let mut presence = KeptPresence::default();
        presence.set(7, "here".into());
        presence.set(7, "there".into());
        presence.set(5, "looking".into());
        assert_eq!(sent(&mut presence), ["looking", "there"]);
        assert_eq!(sent(&mut presence), [""; 0]);
        presence.on_connected();
        assert_eq!(sent(&mut presence), ["looking", "there"]);
    }

    #[test]
    fn a_withdrawal_is_sent_on_this_connection_only() {
        let mut presence = KeptPresence::default();
        presence.set(7, "here".into());
        presence.withdraw(7, "gone".into());
        assert_eq!(sent(&mut presence), ["gone"]);
        presence.withdraw(7, "gone".into());
        presence.on_connected();
        assert_eq!(sent(&mut presence), [""; 0]);
    }
}
