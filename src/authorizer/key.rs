//! Keys of users, kinds and topics, as hashes of 128 bits: an answer takes the same memory
//! however long its names are.
//!
//! SipHash-1-3-128 under a secret of the process: nobody who chooses names can construct two with
//! the same key, and among 2^40 names the odds that any two collide by chance are below 2^-48.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use sidewire_protocol::{Topic, random::RandomSource, topic::WILDCARD_ID};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::{limits::UserKey, planted::fault};

/// The secret of the keys of one process.
#[derive(Clone)]
pub(super) struct KeySecret([u8; 16]);

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecret(masked)")
    }
}

/// The key of a topic, or of all topics of a kind, for one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TopicKey([u64; 2]);

impl TopicKey {
    /// Returns the part that the key belongs to, of as many as there are.
    pub(super) fn part(self, parts: usize) -> usize {
        let [_, second] = self.0;
        usize::try_from(second % parts.max(1) as u64).unwrap_or_default()
    }
}

impl Hash for TopicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [first, _] = self.0;
        state.write_u64(first);
    }
}

/// Makes the keys of one user.
#[derive(Clone)]
pub(super) struct UserKeys(SipHasher13);

impl KeySecret {
    pub(super) fn new(random: &RandomSource) -> Self {
        let mut secret = [0; 16];
        random.fill_bytes(&mut secret);
        Self(secret)
    }

    /// Returns the maker of the keys of this user, which are of no other.
    pub(super) fn user_keys(&self, who: &UserKey) -> UserKeys {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        let user = match fault!(UsesAnswersOfOthers) {
            true => "",
            false => who.user.as_str(),
        };
        for name in [who.tenant.as_str(), user] {
            hasher.write_u64(name.len() as u64);
            hasher.write(name.as_bytes());
        }
        UserKeys(hasher)
    }
}

impl UserKeys {
    pub(super) fn topic(&self, topic: &Topic) -> TopicKey {
        self.of_parts([topic.as_str(), "", ""])
    }

    /// Returns the key of the wildcard of the topic's kind.
    pub(super) fn wildcard(&self, topic: &Topic) -> TopicKey {
        self.of_parts([topic.kind(), ":", WILDCARD_ID])
    }

    /// Returns a key that all topics of the topic's kind share, and that is no topic's own.
    pub(super) fn kind(&self, topic: &Topic) -> TopicKey {
        self.of_parts([topic.kind(), "", ""])
    }

    /// Returns a key of the set of these topics, which are sorted.
    pub(super) fn topics(&self, sorted: &[Topic]) -> TopicKey {
        let mut hasher = self.0;
        for topic in sorted {
            hasher.write_u64(topic.as_str().len() as u64);
            hasher.write(topic.as_str().as_bytes());
        }
        finished(&hasher)
    }

    fn of_parts(&self, parts: [&str; 3]) -> TopicKey {
        let mut hasher = self.0;
        for part in parts {
            hasher.write(part.as_bytes());
        }
        finished(&hasher)
    }
}

fn finished(hasher: &SipHasher13) -> TopicKey {
    let hash = hasher.finish128();
    TopicKey([hash.h1, hash.h2])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::limits::tests::user_key;

    #[test]
    fn a_key_belongs_to_one_tenant_user_and_topic() {
        let secret = KeySecret::new(&RandomSource::from_seed(1));
        let mut seen = HashSet::new();
        for (tenant, name) in [("a", "bc"), ("ab", "c"), ("abc", "d"), ("a", "b")] {
            let keys = secret.user_keys(&user_key(tenant, name));
            for text in ["project:1", "project:11", "c:1", "project:*"] {
                assert!(seen.insert(keys.topic(&Topic::parse(text).unwrap())));
            }
            assert!(seen.insert(keys.kind(&Topic::parse("project:1").unwrap())));
        }
        let keys = secret.user_keys(&user_key("a", "b"));
        let [one, wildcard] = ["project:1", "project:*"].map(|text| Topic::parse(text).unwrap());
        assert_eq!(keys.wildcard(&one), keys.topic(&wildcard));
        assert_eq!(keys.kind(&one), keys.kind(&wildcard));
        let other = KeySecret::new(&RandomSource::from_seed(2)).user_keys(&user_key("a", "b"));
        assert_ne!(keys.topic(&one), other.topic(&one));
    }
}
