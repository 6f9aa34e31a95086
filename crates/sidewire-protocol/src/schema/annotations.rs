//! The options of `sidewire/v1/options.proto`, read from descriptors: which fields hold
//! topic ids, what clients may publish, which field receives the sender. Does not check
//! where they are used.

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor,
    FileDescriptor, Kind, MessageDescriptor, Value,
};

use super::{positions::SourceItem, report::SchemaReport};

const TOPIC: (&str, u32) = ("sidewire.v1.topic", 50510);
const CLIENT_PUBLISH: (&str, u32) = ("sidewire.v1.client_publish", 50511);
const SENDER: (&str, u32) = ("sidewire.v1.sender", 50512);
const PRESENCE: (&str, u32) = ("sidewire.v1.presence", 50513);
const ABSENT: (&str, u32) = ("sidewire.v1.absent", 50514);

/// The option numbers that belong to Sidewire.
const OPTION_NUMBERS: std::ops::RangeInclusive<u32> = 50510..=50519;

/// The value of the topic option for a field that holds whole topics.
const WHOLE_TOPIC: &str = "*";

/// The way in which the values of an annotated field name topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TopicSource {
    /// Each value is the id of a topic of this kind.
    Kind(String),
    /// Each value is a whole topic, `kind:id`.
    Whole,
}

impl TopicSource {
    /// Returns the kind of the topics; `None` if each value includes its own.
    pub(super) fn kind(&self) -> Option<&str> {
        match self {
            Self::Kind(kind) => Some(kind),
            Self::Whole => None,
        }
    }
}

/// A field or an extension of a message, with its annotations.
pub(super) struct DeclaredField {
    pub(super) full_name: String,
    /// The name used in paths; the name of an extension is in brackets.
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) is_group: bool,
    pub(super) is_map: bool,
    pub(super) is_repeated: bool,
    /// The oneof that contains it; `None` for `optional`.
    pub(super) oneof: Option<String>,
    pub(super) json_name: String,
    pub(super) is_required: bool,
    /// True if a message distinguishes the default value from an unset field.
    pub(super) has_presence: bool,
    pub(super) default: Value,
    /// The source of topics, if the field is annotated with one.
    pub(super) topic: Option<TopicSource>,
    /// True if the relay writes the sender into this field.
    pub(super) is_sender: bool,
    /// The value that means that the user is absent.
    pub(super) absent: Option<String>,
    origin: DeclarationSource,
}

enum DeclarationSource {
    Field(FieldDescriptor),
    Extension(ExtensionDescriptor),
}

impl From<FieldDescriptor> for DeclaredField {
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
            topic: None,
            is_sender: false,
            absent: None,
            origin: DeclarationSource::Field(field),
        }
    }
}

impl From<ExtensionDescriptor> for DeclaredField {
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
            topic: None,
            is_sender: false,
            absent: None,
            origin: DeclarationSource::Extension(field),
        }
    }
}

impl DeclaredField {
    /// Returns the options if the field has any. Most fields have none, and decoding takes
    /// time.
    fn options(&self) -> Option<DynamicMessage> {
        match &self.origin {
            DeclarationSource::Field(field) => {
                let has_some = field.field_descriptor_proto().options.is_some();
                has_some.then(|| field.options())
            }
            DeclarationSource::Extension(field) => {
                let has_some = field.field_descriptor_proto().options.is_some();
                has_some.then(|| field.options())
            }
        }
    }
}

impl SourceItem for DeclaredField {
    fn source_location(&self) -> (FileDescriptor, &[i32]) {
        match &self.origin {
            DeclarationSource::Field(field) => field.source_location(),
            DeclarationSource::Extension(field) => field.source_location(),
        }
    }
}

/// Sidewire's options as declared in a pool. A pool that does not declare an option cannot
/// use it.
#[derive(Debug, Clone, Default)]
pub(super) struct Annotations {
    topic: Option<ExtensionDescriptor>,
    client_publish: Option<ExtensionDescriptor>,
    sender: Option<ExtensionDescriptor>,
    presence: Option<ExtensionDescriptor>,
    absent: Option<ExtensionDescriptor>,
}

