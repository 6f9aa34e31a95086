//! The events that are posted: envelopes that begin with their number, so that it can be
//! found in a frame without decoding. Knows nothing about sockets.

use sidewire_protocol::{
    EnvelopeEncoding,
    envelope::key,
    random::RandomSource,
    schema::{EventGenerator, Schema},
};

/// Length of an envelope's prefix: the tag and length of its message_id, a letter and
/// the digits of the run.
const PREFIX_BYTES: usize = 12;

/// Number of digits of the event's number, which follow the prefix.
const NUMBER_DIGITS: usize = 10;

/// The message_id's key, its length (the letter and 19 digits) and the letter.
const MESSAGE_ID: [u8; 3] = [key::MESSAGE_ID, 20, b'b'];

/// The message_id prefix of this run's events. It is random, since the relay treats an
/// event with a known message_id as a duplicate.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunId([u8; PREFIX_BYTES]);

impl RunId {
    pub(super) fn new(random: &RandomSource) -> Self {
        let mut prefix = [0; PREFIX_BYTES];
        let (head, digits) = prefix.split_at_mut(MESSAGE_ID.len());
        head.copy_from_slice(&MESSAGE_ID);
        write_hex(digits, random.below(u64::MAX));
        Self(prefix)
    }

    /// Returns the number of the event in an envelope that a client received; `None` if
    /// this run has not posted it.
    #[inline]
    pub(super) fn number_in(
        &self,
        encoding: EnvelopeEncoding,
        envelope: &[u8],
        id_at: &mut usize,
    ) -> Option<usize> {
        match encoding {
            EnvelopeEncoding::Protobuf => self.number_of(envelope),
            EnvelopeEncoding::Json => self.number_of_json(envelope, id_at),
        }
    }

    /// Returns the number of the event in this JSON. `id_at` is the offset at which the
    /// message_id was last found; it is the same for all events of a run.
    fn number_of_json(&self, json: &[u8], id_at: &mut usize) -> Option<usize> {
        let prefix = self.0.get(MESSAGE_ID.len() - 1..)?;
        let begins = |at: usize| json.get(at..).is_some_and(|rest| rest.starts_with(prefix));
        if !begins(*id_at) {
            let found = json
                .windows(prefix.len())
                .position(|window| window == prefix);
            *id_at = found?;
        }
        parse_number(json.get(*id_at + prefix.len()..)?)
    }

    /// Returns the number of the event at the start of this envelope.
    pub(super) fn number_of(&self, envelope: &[u8]) -> Option<usize> {
        let (prefix, rest) = envelope.split_first_chunk()?;
        if *prefix != self.0 {
            return None;
        }
        parse_number(rest)
    }
}

/// Parses the hexadecimal number at the start.
fn parse_number(rest: &[u8]) -> Option<usize> {
    let digits: &[u8; NUMBER_DIGITS] = rest.first_chunk()?;
    let number = digits.iter().fold(0, |number: u64, digit| {
        let value = (digit & 0x0f) + 9 * (digit >> 6);
        number << 4 | u64::from(value)
    });
    usize::try_from(number).ok()
}

/// Builds the envelopes of one run.
#[derive(Debug)]
pub(super) struct EventTemplate {
    pub(super) run: RunId,
    specimen: EventGenerator,
    timestamp: i64,
    bytes: usize,
}

/// Why events of the wanted size cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventTemplateError {
    /// The schema has no suitable event.
    #[error(
        "the schema has no event to measure with: it needs one with a string field annotated with a topic kind that clients can subscribe to"
    )]
    NoSpecimen,
    /// The size is too small for the number, the timestamp and the topic.
    #[error("an event of {bytes} bytes is too small: the minimum is {least} bytes")]
    TooSmall {
        /// The wanted size in bytes.
        bytes: usize,
        /// The smallest possible size in bytes.
        least: usize,
    },
}

impl EventTemplate {
    pub(super) fn new(
        schema: &Schema,
        run: RunId,
        timestamp: i64,
        bytes: usize,
    ) -> Result<Self, EventTemplateError> {
        let specimen = schema
            .synthetic_event()
            .ok_or(EventTemplateError::NoSpecimen)?;
        Ok(Self {
            run,
            specimen,
            timestamp,
            bytes,
        })
    }

    /// Returns the topic of a channel.
    pub(super) fn topic_of(&self, channel: usize) -> String {
        format!("{}:{}", self.specimen.kind(), channel_id(channel))
    }

