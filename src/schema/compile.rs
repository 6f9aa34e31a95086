//! From descriptors to a [`Schema`], with everything checked that the relay
//! counts on later.

use std::time::Duration;

use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::{
    Schema,
    annotations::Annotations,
    diagnostic::{Diagnostic, Diagnostics, SchemaError},
    json::JsonBounds,
    lists::IdLists,
    outline::Outline,
    payload::PayloadType,
    relay_fields::{self, message_of, number},
    revision::Revision,
    table::Table,
};

/// Why descriptors are no schema for the relay.
#[derive(Debug, thiserror::Error)]
pub(super) enum Flaw {
    /// No message has the envelope's name.
    #[error(
        "there is no message `{name}` to be the envelope; give its full name, package included"
    )]
    NoEnvelope {
        /// The name that was asked for.
        name: String,
    },
    /// A message lacks one of the relay's fields.
    #[error("{message} lacks the relay's field `{wanted}`")]
    Missing {
        /// The message.
        message: String,
        /// How the field is to be declared.
        wanted: String,
    },
    /// One of the relay's fields is declared otherwise.
    #[error("{field} must be declared as `{wanted}`")]
    Mismatch {
        /// The field.
        field: String,
        /// How it is to be declared.
        wanted: String,
    },
    /// A payload of the relay's stands outside the oneof.
    #[error("{field} must be a member of `oneof payload`")]
    OutsidePayload {
        /// The field.
        field: String,
    },
    /// A field of the relay's that is not a payload is a member of a oneof.
    #[error("{field} must not be a member of a oneof")]
    InsideOneof {
        /// The field.
        field: String,
    },
    /// The application uses a number that belongs to the relay.
    #[error(
        "{field} has a number that belongs to the relay: \
         1 and 8 to 31 in the envelope, 16 and above in the subscription messages"
    )]
    ReservedNumber {
        /// The field.
        field: String,
    },
    /// A member of the oneof is no message.
    #[error("{field} is a payload, so it must be a message")]
    PayloadNotMessage {
        /// The field.
        field: String,
    },
    /// Field 17 is no batch.
    #[error("{field} must be a message with `repeated {envelope} messages = 1`")]
    Batch {
        /// The field.
        field: String,
        /// The envelope.
        envelope: String,
    },
    /// An option of the relay's is declared otherwise than in its own file.
    #[error("the option {name} is not the one of sidewire/v1/options.proto; import that file")]
    ForeignOption {
        /// The option.
        name: String,
    },
    /// An annotation names what cannot be a kind.
    #[error(
        "{field} is annotated with the topic kind `{kind}`, which must match [a-z][a-z0-9_]{{0,31}}"
    )]
    BadKind {
        /// The field.
        field: String,
        /// What was given as a kind.
        kind: String,
    },
    /// An annotation names the kind that no event can choose.
    #[error("{field} is annotated with the topic kind `tenant`, which is the relay's own")]
    TenantKind {
        /// The field.
        field: String,
    },
    /// An annotation stands on something else than text.
    #[error("{field} is annotated with a topic, so it must be a string or a repeated string")]
    TopicNotString {
        /// The field.
        field: String,
    },
    /// The sender's annotation stands where the relay cannot put the sender.
    #[error(
        "{field} is annotated with sender, so it must be a string, not repeated, of a message with client_publish"
    )]
    BadSender {
        /// The field.
        field: String,
    },
    /// The value that means "not there" is declared where the relay cannot set it.
    #[error(
        "{field} is annotated with absent = `{value}`, so it must be a singular enum, bool or string field of a message with presence, in no oneof, and have that value"
    )]
    BadAbsent {
        /// The field.
        field: String,
        /// The value.
        value: String,
    },
    /// A field of a subscription message is neither a list of ids nor the
    /// relay's.
    #[error(
        "{field} must be a repeated string annotated with a topic, numbered 1 to 15, or one of the relay's fields"
    )]
    BadList {
        /// The field.
        field: String,
    },
    /// A list is of a kind to which nobody can subscribe.
    #[error("{field} lists topics of the kind `{kind}`, to which clients cannot subscribe")]
    ImplicitList {
        /// The field.
        field: String,
        /// The kind.
        kind: String,
    },
    /// A list cannot be confirmed.
    #[error("{message} must have a repeated string number {number}, to confirm {list}")]
    Unconfirmed {
        /// The confirmation.
        message: String,
        /// The list's number.
        number: u32,
        /// The list.
        list: String,
    },
    /// A message that events are made of has a group in it.
    #[error("{field} is a group; the relay takes no groups, declare a message")]
    Group {
        /// The field.
        field: String,
    },
    /// A message that events are made of has an `Any` in it.
    #[error(
        "{field} is a google.protobuf.Any, and the relay could not see which topics are in it; declare a oneof"
    )]
    Any {
        /// The field.
        field: String,
    },
}

/// Builds the schema whose envelope has this full name, after `found` in the files.
pub(super) fn compile(
    pool: &DescriptorPool,
    envelope: &str,
    mut found: Diagnostics,
) -> Result<Schema, SchemaError> {
    // What is not found may be in a file that is broken.
    let may_be_missing = found.has_errors() && pool.get_message_by_name(envelope).is_none();
    let schema = build(pool, envelope).map_err(|flaw| Diagnostic::error(flaw.to_string()));
    if let Err(flaw) = &schema
        && !may_be_missing
    {
        found.push(flaw.clone());
    }
    found.finish()?;
    Ok(schema?)
}

fn build(pool: &DescriptorPool, envelope: &str) -> Result<Schema, Flaw> {
    let envelope = pool
        .get_message_by_name(envelope)
        .ok_or_else(|| Flaw::NoEnvelope {
            name: envelope.to_owned(),
        })?;
    relay_fields::check(&envelope)?;
    let annotations = Annotations::of(pool)?;
    Ok(Schema {
        table: Table::of(&envelope, &annotations)?,
        payloads: PayloadType::all(&envelope, &annotations),
        subscribe: lists(
            &envelope,
            &annotations,
            number::SUBSCRIBE,
            number::SUBSCRIPTION_CONFIRMED,
        )?,
        unsubscribe: lists(
            &envelope,
            &annotations,
            number::UNSUBSCRIBE,
            number::UNSUBSCRIBE_CONFIRMED,
        )?,
        batch: message_of(&envelope, number::BATCH),
        json_bounds: JsonBounds::of(&envelope),
        revision: Revision::of(&Outline::of(&envelope, &annotations)),
        annotations,
        compile_time: Duration::ZERO,
        envelope,
    })
}

/// The lists of the request and confirmation of these numbers.
fn lists(
    envelope: &MessageDescriptor,
    annotations: &Annotations,
    request: u32,
    confirmation: u32,
) -> Result<IdLists, Flaw> {
    let messages = (
        message_of(envelope, request),
        message_of(envelope, confirmation),
    );
    match messages {
        (Some(request), Some(confirmation)) => IdLists::of(&request, &confirmation, annotations),
        // `relay_fields::check` has seen both.
        _ => Ok(IdLists::default()),
    }
}
