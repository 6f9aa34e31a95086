//! Generates the fields of one random message.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{super::random::Tape, KINDS};

const SCALARS: [&str; 15] = [
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32",
    "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes",
];

const MAP_KEYS: [&str; 12] = [
    "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
    "sfixed64", "bool", "string",
];

/// Google's types that have a special form in proto3 JSON.
const WELL_KNOWN: [&str; 16] = [
    "Timestamp",
    "Duration",
    "FieldMask",
    "Struct",
    "Value",
    "ListValue",
    "Empty",
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "StringValue",
    "BytesValue",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A message of the proto3 file.
    Modern,
    /// A message of the proto2 file.
    Legacy,
    /// Extensions of a message, with names scoped to the file.
    Extensions,
}

/// Generates fields with names and numbers that the message does not have yet.
pub(super) struct Fields {
    place: Place,
    messages: Vec<String>,
    enums: Vec<String>,
    /// True if a field may hold an envelope, since envelopes are messages as well.
    has_envelope: bool,
    numbers: BTreeSet<u32>,
    number_min: u32,
    oneofs: usize,
}

impl Fields {
    pub(super) fn modern(
        messages: Vec<String>,
        mut enums: Vec<String>,
        has_envelope: bool,
    ) -> Self {
        enums.push("Colour".to_owned());
        Self {
            has_envelope,
            ..Self::of(Place::Modern, messages, enums)
        }
    }

    pub(super) fn legacy(messages: &[String]) -> Self {
        Self::of(Place::Legacy, messages.to_vec(), vec!["Closed".to_owned()])
    }

    pub(super) fn extensions(messages: &[String]) -> Self {
        let enums = vec!["Closed".to_owned()];
        Self {
            number_min: 100,
            ..Self::of(Place::Extensions, messages.to_vec(), enums)
        }
    }

    fn of(place: Place, messages: Vec<String>, enums: Vec<String>) -> Self {
        Self {
            place,
            messages,
            enums,
            has_envelope: false,
            numbers: BTreeSet::new(),
            number_min: 1,
            oneofs: 0,
        }
    }

    /// Uses only numbers from `number` on.
    pub(super) fn start_at(&mut self, number: u32) {
        self.number_min = number;
    }

    /// Never uses these numbers.
    pub(super) fn take(&mut self, numbers: &BTreeSet<u32>) {
        self.numbers.extend(numbers);
    }

    fn number(&mut self, tape: &mut Tape<'_>) -> u32 {
        let far = self.place == Place::Modern && tape.one_in(8);
        let mut number = if far {
            *tape.pick(&[63, 64, 65, 1_500, 18_900, 20_000, 536_870_800])
        } else {
            self.number_min
        };
        while !self.numbers.insert(number) {
            number += 1 + u32::from(tape.one_in(6));
        }
        number
    }

    /// Writes a field of any shape, or nothing if its shape needs a message and there is
    /// none.
    pub(super) fn field(&mut self, tape: &mut Tape<'_>, indent: &str) -> String {
        match tape.below(12) {
            0..=3 => self.annotated(tape, indent),
            4 if self.place == Place::Modern => self.map(tape, indent),
            _ => self.plain(tape, indent),
        }
    }

    /// Writes one or several strings that name topics.
    fn annotated(&mut self, tape: &mut Tape<'_>, indent: &str) -> String {
        let label = self.label(tape);
        let mut options = vec![topic(tape)];
        self.json_name(tape, &mut options);
        self.line(tape, indent, &format!("{label}string"), &options)
    }

    fn plain(&mut self, tape: &mut Tape<'_>, indent: &str) -> String {
        let label = self.label(tape);
        let kind = self.value_type(tape);
        let mut options = Vec::new();
        let is_packable = SCALARS[..13].contains(&kind.as_str()) || self.enums.contains(&kind);
        if label == "repeated " && is_packable && tape.one_in(3) {
            let packed = self.place != Place::Modern;
            options.push(format!("packed = {packed}"));
        }
        self.json_name(tape, &mut options);
        self.line(tape, indent, &format!("{label}{kind}"), &options)
    }

    fn map(&mut self, tape: &mut Tape<'_>, indent: &str) -> String {
        let key = tape.pick(&MAP_KEYS);
        let value = self.value_type(tape);
        self.line(tape, indent, &format!("map<{key}, {value}>"), &[])
    }

