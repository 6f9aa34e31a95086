//! Messages with a good token that are not as they should be.

use sidewire_testing::protobuf::{self, DELIMITED, FIXED32, FIXED64, GROUP, GROUP_END, VARINT};

use super::{AUTHENTICATE, Renewal, TOKEN, Wanted};
use crate::{campaign::Mutator, client_events::attacker::Encoding, forge::Forge, refusal::Refusal};

/// Bytes of a message that are too many: the default of `client.message_max`, and one.
const MESSAGE_TOO_BIG: usize = 64 * 1024 + 1;

/// A good token in unusual protobuf that can be decoded.
pub(super) fn unusual() -> Vec<Mutator<Renewal>> {
    vec![
        sent("no token", Wanted::bad_token(), |_, _| with(b"")),
        sent("an empty token", Wanted::bad_token(), |_, _| {
            with(&protobuf::text(TOKEN, ""))
        }),
        sent(
            "fields that nobody knows",
            Wanted::Renewed,
            |good, forge| {
                let field = forge.between(2, 1000) as u32;
                let unknown = protobuf::bytes(field, &forge.bytes(20));
                let more = protobuf::number(5000, forge.number());
                with(&[unknown, good, more].concat())
            },
        ),
        sent(
            "a bad token before a good one",
            Wanted::Renewed,
            |good, _| with(&[protobuf::text(TOKEN, "bad"), good].concat()),
        ),
        sent(
            "a good token before a bad one",
            Wanted::bad_token(),
            |good, _| with(&[good, protobuf::text(TOKEN, "bad")].concat()),
        ),
        sent(
            "many good tokens before none",
            Wanted::bad_token(),
            |good, _| {
                let many = good.repeat(60_000 / good.len());
                with(&[many, protobuf::text(TOKEN, "")].concat())
            },
        ),
        sent("a token in a token", Wanted::bad_token(), |_, forge| {
            let levels = forge.between(1, 60);
            with(&protobuf::nested(TOKEN, levels))
        }),
        sent(
            "a token that fills a message",
            Wanted::bad_token(),
            |_, forge| with(&protobuf::text(TOKEN, &forge.word(65_000))),
        ),
        sent(
            "a token too big for a message",
            Wanted::Closed(1009),
            |_, forge| with(&protobuf::text(TOKEN, &forge.word(MESSAGE_TOO_BIG))),
        ),
    ]
}

/// A good token in protobuf that is refused as such.
pub(super) fn malformed() -> Vec<Mutator<Renewal>> {
    let undecodable = Wanted::undecodable;
    let second_payload = || Wanted::Refused(Refusal::invalid_somewhere());
    vec![
        sent("a token of another wire type", undecodable(), |_, forge| {
            let wire_type = forge.pick(&[VARINT, FIXED32, FIXED64]);
            with(&[protobuf::key(TOKEN, wire_type), vec![1; 8]].concat())
        }),
        sent("a token in a group", undecodable(), |good, _| {
            let (begin, end) = (protobuf::key(TOKEN, GROUP), protobuf::key(TOKEN, GROUP_END));
            with(&[begin, good, end].concat())
        }),
        sent(
            "a message of another wire type",
            undecodable(),
            |_, forge| {
                let wire_type = forge.pick(&[VARINT, FIXED32, FIXED64, GROUP]);
                [protobuf::key(AUTHENTICATE, wire_type), vec![1; 8]].concat()
            },
        ),
        sent("a token that is not UTF-8", undecodable(), |_, forge| {
            let bad = forge.pick(&[&b"\xff"[..], b"\xc3(", b"\xed\xa0\x80"]);
            with(&protobuf::bytes(TOKEN, bad))
        }),
        sent("a message that is cut", undecodable(), |good, forge| {
            let whole = with(&good);
            let len = forge.between(1, whole.len() - 1);
            whole[..len].to_vec()
        }),
        sent(
            "a token longer than its message",
            undecodable(),
            |good, _| with(&good[..good.len() - 1]),
        ),
        sent("a length of 2^64-1", undecodable(), |good, _| {
            let key = protobuf::key(AUTHENTICATE, DELIMITED);
            [key, protobuf::varint(u64::MAX), good].concat()
        }),
        sent("two messages", second_payload(), |good, _| {
            with(&good).repeat(2)
        }),
        sent(
            "one with a token and one without",
            second_payload(),
            |good, forge| either_order(forge, with(&good), with(b"")),
        ),
        sent(
            "another payload beside it",
            second_payload(),
            |good, forge| {
                // Subscribe, Unsubscribe, Ping, BatchUpdate, Authenticated and two events.
                let number = forge.pick(&[10, 12, 14, 17, 20, 2, 45]);
                either_order(forge, with(&good), protobuf::bytes(number, b""))
            },
        ),
        sent(
            "a good token in place of the answer",
            Wanted::Refused(Refusal::invalid("authenticated")),
            |_, _| protobuf::bytes(20, &protobuf::number(1, 4_000_000_000)),
        ),
        Mutator::new("a message id that is too long", |forge| {
            let id = protobuf::text(1, &"x".repeat(129));
            let wanted = Wanted::Refused(Refusal {
                names_request: Some(false),
                ..Refusal::invalid("message_id")
            });
            let good = with(&protobuf::text(TOKEN, &forge.site.token));
            Renewal::binary(forge, [id, good].concat(), wanted)
        }),
    ]
}

