//! Client events in JSON, which other clients receive in binary.

use serde_json::{Value, json};

use super::{Case, PayloadType, Wanted, attacker::Encoding};
use crate::{campaign::Mutator, forge::Forge, refusal::Refusal};

/// Makes a case of a text. Its fields are those of the binary envelope.
fn case(payload: &'static PayloadType, forge: &Forge, text: &str, wanted: Wanted) -> Case {
    let withdrawal = json!({payload.json_name: payload.absent_json()});
    Case {
        encoding: Encoding::Json,
        withdrawal: withdrawal.to_string().into_bytes(),
        ..Case::bare(payload, forge, text.into(), wanted)
    }
}

/// Makes a mutator of the members of a payload, each with its comma, before its topic.
fn with_members(
    payload: &'static PayloadType,
    name: &str,
    wanted: Wanted,
    members: &'static str,
) -> Mutator<Case> {
    Mutator::new(format!("{}: JSON, {name}", payload.name), move |forge| {
        let topic = payload.project_json("shared").to_string();
        let text = format!(
            r#"{{"messageId":"{}","{}":{{{members}{}}}"#,
            forge.message_id,
            payload.json_name,
            &topic[1..],
        );
        case(payload, forge, &text, wanted.clone())
    })
}

/// Makes a mutator of the members of an envelope, beside a good payload.
fn beside(
    payload: &'static PayloadType,
    name: &str,
    wanted: Wanted,
    members: Value,
) -> Mutator<Case> {
    Mutator::new(format!("{}: JSON, {name}", payload.name), move |forge| {
        let mut envelope = members.clone();
        envelope["messageId"] = json!(forge.message_id);
        envelope[payload.json_name] = payload.project_json("shared");
        case(payload, forge, &envelope.to_string(), wanted.clone())
    })
}

/// Makes a mutator of payloads.
fn of_payload(
    payload: &'static PayloadType,
    name: &str,
    wanted: Wanted,
    content: Value,
) -> Mutator<Case> {
    Mutator::new(format!("{}: JSON, {name}", payload.name), move |forge| {
        let envelope = json!({"messageId": forge.message_id, payload.json_name: content});
        case(payload, forge, &envelope.to_string(), wanted.clone())
    })
}

pub(super) fn taken(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    let wanted = || Wanted::Relayed(payload.project("shared"));
    let mut mutators = vec![
        beside(
            payload,
            "a forged position and timestamp",
            wanted(),
            json!({
                "position": {"epoch": "0".repeat(32), "offset": "5"},
                "timestamp": "4000000000",
            }),
        ),
        beside(
            payload,
            "topics beside the payload",
            wanted(),
            json!({"topics": ["project:elsewhere", "tenant:*", "*"]}),
        ),
        Mutator::new(
            format!("{}: JSON, no message id", payload.name),
            move |forge| {
                let text = json!({payload.name: payload.project_json("shared")}).to_string();
                Case {
                    is_unnamed: true,
                    ..case(payload, forge, &text, wanted())
                }
            },
        ),
    ];
    for (name, members) in [
        ("nothing special", ""),
        ("a forged sender", r#""userId":"wendy","#),
        ("a forged sender in snake case", r#""user_id":"wendy","#),
        (
            "a sender with escapes",
            r#""\u0075ser\u0049d":"we\u006edy","#,
        ),
        ("a sender that is null", r#""userId":null,"#),
        ("an empty sender", "\n \"userId\" : \"\" ,\t"),
    ] {
        let wanted = Wanted::Relayed(payload.project("shared"));
        mutators.push(with_members(payload, name, wanted, members));
    }
    if payload.presence.is_some() {
        let (name, content) = ("absent", payload.absent_json());
        mutators.push(of_payload(payload, name, Wanted::Nothing, content));
    }
    mutators
}

pub(super) fn refused(payload: &'static PayloadType) -> Vec<Mutator<Case>> {
    // The id may be repeated although the message could not be decoded.
    let undecodable = || {
        Wanted::Refused(Refusal {
            names_request: None,
            ..Refusal::invalid_somewhere()
        })
    };
    let unauthorized = || {
        Wanted::Refused(Refusal {
            field: Some(payload.name.to_owned()),
            ..Refusal::unauthorized()
        })
    };
    let mut mutators = vec![
        of_payload(
            payload,
            "no topic",
            Wanted::Refused(Refusal::invalid(payload.name)),
            json!({"userId": "project:shared"}),
        ),
        of_payload(
            payload,
            "a topic of others",
            unauthorized(),
            payload.project_json("elsewhere"),
        ),
        of_payload(
            payload,
            "a topic outside the grant",
            unauthorized(),
            payload.project_json("secret"),
        ),
        of_payload(
            payload,
            "a wildcard",
            Wanted::Refused(Refusal::invalid(payload.topic_path(0))),
            payload.project_json("*"),
        ),
        beside(
            payload,
            "another payload",
            undecodable(),
            json!({"ping": {}}),
        ),
        beside(
            payload,
            "an unknown field",
            undecodable(),
            json!({"sender": "wendy"}),
        ),
    ];
    for (name, members) in [
        ("two senders", r#""userId":"eve","userId":"wendy","#),
        (
            "two senders in two cases",
            r#""userId":"eve","user_id":"wendy","#,
        ),
        ("a sender that is a number", r#""userId":5,"#),
        ("a sender that is a list", r#""userId":["wendy"],"#),
        (
            "a sender that is an object",
            r#""userId":{"userId":"wendy"},"#,
        ),
        ("a sender that is half a character", r#""userId":"\ud800","#),
        ("a sender with a control character", "\"userId\":\"a\nb\","),
        ("an unknown field in the payload", r#""sender":"wendy","#),
        ("a member without a value", r#""userId":,"#),
        ("a payload that ends early", r#"},"x":{"#),
    ] {
        mutators.push(with_members(payload, name, undecodable(), members));
    }
    mutators
}
