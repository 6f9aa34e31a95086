//! The events that clients send: the topics that they name, the payload as the relay sends it
//! on, with the sender in it, and for presence the value that means that a user is absent.

use prost::encoding::{
    WireType as Encoded, encode_key, encode_varint, encoded_len_varint, key_len,
};
use prost_reflect::{Kind, MessageDescriptor};

use super::{
    InspectLimits, InspectedEnvelope, InspectedPayload, Schema,
    annotations::{Annotations, DeclaredField},
    collect::collect_topics,
    error::{WireError, WireFault},
    payload::{PayloadKind, PayloadType},
    relay_fields::message_of,
    topics::FoundTopics,
    walk::WalkMode,
    wire::{RawField, WireFields, WireType, varint_at},
};

/// What the relay must know about a payload that clients may send.
#[derive(Debug)]
pub(super) struct ClientEventType {
    /// The number of its field in the envelope.
    number: u32,
    /// The number of the field that receives the sender.
    sender: Option<u32>,
    is_presence: bool,
    absent: Option<AbsentField>,
}

/// The field of a presence payload that says whether the user is absent.
#[derive(Debug)]
struct AbsentField {
    number: u32,
    /// The value that means absent.
    value: AbsentScalar,
    /// True if a message without the field has this value.
    is_absent_if_missing: bool,
}

#[derive(Debug)]
enum AbsentScalar {
    Enum(i32),
    Bool(bool),
    Text(String),
}

