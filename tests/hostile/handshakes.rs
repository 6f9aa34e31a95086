//! Handshakes that are none, or odd ones: each is let in or refused as the
//! contract says, and a refused one has its connection closed.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    campaign::{Attacker, Mutator},
    forge::{Forge, ORIGIN, Site},
    http::{Expected, Request},
    socket::{BINARY, CLOSE, FIN, Socket, binary, close, frame},
    wire,
};

/// The key of RFC 6455, 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub(crate) const PROTOBUF: &str = "sidewire.v1.protobuf";

pub(crate) struct Handshake {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
    expected: Expected,
    /// Whether the client says that nothing follows, for heads that may be cut.
    ends: bool,
    has_body: bool,
    /// What is to be answered to the frames behind the head, by opcode.
    frames: Vec<u8>,
}

impl Handshake {
    pub(crate) fn new(bytes: Vec<u8>, expected: Expected) -> Self {
        Self {
            bytes,
            cuts: vec![],
            expected,
            ends: false,
            has_body: true,
            frames: vec![],
        }
    }
}

/// A handshake that is accepted.
pub(crate) fn good(forge: &Forge) -> Request {
    tokenless().and("Authorization", format!("Bearer {}", forge.site.token))
}

/// The same, but for the token.
pub(crate) fn tokenless() -> Request {
    Request::new("GET", "/ws")
        .and("Connection", "Upgrade")
        .and("Upgrade", "websocket")
        .and("Sec-WebSocket-Version", "13")
        .and("Sec-WebSocket-Key", KEY)
}

pub(crate) struct HandshakeAttacker(Arc<Site>);

impl Attacker for HandshakeAttacker {
    const FAMILY: &'static str = "handshakes";
    type Case = Handshake;

    fn mutators() -> Vec<Mutator<Handshake>> {
        let mut mutators = taken();
        for group in [
            request_lines(),
            upgrades(),
            subprotocols(),
            credentials(),
            syntax(),
            sizes(),
            bodies(),
        ] {
            mutators.extend(group);
        }
        mutators
    }

    fn new(site: &Arc<Site>) -> Self {
        Self(Arc::clone(site))
    }

    async fn attempt(&mut self, case: &Handshake) -> Result<(), String> {
        let mut socket = Socket::connect(self.0.client).await?;
        socket.send_cut(&case.bytes, &case.cuts).await;
        if case.ends {
            socket.half_close().await;
        }
        let Some(answer) = socket.answer(case.has_body).await? else {
            return match case.expected.may_be_silent {
                true => Ok(()),
                false => Err("no answer".to_owned()),
            };
        };
        case.expected.check(&answer, case.has_body)?;
        if answer.status != 101 {
            return socket.ended().await;
        }
        if answer.header("sec-websocket-accept") != Some(&derive_accept_key(KEY.as_bytes())) {
            return Err(format!("accepted with {answer:?}"));
        }
        let offered = String::from_utf8_lossy(&case.bytes).contains(PROTOBUF);
        if !case.ends && offered != (answer.header("sec-websocket-protocol") == Some(PROTOBUF)) {
            return Err(format!("of the subprotocols none or another in {answer:?}"));
        }
        if case.ends {
            Ok(())
        } else {
            leave(&mut socket, &case.frames).await
        }
    }
}

/// Takes the frames with these opcodes, and closes, where the relay has not.
async fn leave(socket: &mut Socket, opcodes: &[u8]) -> Result<(), String> {
    socket.send(&close(1000)).await;
    for wanted in opcodes
        .iter()
        .filter(|opcode| **opcode != CLOSE)
        .chain([&CLOSE])
    {
        match socket.frame().await? {
            Some(frame) if frame.opcode == *wanted => {}
            other => return Err(format!("{other:?}, not opcode {wanted}")),
        }
    }
    socket.ended().await
}

/// A mutator of a good request, and what is answered to it.
fn request(
    name: impl Into<String>,
    expected: Expected,
    change: impl Fn(Request, &mut Forge) -> Request + Send + Sync + 'static,
) -> Mutator<Handshake> {
    Mutator::new(name, move |forge| {
        let good = good(forge);
        Handshake::new(change(good, forge).bytes(), expected.clone())
    })
}

fn is(statuses: &[u16]) -> Expected {
    Expected::status(statuses)
}

