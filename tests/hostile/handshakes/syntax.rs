//! Invalid HTTP, and requests that are too large.

use super::{Handshake, good, is, request, tokenless};
use crate::{campaign::Mutator, forge::Forge, http::Expected};

/// Invalid HTTP.
pub(super) fn syntax() -> Vec<Mutator<Handshake>> {
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
            let bytes = text.replacen("Host: localhost", &format!("Host: localhost\r\n{line}"), 1);
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

/// Makes a request that may be incomplete, so the client closes its sending side.
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

pub(super) fn sizes() -> Vec<Mutator<Handshake>> {
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

pub(super) fn bodies() -> Vec<Mutator<Handshake>> {
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
