//! Topics that a client may subscribe to, and the confirmations.

use super::*;

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

/// The confirmation's position, as JSON.
fn confirmed_position() -> Value {
    json!({"epoch": position().epoch.to_string(), "offset": "7"})
}

#[test]
fn subscription_confirmed_repeats_the_request_without_duplicates() {
    let frame = named(
        "subscribe",
        &json!({
            "projectIds": ["p2", "p1", "p2"],
            "sprintIds": ["s"],
            "workItemIds": ["w", "w"],
            "topics": ["build:2", "project:p9", "build:1", "build:2"],
        }),
    );
    let conversation = conversation();
    assert_eq!(
        answer(&conversation, &frame),
        json!({"subscriptionConfirmed": {
            "subscribedProjectIds": ["p2", "p1"],
            "subscribedSprintIds": ["s"],
            "subscribedWorkItemIds": ["w"],
            "topics": ["build:2", "project:p9", "build:1"],
            "position": confirmed_position(),
            "requestMessageId": "m",
        }})
    );
    assert_eq!(
        topics(&conversation.handle_frame(&SCHEMA, &frame, NOW)),
        [
            "project:p2",
            "project:p1",
            "sprint:s",
            "work_item:w",
            "build:2",
            "project:p9",
            "build:1"
        ]
    );
}

#[test]
fn unsubscribe_confirmed_repeats_the_request_without_duplicates() {
    let frame = named(
        "unsubscribe",
        &json!({
            "projectIds": ["p2", "p1", "p2"],
            "workItemIds": ["w"],
            "topics": ["build:2", "build:2"],
        }),
    );
    let conversation = conversation();
    assert_eq!(
        answer(&conversation, &frame),
        json!({"unsubscribeConfirmed": {
            "unsubscribedProjectIds": ["p2", "p1"],
            "unsubscribedWorkItemIds": ["w"],
            "topics": ["build:2"],
            "requestMessageId": "m",
        }})
    );
    assert_eq!(
        topics(&conversation.handle_frame(&SCHEMA, &frame, NOW)),
        ["project:p2", "project:p1", "work_item:w", "build:2"]
    );
}

#[test]
fn a_topic_named_by_a_list_and_in_full_is_one_topic_confirmed_in_both() {
    let frame = named(
        "subscribe",
        &json!({"projectIds": ["p"], "topics": ["project:p"]}),
    );
    let conversation = conversation();
    assert_eq!(
        topics(&conversation.handle_frame(&SCHEMA, &frame, NOW)),
        ["project:p"]
    );
    let confirmed = &answer(&conversation, &frame)["subscriptionConfirmed"];
    assert_eq!(confirmed["subscribedProjectIds"], json!(["p"]));
    assert_eq!(confirmed["topics"], json!(["project:p"]));
}

#[test]
fn an_empty_request_is_confirmed_with_empty_lists() {
    let conversation = conversation();
    assert_eq!(
        answer(&conversation, &named("subscribe", &json!({}))),
        json!({"subscriptionConfirmed": {
            "position": confirmed_position(),
            "requestMessageId": "m",
        }})
    );
    assert_eq!(
        answer(&conversation, &named("unsubscribe", &json!({}))),
        json!({"unsubscribeConfirmed": {"requestMessageId": "m"}})
    );
}

#[test]
fn a_resume_request_is_passed_on_and_answered_with_its_outcome() {
    for (replayed, expected) in [
        (Some(3), (true, 3)),
        (Some(0), (true, 0)),
        (None, (false, 0)),
    ] {
        let request = resuming(json!({"epoch": EPOCH_TEXT, "offset": "3"}));
        let from = request.resume_from.unwrap().unwrap();
        assert_eq!(
            (from.epoch.to_string().as_str(), from.offset),
            (EPOCH_TEXT, 3)
        );
        let Reply::SubscriptionConfirmed { fields, .. } =
            request.answer.subscribe_confirmation(position(), replayed)
        else {
            panic!("it is not confirmed");
        };
        assert_eq!((fields.recovered, fields.replayed), expected);
        assert_eq!(fields.position, Some(position().into()));
    }
}

#[test]
fn an_invalid_resume_position_does_not_make_the_message_invalid() {
    for position in [json!({}), json!({"epoch": "e", "offset": "3"})] {
        let from = resuming(position).resume_from.unwrap();
        assert_eq!(from, Err(EpochError));
    }
}

