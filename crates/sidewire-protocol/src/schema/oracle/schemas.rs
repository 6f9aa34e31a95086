//! Random schemas, written as .proto text from a tape of random bytes, with
//! annotations in random places. A shorter tape gives a smaller schema.
//!
//! The text is always a valid schema for the relay; other tests cover invalid schemas.

mod fields;

use std::{collections::BTreeSet, fmt::Write as _};

use self::fields::Fields;
use super::random::Tape;
use crate::schema::{Schema, SchemaError};

/// The full name of the envelope of every random schema.
pub const ENVELOPE: &str = "random.v1.Envelope";

/// The names of the two files. The first one imports the second one.
const MAIN_FILE: &str = "random.proto";
const LEGACY_FILE: &str = "random_legacy.proto";

/// Kinds that annotations name. `user` cannot be subscribed to.
const KINDS: [&str; 8] = [
    "project",
    "item",
    "note",
    "a",
    "b",
    "x_9",
    "k2345678901234567890123456789012",
    "user",
];

/// A random schema.
#[derive(Debug, Clone)]
pub struct SchemaText {
    /// The proto3 file with the envelope.
    pub main: String,
    /// A proto2 file that it imports: closed enums, required fields, defaults, extensions.
    pub legacy: String,
}

impl SchemaText {
    /// Compiles both files.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a schema, which is a bug in the generator or the compiler.
    pub fn compile(&self) -> Result<Schema, SchemaError> {
        let files = [(MAIN_FILE, &*self.main), (LEGACY_FILE, &*self.legacy)];
        Schema::from_texts(&files, ENVELOPE)
    }
}

/// Generates a random schema from the tape.
#[must_use]
pub fn random_schema(tape: &[u8]) -> SchemaText {
    let tape = &mut Tape::new(tape);
    let legacy = Legacy::drawn(tape);
    let tree = Tree::drawn(tape, &legacy);
    SchemaText {
        main: tree.text(tape),
        legacy: legacy.text(tape),
    }
}

/// The messages of the proto2 file, `L0` and so on; the last one is extended.
struct Legacy {
    count: usize,
}

impl Legacy {
    fn drawn(tape: &mut Tape<'_>) -> Self {
        Self {
            count: tape.below(3),
        }
    }

    fn names(&self) -> Vec<String> {
        (0..self.count).map(|n| format!("L{n}")).collect()
    }

    fn text(&self, tape: &mut Tape<'_>) -> String {
        let mut out = String::from(
            "syntax = \"proto2\";\npackage random.v1;\n\
             import \"google/protobuf/wrappers.proto\";\n\
             import \"sidewire/v1/options.proto\";\n\
             enum Closed { ONE = 1; TWO = 2; MINUS = -1; }\n",
        );
        let names = self.names();
        for name in &names {
            let mut fields = Fields::legacy(&names);
            writeln!(out, "message {name} {{").unwrap();
            for _ in 0..tape.below(6) {
                out.push_str(&fields.field(tape, "  "));
            }
            out.push_str("  extensions 100 to 199;\n}\n");
        }
        if let Some(extended) = names.last() {
            let mut fields = Fields::extensions(&names);
            writeln!(out, "extend {extended} {{").unwrap();
            for _ in 0..=tape.below(4) {
                out.push_str(&fields.field(tape, "  "));
            }
            out.push_str("}\n");
        }
        out
    }
}

/// A message of the proto3 file, which may be nested in another one.
struct Message {
    full_name: String,
    name: String,
    parent: Option<usize>,
    has_enum: bool,
    client: Option<ClientEvent>,
}

/// The way in which clients may send a message.
#[derive(Clone, Copy)]
enum ClientEvent {
    Publish,
    Presence,
}

/// The messages of the proto3 file.
struct Tree {
    messages: Vec<Message>,
    legacy: Vec<String>,
    /// True if messages that clients may send have a sender. No message may then contain them.
    has_senders: bool,
}

