//! The messages of clients, in each encoding.

use std::sync::Arc;

use sidewire_protocol::schema::PayloadType;

use super::{Fixture, LARGE_EVENTS, LARGE_TOPIC, LogEnd, Row, World};
use crate::largest::{
    attack::{Attack, Expected, WebSocket},
    items::{
        self, CLIENT_EVENTS, CONNECTION_TOPICS, ClientEvent, Encoding, HEARTBEATS,
        SUBSCRIBE_TOPICS, Topics,
    },
};

/// Messages that a client may receive before the answer that it waits for.
const ANSWERS_MAX: usize = 10_000;

/// Subscribes to as many topics as a connection may have.
pub(super) fn subscribe_to_all(world: &World) -> WebSocket {
    let parts = CONNECTION_TOPICS / SUBSCRIBE_TOPICS;
    let subscribes = topics_frames(Encoding::Protobuf, "subscribe", parts);
    let confirmed = Expected::Messages("subscription_confirmed", parts);
    world.talk(Encoding::Protobuf, subscribes, confirmed)
}

fn topics_frames(encoding: Encoding, name: &str, parts: usize) -> Vec<u8> {
    let message = |part| {
        let topics = Topics {
            part,
            count: SUBSCRIBE_TOPICS,
        };
        encoding.frame(&items::topics_message(encoding, name, &topics))
    };
    (0..parts).flat_map(message).collect()
}

pub(super) fn messages(world: &World, encoding: Encoding) -> Vec<Row> {
    let entry = |name: &str| format!("message {name} {}", encoding.name());
    let parts = CONNECTION_TOPICS / SUBSCRIBE_TOPICS;
    let talk = |frames, expected| world.websocket(encoding, frames, expected);
    let mut rows = Vec::new();
    for (name, confirmed) in [
        ("subscribe", "subscription_confirmed"),
        ("unsubscribe", "unsubscribe_confirmed"),
    ] {
        let mut largest = topics_frames(encoding, "subscribe", parts);
        if name == "unsubscribe" {
            largest.extend(topics_frames(encoding, name, parts));
        }
        let one_more = Topics {
            part: 0,
            count: SUBSCRIBE_TOPICS + 1,
        };
        let one_more = encoding.frame(&items::topics_message(encoding, name, &one_more));
        let wanted = if name == "subscribe" {
            Expected::Messages(confirmed, parts)
        } else {
            Expected::Any(confirmed, 2 * parts)
        };
        let without_end = encoding.frame(&items::ids_without_end(encoding, name));
        rows.extend([
            Row::legal(
                &[&entry(name)],
                "10 times 1,000 topics in 64 KiB",
                talk(largest, wanted),
            )
            .beyond(talk(one_more, Expected::Messages("error", 1))),
            Row::refused(
                &[&entry(name)],
                "10 times as many ids as fit",
                talk(without_end.repeat(10), Expected::Messages("error", 10)),
            ),
        ]);
    }
    rows.extend(resumes(world, encoding, &entry("subscribe")));
    let ping = encoding.frame(&items::ping(encoding));
    rows.extend([
        Row::legal(
            &[&entry("ping")],
            "60 of 64 KiB",
            talk(
                ping.repeat(HEARTBEATS),
                Expected::Messages("pong", HEARTBEATS),
            ),
        ),
        Row::refused(
            &[&entry("ping")],
            "200 of 64 KiB",
            talk(ping.repeat(200), Expected::Close(4005)),
        ),
    ]);
    rows.extend(client_events(world, encoding));
    rows.extend(renewals(world, encoding));
    rows.extend(never_taken(world, encoding));
    rows
}

/// Returns as many events for other clients as a user may send at once, each of the maximum size,
/// and one that is larger.
fn client_events(world: &World, encoding: Encoding) -> Vec<Row> {
    let subscribe = encoding.frame(&items::subscribe(encoding, "project:p"));
    let ping = encoding.frame(&items::ping(encoding));
    let talk = |frames: &[&[u8]], answer| {
        // Before it come the confirmation and what the clients of other connections send.
        let expected = Expected::Any(answer, ANSWERS_MAX);
        world.websocket(encoding, frames.concat(), expected)
    };
    let largest = |event: &ClientEvent, name| {
        let message = |size| encoding.frame(&items::client_event(encoding, event, size));
        let events = message(event.bytes).repeat(CLIENT_EVENTS);
        let one_more = message(event.bytes + 1);
        let entry = format!("message {} {}", event.name, encoding.name());
        let all_refused = Expected::Messages("error", 10);
        [
            Row::legal(&[&entry], name, talk(&[&subscribe, &events, &ping], "pong"))
                .beyond(talk(&[&subscribe, &one_more], "error")),
            Row::refused(
                &[&entry],
                "10 that are a byte larger",
                world.websocket(encoding, one_more.repeat(10), all_refused),
            ),
        ]
    };
    let typing = largest(&items::TYPING, "600 of 16 KiB");
    let presence = largest(&items::PRESENCE, "600 of 2 KiB");
    typing.into_iter().chain(presence).collect()
}

