//! The inspector over HTTP: who may use it, and what its data calls return. `scripts/browser`
//! tests the page itself in a browser.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sidewire::config::{Config, HostName, ListenAddress};
use sidewire_testing::http::Answer;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};

use crate::{json_client::JsonClient, raw::http_over, support::TestRelay, vocabulary::TestSchema};

const KEY: &str = "the-key-of-the-inspector";
const JSON: &str = "Content-Type: application/json";

/// A relay with the inspector, and its key file.
struct Inspected {
    relay: TestRelay,
    files: TempDir,
}

/// A request for a path of the inspector.
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    host: &'a str,
    headers: Vec<&'a str>,
    body: &'a str,
}

impl<'a> Ask<'a> {
    fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            host: "localhost:3002",
            headers: Vec::new(),
            body: "",
        }
    }

    fn post(path: &'a str, body: &'a str) -> Self {
        Self {
            method: "POST",
            body,
            ..Self::get(path)
        }
        .header(JSON)
    }

    fn host(self, host: &'a str) -> Self {
        Self { host, ..self }
    }

    fn header(mut self, line: &'a str) -> Self {
        self.headers.push(line);
        self
    }

    fn keyed(self) -> Self {
        self.header("Authorization: Bearer the-key-of-the-inspector")
    }

    fn head(&self) -> String {
        let headers: String = self.headers.iter().map(|it| format!("{it}\r\n")).collect();
        format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            self.method,
            self.path,
            self.host,
            self.body.len(),
        )
    }

    async fn at(&self, address: SocketAddr) -> Answer {
        let stream = TcpStream::connect(address).await.unwrap();
        http_over(stream, &self.head(), self.body.as_bytes()).await
    }
}

impl Inspected {
    fn start() -> Self {
        Self::with(|_, _| ())
    }

    fn with(settings: impl FnOnce(&mut Config, &TempDir)) -> Self {
        let files = TempDir::new().unwrap();
        let key_file = files.path().join("inspector.key");
        std::fs::write(&key_file, format!("{KEY}\n")).unwrap();
        let relay = TestRelay::serving(TestSchema::Generic, |config| {
            config.ops.inspector = true;
            config.ops.inspector_key_file = Some(key_file);
            settings(config, &files);
        });
        Self { relay, files }
    }

    async fn answer(&self, ask: &Ask<'_>) -> Answer {
        ask.at(self.relay.addresses.ops).await
    }

    async fn status(&self, ask: &Ask<'_>) -> u16 {
        self.answer(ask).await.status
    }