/// What looks odd and is good.
fn taken() -> Vec<Mutator<Handshake>> {
    let pieces = |name: &str, of: fn(&mut Forge, usize) -> Vec<usize>| {
        Mutator::new(name, move |forge: &mut Forge| {
            let bytes = good(forge).bytes();
            let cuts = of(forge, bytes.len());
            Handshake {
                cuts,
                ..Handshake::new(bytes, is(&[101]))
            }
        })
    };
    vec![
        request("a good one", is(&[101]), |good, _| good),
        pieces("in pieces", |forge, len| forge.cuts(len, 8)),
        pieces("byte by byte", |_, len| (1..len).collect()),
        request("odd cases", is(&[101]), |good, _| {
            good.set("Connection", "uPGRADE")
                .set("Upgrade", "WebSocket")
        }),
        request("lists in Connection and Upgrade", is(&[101]), |good, _| {
            good.set("Connection", "keep-alive, Upgrade")
                .set("Upgrade", "h2c, websocket")
        }),
        request(
            "lines that end in LF",
            Expected::bare(&[101, 400]),
            |mut good, _| {
                good.line_end = "\n";
                good
            },
        ),
        request("an absolute target", is(&[101]), |good, _| {
            good.to("http://relay/ws")
        }),
        request(
            "headers that mean nothing",
            is(&[101]),
            |mut good, forge| {
                for _ in 0..forge.between(1, 80) {
                    good = good.and(&format!("x-{}", forge.word(5)), forge.word(9));
                }
                good
            },
        ),
        request("a value that is not UTF-8", is(&[101]), |good, _| {
            good.and("X-Odd", b"\xff\xfe")
        }),
        request("a proxy's Authorization besides", is(&[101]), |good, _| {
            good.and("Authorization", "Basic dTpw")
        }),
        request("the page that may", is(&[101]), |good, _| {
            good.and("Origin", ORIGIN)
        }),
        behind(
            "a ping behind the head",
            |_| frame(FIN | 9, b"p"),
            vec![0xa],
        ),
        behind(
            "an envelope behind the head",
            |_| binary(&wire::bytes(14, &wire::number(1, 5))),
            vec![BINARY],
        ),
        behind("rubbish behind the head", |_| vec![0xff; 30], vec![CLOSE]),
        behind(
            "another handshake behind it",
            |forge| good(forge).bytes(),
            vec![CLOSE],
        ),
    ]
}

/// A good handshake with something behind it in the same piece.
fn behind(
    name: &str,
    rest: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
    frames: Vec<u8>,
) -> Mutator<Handshake> {
    Mutator::new(name, move |forge| {
        let bytes = good(forge).followed_by(rest(forge)).bytes();
        Handshake {
            frames: frames.clone(),
            ..Handshake::new(bytes, is(&[101]))
        }
    })
}

fn request_lines() -> Vec<Mutator<Handshake>> {
    let mut mutators = Vec::new();
    for method in [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "GETS", "BREW",
    ] {
        mutators.push(request(
            format!("method {method}"),
            is(&[405]),
            move |good, _| good.by(method),
        ));
    }
    mutators.push(Mutator::new("method HEAD", |forge| Handshake {
        has_body: false,
        ..Handshake::new(good(forge).by("HEAD").bytes(), is(&[405]))
    }));
    for method in ["", "G@T", "GE\u{e4}T", "\"GET\""] {
        let expected = Expected::bare(&[400]);
        mutators.push(request(
            format!("method {method:?}"),
            expected,
            move |good, _| good.by(method),
        ));
    }
    for target in [
        "/",
        "/ws/",
        "//ws",
        "/WS",
        "/%77s",
        "/ws;x=1",
        "/./ws",
        "/ws/../ws",
        "/ws%00",
        "/v1/ws",
        "*",
        "http://relay/",
        "/metrics",
    ] {
        mutators.push(request(
            format!("target {target}"),
            is(&[404]),
            move |good, _| good.to(target),
        ));
    }
    mutators.push(request("a target by chance", is(&[404]), |good, forge| {
        let len = forge.between(1, 200);
        good.to(format!("/{}", forge.word(len)))
    }));
    for target in ["", "ws ws", "/w\0s", "/w s", "\\ws", "/ws\t"] {
        let expected = Expected::bare(&[400, 404]);
        mutators.push(request(
            format!("target {target:?}"),
            expected,
            move |good, _| good.to(target),
        ));
    }
    mutators.push(request(
        "a fragment",
        Expected::bare(&[101, 400, 404]),
        |good, _| good.to("/ws#here"),
    ));
    mutators.push(request("HTTP/1.0", is(&[426]), |good, _| {
        good.in_version("HTTP/1.0")
    }));
    for version in [
        "", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3", "HTTQ/1.1", "http/1.1",
    ] {
        let expected = Expected::bare(&[400, 505]).or_silence();
        mutators.push(request(
            format!("version {version:?}"),
            expected,
            move |good, _| good.in_version(version),
        ));
    }
    mutators
}

