//! The WebSocket protocol itself: an invalid frame ends its connection with the right code,
//! and no other connection.

use serde_json::{Value, json};
use sidewire_testing::websocket::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, binary, frame, header, masked, unmasked,
};

use crate::{
    client::TestClient,
    raw::{RawClient, close_payload},
    support::TestRelay,
    vocabulary::{created, named, subscribe, subscribed, topics_of},
};

/// Asserts that the relay closes a connection with this code if these bytes are its first.
async fn assert_closed(relay: &TestRelay, case: &str, bytes: &[u8], code: u16) {
    let mut client = RawClient::open(relay, "acme", "ann").await;
    client.send(bytes).await;
    let (closed, reason) = client.closed().await;
    assert_eq!(closed, code, "{case}: {reason}");
    assert!(!reason.is_empty(), "{case}");
}

/// A client that receives an event now and then, whatever others do.
struct Neighbour(TestClient);

impl Neighbour {
    async fn of(relay: &TestRelay) -> Self {
        let mut client = relay.connect("acme", "neighbour").await;
        client.subscribe(&["project:p1"]).await;
        Self(client)
    }

    async fn assert_healthy(&mut self, relay: &TestRelay) {
        let published = relay.publish("acme", created("p1")).await;
        assert_eq!(published.matched, Some(1));
        assert_eq!(self.0.event().await.message_id, published.message_id);
        self.0.nothing_more().await;
    }
}

/// Asserts that the relay has closed this many connections for this reason, and that the
/// neighbour is unaffected.
async fn assert_counted(relay: &TestRelay, reason: &str, count: usize) {
    assert_ne!(count, 0);
    let name =
        format!("sidewire_connections_closed_total{{transport=\"websocket\",reason=\"{reason}\"}}");
    relay
        .metrics_where(|metrics| metrics[&name] == count as f64)
        .await;
    assert_eq!(relay.metrics().await["sidewire_panics_total"], 0.0);
}

