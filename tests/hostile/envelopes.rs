//! What clients say in good frames: each gets the one answer that the contract has
//! for it, and the connection goes on. Many cases share a connection.

use std::sync::Arc;

use prost::Message;
use sidewire::protocol::wire::ErrorResponse;

use crate::{
    campaign::{Attacker, Mutator},
    forge::{Forge, Site},
    handshakes::good,
    socket::{BINARY, Socket, binary},
    wire::{self, Envelope, FIXED32, FIXED64, GROUP, GROUP_END, VARINT},
};

/// Numbers of the envelope.
const ID: u32 = 1;
const CREATED: u32 = 2;
const TIMESTAMP: u32 = 8;
const POSITION: u32 = 9;
const SUBSCRIBE: u32 = 10;
const UNSUBSCRIBE: u32 = 12;
const PING: u32 = 14;
const BATCH: u32 = 17;
const EXTRA_TOPICS: u32 = 18;

/// Numbers of Subscribe.
const PROJECTS: u32 = 1;
const TOPICS: u32 = 16;
const RESUME: u32 = 17;

/// After so many cases a new connection is made, so that topics do not add up.
const CASES_PER_CONNECTION: usize = 100;

/// What is to be answered.
#[derive(Debug, Clone)]
enum Wanted {
    /// A Pong with this timestamp.
    Pong(i64),
    /// The confirmation of a Subscribe, which says that nothing was recovered.
    Subscribed,
    Unsubscribed,
    /// An ErrorResponse.
    Refused {
        codes: &'static [&'static str],
        /// Whether the request's id is repeated; `None` where it may be or not.
        names_request: Option<bool>,
        field: Option<String>,
    },
    /// Any of the three answers, as long as it is one.
    Something,
}

impl Wanted {
    /// The refusal of what cannot be decoded.
    fn undecodable() -> Self {
        Self::Refused {
            codes: &["VALIDATION_ERROR"],
            names_request: Some(false),
            field: None,
        }
    }

    /// The refusal of what says something wrong in this field.
    fn invalid(field: impl Into<String>) -> Self {
        Self::Refused {
            codes: &["VALIDATION_ERROR"],
            names_request: Some(true),
            field: Some(field.into()),
        }
    }

    fn unauthorized() -> Self {
        Self::Refused {
            codes: &["AUTHORIZATION_FAILED"],
            names_request: Some(true),
            field: None,
        }
    }
}

pub(crate) struct Said {
    bytes: Vec<u8>,
    message_id: String,
    wanted: Wanted,
}

pub(crate) struct EnvelopeAttacker {
    site: Arc<Site>,
    connection: Option<Socket>,
    cases: usize,
}

impl Attacker for EnvelopeAttacker {
    const FAMILY: &'static str = "envelopes";
    type Case = Said;

    fn mutators() -> Vec<Mutator<Said>> {
        let mut mutators = good_ones();
        for group in [
            malformed(),
            relay_fields(),
            payloads(),
            topics(),
            resumes(),
            chance(),
        ] {
            mutators.extend(group);
        }
        mutators
    }

    fn new(site: &Arc<Site>) -> Self {
        Self {
            site: Arc::clone(site),
            connection: None,
            cases: 0,
        }
    }

    async fn attempt(&mut self, case: &Said) -> Result<(), String> {
        self.cases += 1;
        if self.cases.is_multiple_of(CASES_PER_CONNECTION) {
            self.connection = None;
        }
        let mut socket = match self.connection.take() {
            Some(socket) => socket,
            None => self.open().await?,
        };
        // What is asked afterwards is answered afterwards.
        let alive = wire::bytes(PING, &wire::number(1, self.cases as u64));
        let frames = [binary(&case.bytes), binary(&alive)].concat();
        socket.send(&frames).await;
        case.check(&next(&mut socket).await?)?;
        let pong = next(&mut socket).await?;
        let stamp = pong.pong.as_ref().map(|pong| pong.client_timestamp);
        if stamp != i64::try_from(self.cases).ok() {
            return Err(format!("{pong:?} in place of a sign of life"));
        }
        self.connection = Some(socket);
        Ok(())
    }
}

