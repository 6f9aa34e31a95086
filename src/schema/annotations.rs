//! The options of `sidewire/v1/options.proto`, read from descriptors: which
//! fields hold topics' ids, what clients may publish, where the sender goes.

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, Value,
};

use crate::protocol::topic::{TENANT_KIND, check_kind};

use super::compile::Flaw;

const TOPIC: (&str, u32) = ("sidewire.v1.topic", 50510);
const CLIENT_PUBLISH: (&str, u32) = ("sidewire.v1.client_publish", 50511);
const SENDER: (&str, u32) = ("sidewire.v1.sender", 50512);
const PRESENCE: (&str, u32) = ("sidewire.v1.presence", 50513);
const ABSENT: (&str, u32) = ("sidewire.v1.absent", 50514);

/// The option's value for a field whose values are whole topics.
const WHOLE_TOPIC: &str = "*";

/// How the values of an annotated field give topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TopicSource {
    /// A value is the id of a topic of this kind.
    Kind(String),
    /// A value is a topic, `kind:id`.
    Whole,
}

/// A field as a message or an extension of it declares it.
pub(super) struct Declared {
    pub(super) full_name: String,
    /// What a path calls it: an extension's name stands in brackets.
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) is_group: bool,
    pub(super) is_map: bool,
    pub(super) is_repeated: bool,
    /// The oneof that it is a member of, which is none for `optional`.
    pub(super) oneof: Option<String>,
    pub(super) json_name: String,
    pub(super) is_required: bool,
    /// Whether a message tells the default value from no value.
    pub(super) has_presence: bool,
    pub(super) default: Value,
    options: DynamicMessage,
}

impl From<FieldDescriptor> for Declared {
    fn from(field: FieldDescriptor) -> Self {
        Self {
            full_name: field.full_name().to_owned(),
            name: field.name().to_owned(),
            number: field.number(),
            kind: field.kind(),
            is_group: field.is_group(),
            is_map: field.is_map(),
            is_repeated: field.cardinality() == Cardinality::Repeated,
            oneof: field
                .containing_oneof()
                .filter(|oneof| !oneof.is_synthetic())
                .map(|oneof| oneof.name().to_owned()),
            json_name: field.json_name().to_owned(),
            is_required: field.cardinality() == Cardinality::Required,
            has_presence: field.supports_presence(),
            default: field.default_value(),
            options: field.options(),
        }
    }
}

impl From<ExtensionDescriptor> for Declared {
    fn from(field: ExtensionDescriptor) -> Self {
        Self {
            full_name: field.full_name().to_owned(),
            name: field.json_name().to_owned(),
            number: field.number(),
            kind: field.kind(),
            is_group: field.is_group(),
            is_map: field.is_map(),
            is_repeated: field.cardinality() == Cardinality::Repeated,
            oneof: None,
            json_name: field.json_name().to_owned(),
            is_required: field.cardinality() == Cardinality::Required,
            has_presence: field.supports_presence(),
            default: field.default_value(),
            options: field.options(),
        }
    }
}

/// The fields of a message, with those that extensions add to it.
pub(super) fn declared(message: &MessageDescriptor) -> Vec<Declared> {
    let fields = message.fields().map(Declared::from);
    fields
        .chain(message.extensions().map(Declared::from))
        .collect()
}

/// The options, as one pool declares them.
#[derive(Debug)]
pub(super) struct Annotations {
    topic: Option<ExtensionDescriptor>,
    client_publish: Option<ExtensionDescriptor>,
    sender: Option<ExtensionDescriptor>,
    presence: Option<ExtensionDescriptor>,
    absent: Option<ExtensionDescriptor>,
}

impl Annotations {
    /// The options of the pool, with every use of them checked. A pool that does
    /// not declare them uses none.
    pub(super) fn of(pool: &DescriptorPool) -> Result<Self, Flaw> {
        let annotations = Self {
            topic: option(pool, TOPIC, &Kind::String)?,
            client_publish: option(pool, CLIENT_PUBLISH, &Kind::Bool)?,
            sender: option(pool, SENDER, &Kind::Bool)?,
            presence: option(pool, PRESENCE, &Kind::Bool)?,
            absent: option(pool, ABSENT, &Kind::String)?,
        };
        for message in pool.all_messages() {
            let client_publish = annotations.client_publish(&message);
            for field in declared(&message) {
                annotations.check_topic(&field)?;
                annotations.check_sender(&field, client_publish)?;
                annotations.check_absent(&field, annotations.presence(&message))?;
            }
        }
        Ok(annotations)
    }

