//! Warnings about parts of a usable schema that are probably mistakes, and notes with
//! useful facts about it.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

use super::{
    Schema,
    annotations::{Annotations, DeclaredField, TopicSource},
    relay_fields::is_relay_number,
    report::SchemaReport,
    table::RoutingTable,
};
use crate::topic::USER_KIND;

/// The inputs of the checks.
pub(super) struct SchemaLinter<'a> {
    pub(super) schema: &'a Schema,
    pub(super) annotations: &'a Annotations,
    /// The messages that an envelope can contain, by their indexes in the table.
    pub(super) messages: &'a [MessageDescriptor],
    /// True if calls that post events name the topics, so that events need no annotation.
    pub(super) topics_in_calls: bool,
}

impl SchemaLinter<'_> {
    /// Reports warnings. If there are no errors it also runs the other checks; while there
    /// are errors, their findings might concern declarations that are about to change.
    pub(super) fn report_findings(&self, report: &mut SchemaReport) {
        let pool = self.schema.envelope.parent_pool();
        // Without the oneof `payload`, the checks of payloads have no basis.
        if !self.schema.payloads.is_empty() {
            self.check_events(report);
            self.check_payload_options(pool, report);
        }
        if !report.has_errors() {
            self.check_required(report);
            self.check_unreachable(pool, report);
            self.check_kinds(report);
        }
    }

    /// Returns the envelope's fields that are the application's payloads.
    fn event_fields(&self) -> Vec<FieldDescriptor> {
        let payloads = self.schema.payloads.iter();
        payloads
            .filter(|payload| payload.kind.is_event())
            .filter(|payload| !is_relay_number(payload.number))
            .filter_map(|payload| self.schema.envelope.get_field(payload.number))
            .collect()
    }

    fn check_events(&self, report: &mut SchemaReport) {
        let events = self.event_fields();
        if events.is_empty() {
            report.warning(
                &self.schema.envelope,
                format!(
                    "{} has no event: its oneof `payload` holds the relay's messages only",
                    self.schema.envelope.full_name()
                ),
                "add a field to the oneof for each event",
            );
        }
        let envelope = self.schema.table.get(RoutingTable::ENVELOPE);
        let routed_beside = envelope.is_some_and(|envelope| {
            let mut fields = envelope.fields();
            fields.any(|field| field.is_routing && !field.is_payload)
        });
        for event in events.iter().filter(|it| it.kind().as_message().is_some()) {
            let field = envelope.and_then(|envelope| envelope.field(event.number()));
            let is_routed = routed_beside || field.is_some_and(|field| field.is_routing);
            if !is_routed && !self.topics_in_calls {
                report.warning(
                    event,
                    format!("the event {} relates to no topic: nothing in it is annotated", event.name()),
                    "annotate the string fields that hold ids, as in [(sidewire.v1.topic) = \"room\"]; otherwise the event is delivered only if the call that posts it names topics",
                );
            }
            self.check_presence(event, report);
        }
    }

    /// Warns about required fields of proto2, which the relay does not check.
    fn check_required(&self, report: &mut SchemaReport) {
        for message in self.messages {
            let mut required = message.fields().filter(FieldDescriptor::is_required);
            let Some(first) = required.next() else {
                continue;
            };
            let what = match required.count() {
                0 => format!("the required field {}", first.full_name()),
                more => format!("the required field {} and {more} more", first.full_name()),
            };
            report.warning(
                &first,
                format!("{what} of {} may be missing in events: the relay does not check it, and clients that do (Java, Go, C++) fail to read such an event", message.name()),
                "make the field optional, or have every backend set it",
            );
        }
    }

    fn check_presence(&self, event: &FieldDescriptor, report: &mut SchemaReport) {
        let kind = event.kind();
        let Some(message) = kind
            .as_message()
            .filter(|it| self.annotations.is_presence(it))
        else {
            return;
        };
        let fields = self.annotations.annotated_fields(message);
        if !fields.iter().any(|field| field.absent.is_some()) {
            report.warning(
                message,
                format!("{} is a presence message without a field that is annotated with absent, so no one learns that a user has left", message.full_name()),
                "annotate a bool, enum or string field with the value for it, as in `bool gone = 9 [(sidewire.v1.absent) = \"true\"];`",
            );
        }
    }

    /// Warns about payload options on messages that are not payloads.
    fn check_payload_options(&self, pool: &DescriptorPool, report: &mut SchemaReport) {
        let kinds = self.event_fields().into_iter().map(|event| event.kind());
        let payloads: BTreeSet<_> = kinds
            .filter_map(|kind| Some(kind.as_message()?.full_name().to_owned()))
            .collect();
        for message in pool.all_messages() {
            let name = message.full_name();
            if payloads.contains(name) || !self.annotations.is_client_publish(&message) {
                continue;
            }
            let option = if self.annotations.is_presence(&message) {
                "presence"
            } else {
                "client_publish"
            };
            report.warning(
                &message,
                format!(
                    "{name} is annotated with {option}, but it is not an event of {}",
                    self.schema.envelope.full_name()
                ),
                "add it to the oneof `payload`, or remove the annotation",
            );
        }
    }

    /// Notes annotations in messages that no envelope contains.
    fn check_unreachable(&self, pool: &DescriptorPool, report: &mut SchemaReport) {
        let reachable: BTreeSet<_> = self
            .messages
            .iter()
            .map(MessageDescriptor::full_name)
            .collect();
        for message in pool.all_messages() {
            if reachable.contains(message.full_name()) {
                continue;
            }
            let fields = self.annotations.annotated_fields(&message);
            if let Some(field) = fields.iter().find(|field| field.topic.is_some()) {
                report.note(
                    field,
                    format!(
                        "{} is annotated with a topic, but no event contains {}",
                        field.full_name,
                        message.full_name()
                    ),
                    "add the message to an event, or remove the annotation",
                );
            }
        }
    }

    /// Notes the topic kinds that clients cannot name by an id alone.
    fn check_kinds(&self, report: &mut SchemaReport) {
        let lists = self.schema.subscribe.as_slice();
        let mut kinds = self.topic_kinds();
        kinds.retain(|kind, _| kind != USER_KIND && !lists.iter().any(|list| list.kind == *kind));
        if kinds.is_empty() {
            return;
        }
        if lists.is_empty() {
            let names: Vec<_> = kinds.keys().map(|kind| format!("`{kind}`")).collect();
            return report.note(
                &self.schema.envelope,
                format!("Subscribe has no lists of ids, so clients name topics in full; the kinds are {}", names.join(", ")),
                "field 16 of Subscribe takes topics such as `kind:id`; docs/schema.md shows how to add lists",
            );
        }
        for (kind, field) in kinds {
            report.note(
                &field,
                format!("no list of Subscribe is of the topic kind `{kind}`, so clients name such topics in full"),
                format!("field 16 of Subscribe takes `{kind}:id`; to let clients name the id alone, add a list of that kind"),
            );
        }
    }

    /// Returns the topic kinds that events relate to, each with a field that names it.
    fn topic_kinds(&self) -> BTreeMap<String, DeclaredField> {
        let mut kinds = BTreeMap::new();
        for (index, message) in self.messages.iter().enumerate() {
            let Some(known) = self.schema.table.message_at(index) else {
                continue;
            };
            for field in self.annotations.annotated_fields(message) {
                let is_routing = known.field(field.number).is_some_and(|it| it.is_routing);
                if let Some(TopicSource::Kind(kind)) = field.topic.clone()
                    && is_routing
                {
                    kinds.entry(kind).or_insert(field);
                }
            }
        }
        kinds
    }
}
