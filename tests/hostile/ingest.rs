//! Calls of backends that are none, or odd ones: each is answered as the contract
//! says. Many cases share a connection.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    campaign::{Attacker, Mutator},
    forge::{Forge, INGEST_TENANT, LIMITED_KEY, Site},
    http::{Expected, Request},
    relay::INGEST_KEY,
    socket::Socket,
    wire,
};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

pub(crate) struct Call {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
    expected: Expected,
    /// Whether the caller says that nothing follows, for what may be cut.
    ends: bool,
    /// Whether the relay must have no more of this connection.
    closes: bool,
    has_body: bool,
}

impl Call {
    fn new(bytes: Vec<u8>, expected: Expected) -> Self {
        Self {
            bytes,
            cuts: vec![],
            expected,
            ends: false,
            closes: false,
            has_body: true,
        }
    }
}

pub(crate) struct IngestAttacker {
    site: Arc<Site>,
    connection: Option<Socket>,
}

impl Attacker for IngestAttacker {
    const FAMILY: &'static str = "ingest";
    type Case = Call;

    fn mutators() -> Vec<Mutator<Call>> {
        let mut mutators = taken();
        for group in [
            callers(),
            paths(),
            methods(),
            types(),
            queries(),
            envelopes(),
            json(),
            batches(),
            lengths(),
            syntax(),
        ] {
            mutators.extend(group);
        }
        mutators
    }

    fn new(site: &Arc<Site>) -> Self {
        Self {
            site: Arc::clone(site),
            connection: None,
        }
    }

    async fn attempt(&mut self, case: &Call) -> Result<(), String> {
        let mut socket = match self.connection.take() {
            Some(socket) => socket,
            None => Socket::connect(self.site.ingest).await?,
        };
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
        if answer.status == 200 {
            check_taken(&answer.body)?;
        }
        let closes = answer.header("connection") == Some("close");
        if case.closes || closes {
            socket.half_close().await;
            return socket.ended().await;
        }
        if !case.ends {
            self.connection = Some(socket);
        }
        Ok(())
    }
}

/// What is taken has a place.
fn check_taken(body: &[u8]) -> Result<(), String> {
    let told = || String::from_utf8_lossy(body).into_owned();
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| format!("{error}: {}", told()))?;
    let results = answer["results"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![answer]);
    let has_place = |result: &Value| {
        let offset = result["position"]["offset"].as_str().map(str::parse::<u64>);
        let topics = result["topics"].as_array().map(Vec::len);
        matches!(offset, Some(Ok(1..))) && topics.is_some_and(|count| count > 0)
    };
    if !results.is_empty() && results.iter().all(has_place) {
        Ok(())
    } else {
        Err(format!("taken as {}", told()))
    }
}

fn is(statuses: &[u16]) -> Expected {
    Expected::status(statuses)
}

fn target(tenant: &str, call: &str) -> String {
    format!("/v1/tenants/{tenant}/{call}")
}

/// A call that is carried out.
fn good(forge: &mut Forge) -> Request {
    posted("events", forge).with_body(forge.event())
}

/// The same, without a body.
fn posted(call: &str, forge: &mut Forge) -> Request {
    Request::new("POST", target(INGEST_TENANT, call))
        .and("Authorization", format!("Bearer {}", forge.ingest_key()))
        .and("Content-Type", PROTOBUF)
}

/// A mutator of a good call, and what is answered to it.
fn call(
    name: impl Into<String>,
    expected: Expected,
    change: impl Fn(Request, &mut Forge) -> Request + Send + Sync + 'static,
) -> Mutator<Call> {
    Mutator::new(name, move |forge| {
        let good = good(forge);
        Call::new(change(good, forge).bytes(), expected.clone())
    })
}

/// A call that ends its connection, or has it ended.
fn last(
    name: impl Into<String>,
    expected: Expected,
    change: impl Fn(Request, &mut Forge) -> Request + Send + Sync + 'static,
) -> Mutator<Call> {
    Mutator::new(name, move |forge| {
        let good = good(forge);
        Call {
            closes: true,
            ..Call::new(change(good, forge).bytes(), expected.clone())
        }
    })
}