impl Annotations {
    /// Finds the options in the pool. Reports a different option that has the name of one.
    pub(super) fn find_in_pool(pool: &DescriptorPool, report: &mut SchemaReport) -> Self {
        let annotations = Self {
            topic: find_option(pool, TOPIC, &Kind::String, report),
            client_publish: find_option(pool, CLIENT_PUBLISH, &Kind::Bool, report),
            sender: find_option(pool, SENDER, &Kind::Bool, report),
            presence: find_option(pool, PRESENCE, &Kind::Bool, report),
            absent: find_option(pool, ABSENT, &Kind::String, report),
        };
        if annotations.topic.is_some() {
            check_numbers(pool, report);
        }
        annotations
    }

    /// Returns the fields of a message, including those that extensions add to it.
    pub(super) fn annotated_fields(&self, message: &MessageDescriptor) -> Vec<DeclaredField> {
        let fields = message.fields().map(DeclaredField::from);
        fields
            .chain(message.extensions().map(DeclaredField::from))
            .map(|field| self.with_annotations(field))
            .collect()
    }

    fn with_annotations(&self, mut field: DeclaredField) -> DeclaredField {
        if let Some(options) = field.options() {
            field.topic = text_option(&options, self.topic.as_ref()).map(|kind| {
                if kind == WHOLE_TOPIC {
                    TopicSource::Whole
                } else {
                    TopicSource::Kind(kind)
                }
            });
            field.is_sender = is_true(&options, self.sender.as_ref());
            field.absent = text_option(&options, self.absent.as_ref());
        }
        field
    }

    /// Returns true if clients may send the message as a payload.
    pub(super) fn is_client_publish(&self, message: &MessageDescriptor) -> bool {
        self.has_client_publish(message) || self.is_presence(message)
    }

    /// Returns the numbers of the fields that hold a message that clients may send.
    pub(super) fn client_publish_numbers(&self, message: &MessageDescriptor) -> Vec<u32> {
        let fields = message.fields().filter(|field| {
            let kind = field.kind();
            let held = kind.as_message();
            held.is_some_and(|held| self.is_client_publish(held))
        });
        fields.map(|field| field.number()).collect()
    }

    /// Returns true if the message itself has the option `client_publish`.
    pub(super) fn has_client_publish(&self, message: &MessageDescriptor) -> bool {
        self.is_set(message, self.client_publish.as_ref())
    }

    /// Returns true if the relay stores the message as a user's presence.
    pub(super) fn is_presence(&self, message: &MessageDescriptor) -> bool {
        self.is_set(message, self.presence.as_ref())
    }

    fn is_set(&self, message: &MessageDescriptor, option: Option<&ExtensionDescriptor>) -> bool {
        option.is_some()
            && message.descriptor_proto().options.is_some()
            && is_true(&message.options(), option)
    }
}

fn text_option(options: &DynamicMessage, option: Option<&ExtensionDescriptor>) -> Option<String> {
    let option = option?;
    let value = options.get_extension(option);
    let is_set = options.has_extension(option);
    is_set.then(|| value.as_str().map(str::to_owned))?
}

fn is_true(options: &DynamicMessage, option: Option<&ExtensionDescriptor>) -> bool {
    option.is_some_and(|option| *options.get_extension(option) == Value::Bool(true))
}

/// Finds an option by its name; `None` if the pool does not declare it as expected.
fn find_option(
    pool: &DescriptorPool,
    (name, number): (&str, u32),
    kind: &Kind,
    report: &mut SchemaReport,
) -> Option<ExtensionDescriptor> {
    let option = pool.get_extension_by_name(name)?;
    if option.number() == number && option.kind() == *kind && !option.is_list() {
        return Some(option);
    }
    report.error(
        &option,
        format!("the option {name} is not the one of sidewire/v1/options.proto"),
        "remove it, and import \"sidewire/v1/options.proto\"",
    );
    None
}

/// Reports foreign options that have Sidewire's numbers, because their values could be
/// mistaken for annotations.
fn check_numbers(pool: &DescriptorPool, report: &mut SchemaReport) {
    const OPTIONS: [&str; 2] = [
        "google.protobuf.FieldOptions",
        "google.protobuf.MessageOptions",
    ];
    let ours = [TOPIC, CLIENT_PUBLISH, SENDER, PRESENCE, ABSENT].map(|(name, _)| name);
    for option in pool.all_extensions() {
        let (name, extended) = (option.full_name(), option.containing_message());
        if OPTION_NUMBERS.contains(&option.number())
            && OPTIONS.contains(&extended.full_name())
            && !ours.contains(&name)
        {
            report.error(
                &option,
                format!(
                    "the option {name} has the number {}, and 50510 to 50519 belong to Sidewire",
                    option.number()
                ),
                "give it another number",
            );
        }
    }
}
