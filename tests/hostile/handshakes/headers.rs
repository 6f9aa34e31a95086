//! The headers of a handshake, and which clients may connect.

use super::{Handshake, PROTOBUF, is, request, tokenless};
use crate::{campaign::Mutator, forge::ORIGIN, http::Expected};

pub(super) fn upgrades() -> Vec<Mutator<Handshake>> {
    let mut mutators = Vec::new();
    let mut values = |header: &'static str, status: &'static [u16], values: &[&'static str]| {
        mutators.push(request(
            format!("no {header}"),
            is(status),
            move |good, _| good.without(header),
        ));
        for value in values.iter().copied() {
            let name = format!("{header}: {value:?}");
            mutators.push(request(name, is(status), move |good, _| {
                good.set(header, value)
            }));
        }
    };
    values(
        "Connection",
        &[426],
        &["", "close", "keep-alive", "upgraded", "up grade"],
    );
    values(
        "Upgrade",
        &[426],
        &["", "h2c", "websocket2", "web socket", "websocket/13"],
    );
    let versions = [
        "", "0", "8", "12", "14", "013", "13.0", "-13", "13, 8", "xiii", "1e1",
    ];
    values("Sec-WebSocket-Version", &[426], &versions);
    let keys = [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQ==AAAA",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub2!jZQ==",
        "dGhlIHNhbXBsZSBub-_jZQ==",
        "dGhlIHNh bXBsZSBub25jZQ=",
        "========================",
    ];
    values("Sec-WebSocket-Key", &[400], &keys);
    mutators.push(request("a key by chance", is(&[400]), |good, forge| {
        let len = forge.pick(&[1, 5, 23, 25, 100, 1000]);
        good.set("Sec-WebSocket-Key", forge.word(len))
    }));
    mutators.push(request("a version by chance", is(&[426]), |good, forge| {
        good.set(
            "Sec-WebSocket-Version",
            forge.between(14, 1 << 40).to_string(),
        )
    }));
    for (header, statuses) in [
        ("Connection", &[101][..]),
        ("Upgrade", &[101]),
        // RFC 6455, 11.3: neither header may occur twice.
        ("Sec-WebSocket-Key", &[400]),
        ("Sec-WebSocket-Version", &[400]),
        // No specification says which of the two counts.
        ("Host", &[101, 400]),
    ] {
        let name = format!("{header} twice");
        mutators.push(request(name, Expected::bare(statuses), move |good, _| {
            let lines = good.clone().header_lines().clone();
            let (_, value) = lines.into_iter().find(|(name, _)| name == header).unwrap();
            good.and(header, value)
        }));
    }
    mutators.push(request(
        "no Host",
        Expected::bare(&[101, 400]),
        |good, _| good.without("Host"),
    ));
    for origin in [
        "https://evil.example",
        "http://app.example",
        "https://app.example:8443",
        "null",
        "",
        "https://app.example.evil.example",
        "https://app.example/",
        "http://localhost",
        "*",
    ] {
        mutators.push(request(
            format!("Origin: {origin}"),
            is(&[403]),
            move |good, _| good.and("Origin", origin),
        ));
    }
    mutators.push(request("two Origins", is(&[403]), |good, _| {
        good.and("Origin", ORIGIN)
            .and("Origin", "https://evil.example")
    }));
    mutators
}

pub(super) fn subprotocols() -> Vec<Mutator<Handshake>> {
    const OFFER: &str = "Sec-WebSocket-Protocol";
    let mut mutators = Vec::new();
    for offer in [
        "graphql-ws",
        "sidewire.v2.protobuf",
        "SIDEWIRE.V1.PROTOBUF",
        "bearer.a.b.c",
        "sidewire.v1.protobu",
        "sidewire.v1.protobuf2",
        "sidewire.v1.protobuf;q=1",
        "*",
        "/",
        "sidewire.v1.protobuf, bearer.a, bearer.b",
    ] {
        mutators.push(request(
            format!("offered {offer}"),
            is(&[400]),
            move |good, _| good.and(OFFER, offer),
        ));
    }
    mutators.extend([
        request("offered in a list", is(&[101]), |good, forge| {
            good.and(OFFER, format!("{}, {PROTOBUF} , soap", forge.word(9)))
        }),
        request("offered in two headers", is(&[101]), |good, forge| {
            good.and(OFFER, forge.word(9)).and(OFFER, PROTOBUF)
        }),
        // A list without members offers nothing, or is invalid.
        request("offered commas", is(&[101, 400]), |good, _| {
            good.and(OFFER, " , ,")
        }),
        request("offered what is not ASCII", is(&[400]), |good, _| {
            good.and(OFFER, b"\xc3\xa4")
        }),
        request("offered a thousand", is(&[400]), |good, forge| {
            let names: Vec<_> = (0..1000).map(|_| forge.word(4)).collect();
            good.and(OFFER, names.join(","))
        }),
        // Until the relay supports JSON.
        request("offered JSON", is(&[101, 400]), |good, _| {
            good.and(OFFER, "sidewire.v1.json")
        }),
        request("a token as subprotocol", is(&[101]), |_, forge| {
            let token = forge.site.token.clone();
            tokenless().and(OFFER, format!("{PROTOBUF}, bearer.{token}"))
        }),
        request("a token as the only subprotocol", is(&[400]), |_, forge| {
            tokenless().and(OFFER, format!("bearer.{}", forge.site.token))
        }),
    ]);
    mutators
}

pub(super) fn credentials() -> Vec<Mutator<Handshake>> {
    let bearing = |name: &str, authorization: &'static [u8]| {
        request(format!("Authorization: {name}"), is(&[401]), move |_, _| {
            tokenless().and("Authorization", authorization)
        })
    };
    vec![
        request("no token", is(&[401]), |_, _| tokenless()),
        bearing("Basic", b"Basic dTpw"),
        bearing("Bearer and nothing", b"Bearer"),
        bearing("Bearer and blanks", b"Bearer    "),
        bearing("not UTF-8", b"Bearer \xff\xff"),
        bearing("two words", b"Bearer a b"),
        request("the token of another scheme", is(&[401]), |_, forge| {
            tokenless().and("Authorization", format!("Token {}", forge.site.token))
        }),
        request("the same token twice", is(&[401]), |good, forge| {
            good.and("Authorization", format!("Bearer {}", forge.site.token))
        }),
        request(
            "a bad header beside a good subprotocol",
            is(&[401]),
            |_, forge| {
                let token = forge.site.token.clone();
                tokenless().and("Authorization", "Bearer a.b.c").and(
                    "Sec-WebSocket-Protocol",
                    format!("{PROTOBUF}, bearer.{token}"),
                )
            },
        ),
        request("a token in the URL", is(&[401]), |_, forge| {
            tokenless().to(format!("/ws?access_token={}", forge.site.token))
        }),
        request("a token in a cookie", is(&[401]), |_, forge| {
            tokenless().and("Cookie", format!("access_token={}", forge.site.token))
        }),
        request("a query that is none", is(&[400]), |good, forge| {
            good.to(forge.pick(&["/ws?user_id=%ff", "/ws?%", "/ws?a=%zz", "/ws?%c3"]))
        }),
        request("a query of odd names", is(&[101]), |good, forge| {
            good.to(format!("/ws?{}={}&&=&?", forge.word(3), forge.word(9)))
        }),
    ]
}