    /// Writes a oneof of some fields, with a unique name.
    pub(super) fn oneof(&mut self, tape: &mut Tape<'_>, indent: &str) -> String {
        self.oneofs += 1;
        let mut out = format!("{indent}oneof choice_{} {{\n", self.oneofs);
        let inner = format!("{indent}  ");
        for _ in 0..=tape.below(4) {
            let (kind, options) = match tape.below(3) {
                0 => ("string".to_owned(), vec![topic(tape)]),
                _ => (self.value_type(tape), Vec::new()),
            };
            out.push_str(&self.line(tape, &inner, &kind, &options));
        }
        out + indent + "}\n"
    }

    /// Writes the field that receives the sender of a client event.
    pub(super) fn sender(&mut self, tape: &mut Tape<'_>, indent: &str) -> String {
        let mut options = vec!["(sidewire.v1.sender) = true".to_owned()];
        if tape.one_in(2) {
            options.push("(sidewire.v1.topic) = \"user\"".to_owned());
        }
        self.line(tape, indent, "string", &options)
    }

    /// Writes the field that holds the user's presence.
    pub(super) fn absent(&mut self, tape: &mut Tape<'_>, indent: &str) -> String {
        let (kind, value) = *tape.pick(&[
            ("bool", "true"),
            ("bool", "false"),
            ("string", "gone"),
            ("optional string", ""),
            ("Colour", "RED"),
            ("Colour", "NONE"),
            ("optional Colour", "DEEP"),
        ]);
        let option = format!("(sidewire.v1.absent) = \"{value}\"");
        self.line(tape, indent, kind, &[option])
    }

    /// A message's name.
    pub(super) fn message_type(&self, tape: &mut Tape<'_>) -> String {
        match self.messages.is_empty() || tape.one_in(6) {
            true => self.well_known(tape),
            false => tape.pick(&self.messages).clone(),
        }
    }

    fn value_type(&self, tape: &mut Tape<'_>) -> String {
        match tape.below(9) {
            0..=3 => tape.pick(&SCALARS).to_string(),
            4 => tape.pick(&self.enums).clone(),
            5 if self.has_envelope && tape.one_in(6) => "Envelope".to_owned(),
            5 | 6 if !self.messages.is_empty() => tape.pick(&self.messages).clone(),
            _ => self.well_known(tape),
        }
    }

    fn well_known(&self, tape: &mut Tape<'_>) -> String {
        // The proto2 file imports the wrappers only.
        let known = match self.place {
            Place::Modern => &WELL_KNOWN[..],
            Place::Legacy | Place::Extensions => &WELL_KNOWN[7..],
        };
        format!("google.protobuf.{}", tape.pick(known))
    }

    fn label(&self, tape: &mut Tape<'_>) -> &'static str {
        let labels = match self.place {
            Place::Modern => ["", "", "optional ", "repeated "],
            Place::Legacy => ["optional ", "optional ", "required ", "repeated "],
            Place::Extensions => ["optional ", "optional ", "optional ", "repeated "],
        };
        let label: &&'static str = tape.pick(&labels);
        label
    }

    fn json_name(&self, tape: &mut Tape<'_>, options: &mut Vec<String>) {
        if self.place != Place::Extensions && tape.one_in(10) {
            // Unique because of the number, which `line` inserts.
            options.push("json_name = \"named #\"".to_owned());
        }
    }

    fn line(
        &mut self,
        tape: &mut Tape<'_>,
        indent: &str,
        kind: &str,
        options: &[String],
    ) -> String {
        let number = self.number(tape);
        let name = match self.place {
            Place::Extensions => format!("extension_{number}"),
            _ => match tape.below(3) {
                0 => format!("f{number}"),
                1 => format!("field_{number}"),
                _ => format!("some_long_field_{number}"),
            },
        };
        let mut out = format!("{indent}{kind} {name} = {number}");
        if !options.is_empty() {
            let options = options.join(", ").replace('#', &number.to_string());
            write!(out, " [{options}]").unwrap();
        }
        out + ";\n"
    }
}

fn topic(tape: &mut Tape<'_>) -> String {
    let kind = if tape.one_in(4) {
        "*"
    } else {
        tape.pick(&KINDS)
    };
    format!("(sidewire.v1.topic) = \"{kind}\"")
}