fn taken() -> Vec<Mutator<Call>> {
    let pieces = |name: &str, of: fn(&mut Forge, usize) -> Vec<usize>| {
        Mutator::new(name, move |forge: &mut Forge| {
            let bytes = good(forge).bytes();
            let cuts = of(forge, bytes.len());
            Call {
                cuts,
                ..Call::new(bytes, is(&[200]))
            }
        })
    };
    vec![
        call("a good one", is(&[200]), |good, _| good),
        pieces("in pieces", |forge, len| forge.cuts(len, 8)),
        pieces("byte by byte", |_, len| (1..len).collect()),
        call("a chunked body", is(&[200]), |good, forge| {
            let event = forge.event();
            let pieces = forge.between(1, 9);
            chunked(good, &event, pieces, forge)
        }),
        call("100-continue", is(&[200]), |good, _| {
            good.and("Expect", "100-continue")
        }),
        call("an odd tenant", is(&[200, 403]), |good, forge| {
            let tenants = [
                "a%2Fb", "%C3%A4", "..", "a%20b", "%2e%2e", "events", "*", "a+b", "%25",
            ];
            good.to(target(forge.pick(&tenants), "events"))
        }),
        call("topics that the call names", is(&[200]), |good, forge| {
            let topics: Vec<_> = (0..forge.between(1, 90))
                .map(|_| format!("topic=odd_kind:{}", forge.word(4)))
                .collect();
            good.to(format!(
                "{}?{}",
                target(INGEST_TENANT, "events"),
                topics.join("&")
            ))
        }),
        last("the connection is not to be kept", is(&[200]), |good, _| {
            good.and("Connection", "close")
        }),
        last("HTTP/1.0", is(&[200]), |good, _| {
            good.in_version("HTTP/1.0").and("Connection", "close")
        }),
        call("JSON", is(&[200]), |_, forge| {
            let event = json_event(forge.below(50));
            as_json(forge, &event)
        }),
        call(
            "JSON in the other style of names",
            is(&[200]),
            |_, forge| {
                let text = r#"{"work_item_created":{"work_item":{"project_id":"p"}}}"#;
                as_json(forge, text)
            },
        ),
        call("a client's event from a backend", is(&[200]), |_, forge| {
            let typing = [wire::text(1, "ann"), wire::text(2, &forge.id())].concat();
            posted("events", forge).with_body(wire::bytes(45, &typing))
        }),
        call("unknown fields", is(&[200]), |_, forge| {
            let len = forge.below(5000);
            let event = [forge.event(), wire::bytes(100, &forge.bytes(len))].concat();
            posted("events", forge).with_body(event)
        }),
    ]
}

fn chunked(request: Request, body: &[u8], pieces: usize, forge: &mut Forge) -> Request {
    let cuts = forge.cuts(body.len(), pieces);
    let mut bytes = Vec::new();
    let mut start = 0;
    for end in cuts.into_iter().chain([body.len()]).filter(|end| *end > 0) {
        // A chunk of nothing would be the last.
        if end > start {
            bytes.extend(format!("{:x}\r\n", end - start).bytes());
            bytes.extend(&body[start..end]);
            bytes.extend(b"\r\n");
            start = end;
        }
    }
    bytes.extend(b"0\r\n\r\n");
    let request = request
        .without("Content-Length")
        .and("Transfer-Encoding", "chunked");
    request.followed_by(bytes)
}

fn as_json(forge: &mut Forge, text: &str) -> Request {
    posted("events", forge)
        .set("Content-Type", JSON)
        .with_body(text)
}

fn json_event(id: usize) -> String {
    format!(
        r#"{{"workItemCreated":{{"workItem":{{"id":"i","projectId":"p{id}"}},"userId":"ann"}}}}"#
    )
}

