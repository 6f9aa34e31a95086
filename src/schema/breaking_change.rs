//! What a new schema may not do to clients that are connected and to events in the log,
//! in words that the author of a .proto file can act on.

use std::fmt;

/// A difference between two schemas for which the new one cannot take the place of the
/// old one while clients are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakingChange {
    /// The full name of the message or enum.
    pub message: String,
    /// The field, or the value of the enum; `None` where it is the whole message.
    pub field: Option<String>,
    /// What is different.
    pub change: Change,
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

/// What is different, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Change {
    /// Another message is the envelope.
    #[error("is the envelope, and would be replaced by {new}; another envelope needs a restart")]
    Envelope {
        /// The other message.
        new: String,
    },
    /// A field has another number.
    #[error(
        "had the number {old} and now has {new}; restore {old}, and declare a new field if another number is wanted"
    )]
    FieldRenumbered {
        /// Its number before.
        old: u32,
        /// Its number now.
        new: u32,
    },
    /// A field has another name.
    #[error(
        "is now named `{new}`, which clients that use JSON do not know; restore the name of number {number}"
    )]
    FieldRenamed {
        /// The field's number.
        number: u32,
        /// Its new name.
        new: String,
    },
    /// The name of a field in JSON is another.
    #[error("was `{old}` in JSON and is now `{new}`; restore the JSON name")]
    JsonName {
        /// The name before.
        old: String,
        /// The name now.
        new: String,
    },
    /// Another field has the number of one that is gone.
    #[error(
        "was `{old} = {number}`, and the number now belongs to `{new} = {number}`; restore the old field, and give the new one a number of its own"
    )]
    NumberReused {
        /// The number.
        number: u32,
        /// The declaration before.
        old: String,
        /// The declaration now.
        new: String,
    },
    /// A field has another type or label.
    #[error(
        "was declared as `{old}` and is now `{new}`; restore the type, and declare a new field if another one is wanted"
    )]
    Retyped {
        /// The type before.
        old: String,
        /// The type now.
        new: String,
    },
    /// Setting the field clears other fields than before.
    #[error(
        "shares a oneof with other fields than before, so setting it would clear other fields; restore the oneofs"
    )]
    Oneof,
    /// A missing field has another value.
    #[error("had the default `{old}` and now has `{new}`; restore the default")]
    Default {
        /// The default before.
        old: String,
        /// The default now.
        new: String,
    },
    /// A field is gone.
    #[error(
        "is missing; restore the field and mark it as deprecated, or reserve its number {number} and its name"
    )]
    FieldRemoved {
        /// Its number.
        number: u32,
    },
    /// Numbers or a name of removed fields could be used again.
    #[error(
        "no longer reserves {reserved}, which clients may know as a field of another type; restore the reservation"
    )]
    ReservationRemoved {
        /// The numbers or the name, as a .proto file says them.
        reserved: String,
    },
    /// A field that an option gave a meaning to is gone.
    #[error(
        "is missing, and it was annotated with {option}; restore the field with its annotation"
    )]
    AnnotatedFieldRemoved {
        /// The option, as a .proto file says it.
        option: String,
    },
    /// A new field must always be set.
    #[error("is a new required field, which clients and stored events lack; make it optional")]
    RequiredAdded,
    /// A payload is gone.
    #[error(
        "is missing from `oneof payload`; restore it, since events of this type may be in the log and on their way"
    )]
    PayloadRemoved,
    /// A field or message no longer has an option.
    #[error("is no longer annotated with {option}; restore the annotation")]
    OptionRemoved {
        /// The option, as a .proto file says it.
        option: String,
    },
    /// An option of a field has another value.
    #[error(
        "was annotated with {old} and is now annotated with {new}; restore the annotation, and annotate another field if both are wanted"
    )]
    OptionChanged {
        /// The option before, as a .proto file says it.
        old: String,
        /// The option now.
        new: String,
    },
    /// A value of an enum has another number.
    #[error(
        "had the number {old} and now has {new}; restore {old}, and declare a new value if another number is wanted"
    )]
    ValueRenumbered {
        /// Its number before.
        old: i32,
        /// Its number now.
        new: i32,
    },
    /// A value of an enum has another name.
    #[error(
        "is now named `{new}`, which clients that use JSON do not know; restore the name of number {number}"
    )]
    ValueRenamed {
        /// The value's number.
        number: i32,
        /// Its new name.
        new: String,
    },
    /// A value of an enum is gone.
    #[error(
        "is missing; restore the value and mark it as deprecated, since JSON would show the bare number {number}"
    )]
    ValueRemoved {
        /// Its number.
        number: i32,
    },
    /// A name of an enum's value, which has others, is gone.
    #[error("is missing; restore it as an alias of the number {number}")]
    AliasRemoved {
        /// Its number.
        number: i32,
    },
}