impl EnvelopeAttacker {
    async fn open(&self) -> Result<Socket, String> {
        let mut socket = Socket::connect(self.site.client).await?;
        let forge = Forge::new(&self.site, 0, Self::FAMILY, 0);
        socket.send(&good(&forge).bytes()).await;
        match socket.answer(true).await? {
            Some(answer) if answer.status == 101 => Ok(socket),
            other => Err(format!("not let in: {other:?}")),
        }
    }
}

/// The next envelope, which must be one that the relay made.
async fn next(socket: &mut Socket) -> Result<Envelope, String> {
    let frame = socket.frame().await?.ok_or("the connection has ended")?;
    if frame.opcode != BINARY {
        return Err(format!("{frame:?}"));
    }
    let envelope = Envelope::decode(&frame.payload[..]).map_err(|error| error.to_string())?;
    let is_relays = envelope.message_id.len() == 36 && envelope.timestamp > 0;
    if is_relays && envelope.position.is_none() {
        Ok(envelope)
    } else {
        Err(format!("{envelope:?}"))
    }
}

impl Said {
    fn new(forge: &Forge, fields: &[Vec<u8>], wanted: Wanted) -> Self {
        let id = wire::text(ID, &forge.message_id);
        Self::bare([&id[..], &fields.concat()].concat(), forge, wanted)
    }

    /// Bytes that are the whole envelope.
    fn bare(bytes: Vec<u8>, forge: &Forge, wanted: Wanted) -> Self {
        Self {
            bytes,
            message_id: forge.message_id.clone(),
            wanted,
        }
    }

    fn check(&self, answer: &Envelope) -> Result<(), String> {
        let id = Some(self.message_id.as_str());
        let as_wanted = match &self.wanted {
            Wanted::Pong(stamp) => {
                answer.pong.as_ref().map(|pong| pong.client_timestamp) == Some(*stamp)
            }
            Wanted::Subscribed => answer.subscribed.as_ref().is_some_and(|it| {
                Some(it.request_message_id.as_str()) == id
                    && it.position.is_some()
                    && (it.recovered, it.replayed) == (false, 0)
            }),
            Wanted::Unsubscribed => {
                answer
                    .unsubscribed
                    .as_ref()
                    .map(|it| it.request_message_id.as_str())
                    == id
            }
            Wanted::Refused {
                codes,
                names_request,
                field,
            } => answer.error.as_ref().is_some_and(|error| {
                let named = error.request_message_id.as_str();
                codes.contains(&error.error_code.as_str())
                    && !error.error_message.is_empty()
                    && names_request.is_none_or(|names| names == !named.is_empty())
                    && (named.is_empty() || Some(named) == id)
                    && (field.is_none() || *field == error.field_name)
            }),
            Wanted::Something => is_one(answer),
        };
        if as_wanted {
            Ok(())
        } else {
            Err(format!(
                "{answer:?}, not {:?}, to {:x?}",
                self.wanted, self.bytes
            ))
        }
    }
}

/// Whether it is an answer, and where it is a refusal one with a known code.
fn is_one(answer: &Envelope) -> bool {
    let known = |error: &ErrorResponse| {
        matches!(
            error.error_code.as_str(),
            "VALIDATION_ERROR" | "AUTHORIZATION_FAILED" | "RATE_LIMIT_EXCEEDED"
        )
    };
    answer.pong.is_some()
        || answer.subscribed.is_some()
        || answer.unsubscribed.is_some()
        || answer.error.as_ref().is_some_and(known)
}