fn callers() -> Vec<Mutator<Call>> {
    let mut mutators = vec![call("no key", is(&[401]), |good, _| {
        good.without("Authorization")
    })];
    for value in [
        "",
        "Bearer",
        "Bearer   ",
        "Basic dTpw",
        "Bearer wrong",
        "Bearer a b",
        "bearer\t",
    ] {
        mutators.push(call(
            format!("Authorization: {value:?}"),
            is(&[401]),
            move |good, _| good.set("Authorization", value),
        ));
    }
    mutators.extend([
        call("the key and a byte more", is(&[401]), |good, forge| {
            good.set(
                "Authorization",
                format!("Bearer {INGEST_KEY}{}", forge.word(1)),
            )
        }),
        call("the key and a byte less", is(&[401]), |good, _| {
            let key = &INGEST_KEY[1..];
            good.set("Authorization", format!("Bearer {key}"))
        }),
        call("the key in another case", is(&[401]), |good, _| {
            good.set(
                "Authorization",
                format!("Bearer {}", INGEST_KEY.to_lowercase()),
            )
        }),
        call("a key by chance", is(&[401]), |good, forge| {
            let len = forge.between(1, 20_000);
            good.set("Authorization", format!("Bearer {}", forge.word(len)))
        }),
        call("a key that is not UTF-8", is(&[401]), |good, _| {
            good.set("Authorization", b"Bearer \xff\xfe")
        }),
        call("the key twice", is(&[401]), |good, _| {
            good.and("Authorization", format!("Bearer {INGEST_KEY}"))
        }),
        call("a client's token", is(&[401]), |good, forge| {
            good.set("Authorization", format!("Bearer {}", forge.site.token))
        }),
        call("the key of another tenant", is(&[403]), |good, forge| {
            let tenants = ["acme", "hostile2", "Hostile", "hostile%20", "%68ostile2"];
            good.set("Authorization", format!("Bearer {LIMITED_KEY}"))
                .to(target(
                    forge.pick(&tenants),
                    forge.pick(&["events", "nothing"]),
                ))
        }),
    ]);
    mutators
}

fn paths() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for path in [
        "/",
        "/v1",
        "/v1/tenants",
        "/v2/tenants/hostile/events",
        "//v1/tenants/hostile/events",
        "/V1/tenants/hostile/events",
        "/v1/tenants/hostile/events/",
        "/v1/tenants/hostile/event",
        "/v1/tenants/hostile/events:batch2",
        "/v1/tenants/hostile/events%3Abatch",
        "*",
        "/v1/tenants/hostile/events/1",
        "/v1/tenants/hostile//events",
        "/metrics",
        "/ws",
        "/v1/tenants/hostile/%65vents",
    ] {
        mutators.push(call(format!("path {path}"), is(&[404]), move |good, _| {
            good.to(path)
        }));
    }
    for tenant in [
        "",
        "%",
        "%4",
        "%zz",
        "a%",
        "%00",
        "a%0Ab",
        "%7f",
        "%c2%85",
        "%ff",
        "%c3",
        "%ed%a0%80",
    ] {
        mutators.push(call(
            format!("tenant {tenant:?}"),
            is(&[400]),
            move |good, _| good.to(target(tenant, "events")),
        ));
    }
    mutators.push(call(
        "a tenant that is too long",
        is(&[400]),
        |good, forge| {
            let len = forge.between(129, 9000);
            good.to(target(&forge.word(len), "events"))
        },
    ));
    mutators.push(call(
        "a tenant by chance",
        Expected::bare(&[200, 400, 403, 404]),
        |good, forge| {
            let len = forge.between(1, 20);
            let bytes = forge.bytes(len);
            let escaped: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            good.to(target(&escaped, "events"))
        },
    ));
    mutators.push(call("a path by chance", is(&[404]), |good, forge| {
        let len = forge.between(1, 5000);
        good.to(format!("/{}", forge.word(len)))
    }));
    mutators
}

fn methods() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for method in [
        "GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "POSTS", "PURGE",
    ] {
        mutators.push(call(
            format!("method {method}"),
            is(&[405]),
            move |good, _| good.by(method),
        ));
    }
    mutators.push(Mutator::new("method HEAD", |forge| Call {
        has_body: false,
        ..Call::new(good(forge).by("HEAD").bytes(), is(&[405]))
    }));
    mutators
}

