//! The relay's requirements for an envelope: its own fields as it expects them, no other
//! fields with their numbers, and only messages as payloads.

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};

use super::{
    annotations::{Annotations, DeclaredField},
    relay_fields::{
        BATCH, LIST_NUMBERS, OPTIONAL_PAYLOADS, PAYLOAD, PAYLOADS, PLAIN, RelayField,
        RelayFieldType, WITHIN, is_relay_number, message_of, number, type_name,
    },
    report::SchemaReport,
};

/// The file that a schema imports for the relay's messages.
const RELAY_FILE: &str = "sidewire/v1/relay.proto";

/// Hints on the numbers that a schema's own fields may have.
const FREE_IN_ENVELOPE: &str = "use a number of 2 to 7, or of 32 and above";
const FREE_IN_LISTS: &str = "use a number of 1 to 15";

/// Returns true if the message was not written for the relay: it uses some of the relay's
/// numbers, but none of them for a message of the relay's protocol.
pub(super) fn is_foreign(envelope: &MessageDescriptor) -> bool {
    let has = |wanted: &RelayField| {
        let field = envelope.get_field(wanted.number);
        field.is_some_and(|field| field.name() == wanted.name)
    };
    let known = || {
        let optional = OPTIONAL_PAYLOADS.iter().chain([&BATCH]);
        PLAIN.iter().chain(&PAYLOADS).chain(optional)
    };
    let mut fields = envelope.fields();
    let conflicts = fields.any(|field| {
        is_relay_number(field.number()) && !known().any(|it| it.number == field.number() && has(it))
    });
    conflicts && !PAYLOADS.iter().any(has)
}

/// Reports an envelope that was not written for the relay. Its fields are not checked,
/// because following the advice for each of them would change it into a different message.
pub(super) fn refuse_foreign(envelope: &MessageDescriptor, report: &mut SchemaReport) {
    let name = envelope.full_name();
    report.error(
        envelope,
        format!("{name} is not an envelope of the relay: it has fields of its own with the relay's numbers (1 and 8 to 31), and none of the relay's messages"),
        format!("leave {name} as it is, and write an envelope that carries it as an event, with `{name} message = 2;` in its oneof `payload`; docs/schema.md has an envelope to copy"),
    );
}

/// Checks that the envelope has the relay's fields and no other fields with the relay's
/// numbers.
pub(super) fn check(
    envelope: &MessageDescriptor,
    annotations: &Annotations,
    report: &mut SchemaReport,
) {
    let rules = EnvelopeRules {
        envelope,
        annotations,
        has_payload: envelope.oneofs().any(|oneof| oneof.name() == PAYLOAD),
    };
    rules.check_oneof_exists(report);
    for wanted in &PLAIN {
        rules.check_plain(wanted, report);
    }
    for wanted in &PAYLOADS {
        rules.check_payload(wanted, report);
    }
    rules.check_renewal(report);
    if envelope.get_field(number::BATCH).is_some() {
        rules.check_payload(&BATCH, report);
    }
    rules.check_batch(report);
    rules.check_own_fields(report);
}

struct EnvelopeRules<'a> {
    envelope: &'a MessageDescriptor,
    annotations: &'a Annotations,
    /// True if the envelope has the oneof `payload`.
    has_payload: bool,
}

