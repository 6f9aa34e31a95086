//! Topics that are none, that the attacker may not send to, or that it is not subscribed to.

use sidewire_testing::protobuf;

use super::{
    Case, PayloadType, Wanted,
    payload_types::BundledSchema::{Generic, Tracker},
    refused, relayed,
};
use crate::{campaign::Mutator, refusal::Refusal};

/// The number of the list of topics in the generic schema's payloads.
const TOPICS: u32 = 5;

pub(super) fn topics(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let invalid = |name: &str, id: String| {
        let refusal = Refusal::invalid(payload.topic_path(0));
        refused(payload, name, refusal, move |_| payload.project(&id))
    };
    let nowhere = || Refusal::invalid(payload.name);
    let mut mutators = vec![
        refused(payload, "no topic", nowhere(), |_| vec![]),
        refused(payload, "no topic but the sender", nowhere(), |_| {
            protobuf::text(payload.sender, "project:shared")
        }),
        Mutator::new(
            format!("{}: topics beside the payload only", payload.name),
            move |forge| {
                let topics = protobuf::text(18, "project:shared");
                let fields = [topics, payload.field(&[])];
                Case::new(payload, forge, &fields, Wanted::Refused(nowhere()))
            },
        ),
        invalid("a wildcard", "*".to_owned()),
        invalid("an id that is too long", "x".repeat(257)),
        invalid("an id with a control character", "a\u{85}b".to_owned()),
        refused(payload, "a topic of others", unauthorized(payload), |_| {
            payload.project("elsewhere")
        }),
        refused(
            payload,
            "a topic outside the grant",
            unauthorized(payload),
            |_| payload.project("secret"),
        ),
    ];
    mutators.extend(match payload.schema {
        Tracker => of_single_fields(payload),
        Generic => of_lists(payload),
    });
    mutators
}

/// Topics in fields that hold one, of which the last counts.
fn of_single_fields(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let item = move |id: &str| {
        let number = if payload.presence.is_some() { 3 } else { 2 };
        protobuf::text(number, id)
    };
    let [shared, secret] = ["shared", "secret"].map(|id| payload.project(id));
    let before = [&shared[..], &secret].concat();
    let after = [&secret[..], &shared].concat();
    vec![
        relayed(payload, "both shared topics", move |_| {
            [payload.project("shared"), item("shared")].concat()
        }),
        relayed(payload, "a shared topic and one of others", move |_| {
            [item("elsewhere"), payload.project("shared")].concat()
        }),
        relayed(payload, "a shared topic and an empty one", move |_| {
            [item(""), payload.project("shared")].concat()
        }),
        relayed(payload, "a shared topic that replaces another", move |_| {
            after.clone()
        }),
        refused(
            payload,
            "a shared topic that another replaces",
            unauthorized(payload),
            move |_| before.clone(),
        ),
        relayed(payload, "a hundred topics that one replaces", move |_| {
            let others = (0..100).map(|id| payload.project(&format!("x{id}")));
            [others.collect::<Vec<_>>().concat(), shared.clone()].concat()
        }),
    ]
}

/// Topics in a list of whole topics.
fn of_lists(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let list = |topics: &[&str]| {
        let texts = topics.iter().map(|it| protobuf::text(TOPICS, it));
        texts.collect::<Vec<_>>().concat()
    };
    let of_count = move |count: usize| {
        let others = (1..count).map(|id| protobuf::text(TOPICS, &format!("work_item:{id}")));
        [
            payload.project("shared"),
            others.collect::<Vec<_>>().concat(),
        ]
        .concat()
    };
    let mut mutators = vec![
        relayed(payload, "as many topics as may be", move |_| of_count(100)),
        refused(
            payload,
            "too many topics",
            Refusal::invalid(payload.name),
            move |_| of_count(101),
        ),
    ];
    for (name, topics) in [
        ("both shared topics", ["project:shared", "work_item:shared"]),
        (
            "a shared topic and one of others",
            ["project:elsewhere", "project:shared"],
        ),
        ("a shared topic twice", ["project:shared", "project:shared"]),
        ("a shared topic and an empty one", ["", "project:shared"]),
    ] {
        mutators.push(relayed(payload, name, move |_| list(&topics)));
    }
    for topic in [
        "user:mallory",
        "user:wendy",
        "tenant:*",
        "secret:1",
        "project:1",
    ] {
        let name = format!("{topic} and a shared topic");
        let refusal = unauthorized(payload);
        mutators.push(refused(payload, &name, refusal, move |_| {
            list(&["project:shared", topic])
        }));
    }
    let name = "tenant:acme and a shared topic";
    let refusal = Refusal {
        field: Some(payload.topic_path(1)),
        ..Refusal::unauthorized()
    };
    mutators.push(refused(payload, name, refusal, move |_| {
        list(&["project:shared", "tenant:acme"])
    }));
    for topic in [
        "project",
        "project:",
        ":1",
        "Project:1",
        "*:*",
        "work_item:*",
    ] {
        let name = format!("{topic} and a shared topic");
        let refusal = Refusal::invalid(payload.topic_path(1));
        mutators.push(refused(payload, &name, refusal, move |_| {
            list(&["project:shared", topic])
        }));
    }
    mutators
}

/// Returns the error for a topic that the attacker may not send to.
fn unauthorized(payload: &PayloadType) -> Refusal {
    Refusal {
        field: Some(payload.name.to_owned()),
        ..Refusal::unauthorized()
    }
}
