//! Clients without a WebSocket: server-sent events at `/sse`, read as the HTML standard says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json};
use sidewire::config::WebOrigin;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    ingest_support::{Call, list},
    json_client::JsonClient,
    response_support::{ORIGIN, deciding_backend, position, post, start},
    support::{INGEST_KEY, PATIENCE, TestRelay, token, token_subscribing, token_with},
};

/// An event of the stream, as its lines say.
#[derive(Debug, Default, PartialEq)]
struct Event {
    comment: bool,
    retry: Option<u32>,
    name: Option<String>,
    id: Option<String>,
    data: Option<Value>,
}

/// The response to a request for a stream.
struct EventSource {
    stream: BufReader<TcpStream>,
    status: u16,
    headers: BTreeMap<String, String>,
}

impl EventSource {
    /// Sends a request with this query and these headers, and reads the head of the response.
    async fn send(relay: &TestRelay, line: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(relay.addresses.client).await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut this = Self {
            stream,
            status: 0,
            headers: BTreeMap::new(),
        };
        let status = this.line().await.unwrap();
        this.status = status.split(' ').nth(1).unwrap().parse().unwrap();
        loop {
            let line = this.line().await.unwrap();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            let earlier = this.headers.insert(name.to_owned(), value.to_owned());
            assert_eq!(earlier, None, "{name}");
        }
        this
    }

    /// Asks for a stream of the tenant `acme` with this query.
    async fn open(relay: &TestRelay, user: &str, query: &str) -> Self {
        Self::bearing(relay, &token("acme", user), query).await
    }

    /// Asks for a stream with this token and query.
    async fn bearing(relay: &TestRelay, token: &str, query: &str) -> Self {
        let bearer = format!("Bearer {token}");
        Self::send(
            relay,
            &format!("GET /sse?{query}"),
            &[("Authorization", &bearer)],
        )
        .await
    }

    /// Reads a line; `None` at the end.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line));
        let read = read.await.expect("a line comes");
        // A client that has not read finds the connection reset.
        read.ok()?;
        let end = line.trim_end_matches(['\r', '\n']).len();
        (!line.is_empty()).then(|| line[..end].to_owned())
    }

    /// Reads the next event or comment; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.line().await?;
            let (name, value) = match line.split_once(": ") {
                Some(field) => field,
                None if line.is_empty() => return Some(event),
                None => (line.as_str(), ""),
            };
            match name {
                ":" => event.comment = true,
                "retry" => event.retry = Some(value.parse().unwrap()),
                "event" => event.name = Some(value.to_owned()),
                "id" => event.id = Some(value.to_owned()),
                "data" => event.data = Some(serde_json::from_str(value).unwrap()),
                _ => panic!("a line is `{line}`"),
            }
        }
    }

    /// Reads the next message, and returns its id and its envelope.
    async fn message(&mut self) -> (Option<String>, Value) {
        let mut event = self.next().await.unwrap();
        while event.comment {
            event = self.next().await.unwrap();
        }
        assert_eq!(
            (event.comment, event.retry, event.name),
            (false, None, None)
        );
        (event.id, event.data.unwrap())
    }

    /// Reads the confirmation of the request.
    async fn confirmed(&mut self) -> (Option<String>, Value) {
        assert_eq!(self.status, 200);
        assert_eq!(self.headers["content-type"], "text/event-stream");
        let (id, mut envelope) = self.message().await;
        (id, envelope["subscriptionConfirmed"].take())
    }

    /// Reads an event, checks that its id is its position, and returns both.
    async fn event(&mut self) -> (String, Value) {
        let (id, mut envelope) = self.message().await;
        let id = id.unwrap();
        assert_eq!(id, position(&envelope["position"]));
        (id, envelope["event"]["data"].take())
    }

    /// Reads the last event, with which the relay ends the stream.
    async fn closed(&mut self) -> (u32, Value) {
        let event = self.next().await.unwrap();
        assert_eq!(event.name.as_deref(), Some("close"), "{event:?}");
        assert_eq!(self.line().await, None);
        (event.retry.unwrap(), event.data.unwrap())
    }

    /// Checks the headers of every response.
    fn check_common_headers(&self) {
        for (name, value) in [
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
            ("vary", "Origin"),
        ] {
            assert_eq!(self.headers[name], value);
        }
        assert!(self.headers["date"].ends_with(" GMT"));
    }

    /// Reads the problem document with which the request was refused.
    async fn problem(&mut self) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let len = self.headers["content-length"].parse().unwrap();
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).await.unwrap();
        assert_eq!(self.line().await, None);
        serde_json::from_slice(&body).unwrap()
    }
}

