//! Errors of the parser and of prost-reflect in the words of the author of a schema.

use super::{built_in::BuiltInFile, diagnostic::Diagnostic, positions::line_at};
use crate::suggest::nearest;

/// How many errors of one file are shown.
const ERRORS_PER_FILE_MAX: usize = 20;

/// The options of `options.proto`.
const OPTIONS: [&str; 5] = [
    "sidewire.v1.topic",
    "sidewire.v1.client_publish",
    "sidewire.v1.sender",
    "sidewire.v1.presence",
    "sidewire.v1.absent",
];

/// The messages of `relay.proto`.
const MESSAGES: [&str; 10] = [
    "sidewire.v1.Position",
    "sidewire.v1.Subscribe",
    "sidewire.v1.SubscriptionConfirmed",
    "sidewire.v1.Unsubscribe",
    "sidewire.v1.UnsubscribeConfirmed",
    "sidewire.v1.Ping",
    "sidewire.v1.Pong",
    "sidewire.v1.Authenticate",
    "sidewire.v1.Authenticated",
    "sidewire.v1.ErrorResponse",
];

/// What to do about an error, by a part of its message, where the library has no advice.
const HINTS: [(&str, &str); 12] = [
    (
        "found 'edition'",
        "the relay reads proto2 and proto3; write `syntax = \"proto3\";`",
    ),
    ("is not defined", "declare it, or import the file that does"),
    (
        "number '",
        "give the field a number that is not taken or reserved",
    ),
    ("is defined twice", "rename one of the two"),
    (
        "is already defined in file",
        "rename one of the two, or move one to another package",
    ),
    ("JSON name", "rename one of the two fields"),
    (
        "first value for proto3 enums",
        "put a value with the number 0 first, such as `STATUS_UNSPECIFIED = 0;`",
    ),
    ("required fields", "remove `required`, or write `optional`"),
    ("groups", "declare a message and a field of that type"),
    (
        "for option",
        "give the option a value of that type; a topic kind stands in quotes",
    ),
    ("end of file", "a closing bracket or quote is missing"),
    (
        "expected ",
        "correct this line, or the end of the one before it",
    ),
];

/// What to do about any other error.
const ANY_HINT: &str = "https://protobuf.dev/programming-guides has the rules of the language";

/// The errors that the library has found in the file with this text, which is empty
/// where there is none.
pub(super) fn explain(error: &dyn miette::Diagnostic, shown: &str, text: &str) -> Vec<Diagnostic> {
    let related = error.related().into_iter().flatten();
    std::iter::once(error)
        .chain(related)
        .take(ERRORS_PER_FILE_MAX)
        .map(|error| {
            let message = message(error);
            let hint = hint(error, &message, text);
            let offset = place(error);
            let line = (!text.is_empty()).then(|| line_at(text, offset.unwrap_or(text.len())));
            Diagnostic::error(message)
                .in_file(shown, line)
                .with_hint(hint)
        })
        .collect()
}

fn message(error: &dyn miette::Diagnostic) -> String {
    let message = error.to_string();
    let mut quoted = message.split('\'').skip(1).step_by(2);
    if message.contains("resolves to") && quoted.next() == quoted.next() {
        let name = message.split('\'').nth(1).unwrap_or_default();
        return format!("name '{name}' is not defined");
    }
    match error.source() {
        Some(reason) => format!("{message}: {reason}"),
        None => message,
    }
}

fn hint(error: &dyn miette::Diagnostic, message: &str, text: &str) -> String {
    let name = message.split('\'').nth(1).unwrap_or_default();
    if message.contains("resolves to") {
        return format!("write `.{name}`: without the dot, names of the own package come first");
    }
    if message.ends_with("is not defined") && name.starts_with("sidewire.v1.") {
        return relays_hint(name, text);
    }
    if let Some(help) = error
        .help()
        .filter(|_| !message.ends_with("is not defined"))
    {
        return help.to_string();
    }
    let known = HINTS.iter().find(|(part, _)| message.contains(part));
    known.map_or(ANY_HINT, |(_, hint)| hint).to_owned()
}

/// The name of an option or message of the relay's cannot be resolved.
fn relays_hint(name: &str, text: &str) -> String {
    let [options, relay] =
        [0, 1].map(|index| BuiltInFile::all().get(index).map_or("", |it| it.name));
    let is_option = OPTIONS.contains(&name);
    let file = if is_option { options } else { relay };
    if !text.contains(&format!("\"{file}\"")) && (is_option || MESSAGES.contains(&name)) {
        return format!("add `import \"{file}\";`");
    }
    let names = MESSAGES.iter().chain(&OPTIONS).copied();
    match nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{options} and {relay} have all names of this package"),
    }
}

/// Where the fault is, among the places that an error points at; `None` at the end of
/// the file.
fn place(error: &dyn miette::Diagnostic) -> Option<usize> {
    let labels: Vec<_> = error.labels()?.collect();
    let says = |word: &str| {
        let found = labels
            .iter()
            .find(|it| it.label().is_some_and(|it| it.ends_with(word)));
        found.map(miette::LabeledSpan::offset)
    };
    let first = labels.first().map(miette::LabeledSpan::offset);
    says("found here")
        .or_else(|| says("again here"))
        .or_else(|| {
            let exact = labels.iter().find(|it| it.label() == Some("defined here"));
            exact.map(miette::LabeledSpan::offset)
        })
        .or(first)
}
