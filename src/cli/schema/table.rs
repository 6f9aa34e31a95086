//! The printed routing table. Its JSON is for programs and stable: members may be added, but
//! none is renamed or removed.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use sidewire_protocol::schema::{IdLists, PayloadKind, PayloadType, Schema, TopicRoutes};

/// The routing table of a schema.
#[derive(Debug, Serialize)]
pub(super) struct RoutingTableView {
    envelope: String,
    batch: bool,
    authenticate: bool,
    kinds: Vec<String>,
    subscribe: Vec<IdListRow>,
    unsubscribe: Vec<IdListRow>,
    envelope_topics: Vec<PathRow>,
    events: Vec<EventRow>,
}

/// A list of ids in Subscribe or Unsubscribe.
#[derive(Debug, Serialize)]
struct IdListRow {
    number: u32,
    name: String,
    kind: String,
}

#[derive(Debug, Serialize)]
struct EventRow {
    number: u32,
    name: String,
    json_name: String,
    message: String,
    client_publish: bool,
    presence: bool,
    sender: Vec<String>,
    absent: Option<AbsentRow>,
    topics: Vec<PathRow>,
    recursions: Vec<RecursionRow>,
    /// True if there are more topics than are listed.
    cut: bool,
}

#[derive(Debug, Serialize)]
struct AbsentRow {
    field: String,
    value: String,
}

#[derive(Debug, Serialize)]
struct PathRow {
    path: String,
    json_path: String,
    numbers: Vec<u32>,
    kind: Option<String>,
}

#[derive(Debug, Serialize)]
struct RecursionRow {
    path: String,
    same_as: String,
}

impl RoutingTableView {
    pub(super) fn from_schema(schema: &Schema) -> Self {
        let events: Vec<_> = schema
            .events()
            .map(|payload| EventRow::from_payload(schema, payload))
            .collect();
        let envelope_topics = path_rows(schema.envelope_routes());
        let subscribe = list_rows(schema.subscribe_lists());
        let in_fields = events.iter().flat_map(|event| &event.topics);
        let in_fields = in_fields.chain(&envelope_topics);
        let in_fields = in_fields.filter_map(|path| path.kind.clone());
        let in_lists = subscribe.iter().map(|list| list.kind.clone());
        let kinds: BTreeSet<_> = in_fields.chain(in_lists).collect();
        Self {
            envelope: schema.envelope_name().to_owned(),
            batch: schema.has_batch(),
            authenticate: schema.has_authenticate(),
            kinds: kinds.into_iter().collect(),
            subscribe,
            unsubscribe: list_rows(schema.unsubscribe_lists()),
            envelope_topics,
            events,
        }
    }
}

impl EventRow {
    fn from_payload(schema: &Schema, payload: &PayloadType) -> Self {
        let routes = schema.payload_routes(payload);
        let absent = payload.absent.clone();
        let recursions = routes.recursions.iter().map(|it| RecursionRow {
            path: it.path.clone(),
            same_as: it.same_as.clone(),
        });
        Self {
            number: payload.number,
            name: payload.name.clone(),
            json_name: schema.json_name(payload),
            message: payload.message.clone(),
            client_publish: payload.kind
                == PayloadKind::Event {
                    client_publish: true,
                },
            presence: payload.presence,
            sender: payload.sender.clone(),
            absent: absent.map(|it| AbsentRow {
                field: it.field,
                value: it.value,
            }),
            recursions: recursions.collect(),
            cut: routes.is_cut,
            topics: path_rows(routes),
        }
    }
}

fn list_rows(lists: &IdLists) -> Vec<IdListRow> {
    let lists = lists.as_slice().iter();
    lists
        .map(|list| IdListRow {
            number: list.number,
            name: list.name.clone(),
            kind: list.kind.clone(),
        })
        .collect()
}

fn path_rows(routes: TopicRoutes) -> Vec<PathRow> {
    let paths = routes.paths.into_iter();
    paths
        .map(|it| PathRow {
            path: it.path,
            json_path: it.json_path,
            numbers: it.numbers,
            kind: it.kind,
        })
        .collect()
}

impl fmt::Display for RoutingTableView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |is_so: bool| if is_so { "yes" } else { "no" };
        let kinds = match self.kinds.join(", ") {
            kinds if kinds.is_empty() => "none of its own".to_owned(),
            kinds => kinds,
        };
        writeln!(f, "envelope              {}", self.envelope)?;
        writeln!(f, "topic kinds           {kinds}")?;
        writeln!(f, "batches               {}", yes(self.batch))?;
        writeln!(f, "tokens renewed        {}", yes(self.authenticate))?;
        write!(f, "Subscribe lists       ")?;
        match self.subscribe.as_slice() {
            [] => writeln!(f, "none: clients use `topics`, field 16")?,
            lists => {
                let lists = lists.iter().map(|list| {
                    let IdListRow { number, name, kind } = list;
                    format!("{number} {name} → {kind}:<value>")
                });
                let indent = format!("\n{:22}", "");
                writeln!(f, "{}", lists.collect::<Vec<_>>().join(&indent))?;
            }
        }
        if !self.envelope_topics.is_empty() {
            writeln!(f, "\nfields of the envelope, in every event")?;
            write_paths(f, &self.envelope_topics)?;
        }
        for event in &self.events {
            write!(f, "\n{event}")?;
        }
        Ok(())
    }
}

impl fmt::Display for EventRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}  {}", self.number, self.name, self.message)?;
        if self.presence {
            writeln!(f, "  clients may send it; it is presence")?;
        } else if self.client_publish {
            writeln!(f, "  clients may send it")?;
        }
        if !self.sender.is_empty() {
            writeln!(f, "  sender: {}", self.sender.join(", "))?;
        }
        if let Some(AbsentRow { field, value }) = &self.absent {
            writeln!(f, "  absent: {field} = {value}")?;
        }
        if self.topics.is_empty() {
            writeln!(
                f,
                "  names no topic: pass topics with `?topic=` or in `topics`, field 18"
            )?;
        }
        write_paths(f, &self.topics)?;
        for RecursionRow { path, same_as } in &self.recursions {
            match same_as.as_str() {
                "" => writeln!(f, "  {path}.…  as in the event itself")?,
                outer => writeln!(f, "  {path}.…  as in {outer}")?,
            }
        }
        if self.cut {
            writeln!(f, "  … and more, which are not listed")?;
        }
        Ok(())
    }
}

fn write_paths(f: &mut fmt::Formatter<'_>, paths: &[PathRow]) -> fmt::Result {
    for PathRow { path, kind, .. } in paths {
        match kind {
            Some(kind) => writeln!(f, "  {path} → {kind}:<value>")?,
            None => writeln!(f, "  {path} → <value>, which is a topic")?,
        }
    }
    Ok(())
}