    /// Returns the answer of a data call that succeeds.
    async fn data(&self, path: &str) -> Value {
        let path = format!("/inspect/api/{path}");
        let answer = self.answer(&Ask::get(&path).keyed()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Posts an event of this type to topics of acme.
    async fn post(&self, r#type: &str, topics: &[&str]) {
        let event = json!({"topics": topics, "event": {"type": r#type, "data": {"n": 1}}});
        self.relay.publish("acme", event).await;
    }

    /// Returns the types of the events that are listed.
    fn types(listing: &Value) -> Vec<&str> {
        let events = listing["events"].as_array().unwrap().iter();
        let types = events.map(|it| it["event"]["event"]["type"].as_str().unwrap());
        types.collect()
    }

    async fn stop(self) {
        assert!(self.relay.stop().await);
    }
}

#[tokio::test]
async fn without_the_setting_there_is_no_inspector() {
    let relay = TestRelay::start();
    for path in ["/inspect", "/inspect/app.js", "/inspect/api/overview"] {
        let answer = Ask::get(path).keyed().at(relay.addresses.ops).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_page_and_its_files_need_no_key_and_may_load_only_each_other() {
    let inspected = Inspected::start();
    for (path, media_type) in [
        ("/inspect", "text/html; charset=utf-8"),
        ("/inspect/", "text/html; charset=utf-8"),
        ("/inspect/style.css", "text/css; charset=utf-8"),
        ("/inspect/app.js", "text/javascript; charset=utf-8"),
        ("/inspect/icon.svg", "image/svg+xml"),
    ] {
        let answer = inspected.answer(&Ask::get(path)).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(media_type), "{path}");
        assert!(!answer.text().is_empty(), "{path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {name}");
        }
        let policy = answer.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(
        inspected.status(&Ask::get("/inspect/nothing.js")).await,
        404
    );
    assert_eq!(inspected.status(&Ask::get("/inspectors")).await, 404);
    let post = Ask::post("/inspect", "{}");
    assert_eq!(inspected.status(&post).await, 405);
    inspected.stop().await;
}

#[tokio::test]
async fn every_data_call_needs_the_key() {
    let inspected = Inspected::start();
    for path in [
        "session",
        "overview",
        "schema",
        "tenants",
        "tenants/acme/events",
        "tenants/acme/route",
        "token",
        "nothing",
    ] {
        let path = format!("/inspect/api/{path}");
        for key in [
            "X-Key: none",
            "Authorization: Bearer wrong-key-of-the-inspector",
            "Authorization: Bearer the-key-of-the-inspecto",
            "Authorization: Basic the-key-of-the-inspector",
        ] {
            let answer = inspected.answer(&Ask::get(&path).header(key)).await;
            assert_eq!(answer.status, 401, "{path} {key}");
            assert_eq!(answer.problem_code(), "AUTHENTICATION_FAILED");
            assert!(answer.header("content-security-policy").is_some());
        }
    }
    let session = inspected.data("session").await;
    assert_eq!(session["dev"], Value::Null);
    assert_eq!(session["version"], env!("CARGO_PKG_VERSION"));
    inspected.stop().await;
}

#[tokio::test]
async fn other_pages_are_refused_and_the_page_itself_is_not() {
    let inspected = Inspected::with(|config, _| {
        config.ops.hosts = vec![HostName::parse("relay.internal").unwrap()];
    });
    let overview = || Ask::get("/inspect/api/overview").keyed();
    for own in [
        overview(),
        overview().header("Sec-Fetch-Site: same-origin"),
        overview().header("Sec-Fetch-Site: none"),
        overview().header("Origin: http://localhost:3002"),
        overview().header("Origin: https://localhost:3002"),
        overview()
            .host("relay.internal")
            .header("Origin: http://relay.internal"),
    ] {
        assert_eq!(inspected.status(&own).await, 200, "{}", own.head());
    }
    for foreign in [
        overview().header("Sec-Fetch-Site: cross-site"),
        overview().header("Sec-Fetch-Site: same-site"),
        overview()
            .header("Sec-Fetch-Site: cross-site")
            .header("Sec-Fetch-Mode: navigate"),
        overview().header("Origin: http://evil.example"),
        overview().header("Origin: http://localhost:5173"),
        overview().header("Origin: null"),
        // DNS rebinding: a page whose name has this machine's address.
        overview().host("evil.example:3002"),
        overview()
            .host("evil.example:3002")
            .header("Origin: http://evil.example:3002"),
        Ask::get("/inspect").host("evil.example"),
        Ask::get("/inspect/app.js").header("Sec-Fetch-Site: cross-site"),
        Ask::get("/inspect").header("Origin: http://evil.example"),
    ] {
        assert_eq!(inspected.status(&foreign).await, 403, "{}", foreign.head());
    }
    let link = Ask::get("/inspect")
        .header("Sec-Fetch-Site: cross-site")
        .header("Sec-Fetch-Mode: navigate");
    assert_eq!(inspected.status(&link).await, 200);
    inspected.stop().await;
}

#[tokio::test]
async fn the_host_is_checked_behind_a_unix_socket_too() {
    let inspected = Inspected::with(|config, files| {
        config.ops.listen = ListenAddress::Unix(files.path().join("ops"));
    });
    for (host, status) in [("localhost:8080", 200), ("evil.example", 403)] {
        let socket = inspected.files.path().join("ops");
        let ask = Ask::get("/inspect/api/overview").keyed().host(host);
        let stream = UnixStream::connect(socket).await.unwrap();
        let answer = http_over(stream, &ask.head(), b"").await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
    }
    inspected.stop().await;
}

#[tokio::test]
async fn a_call_takes_its_method_json_and_a_bounded_body() {
    let inspected = Inspected::with(|config, _| config.ingest.body_max = 1_000);
    let route = "/inspect/api/tenants/acme/route";
    let long = format!("{{\"event\":{{\"type\":\"{}\"}}}}", "x".repeat(1_000));
    let text = Ask {
        headers: vec!["Content-Type: text/plain"],
        ..Ask::post(route, "{}")
    };
    let binary = Ask {
        headers: vec!["Content-Type: application/x-protobuf"],
        ..Ask::post(route, "{}")
    };
    for (ask, status) in [
        (Ask::get(route), 405),
        (Ask::post("/inspect/api/overview", "{}"), 405),
        (text, 415),
        (binary, 415),
        (Ask::post(route, &long), 413),
        (Ask::get("/inspect/api/tenants?page=2"), 400),
        (Ask::get("/inspect/api/tenants?search=a&search=b"), 400),
        (Ask::get("/inspect/api/tenants?skip=x"), 400),
        (Ask::get("/inspect/api/tenants/acme/events?after=7"), 400),
        (Ask::get("/inspect/api/tenants/acme/events?topic=x"), 400),
        (
            Ask::get("/inspect/api/tenants/acme/connections?limit=0"),
            400,
        ),
        (Ask::get("/inspect/api/tenants/%00/events"), 400),
        (Ask::get("/inspect/api/tenants/acme"), 404),
        (Ask::get("/inspect/api/nothing"), 404),
        // Only in `sidewire dev`.
        (Ask::post("/inspect/api/token", "{}"), 404),
        (Ask::post("/inspect/api/tenants/acme/publish", "{}"), 404),
    ] {
        let ask = ask.keyed();
        let answer = inspected.answer(&ask).await;
        assert_eq!(answer.status, status, "{}: {}", ask.head(), answer.text());
    }
    inspected.stop().await;
}

#[tokio::test]
async fn the_overview_counts_what_the_metrics_count() {
    let inspected = Inspected::start();
    let ann = JsonClient::subscribed(&inspected.relay, "ann", &["a:1"]).await;
    for _ in 0..3 {
        inspected.post("made", &["a:1"]).await;
    }
    let relay = &inspected.relay;
    relay
        .metrics_where(|metrics| metrics["sidewire_events_written_total"] == 3.0)
        .await;
    let overview = inspected.data("overview").await;
    for (member, count) in [
        ("accepted_total", 3),
        ("matched_total", 3),
        ("written_total", 3),
        ("connections", 1),
        ("json_connections", 1),
        ("subscriptions", 1),
        ("tenants", 1),
        ("queued", 0),
    ] {
        assert_eq!(overview[member], count, "{member}");
    }
    let latency = &overview["latency"];
    let counts = latency["counts"].as_array().unwrap();
    let bounds = latency["bounds_ms"].as_array().unwrap();
    assert_eq!(counts.len(), bounds.len() + 1);
    let sum: u64 = counts.iter().map(|it| it.as_u64().unwrap()).sum();
    assert_eq!(sum, 3);
    let reasons = overview["dropped_total"].as_array().unwrap();
    assert!(reasons.iter().all(|it| it["count"] == 0), "{reasons:?}");
    let memory = &overview["memory"];
    assert_eq!(memory["max"], 1_u64 << 30);
    let uses = memory["uses"].as_array().unwrap();
    let events = uses.iter().find(|it| it["name"] == "events").unwrap();
    assert!(events["count"].as_u64().unwrap() > 0);
    drop(ann);
    inspected.stop().await;
}

#[tokio::test]
async fn tenants_are_listed_with_their_connections_and_topics() {
    let inspected = Inspected::start();
    let relay = &inspected.relay;
    let ann = JsonClient::subscribed(relay, "ann", &["a:1", "b:2"]).await;
    let bob = JsonClient::subscribed(relay, "bob", &["a:1"]).await;
    let eve = JsonClient::open(relay, "globex", "eve").await;
    let tenants = inspected.data("tenants").await;
    assert_eq!((&tenants["found"], &tenants["all"]), (&json!(2), &json!(2)));
    let first = &tenants["tenants"][0];
    assert_eq!(first["tenant"], "acme");
    assert_eq!(
        (&first["connections"], &first["topics"]),
        (&json!(2), &json!(2))
    );
    let found = inspected.data("tenants?search=lobe").await;
    assert_eq!(found["tenants"][0]["tenant"], "globex");
    assert_eq!(found["found"], 1);
    let second = inspected.data("tenants?skip=1").await;
    assert_eq!(second["tenants"].as_array().unwrap().len(), 1);
    assert_eq!(inspected.data("tenants/acme").await["users"], 2);

    let connections = inspected.data("tenants/acme/connections?topic=b:2").await;
    let only = connections["connections"].as_array().unwrap();
    assert_eq!((only.len(), &only[0]["user"]), (1, &json!("ann")));
    let page = inspected.data("tenants/acme/connections?limit=1").await;
    assert_eq!(page["connections"].as_array().unwrap().len(), 1);
    let next = page["next"].as_str().unwrap();
    let rest = inspected
        .data(&format!("tenants/acme/connections?after={next}"))
        .await;
    assert_eq!(rest["connections"].as_array().unwrap().len(), 1);

    let topics = inspected.data("tenants/acme/topics").await;
    let expected = json!([
        {"topic": "a:1", "subscriptions": 2},
        {"topic": "b:2", "subscriptions": 1},
    ]);
    assert_eq!(
        (&topics["topics"], &topics["partial"]),
        (&expected, &json!(false))
    );
    let topics = inspected.data("tenants/acme/topics?search=b:").await;
    assert_eq!(topics["topics"].as_array().unwrap().len(), 1);
    drop((ann, bob, eve));
    inspected.stop().await;
}

#[tokio::test]
async fn the_newest_events_come_with_the_number_of_those_left_out() {
    let inspected = Inspected::start();
    let nothing = inspected.data("tenants/acme/events").await;
    assert_eq!(nothing, json!({"head": null, "skipped": 0, "events": []}));
    inspected.post("one", &["a:1"]).await;
    inspected.post("two", &["a:2"]).await;
    let both = inspected.data("tenants/acme/events").await;
    assert_eq!(Inspected::types(&both), ["one", "two"]);
    let first = &both["events"][0];
    assert_eq!(first["topics"], json!(["a:1"]));
    assert_eq!(first["payload"], "event");
    assert_eq!(first["event"]["position"], first["position"]);
    let of_topic = inspected.data("tenants/acme/events?topic=a:2").await;
    assert_eq!(Inspected::types(&of_topic), ["two"]);
    let of_kind = inspected.data("tenants/acme/events?topic=a:*").await;
    assert_eq!(Inspected::types(&of_kind), ["one", "two"]);

    let at = |position: &Value| {
        let text = |name: &str| position[name].as_str().unwrap().to_owned();
        format!("{}:{}", text("epoch"), text("offset"))
    };
    let after = at(&both["head"]);
    let new = inspected
        .data(&format!("tenants/acme/events?after={after}"))
        .await;
    assert_eq!((&new["events"], &new["skipped"]), (&json!([]), &json!(0)));
    for _ in 0..60 {
        inspected.post("many", &["a:1"]).await;
    }
    let new = inspected
        .data(&format!("tenants/acme/events?after={after}"))
        .await;
    assert_eq!(new["events"].as_array().unwrap().len(), 50);
    assert_eq!(new["skipped"], 10);

    let one = at(&first["position"]);
    let event = inspected.data(&format!("tenants/acme/events/{one}")).await;
    assert_eq!(event, first["event"]);
    let gone = format!("/inspect/api/tenants/acme/events/{after}99");
    assert_eq!(inspected.status(&Ask::get(&gone).keyed()).await, 404);
    inspected.stop().await;
}

#[tokio::test]
async fn a_large_event_is_listed_without_its_json_which_can_be_asked_for() {
    let inspected = Inspected::start();
    let text = "<script>alert(1)</script>\u{202e}".repeat(2_500);
    inspected.post(&text, &["a:1"]).await;
    let listed = inspected.data("tenants/acme/events").await;
    let event = &listed["events"][0];
    assert_eq!(
        (&event["event"], &event["large"]),
        (&Value::Null, &json!(true))
    );
    assert!(event["bytes"].as_u64().unwrap() > 64 * 1024);
    let position = &event["position"];
    let (epoch, offset) = (&position["epoch"], &position["offset"]);
    let path = format!(
        "tenants/acme/events/{}:{}",
        epoch.as_str().unwrap(),
        offset.as_str().unwrap()
    );
    assert_eq!(inspected.data(&path).await["event"]["type"], text);

    // The list ends where its bytes would exceed its bound, with the newest events.
    let text = "x".repeat(15_000);
    for _ in 0..30 {
        inspected.post(&text, &["a:1"]).await;
    }
    let after = format!("{}:{}", epoch.as_str().unwrap(), offset.as_str().unwrap());
    let listed = inspected
        .data(&format!("tenants/acme/events?after={after}"))
        .await;
    let count = listed["events"].as_array().unwrap().len();
    assert!((17..20).contains(&count), "{count}");
    assert_eq!(listed["skipped"], 30 - count);
    assert_eq!(listed["events"][count - 1]["position"], listed["head"]);
    inspected.stop().await;
}

#[tokio::test]
async fn an_event_is_explained_with_its_topics_and_who_would_get_it() {
    let inspected = Inspected::start();
    let relay = &inspected.relay;
    let ann = JsonClient::subscribed(relay, "ann", &["a:1", "a:2"]).await;
    let bob = JsonClient::subscribed(relay, "bob", &["a:2"]).await;
    let route = async |query: &str, event: &str| {
        let path = format!("/inspect/api/tenants/acme/route{query}");
        let answer = inspected.answer(&Ask::post(&path, event).keyed()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let event = r#"{"topics":["a:1"],"event":{"type":"made"}}"#;
    let report = route("?topic=a:2", event).await;
    assert_eq!(report["taken"], true);
    assert_eq!(report["topics"], json!(["a:1", "a:2"]));
    let extra = json!([
        {"from": "topics[0]", "topic": "a:1"},
        {"from": "?topic=", "topic": "a:2"},
    ]);
    assert_eq!(report["extra_topics"], extra);
    let audience = &report["audience"];
    assert_eq!(audience["matched"], 2);
    let counted = json!([
        {"topic": "a:1", "subscriptions": 1},
        {"topic": "a:2", "subscriptions": 2},
    ]);
    assert_eq!(audience["topics"], counted);
    assert_eq!(audience["connections"].as_array().unwrap().len(), 2);

    let refused = route("", r#"{"event":{"type":"made"}}"#).await;
    assert_eq!(refused["taken"], false);
    assert!(refused["message"].as_str().unwrap().contains("topic"));
    assert_eq!(route("", "no JSON").await["taken"], false);
    // Nothing of it was published.
    assert_eq!(inspected.data("overview").await["accepted_total"], 0);
    drop((ann, bob));
    inspected.stop().await;
}

#[tokio::test]
async fn the_schema_is_listed_with_an_example_of_each_event() {
    let inspected = Inspected::start();
    let schema = inspected.data("schema").await;
    let names: Vec<_> = schema
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["event", "message", "presence"]);
    for event in schema.as_array().unwrap() {
        let path = "/inspect/api/tenants/acme/route?topic=a:1";
        let example = event["example"].to_string();
        let answer = inspected.answer(&Ask::post(path, &example).keyed()).await;
        assert_eq!(answer.json()["taken"], true, "{example}");
    }
    inspected.stop().await;
}