const EPOCH_TEXT: &str = "000000000000000000000000000000ab";

/// A Subscribe that resumes from this position.
fn resuming(position: Value) -> TopicsRequest {
    let subscribe = json!({"topics": ["a:1"], "resumeFrom": position});
    match conversation().handle_frame(&SCHEMA, &named("subscribe", &subscribe), NOW) {
        ConversationAction::Request(ClientRequest::Subscribe(request)) => request,
        other => panic!("it is refused: {other:?}"),
    }
}

#[test]
fn a_message_may_name_at_most_1000_topics_over_all_lists() {
    let ids = |count: usize| -> Vec<String> { (0..count).map(|id| id.to_string()).collect() };
    let texts = |count: usize| -> Vec<String> { (0..count).map(|id| format!("a:{id}")).collect() };
    let conversation = conversation();
    for payload in ["subscribe", "unsubscribe"] {
        for (lists, topics_named) in [
            (json!({"projectIds": ids(1_000)}), 1_000),
            (json!({"topics": texts(1_000)}), 1_000),
            (
                json!({"projectIds": ids(400), "sprintIds": ids(300), "topics": texts(300)}),
                1_000,
            ),
            (json!({"projectIds": vec!["p"; 1_000]}), 1),
        ] {
            let action = conversation.handle_frame(&SCHEMA, &named(payload, &lists), NOW);
            assert_eq!(topics(&action).len(), topics_named);
        }
        for lists in [
            json!({"projectIds": ids(1_001)}),
            json!({"topics": texts(1_001)}),
            json!({"projectIds": ids(400), "sprintIds": ids(300), "topics": texts(301)}),
            // The limit counts the topics as sent, duplicates included.
            json!({"projectIds": vec!["p"; 1_001]}),
        ] {
            let refusal = refusal(&conversation, &named(payload, &lists));
            assert_eq!(refusal.code, ErrorCode::ValidationError);
            assert_eq!(refusal.field.as_deref(), Some(payload));
            assert_eq!(refusal.request_message_id, "m");
            assert!(refusal.message.contains("1001"), "{}", refusal.message);
        }
    }
}

#[test]
fn an_id_may_have_colons_and_256_bytes() {
    let longest = "ü".repeat(128);
    let frame = named(
        "subscribe",
        &json!({"projectIds": ["a:b:c", longest, ":"], "topics": ["build:a:b"]}),
    );
    assert_eq!(
        topics(&conversation().handle_frame(&SCHEMA, &frame, NOW)),
        [
            "project:a:b:c",
            &format!("project:{longest}"),
            "project::",
            "build:a:b"
        ]
    );
}

#[test]
fn a_grant_limits_the_topics_that_can_be_subscribed_to() {
    let listed = |entries: &[&str]| Grant::from_topics(entries.iter().map(|it| topic(it)));
    let cases = [
        (Grant::Everything, "project:p", true),
        (listed(&["project:p"]), "project:p", true),
        (listed(&["project:p"]), "project:q", false),
        (listed(&["project:p"]), "project:p:x", false),
        (listed(&["project:p"]), "sprint:p", false),
        (listed(&["project:*"]), "project:anything", true),
        (listed(&["project:*"]), "projects:p", false),
        (listed(&["project:*", "sprint:s"]), "sprint:s", true),
        (listed(&[]), "project:p", false),
    ];
    for (grant, text, granted) in cases {
        let case = format!("{grant:?} {text}");
        let conversation = conversation_of(&grant);
        let frame = named("subscribe", &json!({"topics": [text]}));
        if granted {
            assert_eq!(
                topics(&conversation.handle_frame(&SCHEMA, &frame, NOW)),
                [text],
                "{case}"
            );
        } else {
            assert_not_authorized(&conversation, &frame, &case);
        }
        // Unsubscribing from a topic never subscribed to needs no grant.
        let frame = named("unsubscribe", &json!({"topics": [text]}));
        assert_eq!(
            topics(&conversation.handle_frame(&SCHEMA, &frame, NOW)),
            [text]
        );
    }
}

