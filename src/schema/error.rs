//! What can be wrong with the bytes or the JSON of a message. Knows no schema.

use std::fmt;

use crate::{
    protocol::TopicError,
    shorten::{ANSWER_BYTES_MAX, shortened},
};

/// The most bytes of a path that stand before an error's sentence, so that the sentence is
/// seen where both are cut to what an answer may have.
const SHOWN_PATH_BYTES_MAX: usize = 300;

/// The most bytes of an error's sentence.
const SENTENCE_BYTES_MAX: usize = ANSWER_BYTES_MAX - SHOWN_PATH_BYTES_MAX - 2;

/// What is wrong at one place of a message's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A value runs past the end of the message that it stands in.
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
    /// A group begins or ends here. The relay takes no groups.
    #[error("has a group in it")]
    Group,
    /// A known field has another wire type than the schema says.
    #[error("has another wire type than the schema says")]
    Mistyped,
    /// A string is not UTF-8.
    #[error("is not UTF-8")]
    Utf8,
    /// Messages lie in each other more than 100 levels deep.
    #[error("lies more than 100 levels deep")]
    TooDeep,
    /// The payload is set more than once, or two are.
    #[error("is a second payload")]
    SecondPayload,
    /// One of the relay's own fields is set more than once.
    #[error("is set more than once")]
    Repeated,
    /// The envelope has a field that the relay keeps for itself.
    #[error("has a field number that is reserved for the relay")]
    Reserved,
    /// An annotated field holds what no topic's id can be.
    #[error("{0}")]
    Topic(TopicError),
    /// An annotated field holds `*`.
    #[error("is `*`, which is no id")]
    Wildcard,
    /// An annotated field holds a topic of the kind `tenant` other than `tenant:*`.
    #[error("is of the kind tenant, which has the one topic tenant:*")]
    TenantTopic,
    /// The envelope has more fields than the relay reads.
    #[error("has more than 100,000 fields, those of nested messages included")]
    TooManyFields,
    /// The event relates to more topics than may be.
    #[error("relates to more topics than limits.topics_per_event allows")]
    TooManyTopics,
    /// prost-reflect takes it for malformed. The walk is stricter, so this says
    /// that the walk is wrong.
    #[error("cannot be decoded")]
    Undecodable,
}

impl Fault {
    /// Whether the bytes are well-formed and only a topic in them is none.
    pub(super) fn is_of_topic(self) -> bool {
        matches!(self, Self::Topic(_) | Self::Wildcard | Self::TenantTopic)
    }
}

/// The bytes of a message are not what the schema says, or name what cannot be
/// named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct WireError {
    fault: Fault,
    offset: Option<usize>,
    field: String,
}

impl WireError {
    pub(super) fn new(fault: Fault, offset: usize) -> Self {
        Self {
            fault,
            offset: Some(offset),
            field: String::new(),
        }
    }

    /// An error about a value of which only the field is known.
    pub(super) fn unplaced(fault: Fault) -> Self {
        Self {
            fault,
            offset: None,
            field: String::new(),
        }
    }

    /// The same error, seen from the message whose field it is in. `index` is the
    /// place among the values of a repeated field.
    pub(super) fn within(mut self, name: &str, index: Option<usize>) -> Self {
        let index = index.map(|index| format!("[{index}]")).unwrap_or_default();
        let dot = if self.field.is_empty() { "" } else { "." };
        self.field = format!("{name}{index}{dot}{}", self.field);
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// How many bytes stand before the place, where one place can be named.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        self.offset
    }

    /// The path of the field at fault, such as `subscribe.topics[2]`; `None` where
    /// it is the message itself.
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

/// A batch cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The schema's envelope has no field 17.
    #[error("the schema has no batches")]
    Unsupported,
    /// It has more messages than are allowed.
    #[error("a batch may have at most {max} messages")]
    TooMany {
        /// How many are allowed.
        max: usize,
    },
    /// It has more fields that a batch does not have than it may have envelopes.
    #[error("the batch has more than {max} unknown fields")]
    UnknownFields {
        /// The limit.
        max: usize,
    },
    /// Its bytes are malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A text is not the JSON of the message that the schema says, or a message has
/// no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", shown_path(.field.as_deref()))]
pub struct JsonError {
    field: Option<String>,
    message: String,
    is_too_large: bool,
}

fn shown_path(field: Option<&str>) -> String {
    let shown = field.map(|field| format!("{}: ", shortened(field, SHOWN_PATH_BYTES_MAX)));
    shown.unwrap_or_default()
}

/// Whether the path begins with a place in a list; the name of an extension stands in
/// brackets too.
fn is_index(path: &str) -> bool {
    let inner = path.strip_prefix('[');
    inner.is_some_and(|inner| inner.starts_with(|first: char| first.is_ascii_digit()))
}

impl JsonError {
    pub(super) fn new(field: Option<String>, message: impl fmt::Display) -> Self {
        Self {
            field: field.map(|field| shortened(field, ANSWER_BYTES_MAX)),
            message: shortened(message.to_string(), SENTENCE_BYTES_MAX),
            is_too_large: false,
        }
    }

    /// An error about JSON that is refused for its size.
    pub(super) fn too_large(message: impl fmt::Display) -> Self {
        Self {
            is_too_large: true,
            ..Self::new(None, message)
        }
    }

    /// The same error, seen from where the value stands: in a field of this name, or, in
    /// brackets, at this index of a list.
    pub(super) fn within(mut self, place: &str) -> Self {
        let field = match self.field {
            None => place.to_owned(),
            Some(field) if is_index(&field) => format!("{place}{field}"),
            Some(field) => format!("{place}.{field}"),
        };
        self.field = Some(shortened(field, ANSWER_BYTES_MAX));
        self
    }

    /// The path of the field at fault: of JSON that cannot be read with the names that
    /// the text has, such as `subscribe.resumeFrom.offset`; of a message that has no JSON
    /// with those of the schema. For a field that the schema does not know it is the path
    /// of the message that it is in. `None` where it is the outermost message.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The sentence without the path.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the JSON is refused for its size, whatever it says.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// For an error about a batch: the index of the message at fault, if it is one
    /// of them, and the error as seen from that message.
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
