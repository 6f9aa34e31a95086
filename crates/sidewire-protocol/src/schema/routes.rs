//! The routing table for users and tools: the annotated fields of each event, by path. A
//! recursive message is listed once.

use std::collections::VecDeque;

use prost_reflect::{Kind, MessageDescriptor};

use super::{
    Schema,
    payload::PayloadType,
    relay_fields::number,
    table::{RoutingTable, TableField, TypeIndex, ValueShape},
};

/// Maximum number of paths listed for one event. Recursive messages can have many more.
const PATHS_MAX: usize = 500;

/// Maximum number of messages visited for one event.
const MESSAGES_MAX: usize = 5_000;

/// The annotated fields below a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicRoutes {
    /// The paths to them, sorted by field numbers.
    pub paths: Vec<TopicPath>,
    /// The recursive messages, below which the paths continue.
    pub recursions: Vec<RouteRecursion>,
    /// True if there are more paths than are listed here.
    pub is_cut: bool,
}

/// The path to an annotated field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPath {
    /// The field names in the .proto, such as `lines[].product_id`: `[]` follows a list,
    /// `{}` a map.
    pub path: String,
    /// The path with the field names in JSON.
    pub json_path: String,
    /// The field numbers. The number of a map's value, 2, is omitted.
    pub numbers: Vec<u32>,
    /// The topic kind, if the values are ids; `None` if they are whole topics.
    pub kind: Option<String>,
}

/// A field that contains a message in which it is nested itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRecursion {
    /// The path of the field, in the form of [`TopicPath::path`].
    pub path: String,
    /// The path of the outer message, below which the paths are listed; empty for the event
    /// itself.
    pub same_as: String,
}

impl Schema {
    /// Returns the annotated fields of a payload, with paths relative to its message.
    #[must_use]
    pub fn payload_routes(&self, payload: &PayloadType) -> TopicRoutes {
        let envelope = self.table.get(RoutingTable::ENVELOPE);
        let field = envelope.and_then(|envelope| envelope.field(payload.number));
        let message = self.envelope.get_field(payload.number);
        match (field, message.map(|field| field.kind())) {
            (Some(field), Some(Kind::Message(message))) if field.is_routing => match field.shape {
                ValueShape::Message(index) => self.routes_below(index, message, |_| true),
                _ => TopicRoutes::default(),
            },
            _ => TopicRoutes::default(),
        }
    }

    /// Returns the annotated fields of the envelope outside of its payload, which every
    /// event can have.
    #[must_use]
    pub fn envelope_routes(&self) -> TopicRoutes {
        let is_beside = |field: &TableField| !field.is_payload;
        self.routes_below(RoutingTable::ENVELOPE, self.envelope.clone(), is_beside)
    }

    /// Returns the events that a backend may post, sorted by number.
    pub fn events(&self) -> impl Iterator<Item = &PayloadType> {
        self.payloads.iter().filter(|it| it.kind.is_event())
    }

    /// Returns the payload's name in JSON.
    #[must_use]
    pub fn json_name(&self, payload: &PayloadType) -> String {
        let field = self.envelope.get_field(payload.number);
        field.map_or_else(|| payload.name.clone(), |it| it.json_name().to_owned())
    }

    /// Returns true if a client can renew its token on its connection: the envelope has the
    /// fields 19 and 20.
    #[must_use]
    pub fn has_authenticate(&self) -> bool {
        [number::AUTHENTICATE, number::AUTHENTICATED]
            .iter()
            .all(|number| self.envelope.get_field(*number).is_some())
    }

    /// Lists the annotated fields below a message. Searches breadth-first, so that a
    /// truncated table contains the short paths. `starts` selects the fields of the
    /// outermost message.
    fn routes_below(
        &self,
        index: TypeIndex,
        message: MessageDescriptor,
        starts: impl Fn(&TableField) -> bool,
    ) -> TopicRoutes {
        let mut routes = TopicRoutes::default();
        let mut met = 0;
        let mut waiting = VecDeque::from([PendingMessage {
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
                    self.add_route_step(&place, field, &mut routes, &mut waiting);
                }
            }
        }
        routes.paths.sort_by(|a, b| a.numbers.cmp(&b.numbers));
        routes
    }

    /// Processes a routing field of a message: either a path ends there, or it continues
    /// below.
    fn add_route_step(
        &self,
        place: &PendingMessage,
        field: &TableField,
        routes: &mut TopicRoutes,
        waiting: &mut VecDeque<PendingMessage>,
    ) {
        let (json_name, kind) = json_name_and_kind(&place.message, field);
        let way = place.way.extended_by(field, &json_name);
        if let Some(source) = &field.topic {
            let kind = source.kind().map(str::to_owned);
            routes.paths.push(TopicPath { kind, ..way });
            return;
        }
        let Some((index, message)) = self.message_below(field, kind) else {
            return;
        };
        let mut outer = place.outer.clone();
        outer.push((place.index, place.way.path.clone()));
        match outer.iter().find(|(outer, _)| *outer == index) {
            Some((_, same_as)) => routes.recursions.push(RouteRecursion {
                path: way.path,
                same_as: same_as.clone(),
            }),
            None => waiting.push_back(PendingMessage {
                index,
                message,
                way,
                outer,
            }),
        }
    }

    /// Returns the message type of a field; for a map, that of its values.
    fn message_below(
        &self,
        field: &TableField,
        kind: Kind,
    ) -> Option<(TypeIndex, MessageDescriptor)> {
        let Kind::Message(message) = kind else {
            return None;
        };
        match field.shape {
            ValueShape::Message(index) => Some((index, message)),
            ValueShape::MapEntry(entry) => {
                let value = self.table.map_value(entry)?;
                match (value.shape, message.map_entry_value_field().kind()) {
                    (ValueShape::Message(index), Kind::Message(message)) => Some((index, message)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// A message that is waiting to be visited.
struct PendingMessage {
    index: TypeIndex,
    message: MessageDescriptor,
    way: TopicPath,
    /// The messages that contain it, each with its path.
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

    fn extended_by(&self, field: &TableField, json_name: &str) -> Self {
        let brackets = match field.shape {
            ValueShape::MapEntry(_) => "{}",
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

/// Returns the field's name in JSON, and its kind. The name of an extension is in brackets.
fn json_name_and_kind(message: &MessageDescriptor, field: &TableField) -> (String, Kind) {
    if let Some(field) = message.get_field(field.number) {
        return (field.json_name().to_owned(), field.kind());
    }
    let mut extensions = message.extensions();
    match extensions.find(|extension| extension.number() == field.number) {
        Some(extension) => (extension.json_name().to_owned(), extension.kind()),
        None => (field.name.clone(), Kind::String),
    }
}
