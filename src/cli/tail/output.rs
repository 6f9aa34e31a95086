//! What `sidewire tail` prints of an event.

use std::{fmt, io::Write};

use bytes::Bytes;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::filter::Filter;
use crate::{
    cli::{Failure, write_result},
    client::Event,
};

/// How an event is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As JSON, in one line.
    Json,
    /// As JSON, indented.
    Pretty,
    /// The bytes of its envelope as hexadecimal digits, in one line.
    Hex,
}

/// Where events are printed, and how.
pub(super) struct Output<'a, D, W> {
    pub(super) format: Format,
    pub(super) filter: Filter,
    pub(super) decode: D,
    pub(super) out: &'a mut W,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Printed {
    /// It was printed.
    Yes,
    /// The filter held it back, or the schema could not decode it.
    No,
    /// The reader of the output is gone.
    Unread,
}

impl<D, E, W> Output<'_, D, W>
where
    D: Fn(&[u8]) -> Result<Value, E>,
    E: fmt::Display,
    W: Write,
{
    /// Prints the event, if the filter lets it through. `user` is the user who received it, if
    /// there are several.
    pub(super) fn print(&mut self, user: Option<&str>, event: &Event) -> Result<Printed, Failure> {
        let needs_json = self.format != Format::Hex || !self.filter.is_empty();
        let json = if needs_json {
            match (self.decode)(&event.envelope) {
                Ok(json) => json,
                Err(error) => {
                    let message_id = &event.message_id;
                    tracing::error!(
                        user,
                        message_id,
                        "the schema cannot decode an event: {error}"
                    );
                    return Ok(Printed::No);
                }
            }
        } else {
            Value::Null
        };
        if needs_json && !self.filter.lets_through(&json) {
            return Ok(Printed::No);
        }
        let text = match self.format {
            Format::Hex => hex_line(user, &event.envelope),
            Format::Json => of_user(user, json).to_string(),
            Format::Pretty => format!("{:#}", of_user(user, json)),
        };
        let is_read = write_result(self.out, &text)?;
        Ok(if is_read {
            Printed::Yes
        } else {
            Printed::Unread
        })
    }
}

fn of_user(user: Option<&str>, event: Value) -> Value {
    match user {
        Some(user) => json!({"user": user, "event": event}),
        None => event,
    }
}

/// One line in hex. A user's name cannot contain a tab.
fn hex_line(user: Option<&str>, envelope: &Bytes) -> String {
    let user = user.map(|user| format!("{user}\t")).unwrap_or_default();
    let digits: String = envelope.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{user}{digits}")
}