    /// How the field's values give topics; `None` where it is not annotated.
    pub(super) fn topic(&self, field: &Declared) -> Option<TopicSource> {
        let kind = text(&field.options, self.topic.as_ref())?;
        Some(if kind == WHOLE_TOPIC {
            TopicSource::Whole
        } else {
            TopicSource::Kind(kind)
        })
    }

    /// Whether the relay puts the sending user's id into the field.
    pub(super) fn sender(&self, field: &Declared) -> bool {
        is_true(&field.options, self.sender.as_ref())
    }

    /// The field's value that means "not there", where one is declared.
    pub(super) fn absent(&self, field: &Declared) -> Option<String> {
        text(&field.options, self.absent.as_ref())
    }

    /// Whether clients may send the message as a payload.
    pub(super) fn client_publish(&self, message: &MessageDescriptor) -> bool {
        self.has_client_publish(message) || self.presence(message)
    }

    /// Whether the message itself has the option `client_publish`.
    pub(super) fn has_client_publish(&self, message: &MessageDescriptor) -> bool {
        is_true(&message.options(), self.client_publish.as_ref())
    }

    /// Whether the relay remembers the message as a user's presence.
    pub(super) fn presence(&self, message: &MessageDescriptor) -> bool {
        is_true(&message.options(), self.presence.as_ref())
    }

    fn check_topic(&self, field: &Declared) -> Result<(), Flaw> {
        let Some(source) = self.topic(field) else {
            return Ok(());
        };
        let name = || field.full_name.clone();
        if field.kind != Kind::String {
            return Err(Flaw::TopicNotString { field: name() });
        }
        let TopicSource::Kind(kind) = source else {
            return Ok(());
        };
        check_kind(&kind).map_err(|_| Flaw::BadKind {
            field: name(),
            kind: kind.clone(),
        })?;
        if kind == TENANT_KIND {
            return Err(Flaw::TenantKind { field: name() });
        }
        Ok(())
    }

    fn check_sender(&self, field: &Declared, client_publish: bool) -> Result<(), Flaw> {
        let sender = self.sender(field);
        let fits = field.kind == Kind::String
            && !field.is_repeated
            && field.oneof.is_none()
            && client_publish;
        if sender && !fits {
            return Err(Flaw::BadSender {
                field: field.full_name.clone(),
            });
        }
        Ok(())
    }

    fn check_absent(&self, field: &Declared, presence: bool) -> Result<(), Flaw> {
        let Some(value) = self.absent(field) else {
            return Ok(());
        };
        let has_value = match &field.kind {
            Kind::Bool => matches!(value.as_str(), "true" | "false"),
            Kind::String => true,
            Kind::Enum(kind) => kind.get_value_by_name(&value).is_some(),
            _ => false,
        };
        if has_value && presence && !field.is_repeated && field.oneof.is_none() {
            return Ok(());
        }
        Err(Flaw::BadAbsent {
            field: field.full_name.clone(),
            value,
        })
    }
}

fn text(options: &DynamicMessage, option: Option<&ExtensionDescriptor>) -> Option<String> {
    let option = option?;
    let value = options.get_extension(option);
    let is_set = options.has_extension(option);
    is_set.then(|| value.as_str().map(str::to_owned))?
}

fn is_true(options: &DynamicMessage, option: Option<&ExtensionDescriptor>) -> bool {
    option.is_some_and(|option| *options.get_extension(option) == Value::Bool(true))
}

/// An option by its name, where the pool has it.
fn option(
    pool: &DescriptorPool,
    (name, number): (&str, u32),
    kind: &Kind,
) -> Result<Option<ExtensionDescriptor>, Flaw> {
    let option = pool.get_extension_by_name(name);
    match &option {
        Some(option) if option.number() != number || option.kind() != *kind => {
            Err(Flaw::ForeignOption {
                name: name.to_owned(),
            })
        }
        _ => Ok(option),
    }
}
