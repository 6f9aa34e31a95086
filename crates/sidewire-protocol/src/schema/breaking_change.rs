//! The changes in a new schema that would break connected clients or events in the log,
//! with messages that the author of a .proto file can act on.

use std::fmt;

/// A difference between two schemas because of which the new one cannot replace the old one
/// while clients are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakingChange {
    /// The full name of the message or enum.
    pub message: String,
    /// The field, or the value of the enum; `None` if the change concerns the whole
    /// message.
    pub field: Option<String>,
    /// The difference.
    pub change: SchemaChange,
}

impl fmt::Display for BreakingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(field) = &self.field {
            write!(f, ".{field}")?;
        }
        write!(f, " {}", self.change)
    }
}

/// A difference between two schemas. The message says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaChange {
    /// A different message is the envelope.
    #[error("is the envelope, and would be replaced by {new}; another envelope needs a restart")]
    Envelope {
        /// The new envelope.
        new: String,
    },
    /// A field has a different number.
    #[error(
        "had the number {old} and now has {new}; restore {old}, and declare a new field if another number is wanted"
    )]
    FieldRenumbered {
        /// The previous number.
        old: u32,
        /// The new number.
        new: u32,
    },
    /// A field has a different name.
    #[error(
        "is now named `{new}`, which clients that use JSON do not know; restore the name of number {number}"
    )]
    FieldRenamed {
        /// The field's number.
        number: u32,
        /// Its new name.
        new: String,
    },
    /// A field has a different JSON name.
    #[error("was `{old}` in JSON and is now `{new}`; restore the JSON name")]
    JsonName {
        /// The previous name.
        old: String,
        /// The new name.
        new: String,
    },
    /// The number of a removed field now belongs to a different field.
    #[error(
        "was `{old} = {number}`, and the number now belongs to `{new} = {number}`; restore the old field, and give the new one a number of its own"
    )]
    NumberReused {
        /// The number.
        number: u32,
        /// The previous declaration.
        old: String,
        /// The new declaration.
        new: String,
    },
    /// A field has a different type or label.
    #[error(
        "was declared as `{old}` and is now `{new}`; restore the type, and declare a new field if another one is wanted"
    )]
    Retyped {
        /// The previous type.
        old: String,
        /// The new type.
        new: String,
    },
    /// A field shares its oneof with different fields, so that setting it clears different
    /// fields.
    #[error(
        "shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs"
    )]
    Oneof,
    /// A field has a different default.
    #[error("had the default `{old}` and now has `{new}`; restore the default")]
    Default {
        /// The previous default.
        old: String,
        /// The new default.
        new: String,
    },
    /// A field was removed.
    #[error(
        "is missing; restore the field and mark it as deprecated, or reserve its number {number} and its name"
    )]
    FieldRemoved {
        /// The number.
        number: u32,
    },
    /// Reserved numbers or a reserved name became available again.
    #[error(
        "no longer reserves {reserved}, which clients may know as a field of another type; restore the reservation"
    )]
    ReservationRemoved {
        /// The numbers or the name, in .proto syntax.
        reserved: String,
    },
    /// An annotated field was removed.
    #[error(
        "is missing, and it was annotated with {option}; restore the field with its annotation"
    )]
    AnnotatedFieldRemoved {
        /// The option, in .proto syntax.
        option: String,
    },
    /// A required field was added.
    #[error("is a new required field, which clients and stored events lack; make it optional")]
    RequiredAdded,
    /// A payload was removed.
    #[error(
        "is missing from `oneof payload`; restore it, since events of this type may be in the log and on their way"
    )]
    PayloadRemoved,
    /// An option of a field or message was removed.
    #[error("is no longer annotated with {option}; restore the annotation")]
    OptionRemoved {
        /// The option, in .proto syntax.
        option: String,
    },
    /// An option of a field has a different value.
    #[error(
        "was annotated with {old} and is now annotated with {new}; restore the annotation, and annotate another field if both are wanted"
    )]
    OptionChanged {
        /// The previous option, in .proto syntax.
        old: String,
        /// The new option, in .proto syntax.
        new: String,
    },
    /// An enum value has a different number.
    #[error(
        "had the number {old} and now has {new}; restore {old}, and declare a new value if another number is wanted"
    )]
    ValueRenumbered {
        /// The previous number.
        old: i32,
        /// The new number.
        new: i32,
    },
    /// An enum value has a different name.
    #[error(
        "is now named `{new}`, which clients that use JSON do not know; restore the name of number {number}"
    )]
    ValueRenamed {
        /// The value's number.
        number: i32,
        /// Its new name.
        new: String,
    },
    /// An enum value was removed.
    #[error(
        "is missing; restore the value and mark it as deprecated, since JSON would show the bare number {number}"
    )]
    ValueRemoved {
        /// The number.
        number: i32,
    },
    /// One of several names of an enum value was removed.
    #[error("is missing; restore it as an alias of the number {number}")]
    AliasRemoved {
        /// The number.
        number: i32,
    },
}
