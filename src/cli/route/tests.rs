//! `route` with events that are accepted, refused, received and missed.

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: RouteArgs,
}

/// Routes an event of the default schema with these flags.
fn route(event: &str, flags: &str) -> Result<RouteReport, RefusedEvent> {
    let words = ["route", event].into_iter().chain(flags.split_whitespace());
    let args = Command::try_parse_from(words).unwrap().args;
    let schema = Schema::bundled().unwrap();
    let posted = DryRunRequest {
        body: event.as_bytes(),
        is_json: true,
        topics: &args.topics,
    };
    let client = described_client(args.subscribe, args.grant, args.user);
    route_report(&schema, &Config::default(), posted, client)
}

fn json_of(report: &impl serde::Serialize) -> Value {
    serde_json::to_value(report).unwrap()
}

/// The sample event and the topics that it relates to.
fn sample_event() -> (String, Vec<String>) {
    let schema = Schema::bundled().unwrap();
    let event = sample_bundled().sample_event;
    let envelope = schema.envelope_from_json(event.as_bytes()).unwrap();
    let topics = schema.inspect(&envelope).unwrap().topics;
    (event, topics.iter().map(ToString::to_string).collect())
}

#[test]
fn topics_come_from_annotated_fields_field_18_and_the_call() {
    let (event, topics) = sample_event();
    let event = event.replacen('{', r#"{"topics": ["a:1", "b:2"], "#, 1);
    let report = json_of(&route(&event, "--topic c:3 --topic b:2").unwrap());
    assert_eq!(report["taken"], true);
    let all: Vec<_> = topics.iter().map(String::as_str).collect();
    assert_eq!(
        report["topics"],
        json!([all.clone(), vec!["a:1", "b:2", "c:3"]].concat())
    );
    assert_eq!(
        report["extra_topics"],
        json!([
            {"from": "topics[0]", "topic": "a:1"},
            {"from": "topics[1]", "topic": "b:2"},
            {"from": "--topic", "topic": "c:3"},
            {"from": "--topic", "topic": "b:2"},
        ])
    );
    let fields = report["fields"].as_array().unwrap();
    let given = fields.iter().filter_map(|field| field["topic"].as_str());
    let mut given: Vec<_> = given.collect();
    given.sort_unstable();
    given.dedup();
    let mut all = all;
    all.sort_unstable();
    assert_eq!(given, all);
    assert_eq!(report.get("client"), None);
}

#[test]
fn an_event_that_ingest_refuses_is_refused_in_the_same_words() {
    let (event, _) = sample_event();
    let with_position = event.replacen('{', r#"{"position": {"epoch": "e"}, "#, 1);
    for (event, flags, message, field) in [
        ("{}", "", "payload is not set", Some("payload")),
        (r#"{"ping": {}}"#, "", "ping is not an event", Some("ping")),
        (
            with_position.as_str(),
            "",
            "position is set by the relay and must be left out",
            Some("position"),
        ),
        (
            event.as_str(),
            "--topic a:*",
            "topic \"a:*\" has the id `*`, which does not name a single topic",
            Some("topic"),
        ),
    ] {
        let refused = json_of(&route(event, flags).unwrap_err());
        let expected = json!({
            "taken": false, "code": "VALIDATION_ERROR", "message": message, "field": field,
        });
        assert_eq!(refused, expected);
    }
    let large = " ".repeat(2 << 20);
    let refused = route(&large, "").unwrap_err();
    assert_eq!(refused.message(), "the body exceeds 1048576 bytes");
}

/// Returns the report's verdict on the client: if it receives, by what, and each relation.
fn reception(flags: &str) -> (bool, Value, Vec<String>) {
    let (event, topics) = sample_event();
    let flags = flags
        .replace("FIRST_KIND", topics[0].split_once(':').unwrap().0)
        .replace("FIRST", &topics[0])
        .replace("LAST", topics.last().unwrap());
    let report = route(&event, &format!("--topic user:bob {flags}")).unwrap();
    let missed = report.is_missed();
    let client = json_of(&report)["client"].clone();
    assert_eq!(client["receives"], !missed);
    let relations = client["topics"].as_array().unwrap().iter();
    let relations = relations.map(|it| it["relation"].as_str().unwrap().to_owned());
    (!missed, client["by"].clone(), relations.collect())
}

#[test]
fn a_client_receives_events_of_its_subscriptions_and_its_user() {
    let (_, topics) = sample_event();
    assert_eq!(topics.len(), 2);
    let (first, last) = (&topics[0], &topics[1]);
    for (flags, by, relations) in [
        (
            "--subscribe FIRST",
            json!([first]),
            ["subscribed", "not_subscribed", "other_user"],
        ),
        (
            "--subscribe LAST --subscribe FIRST --user ann",
            json!([first, last]),
            ["subscribed", "subscribed", "other_user"],
        ),
        (
            "--user bob --grant FIRST",
            json!(["user:bob"]),
            ["not_subscribed", "not_granted", "implicit"],
        ),
        (
            "--user bob --subscribe FIRST --subscribe LAST --grant FIRST",
            json!(["user:bob"]),
            ["subscribe_refused", "subscribe_refused", "implicit"],
        ),
        (
            "--subscribe FIRST_KIND:*",
            json!([first]),
            ["subscribed_by_wildcard", "not_subscribed", "other_user"],
        ),
        (
            "--subscribe FIRST_KIND:* --subscribe FIRST --grant FIRST_KIND:*",
            json!([first]),
            ["subscribed", "not_granted", "other_user"],
        ),
        (
            "--subscribe FIRST --grant FIRST",
            json!([first]),
            ["subscribed", "not_granted", "other_user"],
        ),
    ] {
        let found = reception(flags);
        assert_eq!(
            found,
            (true, by, relations.map(str::to_owned).to_vec()),
            "{flags}"
        );
    }
}

#[test]
fn the_report_says_why_a_client_receives_nothing() {
    for (flags, relations) in [
        (
            "--user ann",
            ["not_subscribed", "not_subscribed", "other_user"],
        ),
        (
            "--subscribe x:1",
            ["not_subscribed", "not_subscribed", "other_user"],
        ),
        (
            "--subscribe FIRST --grant LAST",
            ["subscribe_refused", "not_subscribed", "other_user"],
        ),
        // A wildcard needs a grant of exactly it.
        (
            "--subscribe FIRST_KIND:* --grant FIRST",
            ["subscribe_refused", "not_granted", "other_user"],
        ),
        // A refused topic makes the whole Subscribe fail.
        (
            "--subscribe FIRST --subscribe user:bob",
            ["subscribe_refused", "not_subscribed", "other_user"],
        ),
    ] {
        let found = reception(flags);
        assert_eq!(
            found,
            (false, json!([]), relations.map(str::to_owned).to_vec()),
            "{flags}"
        );
    }
}

#[test]
fn an_event_for_everyone_reaches_every_client() {
    let (event, _) = sample_event();
    let report = route(&event, "--topic tenant:* --user ann").unwrap();
    assert!(!report.is_missed());
    assert_eq!(json_of(&report)["client"]["by"], json!(["tenant:*"]));
}

#[test]
fn the_json_size_includes_the_id_and_the_time_that_the_relay_adds() {
    let event = |characters| {
        let text = "x".repeat(characters);
        let item = json!({"id": "i", "projectId": "p", "description": text});
        json!({"workItemCreated": {"workItem": item}}).to_string()
    };
    let dry_run = |characters: usize| {
        let schema = Schema::bundled().unwrap();
        let mut limits = Config::default().limits;
        limits.json_max = 4096;
        let event = event(characters);
        let posted = DryRunRequest {
            body: event.as_bytes(),
            is_json: true,
            topics: &[],
        };
        ingest::dry_run(&schema, &Config::default().ingest, &limits, posted).is_ok()
    };
    // The id and the time take 76 bytes, the position 88.
    let room = 4096 - event(0).len();
    assert!(!dry_run(room - 88 - 76 + 1));
    assert!(dry_run(room - 88 - 76));
}