/// A good token in odd JSON.
pub(super) fn json() -> Vec<Mutator<Renewal>> {
    let refused = Wanted::undecodable;
    vec![
        written("no token", Wanted::bad_token(), |_| {
            r#""authenticate":{}"#.to_owned()
        }),
        written("a token that is null", Wanted::bad_token(), |_| {
            r#""authenticate":{"token":null}"#.to_owned()
        }),
        written("escapes in the token", Wanted::Renewed, |token| {
            let rest = token.strip_prefix('e').unwrap();
            format!(r#" "\u0061uthenticate" : {{"token":"\u0065{rest}"}}"#)
        }),
        written("a token that is a number", refused(), |_| {
            r#""authenticate":{"token":5}"#.to_owned()
        }),
        written("a token that is a list", refused(), |token| {
            format!(r#""authenticate":{{"token":["{token}"]}}"#)
        }),
        written("a token that is an object", refused(), |token| {
            format!(r#""authenticate":{{"token":{{"token":"{token}"}}}}"#)
        }),
        written("a message that is a text", refused(), |token| {
            format!(r#""authenticate":"{token}""#)
        }),
        written("two tokens", refused(), |token| {
            format!(r#""authenticate":{{"token":"bad","token":"{token}"}}"#)
        }),
        written("two messages", refused(), |token| {
            let one = format!(r#""authenticate":{{"token":"{token}"}}"#);
            format!("{one},{one}")
        }),
        written("another payload beside it", refused(), |token| {
            format!(r#""ping":{{}},"authenticate":{{"token":"{token}"}}"#)
        }),
        written("a member that nobody knows", refused(), |token| {
            format!(r#""authenticate":{{"token":"{token}","user_id":"root"}}"#)
        }),
        written("half a character in the token", refused(), |token| {
            format!(r#""authenticate":{{"token":"{token}\ud800"}}"#)
        }),
        written("a control character in the token", refused(), |token| {
            format!("\"authenticate\":{{\"token\":\"{token}\n\"}}")
        }),
        written("a message that is cut", refused(), |token| {
            format!(r#""authenticate":{{"token":"{token}"#)
        }),
    ]
}

/// Returns the field with the message that has these fields.
fn with(fields: &[u8]) -> Vec<u8> {
    protobuf::bytes(AUTHENTICATE, fields)
}

fn either_order(forge: &mut Forge, one: Vec<u8>, other: Vec<u8>) -> Vec<u8> {
    match forge.flag() {
        true => [one, other].concat(),
        false => [other, one].concat(),
    }
}

/// Makes a mutator of what follows the message id, from the field with a good token.
fn sent(
    name: &str,
    wanted: Wanted,
    fields: impl Fn(Vec<u8>, &mut Forge) -> Vec<u8> + Send + Sync + 'static,
) -> Mutator<Renewal> {
    Mutator::new(name, move |forge| {
        let token = forge.site.token.clone();
        let fields = fields(protobuf::text(TOKEN, &token), forge);
        let id = protobuf::text(1, &forge.message_id);
        Renewal {
            token: token.into_bytes(),
            ..Renewal::binary(forge, [id, fields].concat(), wanted.clone())
        }
    })
}

/// Makes a mutator of the JSON that follows the message id, from a good token.
fn written(name: &str, wanted: Wanted, text: fn(&str) -> String) -> Mutator<Renewal> {
    Mutator::new(format!("JSON: {name}"), move |forge| {
        let token = forge.site.token.clone();
        let id = &forge.message_id;
        let envelope = format!(r#"{{"messageId":"{id}",{}}}"#, text(&token));
        Renewal {
            encoding: Encoding::Json,
            token: token.into_bytes(),
            ..Renewal::binary(forge, envelope.into_bytes(), wanted.clone())
        }
    })
}