impl Schema {
    /// Inspects an envelope from a client. Topics are those of a payload that clients may send,
    /// except for what the client put into its `sender` field; other payloads name none.
    ///
    /// # Errors
    ///
    /// As for [`inspect`](Self::inspect), and if there are more topics than the limit, or if the
    /// envelope would have to be decoded to find its topics and is larger than
    /// [`InspectLimits::decoded_bytes`]. Errors about topics occur only in a payload that clients
    /// may send.
    pub fn inspect_from_client<'a>(
        &'a self,
        envelope: &'a [u8],
        limits: InspectLimits,
    ) -> Result<InspectedEnvelope<'a>, WireError> {
        let mode = WalkMode::RouteFromClient;
        let found = self.walk_for_topics(envelope, mode, limits.topics)?;
        let has_too_many = found.has_too_many_topics;
        let mut inspected = self.inspected_envelope(envelope, found);
        let is_doubtful = inspected.was_decoded || has_too_many;
        let Some(payload) = inspected.payload.filter(|_| is_doubtful) else {
            return Ok(inspected);
        };
        let topics = if !inspected.was_decoded {
            Err(WireError::without_offset(WireFault::TooManyTopics))
        } else if envelope.len() > limits.decoded_bytes {
            Err(WireError::without_offset(WireFault::TooLargeToDecode))
        } else {
            self.decoded_topics(&payload, limits.topics)
        };
        let topics = topics.map_err(|error| error.in_field(payload.name, None))?;
        inspected.topics = topics.into_vec();
        Ok(inspected)
    }

    /// Returns the topics that a payload from a client names after decoding it.
    fn decoded_topics(
        &self,
        payload: &InspectedPayload<'_>,
        topics_max: usize,
    ) -> Result<FoundTopics, WireError> {
        let index = self.table.payload_type(payload.number);
        let message = message_of(&self.envelope, payload.number);
        let (Some(index), Some(message)) = (index, message) else {
            return Ok(FoundTopics::default());
        };
        let event = self.client_event(payload.number);
        let bytes = match event.and_then(|event| event.sender) {
            Some(sender) => &fields_without(payload.bytes, sender)
                .collect::<Vec<_>>()
                .concat(),
            None => payload.bytes,
        };
        collect_topics(&self.table, index, &message, bytes, topics_max)
    }

    /// Appends the field of a client event to the envelope in `buffer`, as the relay sends it on:
    /// the payload as it was sent, with `user` in its `sender` field and nowhere else.
    pub fn append_client_event(
        &self,
        payload: &InspectedPayload<'_>,
        user: &str,
        buffer: &mut Vec<u8>,
    ) {
        let event = self.client_event(payload.number);
        let sender = event.and_then(|event| event.sender).map(|number| NewField {
            number,
            value: NewValue::Text(user),
        });
        append_payload(payload.number, payload.bytes, sender, buffer);
    }

    /// Returns the user who sent a client event, or the user of a presence payload; `None` if its
    /// type has no `sender` field or the field is empty.
    #[must_use]
    pub fn sender_of<'a>(&self, payload: &InspectedPayload<'a>) -> Option<&'a str> {
        let sender = self.client_event(payload.number)?.sender?;
        let fields = well_formed_fields(payload.bytes);
        let last = fields.filter(|field| field.number == sender).last()?;
        let user = str::from_utf8(payload.bytes.get(last.value)?).ok()?;
        (!user.is_empty()).then_some(user)
    }

    /// Returns true if the relay remembers the payload with this number as its sender's presence.
    #[must_use]
    pub fn is_presence(&self, payload: u32) -> bool {
        self.client_event(payload).is_some_and(|it| it.is_presence)
    }

    /// Returns true if a presence payload says that its user is absent. If the field is set more
    /// than once, the last value counts.
    #[must_use]
    pub fn is_absent(&self, payload: &InspectedPayload<'_>) -> bool {
        let event = self.client_event(payload.number);
        let absent = event.and_then(|event| event.absent.as_ref());
        absent.is_some_and(|absent| absent.is_in(payload.bytes))
    }

    /// Appends the presence payload of an envelope to the envelope in `buffer`, changed to say
    /// that its user is absent. Returns false, and appends nothing, if the envelope holds no
    /// presence payload or its type has no value for absent.
    pub fn append_absent(&self, envelope: &[u8], buffer: &mut Vec<u8>) -> bool {
        let found = well_formed_fields(envelope).find_map(|field| {
            let absent = self.client_event(field.number)?.absent.as_ref()?;
            Some((field.number, envelope.get(field.value)?, absent))
        });
        let Some((number, payload, absent)) = found else {
            return false;
        };
        append_payload(number, payload, Some(absent.absent_field()), buffer);
        true
    }

    fn client_event(&self, payload: u32) -> Option<&ClientEventType> {
        let events = &self.client_events;
        let index = events.binary_search_by_key(&payload, |event| event.number);
        events.get(index.ok()?)
    }
}

impl ClientEventType {
    /// Returns the payloads of the envelope that clients may send, sorted by number.
    pub(super) fn of_envelope(
        envelope: &MessageDescriptor,
        payloads: &[PayloadType],
        annotations: &Annotations,
    ) -> Vec<Self> {
        let client_publish = PayloadKind::Event {
            client_publish: true,
        };
        let sent = payloads.iter().filter(|it| it.kind == client_publish);
        let events = sent.filter_map(|payload| {
            let message = message_of(envelope, payload.number)?;
            let fields = annotations.annotated_fields(&message);
            let sender = fields.iter().find(|field| field.is_sender);
            Some(Self {
                number: payload.number,
                sender: sender.map(|field| field.number),
                is_presence: payload.presence,
                absent: fields.iter().find_map(AbsentField::of_field),
            })
        });
        events.collect()
    }
}

impl AbsentField {
    fn of_field(field: &DeclaredField) -> Option<Self> {
        let text = field.absent.as_deref()?;
        let value = match &field.kind {
            Kind::Bool => AbsentScalar::Bool(text == "true"),
            Kind::Enum(kind) => AbsentScalar::Enum(kind.get_value_by_name(text)?.number()),
            Kind::String => AbsentScalar::Text(text.to_owned()),
            _ => return None,
        };
        Some(Self {
            number: field.number,
            is_absent_if_missing: !field.has_presence && value.is_default(),
            value,
        })
    }