impl Tree {
    fn drawn(tape: &mut Tape<'_>, legacy: &Legacy) -> Self {
        let mut messages: Vec<Message> = Vec::new();
        for number in 0..=tape.below(7) {
            let parent = match messages.len() {
                0 => None,
                count => tape.one_in(3).then(|| tape.below(count)),
            };
            let name = format!("M{number}");
            let full_name = match parent {
                Some(parent) => format!("{}.{name}", messages[parent].full_name),
                None => name.clone(),
            };
            messages.push(Message {
                full_name,
                name,
                parent,
                has_enum: tape.one_in(3),
                client: match tape.below(8) {
                    0 => Some(ClientEvent::Publish),
                    1 => Some(ClientEvent::Presence),
                    _ => None,
                },
            });
        }
        Self {
            messages,
            legacy: legacy.names(),
            has_senders: tape.one_in(2),
        }
    }

    fn text(&self, tape: &mut Tape<'_>) -> String {
        let mut out = String::from("syntax = \"proto3\";\npackage random.v1;\n");
        for file in [
            LEGACY_FILE,
            "google/protobuf/duration.proto",
            "google/protobuf/empty.proto",
            "google/protobuf/field_mask.proto",
            "google/protobuf/struct.proto",
            "google/protobuf/timestamp.proto",
            "google/protobuf/wrappers.proto",
            "sidewire/v1/options.proto",
            "sidewire/v1/relay.proto",
        ] {
            writeln!(out, "import \"{file}\";").unwrap();
        }
        out.push_str("enum Colour { NONE = 0; RED = 1; BLUE = 2; DEEP = -2147483648; }\n");
        for (index, message) in self.messages.iter().enumerate() {
            if message.parent.is_none() {
                self.message(tape, index, "", &mut out);
            }
        }
        self.envelope(tape, &mut out);
        out
    }

    /// Returns the types that a field may have, besides scalars.
    fn fields(&self) -> Fields {
        let is_free = |message: &&Message| !self.has_senders || message.client.is_none();
        let messages = self.messages.iter().filter(is_free);
        self.fields_of(messages, !self.has_senders)
    }

    /// Returns the types that a payload may have.
    fn payloads(&self) -> Fields {
        self.fields_of(self.messages.iter(), false)
    }