impl EnvelopeRules<'_> {
    fn check_oneof_exists(&self, report: &mut SchemaReport) {
        if self.has_payload {
            return;
        }
        let other = self.envelope.oneofs().find(|oneof| {
            let mut fields = oneof.fields();
            fields.any(|field| PAYLOADS.iter().any(|it| it.number == field.number()))
        });
        let message = format!(
            "{} has no oneof `payload`, which holds the relay's messages and your events",
            self.envelope.full_name()
        );
        match other {
            Some(oneof) => {
                let hint = format!("rename the oneof `{}` to `payload`", oneof.name());
                report.error(&oneof, message, hint);
            }
            None => report.error(
                self.envelope,
                message,
                "declare `oneof payload { … }` with the fields 10 to 16 of the relay and one field for each event",
            ),
        }
    }

    fn check_plain(&self, wanted: &RelayField, report: &mut SchemaReport) {
        let Some(field) = check_field(self.envelope, wanted, FREE_IN_ENVELOPE, report) else {
            return;
        };
        if let Some(oneof) = real_oneof(&field) {
            report.error(
                &field,
                format!(
                    "{} is a member of the oneof `{oneof}`, but it must be outside of any oneof",
                    field.full_name()
                ),
                "move it out of the oneof",
            );
        }
        self.check_within(wanted.number, report);
    }

    /// Returns true if the field is there and has the right name and type.
    fn check_payload(&self, wanted: &RelayField, report: &mut SchemaReport) -> bool {
        let Some(field) = check_field(self.envelope, wanted, FREE_IN_ENVELOPE, report) else {
            return false;
        };
        if self.has_payload && real_oneof(&field).as_deref() != Some(PAYLOAD) {
            report.error(
                &field,
                format!(
                    "{} is not a member of the oneof `payload`",
                    field.full_name()
                ),
                "move it into the oneof",
            );
        }
        self.check_within(wanted.number, report);
        true
    }

    /// Checks the payloads with which tokens are renewed. Neither is of use without the other.
    fn check_renewal(&self, report: &mut SchemaReport) {
        let is_declared = |it: &&RelayField| self.envelope.get_field(it.number).is_some();
        let (declared, missing): (Vec<_>, Vec<_>) = OPTIONAL_PAYLOADS.iter().partition(is_declared);
        for wanted in declared {
            if self.check_payload(wanted, report) {
                for counterpart in &missing {
                    self.check_payload(counterpart, report);
                }
            }
        }
    }

    /// Checks that a message that the relay reads or writes has the relay's fields and
    /// otherwise only the schema's lists.
    fn check_within(&self, number: u32, report: &mut SchemaReport) {
        let wanted = WITHIN.iter().find(|(within, _)| *within == number);
        let message = message_of(self.envelope, number);
        let (Some((_, wanted)), Some(message)) = (wanted, message) else {
            return;
        };
        for field in *wanted {
            check_field(&message, field, FREE_IN_LISTS, report);
        }
        for field in self.annotations.annotated_fields(&message) {
            if LIST_NUMBERS.contains(&field.number) {
                continue;
            }
            if wanted.iter().any(|it| it.number == field.number) {
                refuse_topic(&field, report);
            } else {
                refuse_number(&field, FREE_IN_LISTS, report);
            }
        }
    }

    /// Checks that field 17, if it exists, is a batch of envelopes.
    fn check_batch(&self, report: &mut SchemaReport) {
        let Some(batch) = message_of(self.envelope, number::BATCH) else {
            return;
        };
        let fits = batch.get_field(1).is_some_and(|messages| {
            messages.is_list()
                && messages.name() == "messages"
                && messages.json_name() == "messages"
                && messages.kind().as_message() == Some(self.envelope)
        });
        if !fits {
            let envelope = self.envelope.full_name();
            report.error(
                &batch,
                format!("{} is the batch, so it needs `repeated {envelope} messages = 1`", batch.full_name()),
                "declare that field, or remove the envelope's field 17, which is for backends that post batches",
            );
        }
    }

    /// Checks the application's own fields: they must not have the relay's numbers, must
    /// not be required, and must be messages if they are payloads.
    fn check_own_fields(&self, report: &mut SchemaReport) {
        let fields = self.annotations.annotated_fields(self.envelope);
        for field in &fields {
            let known = PLAIN.iter().chain(&PAYLOADS).chain(&OPTIONAL_PAYLOADS);
            let is_known = known.chain([&BATCH]).any(|it| it.number == field.number);
            if is_relay_number(field.number) {
                if is_known {
                    refuse_topic(field, report);
                } else {
                    refuse_number(field, FREE_IN_ENVELOPE, report);
                }
            }
            let is_payload = field.oneof.as_deref() == Some(PAYLOAD);
            if is_payload && field.kind.as_message().is_none() && !is_known {
                report.error(
                    field,
                    format!(
                        "{} is a payload, but it is {} and not a message",
                        field.full_name,
                        type_name(&field.kind, field.is_map)
                    ),
                    "declare a message with this value in it: each payload is a message",
                );
            }
        }
        for field in self.envelope.fields() {
            if field.cardinality() == Cardinality::Required {
                report.error(
                    &field,
                    format!(
                        "{} is required, and the relay sends envelopes without it",
                        field.full_name()
                    ),
                    "make it optional",
                );
            }
        }
    }
}