    /// Builds an envelope of the wanted size for the channel's topic. Its number is 0.
    pub(super) fn build_envelope(&self, channel: usize) -> Result<Vec<u8>, EventTemplateError> {
        let mut envelope = self.run.0.to_vec();
        envelope.extend([b'0'; NUMBER_DIGITS]);
        envelope.push(key::TIMESTAMP);
        prost::encoding::encode_varint(self.timestamp.cast_unsigned(), &mut envelope);
        let rest = self.bytes.checked_sub(envelope.len());
        let payload = rest.and_then(|rest| self.specimen.encode(&channel_id(channel), rest));
        let too_small = || EventTemplateError::TooSmall {
            bytes: self.bytes,
            least: self.least_bytes(channel, envelope.len()),
        };
        let payload = payload.ok_or_else(too_small)?;
        envelope.extend(payload);
        Ok(envelope)
    }

    fn least_bytes(&self, channel: usize, head_bytes: usize) -> usize {
        let fits = |bytes: usize| self.specimen.encode(&channel_id(channel), bytes).is_some();
        // Some sizes of one or two bytes more cannot be filled, so take the first of three
        // sizes in a row that all fit.
        let least = (1..4096).find(|bytes| (*bytes..bytes + 3).all(fits));
        least.unwrap_or_default() + head_bytes
    }
}

fn channel_id(channel: usize) -> String {
    format!("bench-{channel}")
}

/// Writes an event's number into the envelope.
pub(super) fn write_number(envelope: &mut [u8], number: usize) {
    let digits = envelope.get_mut(PREFIX_BYTES..PREFIX_BYTES + NUMBER_DIGITS);
    write_hex(digits.unwrap_or_default(), number as u64);
}

/// Writes the number's lowest hexadecimal digits, as many as fit.
fn write_hex(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = match (number & 0x0f) as u8 {
            value @ 0..=9 => b'0' + value,
            value => b'a' + value - 10,
        };
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mould(bytes: usize) -> EventTemplate {
        let run = RunId::new(&RandomSource::from_seed(1));
        EventTemplate::new(&Schema::bundled().unwrap(), run, 1_790_000_000, bytes).unwrap()
    }

    #[test]
    fn an_envelope_has_the_requested_size_number_and_topic() {
        let schema = Schema::bundled().unwrap();
        for bytes in [100, 128, 159, 200, 1000, 70_000] {
            let mould = mould(bytes);
            for number in [0, 1, 0xabc, 0x12_3456_789a] {
                let mut envelope = mould.build_envelope(7).unwrap();
                write_number(&mut envelope, number);
                assert_eq!(envelope.len(), bytes);
                assert_eq!(mould.run.number_of(&envelope), Some(number));
                let inspected = schema.inspect(&envelope).unwrap();
                assert_eq!(inspected.message_id.unwrap().len(), 20);
                assert_eq!(inspected.timestamp, Some(1_790_000_000));
                let topics: Vec<_> = inspected.topics.iter().map(ToString::to_string).collect();
                assert_eq!(topics, [mould.topic_of(7)]);
            }
        }
    }

    #[test]
    fn an_event_of_another_run_has_no_number() {
        let envelope = mould(200).build_envelope(0).unwrap();
        let other = RunId::new(&RandomSource::from_seed(2));
        assert_eq!(other.number_of(&envelope), None);
        assert_eq!(other.number_of(b""), None);
        assert_eq!(mould(200).run.number_of(&envelope[..20]), None);
    }

    #[test]
    fn the_number_of_an_event_is_found_in_its_json() {
        let schema = Schema::bundled().unwrap();
        let mould = mould(200);
        let mut id_at = 0;
        for number in [0, 1, 0xabc] {
            let mut envelope = mould.build_envelope(7).unwrap();
            write_number(&mut envelope, number);
            let json = schema.envelope_to_json_text(&envelope).unwrap();
            let mut found =
                |run: &RunId| run.number_in(EnvelopeEncoding::Json, json.as_bytes(), &mut id_at);
            assert_eq!(found(&mould.run), Some(number));
            assert_eq!(found(&RunId::new(&RandomSource::from_seed(2))), None);
        }
    }

    #[test]
    fn a_size_that_is_too_small_is_refused_with_a_sufficient_one() {
        let error = mould(30).build_envelope(0).unwrap_err();
        let EventTemplateError::TooSmall { bytes: 30, least } = error else {
            panic!("{error}");
        };
        assert!((least..least + 200).all(|bytes| mould(bytes).build_envelope(0).is_ok()));
        assert!((1..4).any(|fewer| mould(least - fewer).build_envelope(0).is_err()));
    }
}