fn types() -> Vec<Mutator<Call>> {
    let mut mutators = vec![call("no type", is(&[415]), |good, _| {
        good.without("Content-Type")
    })];
    for value in [
        "",
        "text/plain",
        "application/protobuf",
        "application/jsonp",
        "application/json2",
        "application/json; charset=latin1",
        "application/json;charset=utf-16",
        "*/*",
        "json",
        "application/x-protobuf2",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/x-www-form-urlencoded",
    ] {
        mutators.push(call(
            format!("type {value:?}"),
            is(&[415]),
            move |good, _| good.set("Content-Type", value),
        ));
    }
    for coding in [
        "gzip",
        "deflate",
        "br",
        "zstd",
        "identity",
        "",
        "gzip, gzip",
    ] {
        mutators.push(call(
            format!("coding {coding:?}"),
            is(&[415]),
            move |good, _| good.and("Content-Encoding", coding),
        ));
    }
    mutators.push(call("two types", is(&[200, 415]), |good, _| {
        good.and("Content-Type", PROTOBUF)
    }));
    mutators.push(call("a type that is not ASCII", is(&[415]), |good, _| {
        good.set("Content-Type", b"application/\xff")
    }));
    mutators.push(call("JSON said to be protobuf", is(&[400]), |_, forge| {
        as_json(forge, &json_event(1)).set("Content-Type", PROTOBUF)
    }));
    mutators.push(call("protobuf said to be JSON", is(&[400]), |good, _| {
        good.set("Content-Type", JSON)
    }));
    mutators
}

fn queries() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for query in [
        "topic=",
        "topic",
        "topic=project",
        "topic=:1",
        "topic=project:",
        "topic=Project:1",
        "topic=pro-ject:1",
        "topic=*:*",
        "topic=project:*",
        "topic=tenant:acme",
        "topic=tenant:",
        "topic=user:*",
        "topic=project:%00",
        "topic=project:%c2%85",
        "topic=project:%ff",
        "topic=%zz",
        "topic=%",
        "%=1",
        "topics=project:1",
        "Topic=project:1",
        "access_token=x",
        "if_last=",
        "if_last=project:1",
        "if_last=project:1@",
        "if_last=project:1@x:y",
        "if_last=@0",
        "if_last=project:1@1",
        "if_last=project:*@0",
        "if_last=nothing@0",
        "if_last=project:1@epoch:18446744073709551616",
        "if_last=project:1@:-1",
        "a=b",
        "x",
    ] {
        mutators.push(call(
            format!("query {query}"),
            is(&[400]),
            move |good, _| good.to(format!("{}?{query}", target(INGEST_TENANT, "events"))),
        ));
    }
    mutators.extend([
        call(
            "an id that is too long in the query",
            is(&[400]),
            |good, forge| {
                let len = forge.between(257, 5000);
                let id = forge.word(len);
                good.to(format!(
                    "{}?topic=project:{id}",
                    target(INGEST_TENANT, "events")
                ))
            },
        ),
        call("too many topics in the query", is(&[400]), |good, forge| {
            let topics: Vec<_> = (0..forge.between(101, 1000))
                .map(|id| format!("topic=a:{id}"))
                .collect();
            good.to(format!(
                "{}?{}",
                target(INGEST_TENANT, "events"),
                topics.join("&")
            ))
        }),
        call("an empty query", is(&[200]), |good, forge| {
            let query = forge.pick(&["?", "?&", "?&&&"]);
            good.to(format!("{}{query}", target(INGEST_TENANT, "events")))
        }),
        call("a precondition on a batch", is(&[400]), |_, forge| {
            let batch = wire::bytes(1, &forge.event());
            posted("events:batch", forge)
                .to(format!(
                    "{}?if_last=project:1@0",
                    target(INGEST_TENANT, "events:batch")
                ))
                .with_body(batch)
        }),
    ]);
    mutators
}

/// A mutator of the one envelope of a call.
fn envelope(
    name: impl Into<String>,
    expected: Expected,
    bytes: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
) -> Mutator<Call> {
    Mutator::new(name, move |forge| {
        let body = bytes(forge);
        Call::new(
            posted("events", forge).with_body(body).bytes(),
            expected.clone(),
        )
    })
}

