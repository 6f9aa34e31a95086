//! Which bytes of an event are passed on unchanged, and what the relay adds.

use prost::Message as _;
use serde_json::json;
use sidewire_client::{Envelope, PublishEncoding, PublishedEvent, ReceivedEvent};

use crate::support::TestRelay;
use crate::vocabulary::{also, created_by_call, named};

/// Runs of bytes that an envelope consists of.
#[derive(Clone, Copy)]
enum Run<'a> {
    /// Passed on unchanged.
    Kept(&'a [u8]),
    /// Removed.
    Cut(&'a [u8]),
}

#[tokio::test]
async fn an_event_has_the_posted_bytes_except_field_18_and_default_values() {
    use Run::{Cut, Kept};
    const ID: Run<'_> = Kept(b"\x0a\x02m1");
    const NO_ID: Run<'_> = Cut(b"\x0a\x00");
    const NO_ID_AT_LENGTH: Run<'_> = Cut(b"\x8a\x00\x80\x00");
    const TIME: Run<'_> = Kept(b"\x40\x05");
    const NEGATIVE_TIME: Run<'_> = Kept(b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    const NO_TIME: Run<'_> = Cut(b"\x40\x00");
    const NO_TIME_AT_LENGTH: Run<'_> = Cut(b"\x40\x80\x80\x00");
    const EXTRA: Run<'_> = Cut(b"\x92\x01\x07extra:1");
    const EXTRA_AT_LENGTH: Run<'_> = Cut(b"\x92\x81\x00\x87\x00extra:2");
    // Fields 50, 51, 52 and 5000, which the schema does not know.
    const VARINT: Run<'_> = Kept(b"\x90\x03\x07");
    const FIXED: Run<'_> = Kept(b"\x99\x0312345678");
    const FIXED_32: Run<'_> = Kept(b"\xa5\x031234");
    const STRING: Run<'_> = Kept(b"\xc2\xb8\x02\x02hi");

    // All cases have one id, so ids must not be remembered here.
    let relay = TestRelay::with(|config| {
        config.ingest.message_id_age = std::time::Duration::from_nanos(1);
    });
    let mut client = relay.connect_binary("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let (event, topics) = created_by_call();
    let event = relay.envelope(event);
    let payload = Kept(&event);
    let roundabout = roundabout(&event);
    let roundabout = Kept(&roundabout);

    // Then: whether the relay appends the message_id, and the timestamp.
    let cases: &[(&[Run<'_>], bool, bool)] = &[
        (&[payload], true, true),
        (&[ID, TIME, payload], false, false),
        (&[TIME, payload, ID], false, false),
        (&[payload, NEGATIVE_TIME], true, false),
        (&[payload, ID], false, true),
        (&[NO_ID, payload, NO_TIME], true, true),
        (&[NO_TIME_AT_LENGTH, NO_ID_AT_LENGTH, payload], true, true),
        (&[ID, payload, NO_TIME], false, true),
        (&[ID, EXTRA, payload], false, true),
        (&[EXTRA, payload], true, true),
        (&[payload, EXTRA], true, true),
        (
            &[
                EXTRA,
                EXTRA_AT_LENGTH,
                ID,
                EXTRA,
                TIME,
                EXTRA,
                payload,
                EXTRA,
            ],
            false,
            false,
        ),
        (
            &[VARINT, payload, STRING, FIXED, FIXED_32, VARINT],
            true,
            true,
        ),
        (&[roundabout], true, true),
        (
            &[
                NO_ID,
                VARINT,
                EXTRA,
                TIME,
                STRING,
                roundabout,
                EXTRA_AT_LENGTH,
                FIXED,
            ],
            true,
            false,
        ),
    ];
    for (index, (runs, appends_id, appends_time)) in cases.iter().enumerate() {
        let (mut sent, mut kept) = (Vec::new(), Vec::new());
        for run in *runs {
            match run {
                Kept(bytes) => {
                    sent.extend(*bytes);
                    kept.extend(*bytes);
                }
                Cut(bytes) => sent.extend(*bytes),
            }
        }
        let published = post_about(&relay, sent, PublishEncoding::Protobuf, topics).await;
        assert_eq!(published.matched, Some(1), "case {index}");
        let received = client.event().await;
        check_bytes(&received, &published, &kept, *appends_id, *appends_time);
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

/// Returns an envelope with one short payload whose tag and length are longer than needed,
/// and with a field in the payload that the schema does not know.
fn roundabout(event: &[u8]) -> Vec<u8> {
    let tag = 1 + event.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (tag, rest) = event.split_at(tag);
    let (length, payload) = rest.split_first().unwrap();
    assert_eq!(usize::from(*length), payload.len());
    let unknown = b"\xc2\xb8\x02\x02hi";
    let length = length + unknown.len() as u8;
    let (last, first) = tag.split_last().unwrap();
    let mut bytes = first.to_vec();
    bytes.extend([last | 0x80, 0x80, 0x00, length | 0x80, 0x00]);
    bytes.extend(payload);
    bytes.extend(unknown);
    bytes
}

#[tokio::test]
async fn a_message_id_and_a_timestamp_given_in_json_are_kept_too() {
    let relay = TestRelay::start();
    let mut client = relay.connect_binary("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let (event, topics) = created_by_call();
    let mut event = named("given", also(event, &["extra:1"]));
    event["timestamp"] = json!("-5");
    let published = post_about(&relay, event.to_string(), PublishEncoding::Json, topics).await;
    let mut expected = vec!["project:p1", "extra:1"];
    if !topics.is_empty() {
        // Topics of the call come after those of the event.
        expected.reverse();
    }
    assert_eq!(published.topics, expected);
    event.as_object_mut().unwrap().remove("topics");
    let mut expected = event.clone();
    expected["position"] = json!({
        "epoch": published.position.epoch,
        "offset": published.position.offset.to_string(),
    });
    assert_eq!(relay.json(&client.event().await.envelope), expected);

    // A field with its default value counts as missing.
    event["messageId"] = json!("");
    event["timestamp"] = json!(0);
    let published = post_about(&relay, event.to_string(), PublishEncoding::Json, topics).await;
    let received = client.event().await;
    assert_eq!(received.message_id, published.message_id);
    assert!(received.message_id.len() == 36 && received.timestamp > 0);
    drop(client);
    assert!(relay.stop().await);
}

/// Posts one event to `acme`.
pub async fn post(
    relay: &TestRelay,
    body: impl Into<bytes::Bytes>,
    encoding: PublishEncoding,
) -> PublishedEvent {
    post_about(relay, body, encoding, &[]).await
}

/// Posts one event to `acme` with topics in the call.
async fn post_about(
    relay: &TestRelay,
    body: impl Into<bytes::Bytes>,
    encoding: PublishEncoding,
    topics: &[&str],
) -> PublishedEvent {
    let backend = relay.backend();
    let answer = backend.post("acme", body, encoding, topics, false).await;
    answer.unwrap().results.remove(0)
}

/// Asserts that the envelope consists of the kept runs, then the relay's own fields, and
/// nothing else.
pub fn check_bytes(
    received: &ReceivedEvent,
    published: &PublishedEvent,
    kept: &[u8],
    appends_id: bool,
    appends_time: bool,
) {
    let appended = received.envelope.strip_prefix(kept).unwrap_or_else(|| {
        panic!("{:02x?} begins with {kept:02x?}", &received.envelope[..]);
    });
    assert_eq!(received.message_id, published.message_id);
    let expected = Envelope {
        message_id: if appends_id {
            published.message_id.clone()
        } else {
            String::new()
        },
        timestamp: if appends_time { received.timestamp } else { 0 },
        position: Some(published.position.clone()),
        control: None,
    };
    assert_eq!(appended, expected.encode_to_vec());
    if appends_id {
        assert_eq!(published.message_id.len(), 36, "a UUID");
    }
    if appends_time {
        let now = sidewire_protocol::clock::Clock::system().unix_seconds();
        assert!((now - 60..=now).contains(&received.timestamp));
    }
}