/// A mutator of envelopes that begin with their id.
fn said(
    name: impl Into<String>,
    wanted: Wanted,
    fields: impl Fn(&mut Forge) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Mutator<Said> {
    Mutator::new(name, move |forge| {
        let fields = fields(forge);
        Said::new(forge, &fields, wanted.clone())
    })
}

fn subscribe(fields: &[Vec<u8>]) -> Vec<u8> {
    wire::bytes(SUBSCRIBE, &fields.concat())
}

fn ping() -> Vec<u8> {
    wire::bytes(PING, b"")
}

fn good_ones() -> Vec<Mutator<Said>> {
    vec![
        Mutator::new("a ping", |forge| {
            let stamp = forge.number();
            let ping = wire::bytes(PING, &wire::number(1, stamp));
            Said::new(forge, &[ping], Wanted::Pong(stamp.cast_signed()))
        }),
        said("an empty ping", Wanted::Pong(0), |_| vec![ping()]),
        said("a subscribe", Wanted::Subscribed, |forge| {
            let ids: Vec<_> = (1..4).map(|list| wire::text(list, &forge.id())).collect();
            vec![subscribe(&ids)]
        }),
        said("an empty subscribe", Wanted::Subscribed, |_| {
            vec![subscribe(&[])]
        }),
        said(
            "the same topic in a hundred places",
            Wanted::Subscribed,
            |forge| {
                let id = forge.id();
                let lists = [
                    wire::text(PROJECTS, &id),
                    wire::text(TOPICS, &format!("project:{id}")),
                ];
                vec![subscribe(&[lists.concat().repeat(100)])]
            },
        ),
        said("as many topics as may be", Wanted::Subscribed, |_| {
            let ids: Vec<_> = (0..1000)
                .map(|id| wire::text(2, &format!("s{id}")))
                .collect();
            vec![subscribe(&ids)]
        }),
        said("the longest topic", Wanted::Subscribed, |forge| {
            vec![subscribe(&[wire::text(PROJECTS, &forge.word(256))])]
        }),
        said(
            "a topic of a kind that no schema names",
            Wanted::Subscribed,
            |forge| {
                vec![subscribe(&[wire::text(
                    TOPICS,
                    &format!("odd_kind:{}", forge.id()),
                )])]
            },
        ),
        said("an id full of colons", Wanted::Subscribed, |forge| {
            vec![subscribe(&[wire::text(
                TOPICS,
                &format!("project::a:*:{}", forge.id()),
            )])]
        }),
        said("an unsubscribe", Wanted::Unsubscribed, |forge| {
            vec![wire::bytes(UNSUBSCRIBE, &wire::text(PROJECTS, &forge.id()))]
        }),
        said(
            "an unsubscribe of what nobody has",
            Wanted::Unsubscribed,
            |forge| {
                let topic = format!("nothing:{}", forge.word(100));
                vec![wire::bytes(UNSUBSCRIBE, &wire::text(TOPICS, &topic))]
            },
        ),
        said("fields that nobody knows", Wanted::Pong(0), |forge| {
            let field = forge.between(100, (1 << 29) - 1) as u32;
            let unknown = [
                wire::number(field, forge.number()),
                wire::bytes(field, &forge.bytes(30)),
                [wire::key(field, FIXED64), forge.bytes(8)].concat(),
                [wire::key(field, FIXED32), forge.bytes(4)].concat(),
            ];
            vec![forge.pick(&unknown), ping()]
        }),
        said(
            "an unknown field that looks like a bomb",
            Wanted::Pong(0),
            |forge| {
                let levels = forge.between(100, 3000);
                vec![wire::bytes(100, &wire::nested(1, levels)), ping()]
            },
        ),
        said("thousands of unknown fields", Wanted::Pong(0), |_| {
            vec![wire::number(100, 1).repeat(9000), ping()]
        }),
        said("varints longer than they need be", Wanted::Pong(5), |_| {
            vec![wire::bytes(PING, b"\x08\x85\x80\x80\x80\x00")]
        }),
        Mutator::new("no message id", |forge| {
            Said::bare(ping(), forge, Wanted::Pong(0))
        }),
        Mutator::new("an empty message id", |forge| {
            let bytes = [wire::text(ID, ""), ping()].concat();
            Said::bare(bytes, forge, Wanted::Pong(0))
        }),
    ]
}

/// What is no protobuf, or not that of the schema.
fn malformed() -> Vec<Mutator<Said>> {
    let mut mutators = Vec::new();
    let faults: [(&str, &[u8]); 20] = [
        ("a tag that is cut", b"\x80"),
        ("field number 0", b"\x00\x01"),
        ("a field number above 2^29", b"\x80\x80\x80\x80\x10\x01"),
        (
            "a field number of 64 bits",
            b"\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",
        ),
        ("wire type 6", b"\xa6\x06"),
        ("wire type 7", b"\xa7\x06"),
        ("a value that is missing", b"\x08"),
        (
            "a varint of 11 bytes",
            b"\x40\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
        ),
        (
            "a varint of 65 bits",
            b"\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        ),
        ("a length beyond the end", b"\xa2\x06\x05ab"),
        ("a length of 2^31", b"\xa2\x06\x80\x80\x80\x80\x08"),
        ("a length of 2^32", b"\xa2\x06\x80\x80\x80\x80\x10"),
        (
            "a length of 2^63",
            b"\xa2\x06\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        ),
        (
            "a length of 2^64-1",
            b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ),
        ("four bytes of which three are there", b"\xa5\x06\0\0\0"),
        (
            "eight bytes of which seven are there",
            b"\xa1\x06\0\0\0\0\0\0\0",
        ),
        ("a group", b"\xa3\x06\xa4\x06"),
        ("a group without an end", b"\xa3\x06"),
        ("the end of a group", b"\xa4\x06"),
        ("a message of a byte too few", b"\x72\x02\x08"),
    ];
    for (name, fault) in faults {
        mutators.push(said(name, Wanted::undecodable(), move |_| {
            vec![fault.to_vec()]
        }));
        let name = format!("{name}, in a payload");
        mutators.push(said(name, Wanted::undecodable(), move |forge| {
            let number = forge.pick(&[SUBSCRIBE, UNSUBSCRIBE, PING]);
            vec![wire::bytes(number, fault)]
        }));
    }
    mutators.push(said("groups in groups", Wanted::undecodable(), |forge| {
        let levels = forge.between(2, 9000);
        let opened = wire::key(100, GROUP).repeat(levels);
        vec![opened, wire::key(100, GROUP_END).repeat(levels), ping()]
    }));
    mutators.push(said(
        "a known field of another type",
        Wanted::undecodable(),
        |forge| {
            let number = forge.pick(&[TIMESTAMP, POSITION, SUBSCRIBE, PING, CREATED, EXTRA_TOPICS]);
            let wire_type = match number {
                TIMESTAMP => forge.pick(&[FIXED32, FIXED64]),
                _ => forge.pick(&[VARINT, FIXED32, FIXED64]),
            };
            vec![wire::key(number, wire_type), vec![1; 8]]
        },
    ));
    mutators.push(said(
        "text that is not UTF-8",
        Wanted::undecodable(),
        |forge| {
            let bad = forge.pick(&[&b"\xff"[..], b"\xc3(", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]);
            let list = forge.pick(&[PROJECTS, 2, 3, TOPICS]);
            vec![subscribe(&[wire::bytes(list, bad)])]
        },
    ));
    mutators.push(Mutator::new("a message id that is not UTF-8", |forge| {
        let bytes = [wire::bytes(ID, b"a\xff"), ping()].concat();
        Said::bare(bytes, forge, Wanted::undecodable())
    }));
    mutators.push(said(
        "a position in a subscribe that is none",
        Wanted::undecodable(),
        |forge| {
            let bad = forge.pick(&[
                wire::number(RESUME, 5),
                wire::bytes(RESUME, b"\x12\x01"),
                wire::bytes(RESUME, &wire::number(1, 1)),
                wire::bytes(RESUME, &wire::bytes(1, b"\xff")),
            ]);
            vec![subscribe(&[bad])]
        },
    ));
    mutators.push(said("batches in batches", Wanted::undecodable(), |forge| {
        let mut inner = ping();
        for _ in 0..forge.between(101, 2000) {
            inner = wire::bytes(BATCH, &wire::bytes(1, &inner));
        }
        vec![inner]
    }));
    mutators.push(Mutator::new("an envelope that is cut", |forge| {
        let topic = format!("project:{}", forge.id());
        let whole = [
            wire::text(ID, &forge.message_id),
            subscribe(&[wire::text(TOPICS, &topic)]),
        ]
        .concat();
        let id_len = wire::text(ID, &forge.message_id).len();
        let len = forge.between(id_len + 1, whole.len() - 1);
        Said::bare(whole[..len].to_vec(), forge, Wanted::undecodable())
    }));
    mutators
}

fn relay_fields() -> Vec<Mutator<Said>> {
    let mut mutators = Vec::new();
    for (name, id) in [("long", "x".repeat(129)), ("very long", "ü".repeat(9000))] {
        mutators.push(unnamed(format!("a {name} message id"), id));
    }
    for (name, id) in [
        ("NUL", "a\0b"),
        ("a newline", "a\nb"),
        ("DEL", "a\u{7f}"),
        ("a control character beyond ASCII", "\u{85}"),
        ("an escape", "\u{1b}[31m"),
    ] {
        mutators.push(unnamed(format!("{name} in the message id"), id.to_owned()));
    }
    mutators.push(said("two message ids", any_id("message_id"), |forge| {
        vec![wire::text(ID, &forge.message_id), ping()]
    }));
    mutators.push(said(
        "two timestamps",
        Wanted::invalid("timestamp"),
        |forge| {
            let stamp = wire::number(TIMESTAMP, forge.number());
            vec![stamp.clone(), stamp, ping()]
        },
    ));
    mutators.push(said("two positions", Wanted::invalid("position"), |_| {
        vec![wire::bytes(POSITION, b"").repeat(2), ping()]
    }));
    mutators.push(said("an odd timestamp", Wanted::Pong(0), |forge| {
        let stamp = forge.pick(&[0, u64::MAX, 1 << 63, i64::MAX as u64]);
        vec![wire::number(TIMESTAMP, stamp), ping()]
    }));
    for number in 19..=31 {
        let wanted = Wanted::Refused {
            codes: &["VALIDATION_ERROR"],
            names_request: Some(true),
            field: None,
        };
        mutators.push(said(
            format!("reserved field {number}"),
            wanted,
            move |forge| {
                let field = [
                    wire::number(number, forge.number()),
                    wire::text(number, &forge.word(9)),
                ];
                vec![forge.pick(&field), ping()]
            },
        ));
    }
    mutators
}

/// A message id that is none, and is not repeated in the answer.
fn unnamed(name: String, id: String) -> Mutator<Said> {
    let wanted = Wanted::Refused {
        codes: &["VALIDATION_ERROR"],
        names_request: Some(false),
        field: Some("message_id".to_owned()),
    };
    Mutator::new(name, move |forge| {
        let payload = forge.pick(&[ping(), subscribe(&[])]);
        Said::bare(
            [wire::text(ID, &id), payload].concat(),
            forge,
            wanted.clone(),
        )
    })
}

/// The refusal of this field where the id itself may be in doubt.
fn any_id(field: &str) -> Wanted {
    Wanted::Refused {
        codes: &["VALIDATION_ERROR"],
        names_request: None,
        field: Some(field.to_owned()),
    }
}

fn payloads() -> Vec<Mutator<Said>> {
    let mut mutators = vec![
        said("no payload", Wanted::invalid("payload"), |forge| {
            let fields = [vec![], wire::number(TIMESTAMP, 5), wire::text(100, "x")];
            vec![forge.pick(&fields)]
        }),
        said("two payloads", second_payload(), |forge| {
            let payloads = [ping(), subscribe(&[]), wire::bytes(CREATED, b"")];
            vec![forge.pick(&payloads), forge.pick(&payloads)]
        }),
        said("a thousand payloads", second_payload(), |_| {
            vec![ping().repeat(1000)]
        }),
        said(
            "a payload of a number beyond the schema",
            Wanted::invalid("payload"),
            |forge| {
                let number = forge.between(46, 1000) as u32;
                vec![wire::bytes(number, b"")]
            },
        ),
        said("an empty batch", Wanted::invalid("batch"), |_| {
            vec![wire::bytes(BATCH, b"")]
        }),
        said("a batch of pings", Wanted::invalid("batch"), |_| {
            vec![wire::bytes(BATCH, &wire::bytes(1, &ping()).repeat(500))]
        }),
    ];
    for number in (2..=6).chain(32..=44) {
        let wanted = Wanted::Refused {
            codes: &["VALIDATION_ERROR"],
            names_request: Some(true),
            field: None,
        };
        mutators.push(said(
            format!("event {number} from a client"),
            wanted,
            move |_| vec![wire::bytes(number, b"")],
        ));
    }
    for (number, name) in [
        (11, "subscription_confirmed"),
        (13, "unsubscribe_confirmed"),
        (15, "pong"),
        (16, "error"),
    ] {
        let mutator = said(
            format!("{name} from a client"),
            Wanted::invalid(name),
            move |_| vec![wire::bytes(number, b"")],
        );
        mutators.push(mutator);
    }
    for (number, item, name) in [(7, 3, "user_presence"), (45, 2, "user_typing")] {
        // Until the relay passes clients' events on it refuses them as it does
        // others; then this one, of whose topics none is subscribed.
        let wanted = Wanted::Refused {
            codes: &["VALIDATION_ERROR", "AUTHORIZATION_FAILED"],
            names_request: Some(true),
            field: None,
        };
        mutators.push(said(
            format!("{name} without a subscription"),
            wanted,
            move |forge| vec![wire::bytes(number, &wire::text(item, &forge.word(100)))],
        ));
    }
    mutators
}

fn second_payload() -> Wanted {
    Wanted::Refused {
        codes: &["VALIDATION_ERROR"],
        names_request: Some(true),
        field: None,
    }
}

fn topics() -> Vec<Mutator<Said>> {
    let mut mutators = Vec::new();
    for (name, topic) in [
        ("nothing", ""),
        ("no colon", "project"),
        ("no kind", ":1"),
        ("no id", "project:"),
        ("an upper-case kind", "Project:1"),
        ("a kind that begins with a digit", "1project:1"),
        ("a kind that begins with a blank", " project:1"),
        ("a kind with a dash", "pro-ject:1"),
        ("a kind that is not ASCII", "projekt\u{e4}:1"),
        ("a wildcard kind", "*:1"),
        ("wildcards only", "*:*"),
        ("NUL in the id", "project:a\0"),
        ("a newline in the id", "project:a\nb"),
        (
            "a control character beyond ASCII in the id",
            "project:\u{9f}",
        ),
    ] {
        let wanted = Wanted::invalid("subscribe.topics[1]");
        mutators.push(said(format!("a topic with {name}"), wanted, move |forge| {
            let good = wire::text(TOPICS, &format!("project:{}", forge.id()));
            vec![subscribe(&[good, wire::text(TOPICS, topic)])]
        }));
    }
    for (name, kind, id) in [("kind", 33, 1), ("id", 1, 257), ("kind and id", 300, 3000)] {
        let wanted = Wanted::invalid("unsubscribe.topics[0]");
        mutators.push(said(
            format!("a topic whose {name} is too long"),
            wanted,
            move |forge| {
                let topic = format!("{}:{}", forge.word(kind), forge.word(id));
                vec![wire::bytes(UNSUBSCRIBE, &wire::text(TOPICS, &topic))]
            },
        ));
    }
    for (name, id) in [
        ("empty", String::new()),
        ("too long", "x".repeat(257)),
        ("a wildcard", "*".to_owned()),
        ("of control characters", "\u{1}".to_owned()),
    ] {
        for (number, list) in [(1, "project_ids"), (2, "sprint_ids"), (3, "work_item_ids")] {
            let field = format!("subscribe.{list}[1]");
            let id = id.clone();
            let name = format!("an id in {list} that is {name}");
            let wanted = Wanted::Refused {
                codes: &["VALIDATION_ERROR"],
                names_request: Some(true),
                field: Some(field),
            };
            mutators.push(said(name, wanted, move |forge| {
                let lists = [wire::text(number, &forge.id()), wire::text(number, &id)];
                vec![subscribe(&lists)]
            }));
        }
    }
    for topic in [
        "user:ann",
        "user:*",
        "tenant:*",
        "tenant:acme",
        "project:*",
        "sprint:*",
        "secret:1",
        "projects:1",
        "users:ann",
    ] {
        mutators.push(said(
            format!("not granted: {topic}"),
            Wanted::unauthorized(),
            move |forge| {
                let good = wire::text(TOPICS, &format!("project:{}", forge.id()));
                vec![subscribe(&[good, wire::text(TOPICS, topic)])]
            },
        ));
    }
    mutators.push(said(
        "too many topics",
        Wanted::invalid("subscribe"),
        |forge| {
            let count = forge.between(1001, 5000);
            let list = forge.pick(&[PROJECTS, 2, 3]);
            vec![subscribe(&[wire::text(list, &forge.id()).repeat(count)])]
        },
    ));
    mutators.push(said(
        "too many topics in four lists",
        Wanted::invalid("subscribe"),
        |forge| {
            let ids: Vec<_> = [1, 2, 3, TOPICS]
                .map(|list| wire::text(list, &format!("project:{}", forge.id())).repeat(251))
                .into();
            vec![subscribe(&ids)]
        },
    ));
    mutators.push(said(
        "too many to unsubscribe",
        Wanted::invalid("unsubscribe"),
        |_| {
            vec![wire::bytes(
                UNSUBSCRIBE,
                &wire::text(PROJECTS, "a").repeat(1001),
            )]
        },
    ));
    mutators.push(said(
        "the relay's numbers that a Subscribe has not",
        subscribed_or_not(),
        |forge| {
            let number = forge.between(18, 31) as u32;
            vec![subscribe(&[wire::number(number, forge.number())])]
        },
    ));
    mutators
}

/// What the contract leaves open.
fn subscribed_or_not() -> Wanted {
    Wanted::Something
}

fn position(epoch: &str, offset: u64) -> Vec<u8> {
    [wire::text(1, epoch), wire::number(2, offset)].concat()
}

/// Positions from which nothing can be resumed.
fn resumes() -> Vec<Mutator<Said>> {
    let resume = |name: &str, from: fn(&mut Forge) -> Vec<u8>| {
        said(name, Wanted::Subscribed, move |forge| {
            let topic = wire::text(PROJECTS, &forge.id());
            let from = from(forge);
            vec![subscribe(&[topic, wire::bytes(RESUME, &from)])]
        })
    };
    let zeros = "0".repeat(32);
    vec![
        resume("from an empty position", |_| vec![]),
        resume("from an offset alone", |forge| {
            wire::number(2, forge.number())
        }),
        resume("from an epoch that is none", move |forge| {
            let epochs = ["", "0", "*", "A", "\0", "+0000000000000000000000000000000"];
            position(forge.pick(&epochs), forge.number())
        }),
        resume("from an epoch in upper case", move |_| {
            position(&"A".repeat(32), 1)
        }),
        resume("from a long epoch", |forge| {
            let len = forge.between(33, 9000);
            wire::text(1, &forge.word(len))
        }),
        resume("from an epoch that never was", move |forge| {
            let epoch = format!("{:016x}{:016x}", forge.number(), forge.number());
            position(&epoch, forge.number() % 100)
        }),
        said(
            "from the end of all offsets",
            Wanted::Subscribed,
            move |forge| {
                let offset = forge.pick(&[u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32]);
                vec![subscribe(&[wire::bytes(RESUME, &position(&zeros, offset))])]
            },
        ),
        resume("from a position with unknown fields", |forge| {
            [wire::bytes(9, &forge.bytes(50)), wire::number(2, 1)].concat()
        }),
        // The last counts, or they are merged.
        said("from two positions", subscribed_or_not(), move |forge| {
            let position = wire::bytes(RESUME, &wire::number(2, forge.number()));
            vec![subscribe(&[position.repeat(2)])]
        }),
    ]
}

fn chance() -> Vec<Mutator<Said>> {
    let faulty = |name: &str, whole: fn(&mut Forge) -> Vec<u8>| {
        Mutator::new(name, move |forge: &mut Forge| {
            let whole = whole(forge);
            let mut bytes = forge.mutated(&whole);
            bytes.truncate(60_000);
            Faulty::said(bytes, forge)
        })
    };
    vec![
        faulty("a ping with faults", |forge| {
            [wire::text(ID, &forge.message_id), ping()].concat()
        }),
        faulty("a subscribe with faults", |forge| {
            let lists = [
                wire::text(PROJECTS, &forge.id()),
                wire::text(TOPICS, "sprint:1"),
                wire::bytes(RESUME, &wire::number(2, 7)),
            ];
            [wire::text(ID, &forge.message_id), subscribe(&lists)].concat()
        }),
        faulty("an event with faults", |forge| forge.event()),
        Mutator::new("rubbish", |forge| {
            let len = forge.between(0, 300);
            let bytes = forge.bytes(len);
            Faulty::said(bytes, forge)
        }),
    ]
}

/// Envelopes of which nobody knows what they say.
struct Faulty;

impl Faulty {
    fn said(bytes: Vec<u8>, forge: &Forge) -> Said {
        Said::bare(bytes, forge, Wanted::Something)
    }
}