    /// Returns true if the payload has the value that means absent.
    fn is_in(&self, payload: &[u8]) -> bool {
        let fields = well_formed_fields(payload);
        match fields.filter(|field| field.number == self.number).last() {
            Some(field) => self.value.is_value_of(payload, &field),
            None => self.is_absent_if_missing,
        }
    }

    /// Returns the field with the value that means absent.
    fn absent_field(&self) -> NewField<'_> {
        NewField {
            number: self.number,
            value: match &self.value {
                // Protobuf extends the sign of an enum to 64 bits.
                AbsentScalar::Enum(number) => NewValue::Varint(i64::from(*number).cast_unsigned()),
                AbsentScalar::Bool(flag) => NewValue::Varint(u64::from(*flag)),
                AbsentScalar::Text(text) => NewValue::Text(text),
            },
        }
    }
}

impl AbsentScalar {
    fn is_default(&self) -> bool {
        match self {
            Self::Enum(number) => *number == 0,
            Self::Bool(flag) => !flag,
            Self::Text(text) => text.is_empty(),
        }
    }

    fn is_value_of(&self, payload: &[u8], field: &RawField) -> bool {
        let varint = || {
            let is_varint = field.wire_type == WireType::Varint;
            let read = varint_at(payload, field.value.start).ok();
            read.filter(|_| is_varint).map(|(bits, _)| bits)
        };
        match self {
            // Decoders take the lower 32 bits of an enum.
            Self::Enum(number) => varint().is_some_and(|bits| {
                bits & u64::from(u32::MAX) == u64::from(number.cast_unsigned())
            }),
            Self::Bool(flag) => varint().is_some_and(|bits| (bits != 0) == *flag),
            Self::Text(text) => payload.get(field.value.clone()) == Some(text.as_bytes()),
        }
    }
}

/// A field that replaces all occurrences of its number in a payload.
struct NewField<'a> {
    number: u32,
    value: NewValue<'a>,
}

enum NewValue<'a> {
    Varint(u64),
    Text(&'a str),
}

impl NewField<'_> {
    fn encoded_len(&self) -> usize {
        let value_len = match self.value {
            NewValue::Varint(bits) => encoded_len_varint(bits),
            NewValue::Text(text) => encoded_len_varint(text.len() as u64) + text.len(),
        };
        key_len(self.number) + value_len
    }

    fn encode(&self, buffer: &mut Vec<u8>) {
        match self.value {
            NewValue::Varint(bits) => {
                encode_key(self.number, Encoded::Varint, buffer);
                encode_varint(bits, buffer);
            }
            NewValue::Text(text) => {
                encode_key(self.number, Encoded::LengthDelimited, buffer);
                encode_varint(text.len() as u64, buffer);
                buffer.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// Appends the field `number` with the payload, in which `new` replaces the fields of its number.
fn append_payload(number: u32, payload: &[u8], new: Option<NewField<'_>>, buffer: &mut Vec<u8>) {
    let kept_len = match &new {
        Some(new) => fields_without(payload, new.number).map(<[u8]>::len).sum(),
        None => payload.len(),
    };
    let new_len = new.as_ref().map_or(0, NewField::encoded_len);
    encode_key(number, Encoded::LengthDelimited, buffer);
    encode_varint((kept_len + new_len) as u64, buffer);
    let Some(new) = new else {
        return buffer.extend_from_slice(payload);
    };
    fields_without(payload, new.number).for_each(|field| buffer.extend_from_slice(field));
    new.encode(buffer);
}

/// Returns the bytes of each field of a message, without those that have this number.
fn fields_without(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let kept = well_formed_fields(message).filter(move |field| field.number != number);
    kept.filter_map(|field| message.get(field.whole))
}

/// Returns the fields of a message that the walk has accepted.
fn well_formed_fields(message: &[u8]) -> impl Iterator<Item = RawField> {
    WireFields::new(message, &(0..message.len())).map_while(Result::ok)
}
