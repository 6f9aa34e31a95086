//! Topics: what an event relates to and a client subscribes to.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher, RandomState},
    sync::{Arc, OnceLock},
};

use super::{UserName, name::has_control_character};

/// Maximum size of a topic's id, in bytes.
pub const TOPIC_ID_BYTES_MAX: usize = 256;

/// Maximum size of a topic's kind, in bytes.
pub const TOPIC_KIND_BYTES_MAX: usize = 32;

/// The id that matches every topic of a kind. No event relates to such a topic,
/// with the exception of [`Topic::everyone`].
pub const WILDCARD_ID: &str = "*";

/// The kind of the topic that every connection of a tenant receives.
pub const TENANT_KIND: &str = "tenant";

/// The only topic of that kind.
const EVERYONE: &str = "tenant:*";

/// The kind of the topics that a user's own connections receive.
pub const USER_KIND: &str = "user";

/// `kind:id`. The kind is `[a-z][a-z0-9_]{0,31}`; the id has 1 to 256 bytes of
/// UTF-8 without control characters and may contain colons.
///
/// It carries its hash, which is computed once, when the topic is created, and not by every shard
/// that looks it up.
#[derive(Clone)]
pub struct Topic {
    text: Arc<str>,
    hash: u64,
}

/// A map by topic that uses the hash carried by the topic.
pub type TopicMap<V> = HashMap<Topic, V, BuildHasherDefault<CarriedHash>>;

/// A set of topics that uses the hash carried by the topic.
pub type TopicSet = HashSet<Topic, BuildHasherDefault<CarriedHash>>;

/// Passes on the hash that a [`Topic`] carries.
#[derive(Debug, Default, Clone, Copy)]
pub struct CarriedHash(u64);

impl Hasher for CarriedHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Hashes anything other than a topic.
    fn write(&mut self, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher.write(bytes);
        self.0 = hasher.finish();
    }
}

/// A secret of the process that goes into each hash. Topics come from clients, and a client must
/// not be able to predict which of them collide.
static HASH_SEED: OnceLock<u64> = OnceLock::new();

/// Makes the hashes of topics the same in each run, for benchmarks and simulations. Returns false
/// if it comes too late, after the first topic was created.
#[must_use]
pub fn fix_hash_seed(seed: u64) -> bool {
    HASH_SEED.set(seed).is_ok()
}

fn hash_of(text: &str) -> u64 {
    let seed = *HASH_SEED.get_or_init(|| RandomState::new().hash_one(0));
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Reason that a text is not a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// There is no colon between a kind and an id.
    #[error("is not `kind:id`: it has no colon")]
    NoColon,
    /// The kind does not match `[a-z][a-z0-9_]{0,31}`.
    #[error("has a malformed kind, which must match [a-z][a-z0-9_]{{0,31}}")]
    MalformedKind,
    /// There is nothing after the colon.
    #[error("has an empty id")]
    EmptyId,
    /// The id has more than [`TOPIC_ID_BYTES_MAX`] bytes.
    #[error("has an id of more than {TOPIC_ID_BYTES_MAX} bytes")]
    IdTooLong,
    /// The id has a control character in it.
    #[error("has a control character in its id")]
    ControlCharacter,
}

impl Topic {
    /// The hash that it carries. It is valid in this process only, since a secret of the process
    /// goes into it.
    #[must_use]
    pub fn carried_hash(&self) -> u64 {
        self.hash
    }

    /// Parses a topic, which is split at its first colon.
    ///
    /// # Errors
    ///
    /// Returns the reason if the text is not a topic.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let (kind, id) = text.split_once(':').ok_or(TopicError::NoColon)?;
        check_kind(kind)?;
        check_id(id)?;
        Ok(Self::from_text(text.into()))
    }

    /// Creates the topic `kind:id`.
    ///
    /// # Errors
    ///
    /// Returns the reason if the kind or the id is invalid.
    pub fn new(kind: &str, id: &str) -> Result<Self, TopicError> {
        check_kind(kind)?;
        check_id(id)?;
        // Not `format!`, which takes several times as long: every id that an event
        // names comes through here.
        Ok(Self::from_text([kind, ":", id].concat().into()))
    }

    /// Returns `tenant:*`, which every connection of a tenant receives.
    #[must_use]
    pub fn everyone() -> Self {
        Self::from_text(EVERYONE.into())
    }

    /// Returns `user:<name>`, which every connection of that user receives. A user's name is
    /// always a valid id.
    #[must_use]
    pub fn of_user(user: &UserName) -> Self {
        Self::from_text(format!("{USER_KIND}:{user}").into())
    }

    fn from_text(text: Arc<str>) -> Self {
        Self {
            hash: hash_of(&text),
            text,
        }
    }

    /// The part before the first colon.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text.split_once(':').map_or("", |(kind, _)| kind)
    }

    /// The part after the first colon.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, id)| id)
    }

    /// The whole topic, `kind:id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true if the id is `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.id() == WILDCARD_ID
    }

    /// Returns true if the topic is `tenant:*`.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        &*self.text == EVERYONE
    }

    /// Returns true if clients receive topics of this kind without subscribing, and cannot
    /// subscribe to them.
    #[must_use]
    pub fn is_implicit(&self) -> bool {
        matches!(self.kind(), USER_KIND | TENANT_KIND)
    }
}