fn envelopes() -> Vec<Mutator<Call>> {
    let mut mutators = vec![
        envelope("an empty body", is(&[400]), |_| vec![]),
        envelope("rubbish", is(&[400]), |forge| {
            let len = forge.between(1, 2000);
            // What begins with field 0 is nothing.
            [vec![0], forge.bytes(len)].concat()
        }),
        envelope("no payload", is(&[400]), |forge| {
            wire::text(1, &forge.message_id)
        }),
        envelope("two payloads", is(&[400]), |forge| {
            [forge.event(), wire::bytes(3, b"")].concat()
        }),
        envelope("the same payload twice", is(&[400]), |forge| {
            forge.event().repeat(2)
        }),
        envelope("no topic", is(&[400]), |_| wire::bytes(2, b"")),
        envelope("a position", is(&[400]), |forge| {
            let position = wire::number(2, forge.number() >> forge.below(64));
            [
                forge.event(),
                wire::bytes(9, &forge.pick(&[position, vec![]])),
            ]
            .concat()
        }),
        envelope("a message id that is too long", is(&[400]), |forge| {
            let len = forge.between(129, 9000);
            with_id(&forge.word(len))
        }),
        envelope(
            "control characters in the message id",
            is(&[400]),
            |forge| with_id(forge.pick(&["a\0", "\n", "\u{7f}", "x\u{85}"])),
        ),
        envelope("a message id that is not UTF-8", is(&[400]), |forge| {
            [wire::bytes(1, b"\xff"), forge.event()].concat()
        }),
        envelope("a message id twice", is(&[400]), |forge| {
            [wire::text(1, "x"), forge.event()].concat()
        }),
        envelope("a timestamp twice", is(&[400]), |forge| {
            [wire::number(8, 5).repeat(2), forge.event()].concat()
        }),
        envelope("a topic in field 18 that is none", is(&[400]), |forge| {
            let bad = [
                "",
                "x",
                ":",
                "project:",
                "Project:1",
                "project:*",
                "tenant:a",
                "a:\0",
            ];
            [forge.event(), wire::text(18, forge.pick(&bad))].concat()
        }),
        envelope("too many topics in field 18", is(&[400]), |forge| {
            let topics: Vec<_> = (0..forge.between(101, 5000))
                .map(|id| wire::text(18, &format!("a:{id}")))
                .collect();
            [forge.event(), topics.concat()].concat()
        }),
        envelope("an annotated id that is a wildcard", is(&[400]), |_| {
            deleted("*")
        }),
        envelope("an annotated id that is too long", is(&[400]), |forge| {
            let len = forge.between(257, 9000);
            deleted(&forge.word(len))
        }),
        envelope(
            "control characters in an annotated id",
            is(&[400]),
            |forge| deleted(forge.pick(&["\0", "a\nb", "\u{80}"])),
        ),
        envelope("an annotated id that is not UTF-8", is(&[400]), |_| {
            wire::bytes(4, &wire::bytes(1, b"\xc3\x28"))
        }),
        envelope("a group", is(&[400]), |forge| {
            [forge.event(), b"\xa3\x06\xa4\x06".to_vec()].concat()
        }),
        envelope("a varint of 11 bytes", is(&[400]), |forge| {
            [forge.event(), [&[0x40], &[0x80; 10][..], &[0]].concat()].concat()
        }),
        envelope("a field of another type", is(&[400]), |forge| {
            let number = forge.pick(&[2, 3, 4, 5, 9, 18]);
            [forge.event(), wire::number(number, 1)].concat()
        }),
        envelope("batches in batches", is(&[400]), |forge| {
            let mut inner = forge.event();
            for _ in 0..forge.between(1, 2000) {
                inner = wire::bytes(17, &wire::bytes(1, &inner));
            }
            inner
        }),
        envelope("an event that is cut", is(&[400]), |forge| {
            let id_len = wire::text(1, &forge.message_id).len();
            let event = forge.event();
            event[..forge.between(id_len + 1, event.len() - 1)].to_vec()
        }),
        envelope("an event with faults", is(&[200, 400, 409]), |forge| {
            let event = forge.event();
            forge.mutated(&event)
        }),
    ];
    for number in 10..=17 {
        mutators.push(envelope(
            format!("control message {number}"),
            is(&[400]),
            move |_| wire::bytes(number, b""),
        ));
    }
    for number in 19..=31 {
        mutators.push(envelope(
            format!("reserved field {number}"),
            is(&[400]),
            move |forge| [forge.event(), wire::number(number, forge.number())].concat(),
        ));
    }
    mutators
}