fn upgrades() -> Vec<Mutator<Handshake>> {
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
    for header in [
        "Connection",
        "Upgrade",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Host",
    ] {
        // Which of two counts is nowhere said.
        let name = format!("{header} twice");
        mutators.push(request(
            name,
            Expected::bare(&[101, 400, 426]),
            move |good, _| {
                let lines = good.clone().header_lines().clone();
                let (_, value) = lines.into_iter().find(|(name, _)| name == header).unwrap();
                good.and(header, value)
            },
        ));
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

fn subprotocols() -> Vec<Mutator<Handshake>> {
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
        // A list without a member offers nothing, or is none.
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
        // Until the relay speaks JSON.
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

fn credentials() -> Vec<Mutator<Handshake>> {
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

/// What is no HTTP.
fn syntax() -> Vec<Mutator<Handshake>> {
    let mut mutators = Vec::new();
    for (name, line) in [
        ("a blank before a colon", "X-Odd : 1"),
        ("a folded line", "X-Odd: 1\r\n 2"),
        ("a header without a name", ": 1"),
        ("a header without a colon", "X-Odd"),
        ("an odd name", "X(Odd): 1"),
        ("a name that is not ASCII", "X-\u{e4}: 1"),
        ("NUL in a value", "X-Odd: a\0b"),
        ("CR in a value", "X-Odd: a\rb"),
        ("DEL in a value", "X-Odd: a\u{7f}b"),
        ("an escape in a value", "X-Odd: \u{1b}[2J"),
    ] {
        mutators.push(Mutator::new(name, move |forge: &mut Forge| {
            let text = String::from_utf8(good(forge).bytes()).unwrap();
            let bytes = text.replacen("Host: relay", &format!("Host: relay\r\n{line}"), 1);
            Handshake::new(bytes.into(), Expected::bare(&[400]))
        }));
    }
    for (name, bytes) in [
        (
            "a TLS hello",
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        ),
        ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a WebSocket frame", b"\x82\x85\x01\x02\x03\x04abcde"),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("blank lines only", b"\r\n\r\n\r\n\r\n"),
        ("nothing", b""),
        ("NULs", &[0; 64]),
    ] {
        mutators.push(ending(name, Expected::bare(&[400]), move |_| {
            bytes.to_vec()
        }));
    }
    let whatever = || Expected::bare(&[101, 400, 401, 403, 404, 405, 414, 426, 431, 505]);
    mutators.push(ending("rubbish", whatever(), |forge| {
        let len = forge.between(1, 500);
        forge.bytes(len)
    }));
    mutators.push(ending("a cut head", Expected::bare(&[400]), |forge| {
        let bytes = good(forge).bytes();
        let len = forge.below(bytes.len() - 2);
        bytes[..len].to_vec()
    }));
    mutators.push(ending("a good one with faults", whatever(), |forge| {
        let bytes = good(forge).bytes();
        forge.mutated(&bytes)
    }));
    mutators
}

/// What may be no whole request, so the client says that nothing follows.
fn ending(
    name: &str,
    expected: Expected,
    bytes: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
) -> Mutator<Handshake> {
    Mutator::new(name, move |forge| Handshake {
        ends: true,
        ..Handshake::new(bytes(forge), expected.clone().or_silence())
    })
}

fn sizes() -> Vec<Mutator<Handshake>> {
    let too_much = || Expected::bare(&[400, 413, 414, 431]);
    vec![
        request("a long value", is(&[101]), |good, forge| {
            let len = forge.between(1000, 14_000);
            good.and("X-Long", forge.word(len))
        }),
        request("a head that is too long", too_much(), |good, forge| {
            let len = forge.between(16_384, 60_000);
            good.and("X-Long", forge.word(len))
        }),
        request("a name that is too long", too_much(), |good, forge| {
            let len = forge.between(16_384, 70_000);
            good.and(&forge.word(len), "1")
        }),
        request("a target that is too long", too_much(), |good, forge| {
            let len = forge.between(16_384, 70_000);
            good.to(format!("/ws?{}", forge.word(len)))
        }),
        request("too many headers", too_much(), |mut good, forge| {
            for _ in 0..forge.between(101, 1500) {
                good = good.and("x", "1");
            }
            good
        }),
        request("a token that is too long", is(&[401]), |_, forge| {
            let len = forge.between(8193, 12_000);
            tokenless().and("Authorization", format!("Bearer {}", forge.word(len)))
        }),
    ]
}

fn bodies() -> Vec<Mutator<Handshake>> {
    let refused = |name: &str, headers: &'static [(&'static str, &'static str)]| {
        request(name, Expected::bare(&[400]), move |mut good, _| {
            for (header, value) in headers {
                good = good.and(header, value);
            }
            good
        })
    };
    vec![
        refused("a length that is none", &[("Content-Length", "five")]),
        refused("a negative length", &[("Content-Length", "-1")]),
        refused(
            "a length of 2^64",
            &[("Content-Length", "18446744073709551616")],
        ),
        refused(
            "two lengths",
            &[("Content-Length", "1"), ("Content-Length", "2")],
        ),
        refused("an odd transfer coding", &[("Transfer-Encoding", "gzip")]),
        refused(
            "chunked and then not",
            &[("Transfer-Encoding", "chunked, identity")],
        ),
        request("a body to a refused handshake", is(&[401]), |_, forge| {
            let len = forge.between(1, 3000);
            tokenless().with_body(forge.bytes(len))
        }),
        request(
            "a chunked body to a refused handshake",
            is(&[401]),
            |_, _| {
                tokenless()
                    .and("Transfer-Encoding", "chunked")
                    .followed_by("5\r\nhello\r\n0\r\n\r\n")
            },
        ),
        request("a refused handshake twice", is(&[401]), |_, _| {
            tokenless().followed_by(tokenless().bytes())
        }),
        request("100-continue", is(&[101]), |good, _| {
            good.and("Expect", "100-continue")
        }),
    ]
}