/// Returns the field with the number of one of the relay's fields, if it is declared as the
/// relay expects. Reports it otherwise.
fn check_field(
    message: &MessageDescriptor,
    wanted: &RelayField,
    free: &str,
    report: &mut SchemaReport,
) -> Option<FieldDescriptor> {
    let Some(field) = message.get_field(wanted.number) else {
        report.error(
            message,
            format!(
                "{} has no field `{wanted}`, which the relay needs",
                message.full_name()
            ),
            missing_hint(message, wanted),
        );
        return None;
    };
    let repeated = field.cardinality() == Cardinality::Repeated;
    let has_type = repeated == wanted.repeated && wanted.kind.fits_kind(&field.kind());
    if has_type && field.name() == wanted.name {
        return Some(field);
    }
    let found = declaration_of(&field);
    let hint = if field.name() != wanted.name && !has_type {
        format!(
            "{free} for it, and declare `{}`",
            to_declare(message, wanted)
        )
    } else {
        format!("declare it as `{}`", to_declare(message, wanted))
    };
    report.error(
        &field,
        format!(
            "{} is `{found}`, and the relay needs `{wanted}`",
            field.full_name()
        ),
        hint,
    );
    None
}

fn missing_hint(message: &MessageDescriptor, wanted: &RelayField) -> String {
    if let Some(field) = message.get_field_by_name(wanted.name) {
        return format!(
            "{} has the number {}; give it the number {}",
            wanted.name,
            field.number(),
            wanted.number
        );
    }
    let place = if PAYLOADS
        .iter()
        .chain(&OPTIONAL_PAYLOADS)
        .any(|it| it.number == wanted.number && it.name == wanted.name)
    {
        " to its oneof `payload`"
    } else {
        ""
    };
    let import = if uses_relay_message(wanted.kind) && !imports_relay(message) {
        format!(", and `import \"{RELAY_FILE}\";` to its file")
    } else {
        String::new()
    };
    format!("add `{};`{place}{import}", to_declare(message, wanted))
}

/// Returns the declaration to suggest. A schema without its own subscription messages uses
/// the relay's; a message that is already declared there is kept.
fn to_declare(message: &MessageDescriptor, wanted: &RelayField) -> String {
    let own = message_of(message, wanted.number).map(|own| own.full_name().to_owned());
    let kind = match wanted.kind {
        RelayFieldType::Own(_) if own.is_some() => own.unwrap_or_default(),
        RelayFieldType::Own(name) if wanted.number != number::BATCH => {
            format!("sidewire.v1.{name}")
        }
        _ => return with_label(message, wanted.to_string()),
    };
    with_label(
        message,
        format!("{kind} {} = {}", wanted.name, wanted.number),
    )
}

/// Adds the label that proto2 requires for a singular field outside of a oneof.
fn with_label(message: &MessageDescriptor, declaration: String) -> String {
    let is_proto2 = message.parent_file().syntax() == prost_reflect::Syntax::Proto2;
    let is_member = PAYLOADS
        .iter()
        .chain(&OPTIONAL_PAYLOADS)
        .chain([&BATCH])
        .any(|it| declaration.ends_with(&format!(" {} = {}", it.name, it.number)));
    if is_proto2 && !is_member && !declaration.starts_with("repeated ") {
        format!("optional {declaration}")
    } else {
        declaration
    }
}

fn uses_relay_message(kind: RelayFieldType) -> bool {
    matches!(kind, RelayFieldType::Own(_) | RelayFieldType::Message(_))
}

fn imports_relay(message: &MessageDescriptor) -> bool {
    let file = message.parent_file();
    file.name() == RELAY_FILE || file.dependencies().any(|it| it.name() == RELAY_FILE)
}

/// Returns the declaration of the field in .proto syntax.
fn declaration_of(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        _ if field.is_map() => "map<…>".to_owned(),
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        kind => format!("{kind:?}"),
    };
    let label = if field.is_list() { "repeated " } else { "" };
    format!("{label}{kind} {} = {}", field.name(), field.number())
}

/// Returns the oneof that contains the field; `None` for `optional`.
fn real_oneof(field: &FieldDescriptor) -> Option<String> {
    let oneof = field.containing_oneof()?;
    (!oneof.is_synthetic()).then(|| oneof.name().to_owned())
}

fn refuse_number(field: &DeclaredField, free: &str, report: &mut SchemaReport) {
    report.error(
        field,
        format!(
            "{} has the number {}, which is reserved for the relay",
            field.full_name, field.number
        ),
        free,
    );
}

/// Reports a topic annotation on one of the relay's fields, which are not used for routing.
fn refuse_topic(field: &DeclaredField, report: &mut SchemaReport) {
    if field.topic.is_some() {
        report.error(
            field,
            format!(
                "{} is annotated with a topic, but it is the relay's own field and is not routed",
                field.full_name
            ),
            "remove the annotation",
        );
    }
}