/// Returns tokens that take all topics from a connection, and tokens that are refused.
fn renewals(world: &World, encoding: Encoding) -> [Row; 2] {
    let entry = format!("message authenticate {}", encoding.name());
    let message = |token: &String| encoding.frame(&items::authenticate(encoding, token));
    let parts = CONNECTION_TOPICS / SUBSCRIBE_TOPICS;
    let subscribes = topics_frames(encoding, "subscribe", parts);
    let authenticated = Expected::Any("authenticated", parts + 1);
    let talk = world.talk(encoding, subscribes, authenticated);
    let last_frames = world.empty_tokens.iter().map(message).collect();
    let too_long: Vec<u8> = world.too_long_tokens.iter().flat_map(message).collect();
    let forged = world.forged.iter().flat_map(message).collect::<Vec<_>>();
    let all_refused = Expected::Messages("error", 10);
    [
        Row::legal(
            &[&entry],
            "a token that grants none of 10,000 topics",
            Attack::WebSocket(WebSocket {
                last_frames,
                ..talk
            }),
        )
        .beyond(world.websocket(encoding, too_long, Expected::Messages("error", 1))),
        Row::refused(
            &[&entry],
            "10 forged tokens",
            world.websocket(encoding, forged.repeat(10), all_refused),
        ),
    ]
}

fn resumes(world: &World, encoding: Encoding, entry: &str) -> Vec<Row> {
    let row = |fixture, is_legal, name, topics: Vec<String>, expected| {
        let tokens = Arc::clone(&world.filled_tokens);
        let talk = world.talk(encoding, Vec::new(), expected);
        let talk = WebSocket { tokens, ..talk };
        let resumed = move |from: &LogEnd| {
            let message = |topic: &String| encoding.frame(&items::resume(encoding, from, topic));
            let frames: Vec<u8> = topics.iter().flat_map(message).collect();
            let frames = frames.into();
            Attack::WebSocket(WebSocket {
                frames,
                ..talk.clone()
            })
        };
        let attack = resumed(&LogEnd::default());
        let row = Row::new(&[entry], is_legal, name, attack);
        row.with(fixture).resumed(resumed)
    };
    // Topics that no event has.
    let unknown = |count| (0..count).map(|part| format!("zzz:{part}")).collect();
    vec![
        // One resume is served and 16 wait.
        row(
            Fixture::FilledLog,
            true,
            "17 resumes for nothing",
            unknown(17),
            Expected::Messages("subscription_confirmed", 17),
        ),
        row(
            Fixture::FilledLog,
            false,
            "100 resumes at once",
            unknown(100),
            Expected::Any("error", 100),
        ),
        row(
            Fixture::LargeLog,
            true,
            "a resume for 4 events of 1 MiB",
            vec![LARGE_TOPIC.to_owned()],
            Expected::Replayed("work_item_updated", LARGE_EVENTS),
        ),
    ]
}

/// Returns one frame of each kind that the relay accepts from no client.
fn never_taken(world: &World, encoding: Encoding) -> Vec<Row> {
    let payloads = world.payloads.iter();
    let payloads: Vec<_> = payloads
        .filter(|it| !it.kind.is_taken_from_clients())
        .collect();
    let entries: Vec<_> = payloads
        .iter()
        .map(|it| format!("message {} {}", it.name, encoding.name()))
        .collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    let of = |payload: &&PayloadType| {
        let message = items::payload(encoding, payload.number, &camel_case(&payload.name));
        encoding.frame(&message)
    };
    let frames: Vec<u8> = payloads.iter().flat_map(of).collect();
    let unknown = encoding.frame(&items::unknown(encoding));
    vec![
        Row::refused(
            &entries,
            "each payload that is not for clients",
            world.websocket(
                encoding,
                frames,
                Expected::Messages("error", payloads.len()),
            ),
        ),
        Row::refused(
            &[&format!("message unknown {}", encoding.name())],
            "10 of 64 KiB",
            world.websocket(
                encoding,
                unknown.repeat(10),
                Expected::Messages("error", 10),
            ),
        ),
    ]
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(1);
        name + &initial.to_uppercase() + rest
    })
}
