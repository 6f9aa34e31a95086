//! Fingerprints by which duplicates of an event are recognized: its message id and its body, each
//! as a keyed hash of 128 bits.
//!
//! SipHash-2-4-128 under a key that is known only to the relay, and stored only in its window
//! file: a backend that chooses ids and bodies cannot construct a collision, and among 2^40 events
//! the odds that any two collide by chance are below 2^-48.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use sidewire_protocol::{MessageId, Topic, random::RandomSource};

/// The hashes of a message id given by a backend and of the event's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// The hash of the message id.
    pub id: [u8; 16],
    /// The hash of the body: the received bytes and the set of topics.
    pub body: [u8; 16],
}

/// The secret key of the fingerprints of one process.
#[derive(Clone)]
pub struct FingerprintKey([u8; 16]);

impl FingerprintKey {
    /// Creates a random key.
    #[must_use]
    pub fn new(random: &RandomSource) -> Self {
        let mut key = [0; 16];
        random.fill_bytes(&mut key);
        Self(key)
    }

    /// Returns the key of these bytes, which [`to_bytes`](Self::to_bytes) returned.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key, so that a later process can recognize the same duplicates.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 16] {
        self.0
    }

    /// Returns the fingerprint of an event. `kept` are the received bytes, without those that the
    /// relay removes and before it appends any. The order of the topics does not matter.
    #[must_use]
    pub fn fingerprint(&self, id: &MessageId, kept: &[&[u8]], topics: &[Topic]) -> Fingerprint {
        let mut of_id = self.hasher();
        of_id.write(id.as_str().as_bytes());
        let mut of_body = self.hasher();
        let mut kept_len = 0;
        for run in kept {
            of_body.write(run);
            kept_len += run.len();
        }
        of_body.write(&(kept_len as u64).to_le_bytes());
        let mut sorted: Vec<_> = topics.iter().map(Topic::as_str).collect();
        sorted.sort_unstable();
        for topic in sorted {
            of_body.write(&(topic.len() as u64).to_le_bytes());
            of_body.write(topic.as_bytes());
        }
        Fingerprint {
            id: of_id.finish128().as_bytes(),
            body: of_body.finish128().as_bytes(),
        }
    }

    fn hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(&self.0)
    }
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> FingerprintKey {
        FingerprintKey::new(&RandomSource::from_seed(1))
    }

    fn fingerprint(id: &str, kept: &[&[u8]], topics: &[&str]) -> Fingerprint {
        let topics: Vec<_> = topics.iter().map(|t| Topic::parse(t).unwrap()).collect();
        key().fingerprint(&MessageId::parse(id).unwrap(), kept, &topics)
    }

    #[test]
    fn the_same_bytes_and_the_same_set_of_topics_are_the_same_body() {
        let one = fingerprint("m", &[b"abcdefghijk"], &["a:1", "b:2"]);
        let other = fingerprint("m", &[b"ab", b"cdefghij", b"k"], &["b:2", "a:1"]);
        assert_eq!(one, other);
    }

    #[test]
    fn a_different_byte_or_topic_is_a_different_body_of_the_same_id() {
        let one = fingerprint("m", &[b"abc"], &["a:1", "b:2"]);
        for other in [
            fingerprint("m", &[b"abd"], &["a:1", "b:2"]),
            fingerprint("m", &[b"abc"], &["a:1"]),
            fingerprint("m", &[b"abc"], &["a:1", "b:2", "c:3"]),
            fingerprint("m", &[b"abc"], &["a:1b", "b:2"]),
            fingerprint("m", &[], &["a:1", "b:2"]),
        ] {
            assert_eq!(one.id, other.id);
            assert_ne!(one.body, other.body);
        }
        assert_ne!(one.id, fingerprint("n", &[b"abc"], &["a:1", "b:2"]).id);
    }

    #[test]
    fn fingerprints_differ_between_processes_and_the_key_is_not_shown() {
        let other = FingerprintKey::new(&RandomSource::from_seed(2));
        let id = MessageId::parse("m").unwrap();
        assert_ne!(
            key().fingerprint(&id, &[b"abc"], &[]),
            other.fingerprint(&id, &[b"abc"], &[])
        );
        assert_eq!(format!("{other:?}"), "FingerprintKey(…)");
    }
}