    fn fields_of<'a>(
        &self,
        messages: impl Iterator<Item = &'a Message>,
        has_envelope: bool,
    ) -> Fields {
        let messages = messages.map(|it| it.full_name.clone());
        let enums = self.messages.iter().filter(|it| it.has_enum);
        let enums = enums.map(|it| format!("{}.E", it.full_name));
        Fields::modern(
            messages.chain(self.legacy.iter().cloned()).collect(),
            enums.collect(),
            has_envelope,
        )
    }

    fn message(&self, tape: &mut Tape<'_>, index: usize, indent: &str, out: &mut String) {
        let message = &self.messages[index];
        let inner = format!("{indent}  ");
        writeln!(out, "{indent}message {} {{", message.name).unwrap();
        if message.has_enum {
            writeln!(
                out,
                "{inner}enum E {{ option allow_alias = true; A = 0; B = 0; C = 7; D = -1; }}"
            )
            .unwrap();
        }
        for (child, it) in self.messages.iter().enumerate() {
            if it.parent == Some(index) {
                self.message(tape, child, &inner, out);
            }
        }
        let mut fields = self.fields();
        if let Some(client) = message.client {
            let option = match client {
                ClientEvent::Publish => "client_publish",
                ClientEvent::Presence => "presence",
            };
            writeln!(out, "{inner}option (sidewire.v1.{option}) = true;").unwrap();
            if self.has_senders {
                out.push_str(&fields.sender(tape, &inner));
            }
            if matches!(client, ClientEvent::Presence) {
                out.push_str(&fields.absent(tape, &inner));
            }
        }
        for _ in 0..tape.below(8) {
            out.push_str(&fields.field(tape, &inner));
        }
        for _ in 0..tape.below(3) {
            out.push_str(&fields.oneof(tape, &inner));
        }
        writeln!(out, "{indent}}}").unwrap();
    }

    fn envelope(&self, tape: &mut Tape<'_>, out: &mut String) {
        let lists = tape.one_in(2).then(|| lists(tape));
        let package = if lists.is_some() { "" } else { "sidewire.v1." };
        let mut numbers = BTreeSet::from([2]);
        for _ in 0..tape.below(8) {
            numbers.insert(*tape.pick(&[3, 4, 7, 32, 33, 63, 64, 500, 20_000, 536_870_911]));
        }
        out.push_str(
            "message Envelope {\n  string message_id = 1;\n  int64 timestamp = 8;\n  \
             sidewire.v1.Position position = 9;\n  repeated string topics = 18;\n",
        );
        let (mut fields, payloads) = (self.fields(), self.payloads());
        fields.start_at(1_000);
        fields.take(&numbers);
        for _ in 0..tape.below(3) {
            out.push_str(&fields.field(tape, "  "));
        }
        out.push_str("  oneof payload {\n");
        for (number, name) in [
            (10, "Subscribe"),
            (11, "SubscriptionConfirmed"),
            (12, "Unsubscribe"),
            (13, "UnsubscribeConfirmed"),
        ] {
            writeln!(out, "    {package}{name} {} = {number};", snake(name)).unwrap();
        }
        out.push_str(
            "    sidewire.v1.Ping ping = 14;\n    sidewire.v1.Pong pong = 15;\n    \
             sidewire.v1.ErrorResponse error = 16;\n",
        );
        let has_batch = tape.one_in(2);
        if has_batch {
            out.push_str("    BatchUpdate batch = 17;\n");
        }
        if tape.one_in(3) {
            out.push_str(
                "    sidewire.v1.Authenticate authenticate = 19;\n    \
                 sidewire.v1.Authenticated authenticated = 20;\n",
            );
        }
        for number in numbers {
            let kind = payloads.message_type(tape);
            writeln!(out, "    {kind} payload_{number} = {number};").unwrap();
        }
        out.push_str("  }\n");
        if tape.one_in(4) {
            out.push_str(&fields.oneof(tape, "  "));
        }
        out.push_str("}\n");
        if has_batch {
            out.push_str("message BatchUpdate { repeated Envelope messages = 1; }\n");
        }
        out.push_str(&lists.unwrap_or_default());
    }
}

/// Writes the schema's own subscription messages, with lists of ids.
fn lists(tape: &mut Tape<'_>) -> String {
    let (mut request, mut confirmation) = (String::new(), String::new());
    for number in 1..=tape.below(4) {
        // All but the last kind, which is `user`.
        let kind = tape.pick(&KINDS[..KINDS.len() - 1]);
        writeln!(
            request,
            "  repeated string list_{number} = {number} [(sidewire.v1.topic) = \"{kind}\"];"
        )
        .unwrap();
        writeln!(confirmation, "  repeated string had_{number} = {number};").unwrap();
    }
    format!(
        "message Subscribe {{\n{request}  repeated string topics = 16;\n  \
         sidewire.v1.Position resume_from = 17;\n}}\n\
         message SubscriptionConfirmed {{\n{confirmation}  repeated string topics = 16;\n  \
         sidewire.v1.Position position = 17;\n  bool recovered = 18;\n  \
         string request_message_id = 19;\n  uint64 replayed = 20;\n}}\n\
         message Unsubscribe {{\n{request}  repeated string topics = 16;\n}}\n\
         message UnsubscribeConfirmed {{\n{confirmation}  repeated string topics = 16;\n  \
         string request_message_id = 19;\n}}\n"
    )
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
}