#[tokio::test]
async fn a_client_takes_the_events_of_its_topics_in_order() {
    let relay = start(|_| ());
    let mut stream = EventSource::open(&relay, "ann", "topic=a:1&topic=b:2").await;
    let (id, confirmed) = stream.confirmed().await;
    assert_eq!(id.unwrap(), position(&confirmed["position"]));
    assert_eq!(confirmed["topics"], json!(["a:1", "b:2"]));
    let mut expected = Vec::new();
    for (number, topic) in ["a:1", "c:3", "b:2", "user:ann", "user:bob", "tenant:*"]
        .into_iter()
        .enumerate()
    {
        let id = post(&relay, topic, json!(number)).await;
        if !matches!(topic, "c:3" | "user:bob") {
            expected.push((id, json!(number)));
        }
    }
    for expected in expected {
        assert_eq!(stream.event().await, expected);
    }
    stream.check_common_headers();
    drop(stream);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_stream_without_topics_has_what_comes_for_the_user_and_the_tenant() {
    let relay = start(|_| ());
    let mut stream = EventSource::open(&relay, "ann", "").await;
    let (_, confirmed) = stream.confirmed().await;
    assert_eq!(confirmed["topics"], Value::Null);
    let expected = post(&relay, "user:ann", json!("for you")).await;
    assert_eq!(stream.event().await, (expected, json!("for you")));
    drop(stream);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_resumes_behind_the_last_event_that_it_has() {
    let relay = start(|_| ());
    let first = post(&relay, "a:1", json!(1)).await;
    let second = post(&relay, "a:1", json!(2)).await;
    let third = post(&relay, "a:1", json!(3)).await;
    let bearer = format!("Bearer {}", token("acme", "ann"));
    let cases = [
        (format!("&since={first}"), None, 2),
        (String::new(), Some(second.clone()), 1),
        // What the browser says is newer than the URL of the page.
        (format!("&since={first}"), Some(second), 1),
        (format!("&since={first}"), Some(third.clone()), 0),
        (format!("&since={first}"), Some(String::new()), 2),
    ];
    for (query, last_event_id, replayed) in cases {
        let line = format!("GET /sse?topic=a:1{query}");
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(
            last_event_id
                .iter()
                .map(|id| ("Last-Event-ID", id.as_str())),
        );
        let mut stream = EventSource::send(&relay, &line, &headers).await;
        let (id, confirmed) = stream.confirmed().await;
        assert_eq!(confirmed["recovered"], true);
        // During a replay, only the events say from where to resume.
        assert_eq!(id, (replayed == 0).then(|| third.clone()));
        let mut last = id;
        for _ in 0..replayed {
            last = Some(stream.event().await.0);
        }
        assert_eq!(last, Some(third.clone()));
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_position_that_the_relay_does_not_know_is_answered_with_a_gap() {
    let relay = start(|_| ());
    post(&relay, "a:1", json!(1)).await;
    let bearer = format!("Bearer {}", token("acme", "ann"));
    let epoch = "0123456789abcdef0123456789abcdef";
    let other = format!("{epoch}:1");
    for last_event_id in [other.as_str(), "x", "x:1", ":", "1"] {
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Last-Event-ID", last_event_id),
        ];
        let mut stream = EventSource::send(&relay, "GET /sse?topic=a:1", &headers).await;
        let (id, confirmed) = stream.confirmed().await;
        assert_eq!(confirmed["recovered"], Value::Null, "{last_event_id}");
        assert_eq!(id.unwrap(), position(&confirmed["position"]));
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn requests_are_refused_with_problem_documents() {
    let relay = start(|config| {
        config.limits.topics_per_subscribe = 2;
        config.client.origins = vec![WebOrigin::parse(ORIGIN).unwrap()];
    });
    let all = format!("Bearer {}", token("acme", "ann"));
    let some = token_with("acme", "ann", Duration::from_hours(1), Some(&["a:1"]));
    let some = format!("Bearer {some}");
    let bearer = [("Authorization", all.as_str())];
    let few = [("Authorization", some.as_str())];
    let foreign = [bearer[0], ("Origin", "https://evil.example")];
    let hidden = [bearer[0], ("Sec-Fetch-Site", "cross-site")];
    let body = [bearer[0], ("Content-Length", "1")];
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "sidewire.v1.json, bearer.x.y.z"),
    ];
    let twice = [bearer[0], ("Last-Event-ID", "a"), ("Last-Event-ID", "b")];
    let epoch = "0123456789abcdef0123456789abcdef";
    let two = format!("GET /sse?since={epoch}:1&since={epoch}:1");
    let signed = format!("GET /sse?since={epoch}:+1");
    let cases = [
        ("GET /sse?topic=a:1", &[][..], 401, "AUTHENTICATION_FAILED"),
        // It is no WebSocket, so there is no close code.
        ("GET /sse", &upgrade, 401, "AUTHENTICATION_FAILED"),
        ("GET /sse?access_token=x", &[], 401, "AUTHENTICATION_FAILED"),
        ("GET /sse?topic=b:2", &few, 403, "AUTHORIZATION_FAILED"),
        (
            "GET /sse?topic=user:ann",
            &bearer,
            403,
            "AUTHORIZATION_FAILED",
        ),
        ("GET /sse?topic=a:1", &foreign, 403, "AUTHORIZATION_FAILED"),
        ("GET /sse?topic=a:1", &hidden, 403, "AUTHORIZATION_FAILED"),
        ("GET /sse?topic=nothing", &bearer, 400, "VALIDATION_ERROR"),
        (
            "GET /sse?topic=a&topic=b&topic=c",
            &bearer,
            400,
            "VALIDATION_ERROR",
        ),
        ("GET /sse?topics=a:1", &bearer, 400, "VALIDATION_ERROR"),
        ("GET /sse?since=1", &bearer, 400, "VALIDATION_ERROR"),
        (&two, &bearer, 400, "VALIDATION_ERROR"),
        (&signed, &bearer, 400, "VALIDATION_ERROR"),
        ("GET /sse?topic=%ff", &bearer, 400, "VALIDATION_ERROR"),
        ("GET /sse", &body, 400, "VALIDATION_ERROR"),
        ("GET /sse", &twice, 400, "VALIDATION_ERROR"),
        ("POST /sse", &bearer, 405, "VALIDATION_ERROR"),
    ];
    for (line, headers, status, code) in cases {
        let mut refused = EventSource::send(&relay, line, headers).await;
        refused.check_common_headers();
        let problem = refused.problem().await;
        let seen = (refused.status, problem["code"].as_str().unwrap());
        assert_eq!(seen, (status, code), "{line} {problem}");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_path_does_not_exist_if_the_setting_is_off() {
    let relay = start(|config| config.client.sse = false);
    let mut refused = EventSource::open(&relay, "ann", "topic=a:1").await;
    assert_eq!(refused.status, 404);
    assert_eq!(refused.problem().await["code"], "NOT_FOUND");
    assert!(relay.stop().await);
}

#[tokio::test]
async fn pages_of_allowed_origins_can_read_streams_and_refusals() {
    let relay = start(|config| {
        config.client.origins = vec![WebOrigin::parse(ORIGIN).unwrap()];
    });
    let bearer = format!("Bearer {}", token("acme", "ann"));
    let page = [
        ("Origin", ORIGIN),
        ("Sec-Fetch-Site", "cross-site"),
        ("Authorization", &bearer),
    ];
    let mut allowed = EventSource::send(&relay, "GET /sse?topic=a:1", &page).await;
    allowed.confirmed().await;
    let mut refused = EventSource::send(&relay, "GET /sse?topic=a:1", &page[..2]).await;
    assert_eq!(refused.status, 401);
    refused.problem().await;
    for response in [&allowed, &refused] {
        assert_eq!(response.headers["access-control-allow-origin"], ORIGIN);
        assert_eq!(
            response.headers["access-control-expose-headers"],
            "retry-after"
        );
        assert_eq!(response.headers["vary"], "Origin");
        assert!(
            !response
                .headers
                .contains_key("access-control-allow-credentials")
        );
    }
    let preflight = EventSource::send(&relay, "OPTIONS /sse?topic=a:1", &page[..2]).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.headers["connection"], "close");
    let names = [
        "access-control-allow-origin",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-max-age",
        "vary",
    ];
    assert_eq!(
        names.map(|name| preflight.headers[name].as_str()),
        [
            ORIGIN,
            "GET",
            "authorization, last-event-id",
            "600",
            "Origin"
        ]
    );
    for line in ["OPTIONS /sse", "GET /sse"] {
        let foreign = [("Origin", "https://evil.example"), page[2]];
        let mut refused = EventSource::send(&relay, line, &foreign).await;
        assert_eq!(refused.status, 403, "{line}");
        assert!(!refused.headers.contains_key("access-control-allow-origin"));
        refused.problem().await;
    }
    drop((allowed, preflight));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn comments_say_from_where_to_resume_and_keep_the_stream_open() {
    let relay = start(|config| {
        config.client.ping_interval = Duration::from_millis(50);
        config.client.idle_timeout = Duration::from_millis(500);
    });
    let mut stream = EventSource::open(&relay, "ann", "topic=a:1").await;
    stream.confirmed().await;
    // Not for this client, so that only the comments tell.
    let passed = post(&relay, "b:2", json!(1)).await;
    let mut comments = 0;
    let mut last = None;
    // Twice the idle timeout at least.
    while comments < 20 || last != Some(passed.clone()) {
        let event = stream.next().await.unwrap();
        assert!(event.comment && event.data.is_none(), "{event:?}");
        comments += 1;
        last = event.id;
    }
    drop(stream);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_relay_says_why_it_ends_a_stream_and_when_to_come_back() {
    let relay = start(|_| ());
    let mut stream = EventSource::open(&relay, "ann", "topic=a:1").await;
    stream.confirmed().await;
    let path = "/v1/tenants/acme/users/ann/connections";
    let ended = Call::new("DELETE", path)
        .key(INGEST_KEY)
        .answer(&relay)
        .await;
    assert_eq!(ended.json(), json!({"closed": 1}));
    let (retry, data) = stream.closed().await;
    let reason = "disconnected by the backend";
    let expected = json!({"code": 4002, "reason": reason, "retry_after_ms": 1000});
    assert_eq!((retry, data), (1000, expected));

    let short = token_with("acme", "ann", Duration::from_secs(1), None);
    let mut stream = EventSource::bearing(&relay, &short, "").await;
    stream.confirmed().await;
    let (_, error) = stream.message().await;
    assert_eq!(error["error"]["errorCode"], "AUTHENTICATION_FAILED");
    assert_eq!(stream.closed().await.1["code"], 4001);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_drain_writes_what_is_queued_and_says_when_to_come_back() {
    let mut relay = start(|_| ());
    let mut stream = EventSource::open(&relay, "ann", "topic=a:1").await;
    stream.confirmed().await;
    post(&relay, "a:1", json!("the last")).await;
    let drained = relay.begin_drain();
    assert_eq!(stream.event().await.1, "the last");
    let (retry, data) = stream.closed().await;
    assert_eq!(data["code"], 1001);
    assert_eq!(data["retry_after_ms"], retry);
    assert_eq!(data["reason"], format!("retry_after_ms={retry}"));
    assert!(drained.await.unwrap());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_misses_nothing_when_it_resumes() {
    let relay = start(|config| {
        config.limits.outbox_bytes = 256 * 1024;
        // Comments come while events wait.
        config.client.ping_interval = Duration::from_millis(20);
        config.client.write_timeout = Duration::from_secs(3);
    });
    let mut slow = EventSource::open(&relay, "slow", "topic=a:1").await;
    let (mut last, _) = slow.confirmed().await;
    let mut quick = EventSource::open(&relay, "quick", "topic=a:1").await;
    quick.confirmed().await;
    let text = "x".repeat(20_000);
    let dropped = "sidewire_events_dropped_total{reason=\"too_slow\"}";
    let mut posted = Vec::new();
    while relay.metrics().await[dropped] == 0.0 {
        let id = post(&relay, "a:1", json!(text)).await;
        loop {
            let event = quick.next().await.unwrap();
            if !event.comment {
                assert_eq!(event.id.as_ref(), Some(&id));
                break;
            }
        }
        posted.push(id);
    }
    // What the kernel had taken still arrives.
    let mut received = Vec::new();
    while let Some(event) = slow.next().await {
        last = event.id.clone().or(last);
        received.extend(event.id.filter(|_| event.data.is_some()));
    }
    assert!(received.len() < posted.len());
    let query = format!("topic=a:1&since={}", last.unwrap());
    let mut resumed = EventSource::open(&relay, "slow", &query).await;
    assert_eq!(resumed.confirmed().await.1["recovered"], true);
    while received.len() < posted.len() {
        let event = resumed.next().await.unwrap();
        received.extend(event.id.filter(|_| event.data.is_some()));
    }
    assert_eq!(received, posted);
    drop((quick, resumed));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_largest_event_arrives_whole_with_its_position() {
    let relay = start(|_| ());
    let mut stream = EventSource::open(&relay, "ann", "topic=a:1").await;
    stream.confirmed().await;
    for len in [16_250, 16_300, 16_384, 65_536, 131_072, 900_000] {
        let text = "é".repeat(len / 2);
        let posted = post(&relay, "a:1", json!(text)).await;
        assert_eq!(stream.event().await, (posted, json!(text)), "{len}");
    }
    drop(stream);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_stream_is_listed_as_one_and_ends_when_its_client_goes() {
    let relay = start(|_| ());
    let mut stream = EventSource::open(&relay, "ann", "topic=a:1").await;
    stream.confirmed().await;
    let listing = list(&relay, "/v1/tenants/acme/connections", "user=ann").await;
    assert_eq!(listing["connections"][0]["transport"], "sse");
    assert_eq!(listing["connections"][0]["encoding"], "json");
    drop(stream);
    let closed = "sidewire_connections_closed_total{transport=\"sse\",reason=\"client\"}";
    relay.metrics_where(|metrics| metrics[closed] == 1.0).await;

    // Whatever a client sends besides its request ends the stream, also together with it.
    let mut stream = EventSource::open(&relay, "ann", "topic=a:1").await;
    stream.confirmed().await;
    stream
        .stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let closed = "sidewire_connections_closed_total{transport=\"sse\",reason=\"lost\"}";
    relay.metrics_where(|metrics| metrics[closed] == 1.0).await;
    let bearer = format!("{}\r\n\r\nmore", token("acme", "ann"));
    drop(EventSource::bearing(&relay, &bearer, "topic=a:1").await);
    relay.metrics_where(|metrics| metrics[closed] == 2.0).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_stream_shows_presence_and_what_other_clients_send() {
    let relay = start(|_| ());
    let mut bob = JsonClient::subscribed(&relay, "bob", &["a:1"]).await;
    bob.say(json!({"presence": {"type": "here", "topics": ["a:1"]}}))
        .await;
    bob.say(json!({"ping": {}})).await;
    while bob.envelope().await.get("pong").is_none() {}
    let mut stream = EventSource::open(&relay, "ann", "topic=a:1").await;
    stream.confirmed().await;
    let (id, shown) = stream.message().await;
    assert_eq!(
        (id, shown["presence"]["type"].as_str()),
        (None, Some("here"))
    );
    bob.say(json!({"message": {"type": "typing", "topics": ["a:1"]}}))
        .await;
    let (id, typing) = stream.message().await;
    assert_eq!(
        (id, typing["message"]["type"].as_str()),
        (None, Some("typing"))
    );
    drop((stream, bob));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_token_subscribes_a_stream_to_its_topics() {
    let relay = start(|_| ());
    let token = token_subscribing("acme", "ann", &["a:1"]);
    let mut stream = EventSource::bearing(&relay, &token, "topic=b:2").await;
    let (_, of_token) = stream.confirmed().await;
    assert_eq!(of_token["topics"], json!(["a:1"]));
    let (_, of_query) = stream.confirmed().await;
    assert_eq!(of_query["topics"], json!(["b:2"]));
    let posted = post(&relay, "a:1", json!(1)).await;
    assert_eq!(stream.event().await, (posted, json!(1)));
    drop(stream);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_backend_decides_before_the_response_begins() {
    let permits = Arc::new(Semaphore::new(0));
    let url = deciding_backend(&["a:1"], Arc::clone(&permits)).await;
    let relay = start(|config| {
        config.auth.subscribe.url = Some(url);
        config.client.origins = vec![WebOrigin::parse(ORIGIN).unwrap()];
        // Nor does a comment begin it.
        config.client.ping_interval = Duration::from_millis(10);
    });
    let asked = "sidewire_backend_questions_under_way";
    let before = post(&relay, "user:ann", json!(0)).await;
    let query = format!("topic=a:1&since={before}");
    let allowed = async {
        let mut stream = EventSource::open(&relay, "ann", &query).await;
        let (_, confirmed) = stream.confirmed().await;
        assert_eq!(
            (&confirmed["recovered"], &confirmed["replayed"]),
            (&json!(true), &json!("1"))
        );
        // It came while the backend was asked, and is part of the replay.
        assert_eq!(stream.event().await.1, json!(1));
        stream
    };
    let meanwhile = async {
        relay.metrics_where(|metrics| metrics[asked] == 1.0).await;
        post(&relay, "user:ann", json!(1)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        permits.add_permits(1);
    };
    let (allowed, ()) = tokio::join!(allowed, meanwhile);
    drop(allowed);

    let subscribing = token_subscribing("acme", "ann", &["c:3"]);
    for token in [token("acme", "ann"), subscribing] {
        let bearer = format!("Bearer {token}");
        let page = [("Origin", ORIGIN), ("Authorization", bearer.as_str())];
        let denied = EventSource::send(&relay, "GET /sse?topic=b:2", &page);
        let meanwhile = async {
            if permits.available_permits() == 0 {
                relay.metrics_where(|metrics| metrics[asked] == 1.0).await;
                post(&relay, "user:ann", json!(2)).await;
                permits.add_permits(10);
            }
        };
        let (mut denied, ()) = tokio::join!(denied, meanwhile);
        assert_eq!(denied.status, 403);
        assert_eq!(denied.headers["access-control-allow-origin"], ORIGIN);
        assert_eq!(denied.headers["connection"], "close");
        denied.check_common_headers();
        let problem = denied.problem().await;
        assert_eq!(problem["code"], "AUTHORIZATION_FAILED");
        assert_eq!(problem["detail"], "b:2 is not allowed by the backend");
    }
    assert!(relay.stop().await);
}
