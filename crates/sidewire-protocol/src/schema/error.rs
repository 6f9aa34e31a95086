//! Errors in the bytes or the JSON of a message. Knows nothing about schemas.

use std::fmt;

use crate::TopicError;
use crate::shorten::{ANSWER_BYTES_MAX, truncate_text};

/// Maximum bytes of a path shown before an error's sentence, so that the sentence stays
/// visible when both are truncated to the limit of an answer.
const SHOWN_PATH_BYTES_MAX: usize = 300;

/// Maximum bytes of an error's sentence.
const SENTENCE_BYTES_MAX: usize = ANSWER_BYTES_MAX - SHOWN_PATH_BYTES_MAX - 2;

/// A fault at one position in a message's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireFault {
    /// A value extends beyond the end of its message.
    #[error("is cut short")]
    Truncated,
    /// A varint has more than 10 bytes or more than 64 bits.
    #[error("has a varint of more than 64 bits")]
    Varint,
    /// A field number is 0 or above 2^29 - 1.
    #[error("has a field number that does not exist")]
    FieldNumber,
    /// A wire type is 6 or 7.
    #[error("has a wire type that does not exist")]
    WireType,
    /// A group begins or ends here. The relay does not support groups.
    #[error("has a group in it")]
    Group,
    /// A known field has a wire type that does not match the schema.
    #[error("has a different wire type than the schema declares")]
    Mistyped,
    /// A string is not UTF-8.
    #[error("is not UTF-8")]
    Utf8,
    /// Messages are nested more than 100 levels deep.
    #[error("is nested more than 100 levels deep")]
    TooDeep,
    /// The payload is set more than once, or two payloads are set.
    #[error("is a second payload")]
    SecondPayload,
    /// A field of the relay is set more than once.
    #[error("is set more than once")]
    Repeated,
    /// The envelope has a field that is reserved for the relay.
    #[error("has a field number that is reserved for the relay")]
    Reserved,
    /// An annotated field holds an invalid topic id.
    #[error("{0}")]
    Topic(TopicError),
    /// An annotated field holds `*`.
    #[error("is `*`, which is not an id")]
    Wildcard,
    /// An annotated field holds a topic of the kind `tenant` other than `tenant:*`.
    #[error("is of the kind tenant, and the only topic of that kind is tenant:*")]
    TenantTopic,
    /// The envelope has more fields than the relay reads.
    #[error("has more than 100,000 fields, those of nested messages included")]
    TooManyFields,
    /// The event relates to more topics than the limit.
    #[error("relates to more topics than limits.topics_per_event allows")]
    TooManyTopics,
    /// The message has to be decoded to find its topics, because fields replace each other or
    /// are merged, and is larger than the limit for that.
    #[error("has to be decoded to find its topics, and is too large for that")]
    TooLargeToDecode,
    /// prost-reflect considers it malformed. The walk is stricter, so this indicates a bug
    /// in the walk.
    #[error("cannot be decoded")]
    Undecodable,
}

impl WireFault {
    /// Returns true if the bytes are well-formed and only a topic in them is invalid.
    pub(super) fn is_topic_fault(self) -> bool {
        matches!(self, Self::Topic(_) | Self::Wildcard | Self::TenantTopic)
    }
}

/// An error in the bytes of a message: they do not match the schema or contain an invalid
/// topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct WireError {
    fault: WireFault,
    offset: Option<usize>,
    field: String,
}

impl WireError {
    pub(super) fn new(fault: WireFault, offset: usize) -> Self {
        Self {
            fault,
            offset: Some(offset),
            field: String::new(),
        }
    }

    /// Creates an error without an offset.
    pub(super) fn without_offset(fault: WireFault) -> Self {
        Self {
            fault,
            offset: None,
            field: String::new(),
        }
    }

    /// Prefixes the path with the field that contains the error. `index` is the index of
    /// the value in a repeated field.
    pub(super) fn in_field(mut self, name: &str, index: Option<usize>) -> Self {
        let index = index.map(|index| format!("[{index}]")).unwrap_or_default();
        let dot = if self.field.is_empty() { "" } else { "." };
        self.field = format!("{name}{index}{dot}{}", self.field);
        self
    }

    /// Returns the fault.
    #[must_use]
    pub fn fault(&self) -> WireFault {
        self.fault
    }

    /// Returns the byte offset of the fault, if it is known.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        self.offset
    }

    /// Returns the path of the faulty field, such as `subscribe.topics[2]`; `None` for the
    /// message itself.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        (!self.field.is_empty()).then_some(self.field.as_str())
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field().unwrap_or("the message");
        write!(f, "{field} {}", self.fault)?;
        match self.offset {
            Some(offset) => write!(f, " (at byte {offset})"),
            None => Ok(()),
        }
    }
}

/// A batch cannot be split into envelopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The schema's envelope has no field 17.
    #[error("the schema does not support batches")]
    Unsupported,
    /// The batch has more messages than allowed.
    #[error("a batch may have at most {max} messages")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The batch has more unknown fields of its own, beside its envelopes, than allowed.
    #[error("the batch has more than {max} unknown fields")]
    UnknownFields {
        /// The limit.
        max: usize,
    },
    /// The bytes of the batch are malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A text is not valid JSON of a message of the schema, or a message has no JSON form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", shown_path(.field.as_deref()))]
pub struct JsonError {
    field: Option<String>,
    message: String,
    is_too_large: bool,
}

fn shown_path(field: Option<&str>) -> String {
    let shown = field.map(|field| format!("{}: ", truncate_text(field, SHOWN_PATH_BYTES_MAX)));
    shown.unwrap_or_default()
}

/// Returns true if the path begins with a list index. The name of an extension is in
/// brackets too.
fn is_index(path: &str) -> bool {
    let inner = path.strip_prefix('[');
    inner.is_some_and(|inner| inner.starts_with(|first: char| first.is_ascii_digit()))
}

impl JsonError {
    pub(super) fn new(field: Option<String>, message: impl fmt::Display) -> Self {
        Self {
            field: field.map(|field| truncate_text(field, ANSWER_BYTES_MAX)),
            message: truncate_text(message.to_string(), SENTENCE_BYTES_MAX),
            is_too_large: false,
        }
    }

    /// Creates an error about JSON that is refused because of its size.
    pub(super) fn too_large(message: impl fmt::Display) -> Self {
        Self {
            is_too_large: true,
            ..Self::new(None, message)
        }
    }

    /// Prefixes the path with the name of a field or with an index of a list in brackets.
    pub(super) fn in_field(mut self, place: &str) -> Self {
        let field = match self.field {
            None => place.to_owned(),
            Some(field) if is_index(&field) => format!("{place}{field}"),
            Some(field) => format!("{place}.{field}"),
        };
        self.field = Some(truncate_text(field, ANSWER_BYTES_MAX));
        self
    }

    /// Returns the path of the faulty field. If the JSON cannot be parsed, the path uses
    /// the names in the text, such as `subscribe.resumeFrom.offset`. If a message has no
    /// JSON form, it uses the names of the schema. For an unknown field, it is the path of
    /// the message that contains it; `None` for the outermost message.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Returns the sentence without the path.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns true if the JSON is refused because of its size.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// For an error about a message of a batch, returns the index of the message and the
    /// error with a path relative to that message.
    #[must_use]
    pub fn in_message(&self) -> Option<(usize, Self)> {
        let path = self.field()?.strip_prefix("messages[")?;
        let (index, field) = path.split_once(']')?;
        let field = field.strip_prefix('.').map(str::to_owned);
        let error = Self {
            field,
            ..self.clone()
        };
        Some((index.parse().ok()?, error))
    }
}
