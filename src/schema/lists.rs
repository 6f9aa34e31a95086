//! The schema's own lists of ids in Subscribe and Unsubscribe: the numbers 1 to
//! 15, each of one topic kind.

use prost_reflect::{Kind, MessageDescriptor};

use crate::protocol::topic::{TENANT_KIND, USER_KIND};

use super::{
    annotations::{Annotations, Declared, TopicSource, declared},
    compile::Flaw,
    error::{Fault, WireError},
    relay_fields::{LIST_NUMBERS, is_relays_in_lists},
    wire::{Fields, RawField, WireType, text},
};

/// A list of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdList {
    /// Its number, in the request and in the confirmation.
    pub number: u32,
    /// Its name in the request.
    pub name: String,
    /// The kind of the topics whose ids it holds.
    pub kind: String,
}

/// The lists of one request, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdLists(Vec<IdList>);

impl IdLists {
    /// The lists, by number.
    #[must_use]
    pub fn as_slice(&self) -> &[IdList] {
        &self.0
    }

    /// The ids of each list that the payload holds, as they stand there.
    ///
    /// # Errors
    ///
    /// When the payload is malformed, which [`Schema::inspect`] finds as well.
    ///
    /// [`Schema::inspect`]: super::Schema::inspect
    pub fn ids<'a>(&self, payload: &'a [u8]) -> Result<Vec<(&IdList, Vec<&'a str>)>, WireError> {
        let mut found: Vec<_> = self.0.iter().map(|list| (list, Vec::new())).collect();
        for field in Fields::new(payload, &(0..payload.len())) {
            let field = field?;
            let list = found
                .iter_mut()
                .find(|(list, _)| list.number == field.number);
            if let Some((list, ids)) = list {
                let id = id(payload, &field)
                    .map_err(|error| error.within(&list.name, Some(ids.len())))?;
                ids.push(id);
            }
        }
        Ok(found)
    }

    /// The lists of the request, each with its place in the confirmation.
    pub(super) fn of(
        request: &MessageDescriptor,
        confirmation: &MessageDescriptor,
        annotations: &Annotations,
    ) -> Result<Self, Flaw> {
        let mut lists = Vec::new();
        for field in declared(request) {
            if is_relays_in_lists(field.number) {
                continue;
            }
            let list = list(&field, annotations)?;
            check_confirmation(&field, confirmation)?;
            lists.push(list);
        }
        lists.sort_by_key(|list| list.number);
        Ok(Self(lists))
    }
}

fn id<'a>(payload: &'a [u8], field: &RawField) -> Result<&'a str, WireError> {
    match field.wire_type {
        WireType::Delimited => text(payload, &field.value),
        _ => Err(WireError::new(Fault::Mistyped, field.whole.start)),
    }
}

fn list(field: &Declared, annotations: &Annotations) -> Result<IdList, Flaw> {
    let source = annotations
        .topic(field)
        .filter(|_| field.is_repeated && LIST_NUMBERS.contains(&field.number));
    // A list of whole topics is field 16.
    let Some(TopicSource::Kind(kind)) = source else {
        return Err(Flaw::BadList {
            field: field.full_name.clone(),
        });
    };
    if matches!(kind.as_str(), USER_KIND | TENANT_KIND) {
        return Err(Flaw::ImplicitList {
            field: field.full_name.clone(),
            kind,
        });
    }
    Ok(IdList {
        number: field.number,
        name: field.name.clone(),
        kind,
    })
}

fn check_confirmation(list: &Declared, confirmation: &MessageDescriptor) -> Result<(), Flaw> {
    let confirmed = confirmation
        .get_field(list.number)
        .is_some_and(|field| field.is_list() && field.kind() == Kind::String);
    if confirmed {
        return Ok(());
    }
    Err(Flaw::Unconfirmed {
        message: confirmation.full_name().to_owned(),
        number: list.number,
        list: list.full_name.clone(),
    })
}