#[tokio::test]
async fn a_text_frame_is_closed_with_1003() {
    let relay = TestRelay::start();
    let mut neighbour = Neighbour::of(&relay).await;
    let json = br#"{"ping":{"timestamp":"5"}}"#;
    let (first, rest) = json.split_at(7);
    let fragments = [frame(TEXT, first), frame(FIN | CONTINUATION, rest)].concat();
    for (case, bytes) in [
        ("JSON", frame(FIN | TEXT, json)),
        ("nothing", frame(FIN | TEXT, b"")),
        ("fragments", fragments),
    ] {
        assert_closed(&relay, case, &bytes, 1003).await;
    }
    assert_counted(&relay, "wrong_frame_type", 3).await;
    neighbour.assert_healthy(&relay).await;
    drop(neighbour);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_violation_of_the_frame_format_is_closed_with_1002() {
    let relay = TestRelay::start();
    let mut neighbour = Neighbour::of(&relay).await;
    let ping = relay.envelope(json!({"ping": {}}));
    let long = [b'x'; 126];
    let cases = [
        ("no mask", unmasked(FIN | BINARY, &ping)),
        ("no mask on a ping", unmasked(FIN | PING, b"")),
        ("no mask on a close", unmasked(FIN | CLOSE, b"")),
        ("reserved bit 1", frame(FIN | 0x40 | BINARY, &ping)),
        ("reserved bit 2", frame(FIN | 0x20 | BINARY, &ping)),
        ("reserved bit 3", frame(FIN | 0x10 | BINARY, &ping)),
        ("opcode 3", frame(FIN | 0x3, &ping)),
        ("opcode 7", frame(FIN | 0x7, &ping)),
        ("opcode 11", frame(FIN | 0xb, b"")),
        ("opcode 15", frame(FIN | 0xf, b"")),
        ("a fragmented ping", frame(PING, b"")),
        ("a fragmented pong", frame(PONG, b"")),
        ("a fragmented close", frame(CLOSE, b"")),
        ("a ping of 126 bytes", frame(FIN | PING, &long)),
        ("a close of 126 bytes", frame(FIN | CLOSE, &long)),
        (
            "a continuation of nothing",
            frame(FIN | CONTINUATION, &ping),
        ),
        (
            "a message in the middle of another",
            [frame(BINARY, &ping), binary(&ping)].concat(),
        ),
        ("a close of one byte", frame(FIN | CLOSE, &[3])),
    ];
    for (case, bytes) in &cases {
        assert_closed(&relay, case, bytes, 1002).await;
    }
    assert_counted(&relay, "protocol_error", cases.len()).await;
    neighbour.assert_healthy(&relay).await;
    drop(neighbour);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_closed_with_1007() {
    let relay = TestRelay::start();
    let cases = [
        (
            "a reason",
            frame(FIN | CLOSE, &close_payload(1000, b"\xff")),
        ),
        (
            "a reason that is cut off",
            frame(FIN | CLOSE, &close_payload(1000, b"gr\xc3")),
        ),
        ("a text frame", frame(FIN | TEXT, b"\xff")),
    ];
    for (case, bytes) in &cases {
        assert_closed(&relay, case, bytes, 1007).await;
    }
    assert_counted(&relay, "bad_utf8", cases.len()).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_message_over_the_limit_is_closed_with_1009() {
    let relay = TestRelay::with(|config| config.client.message_max = 1_000);
    let mut neighbour = Neighbour::of(&relay).await;
    let fragment = |first, len| frame(first, &vec![0; len]);
    let cases = [
        ("one frame", fragment(FIN | BINARY, 1_001)),
        ("its header alone", header(FIN | BINARY, true, 1_001)),
        (
            "two fragments",
            [fragment(BINARY, 600), fragment(FIN | CONTINUATION, 401)].concat(),
        ),
        (
            "fragments without an end",
            [fragment(BINARY, 1), fragment(CONTINUATION, 10).repeat(100)].concat(),
        ),
    ];
    for (case, bytes) in &cases {
        assert_closed(&relay, case, bytes, 1009).await;
    }
    assert_counted(&relay, "too_big", cases.len()).await;

    // A message at the bound is accepted: a Ping with an unknown field.
    let ping = relay.envelope(json!({"ping": {"timestamp": "5"}}));
    let unknown_field = [0x9a, 0x06, 0xe0, 0x07];
    let mut message = [&ping[..], &unknown_field].concat();
    message.resize(1_000, b' ');
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    client.send(&binary(&message)).await;
    let (first, rest) = message.split_at(600);
    client.send(&frame(BINARY, first)).await;
    client.send(&frame(FIN | CONTINUATION, rest)).await;
    for _ in 0..2 {
        let pong = client.envelope(&relay).await;
        assert_eq!(pong["pong"]["clientTimestamp"], "5", "{pong}");
    }
    client.nothing_more(&relay).await;
    neighbour.assert_healthy(&relay).await;
    drop((neighbour, client));
    assert!(relay.stop().await);
}

/// Expected result for the first frame of a connection.
enum Fate {
    Closed(&'static [u16]),
    Refused,
    Pong,
    ClosedByClient,
    Ignored,
}

/// Returns the expected result by RFC 6455, with frames of at most 64 KiB.
fn fate(opcode: u8, is_masked: bool, len: u64) -> Fate {
    let is_too_big = len > 64 * 1024;
    match opcode {
        _ if !is_masked => Fate::Closed(if is_too_big { &[1002, 1009] } else { &[1002] }),
        TEXT | BINARY if is_too_big => Fate::Closed(&[1009]),
        TEXT => Fate::Closed(&[1003]),
        BINARY => Fate::Refused,
        CLOSE if len <= 125 => Fate::ClosedByClient,
        PING if len <= 125 => Fate::Pong,
        PONG if len <= 125 => Fate::Ignored,
        _ if is_too_big => Fate::Closed(&[1002, 1009]),
        _ => Fate::Closed(&[1002]),
    }
}

#[tokio::test]
async fn a_frame_of_any_opcode_and_length_is_handled_without_affecting_others() {
    const LENGTHS: [u64; 8] = [
        125,
        126,
        65_535,
        65_536,
        1 << 31,
        1 << 32,
        1 << 63,
        u64::MAX,
    ];
    let relay = TestRelay::start();
    let mut neighbour = Neighbour::of(&relay).await;
    let mut tried = 0;
    for opcode in 0..=0xf {
        for len in LENGTHS {
            for is_masked in [true, false] {
                meet_fate(&relay, opcode, is_masked, len).await;
                tried += 1;
            }
        }
        neighbour.assert_healthy(&relay).await;
    }
    assert_eq!(tried, 16 * 8 * 2);
    relay
        .metrics_where(|metrics| metrics["sidewire_connections"] == 1.0)
        .await;
    assert_eq!(relay.metrics().await["sidewire_panics_total"], 0.0);
    drop(neighbour);
    assert!(relay.stop().await);
}

/// Sends one frame, or only the header of one that is too long, and checks the result.
async fn meet_fate(relay: &TestRelay, opcode: u8, is_masked: bool, len: u64) {
    let case = format!("opcode {opcode}, {len} bytes, masked: {is_masked}");
    let payload = match (opcode, len) {
        (_, 65_537..) => vec![],
        (CLOSE, _) => close_payload(1000, &vec![b'x'; len as usize - 2]),
        _ => vec![b'x'; len as usize],
    };
    let mut bytes = header(FIN | opcode, is_masked, len);
    bytes.extend(if is_masked {
        masked(&payload)
    } else {
        payload.clone()
    });
    let mut client = RawClient::open(relay, "acme", "ann").await;
    client.send(&bytes).await;
    match fate(opcode, is_masked, len) {
        Fate::Closed(codes) => {
            let (code, _) = client.closed().await;
            assert!(codes.contains(&code), "{case}: {code}");
        }
        Fate::Refused => {
            let error = client.envelope(relay).await["error"].take();
            assert_eq!(error["errorCode"], "VALIDATION_ERROR", "{case}");
            client.nothing_more(relay).await;
        }
        Fate::Pong => {
            let pong = client.frame().await;
            assert_eq!((pong.opcode, pong.payload), (PONG, payload), "{case}");
            client.nothing_more(relay).await;
        }
        Fate::ClosedByClient => assert_eq!(client.closed().await.0, 1000, "{case}"),
        Fate::Ignored => client.nothing_more(relay).await,
    }
}

#[tokio::test]
async fn a_ping_between_the_fragments_of_a_message_is_answered_at_once() {
    let relay = TestRelay::start();
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    let message = relay.envelope(named("m", subscribe(&["project:p1"])));
    let (first, rest) = message.split_at(4);
    let (second, third) = rest.split_at(1);
    let longest = [b'x'; 125];
    client.send(&frame(BINARY, first)).await;
    for (payload, fragment) in [
        (&b"once"[..], frame(CONTINUATION, second)),
        (&longest, frame(CONTINUATION, b"")),
        (b"", frame(FIN | CONTINUATION, third)),
    ] {
        client.send(&frame(FIN | PING, payload)).await;
        let pong = client.frame().await;
        assert_eq!((pong.opcode, &pong.payload[..]), (PONG, payload));
        client
            .send(&frame(FIN | PONG, b"that nobody asked for"))
            .await;
        client.send(&fragment).await;
    }
    let confirmed = client.envelope(&relay).await["subscriptionConfirmed"].take();
    assert_eq!(topics_of(&confirmed), subscribed(&["project:p1"]));
    client.nothing_more(&relay).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_message_may_have_as_many_fragments_as_bytes() {
    let relay = TestRelay::start();
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    let message = relay.envelope(json!({"messageId": "m", "ping": {"timestamp": "5"}}));
    for (index, byte) in message.iter().enumerate() {
        let first = if index == 0 { BINARY } else { CONTINUATION };
        let fin = if index + 1 == message.len() { FIN } else { 0 };
        // Each byte in a segment of its own, or two in one, as the kernel decides.
        for part in frame(fin | first, &[*byte]).chunks(3) {
            client.send(part).await;
        }
    }
    let pong: Value = client.envelope(&relay).await;
    assert_eq!(pong["pong"]["clientTimestamp"], "5");
    drop(client);
    assert!(relay.stop().await);
}
