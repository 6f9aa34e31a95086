//! The schema's own lists of ids in Subscribe and Unsubscribe: fields 1 to 15, each for one
//! topic kind.

use prost_reflect::{Kind, MessageDescriptor};

use crate::topic::USER_KIND;

use super::{
    annotations::{Annotations, DeclaredField, TopicSource},
    built_in::is_built_in,
    error::{WireError, WireFault},
    relay_fields::{LIST_NUMBERS, TOPICS_LIST},
    report::SchemaReport,
    wire::{RawField, WireFields, WireType, utf8_text},
};

/// A list of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdList {
    /// The field number, in the request and in the confirmation.
    pub number: u32,
    /// The field name in the request.
    pub name: String,
    /// The topic kind of the ids that it holds.
    pub kind: String,
}

/// The lists of one request, sorted by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdLists(Vec<IdList>);

/// The topics that a request names.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedTopics<'s, 'a> {
    /// Number of ids and whole topics in the request.
    pub count: usize,
    /// The ids of each list, in their original order.
    pub ids: Vec<(&'s IdList, Vec<&'a str>)>,
    /// The whole topics, in their original order.
    pub topics: Vec<&'a str>,
}

impl IdLists {
    /// Returns the lists, sorted by number.
    #[must_use]
    pub fn as_slice(&self) -> &[IdList] {
        &self.0
    }

    /// Returns the topics that the payload names. Those beyond `max` are only counted.
    ///
    /// # Errors
    ///
    /// Fails if the payload is malformed, which [`Schema::inspect`] detects as well.
    ///
    /// [`Schema::inspect`]: super::Schema::inspect
    pub fn named_topics<'a>(
        &self,
        payload: &'a [u8],
        max: usize,
    ) -> Result<NamedTopics<'_, 'a>, WireError> {
        let mut named = NamedTopics {
            count: 0,
            ids: self.0.iter().map(|list| (list, Vec::new())).collect(),
            topics: Vec::new(),
        };
        for field in WireFields::new(payload, &(0..payload.len())) {
            let field = field?;
            let list = named.ids.iter_mut().find(|it| it.0.number == field.number);
            let (name, texts) = match list {
                Some((list, ids)) => (&*list.name, ids),
                None if field.number == TOPICS_LIST => ("topics", &mut named.topics),
                None => continue,
            };
            named.count += 1;
            if named.count <= max {
                let text = read_text(payload, &field)
                    .map_err(|error| error.in_field(name, Some(texts.len())))?;
                texts.push(text);
            }
        }
        Ok(named)
    }

    /// Returns the id lists that the request declares. Reports each that is malformed or that the
    /// confirmation does not declare in the same form.
    pub(super) fn from_messages(
        request: &MessageDescriptor,
        confirmation: &MessageDescriptor,
        annotations: &Annotations,
        report: &mut SchemaReport,
    ) -> Self {
        let mut lists = Vec::new();
        for field in annotations.annotated_fields(request) {
            // Other numbers belong to the relay; `relay_rules` checks them.
            if LIST_NUMBERS.contains(&field.number) {
                lists.extend(parse_list(&field, report));
                check_confirmation(&field, confirmation, report);
            }
        }
        lists.sort_by_key(|list: &IdList| list.number);
        Self(lists)
    }
}

fn read_text<'a>(payload: &'a [u8], field: &RawField) -> Result<&'a str, WireError> {
    match field.wire_type {
        WireType::Delimited => utf8_text(payload, &field.value),
        _ => Err(WireError::new(WireFault::Mistyped, field.whole.start)),
    }
}

fn parse_list(field: &DeclaredField, report: &mut SchemaReport) -> Option<IdList> {
    let name = &field.full_name;
    if field.kind != Kind::String || !field.is_repeated {
        // `annotation_rules` reports an annotation on a field that is not a string.
        if field.kind == Kind::String || field.topic.is_none() {
            report.error(
                field,
                format!("{name} must be a `repeated string`, because it is a list of ids"),
                format!(
                    "declare it as `repeated string {} = {}` with a topic annotation",
                    field.name, field.number
                ),
            );
        }
        return None;
    }
    let (message, hint) = match &field.topic {
        Some(TopicSource::Kind(kind)) if kind == USER_KIND => (
            format!("{name} lists topics of the kind `{kind}`, to which clients cannot subscribe"),
            "remove it: every connection has the topics of its own user",
        ),
        Some(TopicSource::Kind(kind)) => {
            return Some(IdList {
                number: field.number,
                name: field.name.clone(),
                kind: kind.clone(),
            });
        }
        Some(TopicSource::Whole) => (
            format!(
                "{name} is a list of ids, so its topic annotation must name a kind and not `*`"
            ),
            "remove it: field 16 is the list of whole topics",
        ),
        None => (
            format!("{name} is a list of ids, but no topic annotation names their kind"),
            "annotate it, as in [(sidewire.v1.topic) = \"room\"]",
        ),
    };
    report.error(field, message, hint);
    None
}

fn check_confirmation(
    list: &DeclaredField,
    confirmation: &MessageDescriptor,
    report: &mut SchemaReport,
) {
    let Some(field) = confirmation.get_field(list.number) else {
        if is_built_in(confirmation.parent_file().name()) {
            let built_in = confirmation.full_name();
            return report.error(
                list,
                format!("{} cannot be confirmed, because {built_in} has no lists", list.full_name),
                format!("declare a message of your own with the fields of {built_in} and `repeated string {} = {};`", list.name, list.number),
            );
        }
        return report.error(
            confirmation,
            format!(
                "{} has no field {}, which confirms {}",
                confirmation.full_name(),
                list.number,
                list.full_name
            ),
            format!("add `repeated string {} = {};`", list.name, list.number),
        );
    };
    if !field.is_list() || field.kind() != Kind::String {
        report.error(
            &field,
            format!(
                "{} must be a `repeated string`, because it confirms {}",
                field.full_name(),
                list.full_name
            ),
            format!(
                "declare it as `repeated string {} = {}`",
                field.name(),
                list.number
            ),
        );
    }
}