/// An event with this message id.
fn with_id(id: &str) -> Vec<u8> {
    [wire::text(1, id), deleted("p")].concat()
}

/// WorkItemDeleted of this item.
fn deleted(id: &str) -> Vec<u8> {
    wire::bytes(4, &wire::text(1, id))
}

fn json() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for text in [
        "",
        "null",
        "[]",
        "1",
        "\"x\"",
        "{",
        "}",
        "{}",
        "{}{}",
        "{\"messageId\":",
        "{'a':1}",
        "\u{feff}{}",
        r#"{"workItemCreated":null}"#,
        r#"{"workItemCreated":[]}"#,
        r#"{"workItemCreated":5}"#,
        r#"{"nothing":{}}"#,
        r#"{"workItemCreated":{"nothing":1}}"#,
        r#"{"messageId":5,"workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"timestamp":"x","workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"timestamp":1e99,"workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"timestamp":1.5,"workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"workItemDeleted":{"workItemId":"i"}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"work_item_deleted":{"workItemId":"i"}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"sprintDeleted":{"sprintId":"s"}}"#,
        r#"{"workItemDeleted":{"workItemId":"\ud800"}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},}"#,
        r#"{"workItemDeleted":{"workItemId":"i"}} x"#,
        r#"{"workItemDeleted":{"workItemId":["i"]}}"#,
        r#"{"workItemDeleted":{"workItemId":"*"}}"#,
        r#"{"workItemDeleted":{"workItemId":"a\u0000"}}"#,
        r#"{"workItemDeleted":{}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"topics":["x"]}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"topics":"project:1"}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"position":{}}"#,
        r#"{"workItemDeleted":{"workItemId":"i"},"position":{"offset":"1"}}"#,
        r#"{"ping":{}}"#,
        r#"{"subscribe":{}}"#,
        r#"{"batch":{}}"#,
        r#"{"workItemCreated":{"workItem":{"projectId":"p","itemType":"NONE_SUCH"}}}"#,
    ] {
        mutators.push(call(
            format!("JSON {text:?}"),
            is(&[400]),
            move |_, forge| as_json(forge, text),
        ));
    }
    mutators.extend([
        call("JSON that is deep", is(&[400]), |_, forge| {
            let levels = forge.between(200, 40_000);
            as_json(forge, &"{\"batch\":{\"messages\":[".repeat(levels))
        }),
        call("lists that are deep", is(&[400]), |_, forge| {
            let levels = forge.between(200, 300_000);
            as_json(forge, &"[".repeat(levels))
        }),
        call("an unknown field that is deep", is(&[400]), |_, forge| {
            let levels = forge.between(200, 50_000);
            let deep = [vec!["["; levels].concat(), vec!["]"; levels].concat()].concat();
            as_json(forge, &format!(r#"{{"x":{deep}}}"#))
        }),
        call("a number of many digits", is(&[400]), |_, forge| {
            let digits = "9".repeat(forge.between(20, 100_000));
            as_json(forge, &format!(r#"{{"timestamp":{digits}}}"#))
        }),
        call("JSON that is not UTF-8", is(&[400]), |_, forge| {
            let body = b"{\"workItemDeleted\":{\"workItemId\":\"\xff\"}}";
            posted("events", forge)
                .set("Content-Type", JSON)
                .with_body(&body[..])
        }),
        call("JSON with faults", is(&[200, 400, 409]), |_, forge| {
            let body = forge.mutated(json_event(7).as_bytes());
            posted("events", forge)
                .set("Content-Type", JSON)
                .with_body(body)
        }),
    ]);
    mutators
}

fn batches() -> Vec<Mutator<Call>> {
    let batch = |name: &str, statuses: &'static [u16], bytes: fn(&mut Forge) -> Vec<u8>| {
        Mutator::new(name, move |forge: &mut Forge| {
            let body = bytes(forge);
            Call::new(
                posted("events:batch", forge).with_body(body).bytes(),
                is(statuses),
            )
        })
    };
    let as_json = |name: &str, text: &'static str| {
        Mutator::new(name, move |forge: &mut Forge| {
            let request = posted("events:batch", forge).set("Content-Type", JSON);
            Call::new(request.with_body(text).bytes(), is(&[400]))
        })
    };
    vec![
        batch("a good batch", &[200], |forge| {
            let count = forge.between(1, 20);
            let ids = (0..count).map(|id| {
                let message_id = format!("{}-{id}", forge.message_id);
                wire::bytes(1, &with_id(&message_id))
            });
            ids.collect::<Vec<_>>().concat()
        }),
        batch("an empty batch", &[400], |_| vec![]),
        batch("a batch of nothing but unknown fields", &[400], |_| {
            wire::bytes(2, b"x").repeat(9)
        }),
        batch("a batch of empty envelopes", &[400], |forge| {
            wire::bytes(1, b"").repeat(forge.between(1, 1000))
        }),
        batch("a batch of too many", &[400], |forge| {
            wire::bytes(1, &deleted("p")).repeat(forge.between(1001, 9000))
        }),
        batch("a batch of very many empty ones", &[400], |forge| {
            b"\x0a\x00".repeat(forge.between(10_000, 400_000))
        }),
        batch("one bad event among good ones", &[400], |forge| {
            let mut events = vec![wire::bytes(1, &deleted("p")); 9];
            let place = forge.below(9);
            events[place] = wire::bytes(1, &deleted("*"));
            events.concat()
        }),
        batch("an event in place of a batch", &[400], |forge| {
            forge.event()
        }),
        batch("messages of another type", &[400], |forge| {
            wire::number(1, forge.number())
        }),
        batch("a batch that is cut", &[400], |forge| {
            let whole = wire::bytes(1, &forge.event());
            whole[..forge.between(1, whole.len() - 1)].to_vec()
        }),
        batch("a batch in a batch", &[400], |forge| {
            let inner = wire::bytes(1, &forge.event());
            wire::bytes(1, &wire::bytes(17, &inner))
        }),
        batch("a batch with a group", &[400], |_| b"\x0b\x0c".to_vec()),
        batch("a batch with faults", &[200, 400, 409], |forge| {
            let whole = wire::bytes(1, &forge.event()).repeat(3);
            forge.mutated(&whole)
        }),
        as_json("a JSON list as batch", "[]"),
        as_json("an empty JSON batch", "{}"),
        as_json("a JSON batch of nothing", r#"{"messages":[]}"#),
        as_json("a JSON batch of nulls", r#"{"messages":[null,null]}"#),
        as_json(
            "a JSON batch of batches",
            r#"{"messages":[{"batch":{"messages":[]}}]}"#,
        ),
        as_json(
            "a JSON batch of something else",
            r#"{"messages":{"workItemDeleted":{}}}"#,
        ),
        as_json(
            "a JSON batch with two lists",
            r#"{"messages":[],"messages":[]}"#,
        ),
    ]
}

fn lengths() -> Vec<Mutator<Call>> {
    let promising = |name: &str, call: &'static str, least: usize, most: usize| {
        last(name, is(&[413]), move |_, forge| {
            let length = forge.between(least, most).to_string();
            let more = forge.below(2000);
            posted(call, forge)
                .and("Content-Length", length)
                .followed_by(forge.bytes(more))
        })
    };
    const MIB: usize = 1024 * 1024;
    vec![
        promising("a body that is too long", "events", MIB + 1, 100 * MIB),
        promising(
            "a batch that is too long",
            "events:batch",
            8 * MIB + 1,
            1 << 40,
        ),
        promising("a body of 2^63", "events", (1 << 63) - 1, 1 << 63),
        last("chunks that are too long", is(&[413]), |good, forge| {
            let len = forge.between(MIB + 1, MIB + 100_000);
            let chunks = chunked(good, &vec![0; len], 4, forge);
            chunks
        }),
        Mutator::new("a body that never comes whole", |forge| {
            let request = good(forge).set("Content-Length", "5000");
            Call {
                ends: true,
                ..Call::new(request.bytes(), is(&[400]).or_silence())
            }
        }),
        Mutator::new("chunks that never end", |forge| {
            let request = good(forge)
                .without("Content-Length")
                .and("Transfer-Encoding", "chunked");
            let request = request.followed_by("5\r\nhel");
            Call {
                ends: true,
                ..Call::new(request.bytes(), is(&[400]).or_silence())
            }
        }),
        call("the largest body", is(&[200]), |_, forge| {
            let event = forge.event();
            let padding = wire::bytes(100, &vec![0; MIB - event.len() - 5]);
            posted("events", forge).with_body([event, padding].concat())
        }),
    ]
}

fn syntax() -> Vec<Mutator<Call>> {
    let mut mutators = Vec::new();
    for (name, line) in [
        ("a length that is none", "Content-Length: five"),
        ("a negative length", "Content-Length: -1"),
        ("a length with a sign", "Content-Length: +5"),
        ("a length of 2^64", "Content-Length: 18446744073709551616"),
        ("two lengths", "Content-Length: 1\r\nContent-Length: 2"),
        ("an odd transfer coding", "Transfer-Encoding: gzip"),
        (
            "chunked and then not",
            "Transfer-Encoding: chunked, identity",
        ),
        ("a blank before a colon", "X-Odd : 1"),
        ("a folded line", "X-Odd: 1\r\n 2"),
        ("a header without a colon", "X-Odd"),
        ("NUL in a value", "X-Odd: a\0b"),
        ("CR in a value", "X-Odd: a\rb"),
    ] {
        mutators.push(Mutator::new(name, move |forge: &mut Forge| {
            let head = posted("events", forge).bytes();
            let text = String::from_utf8(head).unwrap();
            let bytes = text.replacen("Host: relay", &format!("Host: relay\r\n{line}"), 1);
            Call {
                closes: true,
                ..Call::new(bytes.into(), Expected::bare(&[400]))
            }
        }));
    }
    for (name, chunks) in [
        ("a chunk without a length", "\r\nhello\r\n0\r\n\r\n"),
        ("a chunk of an odd length", "xyz\r\nhello\r\n0\r\n\r\n"),
        ("a chunk of 2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("a chunk of a negative length", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than it says", "2\r\nhello\r\n0\r\n\r\n"),
    ] {
        mutators.push(last(name, Expected::bare(&[400]), move |good, _| {
            good.without("Content-Length")
                .and("Transfer-Encoding", "chunked")
                .followed_by(chunks)
        }));
    }
    let whatever = || {
        Expected::bare(&[200, 400, 401, 403, 404, 405, 409, 413, 414, 415, 431, 505]).or_silence()
    };
    mutators.push(chance("rubbish in place of HTTP", whatever(), |forge| {
        let len = forge.between(1, 500);
        forge.bytes(len)
    }));
    mutators.push(chance("a call with faults", whatever(), |forge| {
        let call = good(forge).bytes();
        forge.mutated(&call)
    }));
    mutators.push(last(
        "a head that is too long",
        Expected::bare(&[400, 431]),
        |good, forge| {
            let len = forge.between(65_536, 300_000);
            good.and("X-Long", forge.word(len))
        },
    ));
    mutators.push(last(
        "too many headers",
        Expected::bare(&[400, 431]),
        |mut good, forge| {
            for _ in 0..forge.between(101, 1500) {
                good = good.and("x", "1");
            }
            good
        },
    ));
    mutators
}

/// What may be no whole request, so the caller says that nothing follows.
fn chance(
    name: &str,
    expected: Expected,
    bytes: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
) -> Mutator<Call> {
    Mutator::new(name, move |forge| Call {
        ends: true,
        ..Call::new(bytes(forge), expected.clone())
    })
}