/// Checks that the text can be a topic's kind.
///
/// # Errors
///
/// Fails if it does not match `[a-z][a-z0-9_]{0,31}`.
pub fn check_kind(kind: &str) -> Result<(), TopicError> {
    let well_formed = kind.len() <= TOPIC_KIND_BYTES_MAX
        && kind.starts_with(|first: char| first.is_ascii_lowercase())
        && kind
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if well_formed {
        Ok(())
    } else {
        Err(TopicError::MalformedKind)
    }
}

fn check_id(id: &str) -> Result<(), TopicError> {
    if id.is_empty() {
        Err(TopicError::EmptyId)
    } else if id.len() > TOPIC_ID_BYTES_MAX {
        Err(TopicError::IdTooLong)
    } else if has_control_character(id) {
        Err(TopicError::ControlCharacter)
    } else {
        Ok(())
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for Topic {}

impl Hash for Topic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialOrd for Topic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Topic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:?})", &*self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_separates() {
        let topic = Topic::parse("project:a:b:c").unwrap();
        assert_eq!((topic.kind(), topic.id()), ("project", "a:b:c"));
        assert_eq!(topic, Topic::new("project", "a:b:c").unwrap());
    }

    #[test]
    fn an_invalid_topic_is_refused_with_the_reason() {
        let long_id = format!("project:{}", "x".repeat(257));
        let long_kind = format!("{}:1", "k".repeat(33));
        for (text, reason) in [
            ("", TopicError::NoColon),
            ("project", TopicError::NoColon),
            (":1", TopicError::MalformedKind),
            ("Project:1", TopicError::MalformedKind),
            ("1project:1", TopicError::MalformedKind),
            ("_project:1", TopicError::MalformedKind),
            ("pro-ject:1", TopicError::MalformedKind),
            (&long_kind, TopicError::MalformedKind),
            ("project:", TopicError::EmptyId),
            (&long_id, TopicError::IdTooLong),
            ("project:a\nb", TopicError::ControlCharacter),
            ("project:\u{85}", TopicError::ControlCharacter),
        ] {
            assert_eq!(Topic::parse(text), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn the_longest_kind_and_id_are_accepted() {
        let text = format!("{}:{}", "k".repeat(32), "x".repeat(256));
        assert_eq!(Topic::parse(&text).unwrap().as_str(), text);
    }

    #[test]
    fn equal_topics_are_found_however_they_were_created() {
        let mut topics = TopicMap::default();
        topics.insert(Topic::parse("project:1").unwrap(), 1);
        topics.insert(Topic::everyone(), 2);
        topics.insert(Topic::of_user(&UserName::parse("a:b").unwrap()), 3);
        for (topic, found) in [
            (Topic::new("project", "1"), Some(&1)),
            (Topic::parse("tenant:*"), Some(&2)),
            (Topic::parse("user:a:b"), Some(&3)),
            (Topic::parse("project:2"), None),
        ] {
            assert_eq!(topics.get(&topic.unwrap()), found);
        }
        assert!(!fix_hash_seed(1), "topics have been made before");
    }

    #[test]
    fn user_and_tenant_topics_are_implicit() {
        let everyone = Topic::everyone();
        assert!(everyone.is_implicit() && everyone.is_wildcard() && everyone.is_everyone());
        assert_eq!(Topic::new(TENANT_KIND, WILDCARD_ID), Ok(everyone));
        assert!(Topic::parse("user:ann").unwrap().is_implicit());
        assert!(!Topic::parse("users:ann").unwrap().is_implicit());
    }
}
