//! Compiles descriptors to a [`Schema`] and checks everything that the relay relies on
//! later. All rules are applied, so that all errors are reported at once.

use std::{collections::HashMap, time::Duration};

use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::{
    Schema,
    advice::SchemaLinter,
    annotation_rules,
    annotations::Annotations,
    client_event::ClientEventType,
    diagnostic::{Diagnostic, SchemaError},
    json::JsonBounds,
    lists::IdLists,
    outline::SchemaOutline,
    payload::PayloadType,
    relay_fields::{PAYLOAD, message_of, number},
    relay_rules,
    report::SchemaReport,
    revision::SchemaRevision,
    sender_rules,
    table::RoutingTable,
};
use crate::suggest::nearest_name;

/// The input of the compilation of a schema.
pub(super) struct SchemaDraft<'a> {
    pub(super) pool: &'a DescriptorPool,
    /// The envelope's full name.
    pub(super) envelope: &'a str,
    /// True if calls that post events name the topics, so that events need no annotation.
    pub(super) topics_in_calls: bool,
    /// The findings from reading the files.
    pub(super) report: SchemaReport,
}

impl SchemaDraft<'_> {
    /// Builds the schema.
    ///
    /// # Errors
    ///
    /// Fails if a rule is broken. The error contains all findings.
    pub(super) fn compile(self) -> Result<Schema, SchemaError> {
        let mut report = self.report;
        let annotations = Annotations::find_in_pool(self.pool, &mut report);
        annotation_rules::check(self.pool, &annotations, &mut report);
        check_extension_numbers(self.pool, &mut report);
        let Some(envelope) = self.pool.get_message_by_name(self.envelope) else {
            // With errors, the message may be in a broken file.
            let is_certain = !report.has_errors();
            if is_certain {
                report.error_of_schema(no_envelope(self.pool, self.envelope));
            }
            return Err(report.into_error());
        };
        if relay_rules::is_foreign(&envelope) {
            relay_rules::refuse_foreign(&envelope, &mut report);
            return Err(report.into_error());
        }
        relay_rules::check(&envelope, &annotations, &mut report);
        let (schema, messages) = build_schema(envelope, &annotations, &mut report);
        let advice = SchemaLinter {
            schema: &schema,
            annotations: &annotations,
            messages: &messages,
            topics_in_calls: self.topics_in_calls,
        };
        advice.report_findings(&mut report);
        Ok(Schema {
            diagnostics: report.finish()?,
            ..schema
        })
    }
}

/// Refuses two extensions of a message with one number, which protoc refuses but protox does not:
/// the relay and its libraries could read a field as different ones. Options are left to
/// `annotation_rules`.
fn check_extension_numbers(pool: &DescriptorPool, report: &mut SchemaReport) {
    let mut known = HashMap::new();
    for extension in pool.all_extensions() {
        let message = extension.containing_message().full_name().to_owned();
        if message.starts_with("google.protobuf.") {
            continue;
        }
        let number = extension.number();
        let name = extension.full_name().to_owned();
        if let Some(other) = known.insert((message.clone(), number), name) {
            report.error(
                &extension,
                format!("{message} has two extensions with the number {number}: this and {other}"),
                "give each extension of a message a number of its own",
            );
        }
    }
}

fn build_schema(
    envelope: MessageDescriptor,
    annotations: &Annotations,
    report: &mut SchemaReport,
) -> (Schema, Vec<MessageDescriptor>) {
    let (table, messages) = RoutingTable::from_envelope(&envelope, annotations, report);
    let subscribe = (number::SUBSCRIBE, number::SUBSCRIPTION_CONFIRMED);
    let unsubscribe = (number::UNSUBSCRIBE, number::UNSUBSCRIBE_CONFIRMED);
    let payloads = PayloadType::of_envelope(&envelope, annotations);
    sender_rules::check(&envelope, &payloads, annotations, report);
    let schema = Schema {
        table,
        client_events: ClientEventType::of_envelope(&envelope, &payloads, annotations),
        payloads,
        subscribe: id_lists(&envelope, annotations, subscribe, report),
        unsubscribe: id_lists(&envelope, annotations, unsubscribe, report),
        batch: message_of(&envelope, number::BATCH),
        json_bounds: JsonBounds::of_envelope(&envelope),
        revision: SchemaRevision::of_outline(&SchemaOutline::of_envelope(&envelope, annotations)),
        annotations: annotations.clone(),
        envelope,
        diagnostics: Vec::new(),
        compile_time: Duration::ZERO,
    };
    (schema, messages)
}

/// Returns the id lists of the request and confirmation with these numbers.
fn id_lists(
    envelope: &MessageDescriptor,
    annotations: &Annotations,
    (request, confirmation): (u32, u32),
    report: &mut SchemaReport,
) -> IdLists {
    let messages = (
        message_of(envelope, request),
        message_of(envelope, confirmation),
    );
    match messages {
        (Some(request), Some(confirmation)) => {
            IdLists::from_messages(&request, &confirmation, annotations, report)
        }
        // `relay_rules` has reported the missing message.
        _ => IdLists::default(),
    }
}

fn no_envelope(pool: &DescriptorPool, name: &str) -> Diagnostic {
    let hint = match nearest_envelope(pool, name) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "give the full name of the message with the oneof `payload`, package included"
            .to_owned(),
    };
    Diagnostic::error(format!(
        "there is no message `{name}` to use as the envelope"
    ))
    .with_hint(hint)
}

/// Returns the message that was probably meant: one with the same name in another package,
/// else the most similar name, else the only one with a oneof `payload`.
fn nearest_envelope(pool: &DescriptorPool, name: &str) -> Option<String> {
    let messages: Vec<_> = pool
        .all_messages()
        .filter(|message| !message.is_map_entry())
        .filter(|message| !message.full_name().starts_with("google.protobuf."))
        .collect();
    let short = |name: &str| name.rsplit('.').next().unwrap_or_default().to_lowercase();
    let namesake = messages
        .iter()
        .find(|it| short(it.full_name()) == short(name));
    if let Some(namesake) = namesake {
        return Some(namesake.full_name().to_owned());
    }
    let names = messages.iter().map(MessageDescriptor::full_name);
    if let Some(near) = nearest_name(name, names) {
        return Some(near.to_owned());
    }
    let mut carriers = messages
        .iter()
        .filter(|message| message.oneofs().any(|oneof| oneof.name() == PAYLOAD));
    match (carriers.next(), carriers.next()) {
        (Some(only), None) => Some(only.full_name().to_owned()),
        _ => None,
    }
}