#[test]
fn a_grant_applies_to_the_schema_lists_as_to_topics() {
    let grant = Grant::from_topics([topic("project:p")]);
    let conversation = conversation_of(&grant);
    let frame = named("subscribe", &json!({"projectIds": ["p"]}));
    assert_eq!(
        topics(&conversation.handle_frame(&SCHEMA, &frame, NOW)),
        ["project:p"]
    );
    let frame = named("subscribe", &json!({"projectIds": ["p", "q"]}));
    assert_not_authorized(&conversation, &frame, "q");
}

#[test]
fn one_topic_outside_the_grant_refuses_the_whole_message() {
    let grant = Grant::from_topics([topic("project:*")]);
    let conversation = conversation_of(&grant);
    for lists in [
        json!({"projectIds": ["p", "q"], "sprintIds": ["s"]}),
        json!({"projectIds": ["p", "q"], "topics": ["project:r", "build:1"]}),
        json!({"topics": ["build:1", "project:p"]}),
    ] {
        let frame = named("subscribe", &lists);
        assert_not_authorized(&conversation, &frame, &lists.to_string());
    }
}

#[test]
fn the_implicit_kinds_cannot_be_subscribed_to() {
    for text in ["user:ann", "user:*", "tenant:*", "tenant:acme"] {
        for grant in [Grant::Everything, Grant::from_topics([topic(text)])] {
            let frame = named("subscribe", &json!({"topics": ["a:1", text]}));
            assert_not_authorized(&conversation_of(&grant), &frame, text);
        }
    }
}

#[test]
fn a_wildcard_is_confirmed_if_the_grant_lists_exactly_it_or_is_not_limited() {
    let texts = ["project:p", "project:*"];
    let frame = named("subscribe", &json!({"topics": texts}));
    for grant in [Grant::Everything, Grant::from_topics([topic("project:*")])] {
        let conversation = conversation_of(&grant);
        let confirmed = &answer(&conversation, &frame)["subscriptionConfirmed"];
        assert_eq!(confirmed["topics"], json!(texts));
        let action = conversation.handle_frame(&SCHEMA, &frame, NOW);
        assert_eq!(topics(&action), texts);
    }
    let exact = Grant::from_topics(["project:p", "sprint:*"].map(topic));
    assert_not_authorized(&conversation_of(&exact), &frame, "project:*");
}

#[test]
fn a_wildcard_in_a_list_of_the_schema_is_refused_whatever_the_grant_contains() {
    let frame = named("subscribe", &json!({"projectIds": ["p", "*"]}));
    let refusal = refusal(&conversation_of(&Grant::Everything), &frame);
    assert_eq!(refusal.code, ErrorCode::ValidationError);
    assert_eq!(refusal.field.as_deref(), Some("subscribe.project_ids[1]"));
}

#[test]
fn an_unsubscribe_from_topics_that_are_never_allowed_is_confirmed() {
    let texts = ["project:*", "user:ann", "tenant:*"];
    let frame = named("unsubscribe", &json!({"topics": texts}));
    assert_eq!(
        answer(&conversation_of(&Grant::from_topics([])), &frame),
        json!({"unsubscribeConfirmed": {"topics": texts, "requestMessageId": "m"}})
    );
}

#[test]
fn a_subscribe_beyond_the_cap_of_the_connection_is_a_validation_error() {
    let frame = named("subscribe", &json!({"topics": ["a:1"]}));
    let ConversationAction::Request(request) = conversation().handle_frame(&SCHEMA, &frame, NOW)
    else {
        panic!("it is refused");
    };
    let Reply::Error(refusal) = request.contents().answer.too_many_topics_reply(10_000) else {
        panic!("it is not refused");
    };
    assert_eq!(refusal.code, ErrorCode::ValidationError);
    assert_eq!(refusal.request_message_id, "m");
    assert!(refusal.message.contains("10000"), "{}", refusal.message);
    assert_eq!(refusal.field.as_deref(), Some("subscribe"));
    // Waiting does not help, only unsubscribing does.
    assert_eq!(refusal.retry_after, None);
}

fn assert_not_authorized(conversation: &Conversation<'_>, frame: &[u8], case: &str) {
    let refusal = refusal(conversation, frame);
    assert_eq!(refusal.code, ErrorCode::AuthorizationFailed, "{case}");
    assert_eq!(refusal.request_message_id, "m", "{case}");
}
