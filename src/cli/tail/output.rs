//! The output of `sidewire tail`.

use std::{fmt, io::Write};

use bytes::Bytes;
use clap::ValueEnum;
use serde_json::Value;
use sidewire_client::ReceivedEvent;
use sidewire_protocol::schema::Schema;

use super::{filter::EventFilter, presence::presence_in};
use crate::cli::{CommandFailure, write_result};

/// The output format of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON in one line.
    Json,
    /// Indented JSON.
    Pretty,
    /// The bytes of its envelope as hexadecimal digits, in one line.
    Hex,
}

/// How the bytes of events are read.
#[derive(Debug)]
pub struct EventReader<'s, D> {
    /// Selects the events to print.
    pub filter: EventFilter,
    /// Returns the JSON of an envelope.
    pub decode: D,
    /// The schema that tells presence, if it is printed.
    pub presence: Option<&'s Schema>,
}

/// Prints events.
pub(super) struct EventPrinter<'a, D, W> {
    pub(super) format: Format,
    pub(super) reader: EventReader<'a, D>,
    pub(super) out: &'a mut W,
}

/// The outcome of printing an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrintOutcome {
    /// The event was printed.
    Yes,
    /// The event did not pass the filter, or the schema could not decode it.
    No,
    /// The reader of the output is gone.
    Unread,
}

impl<D, E, W> EventPrinter<'_, D, W>
where
    D: Fn(&[u8]) -> Result<String, E>,
    E: fmt::Display,
    W: Write,
{
    /// Prints the event, if it passes the filter. `user` is the user that received it, if there
    /// are several.
    pub(super) fn print_event(
        &mut self,
        user: Option<&str>,
        event: &ReceivedEvent,
    ) -> Result<PrintOutcome, CommandFailure> {
        let text = match self.event_text(user, event) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(PrintOutcome::No),
            Err(error) => {
                let message_id = &event.message_id;
                tracing::error!(
                    user,
                    message_id,
                    "the schema cannot decode an event: {error}"
                );
                return Ok(PrintOutcome::No);
            }
        };
        let is_read = write_result(self.out, &text)?;
        Ok(if is_read {
            PrintOutcome::Yes
        } else {
            PrintOutcome::Unread
        })
    }

    /// Formats the event; `None` if it does not pass the filter.
    fn event_text(
        &self,
        user: Option<&str>,
        event: &ReceivedEvent,
    ) -> Result<Option<String>, String> {
        let (envelope, reader) = (&event.envelope, &self.reader);
        if self.format == Format::Hex && reader.filter.is_empty() {
            return Ok(Some(hex_line(user, envelope)));
        }
        // Print the text that JSON clients receive; parse it only for the filter.
        let json = (reader.decode)(envelope).map_err(|error| error.to_string())?;
        if !reader.filter.is_empty() && !reader.filter.lets_through(&parse_value(&json)?) {
            return Ok(None);
        }
        let presence = reader.presence;
        let presence = presence.and_then(|schema| presence_in(schema, event));
        let line = || with_context(&json, presence.as_ref(), user);
        Ok(Some(match self.format {
            Format::Hex => hex_line(user, envelope),
            Format::Json => line(),
            Format::Pretty => format!("{:#}", parse_value(&line())?),
        }))
    }
}

fn parse_value(json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// Wraps the JSON of an event in an object with the receiving user and the presence, if there
/// are any.
fn with_context(event: &str, presence: Option<&Value>, user: Option<&str>) -> String {
    if presence.is_none() && user.is_none() {
        return event.to_owned();
    }
    let presence = presence.map(|presence| format!(r#""presence":{presence},"#));
    let user = user.map(|user| format!(r#""user":{},"#, Value::from(user)));
    let context = user.unwrap_or_default() + &presence.unwrap_or_default();
    format!(r#"{{{context}"event":{event}}}"#)
}

/// Returns a line in hex. A user's name cannot contain a tab.
fn hex_line(user: Option<&str>, envelope: &Bytes) -> String {
    let user = user.map(|user| format!("{user}\t")).unwrap_or_default();
    let digits: String = envelope.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{user}{digits}")
}
