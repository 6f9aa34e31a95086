//! Rules for where annotations may be used. Every annotation in the pool is checked, even
//! if no event can contain it.

use prost_reflect::{DescriptorPool, EnumDescriptor, Kind, MessageDescriptor};

use super::{
    annotations::{Annotations, DeclaredField, TopicSource},
    relay_fields::type_name,
    report::SchemaReport,
};
use crate::suggest::nearest_name;
use crate::topic::{TENANT_KIND, check_kind};

/// Maximum number of enum values that a hint lists.
const VALUES_SHOWN_MAX: usize = 10;

/// Reports every annotation that has no effect where it is.
pub(super) fn check(pool: &DescriptorPool, annotations: &Annotations, report: &mut SchemaReport) {
    for message in pool.all_messages() {
        let (mut sender, mut absent) = (None, None);
        for field in annotations.annotated_fields(&message) {
            check_topic(&field, report);
            if field.is_sender {
                check_sender(&field, &message, annotations, report);
                check_option_is_unique(&field, "sender", &mut sender, report);
            }
            if let Some(value) = &field.absent {
                check_absent(&field, value, &message, annotations, report);
                check_option_is_unique(&field, "absent", &mut absent, report);
            }
        }
    }
}

fn check_topic(field: &DeclaredField, report: &mut SchemaReport) {
    let Some(source) = &field.topic else {
        return;
    };
    let name = &field.full_name;
    if field.kind != Kind::String {
        let found = type_name(&field.kind, field.is_map);
        return report.error(
            field,
            format!("{name} is annotated with a topic, but it is {found} and not a string"),
            string_hint(field),
        );
    }
    let TopicSource::Kind(kind) = source else {
        return;
    };
    if kind == TENANT_KIND {
        report.error(
            field,
            format!("{name} is annotated with the topic kind `tenant`, which belongs to the relay"),
            "name another kind; an event for the whole tenant is posted with ?topic=tenant:*",
        );
    } else if check_kind(kind).is_err() {
        report.error(
            field,
            format!("{name} is annotated with the topic kind `{kind}`, which is malformed"),
            kind_hint(kind),
        );
    }
}

/// Returns a hint on how to get topics from a field of this type.
fn string_hint(field: &DeclaredField) -> String {
    match &field.kind {
        _ if field.is_map => "annotate a string field of a message that is the map's value; keys and plain values of maps are not routed".to_owned(),
        Kind::Message(message) if message.full_name().starts_with("google.protobuf.") => {
            "add a string field that holds the id, and annotate that: a field of a message of Google's cannot be annotated".to_owned()
        }
        Kind::Message(message) => format!("annotate the string field of {} that holds the id", message.full_name()),
        _ => "add a string field that holds the id as text, and annotate that".to_owned(),
    }
}

/// Returns a hint with the kind that was probably meant.
fn kind_hint(kind: &str) -> String {
    const RULE: &str = "a kind has 1 to 32 lower-case letters, digits and `_`, the first a letter";
    let fixed: String = kind
        .trim_end_matches([':', '*'])
        .chars()
        .map(|letter| match letter {
            '-' | ' ' | '.' | '/' => '_',
            letter => letter.to_ascii_lowercase(),
        })
        .collect();
    if check_kind(&fixed).is_ok() && fixed != TENANT_KIND {
        format!("write `{fixed}`: {RULE}")
    } else {
        format!("{RULE}; `*` is for fields that hold whole topics")
    }
}

fn check_sender(
    field: &DeclaredField,
    message: &MessageDescriptor,
    annotations: &Annotations,
    report: &mut SchemaReport,
) {
    let name = &field.full_name;
    if !annotations.is_client_publish(message) {
        let message = message.full_name();
        report.error(
            field,
            format!("{name} is annotated with sender, but clients cannot send {message}"),
            "remove the annotation, or add `option (sidewire.v1.client_publish) = true;` to the message",
        );
    }
    if field.kind != Kind::String || field.is_repeated {
        report.error(
            field,
            format!("{name} is annotated with sender, but it is not a singular string"),
            "declare it as a string without `repeated`: it holds the id of one user",
        );
    }
    check_oneof(field, "sender", report);
}

fn check_oneof(field: &DeclaredField, option: &str, report: &mut SchemaReport) {
    if let Some(oneof) = &field.oneof {
        report.error(
            field,
            format!(
                "{} is annotated with {option}, but it is a member of the oneof `{oneof}`",
                field.full_name
            ),
            "move it out of the oneof: the relay sets it in addition to the other fields",
        );
    }
}

/// Checks that at most one field of a message has the option.
fn check_option_is_unique(
    field: &DeclaredField,
    option: &str,
    first: &mut Option<String>,
    report: &mut SchemaReport,
) {
    match first {
        Some(first) => report.error(
            field,
            format!(
                "{} is annotated with {option}, and so is {first} of the same message",
                field.full_name
            ),
            "remove one of the two annotations",
        ),
        None => *first = Some(field.name.clone()),
    }
}

fn check_absent(
    field: &DeclaredField,
    value: &str,
    message: &MessageDescriptor,
    annotations: &Annotations,
    report: &mut SchemaReport,
) {
    let name = &field.full_name;
    if !annotations.is_presence(message) {
        let message = message.full_name();
        report.error(
            field,
            format!("{name} is annotated with absent, but {message} is not a presence message"),
            "remove the annotation, or add `option (sidewire.v1.presence) = true;` to the message",
        );
    }
    check_oneof(field, "absent", report);
    if field.is_repeated {
        let what = if field.is_map { "a map" } else { "repeated" };
        return report.error(
            field,
            format!("{name} is annotated with absent, but it is {what}"),
            "annotate a singular enum, bool or string field",
        );
    }
    let hint = match &field.kind {
        Kind::String => return,
        Kind::Bool if matches!(value, "true" | "false") => return,
        Kind::Bool => "write \"true\" or \"false\"".to_owned(),
        Kind::Enum(kind) if kind.get_value_by_name(value).is_some() => return,
        Kind::Enum(kind) => value_hint(kind, value),
        kind => {
            let found = type_name(kind, false);
            return report.error(
                field,
                format!("{name} is annotated with absent, but it is {found}"),
                "annotate a singular enum, bool or string field",
            );
        }
    };
    report.error(
        field,
        format!("{name} is annotated with absent = `{value}`, and its type has no such value"),
        hint,
    );
}

fn value_hint(kind: &EnumDescriptor, value: &str) -> String {
    let values: Vec<_> = kind.values().map(|value| value.name().to_owned()).collect();
    if let Some(near) = nearest_name(value, values.iter().map(String::as_str)) {
        return format!("did you mean `{near}`?");
    }
    let shown: Vec<_> = values.iter().take(VALUES_SHOWN_MAX).cloned().collect();
    let more = if values.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("{} has {}{more}", kind.full_name(), shown.join(", "))
}
