//! Tokens that must not let anybody in: the kinds of the token matrix, and good
//! ones with faults. Each is tried in a handshake of its own.

use std::{fs, path::Path, sync::Arc};

use serde_json::{Value, json};

use crate::{
    campaign::{Attacker, Mutator},
    forge::{Forge, Site, base64url, good_claims, signed, signed_by},
    handshakes::{PROTOBUF, tokenless},
    http::Expected,
    socket::Socket,
};

const HEADER: &str = r#"{"alg":"HS256"}"#;

pub(crate) struct Token {
    text: Vec<u8>,
    /// Whether it is offered as a subprotocol, where that can be.
    as_subprotocol: bool,
}

pub(crate) struct TokenAttacker(Arc<Site>);

impl Attacker for TokenAttacker {
    const FAMILY: &'static str = "tokens";
    type Case = Token;

    fn mutators() -> Vec<Mutator<Token>> {
        let mut mutators = faults();
        for group in [
            headers(),
            algorithms(),
            keys(),
            claims(),
            shapes(),
            signatures(),
        ] {
            mutators.extend(group);
        }
        mutators
    }

    fn new(site: &Arc<Site>) -> Self {
        Self(Arc::clone(site))
    }

    async fn attempt(&mut self, case: &Token) -> Result<(), String> {
        let (request, expected) = case.shown();
        let mut socket = Socket::connect(self.0.client).await?;
        socket.send(&request).await;
        let answer = socket.answer(true).await?.ok_or("no answer")?;
        expected.check(&answer, true)?;
        let told = [&answer.body[..], format!("{answer:?}").as_bytes()].concat();
        if case.text.len() > 20 && contains(&told, &case.text) {
            return Err("the token is repeated".to_owned());
        }
        socket.ended().await
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl Token {
    fn in_header(text: impl Into<Vec<u8>>) -> Self {
        Self {
            text: text.into(),
            as_subprotocol: false,
        }
    }

    /// The handshake that brings it, and what is answered.
    fn shown(&self) -> (Vec<u8>, Expected) {
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if self.as_subprotocol && self.text.iter().all(is_name) {
            let offer = [PROTOBUF.as_bytes(), b", bearer.", &self.text].concat();
            let request = tokenless().and("Sec-WebSocket-Protocol", offer);
            return (request.bytes(), Expected::status(&[401]));
        }
        let request = tokenless().and("Authorization", [b"Bearer ", &self.text[..]].concat());
        // What no header can hold is refused by who reads HTTP.
        let is_value = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let expected = match self.text.iter().all(is_value) && self.text.len() < 15_000 {
            true => Expected::status(&[401]),
            false => Expected::bare(&[400, 401, 431]),
        };
        (request.bytes(), expected)
    }
}

/// A kind of token, in either place.
fn kind(
    name: impl Into<String>,
    text: impl Fn(&mut Forge) -> String + Send + Sync + 'static,
) -> Mutator<Token> {
    Mutator::new(name, move |forge| {
        let text = text(forge);
        Token {
            as_subprotocol: forge.flag(),
            text: text.into(),
        }
    })
}

fn parts(token: &str) -> [String; 3] {
    let parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

fn faults() -> Vec<Mutator<Token>> {
    let mut mutators = vec![Mutator::new("a good one with faults", |forge| {
        let good = forge.site.token.clone();
        let mut text = forge.mutated(good.as_bytes());
        // Blanks at its ends do not belong to it.
        if text.trim_ascii() == good.as_bytes() {
            text.truncate(good.len() - 1);
        }
        Token::in_header(text)
    })];
    mutators.push(kind("a letter is another", |forge| {
        const LETTERS: &[u8] = b"ABCDEFGHabcdefgh01234567-_";
        let mut text = forge.site.token.clone().into_bytes();
        let place = forge.below(text.len());
        let others: Vec<_> = LETTERS
            .iter()
            .filter(|byte| **byte != text[place])
            .collect();
        text[place] = *forge.pick(&others);
        String::from_utf8(text).unwrap()
    }));
    for (name, part) in [("header", 0), ("claims", 1), ("signature", 2)] {
        mutators.push(kind(
            format!("a bit of the {name} is another"),
            move |forge| {
                let mut parts = parts(&forge.site.token);
                let text = parts[part].clone().into_bytes();
                let place = forge.below(text.len());
                let swapped = if text[place] == b'A' { b'B' } else { b'A' };
                parts[part].replace_range(place..=place, &char::from(swapped).to_string());
                parts.join(".")
            },
        ));
        mutators.push(kind(format!("another {name}"), move |forge| {
            let mut parts = parts(&forge.site.token);
            let len = forge.between(1, 200);
            parts[part] = base64url(forge.bytes(len));
            parts.join(".")
        }));
    }
    mutators
}

/// Headers with a right signature.
fn headers() -> Vec<Mutator<Token>> {
    let mut mutators = Vec::new();
    for header in [
        "",
        "[]",
        "null",
        "true",
        "\"HS256\"",
        "{",
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":256}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":true}"#,
        r#"{"ALG":"HS256"}"#,
        r#"{"typ":"JWT"}"#,
        r#"[{"alg":"HS256"}]"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","\u0061lg":"none"}"#,
        r#"{"alg":"HS256","kid":null}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":["a"]}"#,
        r#"{"alg":"HS256",}"#,
        r#"{"alg":"HS256"}{}"#,
        r#"{"alg":"HS256"} x"#,
        r#"{'alg':'HS256'}"#,
        r#"{alg:"HS256"}"#,
        r#"{"alg":"HS256","x":NaN}"#,
        r#"{"alg":"HS256","x":1e400}"#,
        r#"{"alg":"HS256","x":"\ud800"}"#,
        "\u{feff}{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\"}\0",
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
    ] {
        mutators.push(kind(format!("header {header:?}"), move |_| {
            signed(header, claims_of("ann"))
        }));
    }
    mutators.push(kind("a header that is deep", |forge| {
        let deep = "[".repeat(forge.between(200, 2000));
        signed(format!(r#"{{"alg":"HS256","x":{deep}}}"#), claims_of("ann"))
    }));
    mutators.push(kind("a header that is not UTF-8", |_| {
        signed(b"{\"alg\":\"HS256\",\"x\":\"\xff\"}", claims_of("ann"))
    }));
    mutators
}

fn claims_of(user: &str) -> String {
    good_claims(user).to_string()
}

fn algorithms() -> Vec<Mutator<Token>> {
    let mut mutators = Vec::new();
    for name in [
        "",
        "none",
        "None",
        "NONE",
        "nOnE",
        "none ",
        "null",
        "hs256",
        "Hs256",
        "HS256 ",
        " HS256",
        "HS256\0",
        "HS-256",
        "HS1",
        "HS224",
        "HS384",
        "HS512",
        "RS1",
        "RSA1_5",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "EdDSA",
        "Ed25519",
        "Ed448",
        "dir",
        "A128KW",
        "RSA-OAEP",
        "HS256,none",
        "../HS256",
    ] {
        mutators.push(kind(format!("alg {name:?}"), move |_| {
            signed(json!({"alg": name}).to_string(), claims_of("ann"))
        }));
    }
    for name in ["none", "None", "NONE", "nOnE", "HS256"] {
        mutators.push(kind(format!("alg {name:?} and no signature"), move |_| {
            let header = base64url(json!({"alg": name}).to_string());
            format!("{header}.{}.", base64url(claims_of("root")))
        }));
    }
    mutators
}

/// Signatures with what everybody can have.
fn keys() -> Vec<Mutator<Token>> {
    let mut mutators = Vec::new();
    for file in ["rsa.pub.pem", "p256.pub.pem", "ed25519.pub.pem"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/auth/testdata")
            .join(file);
        let public = fs::read(path).unwrap();
        let der = pem::parse(&public).unwrap().into_contents();
        for (form, secret) in [("as it is", public), ("as DER", der)] {
            mutators.push(kind(format!("{file} {form} as the secret"), move |forge| {
                let named = json!({"alg": "HS256", "kid": file}).to_string();
                let header = forge.pick(&[HEADER, &named]).to_owned();
                signed_by(&secret, header, claims_of("ann"))
            }));
        }
    }
    for (name, secret) in [
        ("nothing", ""),
        ("secret", "secret"),
        ("the algorithm", "HS256"),
    ] {
        mutators.push(kind(format!("{name} as the secret"), move |_| {
            signed_by(secret.as_bytes(), HEADER, claims_of("ann"))
        }));
    }
    mutators.push(kind("a secret by chance", |forge| {
        let len = forge.between(1, 200);
        signed_by(&forge.bytes(len), HEADER, claims_of("ann"))
    }));
    for header in [
        json!({"alg": "HS256", "jwk": {"kty": "oct", "k": base64url("evil"), "alg": "HS256"}}),
        json!({"alg": "HS256", "jku": "https://evil.example/jwks.json"}),
        json!({"alg": "HS256", "x5u": "https://evil.example/cert.pem"}),
        json!({"alg": "HS256", "x5c": ["MIIB"]}),
        json!({"alg": "HS256", "kid": "../../../../dev/null"}),
        json!({"alg": "HS256", "kid": "' OR 1=1 --"}),
    ] {
        mutators.push(kind(format!("a key of its own, {header}"), move |_| {
            signed_by(b"evil", header.to_string(), claims_of("ann"))
        }));
    }
    mutators.push(kind("a kid of another key", |forge| {
        let kid = forge.pick(&["p256", "rsa"]);
        signed(
            json!({"alg": "HS256", "kid": kid}).to_string(),
            claims_of("ann"),
        )
    }));
    mutators
}

/// Claims with a right signature.
fn claims() -> Vec<Mutator<Token>> {
    let mut mutators = Vec::new();
    for claim in ["exp", "iss", "aud", "tenant_id", "user_id"] {
        mutators.push(kind(format!("no {claim}"), move |_| {
            let mut claims = good_claims("ann");
            claims.as_object_mut().unwrap().remove(claim);
            signed(HEADER, claims.to_string())
        }));
    }
    let long_name = format!("\"{}\"", "x".repeat(129));
    let long_topic = format!("[\"project:{}\"]", "x".repeat(257));
    let name = [
        "\"\"",
        &long_name,
        "\"a\\nb\"",
        "\"\\u0000\"",
        "\"a\\u007f\"",
        "\"\\u0085\"",
        "null",
        "true",
        "1.0",
        "1.5",
        "1e3",
        "-0",
        "18446744073709551616",
        "[\"acme\"]",
        "{}",
        "[]",
    ];
    let date = [
        "-1",
        "-0.5",
        "-1e300",
        "null",
        "true",
        "\"4000000000\"",
        "\"\"",
        "[1]",
        "{}",
        "1e400",
        "NaN",
        "Infinity",
        "0x7fffffff",
        "+1",
        "1.",
    ];
    let groups: [(&str, &[&str]); 9] = [
        ("tenant_id", &name),
        ("user_id", &name),
        ("exp", &date),
        ("nbf", &date),
        ("iat", &date),
        (
            "exp",
            &["0", "1", "1e-9", "1700000000", "1700000000.5", "-0.0"],
        ),
        (
            "nbf",
            &["4100000000", "4e9", "18446744073709551615", "1e300"],
        ),
        (
            "iss",
            &[
                "\"\"",
                "\"https://id.example/\"",
                "\"https://ID.example\"",
                "\"http://id.example\"",
                "null",
                "1",
                "[\"https://id.example\"]",
                "{}",
            ],
        ),
        (
            "aud",
            &[
                "\"\"",
                "\"Sidewire\"",
                "\"sidewire \"",
                "\"side\"",
                "[]",
                "[\"other\"]",
                "null",
                "1",
                "{}",
                "[\"sidewire\",1]",
                "[[\"sidewire\"]]",
                "\"other sidewire\"",
            ],
        ),
    ];
    for (claim, values) in groups {
        mutators.extend(values.iter().map(|value| replaced(claim, value)));
    }
    for topics in [
        "null",
        "true",
        "1",
        "\"\"",
        "\"project:1\"",
        "{}",
        "[1]",
        "[null]",
        "[[]]",
        "[\"\"]",
        "[\"*\"]",
        "[\"*:*\"]",
        "[\":\"]",
        "[\"project\"]",
        "[\"project:\"]",
        "[\"Project:1\"]",
        "[\"pro*:1\"]",
        "[\"project:a\\u0000\"]",
        "[\"project:1\",2]",
        "[\" project:1\"]",
        &long_topic,
    ] {
        mutators.push(replaced("topics", topics));
    }
    let good = claims_of("ann");
    for (name, text) in [
        ("a list", format!("[{good}]")),
        ("twice", format!("{good}{good}")),
        ("null", "null".to_owned()),
        ("nothing", String::new()),
        ("a text", "\"ann\"".to_owned()),
        ("behind a byte order mark", format!("\u{feff}{good}")),
        ("in single quotes", good.replace('"', "'")),
        ("with a comma too many", good.replace('}', ",}")),
        (
            "with exp twice",
            good.replace("\"exp\"", "\"exp\":1,\"exp\""),
        ),
        (
            "with user_id twice",
            good.replace("\"user_id\"", "\"\\u0075ser_id\":\"root\",\"user_id\""),
        ),
        (
            "too deep",
            format!("{}{good}{}", r#"{"x":"#.repeat(130), "}".repeat(130)),
        ),
        ("a token", signed(HEADER, &good)),
    ] {
        mutators.push(kind(format!("claims: {name}"), move |_| {
            signed(HEADER, &text)
        }));
    }
    mutators
}

/// One claim with another value.
fn replaced(claim: &'static str, value: &str) -> Mutator<Token> {
    let mut claims = good_claims("ann");
    claims.as_object_mut().unwrap().remove(claim);
    let text = claims.to_string();
    let rest = text.strip_suffix('}').unwrap();
    let claims = format!("{rest},{}:{value}}}", Value::from(claim));
    let name: String = value.chars().take(40).collect();
    kind(format!("{claim} {name}"), move |_| signed(HEADER, &claims))
}

fn shapes() -> Vec<Mutator<Token>> {
    let shape = |name: &str, text: fn(&str, [String; 3]) -> String| {
        kind(format!("shape: {name}"), move |forge| {
            let good = forge.site.token.clone();
            text(&good, parts(&good))
        })
    };
    vec![
        shape("nothing", |_, _| String::new()),
        shape("a dot", |_, _| ".".into()),
        shape("two dots", |_, _| "..".into()),
        shape("three dots", |_, _| "...".into()),
        shape("null", |_, _| "null".into()),
        shape("the header", |_, [h, _, _]| h),
        shape("two parts", |_, [h, c, _]| format!("{h}.{c}")),
        shape("no signature", |_, [h, c, _]| format!("{h}.{c}.")),
        shape("no header", |_, [_, c, s]| format!(".{c}.{s}")),
        shape("no claims", |_, [h, _, s]| format!("{h}..{s}")),
        shape("four parts", |good, [_, _, s]| format!("{good}.{s}")),
        shape("five parts", |good, [_, c, s]| format!("{good}.{c}.{s}")),
        shape("a dot behind", |good, _| format!("{good}.")),
        shape("a dot before", |good, _| format!(".{good}")),
        shape("in quotes", |good, _| format!("\"{good}\"")),
        shape("twice", |good, _| format!("{good},{good}")),
        shape("escaped dots", |_, [h, c, s]| format!("{h}%2E{c}%2E{s}")),
        shape("the word Bearer before", |good, _| format!("Bearer {good}")),
        shape("a newline in it", |_, [h, c, s]| format!("{h}\r\n.{c}.{s}")),
        shape("a NUL behind", |good, _| format!("{good}\0")),
        shape("as JSON", |_, [h, c, s]| {
            format!(r#"{{"protected":"{h}","payload":"{c}","signature":"{s}"}}"#)
        }),
        shape("parts swapped", |_, [h, c, s]| format!("{c}.{h}.{s}")),
        shape("padded", |_, [h, c, s]| format!("{h}.{c}.{s}=")),
        shape("a plus in the signature", |_, [h, c, s]| {
            format!("{h}.{c}.+{}", &s[1..])
        }),
        kind("shape: too long", |forge| {
            let padding = forge.word(8300);
            let mut claims = good_claims("ann");
            claims["pad"] = padding.into();
            signed(HEADER, claims.to_string())
        }),
        kind("shape: letters", |forge| {
            let len = forge.between(1, 9000);
            forge.word(len)
        }),
        Mutator::new("shape: bytes", |forge| {
            let len = forge.between(1, 300);
            // Never a line's end, behind which headers would follow.
            let bytes = forge.bytes(len).into_iter();
            Token::in_header(bytes.filter(|byte| *byte != b'\n').collect::<Vec<_>>())
        }),
        kind("shape: an odd text", |forge| {
            forge.odd_text().replace(['\r', '\n'], "")
        }),
    ]
}

fn signatures() -> Vec<Mutator<Token>> {
    let signature = |name: &str, text: fn(&mut Forge) -> Vec<u8>| {
        kind(format!("signature: {name}"), move |forge| {
            let [header, claims, _] = parts(&forge.site.token);
            let bytes = text(forge);
            format!("{header}.{claims}.{}", base64url(bytes))
        })
    };
    vec![
        signature("zeros", |_| vec![0; 32]),
        signature("ones", |_| vec![0xff; 32]),
        signature("by chance", |forge| forge.bytes(32)),
        signature("of another length", |forge| {
            let len = forge.pick(&[1, 16, 31, 33, 48, 64, 256]);
            forge.bytes(len)
        }),
        kind("signature: cut", |forge| {
            let good = forge.site.token.clone();
            let cut = forge.between(1, 40);
            good[..good.len() - cut].to_owned()
        }),
        kind("signature: of other claims", |forge| {
            let [header, _, signature] = parts(&forge.site.token);
            format!("{header}.{}.{signature}", base64url(claims_of("root")))
        }),
        kind("signature: of a header with a blank", |forge| {
            let [_, claims, signature] = parts(&forge.site.token);
            format!("{}.{claims}.{signature}", base64url(r#"{"alg": "HS256"}"#))
        }),
    ]
}
