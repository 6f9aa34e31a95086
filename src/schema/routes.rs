//! The routing table for people and for tools: what each event's annotated fields are,
//! path by path. A message that lies in itself is shown once.

use std::collections::VecDeque;

use prost_reflect::{Kind, MessageDescriptor};

use super::{
    Schema,
    payload::PayloadType,
    relay_fields::number,
    table::{Field, Shape, Table, TypeIndex},
};

/// The most paths that are listed of one event. Messages that lie in each other can
/// have more than anybody would read.
const PATHS_MAX: usize = 500;

/// The most messages that are looked into for one event, likewise.
const MESSAGES_MAX: usize = 5_000;

/// The annotated fields that lie in a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// The ways to them, by field number.
    pub paths: Vec<TopicPath>,
    /// Where a message lies in itself, so that the ways go on.
    pub recursions: Vec<Recursion>,
    /// There are more than are listed here.
    pub is_cut: bool,
}

/// The way to an annotated field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPath {
    /// The fields' names in the .proto, such as `lines[].product_id`: `[]` stands behind
    /// a list, `{}` behind a map.
    pub path: String,
    /// The same with the fields' names in JSON.
    pub json_path: String,
    /// The fields' numbers. In a map the value's number, 2, is not among them.
    pub numbers: Vec<u32>,
    /// The kind of topic that a value is the id of; `None` where a value is a topic.
    pub kind: Option<String>,
}

/// Where a message lies in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recursion {
    /// The field with the inner one.
    pub path: String,
    /// The outer one, below which the ways are listed; empty for the event itself.
    pub same_as: String,
}

impl Schema {
    /// The annotated fields of a payload, seen from its message.
    #[must_use]
    pub fn routes(&self, payload: &PayloadType) -> Routes {
        let envelope = self.table.get(Table::ENVELOPE);
        let field = envelope.and_then(|envelope| envelope.field(payload.number));
        let message = self.envelope.get_field(payload.number);
        match (field, message.map(|field| field.kind())) {
            (Some(field), Some(Kind::Message(message))) if field.is_routing => match field.shape {
                Shape::Message(index) => self.routes_below(index, message, |_| true),
                _ => Routes::default(),
            },
            _ => Routes::default(),
        }
    }

    /// The annotated fields of the envelope beside its payload, which every event can
    /// have.
    #[must_use]
    pub fn envelope_routes(&self) -> Routes {
        let is_beside = |field: &Field| !field.is_payload;
        self.routes_below(Table::ENVELOPE, self.envelope.clone(), is_beside)
    }

    /// The events that a backend may post, by number.
    pub fn events(&self) -> impl Iterator<Item = &PayloadType> {
        self.payloads.iter().filter(|it| it.kind.is_event())
    }

    /// The payload's name in JSON.
    #[must_use]
    pub fn json_name(&self, payload: &PayloadType) -> String {
        let field = self.envelope.get_field(payload.number);
        field.map_or_else(|| payload.name.clone(), |it| it.json_name().to_owned())
    }

    /// Whether a client can renew its token on its connection: the envelope has the
    /// fields 19 and 20.
    #[must_use]
    pub fn has_authenticate(&self) -> bool {
        [number::AUTHENTICATE, number::AUTHENTICATED]
            .iter()
            .all(|number| self.envelope.get_field(*number).is_some())
    }

    /// Breadth first, so that where the table is cut the short paths are in it.
    /// `starts` says which fields of the outermost message count.
    fn routes_below(
        &self,
        index: TypeIndex,
        message: MessageDescriptor,
        starts: impl Fn(&Field) -> bool,
    ) -> Routes {
        let mut routes = Routes::default();
        let mut met = 0;
        let mut waiting = VecDeque::from([Place {
            index,
            message,
            way: TopicPath::root(),
            outer: Vec::new(),
        }]);
        while let Some(place) = waiting.pop_front() {
            met += 1;
            if met > MESSAGES_MAX || routes.paths.len() >= PATHS_MAX {
                routes.is_cut = true;
                break;
            }
            let is_outermost = place.outer.is_empty();
            let fields = self.table.get(place.index);
            let fields = fields.into_iter().flat_map(|kind| kind.fields());
            for field in fields.filter(|field| field.is_routing) {
                if !is_outermost || starts(field) {
                    self.step(&place, field, &mut routes, &mut waiting);
                }
            }
        }
        routes.paths.sort_by(|a, b| a.numbers.cmp(&b.numbers));
        routes
    }

    /// Takes a routing field of a message: a path ends there, or goes on below.
    fn step(
        &self,
        place: &Place,
        field: &Field,
        routes: &mut Routes,
        waiting: &mut VecDeque<Place>,
    ) {
        let (json_name, kind) = declared(&place.message, field);
        let way = place.way.step(field, &json_name);
        if let Some(source) = &field.topic {
            let kind = source.kind().map(str::to_owned);
            routes.paths.push(TopicPath { kind, ..way });
            return;
        }
        let Some((index, message)) = self.below(field, kind) else {
            return;
        };
        let mut outer = place.outer.clone();
        outer.push((place.index, place.way.path.clone()));
        match outer.iter().find(|(outer, _)| *outer == index) {
            Some((_, same_as)) => routes.recursions.push(Recursion {
                path: way.path,
                same_as: same_as.clone(),
            }),
            None => waiting.push_back(Place {
                index,
                message,
                way,
                outer,
            }),
        }
    }

    /// The message in a field; for a map that of its values.
    fn below(&self, field: &Field, kind: Kind) -> Option<(TypeIndex, MessageDescriptor)> {
        let Kind::Message(message) = kind else {
            return None;
        };
        match field.shape {
            Shape::Message(index) => Some((index, message)),
            Shape::MapEntry(entry) => {
                let value = self.table.map_value(entry)?;
                match (value.shape, message.map_entry_value_field().kind()) {
                    (Shape::Message(index), Kind::Message(message)) => Some((index, message)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// A message on the way.
struct Place {
    index: TypeIndex,
    message: MessageDescriptor,
    way: TopicPath,
    /// The messages that it lies in, each with its path.
    outer: Vec<(TypeIndex, String)>,
}

impl TopicPath {
    fn root() -> Self {
        Self {
            path: String::new(),
            json_path: String::new(),
            numbers: Vec::new(),
            kind: None,
        }
    }

    fn step(&self, field: &Field, json_name: &str) -> Self {
        let brackets = match field.shape {
            Shape::MapEntry(_) => "{}",
            _ if field.is_repeated => "[]",
            _ => "",
        };
        let dot = if self.path.is_empty() { "" } else { "." };
        let mut numbers = self.numbers.clone();
        numbers.push(field.number);
        Self {
            path: format!("{}{dot}{}{brackets}", self.path, field.name),
            json_path: format!("{}{dot}{json_name}{brackets}", self.json_path),
            numbers,
            kind: None,
        }
    }
}

/// The field's name in JSON, and its kind. An extension's name stands in brackets.
fn declared(message: &MessageDescriptor, field: &Field) -> (String, Kind) {
    if let Some(field) = message.get_field(field.number) {
        return (field.json_name().to_owned(), field.kind());
    }
    let mut extensions = message.extensions();
    match extensions.find(|extension| extension.number() == field.number) {
        Some(extension) => (extension.json_name().to_owned(), extension.kind()),
        None => (field.name.clone(), Kind::String),
    }
}
